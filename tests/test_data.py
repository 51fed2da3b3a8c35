"""Sentences: from records and from texts, in wordpieces, in batches, and as predicted."""

import itertools
import json
import random
import subprocess
import sys
from unittest.mock import Mock

import pytest
import torch
from helpers import HERE, RECORD, SMALL
from hypothesis import given
from hypothesis import strategies as st

import data
from corpora import toy
from corpora.records import read_records
from data import Encoded, Entity, Relation, Sentence
from spanrel import Prediction
from support.encoders import learn_tokenizer
from support.errors import InputError
from test_spanrel import TYPES, annotated, coded, sentences

# -- Sentences from records --------------------------------------------------------------------------------


def read_back(path, written):
    """The sentences of a file, after these were written into it."""
    path.write_text(json.dumps([s.to_record() for s in written]), encoding="utf-8")
    return [data.sentence_of(record, "", "f") for record in read_records(path)]


@given(written=st.lists(sentences(), min_size=1, max_size=4))
def test_what_is_written_in_sperts_json_is_read_back(tmp_path_factory, written):
    assert read_back(tmp_path_factory.mktemp("json") / "train.json", written) == written


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(text=ANY_TEXT | st.text("aé😀 .-\n\t\u0301", max_size=12), rng=st.randoms(use_true_random=False))
def test_what_is_written_of_a_text_is_read_back_with_the_text_and_each_offset(tmp_path_factory, text, rng):
    sentence = Sentence.from_text(text, "7")
    if sentence.words:
        sentence.entities, sentence.relations = annotated(rng, len(sentence.words))
        (again,) = read_back(tmp_path_factory.mktemp("json") / "train.json", [sentence])
        assert again == sentence and again.text == text and again.offsets == sentence.offsets


def test_a_record_names_the_characters_of_each_entity_and_the_scores_of_what_was_predicted():
    sentence = Sentence.from_text("  A rash,\nby aspirin", "7")
    rash, drug = Entity("Effect", 1, 2, score=0.75), Entity("Drug", 4, 5)
    sentence.entities, sentence.relations = [rash, drug], [Relation("R", drug, rash, score=0.5)]
    assert sentence.to_record() == {
        "tokens": ["A", "rash", ",", "by", "aspirin"],
        "entities": [
            {"type": "Effect", "start": 1, "end": 2, "chars": [4, 8], "score": 0.75},
            {"type": "Drug", "start": 4, "end": 5, "chars": [13, 20]},
        ],
        "relations": [{"type": "R", "head": 1, "tail": 0, "score": 0.5}],
        "text": "  A rash,\nby aspirin",
        "orig_id": "7",
    }


def test_a_record_with_a_text_gives_the_sentence_its_text_and_offsets():
    sentence = data.sentence_of(RECORD | {"text": " a\nb"}, "7", "f")
    assert sentence.text == " a\nb" and sentence.offsets == [(1, 2), (3, 4)]
    assert sentence.chars(Entity("A", 0, 2)) == (1, 4)


@pytest.mark.parametrize("text", ["", "b a", "another", "a", 7, None, ["a", "b"]], ids=ascii)
def test_a_text_that_the_words_were_not_cut_from_is_ignored(text):
    sentence = data.sentence_of(RECORD | {"text": text}, "7", "f")
    assert sentence.text == "a b" and sentence.offsets == [(0, 1), (2, 3)]


def test_a_record_may_have_an_id_and_a_phenomenon_and_is_named_with_its_place():
    bare = data.sentence_of(RECORD, "train-3", "f, record 3")
    assert (bare.id, bare.phenomenon, bare.repeated) == ("train-3", "", 0)
    full = data.sentence_of(RECORD | {"orig_id": 7, "phenomenon": "local"}, "train-3", "f, record 3")
    assert (full.id, full.phenomenon) == ("7", "local")
    with pytest.raises(InputError, match="^f, record 3, tokens: null; must be a list$"):
        data.sentence_of(RECORD | {"tokens": None}, "train-3", "f, record 3")


@given(id=st.text(st.characters()), half=st.integers(0xD800, 0xDFFF).map(chr))
def test_an_id_that_has_half_a_character_is_escaped_when_it_is_read(id, half):
    name = data.sentence_of(RECORD | {"orig_id": id + half}, "train-3", "f").id
    assert name.encode() and (ascii(half)[1:-1] in name or name.endswith(" …"))


def test_what_a_record_has_twice_a_sentence_has_once():
    entities = [RECORD["entities"][k] for k in (0, 1, 0, 1)]
    relations = []
    for head, tail in ((0, 1), (2, 3), (1, 0), (2, 1)):
        relations.append({"type": "R", "head": head, "tail": tail})
    sentence = data.sentence_of(RECORD | {"entities": entities, "relations": relations}, "7", "f")
    a, b = Entity("A", 0, 1), Entity("A", 1, 2)
    assert sentence.entities == [a, b] and sentence.relations == [Relation("R", a, b), Relation("R", b, a)]
    assert sentence.repeated == 2 + 2


def test_entities_and_relations_are_equal_whatever_their_scores():
    a, b = Entity("A", 0, 1), Entity("A", 1, 2)
    assert a == Entity("A", 0, 1, score=0.5) and Relation("R", a, b) == Relation("R", a, b, score=0.5)
    assert len({a, Entity("A", 0, 1, score=0.5), Entity("B", 0, 1), Entity("A", 0, 2)}) == 3
    assert len({Relation("R", a, b), Relation("R", b, a), Relation("S", a, b)}) == 3


def test_types_are_those_of_train_in_order():
    part = [Sentence("s", ["a", "b"], [Entity("B", 0, 1), Entity("A", 1, 2)])]
    part[0].relations = [Relation("R", *part[0].entities)]
    other = [Sentence("s", ["a"], [Entity("C", 0, 1)])]
    corpus = data.Corpus("c", part, other, other)
    assert corpus.types("entities") == ["A", "B"] and corpus.types("relations") == ["R"]
    assert corpus.splits == {"train": part, "dev": other, "test": other}


def test_a_head_region_of_ace05_has_all_its_words(tmp_path):
    document = {"doc_key": "d", "sentences": [["Hello", "."], ["New", "York", "Times", "man", "resigns"]]}
    document["ner"] = [[], [[2, 4, "ORG"], [2, 3, "GPE"], [5, 5, "PER"]]]
    document["relations"] = [[], [[5, 5, 2, 4, "ORG-AFF"]]]
    (tmp_path / "ace05").mkdir()
    for split in ("train", "dev", "test"):
        (tmp_path / f"ace05/{split}.json").write_text(json.dumps(document))
    sentence = data.read_corpus("ace05", tmp_path).test[1]
    paper, city, man = Entity("ORG", 0, 3), Entity("GPE", 0, 2), Entity("PER", 3, 4)
    assert sentence.entities == [paper, city, man]
    assert sentence.relations == [Relation("ORG-AFF", man, paper)]


# -- Sentences from texts ----------------------------------------------------------------------------------


def test_raw_text_is_cut_as_ade_is():
    text = "Gemcitabine-induced pulmonary toxicity, 😀 é e\u0301!"  # one é is two characters
    sentence = Sentence.from_text(text)
    words = ["Gemcitabine", "-", "induced", "pulmonary", "toxicity", ",", "😀", "é", "e\u0301", "!"]
    assert sentence.words == words
    start, end = sentence.chars(Entity("Adverse-Effect", 3, 5))
    assert text[start:end] == "pulmonary toxicity"


@given(sentence=sentences())
def test_words_without_a_text_are_joined_by_blanks(sentence):
    assert sentence.text == " ".join(sentence.words)
    assert [sentence.text[a:b] for a, b in sentence.offsets] == sentence.words


def test_texts_to_predict_become_sentences_with_gold_where_a_record_has_it(tmp_path):
    lines, records = tmp_path / "lines.text", tmp_path / "records.JSON"
    lines.write_text("\ufeffA rash.\n\nNo 😀 rash.\n \t\n", encoding="utf-8")
    records.write_text(json.dumps(["A rash.", ["A", "rash"], RECORD, {"tokens": ["x"]}]))
    pairs = list(data.read_inputs(["A rash.", str(lines), str(records)]))
    assert [s.words for s, _ in pairs] == [
        ["A", "rash", "."],
        ["A", "rash", "."],
        ["No", "😀", "rash", "."],
        ["A", "rash", "."],
        ["A", "rash"],
        ["a", "b"],
        ["x"],
    ]
    ids = ["text 1", "lines.text:1", "lines.text:3", *(f"records.JSON:{k}" for k in range(4))]
    assert [s.id for s, _ in pairs] == ids
    assert [gold is not None for _, gold in pairs] == [False] * 5 + [True, False]
    assert pairs[5][1] == data.sentence_of(RECORD, "records.JSON:2", "f")


def test_an_empty_text_is_a_sentence_without_words(tmp_path):
    ((sentence, gold),) = data.read_inputs([""])
    assert (sentence.id, sentence.words, sentence.text, gold) == ("text 1", [], "", None)
    path = tmp_path / "lists.json"
    path.write_text(json.dumps([["a"], [], {"tokens": []}, {"tokens": [], "entities": [], "relations": []}]))
    pairs = list(data.read_inputs([str(path)]))
    assert [s.words for s, _ in pairs] == [["a"], [], [], []]
    assert [gold is not None for _, gold in pairs] == [False, False, False, True]


def test_a_text_to_predict_is_cut_by_the_rule_that_is_given():
    ((sentence, _),) = data.read_inputs(["a 5-HT antagonist"], rule="blanks")
    assert sentence.words == ["a", "5-HT", "antagonist"]
    assert data.input_sentence("a 5-HT antagonist", "t", "t")[0].words == ["a", "5", "-", "HT", "antagonist"]


def test_an_error_of_an_item_is_told_with_the_broken_line_behind_it(tmp_path):
    (tmp_path / "a.jsonl").write_text('"a text"\n3\n{\n"another"')
    with pytest.raises(InputError) as error:
        list(data.read_inputs([str(tmp_path / "a.jsonl")]))
    first, second = error.value.lines
    assert first.startswith(f"{tmp_path}/a.jsonl, line 2, it is 3")
    assert second.startswith(f"{tmp_path}/a.jsonl, line 3")


def test_each_input_that_is_wrong_is_named_with_its_place(tmp_path):
    path = tmp_path / "records.json"
    halves = [{"tokens": ["x"], "entities": {}}, {"tokens": ["x"], "relations": [1]}]
    path.write_text(json.dumps(["A rash.", 3, {"tokens": ""}, "\ud800", *halves]))
    with pytest.raises(InputError) as error:
        list(data.read_inputs(["\udc80", str(path), "A rash."]))
    lines = str(error.value).splitlines()
    assert lines[0] == "text 1: '\\udc80'; it must be UTF-8"
    assert lines[1].startswith(f"{path}, record 1, it is 3; it must be ")
    assert lines[2:] == [
        f"{path}, record 2, tokens: ''; must be a list",
        f"{path}, record 3: '\\ud800'; it must be UTF-8",
        f"{path}, record 4, entities: {{}}; must be a list",
        f'{path}, record 5, relations[0]: 1; must be {{"type", "head", "tail"}}',
    ]


# -- Wordpieces --------------------------------------------------------------------------------------------


def test_wordpieces_of_words_with_and_without_pieces():
    tokenizer = learn_tokenizer([["lithium", "tremor"] * 3])
    sentence = Sentence("s", ["lithium", "\u200b", "tremorlithium", "😀"])
    (encoded,) = data.encode([sentence], tokenizer, 99)
    pieces = tokenizer.convert_ids_to_tokens(encoded.input_ids)
    of_words = [pieces[a:b] for a, b in zip(encoded.starts, encoded.ends)]
    assert of_words[:2] == [["lithium"], ["[UNK]"]]
    assert encoded.ends[2] - encoded.starts[2] > 1 and pieces[encoded.starts[3]] == "[UNK]"
    assert pieces[0] == "[CLS]" and encoded.is_token == [True] * (len(pieces) - 1) + [False]  # all but [SEP]
    assert encoded.sentence is sentence and sentence.words[1] == "\u200b"


def test_a_sentence_is_encoded_alone_as_among_others():
    tokenizer = learn_tokenizer([s.words for s in SMALL.train])
    encoded = data.encode(SMALL.test, tokenizer, 512)
    assert [e.sentence for e in encoded] == SMALL.test and data.encode([], tokenizer, 512) == []
    for one in encoded:
        assert data.encode([one.sentence], tokenizer, 512) == [one]


def test_a_learned_tokenizer_is_the_same_each_time():
    code = (
        "import corpora.toy; from support.encoders import learn_tokenizer; "
        "words = [record['tokens'] for record in corpora.toy.read()['train']]; "
        "print(sorted(learn_tokenizer(words).get_vocab().items()))"
    )
    command = [sys.executable, "-c", code]
    in_another_process = subprocess.run(command, cwd=HERE, capture_output=True, text=True).stdout
    learned = learn_tokenizer(record["tokens"] for record in toy.read()["train"])
    assert in_another_process == f"{sorted(learned.get_vocab().items())}\n"


def test_a_sentence_too_long_is_named_and_never_cut():
    tokenizer = learn_tokenizer([["a"]])
    long = Sentence("s7", ["a"] * 10)
    with pytest.raises(InputError, match=r"c, train, s7: 12 wordpieces, and the encoder takes 11.*a a a"):
        data.encode([long], tokenizer, 11, "c, train, ")
    assert len(data.encode([long], tokenizer, 12)[0].input_ids) == 12
    with pytest.raises(InputError) as error:  # all of them are named
        data.encode([long, Sentence("s8", ["a"]), Sentence("s9", ["a"] * 11)], tokenizer, 11)
    assert [line.split(",")[0] for line in str(error.value).splitlines()] == [
        "s7: 12 wordpieces",
        "s9: 13 wordpieces",
    ]
    watched = Mock(side_effect=tokenizer, unk_token="[UNK]")
    with pytest.raises(InputError, match="s7: 5000 words, and the encoder takes 11 wordpieces"):
        data.encode([Sentence("s7", ["a"] * 5000)] * 9, watched, 11)
    assert [len(words) for words in watched.call_args_list[0].args[0]] == [11] * 9  # not all of them at once


def test_a_tokenizer_that_puts_nothing_before_a_sentence_is_refused():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]")
    message = r"^--encoder: .* nothing before the sentence, where \[CLS\] must stand$"
    with pytest.raises(InputError, match=message):
        data.encode([Sentence("s", ["a"])], tokenizer, 99)


# -- Batches -----------------------------------------------------------------------------------------------


def test_spans_of_words_become_spans_of_wordpieces():
    encoded = Encoded(Sentence("s", ["a", "bcd", "e"]), [0] * 7, [True] * 6 + [False], [1, 2, 5], [2, 5, 6])
    batch = data.make_batch([data.prediction_example(encoded, 2)], 2)
    assert batch.spans[0].tolist() == [[1, 2], [1, 5], [2, 5], [2, 6], [5, 6]]
    assert batch.widths[0].tolist() == [1, 2, 1, 2, 1]
    assert batch.pairs.shape == (1, 0, 2) and batch.t_r.shape == (1, 0, 2)


@given(written=st.lists(sentences(), min_size=1, max_size=3))
def test_a_batch_is_its_examples_padded(written):
    examples = [data.training_example(coded(s), *TYPES, data.Sampling(3, 2)) for s in written]
    batch = data.make_batch(examples, C=3, pad_id=7)
    for b, example in enumerate(examples):
        n, S, P = len(example.encoded.input_ids), len(example.spans), len(example.pairs)
        filler = [7] * (batch.input_ids.shape[1] - n)
        assert batch.input_ids[b].tolist() == example.encoded.input_ids + filler
        counts = [(batch.attention_mask, n), (batch.is_token, n - 1), (batch.is_span, S), (batch.is_pair, P)]
        for mask, count in counts:  # of tokens, without [SEP]
            assert mask[b].tolist() == [True] * count + [False] * (mask.shape[1] - count)
        pieces = [(start + 1, end + 1) for start, end in example.spans]  # behind [CLS]
        assert [tuple(span) for span in batch.spans[b, :S].tolist()] == pieces
        assert batch.widths[b, :S].tolist() == [end - start for start, end in example.spans]
        assert batch.t_s[b, :S].tolist() == example.span_types
        assert [tuple(pair) for pair in batch.pairs[b, :P].tolist()] == example.pairs
        assert [set(row.nonzero().flatten().tolist()) for row in batch.t_r[b, :P]] == example.pair_types
        assert not batch.t_r[b, P:].any()
    assert batch.arguments == max(example.arguments for example in examples)
    assert batch.examples == examples


def test_a_batch_moves_to_another_device_whole():
    types = SMALL.types("entities"), SMALL.types("relations")
    examples = [data.training_example(coded(s), *types, data.Sampling()) for s in SMALL.train[:3]]
    batch = data.make_batch(examples, C=2)
    moved = batch.to("meta")
    for name, value in vars(batch).items():
        other = getattr(moved, name)
        if isinstance(value, torch.Tensor):
            assert (other.device.type, other.shape, other.dtype) == ("meta", value.shape, value.dtype)
            assert value.device.type == "cpu"
        else:
            assert other is value
    names = ["input_ids", "attention_mask", "is_token", "spans", "widths"]
    assert all(one is getattr(batch, name) for one, name in zip(batch.inputs, names, strict=True))


def of_lengths(lengths):
    """Sentences of one word each and that many wordpieces."""
    return [Encoded(Sentence(str(k), ["w"]), [0] * n, [], [], []) for k, n in enumerate(lengths)]


def ids_of(batches):
    """The ids of the sentences of each batch."""
    ids = []
    for batch in batches:
        ids.append(tuple(encoded.sentence.id for encoded in batch))
    return ids


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 9), st.booleans())
def test_batches_hold_every_sentence_once(lengths, size, shuffled):
    encoded = of_lengths(lengths)
    batches = data.batches_of(encoded, size, random.Random(0) if shuffled else None)
    assert sorted(itertools.chain(*ids_of(batches))) == sorted(e.sentence.id for e in encoded)
    assert all(1 <= len(batch) <= size for batch in batches)


def test_batches_are_of_similar_length_and_others_in_another_order_with_each_seed():
    encoded = of_lengths([k % 10 for k in range(120)])
    one, other, again = (data.batches_of(encoded, 4, random.Random(seed)) for seed in (0, 1, 0))
    assert ids_of(one) == ids_of(again) and set(ids_of(one)) != set(ids_of(other))
    lengths = []
    for batch in one:
        lengths.append([len(e.input_ids) for e in batch])
    assert sum(max(batch) - min(batch) for batch in lengths) < 0.5 * len(lengths)
    assert lengths != sorted(lengths)
    assert [e.sentence.id for e in encoded] == list(map(str, range(120)))  # the list given stays in order


def test_training_sorts_by_length_within_shuffled_pools_of_32_batches_alone():
    encoded = of_lengths(range(1, 129))
    order, expected = list(range(1, 129)), set()
    random.Random(0).shuffle(order)
    for pool in (sorted(order[:64]), sorted(order[64:])):
        expected.update(zip(pool[::2], pool[1::2]))
    batches = data.batches_of(encoded, 2, random.Random(0))
    assert {tuple(len(e.input_ids) for e in batch) for batch in batches} == expected


@given(shapes=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9)), min_size=1, max_size=40))
def test_prediction_takes_the_longest_first_and_four_batches_by_words(shapes):
    encoded = []
    for k, (pieces, words) in enumerate(shapes):
        encoded.append(Encoded(Sentence(str(k), ["w"] * words), [0] * pieces, [], [], []))
    order = list(itertools.chain(*data.batches_of(encoded, 2)))
    pieces, words = [len(e.input_ids) for e in order], [len(e.sentence.words) for e in order]
    assert sorted(pieces) == sorted(len(e.input_ids) for e in encoded)
    for start in range(0, len(order), 8):
        assert max(pieces[start + 8 :], default=0) <= min(pieces[start : start + 8])
        assert words[start : start + 8] == sorted(words[start : start + 8], reverse=True)


# -- Predicted sentences -----------------------------------------------------------------------------------


def test_predicted_sentences_have_what_the_prediction_holds_with_its_posteriors():
    one, two = Sentence("1", list("abcd"), [Entity("B", 0, 4)]), Sentence.from_text("e  f", "2")
    examples = [data.prediction_example(coded(sentence), 10) for sentence in (one, two)]
    a, b, c = Entity("A", 0, 2), Entity("B", 1, 3), Entity("A", 3, 4)
    kept = [[examples[0].spans.index((e.start, e.end)) for e in (a, b, c)], [2, 0, 0]]
    pairs = list(itertools.permutations(range(3), 2))
    y_r, holds = torch.full((2, 6, 3), 0.125), torch.zeros(2, 6, 3, dtype=torch.bool)
    for head, tail, kind, posterior in ((0, 2, 1, 0.5), (2, 0, 1, 0.75), (2, 0, 2, 0.25)):
        place = (0, pairs.index((head, tail)), kind)
        y_r[place], holds[place] = posterior, True
    prediction = Prediction(
        kept=torch.tensor(kept),
        is_entity=torch.tensor([[True, True, True], [True, False, False]]),
        y_s=torch.tensor(
            [
                [[0.25, 0.5, 0.25], [0, 0.25, 0.75], [0.375, 0.625, 0]],
                [[0, 0.875, 0.125], [0, 1, 0], [0, 0, 1]],  # behind the first is padding
            ]
        ),
        pairs=torch.tensor([pairs, pairs]),
        y_r=y_r,
        holds=holds,
    )
    first, second = data.predicted_sentences(examples, prediction, *TYPES)
    assert first.entities == [a, b, c] and [e.score for e in first.entities] == [0.5, 0.75, 0.625]
    assert first.relations == [Relation("R", a, c), Relation("R", c, a), Relation("S", c, a)]
    assert [r.score for r in first.relations] == [0.5, 0.75, 0.25]
    assert [r.head.score for r in first.relations] == [0.5, 0.625, 0.625]
    assert second.entities == [Entity("A", 1, 2)] and second.entities[0].score == 0.875
    assert second.relations == [] and second.chars(second.entities[0]) == (3, 4)
    for sentence, predicted in ((one, first), (two, second)):
        assert (predicted.id, predicted.words, predicted.text) == (sentence.id, sentence.words, sentence.text)
    assert one.entities == [Entity("B", 0, 4)] and two.entities == []  # gold stays as it is
