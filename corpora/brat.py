"""brat's form: a folder of texts, each NAME.txt with its annotations in NAME.ann. A line is a sentence."""

import re
from pathlib import Path

from corpora.offsets import Document, read_documents
from support.errors import InputError, explain_errors
from support.files import lines_of, read_text

LINE_FORM = "T1, type start end, text; or R1, type Arg1:T1 Arg2:T2; with tabs, not commas"


def read(folder: Path) -> list[dict]:
    """The records of all pairs of files in a folder and its subfolders."""
    texts = {path.with_suffix("") for path in folder.rglob("*.txt")}
    annotations = {path.with_suffix("") for path in folder.rglob("*.ann")}
    lines = [f"{name}.txt: no {name.name}.ann beside it" for name in sorted(texts - annotations)]
    lines += [f"{name}.ann: no {name.name}.txt beside it" for name in sorted(annotations - texts)]
    if lines or not texts:
        raise InputError("\n".join(lines) or f"{folder}: no .txt with its .ann there")
    return read_documents(read_pair, [(Path(f"{name}.txt"),) for name in sorted(texts)])


def read_pair(path: Path) -> Document:
    """The text and its annotations. Offsets count the characters of the file as it stands."""
    annotations = path.with_suffix(".ann")
    document = Document(path.stem, read_text(path, exact=True), str(annotations))
    for number, line in enumerate(lines_of(read_text(annotations)), 1):
        if line.strip() and line[0] != "#":  # a note
            with explain_errors(f"{annotations}, line {number}", LINE_FORM):
                add_line(document, line)
    return document


def add_line(document: Document, line: str):
    """Adds the annotation of a line to the document."""
    name, content, *texts = line.split("\t")
    if name == "*":  # lines of equal entities have no names
        name = f"* {content}"
    kind, *places = content.split()
    if any(name in named for named in (document.entities, document.relations, document.left_out)):
        raise InputError(f"{name} is there twice")
    if name[0] == "T" and ";" in content:
        document.left_out[name] = "discontinuous"
    elif name[0] == "T":
        start, end = map(int, places)
        covered, text = document.text[start:end], "\t".join(texts)
        if re.sub(r"\s", " ", covered) != re.sub(r"\s", " ", text):
            raise InputError(f"{name} is {text!a}, but the text has {covered!a} from {start} to {end}")
        document.entities[name] = (kind, start, end)
    elif name[0] == "R":
        if len(places) > 2:
            document.left_out[name] = "it joins more than two"
        else:
            head, tail = (place.split(":")[1] for place in places)
            document.relations[name] = (kind, head, tail)
    else:
        document.left_out[name] = "neither an entity (T) nor a relation (R)"
