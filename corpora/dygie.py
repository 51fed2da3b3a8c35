"""DyGIE++'s form, which SciERC and ACE05 have: documents, with entities and relations by sentence."""

import json
from itertools import chain

from corpora.records import check_record, is_text, value_in
from support.errors import InputError, excerpt, read_each

COLUMNS = ("sentences", "ner", "relations")


def records_of(items: list[tuple]) -> list[dict]:
    """The records of documents, given as (number, document, place). A sentence without words has none."""
    return list(chain(*read_each(read_document, items)))


def read_document(number: int, document, where: str) -> list[dict]:
    """The records of a document, one per sentence. Its numbers count the words of the document, from 0."""
    if type(document) is not dict:
        raise InputError(f"{where}, it is {excerpt(document)}; must have {', '.join(COLUMNS)}")
    for name in COLUMNS:
        if type(document.get(name)) is not list or any(type(row) is not list for row in document[name]):
            raise InputError(f"{where}, {name}: {value_in(document, name)}; must have a list per sentence")
    if len(set(lengths := [len(document[name]) for name in COLUMNS])) > 1:
        raise InputError(f"{where}, {', '.join(COLUMNS)}: of lengths {lengths}; must be equally long")
    key, sentences, shift = document.get("doc_key"), [], 0
    for index, (words, *annotations) in enumerate(zip(*map(document.get, COLUMNS))):
        record = {"tokens": words, "document": key or where, "orig_id": f"{key or number}:{index}"}
        sentences.append((record, *annotations, shift, f"{where}, sentence {index}"))
        shift += len(words)
    return [record for record in read_each(annotate, sentences) if record["tokens"]]


def annotate(record: dict, ner: list, related: list, shift: int, where: str) -> dict:
    """The record with its entities and relations. Its sentence begins `shift` words into the document."""
    first, last = shift, shift + len(record["tokens"]) - 1
    entities, relations, index_of_span = [], [], {}
    for (span,), kind in read_each(read_item, [(item, 1, first, last, f"{where}, ner") for item in ner]):
        index_of_span.setdefault(span, len(entities))  # of two types of a span, the first
        entities.append({"type": kind, "start": span[0] - shift, "end": span[1] + 1 - shift})
    items = [(item, 2, first, last, f"{where}, relations", index_of_span) for item in related]
    for spans, kind in read_each(read_item, items):
        relations.append({"type": kind, "head": index_of_span[spans[0]], "tail": index_of_span[spans[1]]})
    record |= {"entities": entities, "relations": relations}
    check_record(record, where, fewest_words=0)
    return record


def read_item(item, count: int, first: int, last: int, where: str, in_ner=None) -> tuple[list, str]:
    """The spans, one or two, and the type of an entity or a relation. Those of a relation are `in_ner`."""
    where, numbers = f"{where}: {json.dumps(item)[:80]}", item[:-1] if type(item) is list else []
    if len(numbers) != 2 * count or any(type(n) is not int for n in numbers) or not is_text(item[-1]):
        raise InputError(f"{where}; must be [{'start, end, ' * count}type]")
    spans = list(zip(numbers[::2], numbers[1::2]))
    for start, end in spans:
        if not first <= start <= end <= last:
            raise InputError(f"{where}; must be a span of its sentence, words {first} to {last}")
        if in_ner is not None and (start, end) not in in_ner:
            raise InputError(f"{where}; ner has no entity [{start}, {end}] in this sentence")
    return spans, item[-1]
