"""DyGIE++'s form, which SciERC and ACE05 have: documents, with entities and relations by sentence."""

import json
from itertools import chain

from corpora.records import check_record, is_text, value_in
from support.errors import InputError, excerpt, read_each

COLUMNS = ("sentences", "ner", "relations")


def records_of(items: list[tuple]) -> list[dict]:
    """The records of documents, given as (number, document, place); a sentence without words is left out."""
    return list(chain(*read_each(read_document, items)))


def read_document(number: int, document, where: str) -> list[dict]:
    """The records of a document, a sentence each. Numbers count the words of the document, from 0."""
    if type(document) is not dict:
        raise InputError(f"{where}, it is {excerpt(document)}; must have {', '.join(COLUMNS)}")
    for name in COLUMNS:
        rows = document.get(name)
        if type(rows) is not list or any(type(row) is not list for row in rows):
            advice = "must be a list of lists, one for each sentence"
            raise InputError(f"{where}, {name}: {value_in(document, name)}; {advice}")
    lengths = [len(document[name]) for name in COLUMNS]
    if len(set(lengths)) > 1:
        counted = "sentences: {}, ner: {}, relations: {}".format(*lengths)
        raise InputError(f"{where}, {counted}; the three must be equally long")
    name, sentences, shift = str(document.get("doc_key", number)), [], 0
    for index, (words, ner, related) in enumerate(zip(*map(document.get, COLUMNS))):
        record = {"tokens": words, "document": name, "orig_id": f"{name}:{index}"}
        sentences.append((record, ner, related, shift, f"{where}, sentence {index}"))
        shift += len(words)
    return [record for record in read_each(annotate, sentences) if record["tokens"]]


def annotate(record: dict, ner: list, related: list, shift: int, where: str) -> dict:
    """The record with its entities and relations. Its sentence begins `shift` words into the document."""
    words = (shift, shift + len(record["tokens"]) - 1)
    entities, relations, index_of_span = [], [], {}
    for (span,), kind in read_each(read_item, [(item, 1, words, f"{where}, ner") for item in ner]):
        index_of_span.setdefault(span, len(entities))  # of two types of a span, the first
        entities.append({"type": kind, "start": span[0] - shift, "end": span[1] + 1 - shift})
    for spans, kind in read_each(read_item, [(item, 2, words, f"{where}, relations") for item in related]):
        for span in spans:
            if span not in index_of_span:
                raise InputError(f"{where}, relations: ner has no entity {list(span)}, which {kind!a} joins")
        head, tail = map(index_of_span.get, spans)
        relations.append({"type": kind, "head": head, "tail": tail})
    record |= {"entities": entities, "relations": relations}
    check_record(record, where, fewest_words=0)
    return record


def read_item(item, count: int, words: tuple[int, int], where: str) -> tuple[list, str]:
    """The spans, one or two, and the type of an entity or a relation, in the document's own numbers."""
    where, numbers = f"{where}: {json.dumps(item)[:80]}", item[:-1] if type(item) is list else []
    if len(numbers) != 2 * count or any(type(n) is not int for n in numbers) or not is_text(item[-1]):
        raise InputError(f"{where}; must be [{'start, end, ' * count}type]")
    spans = list(zip(numbers[::2], numbers[1::2]))
    for start, end in spans:
        if not words[0] <= start <= end <= words[1]:
            first, last = words
            raise InputError(f"{where}; must go from start to end in its sentence, words {first} to {last}")
    return spans, item[-1]
