"""What several test files share: a small corpus, untrained models, records, the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

import corpora.toy
import data
import train
from support import folders

HERE = Path(__file__).parent.parent
REAL = HERE / "data"
FILES = ["ade/ADE-Corpus-V2.zip", *(f"conll04/{split}.txt" for split in ("train", "dev", "test"))]
needs_corpora = pytest.mark.skipif(
    not all((REAL / name).is_file() for name in FILES),
    reason="the published corpora are not in data/: python data.py --dataset ade fetches ADE",
)

RECORD = {
    "tokens": ["a", "b"],
    "entities": [{"type": "A", "start": 0, "end": 1}, {"type": "A", "start": 1, "end": 2}],
    "relations": [{"type": "R", "head": 0, "tail": 1}],
}


def toy_corpus(*sizes):
    """A toy corpus of other sizes."""
    return data.corpus_of("toy", corpora.toy.read(sizes=sizes))


SMALL = toy_corpus(40, 10, 10)


def toy_run(epochs=1, **given):
    """An untrained model of the toy corpus."""
    chosen = dict(hidden=16, heads=2) | given
    if given.get("attention", "multihead") != "multihead" or len(given.get("ablate", ())) > 2:
        del chosen["heads"]
    if given.get("model") == "spert":
        chosen = given
    return train.new_run(train.settings_of(dataset="toy", epochs=epochs, **chosen), SMALL)


def save_run(run, folder):
    """Writes a run that was not trained, so that it can be loaded."""
    folders.write_description(folder, run)
    save_file(run.model.state_dict(), folder / "model.safetensors")


def eager(**given):
    """A model that calls many spans entities and most pairs related, so that it predicts something."""
    run = toy_run(**given)
    for ffnn in (run.model.ffnn_s, run.model.ffnn_r):
        ffnn[-1].bias.data[0] = -0.2
    return run


def some_batch(run, size=6):
    """A training batch of the small corpus."""
    return run.training_batch(run.encode(SMALL.train[:size]), data.Sampling())


def write_corpus(folder, train_records, dev_records=None, test_records=None):
    """A corpus folder; dev and test are like train where they are not given."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in (("train", train_records), ("dev", dev_records), ("test", test_records)):
        (folder / f"{name}.json").write_text(json.dumps(train_records if records is None else records))


def contents(folder):
    """Every file below a folder, with what is in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cli(*arguments, by=(), **env):
    """Runs `python train.py` with these arguments."""
    command = [sys.executable, *by, "train.py", *map(str, arguments)]
    return subprocess.run(command, cwd=HERE, env={**os.environ, **env}, text=True, capture_output=True)
