"""The model's time and memory beside its encoder's alone, on the same batches, in one process.

    python -m tools.benchmark --dataset ade --encoder base        the flags are those of train.py

Each model must run its encoder, so none can cost less than that. Here `--output` is a new JSON file."""

import collections
import itertools
import json
import random
import statistics
import sys
import time
from pathlib import Path

import torch
from torch.utils.benchmark.utils.timer import timer  # it waits until the device has done what it was given

import data
import train
from data import Batch, Encoded, Entity, Sentence
from spanrel import Config
from support.devices import hardware_of, peak_memory, reset_peak
from support.encoders import longest_input, silence_transformers
from support.errors import InputError, run_program
from support.files import write_file
from support.flags import add_flags, command_of, make_parser
from support.processes import processes_started
from train import OTHER_DEFAULTS, Run, Settings, descend, flags_of, sampling_of, settings_of, train_step


def benchmark(settings: Settings) -> dict:
    """Measures, prints the table that `cost_table` makes, and returns its figures."""
    if processes_started() > 1:
        raise InputError("the benchmark is for one process: start it without torchrun")
    path = Path(settings.output or "new.json")
    if path.exists() or not path.parent.is_dir():
        raise InputError(f"--output {path}: it must be a new file, in a folder that is there")
    run, splits = train.begin(settings)
    started = time.perf_counter()
    for sentences in train.corpus_of_run(settings).splits.values():
        run.encode(sentences)
    result = {"reading": time.perf_counter() - started, "hardware": hardware_of(run.device)}
    result["command"] = command_of(flags_of(settings)).replace("train.py", "-m tools.benchmark")
    result["growth"] = growth(run)
    result["prediction"] = prediction_cost(run, splits["test"])
    result["training"] = training_cost(run, splits["train"])
    print(cost_table(result))
    if settings.output:
        write_file(path, json.dumps(result, indent=1).encode())
    return result


def training_cost(run: Run, encoded: list[Encoded], steps: int = 12) -> dict:
    """Training steps of the model beside those of its encoder alone."""
    sampling = sampling_of(run.settings, 0)
    optimizer = torch.optim.AdamW(run.model.parameters(), lr=0.0, fused=True)
    parts = data.batches_of(encoded, run.settings.batch_size, random.Random(run.settings.seed))[:steps]
    batches = [run.training_batch(part, sampling) for part in parts]
    run.model.train()
    return in_turn(run, batches, {
        "encoder": lambda batch: descend(run, encoder_alone(run, batch).float().square().mean(), optimizer),
        "model": lambda batch: descend(run, train_step(run, batch)[0], optimizer),
        "batch building": lambda batch: run.training_batch(encoded_of(batch), sampling),
    })


def prediction_cost(run: Run, encoded: list[Encoded]) -> dict:
    """Prediction, from wordpieces to sentences, beside the encoder alone.
    Exactly the gold entities are kept: an untrained model would keep most spans, and the cost would be
    that of their millions of pairs."""
    batches = [run.prediction_batch(part) for part in data.batches_of(encoded, 8)]
    z_s = itertools.cycle([gold_scores(run, batch) for batch in batches])
    run.model.eval()
    with torch.no_grad(), run.model.ffnn_s.register_forward_hook(lambda *_: next(z_s)):
        return in_turn(run, batches, {
            "encoder": lambda batch: encoder_alone(run, batch),
            "model": lambda batch: run.annotate_batch(run.prediction_batch(encoded_of(batch))),
        })


def encoded_of(batch: Batch) -> list[Encoded]:
    """The encoded sentences of a batch."""
    return [example.encoded for example in batch.examples]


def gold_scores(run: Run, batch: Batch) -> torch.Tensor:
    """Scores z_s with which the spans kept are those of the gold entities."""
    rows = []
    for example in batch.examples:
        gold = {(entity.start, entity.end) for entity in example.encoded.sentence.entities}
        rows.append([int(span in gold) for span in example.spans])
    classes = 1 + max(1, len(run.entity_types))
    return torch.nn.functional.one_hot(data.pad(rows, 0), classes).float().to(run.device)


def growth(run: Run, lengths=(20, 50, 100, 200, 500), counts=(2, 20, 200)) -> list[dict]:
    """Prediction of one sentence, by its wordpieces and by the entities that are kept in it."""
    rows, longest = [], longest_input(run.tokenizer, run.model.encoder)
    for n, count in itertools.product(lengths, counts):
        spans = data.enumerate_spans(n - 2, run.settings.max_width)
        if n > longest or count > len(spans):
            continue
        entities = [Entity("", *span) for span in random.Random(0).sample(spans, count)]
        sentence = Sentence("", ["word"] * (n - 2), entities)
        is_token = [True] * (n - 1) + [False]
        encoded = Encoded(sentence, [5] * n, is_token, list(range(1, n - 1)), list(range(2, n)))
        sizes = {"wordpieces": n, "entities": count, "pairs": count * (count - 1)}
        rows.append({**sizes, **prediction_cost(run, [encoded])})
    return rows


def encoder_alone(run: Run, batch: Batch) -> torch.Tensor:
    """The embeddings of a batch."""
    with run.autocast():
        output = run.model.encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    return output.last_hidden_state


def in_turn(run: Run, batches: list[Batch], actions: dict, passes: int = 3) -> dict:
    """Seconds and peak memory of each action on all batches.
    Each runs by itself first, which warms up and shows what memory it takes. Then all run in turn on each
    batch, several times over, and the median of each counts."""
    cost = {"batches": len(batches), "sentences": sum(len(batch.examples) for batch in batches)}
    for name, action in actions.items():
        can_measure = reset_peak(run.device)
        for batch in batches:
            action(batch)
        cost[name] = {"memory": peak_memory(run.device) if can_measure else 0}
    times = collections.defaultdict(list)
    for _, (index, batch), name in itertools.product(range(passes), enumerate(batches), actions):
        started = timer()
        actions[name](batch)
        times[name, index].append(timer() - started)
    for name in actions:
        cost[name]["seconds"] = sum(statistics.median(times[name, index]) for index in range(len(batches)))
    return cost


def cost_table(result: dict) -> str:
    """The figures of `benchmark` as a table; 0 MiB where the system does not tell."""
    lines = [result["command"], result["hardware"], "", f"{'':34}{'model':>10}{'encoder':>10}{'ratio':>10}"]
    for name, title in (("training", "training: a step"), ("prediction", "prediction: a batch of 8")):
        cost, costs = result[name], (result[name]["model"], result[name]["encoder"])
        figures = {
            f"{title}, ms": [1000 * part["seconds"] / cost["batches"] for part in costs],
            "  sentences a second": [cost["sentences"] / part["seconds"] for part in costs],
            "  peak memory, MiB": [part["memory"] / 2**20 for part in costs],
        }
        for label, (model, encoder) in figures.items():
            lines.append(f"{label:34}{model:10.1f}{encoder:10.1f}{model / max(encoder, 1e-9):10.2f}")
    training = result["training"]
    share = 100 * training["batch building"]["seconds"] / training["model"]["seconds"]
    lines.append(f"{'batch building, % of a step':34}{share:10.1f}")
    lines.append(f"{'reading and encoding, s':34}{result['reading']:10.1f}\n")
    lines.append(f"{'one sentence: wordpieces':>24}" + "  entities     pairs        ms   encoder       MiB")
    for row in result["growth"]:
        ms, alone = 1000 * row["model"]["seconds"], 1000 * row["encoder"]["seconds"]
        sizes = f"{row['wordpieces']:24}{row['entities']:10}{row['pairs']:10,}"
        lines.append(f"{sizes}{ms:10.0f}{alone:10.0f}{row['model']['memory'] / 2**20:10.0f}")
    return "\n".join(lines)


def make_benchmark_parser():
    """The command line: the flags of train.py."""
    parser = make_parser(__doc__, "python -m tools.benchmark [--flag value ...]; --help lists the flags")
    for kind in (Settings, Config):
        add_flags(parser, kind, OTHER_DEFAULTS)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Measures the model that the flags of train.py describe."""

    def measure():
        silence_transformers()
        benchmark(settings_of(**vars(make_benchmark_parser().parse_args(arguments))))

    return run_program(measure)


if __name__ == "__main__":
    sys.exit(main())
