"""The forms of one's own data: a folder of three JSON files to train on, texts and files to predict."""

import os
import re
from pathlib import Path

from corpora.records import read_checked, read_records, split_files
from support.errors import InputError, read_each
from support.files import read_text


def read(folder: Path, names: tuple[str, ...]) -> dict:
    """The records of train.json, dev.json and test.json. `names` are the corpora that have a name."""
    if not os.path.isdir(folder):
        raise InputError(f"--dataset {str(folder)[:200]}: neither {', '.join(names)} nor a folder")
    paths = split_files(folder, "a corpus is train.json, dev.json and test.json")
    return dict(zip(paths, read_each(read_checked, [(path,) for path in paths.values()])))


def read_inputs(arguments: list[str]) -> list[tuple]:
    """(item, id, place) of each sentence to predict; an item is a text, a list of words, or a record.
    An argument is a text, or a file: a sentence a line, or JSON, a list of items. What ends like a file's
    name is one, even if it is mistyped."""
    items = []
    for number, argument in enumerate(arguments, 1):
        if os.path.exists(argument) or re.fullmatch(r"\S+\.(txt|json)", argument):
            items += read_file(Path(argument))
        else:
            items.append((argument, f"text {number}", f"text {number}"))
    return items


def read_file(path: Path) -> list[tuple]:
    """(item, id, place) of each sentence in a file."""
    if path.suffix.lower() == ".json":
        numbered = enumerate(read_records(path))
    else:
        numbered = [(k, line) for k, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]
    return [(item, f"{path.name}:{k}", f"{path}, {k}") for k, item in numbered]
