"""The lesson: exercises pass our answers and name each misconception; the notebook is whole and current."""

import hashlib
import inspect
import itertools
import json
import re

import pytest
import torch
from helpers import HERE

from spanrel import EQUATIONS
from tools.exercises import EXERCISES, check

ADDED = EXERCISES["leaky_weights"].properties + EXERCISES["attend"].properties  # to those of test_spanrel.py
NOTEBOOK = json.loads((HERE / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
CODE = [cell | {"source": "".join(cell["source"])} for cell in NOTEBOOK if cell["cell_type"] == "code"]
TEXTS = ["".join(cell["source"]) for cell in NOTEBOOK if cell["cell_type"] == "markdown"]


def printed(cell):
    """What a cell wrote."""
    return "".join("".join(output.get("text", "")) for output in cell["outputs"])


# -- The exercises check themselves --------------------------------------------------------------------------


@pytest.mark.parametrize("holds", ADDED, ids=lambda holds: holds.__name__)
def test_the_lessons_own_properties_hold_of_our_answers(holds):
    (name,) = inspect.signature(holds).parameters
    holds(**{name: EXERCISES[name].ours})


@pytest.mark.parametrize("name", EXERCISES)
def test_every_check_passes_our_answer_and_names_each_misconception(name, capsys):
    exercise = EXERCISES[name]
    assert check(name, exercise.ours) == exercise.points and "passed" in capsys.readouterr().out
    assert check(name, lambda *inputs: None) == 0 and capsys.readouterr().out == f"{name}: not written yet\n"
    assert check(name, lambda *inputs: print(end="")) == 0
    assert "return" in capsys.readouterr().out or exercise.many
    assert len(exercise.wrong) >= 3
    for misconception, wrong in exercise.wrong.items():
        assert check(name, wrong) == 0
        message = capsys.readouterr().out
        assert message.startswith(f"{name}: {misconception}\n")
        assert "  expected: " in message or "  does not hold: " in message
    assert check(name, lambda *inputs: 1 / 0) == 0 and "not yet" in capsys.readouterr().out


@pytest.mark.parametrize("name", EXERCISES)
def test_an_answer_that_changes_its_arguments_is_one_mistake_and_spoils_no_later_check(name, capsys):
    exercise = EXERCISES[name]
    places = [k for k, value in enumerate(exercise.inputs[0]) if isinstance(value, torch.Tensor)]

    def careless(*inputs):
        result = exercise.ours(*inputs)
        inputs[places[0]].zero_()
        return result

    if places and not exercise.many:
        assert check(name, careless) == 0 and "changes its arguments" in capsys.readouterr().out
        assert check(name, exercise.ours) == exercise.points


# -- The notebook --------------------------------------------------------------------------------------------


def test_the_notebooks_outputs_are_those_of_its_code_and_all_of_it_ran():
    digest = hashlib.sha256("\n".join(cell["source"] for cell in CODE).encode()).hexdigest()[:16]
    assert f"the outputs of the code {digest}" in printed(CODE[-1]), "run it again: docs/teaching.md says how"
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    outputs = itertools.chain(*(cell["outputs"] for cell in CODE))
    kinds = {(output["output_type"], output.get("name")) for output in outputs}  # no error, nothing on stderr
    assert kinds == {("stream", "stdout"), ("execute_result", None), ("display_data", None)}
    assert max(len(cell["source"].splitlines()) for cell in CODE) <= 25


def test_the_notebook_has_every_equation_in_the_papers_order_and_a_body_only_where_no_exercise_asks_for_it():
    assert re.findall(r"\\tag\{(\w+)\}", "".join(TEXTS)) == [*EQUATIONS]
    shown = "".join(map(printed, CODE)) + "".join(cell["source"] for cell in CODE)
    for number, equation in EQUATIONS.items():
        function = inspect.unwrap(equation)
        answer = inspect.getsource(function).splitlines()[-1].strip()
        assert f"{function.__name__}(" in shown, number
        assert (answer in shown) == (function.__name__ not in EXERCISES), number


def test_every_exercise_of_the_notebook_is_graded_by_its_check():
    graded = [cell for cell in CODE if "nbgrader" in cell["metadata"]]
    cells = {cell["metadata"]["nbgrader"]["grade_id"]: cell for cell in graded}
    assert cells.keys() == {*EXERCISES, *(f"check-{name}" for name in EXERCISES)} and len(EXERCISES) >= 10
    for name, exercise in EXERCISES.items():
        stub, test = cells[name], cells[f"check-{name}"]
        assert stub["source"].startswith(f"def {name}(") and stub["source"].endswith("    ...  # yours")
        assert stub["metadata"]["nbgrader"]["solution"] and not stub["metadata"]["nbgrader"]["grade"]
        grading = test["metadata"]["nbgrader"]
        assert grading["grade"] and grading["locked"] and grading["points"] == exercise.points
        assert test["source"] == f'check("{name}", {name})' and printed(test) == f"{name}: not written yet\n"
        results = [output for output in test["outputs"] if output["output_type"] == "execute_result"]
        (points,) = ["".join(output["data"]["text/plain"]) for output in results]
        assert points == "0"  # the points that nbgrader takes
    assert len([text for text in TEXTS if text.startswith("### Exercise") and "★" in text]) == 5


@pytest.mark.slow
@pytest.mark.lesson
def test_the_notebook_runs_from_top_to_bottom_with_its_stubs():
    nbclient = pytest.importorskip("nbclient", reason="the lesson's packages: uv run --group lesson")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(HERE / "tutorial.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": HERE}}).execute()
    again = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, old in zip(again, CODE, strict=True):
        if "body(" in cell.source:  # the functions that it shows are those of today
            assert printed(cell) == printed(old) or "numbers(" in cell.source
