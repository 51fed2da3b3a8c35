"""The command line: the values that a flag can have, and what goes with a saved run."""

import dataclasses
import json
import math

import pytest
from helpers import RECORD, toy_run, write_corpus

import data
import train
from support.command_line import RANGES, change_settings, take_actions
from support.errors import InputError
from support.flags import check_values

# -- Values --------------------------------------------------------------------------------------------------

WRONG = {
    "epochs": (0, 2**32), "batch_size": (0,), "hidden": (0, 2**16 + 1), "width_dim": (0,), "heads": (0,),
    "layers": (0, 1001), "context_layers": (0,), "max_width": (0, 1001), "dropout": (-0.1, 1.1),
    "warmup": (1.1,), "threshold": (1.1,), "least_entity_score": (-1, 1.1), "least_relation_score": (1.1,),
    "clip": (0,), "chunk": (2**22 - 1,), "lr": (-1, math.nan, math.inf, True, "1"), "seed": (-1, 1.5),
    "flat": (1,), "ablate": ("local", [1]), "symmetric": ("R",), "precision": ("fp16",), "dataset": (3,),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_value_that_a_flag_cannot_have_is_refused(name):
    for value in WRONG[name]:
        with pytest.raises(InputError, match=f"^--{name.replace('_', '-')} "):
            check_values(train.Settings, {name: value}, RANGES)


def test_the_first_and_the_last_value_of_a_range_are_right():
    for name, ends in RANGES.items():
        for value in ends:
            kind = type(getattr(train.Settings, name))
            check_values(train.Settings, {name: kind(value)}, RANGES)


def test_where_a_run_lies_and_computes_is_not_among_the_flags_that_identify_it():
    places = dict(data_dir="elsewhere", device="cpu", output="new", chunk=2**22)
    assert train.flags_of(train.settings_of(**places)) == {}
    assert train.settings_of(**places).chunk == 2**22
    assert train.flags_of(train.settings_of(**places, most_entities=9)) == {"most_entities": 9}


def test_the_card_is_of_the_corpus_that_the_flags_name(monkeypatch, capsys):
    def read_corpus(*place):
        raise InputError(str(place))

    monkeypatch.setattr(data, "read_corpus", read_corpus)
    assert data.main("--dataset ade --data-dir there --fold 3 --split 80/10/10".split()) == 2
    assert "('ade', 'there', 3, '80/10/10')" in capsys.readouterr().err


# -- A saved run ---------------------------------------------------------------------------------------------

WITH_LOAD = "device chunk most_entities threshold flat least_entity_score least_relation_score".split()
WITH_EVALUATE = "dataset data_dir split fold eval_split".split()
WITH_RESUME = "device chunk dataset data_dir".split()


def is_taken(name, **actions):
    """Whether a flag goes with these actions."""
    try:
        take_actions({**actions, name: 1})
    except InputError as error:
        assert f"--{name.replace('_', '-')}" in str(error)
        return False
    return True


def test_the_flags_that_go_with_a_saved_run():
    fields = [field.name for field in dataclasses.fields(train.Settings)]
    taken = [name for name in fields if is_taken(name, load="run", predict=["a"])]
    assert sorted(taken) == sorted(WITH_LOAD)
    taken = [name for name in fields if is_taken(name, load="run", evaluate=True)]
    assert sorted(taken) == sorted(WITH_LOAD + WITH_EVALUATE)
    taken = [name for name in fields if is_taken(name, resume="run")]
    assert sorted(taken) == sorted(WITH_RESUME)
    assert all(is_taken(name) for name in fields)
    for actions in ({"load": "run"}, {"load": "run", "format": "json"}):
        with pytest.raises(InputError, match="goes with --predict TEXT or --evaluate"):
            take_actions(actions)


def test_another_corpus_has_shares_of_its_own():
    settings = train.settings_of(dataset="ade", fold=3, train_on_dev=True)
    change_settings(settings, {"dataset": "pool", "split": "80/10/10", "eval_split": "dev"})
    assert (settings.fold, settings.split, settings.eval_split) == (0, "80/10/10", "dev")


def test_the_guard_knows_a_runs_own_corpus_by_any_of_its_names(tmp_path, monkeypatch):
    write_corpus(tmp_path / "mine", [RECORD])
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "./mine", str(tmp_path / "mine")):
        settings = train.settings_of(dataset="mine", train_on_dev=True)
        with pytest.raises(InputError, match="--eval-split dev: the run was trained on dev, too"):
            change_settings(settings, {"dataset": name, "eval_split": "dev"})
        with pytest.raises(InputError, match="--fold, --split"):
            change_settings(settings, {"dataset": name, "split": "80/10/10"})


def test_a_run_goes_on_with_its_own_settings_and_the_revision_of_its_encoder(tmp_path, monkeypatch):
    description = {"settings": {"epochs": 3, "chunk": 2**24}, "encoder_revision": "abc"}
    (tmp_path / "config.json").write_text(json.dumps(description))
    monkeypatch.setattr(train.folders, "check_unfinished", lambda folder: None)
    monkeypatch.setattr(train.folders, "read_description", lambda folder: description)
    monkeypatch.setattr(train, "train", lambda *arguments: arguments)
    settings, folder, revision = train.resume(str(tmp_path), {"chunk": 2**22})
    assert (settings.epochs, settings.chunk, folder, revision) == (3, 2**22, str(tmp_path), "abc")


def test_a_runs_corpus_is_read_from_where_its_settings_say_in_one_order(tmp_path, monkeypatch):
    turned = {**RECORD, "relations": [{"type": "R", "head": 1, "tail": 0}]}
    asked = []

    def read_corpus(*place):
        asked.append(place)
        records = {split: [turned] for split in ("train", "dev", "test")}
        return data.corpus_of("mine", records)

    monkeypatch.setattr(data, "read_corpus", read_corpus)
    run = toy_run()
    place = dict(dataset="mine", data_dir="there", fold=3, split="80/10/10")
    run.settings = dataclasses.replace(run.settings, **place, symmetric=["R"])
    (tmp_path / "texts.json").write_text(json.dumps([turned]))
    orders = []

    def print_blocks(blocks, form, title):
        for (_, gold), *_ in blocks:
            orders.append([(relation.head.start, relation.tail.start) for relation in gold.relations])

    monkeypatch.setattr(train, "load", lambda folder, device: run)
    monkeypatch.setattr(train.pictures, "print_blocks", print_blocks)
    texts = ["--predict", str(tmp_path / "texts.json"), "--format", "jsonl"]
    assert train.main(["--load", "run", "--evaluate", *texts]) == 0
    assert orders == [[(0, 1)], [(0, 1)]]
    assert asked == [("mine", "there", 3, "80/10/10")]


def test_a_corpus_that_is_not_there_is_an_error_before_anything_is_predicted(monkeypatch, capsys):
    monkeypatch.setattr(train, "load", lambda folder, device: toy_run())
    given = ["--load", "run", "--predict", "a rash", "--evaluate", "--dataset", "nowhere"]
    assert train.main(given) == 2
    output = capsys.readouterr()
    assert not output.out and output.err.startswith("--dataset nowhere: ")


def test_given_entities_of_texts_are_none_and_a_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(train, "load", lambda folder, device: toy_run())
    assert train.main(["--load", "run", "--predict", "a rash", "--given-entities"]) == 0
    assert capsys.readouterr().err.startswith("--given-entities: no sentence here has entities")


def test_what_is_no_run_and_what_is_no_part_of_one_is_left_alone(tmp_path):
    kept = ("checkpoint.safetensors", "metrics.json", "epoch-notes.txt", "epoch-2.safetensors")
    for name in kept:
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match="no config.json there"):
        train.folders.check_unfinished(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="came to its end"):
        train.folders.check_unfinished(str(tmp_path))
    (tmp_path / "epoch-plots").mkdir()
    (tmp_path / "epoch-1.safetensors").write_text("")
    train.folders.keep_weights(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "config.json", "epoch-plots"}


def test_a_relation_of_an_entity_wider_than_the_runs_threshold_is_missed_for_this_reason(monkeypatch):
    wide = {**RECORD, "entities": [{"type": "A", "start": 0, "end": 2}, {"type": "A", "start": 1, "end": 2}]}
    (sentence,) = data.corpus_of("wide", {split: [wide] for split in ("train", "dev", "test")}).test
    empty, run = dataclasses.replace(sentence, entities=[], relations=[]), toy_run(max_width=1)
    monkeypatch.setattr(run, "annotate", lambda encoded: [empty])
    result, _ = train.evaluate(run, run.encode([sentence]))
    assert result["missed_relations"] == {"width": 1, "argument": 0, "relation": 0}


def test_a_saved_run_computes_where_it_is_told_and_its_page_has_its_name(monkeypatch, capsys):
    asked = []

    def load(folder, device):
        asked.append((folder, device))
        return toy_run()

    monkeypatch.setattr(train, "load", load)
    given = ["--load", "a/run", "--device", "there", "--predict", "a rash", "--format", "html"]
    assert train.main(given) == 0 and asked == [("a/run", "there")]
    assert "<title>a/run: 1 sentence</title>" in capsys.readouterr().out


def test_a_sentence_of_a_corpus_that_is_too_long_is_named_with_its_split(tmp_path, capsys, monkeypatch):
    long = {**RECORD, "tokens": ["a"] * 600}
    write_corpus(tmp_path / "mine", [RECORD], [RECORD], [long])
    monkeypatch.setattr(train, "load", lambda folder, device: toy_run())
    assert train.main(["--load", "run", "--evaluate", "--dataset", str(tmp_path / "mine")]) == 2
    assert f"{tmp_path}/mine, test, test-0: 600 words" in capsys.readouterr().err


def test_a_corpus_that_has_changed_since_the_run_was_trained_is_told(tmp_path, monkeypatch, capsys):
    records = [{**RECORD, "tokens": ["a", word]} for word in "bcdefghijklm"]
    for own in ({"split": "80/10/10"}, {"split": "80/10/10", "train_on_dev": True}):
        folder = tmp_path / f"mine{len(own)}"
        folder.mkdir()
        (folder / "all.json").write_text(json.dumps(records))
        run = str(tmp_path / f"run{len(own)}")
        shape = dict(encoder="tiny", heads=2, hidden=16, epochs=1)
        train.train(train.settings_of(dataset=str(folder), output=run, **shape, **own))
        command = ["--load", run, "--evaluate"]
        capsys.readouterr()
        assert train.main(command) == 0 and not capsys.readouterr().err
        (folder / "all.json").write_text(json.dumps(records[1:]))
        assert train.main(command) == 0
        assert capsys.readouterr().err.startswith(f"{folder.name} has changed since: the run may have been")
        assert train.main([*command, "--dataset", str(folder)]) == 0 and not capsys.readouterr().err
