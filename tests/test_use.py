"""What a trained run is used for: other corpora, given entities, long files; and what a run says."""

import contextlib
import dataclasses
import itertools
import json
import math
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import RECORD, SMALL, eager, save_run, toy_run, write_corpus
from hypothesis import given
from hypothesis import strategies as st

import data
import train
from corpora import toy
from data import Entity, Relation, Sentence
from spanrel import in_chunks
from support import checkpoints, pictures, progress
from support.cautions import cautions, second_types_of_pairs
from support.devices import explain_memory
from support.errors import InputError


@pytest.fixture(scope="module")
def run():
    """A model that finds much."""
    return eager(max_width=4)


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """Where it is saved."""
    folder = tmp_path_factory.mktemp("saved")
    save_run(run, folder)
    return folder


def items_of(sentences):
    """What was found, with its scores."""
    return [(s.words, s.entities, s.relations, [r.score for r in s.relations]) for s in sentences]


# -- Texts ---------------------------------------------------------------------------------------------------


def test_one_text_is_one_sentence(run):
    text = "Aspirin caused rash ."
    assert items_of(run.predict(text)) == items_of(run.predict([text]))
    assert [sentence.words for sentence in run.predict(["", [], ["a"]])] == [[], [], ["a"]]
    assert [sentence.words for sentence in run.predict(RECORD)] == [RECORD["tokens"]]
    for wrong in (None, 5, b"ab", Path("a")):
        with pytest.raises(InputError, match="^predict takes a text, or a list of texts; this is "):
            run.predict(wrong)
    with pytest.raises(InputError, match="^text 1: .*\ntext 3, tokens"):  # all of them are named
        run.predict(["\udc80", "A rash.", [5]])


CUT = [("letters", ["U", ".", "S", ".", "men"]), ("treebank", ["U.S.", "men"])]


@pytest.mark.parametrize("rule, words", CUT)
def test_texts_are_cut_as_the_corpus_was_also_by_a_saved_run(tmp_path, rule, words):
    corpus = data.corpus_of("c", {split: [{**RECORD, "tokens": words}] for split in ("train", "dev", "test")})
    run = train.new_run(train.settings_of(dataset="toy", hidden=16, heads=2), corpus)
    assert run.rule == rule
    save_run(run, tmp_path)
    for each in (run, train.load(tmp_path)):
        assert each.predict(["U.S. men"])[0].words == words
    described = json.loads((tmp_path / "config.json").read_text())
    assert described.pop("words") == rule and described["encoder_revision"] == ""
    (tmp_path / "config.json").write_text(json.dumps(described))
    assert train.load(tmp_path).rule == "letters"  # as before runs said it


@pytest.mark.parametrize("form, lines", [("jsonl", 1), ("text", 2)])
def test_a_long_file_is_read_and_printed_in_blocks(form, lines, folder, tmp_path, monkeypatch, capsys):
    texts = [f"a rash by aspirin {number}" for number in range(1030)]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    sizes = []

    def watched(run, encoded, *more):
        sizes.append((len(encoded), len(capsys.readouterr().out.splitlines())))  # what was printed since
        return [dataclasses.replace(e.sentence) for e in encoded]

    monkeypatch.setattr(train.Run, "annotate", watched)
    command = ["--load", str(folder), "--predict", str(tmp_path / "texts.txt"), "--format", form]
    assert train.main(command) == 0
    assert sizes == [(512, 0), (512, 512 * lines), (6, 512 * lines)]
    (*_, last) = capsys.readouterr().out.splitlines()
    assert texts[-1] == (json.loads(last)["text"] if form == "jsonl" else last)


@pytest.mark.parametrize("form", pictures.FORMATS)
def test_a_list_or_a_page_of_very_many_sentences_is_one_line_that_names_another_form(
    form, tmp_path, folder, monkeypatch, capsys
):
    monkeypatch.setattr(pictures, "MOST_SHOWN", 3)
    (tmp_path / "texts.txt").write_text("a rash\n" * 4)
    status = train.main(["--load", str(folder), "--predict", str(tmp_path / "texts.txt"), "--format", form])
    output = capsys.readouterr()
    if form in ("text", "jsonl"):
        assert status == 0 and output.out.count("a rash") >= 4
    else:
        message = f"--format {form} holds 3 sentences at most; jsonl has no limit"
        assert status == 2 and not output.out and output.err.splitlines()[-1] == message


# -- Given entities ------------------------------------------------------------------------------------------


def test_given_entities_stay_and_only_their_relations_are_predicted(run):
    gold = [s for s in SMALL.test if s.entities]
    found = run.predict([s.to_record() for s in gold], given_entities=True)
    assert [s.entities for s in found] == [s.entities for s in gold]
    assert any(s.relations for s in found)
    for sentence in found:
        assert all(e.score is None for e in sentence.entities)
        assert all({r.head, r.tail} <= set(sentence.entities) for r in sentence.relations)


def test_relations_of_given_entities_are_those_of_the_same_entities_found(run):
    (found,) = run.annotate(run.encode(SMALL.test[:1]))
    assert len(found.relations) > 1
    (again,) = run.annotate(run.encode([found]), given_entities=True)
    assert again.entities == found.entities and again.relations == found.relations
    scores = [relation.score for relation in found.relations]
    assert [relation.score for relation in again.relations] == pytest.approx(scores, abs=1e-5)


def test_given_entities_may_have_any_type_or_be_none_but_not_too_wide(run):
    odd = {"tokens": ["a", "b", "c"], "entities": [{"type": "Odd", "start": 0, "end": 2}], "relations": []}
    none = {"tokens": ["a"], "entities": [], "relations": []}
    first, second = run.predict([odd, none], given_entities=True)
    assert first.entities == [Entity("Odd", 0, 2)] and second.entities == []
    for alone in (none, "a text", {"tokens": ["a"], "entities": []}):  # a batch without any
        (sentence,) = run.predict([alone], given_entities=True)
        assert sentence.entities == sentence.relations == []
    overlapping = odd | {"entities": odd["entities"] + [{"type": "Odd", "start": 1, "end": 3}]}
    flat = dataclasses.replace(run.settings, flat=True)
    (sentence,) = dataclasses.replace(run, settings=flat).predict([overlapping], given_entities=True)
    assert len(sentence.entities) == 2
    wide = {"tokens": list("abcde"), "entities": [{"type": "A", "start": 0, "end": 5}], "relations": []}
    with pytest.raises(InputError, match="^text 1: an entity of 5 words; the run knows .* 4 words"):
        run.predict([wide], given_entities=True)


def test_given_entities_on_the_command_line(folder, tmp_path, capsys):
    (tmp_path / "gold.json").write_text(json.dumps([RECORD]))
    command = ["--load", str(folder), "--predict", str(tmp_path / "gold.json"), "--given-entities"]
    assert train.main([*command, "--format", "jsonl"]) == 0
    record = json.loads(capsys.readouterr().out)
    places = [{name: entity[name] for name in ("type", "start", "end")} for entity in record["entities"]]
    assert places == RECORD["entities"]


# -- What a run's files say is checked as flags are ---------------------------------------------------------

WRONG_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), st.text(max_size=5),
    st.lists(st.text(max_size=2), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@given(pick=st.data(), value=WRONG_VALUES)
def test_any_change_of_config_json_is_a_run_or_one_error(folder, tmp_path_factory, pick, value):
    description = json.loads((folder / "config.json").read_text())
    settings = description["settings"]
    parts = [description, settings, description["encoder"]]
    part = pick.draw(st.sampled_from(parts))
    name = pick.draw(st.sampled_from(sorted(part)))
    part[name] = value
    changed = tmp_path_factory.mktemp("changed")
    for file in folder.iterdir():
        if file.name != "config.json":
            (changed / file.name).symlink_to(file)
    (changed / "config.json").write_text(json.dumps(description))
    with contextlib.suppress(InputError):
        train.load(changed, "cpu").predict("a rash")


SIZES = {"hidden": 2**16, "width_dim": 2**16, "max_width": 1000, "layers": 1000, "context_layers": 999}
SIZES |= {"vocab_size": 10**11, "max_position_embeddings": 10**11, "num_hidden_layers": 10**7}
SIZES |= {"hidden_size": 2**20, "type_vocab_size": 10**12}


@pytest.mark.parametrize("name, value", SIZES.items())
def test_a_model_that_the_weights_do_not_fill_is_not_built(folder, tmp_path, monkeypatch, name, value):
    description = json.loads((folder / "config.json").read_text())
    parts = (description["settings"], description["encoder"])
    next(part for part in parts if name in part)[name] = value
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run/config.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="as config.json says$|at most 1,000 are built$"):
        train.load(tmp_path / "run")


def test_a_tokenizer_with_ids_beyond_the_models_is_one_line(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    path = tmp_path / "run/tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = 5000  # as many pieces as before
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="its vocabulary has 5,001 pieces, and the encoder "):
        train.load(tmp_path / "run")


# -- Other corpora -------------------------------------------------------------------------------------------


def test_a_saved_run_is_scored_on_another_corpus(folder, tmp_path, capsys):
    write_corpus(tmp_path / "other", [RECORD], [RECORD, RECORD], [RECORD])
    other = ["--dataset", str(tmp_path / "other")]
    for flags, name, count in (([], "other, test", 2), (["--eval-split", "dev"], "other, dev", 4)):
        assert train.main(["--load", str(folder), "--evaluate", *other, *flags]) == 0
        printed = capsys.readouterr().out
        assert f"{name}, micro" in printed
        assert train.main(["--load", str(folder), "--evaluate", *other, *flags, "--format", "jsonl"]) == 0
        records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert sum(len(record["tokens"]) for record in records) == count


def test_a_run_goes_on_where_its_corpus_has_moved(tmp_path, monkeypatch, capsys):
    write_corpus(tmp_path / "before", [RECORD])
    flags = ["--dataset", str(tmp_path / "before"), "--encoder", "tiny", "--device", "cpu", "--epochs", "2"]
    take_epoch = train.train_epoch

    def train_epoch(run, encoded, epoch, *more):
        if epoch == 2:
            raise KeyboardInterrupt
        return take_epoch(run, encoded, epoch, *more)

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_epoch", train_epoch)
        assert train.main([*flags, "--output", str(tmp_path / "run")]) == 130
    (tmp_path / "before").rename(tmp_path / "after")
    assert train.main(["--resume", str(tmp_path / "run")]) == 2
    assert "before" in capsys.readouterr().err
    assert train.main(["--resume", str(tmp_path / "run"), "--dataset", str(tmp_path / "after")]) == 0
    assert (tmp_path / "run" / "metrics.json").exists()


def test_a_run_that_begins_anew_describes_the_corpus_as_it_is_now(tmp_path, monkeypatch):
    given = dict(dataset=str(tmp_path / "c"), encoder="tiny", epochs=1, device="cpu")
    write_corpus(tmp_path / "c", [RECORD])
    with monkeypatch.context() as patch:
        patch.setattr(train, "train_epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train.train(train.settings_of(**given, output=str(tmp_path / "run")))
    entities = [{"type": "Z", "start": 0, "end": 1}, {"type": "B", "start": 1, "end": 2}]
    write_corpus(tmp_path / "moved", [RECORD | {"tokens": ["other", "words"], "entities": entities}])
    train.resume(str(tmp_path / "run"), {"dataset": str(tmp_path / "moved")})
    loaded = train.load(tmp_path / "run")
    assert loaded.entity_types == ["B", "Z"] and loaded.settings.dataset == str(tmp_path / "moved")
    assert train.main(["--load", str(tmp_path / "run"), "--evaluate"]) == 0


@pytest.mark.parametrize(
    "encoder, name",
    [("lab/x", "lab/x@abc"), ("lab/x@main", "lab/x@abc"), ("tests", "tests")],  # the last is a folder
)
def test_a_run_goes_on_with_the_encoder_of_its_revision(monkeypatch, encoder, name):
    asked = []

    def load_encoder(name, sentences):
        asked.append(name)
        raise InputError("enough")

    monkeypatch.setattr(train.encoders, "load_encoder", load_encoder)
    with pytest.raises(InputError):
        train.new_run(train.settings_of(encoder=encoder), SMALL, "abc")
    assert asked == [name]


def test_a_runs_own_fold_and_split_are_not_those_of_another_corpus(tmp_path, capsys):
    write_corpus(tmp_path / "other", [RECORD])
    for number, own in enumerate((dict(dataset="ade", fold=3), dict(dataset="pool", split="80/10/10"))):
        run = toy_run()
        run.settings = dataclasses.replace(run.settings, **own)
        folder = str(tmp_path / f"run{number}")
        save_run(run, Path(folder))
        assert train.main(["--load", folder, "--evaluate", "--dataset", str(tmp_path / "other")]) == 0
    given = ["--load", folder, "--evaluate", "--dataset", "pool", "--split", "50/25/25"]
    assert train.main(given) == 2 and "a run is scored on its own share" in capsys.readouterr().err


SPERT_LACKS = {
    "hidden": 8,
    "layers": 1,
    "context_layers": 1,
    "heads": 2,
    "attention": "dot",
    "ablate": ["local"],
}
IDLE = [({"model": "spert", name: value}, name) for name, value in SPERT_LACKS.items()]
IDLE += [
    ({"threshold": 0.3}, "threshold"),
    ({"attention": "dot", "heads": 2}, "heads"),
    ({"negative_rate": 3, "negative_count": 4}, "negative_rate"),
    ({"model": "spert", "negative_rate": 3}, "negative_rate"),
    ({"ablate": ["span-sentence", "local", "relation-sentence"], "heads": 2}, "heads"),
]


@pytest.mark.parametrize("given, flag", IDLE, ids=str)
def test_a_flag_that_does_nothing_is_refused(given, flag):
    with pytest.raises(InputError, match=f"^--{flag.replace('_', '-')} does nothing here: "):
        train.settings_of(**given)


def test_flags_that_do_something_are_not_refused():
    train.settings_of(relation_loss="sigmoid-bce", threshold=0.3)
    train.settings_of(model="spert", threshold=0.3, negative_count=0, negative_rate=3)
    train.settings_of(negative_count=0, negative_rate=3)
    train.settings_of(ablate=["local"], heads=2)


def test_a_least_score_leaves_out_what_scores_less(folder, capsys):
    command, counts = ["--load", str(folder), "--predict", "a rash by aspirin", "--format", "jsonl"], []
    for flags in ([], ["--least-relation-score", "1"], ["--least-entity-score", "1"]):
        assert train.main([*command, *flags]) == 0
        record = json.loads(capsys.readouterr().out)
        counts.append((len(record["entities"]) > 0, len(record["relations"]) > 0))
    assert counts == [(True, True), (True, False), (False, False)]


# -- Symmetric relations -------------------------------------------------------------------------------------


def test_both_orders_of_a_symmetric_pair_are_positive_samples():
    a, b, c = (Entity("A", place, place + 1) for place in range(3))
    relations = [Relation("Q", c, a), Relation("R", b, a)]
    encoded = SimpleNamespace(sentence=Sentence("s", ["a", "b", "c"], [a, b, c], relations))
    types = {}
    for symmetric in ((), ("R",)):
        example = data.training_example(encoded, ["A"], ["Q", "R"], data.Sampling(symmetric=symmetric))
        kinds = dict(zip(example.pairs, example.pair_types))
        types[symmetric] = {pair: kind for pair, kind in kinds.items() if kind != {0}}
        assert len(set(example.pairs)) == len(example.pairs) == 6
    assert types == {(): {(2, 0): {1}, (1, 0): {2}}, ("R",): {(2, 0): {1}, (1, 0): {2}, (0, 1): {2}}}


def symmetric_records(rng, size):
    """Two drugs that interact, in an order at whim."""
    records = []
    for _ in range(size):
        first, second = rng.sample(toy.DRUGS[:12], 2)
        entities = [{"type": "Drug", "start": place, "end": place + 1} for place in (0, 3)]
        head = rng.randrange(2)
        relation = {"type": "Interact", "head": head, "tail": 1 - head}
        words = [first, "interacts", "with", second, "."]
        records.append({"tokens": words, "entities": entities, "relations": [relation]})
    return records


@pytest.mark.slow
def test_a_corpus_whose_direction_is_at_whim_is_learned_as_symmetric(tmp_path, capsys):
    rng = random.Random(0)
    write_corpus(tmp_path / "c", *(symmetric_records(rng, size) for size in (60, 20, 20)))
    run = tmp_path / "run"
    flags = ["--dataset", tmp_path / "c", "--encoder", "tiny", "--epochs", 30, "--symmetric", "Interact"]
    assert train.main([*map(str, flags), "--output", str(run)]) == 0
    scores = json.loads((run / "metrics.json").read_text())
    assert scores["relation"]["strict"]["micro"]["f1"] > 95
    assert scores["relation"]["strict"]["micro"]["gold"] == 20
    capsys.readouterr()
    assert train.main(["--load", str(run), "--predict", str(tmp_path / "c/test.json")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("= relation") >= 19 and "- relation" not in printed  # gold in the same order


# -- Memory, and how far it is -------------------------------------------------------------------------------

SHORTAGES = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nsee PYTORCH_CUDA_ALLOC_CONF"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
]


@pytest.mark.parametrize("error", SHORTAGES, ids=str)
def test_out_of_memory_is_one_line_that_names_the_batch_and_what_may_help(
    tmp_path, folder, monkeypatch, capsys, error
):
    def fail(*given, **named):
        raise error

    monkeypatch.setattr(train, "joint_loss", fail)
    write_corpus(tmp_path / "c", [RECORD])
    flags = ["--dataset", str(tmp_path / "c"), "--encoder", "tiny", "--output", str(tmp_path / "run")]
    assert train.main(flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    batch = "epoch 1, step 1, 1 sentences of up to 4 wordpieces: out of memory; a smaller --batch-size"
    assert line.startswith(batch) and "no epoch was finished" in line
    monkeypatch.setattr(type(train.load(folder).model), "predict", fail)
    assert train.main(["--load", str(folder), "--predict", "a rash"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    expected = "prediction, 1 sentences of up to 6 wordpieces: out of memory; a smaller --chunk may help"
    assert line == expected
    monkeypatch.setattr(train.Batch, "to", fail)  # in the thread that builds batches
    assert train.main(["--load", str(folder), "--predict", "a rash"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("a batch, on its way to the device, 1 sentences of up to 6 wordpieces: out of")


def test_other_errors_of_torch_stay_what_they_are():
    with pytest.raises(RuntimeError, match="^shapes$"), explain_memory("x", None, "y"):
        raise RuntimeError("shapes")


def test_prediction_takes_smaller_chunks(folder, monkeypatch, capsys):
    rows = []

    def watched(function, count, *tensors):
        rows.append(count)
        return in_chunks(function, count, *tensors)

    monkeypatch.setattr("spanrel.in_chunks", watched)
    for chunk in ("5000000", "500000000"):
        assert train.main(["--load", str(folder), "--predict", "a rash", "--chunk", chunk]) == 0
    assert rows[0] < rows[2] and 0 <= rows[2] - rows[0] * 100 < 100
    assert train.main(["--load", str(folder), "--predict", "a rash", "--chunk", "1"]) == 2
    assert capsys.readouterr().err == "--chunk 1: must be from 4194304 to 2147483648\n"


@pytest.mark.parametrize("given_entities", [False, True])
def test_more_entities_than_can_be_paired_have_no_relations_and_a_line_names_their_sentence(
    capsys, given_entities
):
    run = eager()
    run.model.ffnn_s[-1].bias.data[0] = run.model.ffnn_r[-1].bias.data[0] = -1e4
    run.settings.most_entities = 12
    records = []
    for count in (12, 2, 13, 0, 40):  # words, each an entity
        entities = [{"type": "Drug", "start": k, "end": k + 1} for k in range(count)]
        records.append({"tokens": ["a"] * count, "entities": entities, "orig_id": f"of {count}"})
    run.settings.max_width = 1
    sentences = run.predict(records, given_entities)
    assert [len(sentence.entities) for sentence in sentences] == [12, 2, 13, 0, 40]
    assert [len(sentence.relations) for sentence in sentences] == [12 * 11, 2, 0, 0, 0]
    many, more = capsys.readouterr().err.splitlines()
    assert many.startswith("of 13: 13 entities, over 12: no relations") and more.startswith("of 40: 40 ent")
    assert sentences[:2] == run.predict(records[:2], given_entities)  # the others change nothing


@pytest.mark.parametrize("is_terminal", [True, False])
def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is(monkeypatch, capsys, is_terminal):
    clock = itertools.count(0, 12)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: is_terminal, raising=False)
    shown = progress.Progress(list("abcdefgh"), "epoch 1")
    assert shown.lines == shown.bar.disable == (not is_terminal)
    if is_terminal:
        return
    for step, letter in enumerate(shown, 1):
        shown.show(step, f"loss {letter}")
    assert capsys.readouterr().out.splitlines() == ["epoch 1, 3 of 8, loss c", "epoch 1, 6 of 8, loss f"]


def test_a_run_says_what_it_trains_on_what(tmp_path, capsys):
    write_corpus(tmp_path / "c", [RECORD])
    flags = ["--dataset", str(tmp_path / "c"), "--encoder", "tiny", "--epochs", "1", "--device", "cpu"]
    assert train.main([*flags, "--output", str(tmp_path / "run")]) == 0
    first, second = capsys.readouterr().out.splitlines()[:2]
    run = train.load(tmp_path / "run", "cpu")
    encoder = sum(weight.numel() for weight in run.model.encoder.parameters())
    count = sum(weight.numel() for weight in run.model.parameters()) - encoder
    assert first == f"multihead: {count:,} parameters and {encoder:,} of tiny, on cpu"
    assert second == "c: 1 of train, 1 of dev; 1 entity types, 1 relation types"


def test_a_run_says_what_of_train_will_be_lost(tmp_path, capsys):
    both = RECORD | {"relations": [{"type": kind, "head": 0, "tail": 1} for kind in "RQ"]}
    write_corpus(tmp_path / "c", [both])
    flags = ["--dataset", str(tmp_path / "c"), "--epochs", "1", "--device", "cpu", "--encoder"]
    for loss in ("softmax-ce", "sigmoid-bce"):
        more = ["tiny", "--relation-loss", loss, "--output", str(tmp_path / loss)]
        assert train.main([*flags, *more]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("1 relations of train are a second type of their pair; ")
    assert "so F1 cannot pass 66.67: --relation-loss sigmoid-bce" in line
    bare = SimpleNamespace(sentence=Sentence("s", ["a"]), starts=[1], ends=[2], input_ids=[0, 1])
    settings, tokenizer = train.settings_of(), SimpleNamespace(unk_token_id=9)
    assert cautions([bare], tokenizer, settings) == ["train has no entities, so there is nothing to learn"]


def test_a_symmetric_relation_is_no_second_type_as_it_can_take_the_other_order():
    a, b = Entity("A", 0, 1), Entity("A", 1, 2)
    sentence = Sentence("s", ["a", "b"], [a, b], [Relation("R", a, b), Relation("Q", a, b)])
    counts = [second_types_of_pairs(sentence, symmetric) for symmetric in ((), ("R",), ("Q", "R"))]
    assert counts == [1, 0, 0]


@pytest.mark.parametrize("known, share", [(9, ""), (8, "20 % of the words of train are [UNK]")])
def test_a_run_says_if_the_encoder_cannot_read_the_words(known, share):
    sentence = Sentence("s", ["a"] * 10, [Entity("A", 0, 1)])
    ids = [1, *[5] * known, *[3] * (10 - known), 2]
    places = dict(starts=list(range(1, 11)), ends=list(range(2, 12)))
    encoded = SimpleNamespace(sentence=sentence, input_ids=ids, **places)
    lines = cautions([encoded], SimpleNamespace(unk_token="[UNK]", unk_token_id=3), train.settings_of())
    assert [line[: len(share)] for line in lines] == ([share] if share else [])


# -- One epoch's weights are never scored as another's -------------------------------------------------------


def test_weights_and_history_are_one_step_where_the_repeated_epoch_differs(tmp_path, monkeypatch):
    """The second epoch is the best, its checkpoint fails, and once repeated it is worse."""
    write_corpus(tmp_path / "c", [RECORD])
    given = dict(dataset=str(tmp_path / "c"), encoder="tiny", epochs=2, device="cpu")
    evaluate, save, quality = train.evaluate, checkpoints.save_checkpoint, iter([50, 90, 10, 0])

    def scored(run, encoded):
        result, predicted = evaluate(run, encoded)
        result["entity"]["micro"]["f1"] = next(quality, math.nan)
        return result, predicted

    saved, weights = [], {}

    def save_checkpoint(path, model, *more):
        weights[len(weights) + 1] = {name: weight.clone() for name, weight in model.state_dict().items()}
        if len(saved) == 1 and len(weights) == 2:
            raise InputError("the disk is full")
        saved.append(path)
        save(path, model, *more)

    monkeypatch.setattr(train, "evaluate", scored)
    monkeypatch.setattr(checkpoints, "save_checkpoint", save_checkpoint)
    with pytest.raises(InputError, match="the disk is full; its last checkpoint is kept"):
        train.train(train.settings_of(**given, output=str(tmp_path / "run")))
    result = train.resume(str(tmp_path / "run"), {})
    assert result["best_epoch"] == 1
    loaded = train.load(tmp_path / "run", "cpu").model.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights[1].items())
    assert not list((tmp_path / "run").glob("epoch-*"))
