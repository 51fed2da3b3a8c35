"""The lesson: exercises pass our answers and name each misconception; the notebook is whole and current."""

import hashlib
import inspect
import itertools
import json
import re

import pytest
import torch
from answers import RIGHT, WRONG
from helpers import HERE

from data import enumerate_spans
from spanrel import EQUATIONS, span_ends, span_specific
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
    for misconception, wrong in exercise.wrong.items():
        assert check(name, wrong) == 0
        message = capsys.readouterr().out
        assert message.startswith(f"{name}: {misconception}\n")
        shows_what_it_found(message, exercise)
    assert check(name, lambda *inputs: 1 / 0) == 0 and "not yet" in capsys.readouterr().out


def shows_what_it_found(message, exercise):
    """Asserts that a rejection gives an input, the answer, and an expected one that looks different."""
    assert "  smallest input:  " in message or "  counterexample:  " in message
    (yours,) = re.findall("^  yours:           (.+)$", message, re.MULTILINE)
    expected = re.findall("^  expected:        (.+)$", message, re.MULTILINE)
    assert expected != [yours] and len(expected) == (0 if exercise.many else 1)


def test_there_are_a_hundred_wrong_answers_and_forty_right_ones_and_some_for_each_exercise():
    assert sum(len(exercise.wrong) for exercise in EXERCISES.values()) >= 150
    assert min(len(exercise.wrong) for exercise in EXERCISES.values()) >= 5
    assert len(RIGHT) >= 60 and {name for name, _ in RIGHT} == EXERCISES.keys()


@pytest.mark.parametrize("name, answer", RIGHT, ids=lambda value: getattr(value, "__name__", value))
def test_every_check_passes_right_answers_in_other_styles(name, answer, capsys):
    points = check(name, answer)
    assert points == EXERCISES[name].points, capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize("name, answer, misconception", WRONG, ids=[f.__name__ for _, f, _ in WRONG])
def test_every_check_knows_a_misconception_in_another_form(name, answer, misconception, capsys):
    assert check(name, answer) == 0
    message = capsys.readouterr().out
    assert message.startswith(f"{name}: {misconception}")
    shows_what_it_found(message, EXERCISES[name])


def test_the_inputs_are_those_of_two_sentences():
    for name in ("span_ends", "token_weights", "span_specific", "relation_tuple", "mask_between", "attend"):
        assert EXERCISES[name].batched
        for inputs in EXERCISES[name].inputs:
            assert {len(value) for value in inputs if isinstance(value, torch.Tensor)} == {2}
    for inputs in EXERCISES["micro_f1"].inputs + EXERCISES["idle_share"].inputs:
        assert len(inputs[0]) >= 2


def test_what_random_inputs_find_is_printed_with_the_input_that_hypothesis_found(capsys):
    def two_faults(X, spans):  # of which hypothesis makes a group of exceptions
        if spans.shape[1] > 2:
            raise ValueError("many spans")
        return span_ends(X, spans) * (1 if len(X) < 3 else 2)

    assert check("span_ends", two_faults) == 0
    message = capsys.readouterr().out
    assert message.startswith("span_ends: not yet\n  does not hold:   eq 1 agrees with the loop\n")
    assert "  counterexample:  X = [[[" in message and "spans = [[[" in message and "Group" not in message
    assert "  yours:           ValueError: many spans\n" in message
    shows_what_it_found(message, EXERCISES["span_ends"])

    assert check("enumerate_spans", lambda n, k: [s for s in enumerate_spans(n, k) if s[1] < 30]) == 0
    message = capsys.readouterr().out  # of a list that is too long to be printed
    assert "n = 30\n" in message and "  yours:           from number " in message
    shows_what_it_found(message, EXERCISES["enumerate_spans"])


@pytest.mark.parametrize("factor", [2, 1.01, 1.0005])
def test_as_many_digits_are_printed_as_show_a_difference(factor, capsys):
    assert check("span_specific", lambda alpha, X: factor * span_specific(alpha, X)) == 0
    shows_what_it_found(capsys.readouterr().out, EXERCISES["span_specific"])
    assert check("joint_loss", lambda L_s, L_r: 0.4 * L_s + (0.6 + 2e-5) * L_r) == 0
    assert "yours:           0.60002\n  expected:        0.6\n" in capsys.readouterr().out


def test_a_gradient_that_is_lost_is_named_by_its_argument(capsys):
    assert check("span_specific", lambda alpha, X: alpha.detach() @ X) == 0
    message = capsys.readouterr().out
    assert "  yours:           the gradient of alpha is None\n" in message
    assert "  expected:        the gradient of alpha is [[" in message


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
