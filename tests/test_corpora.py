"""The corpora: their readers, the validator of records, one's own files, downloads, and the corpus card."""

import contextlib
import hashlib
import http.server
import itertools
import json
import shutil
import socketserver
import threading
import tracemalloc
import zipfile
from dataclasses import astuple
from functools import partial

import pytest
from helpers import REAL, RECORD, needs_corpora, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

import data
from corpora import READERS, ade, conll04, own, toy
from corpora.card import card
from corpora.records import SPLITS, faults_of_record
from data import Entity, Relation
from support import files
from support.encoders import load_encoder
from support.errors import InputError
from support.files import fetch, lines_of, read_lines, read_text

NOWHERE = "http://127.0.0.1:9"  # no server listens


def sentences_of(records):
    """The sentences of a reader's records."""
    return [data.sentence_of(record, f"s-{k}", "f") for k, record in enumerate(records)]


# -- The toy corpus ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy_sentences():
    """All sentences of the toy corpus."""
    corpus = data.read_corpus("toy")
    return corpus.train + corpus.dev + corpus.test


def toys_of(toy_sentences, phenomenon):
    """Those that show a phenomenon: a quarter."""
    shown = [s for s in toy_sentences if s.phenomenon == phenomenon]
    assert len(shown) == 275
    return shown


def test_toy_shows_what_it_says(toy_sentences):
    corpus = data.read_corpus("toy")
    assert [len(part) for part in corpus.splits.values()] == [600, 100, 400]
    assert corpus.train == data.read_corpus("toy").train
    assert len({s.text for s in toy_sentences}) == 1100
    assert {s.phenomenon for s in toy_sentences} == {"span", "local", "sentence", ""}
    widths, overlaps = set(), 0
    for sentence in toy_sentences:
        places = [(e.start, e.end) for e in sentence.entities]
        widths.update(end - start for start, end in places)
        overlaps += any(a[0] < b[1] and b[0] < a[1] for a, b in itertools.combinations(places, 2))
    assert widths >= {1, 2, 3, 4, 5} and overlaps
    assert any(not s.relations for s in toy_sentences) and any(len(s.relations) > 1 for s in toy_sentences)


def test_the_same_two_nouns_of_a_toy_compound_have_either_type_by_their_order(toy_sentences):
    types = {}
    for sentence in toys_of(toy_sentences, "span"):
        (compound,) = sentence.entities
        words = frozenset(sentence.words[compound.start : compound.end])
        types.setdefault(words, set()).add(compound.type)
    assert max(map(len, types.values())) == 2


def test_of_the_results_between_a_toy_pair_the_more_frequent_ones_decide(toy_sentences):
    for sentence in toys_of(toy_sentences, "local"):
        places = sorted((e.start, e.end) for e in sentence.entities)
        expected = set()
        for left, right in (places[:2], places[2:]):
            between = sentence.words[left[1] : right[0]]
            assert {"positive", "negative"} <= set(between)  # both kinds of word stand between either pair
            if between.count("positive") > between.count("negative"):
                expected.add((left, right))
        related = []
        for r in sentence.relations:
            related.append(tuple(sorted([(r.head.start, r.head.end), (r.tail.start, r.tail.end)])))
        assert set(related) == expected and len(related) == len(expected)


def test_a_word_elsewhere_decides_in_a_toy_sentence(toy_sentences):
    for sentence in toys_of(toy_sentences, "sentence"):
        decided = sentence.relations if len(sentence.entities) == 2 else sentence.entities
        assert bool(decided) == bool({"confirmed", "proved", "given", "infused"} & set(sentence.words))


def test_the_toy_grammar_makes_the_sentences_on_which_all_results_were_measured(toy_sentences):
    assert [s.id for s in toy_sentences] == [f"toy-{k}" for k in range(1100)]  # by which negatives are drawn
    rows = []
    for split, part in data.read_corpus("toy").splits.items():
        for s in part:
            entities, relations = list(map(astuple, s.entities)), list(map(astuple, s.relations))
            rows.append([split, s.words, entities, relations, s.phenomenon])
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert digest == "7a950cdf9cc8c7c04ebd6a6d95f2ca16b5426351e471ee9d84fc929b4fd59112"


def test_another_seed_makes_other_toy_sentences():
    one, other = (toy.read(seed=seed, sizes=(20, 5, 5)) for seed in (2020, 2021))
    assert one["train"] != other["train"] and [len(part) for part in other.values()] == [20, 5, 5]


# -- ADE, CoNLL04, ACE05 -----------------------------------------------------------------------------------

ROWS = """1|A rash by aspirin and quinine.|rash|102|106|aspirin|110|117
1|A rash by aspirin and quinine.|rash|102|106|quinine|122|129
2|Gold gold rash.|gold rash|5|14| gold|4|9"""


def test_ade_reader_finds_the_offset_of_each_sentence():
    one, two = sentences_of(ade.parse(ROWS, "f"))
    assert one.words == ["A", "rash", "by", "aspirin", "and", "quinine", "."] and one.id == "1:100"
    assert one.entities == [Entity("Adverse-Effect", 1, 2), Entity("Drug", 3, 4), Entity("Drug", 5, 6)]
    effect, *drugs = one.entities
    assert [(r.head, r.tail) for r in one.relations] == [(effect, drug) for drug in drugs]
    assert two.entities == [Entity("Adverse-Effect", 1, 3), Entity("Drug", 1, 2)]  # overlapping ones are kept
    assert one.text == "A rash by aspirin and quinine." and one.chars(effect) == (2, 6)


ROWS_WRONG = [
    "1|text|rash|0|4",
    "1|A rash.|rash|x|6|A|0|1",
    "1|A rash.|itch|2|6|A|0|1",
    "1|A rash.|rash|2|6|A|1|2",
]


@pytest.mark.parametrize("row", ROWS_WRONG)
def test_ade_reader_names_the_row_that_is_wrong(row):
    with pytest.raises(InputError, match="f, row 4: "):
        ade.parse(f"{ROWS}\n{row}", "f")


def test_ade_reader_finds_a_mention_that_overlaps_another_place_of_its_text():
    (record,) = ade.parse("3|A a a a rash.|rash|8|12|a a|4|7", "f")
    assert record["orig_id"] == "3:0" and record["entities"][1] == {"type": "Drug", "start": 2, "end": 4}


def test_a_row_of_ade_that_stands_twice_is_one_relation():
    first = ROWS.splitlines()[0]
    (record,) = ade.parse(f"{first}\n{first}", "f")
    assert len(record["entities"]) == 2 and len(record["relations"]) == 1


def test_ade_has_ten_folds():
    for fold in (-1, 10):
        with pytest.raises(InputError, match=f"^--fold {fold}: ADE's folds are 0 to 9$"):
            data.read_corpus("ade", fold=fold)


def test_sperts_own_fold_files_are_used_where_they_lie(tmp_path):
    (tmp_path / "ade").mkdir()
    for part, count in (("train", 18), ("test", 3)):
        records = [RECORD | {"orig_id": f"{part}-{k}"} for k in range(count)]
        (tmp_path / f"ade/ade_split_4_{part}.json").write_text(json.dumps(records))
    corpus = data.read_corpus("ade", tmp_path, 4)
    assert [len(part) for part in corpus.splits.values()] == [16, 2, 3]
    assert {s.id for s in corpus.train + corpus.dev} == {f"train-{k}" for k in range(18)}
    assert [s.id for s in corpus.test] == ["test-0", "test-1", "test-2"]


DOCUMENT = """#doc 7
0\tAnn\tB-Peop\t['N']\t[0]
1\tLee\tI-Peop\t['Live_In', 'Work_For']\t[4, 3]
2\tleft\tO\t['N']\t[2]
3\tIBM\tI-Org\t['N']\t[3]
4\tRome\tB-Loc\t['N']\t[4]
5\tParis\tB-Loc\t['N']\t[5]"""


def test_conll04_reader_on_a_small_document():
    (sentence,) = sentences_of(conll04.parse(DOCUMENT, "f"))
    ann, ibm, rome, paris = sentence.entities
    assert (ann, ibm) == (Entity("Peop", 0, 2), Entity("Org", 3, 4))  # an I- behind O opens an entity [L24]
    assert (rome.start, paris.start) == (4, 5)  # adjacent ones stay two
    assert sentence.relations == [Relation("Live_In", ann, rome), Relation("Work_For", ann, ibm)]
    assert sentence.id == "7" and sentence.text == "Ann Lee left IBM Rome Paris"


def test_an_inside_tag_of_another_type_opens_an_entity():
    lines = ["#doc 8", "0\tIBM\tB-Org\t['N']\t[0]", "1\tRome\tI-Loc\t['N']\t[1]"]
    (sentence,) = sentences_of(conll04.parse("\n".join(lines), "f"))
    assert sentence.entities == [Entity("Org", 0, 1), Entity("Loc", 1, 2)]


LINES_WRONG = [
    "0 Ann B-Peop ['N'] [0]",
    "0\tAnn\tPeop\t['N']\t[0]",
    "6\tx\tB-Loc\t['Kill']\t[2]",
    "6\tx\tO\t['Kill']\t[1]",
    "6\tx\tI\t['N']\t[6]",
]


@pytest.mark.parametrize("line", LINES_WRONG)
def test_conll04_reader_names_the_line_that_is_wrong(line):
    with pytest.raises(InputError, match="f, line 8: "):
        conll04.parse(f"{DOCUMENT}\n{line}", "f")


ACE = {
    "doc_key": "d",
    "sentences": [["He", "left", "."], ["The", "old", "man", "saw", "Rome"]],
    "ner": [[[0, 0, "PER"]], [[3, 5, "PER"], [7, 7, "GPE"]]],
    "relations": [[], [[3, 5, 7, 7, "PHYS"]]],
}


# -- All readers -------------------------------------------------------------------------------------------

PUBLISHED = ("ade", "conll04")


def data_dir_of(name, tmp_path):
    """The folder that the reader of that name reads; for ACE05, one with a small document for each split."""
    if name in PUBLISHED:
        return REAL
    (tmp_path / "ace05").mkdir()
    for split in SPLITS:
        (tmp_path / f"ace05/{split}.json").write_text(json.dumps(ACE | {"doc_key": split}) + "\n")
    return tmp_path


EACH_READER = [pytest.param(name, marks=needs_corpora if name in PUBLISHED else ()) for name in READERS]


@pytest.mark.parametrize("name", EACH_READER)
def test_each_reader_returns_records_without_faults_by_split_of_which_its_corpus_is_made(name, tmp_path):
    folder = data_dir_of(name, tmp_path)
    corpus, records = data.read_corpus(name, folder), READERS[name](folder, 0)
    assert corpus.name == name and list(records) == ["train", "dev", "test"]
    for split, part in records.items():
        assert part and [faults for faults in map(faults_of_record, part) if faults] == []
        for record, sentence in zip(part, corpus.splits[split], strict=True):
            assert sentence.id == record["orig_id"] and sentence.words == record["tokens"]
            assert sentence.text == record.get("text", " ".join(record["tokens"]))
            assert [sentence.text[start:end] for start, end in sentence.offsets] == sentence.words
            assert not sentence.repeated


# -- The form of a record ----------------------------------------------------------------------------------


def entity(**change):
    return {"entities": [{"type": "A", "start": 0, "end": 1} | change], "relations": []}


def relation(**change):
    return {"relations": [{"type": "R", "head": 0, "tail": 1} | change]}


WRONG = {  # the change of RECORD, and the field that is named
    "no words": ({"tokens": []}, "tokens: empty"),
    "a text for words": ({"tokens": "ab"}, "tokens: 'ab'; must be a list"),
    "no tokens": ({"tokens": None}, "tokens: null"),
    "an empty word": ({"tokens": ["a", ""]}, "tokens[1]: ''; must be a word"),
    "a number for a word": ({"tokens": ["a", 7]}, "tokens[1]: 7"),
    "half a character": ({"tokens": ["a", "\ud800"]}, "tokens[1]: '\\ud800'"),
    "no entities": ({"entities": None}, "entities: null"),
    "an object for entities": ({"entities": {}}, "entities: {}; must be a list"),
    "a number for an entity": (
        {"entities": [3], "relations": []},
        'entities[0]: 3; must be {"type", "start", "end"}',
    ),
    "end beyond the words": (
        entity(end=3),
        "entities[0].end: 3; must be an integer from 1 to 2, since there are 2 words",
    ),
    "end at start": (entity(start=1, end=1), "entities[0].end: 1; must be beyond start, 1"),
    "a negative start": (entity(start=-1), "entities[0].start: -1"),
    "a start that is no integer": (entity(start=0.0), "entities[0].start: 0.0"),
    "a start that is true": (entity(start=False), "entities[0].start: False"),
    "a text for a start": (entity(start="0"), "entities[0].start: '0'"),
    "no end": (entity(end=None), "entities[0].end: null"),
    "an empty type": (entity(type=""), "entities[0].type: ''; must be a name"),
    "no type": (entity(type=None), "entities[0].type: null"),
    "a list for a type": (entity(type=["A"]), "entities[0].type: ['A']"),
    "no relations": ({"relations": None}, "relations: null"),
    "a tail beyond the entities": (
        relation(tail=2),
        "relations[0].tail: 2; must be an integer from 0 to 1, since there are 2 entities",
    ),
    "a head that is true": (relation(head=True), "relations[0].head: True"),
    "no entity to join": (
        {"entities": []},
        "relations[0].head: 0; no value is right, since there are 0 entities",
    ),
    "head = tail": (relation(head=1), "relations[0]: joins an entity with itself"),
    "head = tail, given twice": (
        {"entities": [RECORD["entities"][0]] * 2},
        "relations[0]: joins an entity with itself",
    ),
    "a relation without a type": (relation(type=None), "relations[0].type: null"),
}


@pytest.mark.parametrize("change, named", WRONG.values(), ids=WRONG)
def test_a_wrong_field_is_named_in_every_record(tmp_path, change, named):
    write_corpus(tmp_path, [RECORD | change, RECORD, RECORD | change], [RECORD], [RECORD])
    with pytest.raises(InputError) as error:
        data.read_corpus(str(tmp_path))
    lines = str(error.value).splitlines()
    assert any(line.startswith(f"{tmp_path / 'train.json'}, record 0, {named}") for line in lines)
    assert any(f"record 2, {named}" in line for line in lines)
    assert not any("record 1" in line for line in lines)


def test_all_that_is_wrong_with_a_record_is_named():
    wrong = {
        "tokens": ["a", 1],
        "entities": [{"type": "", "start": 5, "end": "x"}, 3, {"type": "A", "start": 1, "end": 1}],
        "relations": [{"type": "R", "head": 1, "tail": 1}, {"type": None, "head": 9, "tail": 0}],
    }
    assert [fault.split(":")[0] for fault in faults_of_record(wrong)] == [
        "tokens[1]",
        "entities[0].type",
        "entities[0].start",
        "entities[0].end",
        "entities[1]",
        "entities[2].end",
        "relations[0]",
        "relations[1].type",
        "relations[1].head",
    ]


def test_every_error_of_every_split_is_listed(tmp_path, capsys):
    write_corpus(tmp_path, [RECORD, RECORD | entity(start=7, end=9), 3])
    assert data.main(["--dataset", str(tmp_path)]) == 2
    places = ["1, entities[0].start", "1, entities[0].end", '2, it is 3; it must be {"tokens"']
    lines = [line.split(": ")[0] for line in capsys.readouterr().err.splitlines()]
    expected = itertools.product(SPLITS, places)
    assert lines == [f"{tmp_path / split}.json, record {place}" for split, place in expected]


ODD = st.sampled_from([1e999, 10**30, "\ud800"])
LEAF = st.none() | st.booleans() | st.integers(-2, 5) | st.floats() | st.text(max_size=3) | ODD
FIELDS = "tokens,entities,relations,type,start,end,head,tail,orig_id,text,phenomenon".split(",")


def lists_and_objects(inner):
    """JSON around other JSON."""
    return st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6)


JSON = st.recursive(LEAF, lists_and_objects, max_leaves=20)
ENTITY = st.fixed_dictionaries({"type": st.sampled_from(["A", "B"]) | JSON, "start": JSON, "end": JSON})
RELATION = st.fixed_dictionaries({"type": JSON, "head": JSON, "tail": JSON})
ALMOST = st.fixed_dictionaries(
    {
        "tokens": st.lists(st.sampled_from(["a", "b", "", 1]) | JSON, max_size=4) | JSON,
        "entities": st.lists(ENTITY, max_size=3) | JSON,
        "relations": st.lists(RELATION, max_size=3) | JSON,
    },
    optional={"text": st.text("ab ", max_size=5) | JSON, "orig_id": JSON, "phenomenon": JSON},
)
DOCUMENTS = JSON | st.lists(ALMOST, max_size=3) | st.lists(JSON | st.just(RECORD), max_size=3)


@settings(max_examples=5 * settings().max_examples)
@given(document=DOCUMENTS, cut=st.none() | st.integers(0, 40))
def test_any_json_is_a_corpus_or_is_told_line_by_line(tmp_path_factory, document, cut):
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    for split in SPLITS:
        (folder / f"{split}.json").write_text(json.dumps(document)[:cut])

    def print_card():
        card(data.read_corpus(str(folder)))

    def read_texts():
        list(data.read_inputs([str(folder / "test.json")]))

    for use in (print_card, read_texts):
        try:
            use()
        except InputError as error:
            assert all(line.startswith(str(folder)) for line in error.lines)


# -- One's own files: a folder to train on, texts to predict -----------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff[]", b"[]", b"[" * 100000])
def test_a_file_that_holds_no_sentences_is_named_and_the_status_is_2(tmp_path, content, capsys):
    paths = [tmp_path / f"{split}.json" for split in SPLITS]
    for path in paths:
        path.write_bytes(content)
    assert data.main(["--dataset", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    if content == b"[]":
        assert lines == [f"{tmp_path}: {split} has no sentence" for split in SPLITS]
    else:  # all three files are named
        assert [line.split(": ")[0] for line in lines] == list(map(str, paths))


def test_a_folder_of_ones_own_is_a_corpus_with_its_name(tmp_path, monkeypatch):
    folder = tmp_path / "own"
    write_corpus(folder, [RECORD, RECORD | {"orig_id": 7}], [RECORD], [RECORD | {"tokens": ["c", "d"]}])
    corpus = data.read_corpus(str(folder))
    assert corpus.name == "own" and [s.id for s in corpus.train] == ["train-0", "7"]
    assert corpus.test[0].id == "test-0" and corpus.test[0].words == ["c", "d"]
    monkeypatch.chdir(folder)
    assert data.read_corpus(".") == corpus


NO_FILES = ["rash.txt", "rash.json", "a rash.JSONL", "rash.csv", "and/or", "c:\\rash", "rash.text", "a b.ann"]
TEXTS = ["Aspirin", "U.S.", "and/or more", "A rash.", "A rash.text", "", "a\0b", "\ud800", "n" * 5000]


def test_what_looks_like_a_files_name_is_one_even_if_it_is_mistyped():
    with pytest.raises(InputError) as error:
        list(own.read_inputs(NO_FILES + TEXTS))
    assert error.value.lines == [f"{name}: no such file" for name in NO_FILES]
    places = [f"text {number}" for number in range(1, len(TEXTS) + 1)]
    assert list(own.read_inputs(TEXTS)) == list(zip(TEXTS, places, places))


@pytest.mark.parametrize("ending", ["csv", "tsv", "ann", "docx", "html"])
def test_a_file_that_is_no_text_is_refused(tmp_path, ending):
    path = tmp_path / f"rash.{ending}"
    path.write_text("id,text")
    with pytest.raises(InputError, match=f"rash.{ending}: files to predict are .txt .*json"):
        list(own.read_inputs([str(path)]))


def test_lines_end_at_line_feeds_alone(tmp_path):
    path = tmp_path / "rash.txt"
    path.write_bytes("\ufeffa\u2028b\x85c\fd\r\n\r\ne\rf\n".encode())
    expected = ["a\u2028b\x85c\fd", "", "e\rf"]
    assert lines_of(read_text(path)) == expected
    assert list(read_lines(path)) == [(1, expected[0]), (3, expected[2])]
    assert lines_of("") == [] and lines_of("\n") == [""] and lines_of("a") == ["a"]


@pytest.mark.parametrize("ending", ["txt", "jsonl"])
def test_a_long_file_is_read_line_by_line(tmp_path, ending):
    path = tmp_path / f"long.{ending}"
    path.write_bytes(b'["%s"]\n' % (b"a" * 294) * 10000 + b"\xff")
    sentences = data.read_inputs([str(path)])
    tracemalloc.start()
    with pytest.raises(InputError, match=f"long.{ending}, line 10001: not UTF-8 at byte 2990000; save it"):
        for _ in sentences:
            pass
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_of_a_file_that_has_no_end_as_much_is_read_as_a_file_or_a_line_may_have(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_BYTES", 1000)
    monkeypatch.setattr(files, "MOST_LINE_BYTES", 100)
    path = tmp_path / "long.txt"
    path.write_bytes(b"a" * 100 + b"\n" + b"\0" * 10**6)  # as /dev/zero has it, but this one has an end
    message = r"long.txt: over 1,000 bytes; divide it \(.jsonl to predict has no limit\)$"
    with pytest.raises(InputError, match=message):
        read_text(path)
    lines = data.read_inputs([str(path)])
    path.write_bytes(b"a" * 99 + b"\n" + b"\0" * 10**6)
    assert next(lines)[0].text == "a" * 99
    with pytest.raises(InputError, match="^.*long.txt, line 2: over 100 bytes; divide it$"):
        next(lines)
    path.write_bytes(b"a" * 1000)
    assert read_text(path) == "a" * 1000


LETTERS = st.sampled_from(["a", "ab", "\u00e9", "1"])


@given(letters=LETTERS, more=st.sampled_from([0, 1, 10**6]), place=st.integers(0, 2), form=st.integers(0, 2))
def test_a_word_of_very_many_letters_is_one_short_line(letters, more, place, form):
    words = ["x", "y"]
    words.insert(place, (letters * (10_000 + more))[: 10_000 + more])
    item = (" ".join(words), words, {"tokens": words})[form]
    if not more:
        assert data.input_sentence(item, "1", "long.txt, line 1")[0].words == words
        return
    with pytest.raises(InputError) as error:
        data.input_sentence(item, "1", "long.txt, line 1")
    (line,) = error.value.lines
    assert line.startswith(f"long.txt, line 1, tokens[{place}]: ") and len(line) < 200
    assert line.endswith(f" {10_000 + more:,} letters; a word has at most 10,000")


@pytest.mark.parametrize("item", ["a " * 10_001, ["a"] * 10_001, {"tokens": ["a"] * 10_001}], ids=type)
def test_a_sentence_of_very_many_words_is_one_line(item):
    with pytest.raises(InputError, match="^here, tokens: 10,001 words; a sentence has at most 10,000; split"):
        data.input_sentence(item, "1", "here")


# -- The published corpora ---------------------------------------------------------------------------------


def counts(table, name):
    """The numbers in the first row of that name of a corpus card: train, dev, test, all."""
    row = next(line for line in table.splitlines() if line[:40].strip() == name)
    return [int(number.replace(",", "")) for number in row[40:].split()]


@needs_corpora
def test_ade_has_the_counts_that_were_published():
    table = card(data.read_corpus("ade", REAL))
    published = {
        "sentences": 4272,
        "entities": 10839,
        "Adverse-Effect": 5776,
        "Drug": 5063,
        "relations": 6821,
        "sentences with overlapping entities": 119,
        "entities wider than 10 words": 7,
    }
    assert {name: counts(table, name)[-1] for name in published} == published


@needs_corpora
def test_ades_folds_partition_the_corpus(monkeypatch):
    parsed = ade.parse(zipfile.ZipFile(REAL / ade.FILE).read("ADE-Corpus-V2/DRUG-AE.rel").decode(), "")
    monkeypatch.setattr(ade, "parse", lambda text, where: list(parsed))  # once, not eleven times
    test_ids = []
    for fold in range(10):
        splits = ade.read(REAL, fold)
        test_ids += [record["orig_id"] for record in splits["test"]]
        ids = [record["orig_id"] for record in itertools.chain(*splits.values())]
        assert len(ids) == len(set(ids)) == 4272
    assert sorted(test_ids) == sorted(ids)
    corpus = data.read_corpus("ade", REAL, fold)
    assert [s.id for s in corpus.train + corpus.dev + corpus.test] == ids


@needs_corpora
def test_conll04_has_the_counts_that_were_published():
    table = card(data.read_corpus("conll04", REAL))
    assert counts(table, "sentences")[:3] == [910, 243, 288]
    assert counts(table, "entities")[:3] == [3393, 877, 1079]
    assert counts(table, "relations")[:3] == [1273, 353, 422]
    assert counts(table, "also in train")[:3] == [0, 13, 21]


# -- Downloads ---------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path):
    """A local server in the hub's place; it gives what is put into its folder."""
    root = tmp_path / "server"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given):
            super().__init__(*given, directory=root)

        def log_message(self, *given):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield root, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def serve(root, address, content):
    """Puts a file onto the server; returns its SHA-256."""
    (root / address).parent.mkdir(parents=True, exist_ok=True)
    (root / address).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def test_a_download_is_checked_kept_and_not_fetched_again(server, tmp_path):
    root, host = server
    sha256 = serve(root, "file.txt", DOCUMENT.encode())
    path = fetch(tmp_path / "conll04/train.txt", "file.txt", sha256, host)
    assert path == tmp_path / "conll04/train.txt" and path.read_text() == DOCUMENT
    assert [p.name for p in path.parent.iterdir()] == ["train.txt"]  # nothing half-written
    assert fetch(path, "file.txt", sha256, NOWHERE) == path
    path.write_text("another")
    with pytest.raises(InputError, match="not the published file"):
        fetch(path, "file.txt", sha256, host)
    assert path.read_text() == "another"


def test_a_folder_in_the_place_of_a_download_is_named(tmp_path):
    (tmp_path / "file.txt").mkdir()
    with pytest.raises(InputError, match="file.txt: not the published file"):
        fetch(tmp_path / "file.txt", "file.txt", "0" * 64, NOWHERE)


def test_a_wrong_download_is_not_kept(server, tmp_path):
    root, host = server
    serve(root, ade.ADDRESS, b"an error page")
    with pytest.raises(InputError, match=r"cannot be fetched \(its SHA-256 is "):
        fetch(tmp_path / ade.FILE, ade.ADDRESS, ade.SHA256, host)
    assert not (tmp_path / "ade").exists()


@contextlib.contextmanager
def answering(*parts):
    """A server that answers with these bytes, and at an Event waits for it."""

    class Answer(socketserver.StreamRequestHandler):
        def handle(self):
            self.rfile.readline()
            with contextlib.suppress(OSError):  # nobody may be there to read
                for part in parts:
                    part.wait(60) if isinstance(part, threading.Event) else self.wfile.write(part)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def refusal(folder, host):
    """The line that says why nothing can be fetched from a server; nothing is left in the folder."""
    with pytest.raises(InputError) as error:
        fetch(folder / "x/file.txt", "file.txt", "0" * 64, host)
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"{folder}/x/file.txt is not there, and {host}/file.txt cannot be fetched (")
    assert line.endswith("): put the file there by hand, or start without it: python train.py")
    assert not list(folder.iterdir())
    return line


LINES = ["Content-Length: ", "Location: ", "Transfer-Encoding: ", "Content-Encoding: ", "", "HTTP/1.1 "]
VALUES = ["x", "-5", "1", "99999999999999", "/file.txt", "http://[", "file:///x", "chunked", "gzip"]


@given(
    status=st.sampled_from(["200", "206", "301", "302", "307", "404", "500", "x", ""]),
    lines=st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(VALUES) | st.text(max_size=3))),
    body=st.binary(max_size=9),
)
def test_whatever_a_server_answers_is_one_line(tmp_path_factory, status, lines, body):
    head = "".join(f"{name}{value}\r\n" for name, value in [("HTTP/1.1 ", status), *lines])
    with answering(head.encode(), b"\r\n", body) as host:
        refusal(tmp_path_factory.mktemp("data"), host)


@pytest.mark.parametrize("sent", [b"", b"H", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\na"])
def test_a_server_that_sends_too_slowly_is_not_waited_for(tmp_path, monkeypatch, sent):
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    done = threading.Event()
    with answering(sent, done) as host:
        assert "(TimeoutError: it takes more than 0.1 s)" in refusal(tmp_path, host)
        done.set()


def test_of_a_file_that_is_too_large_no_more_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_BYTES", 10)
    with answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 11, threading.Event()) as host:
        assert "(it has more than 10 bytes)" in refusal(tmp_path, host)


@pytest.mark.parametrize("proxy", ["", "foo", "http://[", "http://a:b", "socks5://a", "\x01"])
def test_no_network_and_a_malformed_proxy_are_one_line(tmp_path, monkeypatch, proxy):
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    refusal(tmp_path, NOWHERE)


def zipped(path, rows):
    """The bytes of a zip file in which ADE's file has these rows."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ADE-Corpus-V2/DRUG-AE.rel", rows)
    return path.read_bytes()


def test_a_corpus_that_is_not_there_is_downloaded_into_the_data_folder(server, tmp_path, monkeypatch):
    root, host = server
    rows = "\n".join(f"{k}|A rash by aspirin.|rash|2|6|aspirin|10|17" for k in range(10))
    monkeypatch.setattr(ade, "SHA256", serve(root, ade.ADDRESS, zipped(tmp_path / "made.zip", rows)))
    sums = {split: serve(root, f"{conll04.FOLDER}/{split}.txt", DOCUMENT.encode()) for split in SPLITS}
    monkeypatch.setattr(conll04, "SHA256", sums)
    for module in (ade, conll04):
        monkeypatch.setattr(module, "fetch", partial(fetch, host=host))
    folder = tmp_path / "data"
    corpora = [data.read_corpus("ade", folder, 9), data.read_corpus("conll04", folder)]
    assert [len(part) for part in corpora[0].splits.values()] == [8, 1, 1]
    assert [len(part) for part in corpora[1].splits.values()] == [1, 1, 1]
    kept = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
    assert kept == ["ade/ADE-Corpus-V2.zip", "conll04/dev.txt", "conll04/test.txt", "conll04/train.txt"]


@needs_corpora
def test_the_real_corpora_come_through_the_real_download(server, tmp_path, monkeypatch):
    root, host = server
    addresses = {ade.FILE: ade.ADDRESS}
    for split in SPLITS:
        addresses[f"conll04/{split}.txt"] = f"{conll04.FOLDER}/{split}.txt"
    for name, address in addresses.items():
        (root / address).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REAL / name, root / address)
    for module in (ade, conll04):
        monkeypatch.setattr(module, "fetch", partial(fetch, host=host))
    assert len(data.read_corpus("ade", tmp_path).test) == 428
    assert len(data.read_corpus("conll04", tmp_path).test) == 288
    assert all((tmp_path / name).read_bytes() == (REAL / name).read_bytes() for name in addresses)


# -- The corpus card ---------------------------------------------------------------------------------------


@pytest.fixture
def encoder_folder(tmp_path):
    """The folder of an encoder that knows two words, and whose tokenizer does not say how much it takes."""
    folder = tmp_path / "encoder"
    tokenizer, encoder = load_encoder("tiny", [RECORD["tokens"]])
    tokenizer.model_max_length = int(1e30)
    for part in (tokenizer, encoder):
        part.save_pretrained(folder)
    return folder


def test_the_card_counts_what_is_twice_and_what_an_encoder_cannot_read(tmp_path, encoder_folder, capsys):
    twice = RECORD | {"entities": RECORD["entities"] * 2, "relations": RECORD["relations"] * 2}
    long = {"tokens": ["a"] * 600, "entities": [{"type": "C", "start": 0, "end": 1}], "relations": []}
    # The second word has no wordpiece, the third no character that the tokenizer knows.
    odd = {"tokens": ["a", "\u200b", "日"], "entities": [], "relations": []}
    just = {"tokens": ["a"] * 510, "entities": [], "relations": []}  # as long as may be
    write_corpus(tmp_path / "own", [RECORD, twice], [RECORD], [long, odd, just])
    assert data.main(["--dataset", str(tmp_path / "own"), "--encoder", str(encoder_folder)]) == 0
    table = capsys.readouterr().out
    assert counts(table, "sentences that stood before") == [1, 1, 0, 2]
    assert counts(table, "entities, relations given twice") == [3, 0, 0, 3]
    assert counts(table, "of a type that train lacks") == [0, 0, 1, 1]
    assert counts(table, "sentences of over 512 wordpieces") == [0, 0, 1, 1]
    assert counts(table, "words read as [UNK]") == [0, 0, 2, 2]


def test_the_card_counts_what_training_cannot_reach(tmp_path, capsys):
    spans = [("A", 0, 3), ("B", 0, 3), ("A", 2, 4), ("A", 4, 5)]
    record = {"tokens": list("abcde"), "entities": [], "relations": []}
    for kind, start, end in spans:
        record["entities"].append({"type": kind, "start": start, "end": end})
    for head, tail in ((0, 1), (2, 3), (3, 0)):
        record["relations"].append({"type": "R", "head": head, "tail": tail})
    bare = {"tokens": ["x"], "entities": [], "relations": []}
    alone = bare | {"entities": [{"type": "B", "start": 0, "end": 1}]}
    write_corpus(tmp_path, [record, bare], [record], [alone])
    assert data.main(["--dataset", str(tmp_path), "--max-width", "2"]) == 0
    table = capsys.readouterr().out
    assert table.startswith(tmp_path.name) and table.splitlines()[0].split()[-4:] == [*SPLITS, "all"]
    assert counts(table, "sentences") == [2, 1, 1, 4] and counts(table, "words") == [6, 5, 1, 12]
    assert counts(table, "entities") == [4, 4, 1, 9] and counts(table, "relations") == [3, 3, 0, 6]
    assert counts(table, "A") == [3, 3, 0, 6] and counts(table, "B") == [1, 1, 1, 3]
    assert counts(table, "R") == [3, 3, 0, 6]
    assert counts(table, "sentences with overlapping entities") == [1, 1, 0, 2]
    assert counts(table, "sentences without a relation") == [1, 0, 1, 2]
    assert counts(table, "entities wider than 2 words") == [2, 2, 0, 4]
    assert counts(table, "relations with such an argument") == [2, 2, 0, 4]
    assert counts(table, "second types of a span") == [1, 1, 0, 2]
    assert counts(table, "relations that these lose") == [1, 1, 0, 2]
    assert table.splitlines()[-1] == "entities by width in words  1: 3, 2: 2, 3: 4"
    assert "wordpieces" not in table
    assert counts(table, "second types of a pair") == [0, 0, 0, 0] and "Softmax" not in table
    expected = "texts are cut into words by the rule letters, which fits 100.0 % of the sentences"
    assert table.splitlines()[-2] == expected


def test_the_card_counts_pairs_of_two_types_and_says_what_holds_them(tmp_path, capsys):
    relations = [{"type": kind, "head": 0, "tail": 1} for kind in ("R", "S", "R")]
    other = RECORD | {"tokens": ["a", "c"]}
    write_corpus(tmp_path, [RECORD | {"relations": relations}], [RECORD, RECORD], [other])
    assert data.main(["--dataset", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert counts(table, "second types of a pair") == [1, 0, 0, 1]
    assert counts(table, "also in train") == [0, 2, 0, 2]
    assert table.splitlines()[-1].endswith("--relation-loss sigmoid-bce holds several")


def test_long_names_of_types_make_the_column_of_the_card_wider(tmp_path):
    names = ["place/" * 7 + end for end in ("of_death", "of_burial")]
    relations = [{"type": name, "head": 0, "tail": 1} for name in names]
    write_corpus(tmp_path, [RECORD | {"relations": relations}])
    rows = card(data.read_corpus(str(tmp_path))).splitlines()
    assert {f"  {name} " for name in names} <= {row[: len(name) + 3] for name in names for row in rows}
    assert len({len(row) for row in rows if row.endswith(" 3")}) == 1


def test_show_prints_what_entities_and_relations_cover_above_the_card(tmp_path, capsys):
    write_corpus(tmp_path, [RECORD, RECORD | {"tokens": ["c", "d"]}])
    assert data.main(["--dataset", str(tmp_path), "--show", "1"]) == 0
    printed = capsys.readouterr().out
    assert '"a" [0, 1) -> "b" [2, 3)' in printed and '"c"' not in printed and "sentences" in printed
