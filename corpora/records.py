"""The form of a record, SpERT's JSON, and the validator that every record passes."""

import json
import re
from pathlib import Path

from support.errors import InputError, excerpt, explain_errors, keys_of, read_each
from support.files import read_lines, read_text

FORM = '{"tokens": [...], "entities": [{"type", "start", "end"}, ...], '
FORM += '"relations": [{"type", "head", "tail"}, ...]}'
SPLITS = ("train", "dev", "test")
MOST = 10_000  # words of a sentence, and letters of a word: more would hold up the tokenizer


def read_numbered(path: Path) -> list[tuple]:
    """(number, item, place) of each item in a file: of a JSON list, or of JSON Lines.
    The items are not checked yet. `place` is for messages."""
    text = read_text(path)
    with explain_errors(path, f"JSON, a list of {FORM}, or one such object per line"):
        try:
            content = json.loads(text)
            if content and type(content) is dict:
                return [(1, content, f"{path}, line 1")]
            if type(content) is not list:
                raise InputError(f"it is {excerpt(content)}")
        except json.JSONDecodeError as error:
            if error.msg != "Extra data":
                raise
            content = None
    if content is None:
        return list(read_json_lines(path))
    return [(number, item, f"{path}, record {number}") for number, item in enumerate(content)]


def read_json_lines(path: Path):
    """Yields (number, item, place) of each line that is not blank. The file is never held whole."""
    for number, line in read_lines(path):
        place = f"{path}, line {number}"
        with explain_errors(place, "JSON"):
            try:
                item = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{error.msg} at character {error.pos}") from None
        yield number, item, place


def read_records(path: Path) -> list:
    """The items of a JSON file. They are not checked yet."""
    return [item for _, item, _ in read_numbered(path)]


def checked(items: list[tuple]) -> list[dict]:
    """The records among (number, record, place). One error has a line for each fault."""
    read_each(check_record, [(record, place) for _, record, place in items])
    return [record for _, record, _ in items]


def check_record(record, where: str, fewest_words: int = 1):
    """Refuses a record that has faults; the error has a line for each."""
    if faults := faults_of_record(record, fewest_words):
        raise InputError("\n".join(f"{where}, {fault}" for fault in faults))


def is_text(value) -> bool:
    """Whether it is text, not empty, and without half a character (a lone surrogate)."""
    return isinstance(value, str) and value != "" and not re.search("[\ud800-\udfff]", value)


def faults_of_record(record, fewest_words: int = 1) -> list[str]:
    """All that is wrong with a record: the field, what stands there, and what would be right."""
    if type(record) is not dict:
        return [f"it is {excerpt(record)}; it must be {FORM}"]
    names = ("tokens", "entities", "relations")
    if no_lists := [name for name in names if type(record.get(name)) is not list]:
        return [f"{name}: {value_in(record, name)}; must be a list" for name in no_lists]
    words, entities, relations = (record[name] for name in names)
    faults = []
    if len(words) < fewest_words:
        faults.append("tokens: empty; a sentence has at least one word")
    if len(words) > MOST:
        return [f"tokens: {len(words):,} words; a sentence has at most {MOST:,}; split it"]
    for k, word in enumerate(words):
        if not is_text(word):
            faults.append(f"tokens[{k}]: {excerpt(word)}; must be a word")
        elif len(word) > MOST:
            faults.append(f"tokens[{k}]: {excerpt(word)}, {len(word):,} letters; a word has at most {MOST:,}")
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


def value_in(item: dict, name: str) -> str:
    """The value that an object has under a name; if it has none, the keys of the object."""
    return excerpt(item[name]) if name in item else f"missing; it has {keys_of(item)}"


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
        faults.append(f"{where}.type: {value_in(item, 'type')}; must be a name")
    for name, (low, high) in ranges.items():
        value = item.get(name)
        if type(value) is not int or not low <= value <= high:
            right = f"must be an integer from {low} to {high}" if low <= high else "no value is right"
            faults.append(f"{where}.{name}: {value_in(item, name)}; {right}, since there are {reason}")
    return faults


def record_of(sentence) -> dict:
    """The record of a sentence, with its text, the entities' characters and the scores."""
    entities, relations, index = [], [], {entity: k for k, entity in enumerate(sentence.entities)}
    for e in sentence.entities:
        entities.append({"type": e.type, "start": e.start, "end": e.end, "chars": [*sentence.chars(e)]})
    for r in sentence.relations:
        relations.append({"type": r.type, "head": index[r.head], "tail": index[r.tail]})
    for item, fields in zip([*sentence.entities, *sentence.relations], entities + relations):
        if item.score is not None:
            fields["score"] = item.score
    record = {"tokens": sentence.words, "entities": entities, "relations": relations}
    return {**record, "text": sentence.text, "orig_id": sentence.id}
