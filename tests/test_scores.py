"""Scores: by hand, against a count of each item against each, and what must hold whatever was predicted."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import data
import train
from data import Entity, Relation, Sentence
from support.scores import COUNTS, all_scores, main_tables, missed_relations, scores, sentence_counts
from support.tables import CAUSES, final_table, remarks
from test_spanrel import TYPES, annotated, coded, mean, sentences

# -- By hand -------------------------------------------------------------------------------------------------


def test_scores_on_a_case_worked_by_hand():
    a, b, c, wrong = Entity("A", 0, 1), Entity("A", 2, 4), Entity("B", 5, 6), Entity("B", 2, 4)
    words = ["w"] * 6
    gold = [Sentence("1", words, [a, b, c], [Relation("R", a, b), Relation("R", a, c), Relation("S", c, a)])]
    predicted = [Relation("R", a, wrong), Relation("R", a, c), Relation("S", a, c)]
    result = scores(gold, [Sentence("1", words, [a, wrong, c], predicted)])
    counts = {"gold": 3, "predicted": 3, "correct": 2}
    assert result["entity"]["micro"] == {"p": 200 / 3, "r": 200 / 3, "f1": 200 / 3, **counts}
    assert result["entity"]["by_type"]["A"]["p"] == 100 and result["entity"]["by_type"]["A"]["r"] == 50
    assert result["entity"]["macro"]["f1"] == pytest.approx((200 / 3 + 200 / 3) / 2)
    assert result["relation"]["strict"]["micro"]["correct"] == 1  # not with an argument of the wrong type
    assert result["relation"]["boundaries"]["micro"]["correct"] == 2  # nor, in either, turned around
    assert result["relation"]["strict"]["by_type"]["S"]["f1"] == 0
    longer = Entity("A", 2, 5)
    moved = [Sentence("1", words, [a, longer], [Relation("R", a, longer), Relation("R", longer, a)])]
    assert scores(gold, moved)["relation"]["boundaries"]["micro"]["correct"] == 0  # nor with another end


def test_what_is_never_predicted_and_what_has_no_gold_is_said_in_words():
    a, b, c = Entity("A", 0, 1), Entity("B", 1, 12), Entity("A", 1, 2)
    gold = [
        Sentence("1", ["w"] * 12, [a, b], [Relation("R", a, b)]),
        Sentence("2", ["w"] * 3, [a, c], [Relation("R", a, c)]),
    ]
    blank = [Sentence(s.id, s.words) for s in gold]
    result = {**scores(gold, blank), "missed_relations": missed_relations(gold, blank, 10)}
    causes = "an argument is too wide 1, an argument missed or mistyped 1, the relation itself 0"
    assert remarks("test", result) == [
        f"relations missed: {causes}",
        "never predicted, though test has some: entity A, B",
        "never predicted, though test has some: relation R",
    ]
    result = {**scores(blank, gold), "missed_relations": missed_relations(blank, gold, 10)}
    lines = [f"test has no gold {task}: no recall, no F1 can be measured" for task in ("entity", "relation")]
    assert remarks("test", result) == lines
    assert "test has no gold entity" in final_table(train.settings_of(), "multihead", result, [])


def test_the_final_table_has_each_score_in_its_column_above_what_the_paper_prints():
    a, b, c = Entity("A", 0, 1), Entity("A", 2, 3), Entity("B", 0, 1)
    gold = Sentence("1", ["w"] * 3, [a, b], [Relation("R", a, b)])
    result = scores([gold], [Sentence("1", ["w"] * 3, [b, c])])
    result |= {"phenomena": {"span": scores([gold], [gold])}, "missed_relations": dict.fromkeys(CAUSES, 0)}
    settings = train.settings_of(dataset="corpora/mine")
    printed = [{"p": 1.0, "r": 2.0, "f1": 3.0}, {"f1": 4.0}]
    lines = final_table(settings, "dot", result, printed).splitlines()
    assert [(line[:34].strip(), line[34:58].split(), line[60:].split()) for line in lines[:-1]] == [
        ("", ["entity", "P", "R", "F1"], ["rel.", "P", "R", "F1"]),
        ("mine, test, micro", ["50.00"] * 3, ["0.00"] * 3),
        ("mine, test, macro", ["50.00", "25.00", "33.33"], ["0.00"] * 3),
        ("relations by boundaries, micro", [], ["0.00"] * 3),
        ("phenomenon: span", ["100.00"] * 3, ["100.00"] * 3),
        ("entity: A", ["100.00", "50.00", "66.67"], []),
        ("entity: B", ["0.00"] * 3, []),
        ("relation: R", [], ["0.00"] * 3),
        ("the paper, dot", ["1.00", "2.00", "3.00"], ["4.00"]),
    ]
    assert lines[-1:] == remarks("test", result)
    on_dev = train.settings_of(dataset="corpora/mine", eval_split="dev")
    assert "the paper" not in final_table(on_dev, "dot", result, printed)


# -- Against a count of each against each --------------------------------------------------------------------


def unlike(items):
    """The items, each once."""
    return [item for k, item in enumerate(items) if item not in items[:k]]


def loop_tally(gold, predicted):
    """(correct, gold, predicted, F1) by type and of all, and macro F1. An item begins with its type."""
    counts = {}
    for gold_items, predicted_items in zip(gold, predicted):
        for item in unlike(gold_items):
            counts.setdefault(item[0], [0, 0, 0])[1] += 1
        for item in unlike(predicted_items):
            row = counts.setdefault(item[0], [0, 0, 0])
            row[2] += 1
            row[0] += any(item == other for other in gold_items)
    by_type = {kind: (*row, loop_f1(*row)) for kind, row in counts.items()}
    total = list(map(sum, zip(*counts.values()))) or [0, 0, 0]
    return by_type, (*total, loop_f1(*total)), mean([row[3] for row in by_type.values()])


def loop_f1(correct, gold, predicted):
    """The harmonic mean of precision and recall."""
    p = correct / predicted if predicted else 0.0
    r = correct / gold if gold else 0.0
    return 100 * 2 * p * r / (p + r) if p + r else 0.0


@st.composite
def scored(draw, entity_types=TYPES[0], relation_types=TYPES[1]):
    """Gold sentences, and predictions that share some of their entities and relations."""
    rng = random.Random(draw(st.integers(0, 2**32 - 1)))
    gold, predicted = [], []
    for n in draw(st.lists(st.integers(1, 8), max_size=3)):
        entities, relations = annotated(rng, n, entity_types, relation_types)
        more_entities, more_relations = annotated(rng, n, entity_types, relation_types)
        guessed = [entity for entity in entities if rng.random() < 0.7]
        guessed = list(dict.fromkeys(guessed + more_entities))
        related = [r for r in relations if r.head in guessed and r.tail in guessed and rng.random() < 0.7]
        related = list(dict.fromkeys(related + more_relations))
        gold.append(Sentence("s", ["w"] * n, entities, relations))
        predicted.append(Sentence("s", ["w"] * n, guessed, related))
    return gold, predicted


def entity_items(sentence):
    """Type and span of each entity."""
    return [[e.type, e.start, e.end] for e in sentence.entities]


def strict_items(sentence):
    """Type of each relation, types and spans of its arguments."""
    items = []
    for r in sentence.relations:
        items.append([r.type, r.head.type, r.head.start, r.head.end, r.tail.type, r.tail.start, r.tail.end])
    return items


def boundary_items(sentence):
    """Type of each relation, spans of its arguments."""
    return [[r.type, r.head.start, r.head.end, r.tail.start, r.tail.end] for r in sentence.relations]


def row_of(part):
    """What of a row of scores the loops count, too."""
    return part["correct"], part["gold"], part["predicted"], pytest.approx(part["f1"])


@given(pair=scored())
def test_scores_agree_with_a_count_of_each_against_each(pair):
    gold, predicted = pair
    result = scores(gold, predicted)
    tables = [(result["entity"], entity_items)]
    tables += [
        (result["relation"]["strict"], strict_items),
        (result["relation"]["boundaries"], boundary_items),
    ]
    for table, items in tables:
        by_type, micro, macro = loop_tally([items(s) for s in gold], [items(s) for s in predicted])
        assert {kind: row_of(part) for kind, part in table["by_type"].items()} == by_type
        assert row_of(table["micro"]) == micro and table["macro"]["f1"] == pytest.approx(macro)
        for part in (table["micro"], *table["by_type"].values()):
            assert part["p"] == pytest.approx(100 * part["correct"] / max(1, part["predicted"]))
            assert part["r"] == pytest.approx(100 * part["correct"] / max(1, part["gold"]))
        for name in ("p", "r"):
            assert table["macro"][name] == pytest.approx(
                mean([part[name] for part in table["by_type"].values()])
            )


@given(pair=scored(), average=st.sampled_from(["micro", "macro"]))
def test_the_counts_of_all_sentences_add_up_to_the_scores(pair, average):
    counts, tables = sentence_counts(*pair, average), main_tables(scores(*pair))
    for task, table in tables.items():
        rows = table["by_type"] if average == "macro" else {"all": table["micro"]}
        if pair[0]:
            assert counts[task].keys() == rows.keys()
        for kind, columns in counts[task].items():
            assert list(columns) == list(COUNTS)
            for name, column in columns.items():
                numbers = list(map(int, column.split()))
                assert len(numbers) == len(pair[0]) and sum(numbers) == rows[kind][name]


# -- Properties ----------------------------------------------------------------------------------------------


def averages(table):
    """Micro and macro P, R and F1."""
    numbers = []
    for average in ("micro", "macro"):
        numbers += [table[average][name] for name in ("p", "r", "f1")]
    return numbers


@given(pair=scored())
def test_perfect_predictions_score_100_and_empty_ones_0(pair):
    gold, _ = pair
    perfect, none = scores(gold, gold), scores(gold, [Sentence("s", s.words) for s in gold])
    for table in (perfect["entity"], *perfect["relation"].values()):
        best = 100 if table["micro"]["gold"] else 0
        assert averages(table) == [best] * 6
    for table in (none["entity"], *none["relation"].values()):
        assert averages(table) == [0] * 6


def test_as_many_sentences_must_be_predicted_as_there_are():
    with pytest.raises(ValueError):
        scores([Sentence("s", ["w"])] * 2, [Sentence("s", ["w"])])
    with pytest.raises(ValueError):
        missed_relations([Sentence("1", ["a"])], [], 10)
    with pytest.raises(ValueError):
        sentence_counts([Sentence("1", ["a"])], [], "micro")


@given(pair=scored(entity_types=["A"], relation_types=["R"]))
def test_micro_and_macro_average_are_the_same_for_one_type(pair):
    result = scores(*pair)
    for table in (result["entity"], *result["relation"].values()):
        assert {name: table["micro"][name] for name in ("p", "r", "f1")} == pytest.approx(table["macro"])


@given(pair=scored(entity_types=["A"]))  # of two types of a span, boundaries would make one
def test_strict_scores_are_at_most_those_by_boundaries(pair):
    strict, boundaries = (scores(*pair)["relation"][name]["micro"] for name in ("strict", "boundaries"))
    assert strict["correct"] <= boundaries["correct"] and strict["f1"] <= boundaries["f1"]


@given(sentence=sentences(), width=st.integers(1, 5))
def test_gold_wider_than_the_threshold_counts_as_missed(sentence, width):
    spans = set(data.prediction_example(coded(sentence), width).spans)
    best = [e for e in sentence.entities if (e.start, e.end) in spans]  # that any model can predict
    micro = scores([sentence], [Sentence("s", sentence.words, best)])["entity"]["micro"]
    wide = sum(e.end - e.start > width for e in sentence.entities)
    assert micro["gold"] - micro["correct"] == wide and micro["gold"] == len(sentence.entities)


@given(pair=scored(), width=st.integers(1, 5))
def test_every_missed_relation_has_one_cause(pair, width):
    gold, predicted = pair
    causes = missed_relations(gold, predicted, width)
    table = scores(gold, predicted)["relation"]["strict"]["micro"]
    assert sum(causes.values()) == table["gold"] - table["correct"] and causes.keys() == CAUSES.keys()
    bare = missed_relations(gold, [Sentence(s.id, s.words, s.entities) for s in gold], width)
    wide = 0
    for sentence in gold:
        wide += sum(
            max(r.head.end - r.head.start, r.tail.end - r.tail.start) > width for r in sentence.relations
        )
    assert bare["argument"] == 0 and bare["width"] == wide


@given(pair=scored(), width=st.integers(1, 5))
def test_all_scores_have_those_of_each_phenomenon_and_the_causes_of_what_was_missed(pair, width):
    gold, predicted = pair
    assert all_scores(gold, predicted, width) == {
        **scores(gold, predicted),
        "missed_relations": missed_relations(gold, predicted, width),
    }
    for k, sentence in enumerate(gold):
        sentence.phenomenon = ("local", "", "span")[k % 3]
    phenomena = all_scores(gold, predicted, width).get("phenomena", {})
    assert list(phenomena) == ["local", "span"][: (len(gold) > 0) + (len(gold) > 2)]
    for name, part in phenomena.items():
        chosen = [k for k, sentence in enumerate(gold) if sentence.phenomenon == name]
        assert part == scores([gold[k] for k in chosen], [predicted[k] for k in chosen])
