"""The form of a record, SpERT's JSON, and the validator that every record passes."""

import json
import re
from pathlib import Path

from support.errors import InputError, excerpt, explain_errors, read_each
from support.files import read_text

FORM = '{"tokens": [...], "entities": [{"type", "start", "end"}, ...], '
FORM += '"relations": [{"type", "head", "tail"}, ...]}'
SPLITS = ("train", "dev", "test")


def split_files(folder: Path, advice: str) -> dict[str, Path]:
    """train.json, dev.json and test.json of a folder, by split; all three must be there."""
    paths = {split: folder / f"{split}.json" for split in SPLITS}
    if missing := [str(path) for path in paths.values() if not path.is_file()]:
        raise InputError(f"{', '.join(missing)} not there: {advice}")
    return paths


def read_records(path: Path) -> list:
    """The list in a JSON file. Its records are not checked yet."""
    text = read_text(path)
    with explain_errors(path, f"JSON, a list of {FORM}"):
        records = json.loads(text)
        if not isinstance(records, list):
            raise InputError(f"it is {excerpt(records)}")
    return records


def read_checked(path: Path) -> list[dict]:
    """The records in a JSON file. If some are wrong, one error lists all that is wrong, a line each."""
    records = read_records(path)
    read_each(check_record, [(record, f"{path}, record {k}") for k, record in enumerate(records)])
    return records


def check_record(record, where: str):
    """Refuses a record that has faults; the error has a line for each."""
    if faults := faults_of_record(record):
        raise InputError("\n".join(f"{where}, {fault}" for fault in faults))


def is_text(value) -> bool:
    """Whether it is text, not empty, and without half a character (a lone surrogate)."""
    return isinstance(value, str) and value != "" and not re.search("[\ud800-\udfff]", value)


def faults_of_record(record) -> list[str]:
    """All that is wrong with a record: the field, what stands there, and what would be right."""
    if type(record) is not dict:
        return [f"it is {excerpt(record)}; it must be {FORM}"]
    parts = {name: record.get(name) for name in ("tokens", "entities", "relations")}
    if no_lists := {name: part for name, part in parts.items() if type(part) is not list}:
        return [f"{name}: {excerpt(part)}; must be a list" for name, part in no_lists.items()]
    words, entities, relations = parts.values()
    faults = [] if words else ["tokens: empty; a sentence has a word at least"]
    for k, word in enumerate(words):
        if not is_text(word):
            faults.append(f"tokens[{k}]: {excerpt(word)}; must be a word")
    ranges = {"start": (0, len(words) - 1), "end": (1, len(words))}
    for k, entity in enumerate(entities):
        wrong = faults_of_item(f"entities[{k}]", entity, ranges, f"{len(words)} words")
        if not wrong and entity["start"] >= entity["end"]:
            right = f"must be beyond start, {entity['start']}, since end is excluded"
            wrong = [f"entities[{k}].end: {entity['end']}; {right}"]
        faults += wrong
    ranges = dict.fromkeys(("head", "tail"), (0, len(entities) - 1))
    for k, relation in enumerate(relations):
        wrong = faults_of_item(f"relations[{k}]", relation, ranges, f"{len(entities)} entities")
        if not wrong and same_entity(entities[relation["head"]], entities[relation["tail"]]):
            wrong = [f"relations[{k}]: joins an entity with itself; it must join two"]
        faults += wrong
    return faults


def same_entity(one, other) -> bool:
    """Whether two entities of a record have the same type and span."""
    if type(one) is not dict or type(other) is not dict:
        return one is other
    return all(one.get(name) == other.get(name) for name in ("type", "start", "end"))


def faults_of_item(where: str, item, ranges: dict[str, tuple[int, int]], reason: str) -> list[str]:
    """What is wrong with an entity or a relation: its type, and numbers beyond their ranges."""
    if type(item) is not dict:
        return [f'{where}: {excerpt(item)}; must be {{"type", {", ".join(map(json.dumps, ranges))}}}']
    faults = []
    if not is_text(item.get("type")):
        faults.append(f"{where}.type: {excerpt(item.get('type'))}; must be a name")
    for name, (low, high) in ranges.items():
        value = item.get(name)
        if type(value) is not int or not low <= value <= high:
            right = f"must be an integer from {low} to {high}" if low <= high else "can be nothing"
            faults.append(f"{where}.{name}: {excerpt(value)}; {right}, since there are {reason}")
    return faults
