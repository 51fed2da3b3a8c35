"""ADE (Gurulingappa et al. 2012): one of ten folds of its original release, or SpERT's own folds [L17]."""

import random
import re
import zipfile
from pathlib import Path

from corpora.records import checked, read_numbered
from corpora.words import cut_words
from support.errors import InputError, explain_errors
from support.files import fetch, lines_of

FILE = "ade/ADE-Corpus-V2.zip"
REPOSITORY = "davidsbatista/Annotated-Semantic-Relationships-Datasets"
ADDRESS = f"{REPOSITORY}/ad883cbbaf4e342326b444347cf7d035012a4f4e/datasets/ADE-Corpus-V2.zip"
SHA256 = "0f833524307b5ba27e516ffabd182de6b1e1ce1c00be08e8fe0b9656c0935915"
ROW_FORM = "id|sentence|effect|begin|end|drug|begin|end, with offsets in the document"


def read(data_dir: Path, fold: int) -> dict:
    """The fold is test, the next fold is dev, and the other eight are train.
    SpERT's `ade_split_K_train.json` and `…_test.json` are used if they are there; dev is a ninth of train."""
    if not 0 <= fold <= 9:
        raise InputError(f"--fold {fold}: ADE's folds are 0 to 9")
    train_file, test_file = (data_dir / "ade" / f"ade_split_{fold}_{part}.json" for part in ("train", "test"))
    if train_file.exists() or test_file.exists():
        train, test = (checked(read_numbered(path)) for path in (train_file, test_file))
        random.Random(2012).shuffle(train)
        ninth = len(train) // 9
        return {"train": train[ninth:], "dev": train[:ninth], "test": test}
    path = fetch(data_dir / FILE, ADDRESS, SHA256)
    records = parse(zipfile.ZipFile(path).read("ADE-Corpus-V2/DRUG-AE.rel").decode("utf-8"), path)
    random.Random(2012).shuffle(records)
    folds = [records[k::10] for k in range(10)]
    dev_fold, train = (fold + 1) % 10, []
    for k in range(10):
        if k not in (fold, dev_fold):
            train += folds[k]
    return {"train": train, "dev": folds[dev_fold], "test": folds[fold]}


def parse(text: str, where) -> list[dict]:
    """The records of DRUG-AE.rel. A row is a relation, and the rows of one sentence become one record."""
    rows_of_sentence: dict[tuple, list] = {}
    for number, line in enumerate(lines_of(text), 1):
        with explain_errors(f"{where}, row {number}", ROW_FORM):
            id, sentence, effect, effect_begin, _, drug, drug_begin, _ = line.split("|")
            row = (number, (effect, int(effect_begin)), (drug, int(drug_begin)))
            rows_of_sentence.setdefault((id, sentence), []).append(row)
    records = []
    for (id, sentence), rows in rows_of_sentence.items():
        with explain_errors(f"{where}, row {rows[-1][0]}", ROW_FORM):
            records.append(make_record(id, sentence, [pair for _, *pair in rows]))
    return records


def make_record(id: str, text: str, pairs: list) -> dict:
    """One sentence with its (effect, drug) pairs; a mention is its text and its offset in the document."""
    origin = offset_of_sentence(text, pairs)
    offsets = cut_words(text)
    word_at_start = {start: index for index, (start, _) in enumerate(offsets)}
    word_at_end = {end: index for index, (_, end) in enumerate(offsets)}
    index_of_entity, relations = {}, []
    for pair in pairs:
        arguments = []
        for kind, (name, begin) in zip(("Adverse-Effect", "Drug"), pair):
            start = begin - origin + len(name) - len(name.lstrip())  # two mentions have a blank at an end
            entity = (kind, word_at_start[start], word_at_end[start + len(name.strip())] + 1)
            arguments.append(index_of_entity.setdefault(entity, len(index_of_entity)))
        relation = {"type": "Adverse-Effect", "head": arguments[0], "tail": arguments[1]}
        if relation not in relations:
            relations.append(relation)
    words = [text[start:end] for start, end in offsets]
    entities = [{"type": kind, "start": start, "end": end} for kind, start, end in index_of_entity]
    record = {"tokens": words, "entities": entities, "relations": relations}
    return {**record, "orig_id": f"{id}:{origin}", "text": text}


def offset_of_sentence(text: str, pairs: list) -> int:
    """Where the sentence begins in its document: the one offset at which every mention finds its text."""
    possible = None
    for pair in pairs:
        for name, begin in pair:
            fitting = {begin - match.start() for match in re.finditer(f"(?={re.escape(name)})", text)}
            possible = fitting if possible is None else possible & fitting
    (origin,) = possible
    return origin
