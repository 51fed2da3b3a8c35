"""Runs beside the paper's Tables 1 to 4, and how far the full model is ahead of the others.

    python -m tools.report RUN [RUN …]                run folders, or files such as docs/results.json
    python -m tools.report docs/results.json --all    also the paper's rows that were not run

Runs that differ only in seed or fold share a row: the mean over the seeds of each fold, then over folds,
± the standard deviation over folds, or over the seeds if there is one fold. Intervals come from a bootstrap:
it draws sentences, the same ones for both models (Koehn 2004), and the seeds of each model."""

import json
import os
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch

from baselines.published import PRINTED, average_of, method_of, printed_row, printed_scores
from spanrel import ATTENTION
from support.errors import InputError, excerpt, explain_errors, read_each, run_program, warn
from support.files import read_text
from support.flags import command_of, make_parser
from support.scores import COUNTS, main_tables
from support.tables import CAUSES, markdown
from train import Settings, flags_of, settings_of

TITLES = {
    1: "the model and its rivals, on test",
    2: "attention variants, on test",
    3: "span representations taken away, on dev",
    4: "relation representations taken away, on dev",
}
TASKS = ("entity", "relation")
RESAMPLES = 10_000
FORM = "what a run writes at its end, or a list of such records (docs/results.json)"
# The parts of a record that are read, if they are there: tuples are ranges, strings are forms; * is any name.
AVERAGE = {"p": (0, 100), "r": (0, 100), "f1": (0, 100), "gold": (0, 10**9)}
AVERAGES = {"micro": AVERAGE, "macro": AVERAGE}
SCORES = {"entity": AVERAGES, "relation": {"strict": AVERAGES}}
PARTS = {
    **SCORES,
    "phenomena": {"*": SCORES},
    "flags": {},
    "seconds": (0, 10**9),
    "missed_relations": {"*": (0, 10**9)},
    "by_sentence": {"*": {"*": {"*": r"(\d{1,9}( \d{1,9})*)?"}}},
}


@dataclass
class Recorded:
    """A run as its metrics.json, or a record of results.json, describes it."""

    settings: Settings
    record: dict

    def __post_init__(self):
        """Derives the names of model and encoder, the command without seed and fold, and the counts."""
        flags = flags_of(replace(self.settings, seed=0, fold=0))
        self.command = command_of(flags)
        self.model = method_of(self.settings)
        self.encoder = Path(self.settings.encoder).name
        for name in ("model", "attention", "ablate"):
            flags.pop(name, None)
        self.base = command_of(flags_of(settings_of(**flags)))  # the full model with the same other flags
        free = {name: value for name, value in flags.items() if name not in ("lr", "head_lr")}
        self.base_of_any_rate = command_of(flags_of(settings_of(**free)))
        for name in ("dataset", "encoder", "eval_split", "train_on_dev"):  # left out of the title
            flags.pop(name, None)
        self.title = self.model + command_of(flags).removeprefix("python train.py")
        self.counts = {}  # of each task (types, gold predicted correct, sentences)
        for task in TASKS:
            rows = []
            for columns in self.record.get("by_sentence", {}).get(task, {}).values():
                rows.append([list(map(int, columns[name].split())) for name in COUNTS])
            self.counts[task] = torch.tensor(rows, dtype=torch.float64)
        # The fold and its sentences' gold counts identify the sentences; without counts it is empty.
        gold = [tuple(counts[:, 0].sum(0).tolist()) for counts in self.counts.values() if counts.numel()]
        self.scored_on = (self.settings.fold, *gold) if gold else ()

    def score(self, task: str, phenomenon: str = "", name: str = "f1") -> float | None:
        """A score in the paper's average, or of a phenomenon; None where there is no gold to measure by."""
        record = self.record.get("phenomena", {}).get(phenomenon) if phenomenon else self.record
        if not record or not main_tables(record)[task]["micro"].get("gold", 1):
            return None
        return main_tables(record)[task]["micro" if phenomenon else average_of(self.settings)][name]


Groups = dict[str, list[Recorded]]  # runs by their command line, without seed and fold


def read_runs(path: str) -> list[Recorded]:
    """The runs of a run folder (none if it is not finished), or of a JSON list of records."""
    file = Path(path) / "metrics.json" if Path(path).is_dir() else Path(path)
    if (Path(path) / "config.json").exists() and not file.exists():
        return []
    text = read_text(file)
    with explain_errors(file, FORM):
        content = json.loads(text)
    if type(content) is not list:
        return [read_run(content, file)]
    return read_each(read_run, [(record, f"{file}, record {k}") for k, record in enumerate(content)])


def read_run(record, where) -> Recorded:
    """The run of a record. An error names the place of the record, `where`."""
    with explain_errors(where, FORM):
        check_parts(record, PARTS, "it")
        run = Recorded(settings_of(**record["flags"]), record)
        for task in TASKS:  # a score that is missing is an error now
            figures([run], task, names=("p", "r", "f1"))
            for phenomenon in record.get("phenomena", {}):
                figures([run], task, phenomenon)
    return run


def check_parts(value, parts, where: str):
    """Refuses what is not an object with these parts, a number in this range, or counts."""
    if isinstance(parts, tuple):
        low, high = parts
        if type(value) not in (int, float) or not low <= value <= high:
            raise InputError(f"{where} is {excerpt(value)}; must be a number from {low} to {high}")
    elif isinstance(parts, str):
        if type(value) is not str or not re.fullmatch(parts, value):
            raise InputError(f'{where} is {excerpt(value)}; must be counts, such as "1 0 2"')
    elif type(value) is not dict:
        raise InputError(f"{where} is {excerpt(value)}; must be an object")
    else:
        for name in value:
            if name in parts or "*" in parts:
                check_parts(value[name], parts.get(name, parts.get("*")), f"{where}.{name}")


def group_runs(runs: list[Recorded]) -> tuple[Groups, Groups]:
    """The runs by their command, and apart from them those of changed code, which carry a note."""
    groups, changed = {}, {}
    for run in runs:
        note = " ".join(str(run.record.get("note", "")).split())
        if note:
            changed.setdefault(f"{run.command} # {note}", []).append(run)
        else:
            groups.setdefault(run.command, []).append(run)
    return groups, changed


def report(paths: list[str], with_all: bool = False) -> str:
    """The four tables, the differences, and all runs with their commands, in Markdown."""
    paths = list(dict.fromkeys(map(os.path.realpath, paths)))
    runs_of_paths = read_each(read_runs, [(path,) for path in paths])
    reason = "there is no finished run in it"
    empty = [f"{path}: {reason}" for path, runs in zip(paths, runs_of_paths) if not runs]
    if not any(runs_of_paths):
        raise InputError("\n".join(empty))
    warn(empty)
    distinct = {json.dumps(run.record, sort_keys=True): run for run in chain(*runs_of_paths)}  # no copies
    groups, changed = group_runs(list(distinct.values()))
    parts = [table(number, groups, with_all) for number in PRINTED]
    parts += [difference_table(groups), all_runs({**groups, **changed})]
    return "\n\n".join(filter(None, parts))


# -- The tables ----------------------------------------------------------------------------------------------


@dataclass
class Row:
    """A row of a table. `command` is empty where nothing was run; `dataset` includes the phenomenon."""

    dataset: str
    model: str
    command: str = ""
    phenomenon: str = ""


def table_rows(number: int, groups: Groups, with_all: bool) -> list[Row]:
    """The rows that the paper prints, then those of other corpora.
    Without `with_all`, corpora of which there is no run are left out."""
    models = list(dict.fromkeys(chain(["multihead"], *PRINTED[number].values())))
    split = "test" if number < 3 else "dev"
    belonging = {}
    for command, (run, *_) in groups.items():
        wanted = "test" if run.settings.dataset == "toy" else split
        if run.model in models and run.settings.eval_split == wanted:
            belonging[command] = run
    compared = {run.base for run in belonging.values() if run.model != "multihead"}
    commands, others = {}, []
    for command, run in belonging.items():
        dataset = run.settings.dataset
        if dataset in PRINTED[number]:
            commands.setdefault((dataset, run.model), []).append(command)
        elif number == 1 or run.base in compared:
            for phenomenon in ["", *run.record.get("phenomena", {})] if number > 2 else [""]:
                others.append(Row(f"{dataset} {phenomenon}".strip(), run.model, command, phenomenon))
    others.sort(key=lambda row: (row.dataset, belonging[row.command].base, models.index(row.model)))
    rows = []
    datasets = {run.settings.dataset for run in belonging.values()}
    for dataset, printed in PRINTED[number].items():
        for model in printed if with_all or dataset in datasets else ():
            rows += [Row(dataset, model, command) for command in commands.get((dataset, model), [""])]
    return rows + others


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
        cells += [figures(runs, task, row.phenomenon, names) for task in TASKS]
        cells += [runs[0].encoder, str(len(runs)), place_of(row.command, groups)]
        lines.append([row.dataset, runs[0].title, *cells])
        if row.dataset == "ade":
            folds = {run.settings.fold for run in runs}
            missing += [f"`{row.command} --fold {fold}`" for fold in range(10) if fold not in folds]
    if not lines:
        return ""
    heads = ["dataset", "model", "paper: entity", "relation", "here: entity", "relation", "encoder", "runs"]
    parts = [f"**Table {number}**: {TITLES[number]}", markdown([*heads, "command"], lines)]
    if any(line[:2] == ["conll04", "Multi-turn QA"] for line in lines):  # [L31]
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
    name, _, ablated = model.partition(" without ")
    if name not in (*ATTENTION, "spert"):
        return []
    flags = {"model": name} if name == "spert" else {"attention": name}
    if ablated:
        flags["ablate"] = ablated.split(" and ")
    settings = settings_of(dataset=dataset, eval_split="test" if number < 3 else "dev", **flags)
    return [f"`{command_of(flags_of(settings))}`"]


def figures(runs: list[Recorded], task: str, phenomenon: str = "", names: tuple = ("f1",)) -> str:
    """Means over the runs of each fold, then over folds; a dash where there is no gold to measure by.
    F1 has its standard deviation: that of the folds' means, or that of the runs where all are of one fold."""
    cells = []
    for name in names:
        by_fold = {}
        for run in runs:
            value = run.score(task, phenomenon, name)
            if value is not None:
                by_fold.setdefault(run.settings.fold, []).append(value)
        values = list(map(statistics.mean, by_fold.values()))  # [L21]
        if len(by_fold) == 1:
            (values,) = by_fold.values()
        cells.append(f"{statistics.mean(values):.2f}" if values else "–")
        if name == "f1" and len(values) > 1:
            cells[-1] += f" ± {statistics.stdev(values):.2f}"
    return " / ".join(cells)


def all_runs(groups: Groups) -> str:
    """Each command with its scores and why relations were missed."""
    rows = []
    for command, runs in groups.items():
        f1 = [figures(runs, task) for task in TASKS]
        seconds = [run.record["seconds"] for run in runs if "seconds" in run.record]
        minutes = f"{statistics.mean(seconds) / 60:.1f}" if seconds else ""
        sums = Counter()
        for run in runs:
            sums.update(run.record.get("missed_relations", {}))
        missed = [str(sums[cause]) if sums else "" for cause in CAUSES]
        rows.append([place_of(command, groups), *f1, str(len(runs)), minutes, *missed, f"`{command}`"])
    causes = [f"missed: {cause}" for cause in CAUSES.values()]
    heads = ["", "entity F1", "relation F1", "runs", "minutes each", *causes, "command"]
    return f"**All runs**, seeds and folds together, and why relations were missed\n\n{markdown(heads, rows)}"


# -- Differences ---------------------------------------------------------------------------------------------


def difference_table(groups: Groups) -> str:
    """By how much F1 of the full model is ahead of each other model, with 95 % intervals, beside the margin
    that the paper prints."""
    rows = []
    for command, runs in groups.items():
        for base, full in full_models(command, runs[0], groups).items():
            sentences = {run.scored_on for run in full} & {run.scored_on for run in runs} - {()}
            ours = [run for run in full if run.scored_on in sentences]
            theirs = [run for run in runs if run.scored_on in sentences]
            places = f"{place_of(base, groups)}, {place_of(command, groups)}"
            if sentences:
                rows += difference_rows(ours, theirs, places)
    if not rows:
        return ""
    heads = ["dataset", "encoder", "full model", "other model", "F1"]
    heads += ["paper: full − other", "here: full − other", "full", "other"]
    title = f"**Differences** between the full model and others: 95 % intervals of {RESAMPLES:,} resamples "
    title += "of the sentences and, where there are several, of the seeds; ± is the standard deviation over "
    title += "folds, or one fold's seeds"
    rows.sort(key=lambda row: row[:2])
    return f"{title}\n\n{markdown([*heads, 'runs', 'commands'], rows)}"


def full_models(command: str, run: Recorded, groups: Groups) -> Groups:
    """The full models that a model is compared with: those with the same other flags.
    SpERT has a learning rate of its own, so the full model may have any."""
    fitting = {}
    for base, full in groups.items():
        is_fitting = base == run.base
        if run.settings.model == "spert":
            is_fitting = full[0].model == "multihead" and full[0].base_of_any_rate == run.base_of_any_rate
        if is_fitting and base != command:
            fitting[base] = full
    return fitting


def difference_rows(full: list[Recorded], other: list[Recorded], places: str) -> list[list[str]]:
    """A row for entities and one for relations."""
    rows, settings = [], other[0].settings
    corpus = f"{settings.dataset}, {settings.eval_split}"
    models, sizes = [full[0].title, other[0].title], f"{len(full)}, {len(other)}"
    for task, margin in zip(TASKS, printed_margins(settings)):
        f1 = [figures(full, task), figures(other, task)]
        ahead = difference(full, other, task)
        rows.append([corpus, other[0].encoder, *models, task, margin, ahead, *f1, sizes, places])
    return rows


def difference(full: list[Recorded], other: list[Recorded], task: str) -> str:
    """By how much F1 of the first is ahead, the mean over folds, with its interval."""
    if not full[0].counts[task].numel() or full[0].score(task) is None:
        return "–"
    by_fold = []
    for fold in {run.settings.fold for run in full}:
        ours = [run for run in full if run.settings.fold == fold]
        theirs = [run for run in other if run.settings.fold == fold]
        by_fold.append(resampled_f1(ours, task, 1) - resampled_f1(theirs, task, 2))
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


def resamples(size: int, fold: int) -> Iterator[torch.Tensor]:
    """How often each sentence counts (rows, size): once each, then as often as it is drawn, RESAMPLES times.
    It is the same in each call for that fold, so that a difference of two models is a paired one. The rows
    come in blocks of some megabytes, however many sentences there are."""
    yield torch.ones(1, size, dtype=torch.float64)
    generator, rows = torch.Generator().manual_seed(fold), max(1, 10**6 // size)
    for start in range(0, RESAMPLES, rows):
        drawn = torch.randint(size, (min(rows, RESAMPLES - start), size), generator=generator)
        ones = torch.ones(drawn.shape, dtype=torch.float64)
        yield torch.zeros_like(ones).scatter_add_(1, drawn, ones)


def resampled_f1(runs: list[Recorded], task: str, stream: int = 0) -> torch.Tensor:
    """F1 (1 + RESAMPLES), the mean over runs: as they are, then on each resample of sentences and seeds.
    A single run shows no variance over seeds; n runs show (n - 1) / n of it, so intervals are a bit narrow.
    Models whose `stream` differs have seeds drawn independently of each other."""
    blocks = []
    for times in resamples(runs[0].counts[task].shape[-1], runs[0].settings.fold):
        blocks.append(torch.stack([f1_of(run.counts[task] @ times.T) for run in runs]))
    curves = torch.cat(blocks, 1)
    generator = torch.Generator().manual_seed(stream)
    drawn = torch.randint(len(runs), (len(runs), 1 + RESAMPLES), generator=generator)
    drawn[:, 0] = torch.arange(len(runs))
    return curves.gather(0, drawn).mean(0)


def f1_of(counts: torch.Tensor) -> torch.Tensor:
    """F1 of counts (types, gold predicted correct, resamples): the mean over the types that are there."""
    gold, predicted, correct = counts.unbind(1)
    is_present = gold + predicted > 0  # as in `tally`: types that are in gold or predicted
    f1 = 200 * correct / (gold + predicted).clamp(min=1)
    return f1.sum(0) / is_present.sum(0).clamp(min=1)


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
