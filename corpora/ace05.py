"""ACE05 as DyGIE++'s preprocessing writes it: entities are head regions [L22]. The corpus is licensed."""

import json
from pathlib import Path

from corpora.records import check_record, split_files
from support.errors import explain_errors
from support.files import read_text

ADVICE = (
    "ACE05 is licensed (LDC2006T06); put there what DyGIE++'s preprocessing writes, "
    "or start without it: python train.py"
)
LINE_FORM = "doc_key, sentences, ner [start, end, type], relations [start, end, start, end, type]"


def read(data_dir: Path, fold: int) -> dict:
    """The three splits, from data/ace05/{train,dev,test}.json."""
    paths = split_files(data_dir / "ace05", ADVICE)
    return {split: parse(read_text(path), path) for split, path in paths.items()}


def parse(text: str, where) -> list[dict]:
    """One document a line. Offsets count the words of the document, the last word of an entity included."""
    records = []
    for number, line in enumerate(text.rstrip("\n").split("\n"), 1):
        with explain_errors(f"{where}, line {number}", LINE_FORM):
            document, shift = json.loads(line), 0
            rows = zip(document["sentences"], document["ner"], document["relations"], strict=True)
            for index, (words, entities, relations) in enumerate(rows):
                if words:
                    record = make_record(words, entities, relations, shift)
                    record["orig_id"] = f"{document['doc_key']}:{index}"
                    check_record(record, f"sentence {index}")
                    records.append(record)
                shift += len(words)
    return records


def make_record(words: list[str], ner: list, related: list, shift: int) -> dict:
    """A sentence that begins `shift` words into its document."""
    entities, relations, index_of_span = [], [], {}
    for start, end, kind in ner:
        index_of_span.setdefault((start, end), len(entities))  # of two types of a span, the first
        entities.append({"type": kind, "start": start - shift, "end": end + 1 - shift})
    for a, b, c, d, kind in related:
        relations.append({"type": kind, "head": index_of_span[a, b], "tail": index_of_span[c, d]})
    return {"tokens": words, "entities": entities, "relations": relations}
