"""The lesson: exercises pass our answers and name each misconception; the notebook is whole and current."""

import html
import inspect
import itertools
import json
import re
import shutil
import statistics
import sys
from types import SimpleNamespace

import numpy
import pytest
import torch
from answers import RIGHT, WRONG
from helpers import HERE, SMALL, toy_run

import data
from data import enumerate_spans
from spanrel import (
    EQUATIONS,
    Attention,
    filter_spans,
    mask_between,
    span_ends,
    span_representation,
    span_specific,
)
from support.errors import InputError
from tools import answers, lesson, solutions
from tools.exercises import EXERCISES, beside, check, grade

OWN = ("leaky_weights", "first_layer", "attend", "multi_head", "reading_of")  # not only test_spanrel.py's
ADDED = [holds for name in OWN for holds in EXERCISES[name].properties]
FILE = HERE / "tutorial.ipynb"
WHOLE = json.loads(FILE.read_text(encoding="utf-8"))
NOTEBOOK = WHOLE["cells"]
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
    assert check(name, nbgraders_stub) == 0 and capsys.readouterr().out == f"{name}: not written yet\n"
    assert check(name, lambda *inputs: print(end="")) == 0
    assert "return" in capsys.readouterr().out or exercise.many
    for misconception, wrong in exercise.wrong.items():
        assert check(name, wrong) == 0
        message = capsys.readouterr().out
        assert message.startswith(f"{name}: {misconception}\n")
        shows_what_it_found(message, exercise)
    assert check(name, lambda *inputs: 1 / 0) == 0 and "not yet" in capsys.readouterr().out


def nbgraders_stub(X):
    # YOUR CODE HERE
    raise NotImplementedError()


def shows_what_it_found(message, exercise):
    """Asserts that a rejection gives an input, the answer, and an expected one that looks different."""
    assert "  smallest input:  " in message or "  counterexample:  " in message
    (yours,) = re.findall("^  yours:           (.+)$", message, re.MULTILINE)
    expected = re.findall("^  expected:        (.+)$", message, re.MULTILINE)
    assert expected != [yours] and len(expected) == (0 if exercise.many else 1)


def test_there_are_hundreds_of_wrong_answers_and_right_ones_in_other_styles_for_each_exercise():
    assert sum(len(exercise.wrong) for exercise in EXERCISES.values()) >= 300
    assert min(len(exercise.wrong) for exercise in EXERCISES.values()) >= 5
    assert len(RIGHT) >= 60 and {name for name, _ in RIGHT} == EXERCISES.keys()


PUBLISHED = [(name, getattr(answers, name)) for name in EXERCISES]  # in the solved notebook


@pytest.mark.parametrize("name, answer", RIGHT + PUBLISHED, ids=lambda v: getattr(v, "__name__", v))
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


def test_to_call_the_layer_on_the_whole_is_no_answer_to_its_being_taken_apart(capsys):
    assert check("first_layer", lesson.layer_of_the_whole) == 0
    assert "this is the layer of R_s as a whole; take its weight apart" in capsys.readouterr().out


WHOLE_PRODUCTS = {
    "matmul": lambda R_s, linear: R_s @ linear.weight.T + linear.bias,
    "linear": lambda R_s, linear: torch.nn.functional.linear(R_s, linear.weight, linear.bias),
    "einsum": lambda R_s, linear: torch.einsum("bsr,hr->bsh", R_s, linear.weight) + linear.bias,
    "mm": lambda R_s, linear: torch.stack([R.mm(linear.weight.T) for R in R_s]) + linear.bias,
    "addmm": lambda R_s, linear: torch.stack([linear.bias.addmm(R, linear.weight.T) for R in R_s]),
    "inner": lambda R_s, linear: torch.inner(R_s, linear.weight) + linear.bias,
    "bmm": lambda R_s, linear: R_s.bmm(linear.weight.T.expand(len(R_s), -1, -1)) + linear.bias,
    "mul": lambda R_s, linear: (R_s[:, :, None] * linear.weight).sum(-1) + linear.bias,
    "tensordot": lambda R_s, linear: torch.tensordot(R_s, linear.weight, ([2], [1])) + linear.bias,
}


@pytest.mark.parametrize("product", WHOLE_PRODUCTS)
def test_a_product_with_the_whole_weight_is_no_answer_either(product, capsys):
    def answer(T_s, F_s, X, W, spans, linear):
        return WHOLE_PRODUCTS[product](span_representation(T_s, F_s, span_ends(X, spans), W), linear)

    assert check("first_layer", answer) == 0
    message = capsys.readouterr().out
    assert "does not hold:   no product takes the weight as a whole" in message
    assert message.endswith("  the numbers are right\n")


def test_a_place_that_is_filled_up_has_the_index_of_a_span(capsys):
    def filtration_filled_up_with_the_number_of_spans(y_s, is_span):
        kept, is_entity = filter_spans(y_s, is_span)
        return kept.where(is_entity, y_s.shape[1]), is_entity

    def filtration_by_lists(y_s, is_span):  # which makes floats of nothing
        kept, is_entity = filter_spans(y_s, is_span)
        return torch.tensor(kept.tolist()), is_entity

    assert check("filter_spans", filtration_filled_up_with_the_number_of_spans) == 0
    shows_what_it_found(capsys.readouterr().out, EXERCISES["filter_spans"])
    assert check("filter_spans", filtration_by_lists) == 0
    assert "indexes are whole numbers" in capsys.readouterr().out


def test_a_model_of_ones_own_asks_ours_where_there_is_no_span_or_no_pair():
    def by_loops(spans, pairs, N):
        rows = [mask_between(spans, pairs[:, k : k + 1], N)[:, 0] for k in range(pairs.shape[1])]
        return torch.stack(rows, 1)

    spans, pairs = torch.tensor([[[1, 2], [4, 6]]]), torch.tensor([[[0, 1]]])
    spared = lesson.sparing({"mask_between": by_loops, "ATTENTION": {}})
    with pytest.raises(RuntimeError):
        by_loops(spans, pairs[:, :0], 8)
    assert spared["mask_between"](spans, pairs[:, :0], 8).shape == (1, 0, 8) and spared["ATTENTION"] == {}
    assert torch.equal(spared["mask_between"](spans, pairs, 8), by_loops(spans, pairs, 8))


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


def test_what_is_drawn_beside_what_is_expected_is_the_answer_its_error_or_a_word():
    alpha, X = torch.ones(1, 1, 2), torch.ones(1, 2, 3)
    yours, expected = beside("span_specific", span_specific, alpha, X)
    assert torch.equal(yours, expected)
    yours, expected = beside("span_specific", lambda alpha, X: 1 / 0, alpha, X)
    assert yours == "ZeroDivisionError: division by zero" and expected.shape == (1, 1, 3)
    assert beside("span_specific", nbgraders_stub, alpha, X)[0] == "not written yet"


# -- For marks that count, and for teachers ------------------------------------------------------------------

CHEATS = {
    "an alias": "span_ends = spanrel.span_ends",
    "a call": "def span_ends(X, spans):\n    return spanrel.span_ends(X, spans)",
    "by the number": "def span_ends(X, spans):\n    return spanrel.EQUATIONS['1'](X, spans)",
    "an import": "def span_ends(X, spans):\n    import tools.answers as a\n    return a.span_ends(X, spans)",
    "a partial": "import functools\nspan_ends = functools.partial(spanrel.span_ends)",
    "kept": "n = numpy.ones(3)\nkept = spanrel.span_ends\ndef span_ends(*inputs):\n    return kept(*inputs)",
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_an_answer_that_is_or_calls_ours_passes_the_check_but_earns_no_marks(cheat, capsys):
    place = {"spanrel": lesson.spanrel, "numpy": numpy}
    exec(CHEATS[cheat], place)
    assert check("span_ends", place["span_ends"]) == 1
    assert grade("span_ends", place["span_ends"]) == 0
    assert re.search("that is ours|must not call ours|made by def", capsys.readouterr().out)
    assert lesson.spanrel.span_ends is span_ends and EQUATIONS["1"] is span_ends


def test_an_answer_may_not_call_the_loss_by_the_place_where_training_has_it(capsys):
    place = {"train": lesson.train}
    exec("def joint_loss(*losses):\n    return train.joint_loss(*losses)", place)
    assert check("joint_loss", place["joint_loss"]) == 1 and grade("joint_loss", place["joint_loss"]) == 0


@pytest.mark.parametrize("name", EXERCISES)
def test_an_honest_answer_earns_all_marks(name):
    place = {"spanrel": lesson.spanrel, "torch": torch, "numbers": numpy.arange(3)}
    exec(inspect.getsource(getattr(answers, name)), place)
    assert grade(name, place[name]) == EXERCISES[name].points


def without_solutions(text):
    """A cell as nbgrader gives it to students."""
    return re.sub("    ### BEGIN SOLUTION.*?    ### END SOLUTION", "    ...  # yours", text, flags=re.DOTALL)


@pytest.mark.parametrize("hidden", [False, True])
def test_the_solved_notebook_without_its_answers_is_the_notebook(hidden, tmp_path, capsys):
    file = tmp_path / "solved.ipynb"
    assert lesson.main(["--solutions", str(file), *["--hidden"] * hidden]) == 0
    solved = json.loads(file.read_text(encoding="utf-8"))["cells"]
    hides = answered = 0
    for cell, old in zip(solved, NOTEBOOK, strict=True):
        text = "".join(cell["source"])
        answered += "### BEGIN SOLUTION" in text
        if "### BEGIN HIDDEN TESTS" in text:
            hides += 1
            assert text == solutions.HIDDEN and cell["metadata"]["nbgrader"]["grade"]
        else:
            assert without_solutions(text) == "".join(old["source"]) and cell["metadata"] == old["metadata"]
    assert hides == hidden and answered == len(EXERCISES)
    rubric = (tmp_path / "solved.md").read_text(encoding="utf-8")
    points = sum(exercise.points for exercise in EXERCISES.values())
    assert f"All exercises together: {points} points" in rubric
    for name, exercise in EXERCISES.items():
        assert f"## {name}, {exercise.points} point" in rubric
        assert all(f"- {mistake}\n" in rubric for mistake in exercise.wrong)


def test_the_checks_that_are_released_hold_no_reference():
    released = solutions.HIDDEN.partition("### BEGIN HIDDEN TESTS")[0]
    assert "tools" not in released
    place = {}
    exec(released, place)
    assert place["check"]("span_ends", span_ends) == 0
    assert place["beside"]("span_ends", lambda X: X, 5) == (5, "shown when it is marked")
    for cell in CODE:
        assert cell["source"] == solutions.CHECKS or "tools.exercises" not in cell["source"]


@pytest.mark.parametrize("given, words", [
    (["--solutions", "solved.txt"], "a notebook ends in .ipynb"),
    (["--solutions", str(FILE)], "tutorial.ipynb exists"),
    (["--solutions", str(HERE / "docs/teaching.ipynb")], "teaching.md exists"),
    (["--execute", "--hidden"], "--hidden goes with --solutions"),
])  # fmt: skip
def test_solutions_are_written_beside_the_lesson_and_not_over_it(given, words, capsys):
    files = FILE, HERE / "docs/teaching.md"
    before = [file.read_bytes() for file in files]
    assert lesson.main(given) == 2 and words in capsys.readouterr().err
    assert [file.read_bytes() for file in files] == before and not (HERE / "docs/teaching.ipynb").exists()


def test_the_records_of_other_seeds_stay_when_a_seed_is_trained(tmp_path, monkeypatch):
    def train_model(name, seed):
        return lesson.Trained({"model": name, "seed": seed, "f1": {"entity": 1.0}})

    monkeypatch.setattr(lesson, "train_model", train_model)
    before = lesson.stored_records()
    shutil.copy(lesson.STORED, tmp_path / "lesson.json")
    lesson.write_records([9, 2], tmp_path / "lesson.json")
    records = json.loads((tmp_path / "lesson.json").read_text())
    assert [record["seed"] for record in records] == sorted([*range(5), 9] * len(lesson.FLAGS))
    for record in records:
        assert record["seed"] in (2, 9) or record in before
    lesson.write_records([3], tmp_path / "new.json")
    assert len(json.loads((tmp_path / "new.json").read_text())) == len(lesson.FLAGS)


def test_all_parts_of_a_model_of_ones_own_have_a_place_where_it_is_called():
    (cell,) = [cell["source"] for cell in CODE if "class YourMultiHead" in cell["source"]]
    names = re.findall(r"(\w+)=\1[,)]", cell)
    assert len(names) == 17 and {*names} <= {*EXERCISES}
    for name in {*names} - {"multi_head"}:  # which is put into ATTENTION
        assert any(hasattr(module, name) for module in (lesson.spanrel, lesson.data, lesson.train)), name


ODD = ([0, 1, 2], [(0, 1, 2)], ["a"], [(0, 1), [1, 2]], [(0, 9)], [(2, 1)], None, "no", torch.ones(3), (1, 2))


@pytest.mark.parametrize("answer", ODD, ids=repr)
def test_what_cannot_be_drawn_is_shown_in_words(answer, monkeypatch):
    pictures = pytest.importorskip("tools.lesson_pictures", reason="the lesson's packages")
    texts = []
    monkeypatch.setattr(pictures, "show_figure", lambda fig, alt: texts.extend(map(texts_of, fig.axes)))
    pictures.show_beside(answer, [(0, 1), (0, 2), (1, 2)], ["a", "b"], ["a", "b"])
    yours, expected, _ = texts  # the third one is the bar of the shades
    assert len(yours) == 1 and expected == []


def texts_of(ax):
    """The texts in a picture."""
    return [text.get_text() for text in ax.texts]


def test_functions_stand_in_place_of_ours_for_a_while():
    ours = lesson.spanrel.span_ends, lesson.train.joint_loss
    with lesson.in_place(span_ends=abs, joint_loss=max, attend=min):
        assert (lesson.spanrel.span_ends, lesson.train.joint_loss) == (abs, max)
        assert not hasattr(lesson.spanrel, "attend")
    assert (lesson.spanrel.span_ends, lesson.train.joint_loss) == ours


def test_answers_are_spared_what_no_exercise_mentions(monkeypatch):
    def begin(settings):
        found = lesson.spanrel.span_ends(torch.ones(1, 4, 3), torch.zeros(1, 0, 2, dtype=torch.long))
        raise InputError(str(tuple(found.shape)))

    monkeypatch.setattr(lesson.train, "begin", begin)
    with pytest.raises(InputError, match=r"^\(1, 0, 6\)$"):  # not ZeroDivisionError
        lesson.train_model("multihead", 0, span_ends=lambda X, spans: X / (1 // spans.shape[1]))


# -- The notebook --------------------------------------------------------------------------------------------


def test_the_notebooks_outputs_are_those_of_its_code_and_all_of_it_ran():
    digest = lesson.code_digest(NOTEBOOK)
    assert WHOLE["metadata"]["outputs_of_code"] == digest, "run it again: docs/teaching.md says how"
    changed = [*NOTEBOOK[:-1], {"cell_type": "code", "source": "1"}]
    assert lesson.code_digest(changed) != digest
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


def test_the_notebook_is_small_its_lines_are_short_and_its_pictures_have_a_text():
    assert FILE.stat().st_size <= 400_000
    for cell in NOTEBOOK:
        assert "execution" not in cell["metadata"]  # its times
        for line in "".join(cell["source"]).splitlines():
            assert len(line) <= 110 or line.startswith(("$$", "|", "[![")), line
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                data = {kind: "".join(content) for kind, content in output["data"].items()}
                (alt,) = re.findall(r'^<img alt="(.*?)" src="data:image/png', data["text/html"])
                assert len(alt) > 20 and html.unescape(alt) == data["text/plain"]


def test_every_link_of_the_notebook_leads_to_a_place_in_it_and_every_equation_has_one():
    text = "\n".join(TEXTS)
    places = re.findall(r'<a id="([\w-]+)"></a>', text)
    assert len(places) == len(set(places)) and {f"eq-{number}" for number in EQUATIONS} <= set(places)
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) == set(places)
    for target in re.findall(r"\]\(([\w/.]+)\)", text):
        assert (HERE / target).exists(), target


def test_the_minutes_of_the_sections_add_up_and_the_badge_is_of_the_repository_that_is_cloned():
    minutes = [int(number) for number in re.findall(r"^\| .* \| (\d+) \|$", TEXTS[0], re.M)]
    assert f"about {sum(minutes)} minutes" in " ".join(TEXTS[0].split()) and 75 <= sum(minutes) <= 100
    (repository,) = re.findall(r'"https://github.com/([\w/]+)"', CODE[0]["source"])
    assert f"colab.research.google.com/github/{repository}/blob/main/tutorial.ipynb" in TEXTS[0]


# -- What is said of the models ------------------------------------------------------------------------------


def test_five_seeds_of_every_model_are_stored():
    found = [(record["model"], record["seed"]) for record in lesson.stored_records()]
    assert sorted(found) == sorted(itertools.product(lesson.FLAGS, range(5)))
    for record in lesson.stored_records():
        settings = lesson.settings_of(record["model"], record["seed"])
        assert record["flags"] == lesson.train.flags_of(settings)
        assert len(record["history"]) == lesson.EPOCHS


def test_the_words_about_models_follow_from_their_figures(monkeypatch):
    stored = []
    for seed, (f1, other) in enumerate([(80.0, 70.0), (82.0, 90.0)]):
        stored.append({"model": "a", "seed": seed, "f1": {"x": f1}})
        stored.append({"model": "b", "seed": seed, "f1": {"x": other}})
    monkeypatch.setattr(lesson, "stored_records", lambda: stored)
    live = {"a": {"f1": {"x": 50.0}}, "b": {"f1": {"x": 60.0}}}
    _, row, _ = lesson.seeds_table("x", live, "f1", "x").splitlines()
    assert row.split() == "a 50.0 81.0 ± 1.4 80.0 to 82.0".split()
    assert lesson.best_in(["a", "b"], "f1", "x") == "the highest of 2 seeds: a in 1, b in 1"
    columns = (lesson.values("a", "f1", "x"), lesson.values("b", "f1", "x"))
    text = lesson.difference("x", (50.0, 60.0), columns)
    stored_runs = "over 2 stored seeds +1.0 on average (-8.0 to +10.0), below 0 in 1 of them"
    assert text == f"x: -10.0 in this run; {stored_runs}"
    assert lesson.difference("x", (1.0, 1.0), ([1.0], [1.0])).endswith("below 0 in 0 of them")


def test_the_recorded_ablations_are_those_of_five_seeds_with_the_default_encoder():
    scores = lesson.ablation_scores()
    assert {len(values) for by_label in scores.values() for values in by_label.values()} == {5}
    assert all(by_label.keys() == lesson.ABLATED.keys() for by_label in scores.values())


def test_each_phenomenon_is_measured_by_what_it_was_made_for():
    def of(f1):
        return {"micro": {"f1": f1}}

    def scores(entity, relation):
        return {"entity": of(entity), "relation": {"strict": of(relation)}}

    parts = {"span": scores(3, 4), "local": scores(5, 6), "sentence": scores(7, 8)}
    f1 = lesson.f1_of({**scores(1, 2), "phenomena": parts})
    assert f1 == {"entity": 1, "relation": 2, "span": 3, "local": 6, "sentence": 8}


def test_the_bar_of_a_training_run_counts_its_epochs_and_is_gone_after_the_last(monkeypatch):
    shown, handle = [], SimpleNamespace(update=lambda given, raw: shown.append(given))
    notebook = SimpleNamespace(display=lambda *given, **more: handle)
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    bar = lesson.EpochBar()
    for epoch in range(1, lesson.EPOCHS + 1):
        bar.write(f"epoch {epoch}  loss 1")
        bar.write("\n")
    words = [f"epoch {epoch}" for epoch in range(1, lesson.EPOCHS)]
    assert [given["text/plain"] for given in shown] == [*words, ""]
    assert shown[0]["text/html"] == f'<progress max="{lesson.EPOCHS}" value="1"></progress>'
    assert shown[-1]["text/html"] == ""


def test_rates_see_where_the_weights_are(monkeypatch):
    sentences = lesson.data.read_corpus("toy").test
    verdict, compound = lesson.verdict_sentences(sentences), lesson.compound_sentences(sentences)
    assert len(verdict) > 30 and len(compound) == 100 and len(lesson.counted_sentences(sentences)) > 30
    for sentence in compound:
        first, second = lesson.word_index(sentence, lesson.NOUNS)
        (entity,) = sentence.entities
        assert second == first + 1 and entity.start <= first and second < entity.end
        is_drug = sentence.words[second].lower() in lesson.toy.FORMS
        assert entity.type == ("Drug" if is_drug else "Adverse-Effect")
    for sentence in verdict:
        assert len(lesson.word_index(sentence, lesson.VERDICTS)) == 1 and len(sentence.entities) == 2

    def look_at_the_word_that_decides(run, sentences):
        looks = []
        for sentence in sentences:
            deciding = lesson.word_index(sentence, lesson.VERDICTS | lesson.NOUNS)
            row = torch.zeros(1, len(sentence.words))
            row[0, deciding[-1:]] = 1.0
            weights = {"2b": row, "3": row, "8": row, "7": torch.full((1, 4), 0.25)}
            looks.append(lesson.Look([], list(range(len(sentence.words))), weights))
        return looks

    monkeypatch.setattr(lesson, "look", look_at_the_word_that_decides)
    rates = lesson.rates(None, sentences)
    assert rates.pop("7 words") == 4
    assert set(rates.values()) == {100.0}


def test_a_look_has_the_weights_that_the_model_itself_computes(monkeypatch):
    run, sentences = toy_run(), [sentence for sentence in SMALL.train if sentence.entities]
    assert any(s.relations and s.relations[0].head.start > s.relations[0].tail.start for s in sentences)
    found, weights_of, model = {}, Attention.weights, run.model.eval()

    def watched(attention, query, context, mask):
        found[attention] = weights_of(attention, query, context, mask)
        return found[attention]

    monkeypatch.setattr(Attention, "weights", watched)
    for sentence, seen in zip(sentences, lesson.look(run, sentences), strict=True):
        (encoded,) = run.encode([sentence])
        example = data.training_example(encoded, run.entity_types, run.relation_types, data.Sampling())
        batch = run.batch([example])
        model(*batch.inputs, batch.pairs, batch.arguments)
        gold = [(entity.start, entity.end) for entity in sentence.entities]
        rows = [example.spans.index(span) for span in gold]
        torch.testing.assert_close(found[model.attention_s][0].mean(0)[rows], seen.weights["3"])
        for relation in sentence.relations[:1]:
            arguments = [(argument.start, argument.end) for argument in (relation.head, relation.tail)]
            pair = example.pairs.index(tuple(map(example.spans.index, arguments)))
            torch.testing.assert_close(found[model.attention_c][0].mean(0)[[pair]], seen.weights["7"])
            torch.testing.assert_close(found[model.attention_S][0].mean(0)[[pair]], seen.weights["8"])


def test_the_weights_before_training_stand_before_those_after_it():
    looks = []
    for weight in (0.25, 0.75):
        rows = {number: torch.tensor([[weight, 1 - weight]]) for number in ("2b", "3", "7", "8")}
        looks.append([lesson.Look(["a", "b"], [0, 1], rows)] * 3)
    shown = lesson.shown_weights(*looks)
    assert list(shown) == list(lesson.SHOWN)
    assert shown["verdict"]["weights"] == dict.fromkeys("38", [[0.25, 0.75], [0.75, 0.25]])


TABLES = {  # title in the notebook, and where its figures are in a record
    "entity F1 on test": ("f1", "entity"),
    "relation F1 on test": ("f1", "relation"),
    "largest α on that noun, %, before": ("before", "2b"),
    "largest α on that noun, %, after": ("after", "2b"),
    "(3): largest weight on that word, %": ("after", "3"),
    "(8): largest weight on that word, %": ("after", "8"),
    "(7): words that share the weight, before": ("before", "7 words"),
    "(7): words that share the weight, after": ("after", "7 words"),
}
DIFFERENCES = {  # the model, and the group of its figures, that a line compares with the full model
    "0.6 and 0.4 swapped": ("swapped", "f1"),
    "learning rate × 10": ("fast", "f1"),
    "masks missing": ("unmasked", "f1"),
    "without the width": ("multihead", "without width"),
}
NUMBER = r"([+-]?\d+\.\d)"


def check_tables(text, live, stored):
    """Each table has the figures of this run, and those of the stored seeds."""
    for title, (group, what) in TABLES.items():
        rows = text.split(f"\n{title}  ")[1].splitlines()[1:]
        for row in itertools.takewhile(lambda line: line.startswith("    "), rows):
            name, *figures = row.replace("±", "").replace(" to ", " ").split()
            values = [record[group][what] for record in stored if record["model"] == name]
            expected = [live[name][group][what], statistics.mean(values), statistics.stdev(values)]
            expected += [min(values), max(values)]
            assert [float(figure) for figure in figures] == pytest.approx(expected, abs=0.06), (title, row)


def check_differences(text, live, stored):
    """Each line on a mistake says of this run, and of the stored seeds, what their figures say."""
    full = {record["seed"]: record["f1"] for record in stored if record["model"] == "multihead"}
    for title, (name, group) in DIFFERENCES.items():
        for task in ("entity", "relation"):
            form = rf"{task} F1,? {re.escape(title)}: {NUMBER} in this run; "
            form += rf"over 5 stored seeds {NUMBER} on average \(.*\), below 0 in (\d) of them"
            ((now, mean, lower),) = re.findall(form, text)
            steps = [r[group][task] - full[r["seed"]][task] for r in stored if r["model"] == name]
            step = live[name][group][task] - live["multihead"]["f1"][task]
            assert float(now) == pytest.approx(step, abs=0.06)
            assert float(mean) == pytest.approx(statistics.mean(steps), abs=0.06)
            assert int(lower) == len([step for step in steps if step < 0])


@pytest.mark.slow
@pytest.mark.lesson
@pytest.mark.parametrize("seed, quick", [("1", "0"), ("2", "1")], ids=["trains", "reads"])
def test_the_notebook_runs_with_another_seed_and_says_what_its_figures_say(
    seed, quick, monkeypatch, tmp_path
):
    """The one that trains is solved, so that a model is made of the answers; the other one is as it is."""
    nbclient = pytest.importorskip("nbclient", reason="the lesson's packages: uv run --group lesson")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("SPANREL_SEED", seed)
    monkeypatch.setenv("QUICK", quick)
    file = FILE
    if quick == "0":
        file = tmp_path / "solved.ipynb"
        solutions.write_solutions(FILE, file, hidden=False)
    notebook = nbformat.read(file, as_version=4)
    source = "print(json.dumps([*records.values(), *mistakes.values()]))"
    notebook.cells.append(nbformat.v4.new_code_cell(source))
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": HERE}}).execute()
    *again, last = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, old in zip(again, CODE, strict=True):
        if cell.source.startswith("body(") or "\nbody(" in cell.source:
            # The functions that it shows are those of today. The numbers behind the last one are the seed's.
            shown = printed(cell).split('"""')[:-1]
            assert shown == printed(old).split('"""')[:-1]
    live = {record["model"]: record for record in json.loads(printed(last))}
    assert live.keys() == lesson.FLAGS.keys() and {record["seed"] for record in live.values()} == {int(seed)}
    text = "\n" + "".join(map(printed, again))
    check_tables(text, live, lesson.stored_records())
    check_differences(text, live, lesson.stored_records())
    if quick == "0":
        assert "17 of 17 parts of the model are yours" in text
        form = r"^F1 on test: entity ([\d.]+), relation ([\d.]+)"
        ((entity, relation),) = re.findall(form, text, re.MULTILINE)
        f1 = live["multihead"]["f1"]  # the answers sum in another order, so rounding differs
        assert [float(entity), float(relation)] == pytest.approx([f1["entity"], f1["relation"]], abs=3)
