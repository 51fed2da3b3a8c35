"""The forms of a JSON file, which the keys of its first item tell apart."""

from pathlib import Path

from corpora import brat, doccano, dygie
from corpora.records import FORM, check_record, checked, read_numbered
from support.errors import InputError, keys_of

READERS = {  # by keys that an item has
    ("tokens",): checked,
    ("sentences", "ner"): dygie.records_of,
    ("text", "entities"): doccano.records_of,
    ("text", "label"): doccano.records_of,
    ("text", "labels"): doccano.records_of,
}
NOT_READ = {
    ("data", "annotations"): "Label Studio's form",
    ("tokenized_text", "ner"): "GLiNER's form",
    ("paragraphs",): "spaCy's form",
}
ADVICE = (
    "export or convert it to doccano's (text, entities with character offsets, relations) "
    f"or SpERT's: a list of {FORM}"
)


def read(path: Path) -> list[dict]:
    """The records of a JSON file in any form that is read, or of a folder of brat's pairs."""
    if path.is_dir():
        return brat.read(path)
    items = read_numbered(path)
    _, first, place = items[0] if items else (0, {"tokens": []}, "")
    if type(first) is list and len(first) == 2 and type(first[1]) is dict:
        raise InputError(f"{path}: lists of a text and an object, as in spaCy's form; {ADVICE}")
    if type(first) is not dict:
        check_record(first, place)
    for keys, records_of in READERS.items():
        if first.keys() >= set(keys):
            return records_of(items)
    names = [name for keys, name in NOT_READ.items() if first.keys() >= set(keys)]
    form = f"as in {names[0]}, which is not read" if names else "a form that is not known"
    raise InputError(f"{path}: its first item has {keys_of(first)}, {form}; {ADVICE}")
