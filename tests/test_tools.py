"""The programs over the model: python -m tools.report, python -m tools.benchmark."""

import copy
import json
import math
import re
import statistics
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from helpers import HERE, SMALL, eager, toy_run
from hypothesis import given, settings
from hypothesis import strategies as st

import corpora
import train
from baselines.published import PRINTED
from data import Entity, Relation, Sentence
from support.errors import InputError
from support.scores import COUNTS, main_tables, scores, sentence_counts
from test_spanrel import annotated, same
from tools import benchmark, report

RESULTS = HERE / "docs/results.json"
NOTHING = "–"


@pytest.fixture
def small_toy(monkeypatch):
    """A toy corpus that trains in a second."""
    monkeypatch.setitem(corpora.READERS, "toy", partial(corpora.toy.read, sizes=(40, 10, 10)))


def recorded_run(flags, gold=(), predicted=(), **more):
    """A run as a report reads it, of these predictions."""
    settings = train.settings_of(**flags)
    counts = sentence_counts(gold, predicted, train.average_of(settings))
    record = {"flags": flags, **scores(gold, predicted), "by_sentence": counts, **more}
    return report.Recorded(settings, record)


def partly_right_run(flags, rights, size=40):
    """A run that finds the first `rights` of as many entities as sentences, one in each."""
    gold, wrong = [Sentence("s", ["a", "b"], [Entity("Peop", 0, end)], []) for end in (1, 2)]
    return recorded_run(flags, [gold] * size, [gold] * rights + [wrong] * (size - rights))


def cells_of(row):
    """The cells of a row in Markdown."""
    return [cell.strip() for cell in row.split("|")[1:-1]]


def rows_of(text):
    """The cells of each row of all tables in a text."""
    return [cells_of(line) for line in text.splitlines() if line.startswith("|")]


def print_report(capsys, *arguments):
    """What the report prints."""
    assert report.main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


# -- The report's tables -------------------------------------------------------------------------------------


def test_the_report_has_the_papers_figures_beside_the_mean_of_ones_own(tmp_path, small_toy, capsys):
    metrics = []
    for seed in (0, 1):
        settings = train.settings_of(seed=seed, epochs=2, output=str(tmp_path / f"run{seed}"))
        metrics.append(train.train(settings))
    prf = {"p": 80.0, "r": 90.0, "f1": 84.7}
    records = []
    for f1, fold in ((80, 0), (90, 3)):
        entity = {"micro": prf, "macro": {**prf, "f1": f1}}
        flags = {"dataset": "ade", "fold": fold, "encoder": "mine", "model": "spert"}
        relation = {"strict": {"micro": prf, "macro": prf}}
        records.append({"flags": flags, "entity": entity, "relation": relation})
    (tmp_path / "mine.json").write_text(json.dumps(records))
    capsys.readouterr()
    paths = [f"{tmp_path}/{name}" for name in ("run0", "run1", "mine.json", "run0/")]  # twice is once
    text = print_report(capsys, *paths, "--all")
    rows = rows_of(text)
    ade = ["ade", "spert", "88.99 / 89.59 / 89.28", "77.77 / 79.96 / 78.84", "80.00 / 90.00 / 85.00 ± 7.07"]
    assert [*ade, "80.00 / 90.00 / 84.70 ± 0.00", "mine", "2", "(2)"] in rows
    not_run = ["conll04", "Multi-turn QA", "89.0 / 86.6 / 87.8", "69.2 / 68.2 / 68.9", "", "", "", "0", ""]
    assert not_run in rows and "68.7" in text
    f1 = [result["entity"]["micro"]["f1"] for result in metrics]
    (toy,) = [row for row in rows if row[0] == "toy"]  # in Table 1 alone, since nothing is compared with it
    assert toy[1:4] == ["multihead --epochs 2", "", ""]
    assert toy[4].endswith(f"{statistics.mean(f1):.2f} ± {statistics.stdev(f1):.2f}")
    assert toy[6:] == ["tiny", "2", "(1)"]
    assert rows[-2][0] == "(1)" and rows[-2][-1] == "`python train.py --epochs 2`"
    assert rows[-1][:5] == ["(2)", "85.00 ± 7.07", "84.70 ± 0.00", "2", ""] and "Differences" not in text
    missing = [line for line in text.splitlines() if line.startswith("Missing: ")]
    assert len(missing) == 4 and "`python train.py --dataset conll04 --attention dot`" in missing[1]
    spert = "python train.py --dataset ade --encoder mine --model spert"
    assert f"`{spert} --fold 4`" in missing[0] and "spert --fold 3`" not in missing[0]
    ablated = "python train.py --dataset ace05 --ablate local relation-sentence --eval-split dev"
    assert f"`{ablated}`" in missing[3]
    one, two = [result["missed_relations"] for result in metrics]
    assert rows[-2][5:8] == [str(one[cause] + two[cause]) for cause in ("width", "argument", "relation")]


def test_the_report_prints_the_corpora_that_were_run_and_with_all_the_papers_others_too(tmp_path, capsys):
    flags = {"dataset": "conll04", "model": "spert", "encoder": "mine"}
    (tmp_path / "mine.json").write_text(json.dumps([partly_right_run(flags, 30).record]))
    text = print_report(capsys, tmp_path / "mine.json")
    assert re.findall(r"\*\*Table (\d)\*\*", text) == ["1"]
    datasets = {(row[0], row[1]) for row in rows_of(text) if row[0] in PRINTED[1]}
    assert datasets == {("conll04", model) for model in ("Multi-turn QA", "spert", "multihead")}
    assert "--dataset ade" not in text  # no command is missing for a corpus that is not printed
    text = print_report(capsys, tmp_path / "mine.json", "--all")
    assert re.findall(r"\*\*Table (\d)\*\*", text) == ["1", "2", "3", "4"]
    printed = []
    for models_of in PRINTED.values():
        for dataset, models in models_of.items():
            printed += [[dataset, model] for model in models]
    assert [row[:2] for row in rows_of(text) if row[0] in PRINTED[1]] == printed


def test_runs_that_are_in_no_table_are_listed_with_what_they_missed():
    runs = []
    for width in (1, 2):
        missed = dict(width=width, argument=2, relation=3)
        runs.append(recorded_run({}, missed_relations=missed, seconds=60 * width))
    groups = {"ls": [*runs, recorded_run({})], "no": [recorded_run({})]}
    assert report.all_runs(groups).splitlines()[-2:] == [
        "| (1) | – | – | 3 | 1.5 | 3 | 4 | 6 | `ls` |",
        "| (2) | – | – | 1 |  |  |  |  | `no` |",
    ]


def test_a_run_of_changed_code_is_listed_but_compared_with_nothing(tmp_path, capsys):
    flags = {"dataset": "conll04", "encoder": "mine"}
    changed = {**partly_right_run(flags, 30).record, "note": "with it's\nline"}
    records = [changed, partly_right_run({**flags, "model": "spert"}, 20).record]
    (tmp_path / "mine.json").write_text(json.dumps(records))
    text = print_report(capsys, tmp_path / "mine.json", "--all")
    command = "python train.py --dataset conll04 --encoder mine # with it's line"
    assert text.endswith(f"| (2) | 75.00 | – | 1 |  |  |  |  | `{command}` |\n") and "Differences" not in text
    assert "| conll04 | multihead | 90.23 | 74.33 |  |  |  | 0 |  |" in text


def test_every_missing_command_of_a_report_fills_its_cell():
    for number, datasets in PRINTED.items():
        for dataset, models in datasets.items():
            for model, printed in models.items():
                assert len(printed.split()) in (3, 7)
                for command in report.command_for(number, dataset, model):
                    given = train.make_train_parser().parse_args(command.strip("`").split()[2:])
                    run = report.Recorded(train.settings_of(**vars(given)), {})
                    rows = report.table_rows(number, {command: [run]}, False)
                    assert rows.count(report.Row(dataset, model, command)) == 1
                    assert all(row.command == "" or row.model == model for row in rows)


def test_the_report_of_the_recorded_runs_prints_the_four_tables(capsys, monkeypatch):
    monkeypatch.setattr(report, "RESAMPLES", 10)
    text = print_report(capsys, RESULTS)
    assert re.findall(r"\*\*Table (\d)\*\*", text) == ["1", "2", "3", "4"]
    assert "| toy span | multihead without span-specific |" in text
    assert "| ace05 |" not in text


def test_a_report_of_counts_for_some_sentences_is_one_line(tmp_path, capsys):
    counts = {"entity": {"all": {"gold": "1 2", "predicted": "1", "correct": "1"}}}
    record = {"flags": {}, **scores([], []), "by_sentence": counts}
    (tmp_path / "mine.json").write_text(json.dumps([record]))
    (tmp_path / "run").mkdir()
    assert report.main([str(tmp_path / "mine.json"), str(tmp_path / "run")]) == 2
    first, second = capsys.readouterr().err.splitlines()  # a line for each that is not right
    assert "mine.json, record 0: ValueError" in first
    assert second.endswith("run/metrics.json: No such file or directory")


def test_a_run_that_is_not_finished_is_left_out_of_a_report(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    (tmp_path / "mine.json").write_text(json.dumps([{"flags": {}, **scores([], [])}]))
    assert report.main([str(tmp_path / "run"), str(tmp_path / "mine.json")]) == 0
    output = capsys.readouterr()
    assert output.err == f"{tmp_path}/run: there is no finished run in it\n"
    assert "`python train.py`" in output.out
    (tmp_path / "copy.json").write_text((tmp_path / "mine.json").read_text())
    rows = rows_of(print_report(capsys, tmp_path / "mine.json", tmp_path / "copy.json"))
    assert rows[-1][:4] == ["(1)", "–", "–", "1"]  # a copy is no second run


def places_in(value, place=()):
    """The place of each part of a JSON value, itself included, as its keys."""
    places = [place]
    for key in value if isinstance(value, dict) else ():
        places += places_in(value[key], (*place, key))
    return places


JUNK = st.one_of(
    st.sampled_from([10**400, -(10**400), -1, 1e308, math.nan, math.inf, True, None, "--help", "x", "1 -1"]),
    st.just("9" * 400), st.lists(st.integers(), max_size=2), st.just({}),
)  # fmt: skip
TOY_SCORES = scores([SMALL.test[0]], [SMALL.test[0]])
WHOLE = {
    "flags": {"seed": 1, "hidden": 32},
    **TOY_SCORES,
    "phenomena": {"span": TOY_SCORES},
    "by_sentence": sentence_counts(SMALL.test[:2], SMALL.test[:2], "micro"),
    "missed_relations": {"width": 0, "argument": 1, "relation": 2},
    "seconds": 3.5,
}


@settings(max_examples=4 * settings().max_examples)
@given(place=st.sampled_from(places_in(WHOLE)), junk=JUNK, is_left_out=st.booleans())
def test_whatever_stands_in_a_record_the_report_has_numbers_or_is_one_line_that_names_the_record(
    tmp_path_factory, place, junk, is_left_out
):
    file, record = tmp_path_factory.getbasetemp() / "mine.json", {"": copy.deepcopy(WHOLE)}
    *path, last = ("", *place)
    part = record
    for key in path:
        part = part[key]
    if is_left_out:
        del part[last]
    else:
        part[last] = junk
    file.write_text(json.dumps([WHOLE, *record.values()]))
    try:
        text = report.report([str(file)])
        assert "nan" not in text and "inf" not in text and "999" not in text
    except InputError as error:
        assert str(error).startswith(f"{file}, record 1: ") and len(error.lines) == 1
        assert len(str(error)) < 800


# -- The report's differences --------------------------------------------------------------------------------


@given(
    rng=st.randoms(use_true_random=False),
    dataset=st.sampled_from(["ade", "conll04"]),
    fold=st.integers(0, 9),
)
def test_resamples_have_the_scores_of_the_sentences_that_were_drawn(rng, dataset, fold):
    one = Sentence("s", ["a", "b"], [Entity("A", 0, 1), Entity("B", 1, 2)])
    one.relations = [Relation("R", *one.entities)]
    gold, predicted = [], []
    for sentences in (gold, predicted):
        for _ in range(5):
            sentences.append(Sentence("s", list("abcd"), *annotated(rng, 4)))
        sentences.append(one)
    flags = {"dataset": dataset, "fold": fold}
    run, perfect = recorded_run(flags, gold, predicted), recorded_run(flags, gold, gold)
    average = train.average_of(run.settings)
    drawn = torch.randint(6, (report.RESAMPLES, 6), generator=torch.Generator().manual_seed(fold))
    for task in report.TASKS:
        for name in COUNTS:
            counted = 0
            for columns in run.record["by_sentence"][task].values():
                counted += sum(map(int, columns[name].split()))
            assert counted == main_tables(run.record)[task]["micro"][name]
        curve = report.resampled_f1([run], task)
        assert len(curve) - 1 == report.RESAMPLES == 10_000
        for f1, draw in zip(curve, [range(6), *drawn[:10]]):
            table = main_tables(scores([gold[i] for i in draw], [predicted[i] for i in draw]))[task]
            assert f1.item() == pytest.approx(table[average]["f1"])
        best = report.resampled_f1([perfect], task)
        mixed = report.resampled_f1([run, perfect], task)
        same(mixed[0], (curve[0] + best[0]) / 2)
        seeds = torch.stack([curve, (curve + best) / 2, best])  # each mean of two seeds that can be drawn
        assert ((seeds - mixed).abs().amin(0) < 1e-9).all()
        other_seeds = report.resampled_f1([run, perfect], task, 1)
        assert torch.equal(curve, best) or not torch.equal(mixed, other_seeds)


def test_intervals_count_the_seeds_too():
    base = {"dataset": "conll04", "encoder": "mine"}
    full = [partly_right_run({**base, "seed": seed}, rights) for seed, rights in enumerate((20, 40))]
    other = [partly_right_run({**base, "model": "spert", "seed": seed}, 30) for seed in range(2)]
    groups, _ = report.group_runs([*full, *other])
    (row, _) = differences(groups)
    one_each, _ = report.group_runs([full[0], other[0]])
    (narrow, _) = differences(one_each)
    assert row[5] == 0 and narrow[5] == -25  # of 40 sentences
    # The mean of two seeds, 50 or 100, has a standard deviation of 25 / √2 beside that of the sentences.
    assert row[6] < narrow[6] + 25 < 0 < narrow[7] + 25 < row[7]


def differences(groups):
    """The rows of the report's differences without the full model's name, with the interval as numbers."""
    rows = []
    for corpus, encoder, _, *row in rows_of(report.difference_table(groups))[2:]:
        row = [corpus, encoder, *row]
        rows.append([*row[:5], *map(float, re.findall(r"[+-][\d.]+", row[5])), *row[6:]])
    return rows


def test_the_full_model_is_compared_with_each_other_of_its_flags_in_pairs():
    base = {"dataset": "conll04", "encoder": "mine"}
    others = [({"model": "spert"}, 20), ({"attention": "dot"}, 30), ({"epochs": 9, "attention": "dot"}, 40)]
    runs = [partly_right_run(base, 30), partly_right_run(base, 30)]
    runs += [partly_right_run({**base, **flags}, rights) for flags, rights in others]
    groups, changed = report.group_runs(runs)
    command = "python train.py --dataset conll04 --encoder mine"
    endings = ["", " --model spert", " --attention dot", " --epochs 9 --attention dot"]
    assert list(groups) == [command + ending for ending in endings] and changed == {}
    entity_spert, relation_spert, entity_dot, relation_dot = differences(groups)  # nothing with --epochs 9
    title = ["conll04, test", "mine", "dot", "entity", "+2.00"]
    f1 = ["75.00 ± 0.00", "75.00", "2, 1", "(1), (3)"]
    assert entity_dot == [*title, 0, 0, 0, *f1]  # as they are right on the same sentences
    title = ["conll04, test", "mine", "dot", "relation", "+3.44"]
    assert relation_dot == [*title, NOTHING, NOTHING, "2, 1", "(1), (3)"]
    assert entity_spert[:6] == ["conll04, test", "mine", "spert", "entity", "+1.29", 25]
    assert entity_spert[8:10] == ["75.00 ± 0.00", "50.00"] and relation_spert[4] == "+2.86"
    # A sum of 40 numbers, each 1 with probability ¼: they differ on ten sentences.
    spread = 1.96 * 100 * math.sqrt(0.25 * 0.75 / 40)
    assert entity_spert[6:8] == pytest.approx([25 - spread, 25 + spread], abs=1.5)


def test_spert_is_compared_with_the_full_model_of_any_learning_rate():
    base = {"dataset": "conll04", "encoder": "mine"}
    rate = {"lr": 3e-5}
    others = [{}, rate, rate | {"attention": "dot"}, rate | {"epochs": 9}, {"model": "spert"}]
    groups, _ = report.group_runs([partly_right_run({**base, **flags}, 20) for flags in others])
    models = [tuple(row[2:4]) for row in rows_of(report.difference_table(groups))[2::2]]
    spert = [("multihead", "spert"), ("multihead --lr 3e-05", "spert")]
    assert models == [("multihead --lr 3e-05", "dot --lr 3e-05"), *spert]


def test_only_runs_on_the_same_sentences_are_compared_and_each_fold_counts_once():
    def full(fold, rights):
        return partly_right_run({"dataset": "ade", "fold": fold}, rights)

    def spert(fold, rights, size=40):
        return partly_right_run({"dataset": "ade", "fold": fold, "model": "spert"}, rights, size)

    def groups(full_runs, spert_runs):
        command = "python train.py --dataset ade"
        return {command: full_runs, f"{command} --model spert": spert_runs}

    full_runs = [full(0, 36), full(0, 36), full(0, 36), full(1, 20)]
    (row, _) = differences(groups(full_runs, [spert(0, 36), spert(1, 20), spert(1, 20), spert(2, 1)]))
    assert row[5:8] == [0, 0, 0] and row[10] == "4, 3"  # whatever the seeds; fold 2 has no counterpart
    assert report.difference_table(groups([full(0, 36)], [spert(1, 36)])) == ""
    assert report.difference_table(groups([full(0, 36)], [spert(0, 36, 39)])) == ""  # the corpus has changed
    full_alone, spert_alone = [report.Recorded(run(0, 36).settings, {}) for run in (full, spert)]
    assert report.difference_table(groups([full(0, 36)], [spert_alone])) == ""  # it has no counts
    assert report.difference_table(groups([full_alone], [spert_alone])) == ""


def test_seeds_are_averaged_within_a_fold_and_then_the_folds():
    perfect = [partly_right_run({"dataset": "ade", "seed": seed}, 40) for seed in range(3)]
    wrong, half = [partly_right_run({"dataset": "ade", "fold": 1}, rights) for rights in (0, 20)]
    full = [*perfect, wrong]
    assert report.figures(full, "entity") == "50.00 ± 70.71"  # of the folds' 100 and 0
    assert report.figures([half, wrong], "entity") == "25.00 ± 35.36"  # of two seeds
    assert report.figures([half], "entity") == "50.00"
    spert = [partly_right_run({"dataset": "ade", "fold": fold, "model": "spert"}, 0) for fold in (0, 1)]
    groups, _ = report.group_runs(full + spert)
    (row, _) = differences(groups)
    assert row[5:10] == [50, 50, 50, "50.00 ± 70.71", "0.00 ± 0.00"]


def test_a_toy_run_on_dev_stands_in_no_table_of_test_splits():
    runs = [partly_right_run({"eval_split": split}, rights=20) for split in ("test", "dev")]
    groups = {run.command: [run] for run in runs}
    for number in report.TITLES:
        commands = {row.command for row in report.table_rows(number, groups, with_all=False)}
        assert runs[1].command not in commands


# -- The benchmark -------------------------------------------------------------------------------------------


def test_benchmark_sets_the_model_beside_its_encoder(tmp_path, capsys, small_toy, monkeypatch):
    sizes = dict(lengths=(20, 40, 513), counts=(2, 200))  # 513 are too many
    monkeypatch.setattr(benchmark, "growth", partial(benchmark.growth, **sizes))
    monkeypatch.setattr(benchmark, "in_turn", partial(benchmark.in_turn, passes=1))
    arguments = ["--encoder", "tiny-1", "--output", str(tmp_path / "cost.json")]
    assert benchmark.main(arguments) == 0
    printed, cost = capsys.readouterr().out, json.loads((tmp_path / "cost.json").read_text())
    assert cost["command"] == "python -m tools.benchmark --encoder tiny-1"
    assert printed.startswith(cost["command"])
    for part in ("training", "prediction"):
        model, encoder = [cost[part][name]["seconds"] for name in ("model", "encoder")]
        assert re.search(rf"{part}: .* {model / encoder:.2f}\n", printed)
    assert cost["prediction"]["sentences"] == len(SMALL.test) and "reading" in cost
    growth = [(row["wordpieces"], row["entities"], row["pairs"]) for row in cost["growth"]]
    assert growth == [(20, 2, 2), (40, 2, 2), (40, 200, 39800)]
    assert benchmark.main(arguments) == 2
    assert "cost.json: it must be a new file" in capsys.readouterr().err


def test_benchmark_reads_a_set_that_split_divides(tmp_path, monkeypatch):
    (tmp_path / "one.json").write_text(json.dumps([sentence.to_record() for sentence in SMALL.train]))
    for name in ("growth", "prediction_cost", "training_cost", "cost_table"):
        monkeypatch.setattr(benchmark, name, lambda *_: {})
    assert benchmark.main(["--dataset", str(tmp_path), "--split", "60/20/20", "--encoder", "tiny"]) == 0


def test_benchmark_predicts_with_the_gold_entities_whatever_the_model_says(monkeypatch):
    run, results = eager(), []
    encoded = run.encode(SMALL.test[:5])
    before, annotate_batch = run.annotate(encoded), run.annotate_batch

    def in_turn(run, batches, actions):
        for batch in batches * 2:
            actions["model"](batch)

    def kept_annotate_batch(batch, *more):
        results.append((batch.examples, annotate_batch(batch, *more)))
        return results[-1][1]

    monkeypatch.setattr(benchmark, "in_turn", in_turn)
    monkeypatch.setattr(run, "annotate_batch", kept_annotate_batch)
    benchmark.prediction_cost(run, encoded)
    assert len(results) == 2
    for examples, sentences in results:
        for example, sentence in zip(examples, sentences, strict=True):
            gold = {(e.start, e.end) for e in example.encoded.sentence.entities}
            assert {(e.start, e.end) for e in sentence.entities} == gold
            assert len(sentence.entities) == len(gold)
    assert run.annotate(encoded) == before  # nothing of it stays


def test_benchmark_trains_without_moving_the_weights(monkeypatch):
    run, parts = toy_run(), []
    before = [weight.clone() for weight in run.model.parameters()]

    def in_turn(run, batches, actions):
        parts.extend(actions)
        for action in actions.values():
            action(batches[0])

    monkeypatch.setattr(benchmark, "in_turn", in_turn)
    benchmark.training_cost(run, run.encode(SMALL.train[:8]))
    assert parts == ["encoder", "model", "batch building"]
    assert all(map(torch.equal, before, run.model.parameters()))


def test_actions_run_by_themselves_and_then_in_turn_and_medians_add_up(monkeypatch):
    done, times = [], iter(range(10**6))
    monkeypatch.setattr(benchmark, "timer", lambda: next(times) ** 2)
    batches = [SimpleNamespace(examples=[1, 2]), SimpleNamespace(examples=[3])]

    def action(name, batch):
        done.append((name, len(batch.examples)))

    cost = benchmark.in_turn(toy_run(), batches, {name: partial(action, name) for name in "ab"}, passes=3)
    alone = [("a", 2), ("a", 1), ("b", 2), ("b", 1)]
    assert done == alone + [("a", 2), ("b", 2), ("a", 1), ("b", 1)] * 3
    assert (cost["batches"], cost["sentences"]) == (2, 3)
    seconds = [(2 * k + 1) ** 2 - (2 * k) ** 2 for k in range(12)]
    assert cost["a"]["seconds"] == seconds[4] + seconds[6]  # the second pass is the median of the three
    assert cost["b"]["seconds"] == seconds[5] + seconds[7]
