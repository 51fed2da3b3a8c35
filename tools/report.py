"""Runs beside the paper's Tables 1 to 4, and how far the full model is ahead of each other model.

    python -m tools.report RUN [RUN …]                run folders, or files of records as docs/results.json
    python -m tools.report docs/results.json --all    with the rows of the paper of which nothing was run

Runs that differ in seed or fold alone stand in one row: their mean ± standard deviation. Intervals are
those of a paired bootstrap over the sentences (Koehn 2004)."""

import dataclasses
import functools
import json
import os
import statistics
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from baselines.published import PRINTED, printed_row, printed_scores
from spanrel import ATTENTION
from support.errors import explain_errors, read_each, run_program
from support.files import read_text
from support.flags import command_of, make_parser
from support.scores import COUNTS, main_tables
from support.tables import CAUSES, markdown
from train import Settings, average_of, flags_of, method_of, settings_of

TITLES = {
    1: "the model and its rivals, on test",
    2: "attention variants, on test",
    3: "span representations taken away, on dev",
    4: "relation representations taken away, on dev",
}
TASKS = ("entity", "relation")
RESAMPLES = 10_000


@dataclass
class Recorded:
    """A run as its metrics.json, or a record of results.json, tells of it."""

    settings: Settings
    record: dict

    def f1(self, task: str, phenomenon: str = "", name: str = "f1") -> float | None:
        """A score in the paper's average, or of a phenomenon; None where there is no gold to measure by."""
        record = self.record.get("phenomena", {}).get(phenomenon) if phenomenon else self.record
        if not record or not main_tables(record)[task]["micro"].get("gold", 1):
            return None
        return main_tables(record)[task]["micro" if phenomenon else average_of(self.settings)][name]

    @functools.cached_property
    def counts(self) -> dict[str, torch.Tensor]:
        """Gold, predicted and correct of each type and sentence (types 3 sentences), by task."""
        tensors = {}
        for task in TASKS:
            rows = []
            for columns in self.record.get("by_sentence", {}).get(task, {}).values():
                rows.append([list(map(int, columns[name].split())) for name in COUNTS])
            tensors[task] = torch.tensor(rows, dtype=torch.float64)
        return tensors

    @property
    def scored_on(self) -> tuple | None:
        """What the run was scored on, its fold and its sentences' gold counts; None if it does not tell."""
        if not self.counts["entity"].numel():
            return None
        tasks = [counts for counts in self.counts.values() if counts.numel()]
        return (self.settings.fold, *[tuple(counts[:, 0].sum(0).tolist()) for counts in tasks])


Groups = dict[str, list[Recorded]]  # runs by their command line, without seed and fold


def read_runs(path: str) -> list[Recorded]:
    """The runs of a run folder, or of a JSON list of records."""
    where = Path(path) / "metrics.json" if Path(path).is_dir() else Path(path)
    text = read_text(where)
    with explain_errors(where, "what a run writes at its end, or a list of such records (docs/results.json)"):
        content = json.loads(text)
        runs = []
        for record in content if isinstance(content, list) else [content]:
            run = Recorded(settings_of(**record["flags"]), record)
            for task in TASKS:  # an error in the record is raised now
                run.counts[task], figures([run], task, "", ("p", "r", "f1"))
            run_row("", [run])
            runs.append(run)
    return runs


def group_runs(runs: list[Recorded]) -> tuple[Groups, Groups]:
    """The runs by their command, and apart from them those of changed code, which carry a note."""
    groups, changed = {}, {}
    for run in runs:
        command = command_of(flags_of(dataclasses.replace(run.settings, seed=0, fold=0)))
        note = " ".join(str(run.record.get("note", "")).split())
        if note:
            changed.setdefault(f"{command} # {note}", []).append(run)
        else:
            groups.setdefault(command, []).append(run)
    return groups, changed


def report(paths: list[str], with_all: bool = False) -> str:
    """The four tables, the differences, and all runs with their commands, in Markdown."""
    runs = []
    for part in read_each(read_runs, [(path,) for path in dict.fromkeys(map(os.path.realpath, paths))]):
        runs += part
    groups, changed = group_runs(runs)
    parts = [table(number, groups, with_all) for number in PRINTED]
    parts += [difference_table(groups), all_runs({**groups, **changed})]
    return "\n\n".join(part for part in parts if part)


def base_of(settings: Settings) -> str:
    """The command of the full model with the same other flags: what another model is to be compared with."""
    flags = flags_of(dataclasses.replace(settings, seed=0, fold=0))
    others = {name: value for name, value in flags.items() if name not in ("model", "attention", "ablate")}
    return command_of(flags_of(settings_of(**others)))


def title_of(settings: Settings) -> str:
    """The model by its name in the tables, with the flags that no other column tells."""
    flags = flags_of(dataclasses.replace(settings, seed=0, fold=0))
    for name in ("dataset", "encoder", "model", "attention", "ablate", "eval_split", "train_on_dev"):
        flags.pop(name, None)
    return method_of(settings) + command_of(flags).removeprefix("python train.py")


# -- The tables ----------------------------------------------------------------------------------------------


@dataclass
class Row:
    """A row of a table. `command` is empty where nothing was run."""

    dataset: str
    model: str
    command: str = ""
    phenomenon: str = ""


def table_rows(number: int, groups: Groups, with_all: bool) -> list[Row]:
    """The rows that the paper prints, then those of other corpora.
    Without `with_all`, corpora of which there is no run are left out."""
    rows, others = [], []
    models = ["multihead"]
    for printed in PRINTED[number].values():
        models += [model for model in printed if model not in models]
    split = "test" if number < 3 else "dev"
    belonging, compared = {}, set()
    for command, (run, *_) in groups.items():
        settings = run.settings
        if method_of(settings) in models[1:]:
            compared.add(base_of(settings))
        if method_of(settings) in models and (settings.dataset == "toy" or settings.eval_split == split):
            belonging[command] = run
    datasets = {run.settings.dataset for run in belonging.values()}
    for dataset, printed in PRINTED[number].items():
        for model in printed if with_all or dataset in datasets else ():
            commands = []
            for command, run in belonging.items():
                if (run.settings.dataset, method_of(run.settings)) == (dataset, model):
                    commands.append(command)
            rows += [Row(dataset, model, command) for command in commands or [""]]
    for command, run in belonging.items():
        settings = run.settings
        if settings.dataset in PRINTED[number] or (number > 1 and base_of(settings) not in compared):
            continue
        phenomena = run.record.get("phenomena", {}) if number > 2 else {}
        for phenomenon in ["", *phenomena]:
            others.append(Row(settings.dataset, method_of(settings), command, phenomenon))

    def order(row):
        settings = groups[row.command][0].settings
        return f"{row.dataset} {row.phenomenon}".strip(), base_of(settings), models.index(row.model)

    return rows + sorted(others, key=order)


def table(number: int, groups: Groups, with_all: bool) -> str:
    """One table in Markdown, and the commands that fill what is missing."""
    lines, missing = [], []
    names = ("p", "r", "f1") if number == 1 else ("f1",)
    for row in table_rows(number, groups, with_all):
        cells = list(map(" / ".join, printed_row(number, row.dataset, row.model))) or ["", ""]
        if not row.command:
            lines.append([row.dataset, row.model, *cells, "", "", "", "0", ""])
            missing += command_for(number, row.dataset, row.model)
            continue
        runs = groups[row.command]
        ours = [figures(runs, task, row.phenomenon, names) for task in TASKS]
        dataset, settings = f"{row.dataset} {row.phenomenon}".strip(), runs[0].settings
        place = place_of(row.command, groups)
        lines.append([dataset, title_of(settings), *cells, *ours, settings.encoder, str(len(runs)), place])
        if row.dataset == "ade":
            done = {run.settings.fold for run in runs}
            missing += [f"`{row.command} --fold {fold}`" for fold in range(10) if fold not in done]
    if not lines:
        return ""
    heads = ["dataset", "model", "paper: entity", "relation", "here: entity", "relation", "encoder", "runs"]
    parts = [f"**Table {number}**: {TITLES[number]}", markdown([*heads, "command"], lines)]
    if any(line[1] == "Multi-turn QA" and line[0] == "conll04" for line in lines):  # [L31]
        parts.append("Multi-turn QA's P and R on conll04 give an F1 of 68.7; the paper prints 68.9.")
    if number > 2 and any(line[0].startswith("toy") for line in lines):
        parts.append("The rows of the toy corpus are of its test split.")
    if missing:
        parts.append(f"Missing: {', '.join(missing)}")
    return "\n\n".join(parts)


def place_of(command: str, groups: Groups) -> str:
    """The number of a command in the last table."""
    return f"({list(groups).index(command) + 1})"


def command_for(number: int, dataset: str, model: str) -> list[str]:
    """The command that fills a row, if this code can."""
    name, *ablate = model.split()
    if name not in (*ATTENTION, "spert"):
        return []
    flags = {"model": name} if name == "spert" else {"attention": name, "ablate": tuple(ablate)}
    settings = settings_of(dataset=dataset, eval_split="test" if number < 3 else "dev", **flags)
    return [f"`{command_of(flags_of(settings))}`"]


def figures(runs: list[Recorded], task: str, phenomenon: str, names: tuple[str, ...]) -> str:
    """The figures of a cell: P, R and F1, or F1 alone."""
    return " / ".join(figure(runs, task, phenomenon, name) for name in names)


def figure(runs: list[Recorded], task: str, phenomenon: str = "", name: str = "f1") -> str:
    """Mean ± standard deviation over runs, or a dash where there is no gold to measure it by."""
    values = [run.f1(task, phenomenon, name) for run in runs]
    values = [value for value in values if value is not None]
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 and name == "f1" else ""
    return f"{statistics.mean(values):.2f}{spread}"


def all_runs(groups: Groups) -> str:
    """Each command with its scores and why relations were missed."""
    rows = [run_row(place_of(command, groups), runs, command) for command, runs in groups.items()]
    causes = [f"missed: {cause}" for cause in CAUSES.values()]
    heads = ["", "entity F1", "relation F1", "runs", "minutes each", *causes, "command"]
    title = "**All runs**, seeds and folds together, and why relations were missed"
    return f"{title}\n\n{markdown(heads, rows)}"


def run_row(place: str, runs: list[Recorded], command: str = "") -> list[str]:
    """One row of that table."""
    sums = Counter()
    for run in runs:
        sums.update(run.record.get("missed_relations", {}))
    missed = [str(sums[cause]) if sums.keys() else "" for cause in CAUSES]
    seconds = [run.record["seconds"] for run in runs if "seconds" in run.record]
    minutes = f"{statistics.mean(seconds) / 60:.1f}" if seconds else ""
    return [place, *(figure(runs, task) for task in TASKS), str(len(runs)), minutes, *missed, f"`{command}`"]


# -- Differences ---------------------------------------------------------------------------------------------


def difference_table(groups: Groups) -> str:
    """By how much F1 of the full model is ahead of each other model with the same other flags.
    With 95 % intervals, beside the margin that the paper prints."""
    rows = []
    for command, runs in groups.items():
        settings, base = runs[0].settings, base_of(runs[0].settings)
        if base == command or base not in groups:
            continue
        sentences = {run.scored_on for run in groups[base]} & {run.scored_on for run in runs} - {None}
        full = [run for run in groups[base] if run.scored_on in sentences]
        other = [run for run in runs if run.scored_on in sentences]
        if not full or not other:
            continue
        counts = f"{len(full)}, {len(other)}"
        places = f"{place_of(base, groups)}, {place_of(command, groups)}"
        for task, margin in zip(TASKS, printed_margins(settings)):
            names = [f"{settings.dataset}, {settings.eval_split}", title_of(settings), task, margin]
            f1 = [figure(full, task), figure(other, task)]
            rows.append([*names, difference(full, other, task), *f1, counts, places])
    rows.sort(key=lambda row: row[0])
    if not rows:
        return ""
    heads = ["dataset", "other model", "F1"]
    heads += ["paper: full − other", "here: full − other", "full", "other", "runs", "commands"]
    title = "**Differences** between the full model and others: 95 % intervals of "
    title += f"{RESAMPLES:,} resamples of the sentences, for these runs; "
    title += "± is the standard deviation over runs"
    return f"{title}\n\n{markdown(heads, rows)}"


def difference(full: list[Recorded], other: list[Recorded], task: str) -> str:
    """By how much F1 of the first is ahead, the mean over folds, with its interval."""
    if not full[0].counts[task].numel() or full[0].f1(task) is None:
        return "–"
    by_fold = []
    for fold in {run.settings.fold for run in full}:
        ours = [run for run in full if run.settings.fold == fold]
        theirs = [run for run in other if run.settings.fold == fold]
        by_fold.append(resampled_f1(ours, task) - resampled_f1(theirs, task))
    ahead = torch.stack(by_fold).mean(0)
    low, high = ahead[1:].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return f"{ahead[0]:+.2f} [{low:+.2f}, {high:+.2f}]"


def printed_margins(settings: Settings) -> list[str]:
    """The same differences between the figures that the paper prints, where it does."""
    for number in (1, 2) if settings.eval_split == "test" else (3, 4):
        full = printed_scores(number, settings.dataset, "multihead")
        other = printed_scores(number, settings.dataset, method_of(settings))
        if full and other:
            return [f"{ours['f1'] - theirs['f1']:+.2f}" for ours, theirs in zip(full, other)]
    return ["", ""]


@functools.lru_cache(1)  # tens of megabytes, and what is compared asks one after the other
def resamples(size: int, fold: int) -> torch.Tensor:
    """How often each sentence counts (1 + RESAMPLES, size): once each, then as often as it is drawn.
    It is the same in each call for that fold, so that a difference of two models is a paired one."""
    drawn = torch.randint(size, (RESAMPLES, size), generator=torch.Generator().manual_seed(fold))
    drawn = torch.cat([torch.arange(size)[None], drawn])
    return torch.zeros(drawn.shape).scatter_add_(1, drawn, torch.ones(drawn.shape)).double()


def resampled_f1(runs: list[Recorded], task: str) -> torch.Tensor:
    """F1 (1 + RESAMPLES), the mean over runs: on their sentences, then on each resample of them."""
    times = resamples(runs[0].counts[task].shape[-1], runs[0].settings.fold)
    curves = []
    for run in runs:
        gold, predicted, correct = (run.counts[task] @ times.T).unbind(1)  # each (types, 1 + RESAMPLES)
        is_there = gold + predicted > 0  # as in `tally`: types that are in gold or predicted
        f1 = 200 * correct / (gold + predicted).clamp(min=1)
        curves.append(f1.sum(0) / is_there.sum(0).clamp(min=1))
    return torch.stack(curves).mean(0)


def main(arguments: list[str] | None = None) -> int:
    """Prints the report of the runs that the command line names."""
    parser = make_parser(__doc__, "python -m tools.report RUN [RUN ...] [--all]")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders, or JSON files of records")
    parser.add_argument("--all", action="store_true", help="also the rows of the paper that were not run")

    def print_report():
        given = parser.parse_args(arguments)
        print(report(given.runs, "all" in given))

    return run_program(print_report)


if __name__ == "__main__":
    sys.exit(main())
