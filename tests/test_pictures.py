"""Sentences as text, as SVG pictures and as HTML pages: support/pictures.py."""

import base64
import json
import re
from collections import Counter
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

import train
from data import Entity, Relation, Sentence, sentence_of
from support import pictures
from support.errors import InputError
from support.scores import all_scores, sentence_counts
from support.selection import select
from support.tables import final_table, markdown
from test_spanrel import annotated, sentences

SVG = "{http://www.w3.org/2000/svg}"
WIDE = Sentence("s", ["w"] * 120)  # 120 words of one letter stand in three rows


def svg(sentence, gold=None):
    """The picture as a tree, and its texts."""
    tree = ElementTree.fromstring(pictures.picture(sentence, gold))
    return tree, [text.text for text in tree.iter(f"{SVG}text")]


def attributes(tree, tag, name):
    """That attribute of each element with that tag."""
    return [element.get(name) for element in tree.iter(f"{SVG}{tag}")]


def arc(start, end, kind="R", **more):
    """The arc of a relation, from x to x."""
    entity = Entity("A", 0, 1)
    return pictures.Line(start, end, pictures.UNKNOWN, Relation(kind, entity, entity), **more)


# -- Marks and text ------------------------------------------------------------------------------------------


@given(sentence=sentences(), other=st.randoms())
def test_a_picture_is_well_formed_and_holds_every_word_and_label_with_its_mark(sentence, other):
    predicted = Sentence(sentence.id, sentence.words, *annotated(other, len(sentence.words)))
    for shown, gold in ((sentence, None), (predicted, sentence)):
        _, texts = svg(shown, gold)
        assert not Counter(shown.words) - Counter(texts)
        entities = pictures.marked(shown.entities, gold and gold.entities)
        marks = entities + pictures.marked(shown.relations, gold and gold.relations)
        assert {f"{mark.sign} {item.type}".strip() for mark, item in marks} == set(texts) - set(shown.words)
        terminal = pictures.show(shown, gold).splitlines()[2:]
        assert [line[2] for line in terminal] == [mark.sign for mark, _ in marks]


def test_right_wrong_and_missed_are_told_apart_by_sign_and_by_line():
    a, b, c = Entity("A", 0, 1), Entity("B", 1, 2), Entity("A", 2, 3)
    predicted = Sentence("s", ["x", "y", "z"], [a, b], [])
    gold = Sentence("s", ["x", "y", "z"], [a, c], [Relation("R", a, c)])
    tree, texts = svg(predicted, gold)
    assert {"= A", "+ B", "- A", "- R"} <= set(texts)
    assert attributes(tree, "path", "stroke-dasharray") == ["", "5 3", "1 3", "1 3"]
    assert len(set(attributes(tree, "path", "stroke"))) == 3  # a colour for each, too
    assert pictures.show(predicted, gold).splitlines()[2:] == [
        '  = entity    A                      "x" [0, 1)',
        '  + entity    B                      "y" [2, 3)',
        '  - entity    A                      "z" [4, 5)',
        '  - relation  R                      "x" [0, 1) -> "z" [4, 5)',
    ]
    assert "\033[31m  + entity    B" in pictures.show(predicted, gold, colour=True)


def test_an_entity_of_another_type_is_wrong_and_the_gold_one_missed():
    gold, predicted = Entity("A", 0, 1), Entity("B", 0, 1)
    assert pictures.marked([predicted], [gold]) == [(pictures.WRONG, predicted), (pictures.MISSED, gold)]
    assert pictures.marked([predicted], []) == [(pictures.WRONG, predicted)]  # known to be nothing
    assert pictures.marked([predicted], None) == [(pictures.UNKNOWN, predicted)]


def test_a_predicted_entity_is_described_with_its_score():
    sentence = Sentence("s", ["ab", "c"], [Entity("A", 0, 2, 0.987), Entity("B", 1, 2)])
    scored, unscored = sentence.entities
    assert pictures.describe(sentence, scored).split(maxsplit=3) == ["entity", "A", "0.99", '"ab c" [0, 4)']
    assert pictures.describe(sentence, unscored).split(maxsplit=2) == ["entity", "B", '"c" [3, 4)']


# -- The picture ---------------------------------------------------------------------------------------------


def test_words_are_laid_out_in_rows_with_room_for_wide_characters_and_none_for_accents():
    sentence = Sentence.from_text("é e\u0301 日本 x-y " + "long " * 40)
    places = pictures.place_words(sentence)
    widths = [place.width // pictures.CELL for place in places]
    assert [width for word, width in zip(sentence.words, widths) if word == "日本"] == [4]
    assert widths[:2] == [1, 1]  # é, and e with its accent
    place_of = dict(zip(sentence.words, places))
    assert place_of["-"].x == place_of["x"].x + place_of["x"].width  # no blank within x-y
    assert place_of["y"].x == place_of["-"].x + place_of["-"].width
    rows = [place.row for place in places]
    assert rows == sorted(rows) and rows[-1] == 2
    assert all(0 <= place.x and place.x + place.width <= pictures.WIDTH for place in places)


def test_a_relation_between_two_rows_leaves_one_and_arrives_in_the_other():
    a, b = Entity("A", 0, 1), Entity("A", 119, 120)
    for head, tail in ((a, b), (b, a)):
        tree, texts = svg(Sentence("s", WIDE.words, [a, b], [Relation("R", head, tail)]))
        assert texts.count("R") == 2
        assert sum("l3,5l3,-5" in path for path in attributes(tree, "path", "d")) == 1  # one arrow
    places = pictures.place_words(WIDE)
    (_, leaving), (_, arriving) = pictures.arcs_of((pictures.UNKNOWN, Relation("R", a, b)), places)
    assert (leaving.end, arriving.start) == (pictures.WIDTH, 0)  # down to the next row, as one reads
    (_, leaving), (_, arriving) = pictures.arcs_of((pictures.UNKNOWN, Relation("R", b, a)), places)
    assert (leaving.end, arriving.start) == (0, pictures.WIDTH)


def test_an_entity_over_two_rows_has_a_bracket_in_each_and_no_other_word_over_them():
    places = pictures.place_words(WIDE)
    first_below = next(k for k, place in enumerate(places) if place.row == 1)
    entity = Entity("A", first_below - 2, first_below + 3)
    (row, above), (next_row, below) = pictures.brackets_of((pictures.UNKNOWN, entity), places)
    assert (row, next_row) == (0, 1)
    assert above.start == places[first_below - 2].x
    assert above.end == places[first_below - 1].x + places[first_below - 1].width
    assert below.start == places[first_below].x == 0
    assert below.end == places[first_below + 2].x + places[first_below + 2].width


def test_a_line_takes_the_first_lane_in_which_neither_it_nor_its_label_meets_another():
    lines = [arc(0, 50), arc(100, 150), arc(40, 120), arc(160, 200), arc(60, 62, "a long type")]
    assert pictures.stack_lines(lines) == 3
    assert [line.lane for line in lines] == [0, 0, 1, 0, 2]  # the last one's label reaches over the second


@given(ends=st.lists(st.tuples(st.integers(0, pictures.WIDTH), st.integers(0, pictures.WIDTH)), max_size=12))
def test_lines_of_one_lane_do_not_meet_whatever_their_ends(ends):
    lines = [arc(start, end) for start, end in ends]
    lanes = pictures.stack_lines(lines)
    assert {line.lane for line in lines} == set(range(lanes))
    for k, line in enumerate(lines):
        for other in lines[:k]:
            is_left = max(line.start, line.end) < min(other.start, other.end)
            is_right = min(line.start, line.end) > max(other.start, other.end)
            assert line.lane != other.lane or is_left or is_right


def test_a_label_ends_within_the_picture():
    assert arc(pictures.WIDTH - 5, pictures.WIDTH, "Adverse-Effect").label_x == pictures.WIDTH - 7 * 14
    assert arc(90, 30).label_x == 30  # it begins where the line does, on the left
    assert arc(90, 300, "x" * 200).label_x == 0


def test_a_type_keeps_its_colour_and_the_next_one_has_another(monkeypatch):
    monkeypatch.setattr(pictures, "hue_of_type", {})
    hues = []
    for types in ("AB", "BA", "CB"):
        entities = [Entity(kind, k, k + 1) for k, kind in enumerate(types)]
        hues.append(attributes(svg(Sentence("s", ["x", "y"], entities))[0], "rect", "fill"))
    (a, b), (c, _) = hues[0], hues[2]
    assert hues == [[a, b], [b, a], [c, b]] and len({a, b, c}) == 3


# -- Pages ---------------------------------------------------------------------------------------------------


def test_a_page_is_one_ascii_file_in_which_nothing_of_the_text_is_markup():
    sentence = Sentence.from_text("<script>alert(1)</script> & é 😀", '"><b>')
    page = pictures.page([(sentence, None), (sentence, sentence)], "a <title>")
    assert page.isascii() and "<script" not in page and "<b>" not in page and "a &lt;title&gt;" in page
    assert "src=" not in page and "href=" not in page and "&#128512;" in page  # it needs no other file
    legend = "<p>= right, solid; + wrong, dashed; - missed, dotted</p>"
    assert legend in page and "dashed" not in pictures.page([(sentence, None)], "without gold")
    (image,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', sentence._repr_html_())
    assert base64.b64decode(image).decode() == pictures.picture(sentence)
    assert "<script" not in sentence._repr_html_()


def test_a_type_is_no_markup_either():
    predicted, gold = [Sentence("s", ["a"], [Entity(kind, 0, 1)]) for kind in ("<u>", "<i>")]
    page = pictures.page([(predicted, gold)], "t")
    assert "<u>" not in page and "<i>" not in page and "+ &lt;u&gt;" in page and "- &lt;i&gt;" in page


def test_sentences_are_rendered_as_text_as_json_and_as_a_page():
    a, b = Entity("A", 0, 1, 0.75), Entity("B", 1, 2, 0.5)
    predicted = Sentence("s", ["é", "x"], [a, b], [Relation("R", a, b, 0.25)])
    pairs = [(predicted, None), (Sentence("t", ["y"]), Sentence("t", ["y"], [a]))]
    records = json.loads(pictures.render(pairs, "json", "title", False))
    assert records == [sentence.to_record() for sentence, _ in pairs]
    assert records[0]["relations"][0]["score"] == 0.25
    lines = pictures.render(pairs, "jsonl", "title", False).splitlines()
    assert list(map(json.loads, lines)) == records
    assert json.loads(pictures.render([], "json", "title", False)) == []
    texts = [pictures.show(sentence, gold) for sentence, gold in pairs]
    assert pictures.render(pairs, "text", "title", False) == "\n".join(texts)
    assert pictures.render(pairs, "html", "title", False) == pictures.page(pairs, "title")
    assert "\033[33m  - entity    A" in pictures.render(pairs, "text", "title", True)


# -- What comes from a file is shown escaped -----------------------------------------------------------------

HARMFUL = "\x1b[2J\r\x00\x07\u202e\x9b"
ODD = st.text(st.sampled_from(f"ab <&|{HARMFUL}\u200d\n"), min_size=1, max_size=12)


@given(text=ODD, kind=ODD, name=ODD, place=st.sampled_from(["text", "html", "table", "error", "markdown"]))
def test_nothing_from_a_file_reaches_a_terminal_or_a_page_as_it_would_obey_it(text, kind, name, place):
    words = text.split() or ["a"]
    record = {"tokens": words, "entities": [{"type": kind, "start": 0, "end": 1}], "relations": []}
    sentence = sentence_of({**record, "text": text, "orig_id": name}, "id", "f")
    if place in ("text", "html"):
        shown = pictures.render([(sentence, None)], place, name, False)
    elif place == "table":
        settings = train.settings_of(dataset=name)
        result = all_scores([sentence], [sentence], 10)
        shown = final_table(settings, "multihead", result, [])
    elif place == "error":
        shown = str(InputError(f"{name}: {kind}"))
    else:
        shown = markdown([kind], [[text]])
    assert not set(shown) & set(HARMFUL.replace("[2J", ""))
    assert place != "markdown" or len(shown.splitlines()) == 3
    assert place != "text" or len(shown.splitlines()) == 3  # a blank one, the text, the entity


def test_an_id_of_a_megabyte_is_cut_and_forges_no_line():
    record = {"tokens": ["a"], "entities": [], "relations": []}
    sentence = sentence_of({**record, "orig_id": "x\nforged: " + "y" * 10**6}, "id", "f")
    assert len(sentence.id) < 210 and sentence.id.startswith("x\\nforged")
    assert len(str(InputError("z" * 10**6))) < 1010


# -- Sentences of thousands of entities and relations --------------------------------------------------------


def crowded(size, shift=0):
    """A sentence of so many words, each an entity, with three times as many relations."""
    entities = [Entity("A", k, k + 1, score=0.5) for k in range(size)]
    relations = []
    for k in range(3 * size):
        relations.append(Relation("R", entities[k % size], entities[(k * k + 1 + shift) % size], 0.5))
    return Sentence("s", ["a"] * size, entities, list(dict.fromkeys(relations)))


SETTINGS = SimpleNamespace(flat=True, symmetric=("R",), least_entity_score=0.1, least_relation_score=0.1)
USES = {
    "text": lambda predicted, gold: pictures.show(predicted, gold),
    "page": lambda predicted, gold: pictures.page([(predicted, gold)], "title"),
    "record": lambda predicted, gold: predicted.to_record(),
    "scores": lambda predicted, gold: all_scores([gold], [predicted], 10),
    "counts": lambda predicted, gold: sentence_counts([gold], [predicted], "macro"),
    "selection": lambda predicted, gold: select(predicted, SETTINGS),
}


@pytest.mark.parametrize("name", USES)
def test_what_is_done_with_a_sentence_grows_no_faster_than_its_entities_and_relations(name, monkeypatch):
    calls = Counter()
    for method in ("__eq__", "__hash__"):
        usual = getattr(Entity, method)

        def counted(*given, usual=usual):
            calls[size] += 1
            return usual(*given)

        monkeypatch.setattr(Entity, method, counted)
    for size in (100, 400):
        predicted, gold = crowded(size), crowded(size, shift=1)
        calls[size] = 0
        USES[name](predicted, gold)
    assert calls[400] < 5 * calls[100] + 1000


def test_of_thousands_of_relations_a_picture_has_the_first_and_says_how_many_more_there_are():
    sentence = crowded(1001)
    tree, texts = svg(sentence)
    assert len(attributes(tree, "rect", "x")) == 1000 <= texts.count("R") <= 2000  # an arc may be in two rows
    assert texts[-2:] == ["and 1 more entities", f"and {len(sentence.relations) - 1000:,} more relations"]
    assert tree.get("aria-label").count("relation ") == len(sentence.relations)  # in words all are there
    lower = [float(text.get("y")) for text in tree.findall(f"{SVG}text")]
    assert lower[0] < lower[1] < float(tree.get("viewBox").split()[3])
