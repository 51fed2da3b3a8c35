"""What README.md and docs/ say is so: functions, tests, commands, tables, ledger numbers."""

import json
import re
import shlex
from pathlib import Path
from statistics import mean, stdev

import pytest
from helpers import HERE, needs_corpora
from test_tools import cells_of

import data
import spanrel
import test_spanrel
import train
from spanrel import EQUATIONS
from support.errors import InputError
from tools import benchmark, report

README = (HERE / "README.md").read_text(encoding="utf-8")
INTERVAL = re.compile(r"([+-]?\d+\.\d+)\s\[([+-]?\d+\.\d+),\s([+-]?\d+\.\d+)\]")
# The means and deviations of entities and of relations.
DEVIATION = re.compile(r"(\d+\.\d+) ± (\d+\.\d+) (?:/|\|(?: [\d.]+ /)*) (\d+\.\d+) ± (\d+\.\d+)")
PROGRAMS = ("train.py", "data.py", "tools.benchmark", "tools.lesson", "tools.report")
DOCS = {path.name: path.read_text(encoding="utf-8") for path in sorted((HERE / "docs").glob("*.md"))}
CODE = [HERE / name for name in ("spanrel.py", "data.py", "train.py")]
for _folder in ("corpora", "baselines", "support", "tools"):
    CODE += sorted((HERE / _folder).glob("*.py"))


def test_every_ledger_number_in_the_code_has_its_row_and_every_row_its_line():
    code = "".join(path.read_text(encoding="utf-8") for path in CODE)
    rows = re.findall(r"^\| (L\d+) \|", DOCS["ledger.md"], re.M)
    assert rows == [f"L{k}" for k in range(1, len(rows) + 1)]
    assert set(re.findall(r"\[(L\d+)\]", code)) == set(rows)


def test_every_function_and_test_that_the_readme_names_exists():
    section = README.partition("## Equation, function, test")[2].partition("\n## ")[0]
    names = set(re.findall(r"`(\w+)`", section))
    existing = {*vars(test_spanrel), *vars(spanrel), *vars(data)}
    assert {function.__name__ for function in EQUATIONS.values()} <= names
    assert {name for name in names if "_" in name} <= existing


def test_ci_runs_the_commands_of_the_readme_with_pip():
    (block,) = re.findall(r"Or with pip:\n\n```sh\n(.*?)```", README, re.S)
    script = (HERE / ".ci/run").read_text(encoding="utf-8").splitlines()
    commands = block.splitlines()
    assert [line for line in script if line in commands] == commands


def commands_in(text):
    """The command lines of this project in a page: in blocks of code, and in the text."""
    program = r"(?:python|uv run|torchrun\b[^`\n]*?) "
    lines = re.findall(program + r"((?:-m tools\.\w+|train\.py|data\.py)[^`\n#|>;]*)", text)
    return [line.strip() for line in lines if "…" not in line and "$" not in line and "--help" not in line]


@pytest.mark.parametrize("page", ["README.md", *DOCS])
def test_every_command_is_one_of_today(page):
    text = README if page == "README.md" else DOCS[page]
    parser = train.make_train_parser()
    for command in commands_in(text):
        program, *words = shlex.split(command)
        if program == "-m":
            program, *words = words
        assert program in PROGRAMS, command
        if program == "train.py":
            parser.parse_args(words)
        if program == "tools.benchmark":
            assert set(word for word in words if word.startswith("--")) <= flags_of_benchmark(), command


def flags_of_benchmark():
    """The flags that `python -m tools.benchmark` has."""
    return {word for action in benchmark.make_benchmark_parser()._actions for word in action.option_strings}


def test_a_command_of_yesterday_is_noticed():
    (command,) = commands_in("run `python train.py --glue 1` now")
    with pytest.raises(InputError, match="--glue"):
        train.make_train_parser().parse_args(shlex.split(command)[1:])


@pytest.fixture(scope="module")
def whole_report():
    """What `python -m tools.report docs/results.json --all` prints, whose intervals take some seconds."""
    return report.report([str(HERE / "docs/results.json")], with_all=True)


def test_the_tables_of_the_reproduction_are_the_reports(whole_report):
    printed = whole_report.splitlines()
    tables = [part.splitlines() for part in DOCS["reproduction.md"].split("\n\n") if part.startswith("| ")]
    copied = [rows for rows in tables if rows[0] in printed]
    assert len(copied) == 5
    for rows in copied:
        assert set(rows) <= set(printed)
    (commands,) = [rows[2:] for rows in tables if rows[0].startswith("|  | command")]
    listed = {cells_of(row)[0]: cells_of(row) for row in printed if row.startswith("| (")}
    for row in commands:
        number, *rest = cells_of(row)
        assert rest == [listed[number][-1], *listed[number][3:5]]
    named = set()
    for rows in copied:
        for row in rows[2:]:
            named.update(row.split("|")[-2].strip().split(", "))
    assert named - {""} == {cells_of(row)[0] for row in commands}


def test_the_intervals_in_the_text_of_the_reproduction_are_those_of_its_tables():
    text, _, tables = DOCS["reproduction.md"].replace("−", "-").partition("## Tables")
    known = [list(map(float, match)) for match in INTERVAL.findall(tables)]
    quoted = INTERVAL.findall(text.partition("## What held")[2])
    assert len(quoted) > 15
    for match in quoted:
        one_digit = pytest.approx(list(map(float, match)), abs=0.051)
        assert one_digit in known, match


def test_the_scores_in_the_readme_are_those_of_the_report(whole_report):
    known = [list(map(float, match)) for match in DEVIATION.findall(whole_report)]
    quoted = DEVIATION.findall(README)
    assert len(quoted) == 10
    for match in quoted:
        assert pytest.approx(list(map(float, match)), abs=0.051) in known, match


LAYERS = {"0": "tiny", "1": "tiny-1", "2": "tiny-2"}
# The columns of the table of the mechanisms: a phenomenon, and what is scored on it.
MEASURED = (("span", "entity"), ("local", "relation"), ("sentence", "entity"), ("sentence", "relation"))


def test_the_table_of_the_mechanisms_is_made_of_the_recorded_runs():
    runs = [run for run in report.read_runs(HERE / "docs/results.json") if run.settings.dataset == "toy"]
    (rows,) = re.findall(r"^\| layers of .*\n\|.*\n((?:\|.*\n)+)", DOCS["reproduction.md"], re.M)
    for row in rows.splitlines():
        layers, change, *cells = cells_of(row)
        parts = [" and ".join(names.split()) for names in re.findall(r"`(.*)`", change)]
        model = "spert" if "SpERT" in change else " without ".join(["multihead", *parts])
        same = [run for run in runs if run.encoder == LAYERS[layers]]
        for cell, (phenomenon, task) in zip(cells, MEASURED, strict=True):
            figures = {}
            for name in (model, "multihead"):
                scores = [run.score(task, phenomenon) for run in same if run.model == name]
                figures[name] = mean(scores), stdev(scores)
            assert cell.strip("*") == "{:.1f} ± {:.1f}".format(*figures[model])
            loss = figures["multihead"][0] - figures[model][0]
            is_clear = loss > max(2, 2 * figures[model][1], 2 * figures["multihead"][1])
            assert cell.startswith("**") == is_clear, row


@needs_corpora
def test_the_code_of_the_reproduction_prints_what_stands_beside_it(monkeypatch, capsys):
    monkeypatch.chdir(HERE)
    for code in re.findall(r"```python\n(.*?)```", DOCS["reproduction.md"], re.S):
        exec(code, {})
        printed = capsys.readouterr().out
        assert printed.count("\n") >= 2 and printed in DOCS["reproduction.md"]


@pytest.mark.slow
def test_the_readmes_corpus_trains_and_predicts(tmp_path):
    (written,) = re.findall(r"```json\n(.*?)```", README, re.S)
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.json").write_text(written, encoding="utf-8")
    assert len(json.loads(written)) == 3 and data.main(["--dataset", str(tmp_path)]) == 0
    flags = re.search(r"python train.py --dataset mine (.*) --output runs/mine", README)[1].split()
    assert train.main(["--dataset", str(tmp_path), *flags, "--output", str(tmp_path / "run")]) == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["relation"]["strict"]["micro"]["f1"] == 100


@pytest.mark.parametrize("page", ["README.md", *DOCS])
def test_every_link_within_the_project_has_its_target(page):
    text, folder = (README, HERE) if page == "README.md" else (DOCS[page], HERE / "docs")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", text):
        if not target.startswith("http"):
            assert (folder / target).exists(), target


def test_the_tree_of_the_readme_names_what_is_there():
    (tree,) = re.findall(r"## Files\n\n```\n(.*?)```", README, re.S)
    for line in tree.splitlines():
        assert (HERE / Path(line.split()[0])).exists(), line
