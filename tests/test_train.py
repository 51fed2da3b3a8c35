"""Runs: settings, training, what is saved, what is stopped and resumed, processes, and the default run."""

import dataclasses
import errno
import itertools
import json
import math
import os
import pickle
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import (
    HERE,
    REAL,
    RECORD,
    SMALL,
    cli,
    contents,
    eager,
    needs_corpora,
    save_run,
    some_batch,
    toy_corpus,
    toy_run,
    write_corpus,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import corpora
import corpora.toy
import data
import train
from baselines.ablations import ABLATIONS
from corpora.records import faults_of_record, read_records
from spanrel import ATTENTION
from support import checkpoints, encoders, folders, pictures
from support.errors import InputError
from support.flags import command_of
from support.folders import CHECKPOINT, read_history

SHAPES = [*(dict(attention=name) for name in ATTENTION), dict(ablate=ABLATIONS), dict(model="spert")]
every_model = pytest.mark.parametrize("shape", SHAPES, ids=[*ATTENTION, "ablated", "spert"])


def read_small(data_dir, fold):
    """A toy corpus that trains in half a second: an epoch has three steps."""
    return corpora.toy.read(sizes=(24, 3, 3))


@pytest.fixture
def small_toy(monkeypatch):
    """The toy corpus is a small one."""
    monkeypatch.setitem(corpora.READERS, "toy", read_small)


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory):
    """A run folder, of a model that was not trained and calls few pairs related, so that it is quick."""
    folder, run = tmp_path_factory.mktemp("saved"), toy_run(max_width=4)
    run.model.ffnn_r[-1].bias.data[0] = 2.0
    save_run(run, folder)
    return folder


# -- Settings ------------------------------------------------------------------------------------------------


def test_what_the_paper_prints_is_the_default_and_what_it_leaves_open_is_as_measured():
    settings = train.settings_of(dataset="conll04")
    chosen = vars(settings)
    printed = dict(encoder="bert-base-cased", batch_size=8, negative_rate=30, negative_count=0)  # §4.2
    printed |= dict(attention="multihead", heads=8, layers=2, context_layers=3, dropout=0.2)
    printed |= dict(width_dim=50, max_width=10, span_weight=0.4, relation_weight=0.6, model="span", ablate=())
    spert = dict(epochs=20, warmup=0.1, weight_decay=0.01, clip=1.0)  # "follow Eberts and Ulges (2019)"
    measured = dict(
        lr=1e-4, head_lr=5e-4, pairs_among="gold", train_on_dev=False, precision="fp32", eval_split="test"
    )
    measured |= dict(hidden=192, relation_loss="softmax-bce", threshold=0.4)
    expected = printed | spert | measured
    assert {name: chosen[name] for name in expected} == expected
    theirs = train.settings_of(dataset="ade", model="spert")
    assert (theirs.batch_size, theirs.lr, theirs.head_lr) == (2, 5e-5, 5e-5)
    assert (theirs.negative_count, theirs.epochs) == (100, 20)


def test_spert_has_one_learning_rate():
    rates = []
    for flags in ({}, {"lr": 1e-4}, {"head_lr": 1.0}):
        rates.append(train.settings_of(dataset="ade", model="spert", **flags).head_lr)
    assert rates == [5e-5, 1e-4, 1.0]


FLAGS = [
    {},
    {"dataset": "ade", "fold": 3},
    {"model": "spert"},
    {"dataset": "conll04", "model": "spert", "lr": 1e-4},
    {"encoder": "my encoder"},
    {"ablate": ("local", "span-specific"), "attention": "dot", "seed": 4, "hidden": 96, "flat": True},
    {"ablate": ["relation-sentence"], "head_lr": 1e-4, "precision": "bf16", "train_on_dev": True},
]


@pytest.mark.parametrize("flags", FLAGS, ids=str)
def test_the_recorded_flags_make_the_same_settings_from_python_and_from_the_command_line(flags):
    settings = train.settings_of(**flags)
    recorded = train.flags_of(settings)
    assert train.settings_of(**recorded) == settings
    given = train.make_train_parser().parse_args(shlex.split(command_of(recorded))[2:])
    assert train.settings_of(**vars(given)) == settings


@pytest.mark.parametrize("name", ["results.json", "results_float32.json"])
def test_every_record_of_the_results_has_flags_of_today(name):
    records = json.loads((HERE / "docs" / name).read_text(encoding="utf-8"))
    for record in records:
        settings = train.settings_of(**record["flags"])
        assert json.loads(json.dumps(train.flags_of(settings))) == record["flags"]
        assert record["seconds"] > 0 and record["hardware"]
    assert records


def test_the_order_of_ablations_and_of_symmetric_types_makes_no_other_run():
    for ablate in (["relation-sentence", "local"], ["local", "relation-sentence", "local"]):
        settings = train.settings_of(ablate=ablate, symmetric=["b", "a", "b"])
        assert train.flags_of(settings)["ablate"] == ("local", "relation-sentence")
        assert train.flags_of(settings)["symmetric"] == ("a", "b")
        assert train.method_of(settings) == "multihead without local and relation-sentence"


def test_ade_is_reported_by_macro_average_and_the_others_by_micro():
    names = ("ade", "conll04", "ace05", "toy")
    averages = [train.average_of(train.Settings(dataset=name)) for name in names]
    assert averages == ["macro", "micro", "micro", "micro"]


def test_negatives_are_drawn_as_the_settings_say():
    given = dict(max_width=7, pairs_among="both", seed=5, symmetric=["R"])
    expected = data.Sampling(max_width=7, rate=3, among="both", symmetric=("R",), seed=5, epoch=2)
    assert train.sampling_of(train.settings_of(**given, negative_rate=3), 2) == expected
    expected = data.Sampling(rate=30, count=9)
    assert train.sampling_of(train.settings_of(negative_count=9), 0) == expected
    assert train.sampling_of(train.settings_of(), 0) == data.Sampling(10, 30, None, "gold", (), 0, 0)


# -- Prediction ----------------------------------------------------------------------------------------------


def scored_items(sentence):
    """The entities and relations of a sentence with their scores."""
    return [(item, item.score) for item in (*sentence.entities, *sentence.relations)]


def test_a_real_encoder_predicts_a_sentence_alone_as_among_others():
    run = eager(encoder="tiny-2", max_width=4)
    encoded = run.encode(SMALL.test[:3])
    for sentence, expected in zip(encoded, run.annotate(encoded), strict=True):
        alone, again = run.annotate([sentence, sentence])
        assert expected.entities and alone.entities == again.entities == expected.entities
        assert alone.relations == expected.relations
        scores = [entity.score for entity in expected.entities]
        assert [entity.score for entity in alone.entities] == pytest.approx(scores, abs=1e-5)


@pytest.fixture(scope="module")
def eager_run():
    """A model that finds much, made once."""
    return eager()


@given(text=st.text("aé😀 .-\n\u0301", max_size=12))
def test_predicted_offsets_point_at_the_text_they_name(eager_run, text):
    (sentence,) = eager_run.predict([text])
    assert sentence.text == text
    for entity in sentence.entities:
        start, end = sentence.chars(entity)
        assert "".join(text[start:end].split()) == "".join(sentence.words[entity.start : entity.end])
    assert all(r.head in sentence.entities and r.tail in sentence.entities for r in sentence.relations)


def test_prediction_keeps_to_the_widest_span_of_the_settings():
    run = eager(max_width=3)
    widths = []
    for sentence in run.annotate(run.encode(SMALL.test[:3])):
        widths += [entity.end - entity.start for entity in sentence.entities]
    assert max(widths) == 3


# -- Saved runs ----------------------------------------------------------------------------------------------


@every_model
def test_what_is_saved_and_loaded_predicts_the_same_bit_for_bit(shape, tmp_path):
    run = eager(max_width=4, **shape)
    save_run(run, tmp_path)
    loaded, sentences = train.load(tmp_path, "cpu"), SMALL.test[:3]
    for name, weight in run.model.state_dict().items():
        assert torch.equal(weight, loaded.model.state_dict()[name])
    assert dataclasses.replace(loaded.settings, device="auto") == run.settings
    assert type(loaded.model) is type(run.model)
    before = list(map(scored_items, run.annotate(run.encode(sentences))))
    after = list(map(scored_items, loaded.annotate(loaded.encode(sentences))))
    assert any(before) and before == after


def test_a_saved_run_is_safetensors_and_json_and_loads_without_pickle_or_network(saved_run, monkeypatch):
    assert {path.suffix for path in saved_run.iterdir()} == {".safetensors", ".json"}

    def forbidden(*given, **named):
        raise AssertionError("a run must load without this")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    monkeypatch.setattr(torch, "load", forbidden)
    monkeypatch.setattr(socket, "create_connection", forbidden)
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    assert len(train.load(saved_run, "cpu").predict(["A rash by aspirin."])) == 1


def test_a_saved_run_takes_another_threshold(tmp_path, capsys):
    run = toy_run(relation_loss="sigmoid-bce")
    run.model.ffnn_s[-1].bias.data[0] = -9.0  # so that there are pairs
    save_run(run, tmp_path)
    printed = []
    for threshold in ("0", "1"):
        command = ["--load", str(tmp_path), "--predict", "a rash by aspirin", "--threshold", threshold]
        assert train.main(command) == 0
        printed.append(capsys.readouterr().out)
    assert "->" in printed[0] and "->" not in printed[1]


def test_a_saved_run_is_read_flat_where_that_is_asked_for(saved_run, monkeypatch, small_toy):
    seen = []

    def annotate(run, encoded):
        seen.append(run.settings.flat)
        return [e.sentence for e in encoded]

    monkeypatch.setattr(train.Run, "annotate", annotate)
    for flags in ((), ("--flat",)):
        assert train.main(["--load", str(saved_run), "--evaluate", *flags]) == 0
    assert not seen[0] and seen[-1]


def test_predictions_are_text_json_or_a_page(saved_run, tmp_path, capsys):
    path, text = tmp_path / "texts.json", "😀 Aspirin, then e\u0301 rash."
    drug = {"type": "Drug", "start": 0, "end": 1}
    path.write_text(json.dumps([text, {"tokens": ["Aspirin", "rash"], "entities": [drug], "relations": []}]))
    printed = {}
    for form in pictures.FORMATS:
        command = ["--load", str(saved_run), "--predict", str(path), "A rash.", "--format", form]
        assert train.main(command) == 0
        printed[form] = capsys.readouterr().out
    records = json.loads(printed["json"])
    assert len(records) == 3 and records[0]["text"] == text and records[0]["tokens"][-2:] == ["rash", "."]
    assert records[1]["orig_id"] == "texts.json:1"
    for record in records:
        assert faults_of_record(record) == []
        for entity in record["entities"]:
            words = record["tokens"][entity["start"] : entity["end"]]
            named = record["text"][slice(*entity["chars"])]
            assert named.split() == " ".join(words).split() or "".join(words) in named.replace(" ", "")
            assert 0 < entity["score"] <= 1
    assert printed["html"].count("<svg") == 3 and printed["html"].startswith("<!doctype html>")
    assert printed["text"].count("\n\n") == 2
    marks = {line[2] for line in printed["text"].split("\n\n")[1].splitlines()[1:]}
    assert marks and marks <= set("=+-")  # gold is given for the second alone


def test_evaluate_shows_the_whole_split_with_its_gold(saved_run, small_toy, capsys):
    for form, says in (("text", "toy, test, micro"), ("html", "- missed, dotted"), ("json", '"orig_id"')):
        assert train.main(["--load", str(saved_run), "--evaluate", "--format", form]) == 0
        assert says in capsys.readouterr().out


def test_predictions_come_before_the_split_that_is_scored(saved_run, small_toy, capsys):
    for form in ("json", "jsonl"):
        flags = ["--predict", "A rash.", "--evaluate", "--format", form]
        assert train.main(["--load", str(saved_run), *flags]) == 0
        printed = capsys.readouterr().out
        records = json.loads(printed) if form == "json" else list(map(json.loads, printed.splitlines()))
        assert len(records) == 1 + len(data.read_corpus("toy").test) and records[0]["text"] == "A rash."


# -- Training ------------------------------------------------------------------------------------------------


def norm_of_gradient(model):
    """The norm of the gradient of all weights."""
    return torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()


class Watched:
    """An optimizer and a schedule in one, which only notes what it is called for."""

    def __init__(self, model):
        self.model, self.steps = model, []

    def step(self):
        self.steps.append((self.model.training, norm_of_gradient(self.model)))

    def zero_grad(self):
        self.model.zero_grad()


def test_one_epoch_descends_the_joint_loss_in_training_mode_with_clipped_gradients():
    run = toy_run(clip=0.5, batch_size=2)
    encoded, optimizer = run.encode(SMALL.train[:6]), Watched(run.model)
    schedule = SimpleNamespace(step=lambda: optimizer.steps.append("schedule"))
    run.model.eval()  # as `evaluate` leaves it
    losses = train.train_epoch(run, encoded, 1, optimizer, schedule)
    assert optimizer.steps[1::2] == ["schedule"] * 3
    assert all(training and norm <= 0.5 + 1e-4 for training, norm in optimizer.steps[::2])
    assert losses["loss"] == pytest.approx(0.4 * losses["span_loss"] + 0.6 * losses["relation_loss"])


def test_an_epoch_steps_along_the_gradient_of_its_batches():
    run = toy_run(clip=1e9, batch_size=2)
    encoded, optimizer = run.encode(SMALL.train[:2]), Watched(run.model)
    torch.manual_seed(0)  # dropout
    train.train_epoch(run, encoded, 3, optimizer, SimpleNamespace(step=lambda: None))
    (part,) = data.batches_of(encoded, 2, random.Random("0 3"))
    torch.manual_seed(0)
    train.train_step(run, run.training_batch(part, data.Sampling(epoch=3)))[0].backward()
    assert optimizer.steps == [(True, pytest.approx(norm_of_gradient(run.model), rel=1e-4))]


def test_now_and_then_an_epoch_shows_its_mean_loss_so_far_over_all_processes(monkeypatch):
    run, steps, shown = toy_run(batch_size=1), itertools.count(1), []

    def train_step(run, batch):
        return (torch.tensor(float(next(steps))),) * 3

    monkeypatch.setattr(train, "train_step", train_step)
    monkeypatch.setattr(train, "descend", lambda run, loss, optimizer: None)
    monkeypatch.setattr(train, "sum_over_processes", lambda value: value.mul_(2))  # another one has the same
    monkeypatch.setattr(train.Progress, "show", lambda self, step, note: shown.append((step, note)))
    means = train.train_epoch(run, run.encode(SMALL.train), 1, None, SimpleNamespace(step=lambda: None))
    assert shown == [(20, "loss 21.0000"), (40, "loss 41.0000")] and means["loss"] == 41


def test_the_encoder_keeps_its_own_dropout_in_training():
    run, schedule = toy_run(dropout=0), SimpleNamespace(step=lambda: None)
    encoded, optimizer = run.encode(SMALL.train[:8]), Watched(run.model)  # which moves no weight
    one, other = (train.train_epoch(run, encoded, 1, optimizer, schedule) for _ in range(2))
    assert one != other
    for module in run.model.encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    one, other = (train.train_epoch(run, encoded, 1, optimizer, schedule) for _ in range(2))
    assert one == other  # nothing else is random within an epoch


def test_descend_steps_once_along_the_gradient_and_forgets_it():
    run = SimpleNamespace(model=nn.Linear(1, 1, bias=False), settings=SimpleNamespace(clip=1e9))
    optimizer, before = torch.optim.SGD(run.model.parameters(), lr=0.1), run.model.weight.item()
    for _ in range(2):
        train.descend(run, 3 * run.model.weight.sum(), optimizer)
    assert run.model.weight.item() == pytest.approx(before - 2 * 0.1 * 3)
    with pytest.raises(FloatingPointError):
        train.descend(run, math.nan * run.model.weight.sum(), optimizer)
    assert run.model.weight.isfinite().all()


class Lookup(nn.Module):
    """An encoder that only looks up."""

    def __init__(self, D, size):
        super().__init__()
        self.table = nn.Embedding(size, D)

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


@every_model
def test_the_loss_and_its_gradient_read_no_value_from_the_device(shape):
    run = toy_run(**shape)
    batch = some_batch(run)
    run.model.encoder = Lookup(run.model.D, len(run.tokenizer))  # transformers' own look for padding
    run.model.to("meta")  # where there are no values to read
    losses = train.train_step(run, batch.to("meta"))
    losses[0].backward()
    assert all(loss.is_meta for loss in losses)


@every_model
def test_bf16_is_autocast_with_the_loss_in_float32(shape, monkeypatch):
    run = eager(precision="bf16", **shape)
    forward, predict, embed = run.model.forward, run.model.predict, run.model.embed
    kinds, kinds_of_loss, is_autocast = [], [], []

    def watched_forward(*given):
        scores = forward(*given)
        kinds.extend(z.dtype for z in scores)
        return scores

    def watched_predict(*given):
        prediction = predict(*given)
        kinds.extend([prediction.y_s.dtype, prediction.y_r.dtype])
        return prediction

    def watched(loss):
        def watched_loss(z, *given):
            kinds_of_loss.append(z.dtype)
            return loss(z, *given)

        return watched_loss

    def watched_embed(*given):
        is_autocast.append(torch.is_autocast_enabled("cpu"))
        return embed(*given)

    monkeypatch.setattr(run.model, "forward", watched_forward)
    monkeypatch.setattr(run.model, "predict", watched_predict)
    monkeypatch.setattr(run.model, "embed", watched_embed)
    for name in ("span_loss", "relation_loss"):
        monkeypatch.setattr(train, name, watched(getattr(train, name)))
    losses = train.train_step(run, some_batch(run))
    losses[0].backward()
    assert kinds_of_loss == [torch.float32, torch.float32]
    assert set(kinds) == {torch.bfloat16} and {loss.dtype for loss in losses} == {torch.float32}
    assert losses[0].isfinite() and {weight.dtype for weight in run.model.parameters()} == {torch.float32}
    kinds.clear()
    run.annotate(run.encode(SMALL.test[:2]))
    assert kinds == [torch.float32, torch.float32] and is_autocast == [True, True]


def test_optimizer_has_two_rates_no_decay_for_biases_and_a_linear_schedule():
    run = toy_run(lr=1e-3, head_lr=5e-3, warmup=0.25)
    optimizer, schedule = train.make_optimizer(run, 8)
    assert type(optimizer) is torch.optim.AdamW
    groups = {}
    for group in optimizer.param_groups:
        groups[group["initial_lr"], group["weight_decay"]] = set(map(id, group["params"]))
    weights = dict(run.model.named_parameters())
    assert set(groups) == {(1e-3, 0.01), (1e-3, 0.0), (5e-3, 0.01), (5e-3, 0.0)}
    assert sum(map(len, groups.values())) == len(weights)
    assert id(weights["encoder.embeddings.LayerNorm.weight"]) in groups[1e-3, 0.0]
    assert id(weights["ffnn_s.0.weight"]) in groups[5e-3, 0.01]
    factors = []
    for _ in range(9):
        factors.append(optimizer.param_groups[0]["lr"] / 1e-3)
        optimizer.step()
        schedule.step()
    assert factors == pytest.approx([0, 1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0])


def test_each_epoch_has_its_own_negatives_and_its_own_order(tmp_path, monkeypatch):
    run, orders, negatives = toy_run(epochs=3), {}, {}
    build = train.Run.training_batch

    def training_batch(run, part, sampling):
        batch = build(run, part, sampling)
        for example in batch.examples:
            orders.setdefault(sampling.epoch, []).append(example.encoded.sentence.id)
            negatives.setdefault(example.encoded.sentence.id, []).append(sorted(example.spans))
        return batch

    monkeypatch.setattr(train.Run, "training_batch", training_batch)
    train.fit(run, {"train": run.encode(SMALL.train), "dev": []}, tmp_path)
    assert list(orders) == [1, 2, 3] and len(set(map(tuple, orders.values()))) == 3
    assert all(sorted(order) == sorted(negatives) for order in orders.values())
    drawn_anew = [spans for spans in negatives.values() if spans[0] != spans[1] != spans[2]]
    assert len(drawn_anew) > 10  # in short sentences every span is drawn


def test_an_epoch_trains_on_its_last_batch_though_it_is_not_full(tmp_path, monkeypatch):
    run, sizes, planned = toy_run(epochs=2, batch_size=2), [], []
    take_step, make_optimizer = train.train_step, train.make_optimizer

    def train_step(run, batch):
        sizes.append(len(batch.examples))
        return take_step(run, batch)

    def planning_optimizer(run, steps):
        planned.append(steps)
        return make_optimizer(run, steps)

    monkeypatch.setattr(train, "train_step", train_step)
    monkeypatch.setattr(train, "make_optimizer", planning_optimizer)
    train.fit(run, {"train": run.encode(SMALL.train[:5]), "dev": []}, tmp_path)
    assert sorted(sizes) == [1, 1, 2, 2, 2, 2] and planned == [6]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_numbers(tmp_path, small_toy):
    results, weights = [], []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        settings = train.settings_of(epochs=1, seed=seed, device="cpu", output=str(tmp_path / name))
        results.append(train.train(settings))
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]
    assert results[0]["entity"] == results[1]["entity"] and results[0]["relation"] == results[1]["relation"]


@pytest.mark.parametrize("dataset, average", [("toy", "micro"), ("ade", "macro")])
def test_the_best_epoch_on_dev_is_kept_by_the_mean_of_entity_and_relation_f1(
    tmp_path, monkeypatch, dataset, average
):
    monkeypatch.setitem(corpora.READERS, dataset, read_small)
    curve = iter([(90, 10), (60, 80), (70, 70), (80, 20), (99, 99)])  # the last is test's
    weights, seen = [], []

    def evaluate(run, encoded):
        weights.append(run.model.ffnn_s[0].weight.clone())
        seen.append(encoded[0].sentence.id)
        others = {"micro": {"f1": 0}, "macro": {"f1": 0}}
        entity, relation = ({**others, average: {"f1": score}} for score in next(curve))
        return {"entity": entity, "relation": {"strict": relation}}, [e.sentence for e in encoded]

    monkeypatch.setattr(train, "evaluate", evaluate)
    monkeypatch.setattr(train, "table_of", lambda *_: "")
    flags = dict(dataset=dataset, encoder="tiny", epochs=4)
    result = train.train(train.settings_of(**flags, output=str(tmp_path / "run")))
    corpus = data.read_corpus(dataset)
    assert result["best_epoch"] == 2  # of equals, the first
    assert torch.equal(weights[4], weights[1]) and not torch.equal(weights[4], weights[3])
    assert seen == [corpus.dev[0].id] * 4 + [corpus.test[0].id]


def test_dev_is_scored_where_settings_are_chosen_and_not_once_trained_on(tmp_path, small_toy):
    result = train.train(train.settings_of(epochs=1, eval_split="dev", output=str(tmp_path / "run")))
    assert result["entity"]["micro"]["gold"] == sum(len(s.entities) for s in data.read_corpus("toy").dev)
    with pytest.raises(InputError, match="--eval-split dev and --train-on-dev"):
        train.settings_of(eval_split="dev", train_on_dev=True)


def test_train_on_dev_keeps_the_last_epoch(tmp_path):
    records = {}
    for name, kind in (("train", "A"), ("dev", "only-dev"), ("test", "A")):
        entities = [{"type": kind, "start": 0, "end": 1}]
        records[name] = [RECORD | {"entities": entities, "relations": []}]
    write_corpus(tmp_path, *records.values())
    flags = dict(dataset=str(tmp_path), encoder="tiny", epochs=2, train_on_dev=True)
    result = train.train(train.settings_of(**flags, output=str(tmp_path / "run")))
    history = read_history(tmp_path / "run")
    assert json.loads((tmp_path / "run/config.json").read_text())["entity_types"] == ["A", "only-dev"]
    assert result["best_epoch"] == 2 and len(history) == 2 and "entity_f1" not in history[0]


@pytest.mark.parametrize("model", ["span", "spert"])
def test_a_corpus_of_ones_own_without_relations_trains(tmp_path, model):
    write_corpus(tmp_path, [RECORD | {"relations": []}] * 3)
    flags = ["--dataset", str(tmp_path), "--encoder", "tiny", "--epochs", "1", "--model", model]
    assert train.main([*flags, "--output", str(tmp_path / "run")]) == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["relation"]["strict"]["micro"]["gold"] == 0


@pytest.mark.slow
def test_an_entity_and_a_relation_may_have_the_same_type(tmp_path):
    relations = [{"type": "A", "head": 0, "tail": 1}, {"type": "R", "head": 1, "tail": 0}]
    write_corpus(tmp_path, [RECORD | {"relations": relations}] * 4)
    flags = dict(dataset=str(tmp_path), encoder="tiny", epochs=60, lr=1e-3)
    result = train.train(train.settings_of(**flags, output=str(tmp_path / "run")))
    assert result["entity"]["micro"]["f1"] == result["relation"]["strict"]["micro"]["f1"] == 100


def test_the_tokenizer_and_the_types_of_a_model_are_those_of_train_alone():
    corpus = toy_corpus(40, 10, 10)
    for sentence in (corpus.dev[0], corpus.test[0]):
        sentence.words[0] = "zzzzz"
        head, tail = data.Entity("only-later", 0, 1), data.Entity("Drug", 1, 2)
        sentence.entities, sentence.relations = [head, tail], [data.Relation("only-later", head, tail)]
    corpus.dev, corpus.test = corpus.dev * 3, corpus.test * 3
    run = train.new_run(train.settings_of(), corpus)
    assert "zzzzz" not in run.tokenizer.get_vocab()
    assert run.entity_types == ["Adverse-Effect", "Drug"] and run.relation_types == ["Adverse-Effect"]


ENCODER = os.environ.get("SPANREL_ENCODER", "")


@pytest.mark.slow
@needs_corpora
@pytest.mark.skipif(not ENCODER, reason="SPANREL_ENCODER: the folder of a pretrained encoder")
@pytest.mark.parametrize("dataset", ["ade", "conll04"])
@pytest.mark.parametrize(
    "shape", [{}, dict(ablate=ABLATIONS), dict(model="spert")], ids=["full", "ablated", "spert"]
)
def test_real_corpora_train_with_a_real_encoder(dataset, shape):
    corpus = data.read_corpus(dataset, REAL)
    settings = train.settings_of(dataset=dataset, encoder=ENCODER, device="cpu", batch_size=2, **shape)
    run = train.new_run(settings, corpus)
    optimizer, schedule = train.make_optimizer(run, 8)
    encoded, losses = run.encode(corpus.train[:4]), []
    before = [weight.clone() for weight in run.model.encoder.parameters()]
    for _ in range(4):
        losses.append(train.train_epoch(run, encoded, 0, optimizer, schedule)["loss"])
    assert losses[-1] < losses[0]
    assert not all(map(torch.equal, before, run.model.encoder.parameters()))  # it is fine-tuned, too
    words = [s.words for s in run.annotate(run.encode(corpus.test[:3]))]
    assert words == [s.words for s in corpus.test[:3]]


# -- Runs that are stopped -----------------------------------------------------------------------------------


class Killed(Exception):
    """What ends a run in these tests, wherever it is."""


def train_until(settings, monkeypatch, name, number):
    """Trains until the function of that name is called for the `number`-th time."""
    calls = itertools.count(1)

    def killing(whole):
        def killed(*given):
            if next(calls) == number:
                raise Killed
            return whole(*given)

        return killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        for module in (train, checkpoints, folders):  # each that knows the function by this name
            if hasattr(module, name):
                patch.setattr(module, name, killing(getattr(module, name)))
        train.train(settings)


def curve_of(history):
    """The epochs, whatever time they took."""
    return [line | {"seconds": 0} for line in history]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """The folder of a run of three epochs that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(corpora.READERS, "toy", read_small)
        train.train(train.settings_of(epochs=3, device="cpu", output=str(folder)))
    return folder


STOPS = [("train_step", 1), ("write_file", 2), ("train_step", 8), ("evaluate", 2), ("save_checkpoint", 2)]
STOPS += [("write_file", 8), ("evaluate", 4), ("keep_weights", 2), ("settle_best", 1), ("write_results", 1)]


@pytest.mark.parametrize("name, number", STOPS)
def test_a_resumed_run_comes_to_the_same_weights_bit_for_bit(
    whole_run, tmp_path, small_toy, monkeypatch, name, number
):
    settings = train.settings_of(epochs=3, device="cpu", output=str(tmp_path / "run"))
    train_until(settings, monkeypatch, name, number)
    result = train.resume(str(tmp_path / "run"), {})
    whole, resumed = contents(whole_run), contents(tmp_path / "run")
    assert whole.keys() == resumed.keys()
    for file in ("model.safetensors", "predictions.json", "tokenizer.json"):
        assert whole[file] == resumed[file]
    curve = curve_of(read_history(tmp_path / "run"))
    assert curve == curve_of(read_history(whole_run)) and len(curve) == 3
    assert result["best_epoch"] == json.loads(whole["metrics.json"])["best_epoch"]


@pytest.mark.slow
def test_a_run_killed_at_random_moments_and_resumed_is_the_uninterrupted_one(tmp_path):
    flags, rng = ["--epochs", 3, "--device", "cpu"], random.Random(6)
    started = time.time()
    assert cli(*flags, "--output", tmp_path / "whole").returncode == 0
    seconds, whole = time.time() - started, contents(tmp_path / "whole")
    for k in range(int(os.environ.get("SPANREL_KILLS", 1))):
        folder = tmp_path / f"cut{k}"
        command = [*flags, "--output", folder]
        patience = seconds
        while not (folder / "metrics.json").exists():  # killed again and again, until it is too late
            kill_after(rng.uniform(0.2, 1.2) * patience, command)
            patience *= 1.1  # a machine may have become busy
            if (folder / "config.json").exists():
                command = ["--resume", folder]
            elif folder.exists():  # it had not begun
                shutil.rmtree(folder)
        resumed = contents(folder)
        for file in ("model.safetensors", "predictions.json"):
            assert resumed[file] == whole[file]


@pytest.mark.slow
@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_ends_a_run_with_a_line_on_how_to_go_on(tmp_path, name, status):
    command = [sys.executable, "train.py", "--device", "cpu", "--output", str(tmp_path / "run")]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen(command, cwd=HERE, **pipes) as process:
        next(line for line in process.stdout if line.startswith("epoch 1  "))
        process.send_signal(getattr(signal, name))
        _, printed = process.communicate(timeout=120)
    assert process.returncode == status
    (line,) = printed.splitlines()
    assert line.startswith("stopped; ") and line.endswith(f"python train.py --resume {tmp_path / 'run'}")


def kill_after(seconds, command):
    """Runs `python train.py`, and ends it (kill -9) if it takes longer."""
    words = [sys.executable, "train.py", *map(str, command)]
    process = subprocess.Popen(words, cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def test_the_seconds_of_a_resumed_run_hold_those_before_it_was_stopped(tmp_path, small_toy, monkeypatch):
    calls = itertools.count()
    monkeypatch.setattr(train, "time", SimpleNamespace(time=lambda: next(calls)))  # a second for each call
    settings = train.settings_of(epochs=3, device="cpu", output=str(tmp_path / "run"))
    train_until(settings, monkeypatch, "train_step", 8)
    assert [line["seconds"] for line in read_history(tmp_path / "run")] == [1, 1]
    result = train.resume(str(tmp_path / "run"), {})
    assert result["seconds"] == 1 + 1 + 3  # its calls: at the start, two of the third epoch, at the end


def test_a_run_does_not_go_on_with_another_corpus(tmp_path, small_toy, monkeypatch, capsys):
    settings = train.settings_of(epochs=3, device="cpu", output=str(tmp_path / "run"))
    train_until(settings, monkeypatch, "save_checkpoint", 3)

    def read_changed(data_dir, fold):
        records = read_small(data_dir, fold)
        records["dev"][0] |= {"entities": [], "relations": []}
        return records

    with monkeypatch.context() as patch:
        patch.setitem(corpora.READERS, "toy", read_changed)
        assert train.main(["--resume", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "(the split dev has changed); move it away" in line and "go on with" not in line
    assert train.resume(str(tmp_path / "run"), {})["best_epoch"]  # but with its own it does


CHANGES = {"seed": 1, "epochs": 4, "batch_size": 2, "negative_rate": 3, "eval_split": "dev", "hidden": 32}


@pytest.mark.parametrize("name, value", CHANGES.items())
def test_a_run_does_not_go_on_with_other_settings(tmp_path, small_toy, monkeypatch, capsys, name, value):
    settings = train.settings_of(epochs=3, device="cpu", output=str(tmp_path / "run"))
    train_until(settings, monkeypatch, "save_checkpoint", 2)
    path = tmp_path / "run/config.json"
    kept = path.read_text()
    description = json.loads(kept)
    part = description["settings"]
    earlier, part[name] = part[name], value
    path.write_text(json.dumps(description))
    assert train.main(["--resume", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"({command_of({name: value}).split()[2]} is {value}, and was {earlier}); move it away" in line
    path.write_text(kept)
    assert train.resume(str(tmp_path / "run"), {})["best_epoch"]


@pytest.mark.parametrize(
    "name", ["epoch-2.safetensors", "checkpoint.safetensors", "history.jsonl", "metrics.json"]
)
def test_a_full_disk_is_one_line_and_the_last_checkpoint_is_whole(
    tmp_path, small_toy, monkeypatch, capsys, name
):
    synced, save, evaluate = os.fsync, checkpoints.save_checkpoint, train.evaluate
    folder = tmp_path / "run"
    disk = SimpleNamespace(is_full=False)
    rising = itertools.count()  # each epoch is better than the one before, so that its weights are written

    def fsync(number):
        if disk.is_full and Path(f"/proc/self/fd/{number}").resolve().name.startswith(f".{name}."):
            raise OSError(errno.ENOSPC, "No space left on device")
        synced(number)

    def save_checkpoint(*given):
        save(*given)
        disk.is_full = True  # from the second epoch on

    def rising_scores(run, encoded):
        result, predicted = evaluate(run, encoded)
        result["entity"]["micro"]["f1"] = next(rising)
        return result, predicted

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(train, "evaluate", rising_scores)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_checkpoint", save_checkpoint)
        assert train.main(["--epochs", "2", "--output", str(folder)]) == 2
    reason = f"{folder / name}: No space left on device; its last checkpoint is kept"
    advice = f"go on with: python train.py --resume {folder}"
    assert capsys.readouterr().err.splitlines() == [f"{reason}; {advice}"]
    assert not list(folder.glob(".*.part"))
    disk.is_full = False
    assert train.main(["--resume", str(folder)]) == 0


FULL_AT_ONCE = [(1000, "", "start it anew"), (100000, "/epoch-1.safetensors", "go on with")]


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on a file's size, as of a full disk")
@pytest.mark.parametrize("size, name, advice", FULL_AT_ONCE)
def test_a_disk_that_is_full_at_once_is_one_line(tmp_path, small_toy, capsys, size, name, advice):
    import resource

    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        status = train.main(["--epochs", "1", "--output", str(tmp_path / "run")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 2 and line.startswith(f"{tmp_path}/run{name}: ") and "File too large" in line
    assert f"; no epoch was finished; {advice}" in line


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_a_loss_that_is_no_number_stops_the_run_and_names_the_sentences(
    tmp_path, small_toy, monkeypatch, capsys, part
):
    take_step, save = train.train_step, checkpoints.save_checkpoint
    steps, ids, kept = itertools.count(1), [], []

    def train_step(run, batch):
        losses = take_step(run, batch)
        if next(steps) != 5:  # the second of the second epoch
            return losses
        ids.extend(example.encoded.sentence.id for example in batch.examples)
        broken = losses[0] * math.nan
        if part == "gradient":
            broken = losses[0] + (broken - broken.detach()).nan_to_num(0)
        return broken, *losses[1:]

    def save_checkpoint(path, *given):
        save(path, *given)
        kept.append(path.read_bytes())

    monkeypatch.setattr(train, "train_step", train_step)
    monkeypatch.setattr(checkpoints, "save_checkpoint", save_checkpoint)
    assert train.main(["--epochs", "3", "--output", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("epoch 2, step 2: the loss is ")
    assert ("the loss is nan" in line) == (part == "loss")
    advice = "start anew with a lower --lr, or with --precision fp32"  # --resume would meet it again
    assert line.endswith(f"gradient is not finite, on the sentences {', '.join(ids)}; {advice}")
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == kept[-1] and len(kept) == 1


# -- Processes -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_train_and_score_as_one_does(tmp_path):
    folder = tmp_path / "encoder"
    tokenizer = encoders.learn_tokenizer([s.words for s in SMALL.train])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = dict(num_hidden_layers=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    described = {"model_type": "bert", "vocab_size": len(tokenizer), **encoders.TINY, **sizes}
    encoders.build_encoder(described).save_pretrained(folder)
    # The last batch of the nine sentences has one, so that one of two processes has none.
    records = []
    for part in SMALL.splits.values():
        records.append([s.to_record() for s in part[:9]])
    write_corpus(tmp_path, *records)
    flags = ["--dataset", tmp_path, "--encoder", folder, "--dropout", 0, "--lr", 1e-3]
    flags += ["--batch-size", 4, "--epochs", 3]
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    one, two = run_processes(tmp_path / "one", flags), run_processes(tmp_path / "two", flags, *torchrun)
    for line, same_line in zip(curve_of(read_history(one)), curve_of(read_history(two)), strict=True):
        assert line == pytest.approx(same_line, rel=1e-4)
    predictions = json.loads((one / "predictions.json").read_text())
    assert predictions == json.loads((two / "predictions.json").read_text()) and len(predictions) == 9
    weights = train.load(two).model.state_dict()
    for name, weight in train.load(one).model.state_dict().items():
        if "key.bias" not in name:  # whose gradient is rounding: the softmax does not see it
            assert (weight - weights[name]).abs().mean() < 1e-4, name
    command = ["--load", one, "--predict", tmp_path / "test.json", "--device", "cpu", "--format", "jsonl"]
    printed = [cli(*command, by=by, OMP_NUM_THREADS="1").stdout for by in ((), torchrun)]
    assert printed[0] == printed[1] and len(printed[0].splitlines()) == 9


def test_a_process_without_a_sentence_takes_the_step_but_counts_nothing(monkeypatch):
    run = toy_run()
    encoded = run.encode([s for s in SMALL.train if s.relations][:2])
    monkeypatch.setattr(train, "world_size", lambda: 3)
    counted = []
    for process in range(3):
        monkeypatch.setattr(train, "rank", lambda process=process: process)
        batch = run.training_batch(encoded, data.Sampling())
        counted.append((bool(batch.is_span.any()), bool(batch.is_pair.any())))
    assert counted == [(True, True), (True, True), (False, False)]


def test_each_process_has_a_dropout_of_its_own(monkeypatch):
    def stop(settings, method):
        raise InputError(str(torch.initial_seed()))

    monkeypatch.setattr(train, "begin", lambda settings, revision: (torch.manual_seed(settings.seed), {}))
    monkeypatch.setattr(train.folders, "new_folder", stop)
    for process in range(3):
        monkeypatch.setattr(train, "rank", lambda process=process: process)
        with pytest.raises(InputError, match=f"^{7 + process}$"):
            train.train(train.settings_of(seed=7))


def run_processes(folder, flags, *by):
    """Trains in a folder, by one process or by several, of which one writes and prints."""
    done = cli(*flags, "--device", "cpu", "--output", folder, by=by, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 3") == done.stdout.count("the run is in") == 1
    assert len(read_history(folder)) == 3
    return folder


# -- The default run -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    """The folder of `python train.py`, as the README says, once for all tests that look at it."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    done = cli("--output", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_default_run_is_good_and_whole(default_run):
    metrics = json.loads((default_run / "metrics.json").read_text())
    assert metrics["entity"]["micro"]["f1"] >= 95 and metrics["relation"]["strict"]["micro"]["f1"] >= 90
    assert set(metrics["phenomena"]) == {"span", "local", "sentence"}
    present = {path.name for path in default_run.iterdir()}
    assert present >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert present >= {"metrics.json", "history.jsonl", "predictions.json"}
    assert len(read_history(default_run)) == metrics["settings"]["epochs"]
    assert len(read_records(default_run / "predictions.json")) == 400


@pytest.mark.slow
def test_a_saved_run_scores_and_predicts_as_it_did(default_run, capsys):
    run, test = train.load(default_run), data.read_corpus("toy").test
    result, predicted = train.evaluate(run, run.encode(test))
    metrics = json.loads((default_run / "metrics.json").read_text())
    assert result == {name: metrics[name] for name in result}
    assert [s.to_record() for s in predicted] == json.loads((default_run / "predictions.json").read_text())
    text = "Gemcitabine-induced pulmonary toxicity is usually a dramatic condition."
    sentence, blank = run.predict([text, " "])
    entities = [(e.type, text[slice(*sentence.chars(e))]) for e in sentence.entities]
    assert entities == [("Drug", "Gemcitabine"), ("Adverse-Effect", "pulmonary toxicity")]
    (relation,) = sentence.relations
    assert relation.type == relation.head.type == "Adverse-Effect" and relation.tail.type == "Drug"
    assert all(0 <= item.score <= 1 for item in (*sentence.entities, relation)) and not blank.entities
    capsys.readouterr()
    assert train.main(["--load", str(default_run), "--predict", text, "--evaluate"]) == 0
    printed = capsys.readouterr().out
    assert '"Gemcitabine" [0, 11)' in printed and '"pulmonary toxicity" [20, 38)' in printed
    assert f"{metrics['entity']['micro']['f1']:.2f}" in printed
