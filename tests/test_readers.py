"""The forms of a folder of one's own: JSON, JSON Lines, DyGIE++, doccano, brat; one set, divided."""

import json
from itertools import chain

import pytest
from helpers import RECORD, write_corpus
from test_corpora import ACE, sentences_of

import data
from corpora import brat, forms, own
from corpora.records import SPLITS, read_numbered
from data import Entity, Relation
from support.errors import InputError, read_in_turn, warn


def write_lines(path, items):
    """Writes JSON Lines; returns the path."""
    path.write_text("\n".join(map(json.dumps, items)) + "\n", encoding="utf-8")
    return path


def error_of(read, *given):
    """The lines of the error that a reader raises."""
    with pytest.raises(InputError) as error:
        read(*given)
    return error.value.lines


# -- JSON, JSON Lines, and what is neither -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_json_list_and_json_lines_are_read_whatever_the_ending(tmp_path, name):
    path = tmp_path / name
    path.write_text(json.dumps([RECORD, RECORD], indent=1))
    numbered = [(number, RECORD, f"{path}, record {number}") for number in (0, 1)]
    assert read_numbered(path) == numbered and forms.read(path) == [RECORD, RECORD]
    path.write_text("\ufeff" + json.dumps(RECORD) + "\r\n \n" + json.dumps(RECORD), encoding="utf-8")
    assert read_numbered(path) == [(number, RECORD, f"{path}, line {number}") for number in (1, 3)]
    path.write_text(json.dumps(RECORD))
    assert forms.read(path) == [RECORD]


def test_an_error_in_json_lines_names_the_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(RECORD) + '\n\n{"tokens": 3}\n')
    assert error_of(forms.read, path)[0] == f"{path}, line 3, tokens: 3; must be a list"
    path.write_text(json.dumps(RECORD) + '\n{"tokens"')
    (line,) = error_of(forms.read, path)
    assert line == f"{path}, line 2: Expecting ':' delimiter at character 9; it must be JSON"


OTHER_FORMS = {
    "Label Studio": [{"id": 1, "data": {"text": "a"}, "annotations": []}],
    "GLiNER": [{"tokenized_text": ["a"], "ner": [[0, 0, "A"]]}],
    "spaCy": [["a", {"entities": [[0, 1, "A"]]}]],
    "spaCy's": [{"id": 0, "paragraphs": []}],
    "words, entities, relations, a form that is not known": [{"words": [], "entities": [], "relations": []}],
}


@pytest.mark.parametrize("name, items", OTHER_FORMS.items(), ids=OTHER_FORMS)
def test_another_form_is_one_line_for_the_file(tmp_path, name, items):
    (line,) = error_of(forms.read, write_lines(tmp_path / "a.json", items * 9))
    assert line.startswith(f"{tmp_path}/a.json: ") and name in line and "doccano" in line and "tokens" in line


# -- Many errors ---------------------------------------------------------------------------------------------


def test_of_thousands_of_errors_the_first_are_shown_with_the_keys_that_are_there(tmp_path, capsys):
    wrong = {"label": "A", "start": 0, "end": 1}
    write_corpus(tmp_path, [RECORD | {"entities": [wrong, wrong], "relations": [{"head": 0}]}] * 500)
    assert data.main(["--dataset", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    place = f"{tmp_path}/train.json, record 0, "
    assert lines[0] == f"{place}entities[0].type: missing; it has the keys label, start, end; must be a name"
    assert len(lines) == 21 and lines[-1] == "and 5,980 more, of 4 kinds"
    assert len(error_of(data.read_corpus, str(tmp_path))) == 6000


def test_items_are_read_in_turn_until_one_is_wrong():
    def read(number):
        if number % 2:
            raise InputError(f"{number}")
        return number

    items = read_in_turn(read, [(number,) for number in (0, 2, 3, 4, 5)])
    assert [next(items), next(items)] == [0, 2]
    assert error_of(next, items) == ["3", "5"]
    numbers = iter(range(1, 10**5, 2))
    lines = error_of(list, read_in_turn(read, zip(numbers)))
    assert len(lines) < 11_000 and next(numbers) < 30_000  # that many errors may have no end


def test_warnings_go_to_stderr_the_first_ones(capsys):
    warn([])
    warn([f"doc.ann, T{k}: lost" for k in range(30)])
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert not printed.out and lines[0] == "doc.ann, T0: lost" and lines[20:] == ["and 10 more, of 1 kind"]


# -- DyGIE++ -------------------------------------------------------------------------------------------------


def test_a_document_of_dygie_becomes_its_sentences(tmp_path):
    first, second = forms.read(write_lines(tmp_path / "a.json", [ACE]))
    assert (first["document"], first["orig_id"], second["orig_id"]) == ("d", "d:0", "d:1")
    first, second = sentences_of([first, second])
    assert first.entities == [Entity("PER", 0, 1)]
    assert second.entities == [Entity("PER", 0, 3), Entity("GPE", 4, 5)]
    assert second.relations == [Relation("PHYS", *second.entities)]


def test_dygie_keeps_two_types_of_a_span_and_leaves_out_a_sentence_without_words(tmp_path):
    two = [[0, 0, "PER"], [0, 0, "ORG"], [1, 1, "ORG"]]
    document = {"sentences": [[], ["a", "\u2028"]], "ner": [[], two], "relations": [[], [[0, 0, 1, 1, "X"]]]}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ACE | document, ensure_ascii=False), encoding="utf-8")
    (sentence,) = sentences_of(forms.read(path))
    assert [e.type for e in sentence.entities] == ["PER", "ORG", "ORG"]
    assert sentence.relations[0].head.type == "PER"


DYGIE_WRONG = [  # the change of a document, and what is said of it
    (
        {"ner": [[[0, 9, "PER"]], []]},
        r'sentence 0, ner: \[0, 9, "PER"\]; must be a span of its sentence, words 0 to 2',
    ),
    ({"ner": [[], [[2, 3, "PER"]]]}, r"sentence 1, ner: \[2, 3, .*its sentence, words 3 to 7"),
    ({"ner": [[[1, 0, "PER"]], []]}, r"ner: \[1, 0, .* must be a span of"),
    (
        {"relations": [[[0, 0, 5, 5, "X"]], []]},
        r"sentence 0, relations: \[0, 0, 5, 5, .*its sentence, words 0 to 2",
    ),
    ({"relations": [[[0, 0, 1, 1, "X"]], []]}, r"relations: \[0, 0, 1, 1, .*; ner has no entity \[1, 1\] in"),
    (
        {"relations": [[[0, 0, None, None, "X"]], []]},
        r"0, null, null, .*\[start, end, start, end, type\]",
    ),
    ({"relations": [[[0, 0, 0, 0, "X"]], []]}, "relations.0.: joins an entity with itself"),
    ({"relations": None}, "relations: null; must have a list per sentence"),
    ({"sentences": 3}, "sentences: 3; must have a list per sentence"),
    ({"ner": []}, "sentences, ner, relations: of lengths .2, 0, 2.; must be equally long"),
    ({"sentences": ["abc", ["d"]]}, "sentences: .* must have a list per sentence"),
    (
        {"sentences": [["a", 3, "c"], ["d"]], "ner": [[], []], "relations": [[], []]},
        "tokens.1.: 3; must be a word",
    ),
    ({"ner": [[[0, 0, None]], []]}, r"must be .start, end, type.(\n|$)"),
    ({"ner": [[[True, 0, "PER"]], []]}, r"must be .start, end, type.(\n|$)"),
    ({"ner": [[[0, 0, "PER", 0, 0]], []]}, r"must be .start, end, type.(\n|$)"),
    ({"ner": [[3], []]}, r"ner: 3; must be .start, end, type.(\n|$)"),
]


@pytest.mark.parametrize("change, says", DYGIE_WRONG, ids=range(len(DYGIE_WRONG)))
def test_what_is_wrong_with_a_document_of_dygie_is_named_in_its_own_numbers(tmp_path, change, says):
    path = write_lines(tmp_path / "a.json", [ACE, ACE | change])
    with pytest.raises(InputError, match=f"a.json, line 2, .*{says}"):
        forms.read(path)


# -- doccano -------------------------------------------------------------------------------------------------

DOCCANO = {
    "id": 31,
    "text": "Aspirin helps.\nAspirin-induced rash (new).",
    "entities": [
        {"id": 5, "label": "Drug", "start_offset": 15, "end_offset": 22},
        {"id": 6, "label": "Effect", "start_offset": 31, "end_offset": 36},
        {"id": 7, "label": "Drug", "start_offset": 0, "end_offset": 7},
    ],
    "relations": [{"id": 1, "from_id": 5, "to_id": 6, "type": "causes"}],
}


def test_a_text_of_doccano_becomes_its_lines(tmp_path, capsys):
    first, second = forms.read(write_lines(tmp_path / "all.jsonl", [DOCCANO]))
    assert [first["text"], second["text"]] == DOCCANO["text"].split("\n")
    assert first["document"] == second["document"] and second["orig_id"] == "31:2"
    first, second = sentences_of([first, second])
    assert first.entities == [Entity("Drug", 0, 1)]
    assert second.entities == [Entity("Drug", 0, 1), Entity("Effect", 3, 4)]
    assert second.relations == [Relation("causes", *second.entities)]
    assert not capsys.readouterr().err


def test_doccanos_older_form_has_labels_without_relations(tmp_path):
    item = {"text": "No rash.", "label": [[3, 7, "Effect"]]}
    (record,) = forms.read(write_lines(tmp_path / "all.jsonl", [item]))
    assert record["entities"] == [{"type": "Effect", "start": 1, "end": 2}] and record["orig_id"] == "1:1"


def test_what_leaves_a_line_or_a_word_is_named_and_left_out(tmp_path, capsys):
    entities = [*DOCCANO["entities"], {"id": 8, "label": "X", "start_offset": 8, "end_offset": 22}]
    entities.append({"id": 9, "label": "X", "start_offset": 32, "end_offset": 35})
    relations = []
    for ends in [(7, 5), (5, 8), (5, 6)]:
        relations.append({"id": 4, "from_id": ends[0], "to_id": ends[1], "type": "causes"})
    item = DOCCANO | {"entities": entities, "relations": relations}
    first, second = forms.read(write_lines(tmp_path / "all.jsonl", [item]))
    assert len(first["entities"]) == 1 and len(second["entities"]) == 2 and len(second["relations"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}/all.jsonl, line 1, entity 8: it crosses the end of a line; left out",
        f"{tmp_path}/all.jsonl, line 1, entity 9: it begins or ends inside a word; left out",
        f"{tmp_path}/all.jsonl, line 1, relations[0]: it joins entities of two lines; left out",
        f"{tmp_path}/all.jsonl, line 1, relations[1]: it joins entity 8, which is not kept; left out",
    ]


DOCCANO_WRONG = [
    ({"entities": DOCCANO["entities"] * 2}, "entity 5 is there twice; it must be"),
    ({"text": 3}, "text is 3; it must be"),
    ({"entities": [{"id": 1, "label": "A"}]}, "KeyError 'start_offset'; it must be"),
    (
        {"entities": [{"id": 1, "label": "A", "start_offset": 0, "end_offset": 99}], "relations": []},
        "0 to 99; must",
    ),
    (
        {"entities": [{"id": 1, "label": 3, "start_offset": 0, "end_offset": 7}], "relations": []},
        "31:1, .*type: 3",
    ),
    (
        {"relations": [{"id": 1, "from_id": 5, "to_id": 60, "type": "x"}]},
        "joins entity 60, which is not there",
    ),
    ({"entities": {}}, "entities is {}; it"),
    ({"relations": ""}, "relations is ''; it"),
    ({"entities": None}, "entities is null; it"),
]


@pytest.mark.parametrize("change, says", DOCCANO_WRONG, ids=range(len(DOCCANO_WRONG)))
def test_what_is_wrong_with_a_text_of_doccano_is_named(tmp_path, change, says):
    path = write_lines(tmp_path / "all.jsonl", [DOCCANO, DOCCANO | change])
    with pytest.raises(InputError, match=f"^{path}, line 2.*{says}"):
        forms.read(path)


# -- brat ----------------------------------------------------------------------------------------------------

TEXT = "\ufeffAspirin causes a rash 😀.\r\n\r\nRash and\r\nNo drug."
ANN = """T1\tDrug 1 8\tAspirin
T2\tEffect 18 22\trash
R1\tCauses Arg1:T1 Arg2:T2\t
#1\tAnnotatorNotes T1\tsure
"""


def write_pair(folder, name="doc", text=TEXT, ann=ANN):
    """Writes a text and its annotations."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.txt").write_bytes(text.encode())
    (folder / f"{name}.ann").write_bytes(ann.encode())


def test_a_pair_of_brat_becomes_the_lines_of_its_text(tmp_path, capsys):
    write_pair(tmp_path)
    records = brat.read(tmp_path)
    assert [record["orig_id"] for record in records] == ["doc:1", "doc:3", "doc:4"]
    assert records[0]["text"] == "Aspirin causes a rash 😀."
    assert records[0]["document"] == f"{tmp_path}/doc.ann"
    first, *others = sentences_of(records)
    assert first.entities == [Entity("Drug", 0, 1), Entity("Effect", 3, 4)]
    assert first.relations == [Relation("Causes", *first.entities)]
    assert not any(s.entities for s in others) and not capsys.readouterr().err


def test_nothing_of_brat_is_dropped_in_silence(tmp_path, capsys):
    odd = [
        "T3\tDrug 1 4;5 8\tAsp rin",
        "T4\tEffect 34 43\tand  No d",
        "T5\tDrug 1 4\tAsp",
        "T6\tEffect 29 33\tRash",
        "R2\tCauses Arg1:T1 Arg2:T6",
        "R3\tCauses Arg1:T3 Arg2:T2",
        "E1\tCauses:T2 Theme:T1",
        "A1\tNegation T2",
        "*\tEquiv T1 T2",
    ]
    write_pair(tmp_path, ann=ANN + "\n".join(odd))
    records = brat.read(tmp_path)
    assert [len(record["entities"]) for record in records] == [2, 1, 0]
    assert [len(record["relations"]) for record in records] == [1, 0, 0]
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith(f"{tmp_path}/doc.ann, ") and line.endswith("; left out") for line in lines)
    assert {line.split(", ")[1].split(":")[0] for line in lines} == {
        "T3",
        "T4",
        "T5",
        "R2",
        "R3",
        "E1",
        "A1",
        "* Equiv T1 T2",
    }
    assert f"{tmp_path}/doc.ann, T3: discontinuous; left out" in lines


BRAT_WRONG = {
    "T1\tDrug 0 7\tAspirin": r"line 1: T1 is 'Aspirin', but the text has '.ufeffAspiri' from 0 to 7; it",
    "T1 Drug 1 8 Aspirin": "line 1: ValueError",
    "T1\tDrug 1 8\tAspirin\nR1\tCauses T1 T2": "line 2: IndexError",
    "T1\tDrug 1 8\tAspirin\nR1\tCauses Arg1:T1": "line 2: ValueError",
    "T1\tDrug 1 8\tAspirin\nT1\tDrug 1 8\tAspirin": "line 2: T1 is there twice",
    "T1\tDrug 1 8\tAspirin\nR1\tCauses Arg1:T1 Arg2:T9": "R1: joins T9, which is not there",
    "T1\tDrug 1 8\tAspirin\nR1\tCauses Arg1:T1 Arg2:T1": "doc:1, relations.0.: joins an entity with itself",
}


@pytest.mark.parametrize("ann, says", BRAT_WRONG.items(), ids=range(len(BRAT_WRONG)))
def test_what_is_wrong_in_brats_annotations_is_named_with_its_line(tmp_path, ann, says):
    write_pair(tmp_path, ann=ann)
    with pytest.raises(InputError, match=f"^{tmp_path}/doc.ann, {says}"):
        brat.read(tmp_path)


def test_a_text_without_annotations_and_the_reverse_are_named(tmp_path):
    write_pair(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.ann").write_text("")
    lines = error_of(brat.read, tmp_path)
    assert lines == [f"{tmp_path}/a.txt: no a.ann beside it", f"{tmp_path}/b.ann: no b.txt beside it"]


# -- Folders -------------------------------------------------------------------------------------------------


def test_a_folder_has_its_splits_in_any_form(tmp_path):
    write_lines(tmp_path / "train.jsonl", [RECORD, RECORD])
    write_lines(tmp_path / "dev.json", [ACE])
    write_pair(tmp_path / "test")
    corpus = data.read_corpus(str(tmp_path))
    assert [[s.id for s in part] for part in corpus.splits.values()] == [
        ["train-0", "train-1"], ["d:0", "d:1"], ["doc:1", "doc:3", "doc:4"],
    ]  # fmt: skip
    write_lines(tmp_path / "dev.jsonl", [RECORD])
    (line,) = error_of(data.read_corpus, str(tmp_path))
    assert line == f"{tmp_path}/dev.json and {tmp_path}/dev.jsonl: only one of them can be dev"


def test_one_set_is_divided_by_documents_in_all_forms(tmp_path):
    write_lines(tmp_path / "a.jsonl", [DOCCANO | {"id": number} for number in range(4)])
    write_lines(tmp_path / "b.json", [ACE | {"doc_key": f"ace-{number}"} for number in range(3)])
    for number in range(3):
        write_pair(tmp_path, f"brat-{number}")
    splits = own.read(tmp_path, (), "60/20/20")
    documents = []
    for part in splits.values():
        documents.append({record["document"] for record in part})
    assert list(map(len, documents)) == [6, 2, 2] and len(set.union(*documents)) == 10
    assert splits == own.read(tmp_path, (), "60/20/20")
    assert data.main(["--dataset", str(tmp_path), "--split", "60/20/20"]) == 0


@pytest.mark.parametrize("split", ["80/10/10", "98/1/1", "1/98/1", "1/1/98", "34/33/33", "2/49/49"])
@pytest.mark.parametrize("count", [3, 4, 10, 101])
def test_no_part_of_a_set_is_empty_and_each_record_is_in_one(tmp_path, split, count):
    records = [RECORD | {"orig_id": str(number)} for number in range(count)]
    splits = own.divide(records, [int(share) for share in split.split("/")], tmp_path)
    assert list(splits) == list(SPLITS) and all(splits.values())
    ids = [record["orig_id"] for record in chain(*splits.values())]
    assert sorted(ids, key=int) == [str(number) for number in range(count)]
    assert abs(len(splits["dev"]) - count * int(split.split("/")[1]) / 100) <= 2


def test_documents_without_a_name_are_not_one_document(tmp_path):
    write_lines(tmp_path / "a.jsonl", [DOCCANO | {"id": None}] * 2)
    write_lines(tmp_path / "b.jsonl", [{"text": "No rash.", "label": []}] * 2)
    write_lines(tmp_path / "c.jsonl", [ACE | {"doc_key": None}] * 2)
    parts = own.read(tmp_path, (), "60/20/20").values()
    documents = [{record["document"] for record in part} for part in parts]
    assert list(map(len, documents)) == [4, 1, 1] and len(set.union(*documents)) == 6


def test_a_text_of_doccano_without_annotations_is_named_with_its_keys(tmp_path):
    path = write_lines(tmp_path / "none.jsonl", [DOCCANO, {"text": "a", "spans": []}])
    with pytest.raises(InputError, match="none.jsonl, line 2: it has the keys text, spans; it must be"):
        forms.read(path)


def test_pairs_of_brat_in_folders_of_a_folder_are_read_too(tmp_path):
    write_pair(tmp_path, ann="")
    write_pair(tmp_path / "sub", "other", "a\tb c", "T1\tA 0 3\ta\tb\nT2\tA 4 5\tc\nR1\tX Drug:T1 Effect:T2")
    *_, record = brat.read(tmp_path)
    assert record["entities"][0] == {"type": "A", "start": 0, "end": 2}
    assert record["relations"] == [{"type": "X", "head": 0, "tail": 1}]


def test_a_relation_of_three_is_left_out_and_named(tmp_path, capsys):
    write_pair(tmp_path, "d", "a b c", "T1\tA 0 1\ta\nT2\tA 2 3\tb\nR1\tX Arg1:T1 Arg2:T2 Arg3:T1")
    (record,) = brat.read(tmp_path)
    assert record["relations"] == []
    assert capsys.readouterr().err == f"{tmp_path}/d.ann, R1: it joins more than two; left out\n"


def test_a_set_of_two_cannot_be_divided(tmp_path):
    write_lines(tmp_path / "a.json", [RECORD, RECORD])
    assert "2 documents or sentences cannot be" in error_of(own.read, tmp_path, (), "80/10/10")[0]


@pytest.mark.parametrize("split", ["80/10", "a/b/c", "80/10/20", "90/10/0", "80/10/10/0", "-1/1/100"])
def test_a_malformed_split_is_one_line(tmp_path, split):
    write_lines(tmp_path / "a.json", [RECORD] * 9)
    (line,) = error_of(data.read_corpus, str(tmp_path), "data", 0, split)
    assert line == f"--split {split}: must be three shares that add up to 100, such as 80/10/10"


def test_split_goes_with_one_set_of_ones_own(tmp_path):
    assert error_of(data.read_corpus, "toy", "data", 0, "80/10/10") == [
        "--split goes with a folder of your own: toy has its splits"
    ]
    assert error_of(own.read, tmp_path, (), "80/10/10") == [
        f"{tmp_path}: no .json, .jsonl or .ann there to split"
    ]
    write_corpus(tmp_path, [RECORD])
    (line,) = error_of(own.read, tmp_path, (), "80/10/10")
    assert line.startswith(f"--split 80/10/10: {tmp_path}/dev.json and {tmp_path}/test.json exist")
