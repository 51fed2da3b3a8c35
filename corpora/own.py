"""One's own data: a folder to train on, in the forms of docs/corpora.md; texts and files to predict."""

import os
import random
import re
from collections import defaultdict
from itertools import chain
from pathlib import Path

from corpora import forms
from corpora.records import SPLITS, read_json_lines, read_numbered
from support.errors import InputError, read_each
from support.files import read_lines

FILE_NAME = r"[!-~]*[/\\][!-~]*|[!-~]+\.[a-z][a-z0-9]{1,4}|.+\.(txt|jsonl?|csv|tsv|ann)"  # ASCII


def read(folder: Path, names: tuple[str, ...], split: str = "") -> dict:
    """The records by split: those of train, dev and test, or of one set that `split` divides.
    `names` are the corpora that have a name."""
    shares = [int(share) for share in split.split("/")] if re.fullmatch(r"\d+/\d+/\d+", split) else []
    if split and (0 in shares or sum(shares) != 100):
        raise InputError(f"--split {split}: must be three shares that add up to 100, such as 80/10/10")
    if not os.path.isdir(folder):
        raise InputError(f"--dataset {str(folder)[:200]}: neither {', '.join(names)} nor a folder")
    paths = {part: path_of(folder, part) for part in SPLITS}
    given = [str(path) for part, path in paths.items() if path.exists() and part != "train"]
    if split and given:
        raise InputError(f"--split {split}: {' and '.join(given)} exist; it divides one set, without them")
    if split:
        return divide(read_set(folder), shares, folder)
    if missing := [str(path) for path in paths.values() if not path.exists()]:
        present = ", ".join(sorted(os.listdir(folder))[:9]) or "nothing"
        advice = "a corpus has train, dev and test, or is one set, which --split 80/10/10 divides"
        raise InputError(f"{', '.join(missing)} not there, only {present}: {advice}")
    return dict(zip(SPLITS, read_each(forms.read, [(path,) for path in paths.values()])))


def path_of(folder: Path, part: str) -> Path:
    """The file or the subfolder of a split; if there is none, the path where PART.json would be."""
    paths = [folder / f"{part}.json", folder / f"{part}.jsonl", folder / part]
    present = [path for path in paths if path.exists()]
    if len(present) > 1:
        raise InputError(f"{present[0]} and {present[1]}: only one of them can be {part}")
    return present[0] if present else paths[0]


def read_set(folder: Path) -> list[dict]:
    """The records of all JSON files of a folder, and of its texts with brat's annotations."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".json", ".jsonl"))
    if any(folder.rglob("*.ann")):
        paths.append(folder)
    if not paths:
        raise InputError(f"{folder}: no .json, .jsonl or .ann there to split")
    return list(chain(*read_each(forms.read, [(path,) for path in paths])))


def divide(records: list[dict], shares: list[int], folder: Path) -> dict:
    """Train, dev and test of these shares in percent, drawn with a fixed seed. None is empty.
    A document is never in two of them; a record without one is divided by itself."""
    groups = defaultdict(list)
    for k, record in enumerate(records):
        document = record.get("document")
        groups[k if document is None else str(document)].append(record)
    n, drawn = len(groups), list(groups.values())
    if n < 3:
        raise InputError(f"{folder}: {n} documents or sentences cannot be divided into three splits")
    random.Random(2012).shuffle(drawn)
    dev_start = min(max(1, round(n * shares[0] / 100)), n - 2)
    test_start = min(max(dev_start + 1, round(n * (shares[0] + shares[1]) / 100)), n - 1)
    parts = drawn[:dev_start], drawn[dev_start:test_start], drawn[test_start:]
    return {part: list(chain(*groups)) for part, groups in zip(SPLITS, parts)}


def read_inputs(arguments: list[str]):
    """Yields (item, id, place) of each sentence to predict; an item is a text, a list of words, or a record.
    An argument is a text, or a file. What looks like a file's name must be a file."""
    named = [argument for argument in arguments if re.fullmatch(FILE_NAME, argument, re.I)]
    if missing := [name for name in named if not os.path.exists(name)]:
        raise InputError("\n".join(f"{name[:200]}: no such file" for name in missing))
    for number, argument in enumerate(arguments, 1):
        if os.path.exists(argument):
            yield from read_file(Path(argument))
        else:
            yield argument, f"text {number}", f"text {number}"


def read_file(path: Path):
    """Yields (item, id, place) of each sentence in a file. A text or JSON Lines are never held whole."""
    ending = path.suffix.lower()
    if ending == ".json":
        numbered = read_numbered(path)
    elif ending == ".jsonl":
        numbered = read_json_lines(path)
    elif ending in ("", ".txt", ".text"):
        numbered = ((number, line, f"{path}, line {number}") for number, line in read_lines(path))
    else:
        kinds = ".txt (one sentence per line), .jsonl (one JSON item per line) and .json (a list)"
        raise InputError(f"{path}: files to predict are {kinds}")
    for number, item, place in numbered:
        yield item, f"{path.name}:{number}", place
