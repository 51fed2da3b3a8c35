"""Annotations by characters, as brat and doccano have them, put onto the words of each line of a text."""

from bisect import bisect
from dataclasses import dataclass, field
from itertools import chain

from corpora.records import check_record
from corpora.words import cut_words
from support.errors import InputError, read_each, warn


@dataclass
class Document:
    """A text with annotations by name: entities (type, start, end) and relations (type, head, tail).
    `left_out` says why some are not kept. Messages name the document by `where`."""

    name: str
    text: str
    where: str
    entities: dict[str, tuple] = field(default_factory=dict)
    relations: dict[str, tuple] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def read_documents(read, items: list[tuple]) -> list[dict]:
    """The records of the documents `read(*item)`. What is left out is printed: none is dropped in silence."""
    documents, lines = read_each(read, items), []
    records = read_each(records_of, [(document,) for document in documents])
    for document in documents:
        lines += [f"{document.where}, {name}: {why}; left out" for name, why in document.left_out.items()]
    warn(lines)
    return list(chain(*records))


def records_of(document: Document) -> list[dict]:
    """The records of a document, one for each line that has words."""
    records, starts, offsets, start = [], [], [], 0  # offsets: of the words of each line
    for number, line in enumerate(document.text.split("\n"), 1):
        mark = number == 1 and line.startswith("\ufeff")  # a byte order mark counts as a character
        text = line[mark:].removesuffix("\r")
        offsets.append(cut_words(text))
        starts.append(start + mark)
        start += len(line) + 1
        tokens = [text[first:last] for first, last in offsets[-1]]
        record = {"tokens": tokens, "entities": [], "relations": [], "text": text}
        records.append(record | {"document": document.where, "orig_id": f"{document.name}:{number}"})
    add_relations(document, records, add_entities(document, records, starts, offsets))
    records = [record for record in records if record["tokens"]]
    read_each(check_record, [(record, f"{document.where}, {record['orig_id']}") for record in records])
    return records


def add_entities(document: Document, records: list[dict], starts: list[int], offsets: list[list]) -> dict:
    """Adds entities that cover whole words of one line; returns the line and index of each, by name."""
    places = {}
    for name, (kind, start, end) in document.entities.items():
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(document.text):
            right = f"must be characters of the text, which has {len(document.text)}"
            raise InputError(f"{document.where}, {name}: {start!a} to {end!a}; {right}")
        covered = document.text[start:end]
        start += len(covered) - len(covered.lstrip())
        line = max(0, bisect(starts, start) - 1)
        first, last = start - starts[line], end - starts[line]
        words = [k for k, word in enumerate(offsets[line]) if word[0] < last and first < word[1]]
        if "\n" in covered.strip():
            document.left_out[name] = "it crosses the end of a line"
        elif not words:
            document.left_out[name] = "it has no word"
        elif offsets[line][words[0]][0] < first or last < offsets[line][words[-1]][1]:
            document.left_out[name] = "it begins or ends inside a word"
        else:
            places[name] = (line, len(records[line]["entities"]))
            entity = {"type": kind, "start": words[0], "end": words[-1] + 1}
            records[line]["entities"].append(entity)
    return places


def add_relations(document: Document, records: list[dict], places: dict[str, tuple[int, int]]):
    """Adds the relations that join two entities of a line. `places` has the line and index of each entity."""
    for name, (kind, *ends) in document.relations.items():
        missing = [end for end in ends if end not in places]
        unknown = [end for end in missing if end not in document.left_out]
        if unknown:
            raise InputError(f"{document.where}, {name}: joins {unknown[0]}, which is not there")
        if missing:
            document.left_out[name] = f"it joins {missing[0]}, which is not kept"
            continue
        (line, head), (other_line, tail) = map(places.get, ends)
        if line == other_line:
            records[line]["relations"].append({"type": kind, "head": head, "tail": tail})
        else:
            document.left_out[name] = "it joins entities of two lines"
