"""CoNLL04 (Roth and Yih 2004) in Bekoulis's split, which is the paper's [L16]."""

import re
from pathlib import Path

from support.errors import explain_errors
from support.files import fetch, lines_of, read_text

REPOSITORY = "bekou/multihead_joint_entity_relation_extraction"
FOLDER = f"{REPOSITORY}/7f40a0f7c1892821591358518c542139e88f693e/data/CoNLL04"
SHA256 = {
    "train": "0f560fdaa150133fc4843f72e2a8e707e7f74f06a3a3095d4b9921f8d0ce3614",
    "dev": "99e854fd2a7d19247230c3ed8c304f79022380c9d21b58f25e7ffc5fe3884e2d",
    "test": "d172819deff771c059c9c6688d67c3ff2bdaa25cf71ec56b1f7e8c6705f96700",
}
LINE_FORM = "index, word, BIO tag, relation types and their tails, with tabs between"


def read(data_dir: Path, fold: int) -> dict:
    """The three splits. Documents that stand in two of them are kept [L39]."""
    paths = {}
    for split, sha256 in SHA256.items():
        paths[split] = fetch(data_dir / f"conll04/{split}.txt", f"{FOLDER}/{split}.txt", sha256)
    return {split: parse(read_text(path), path) for split, path in paths.items()}


def parse(text: str, where) -> list[dict]:
    """The documents, each behind a line `#doc id` and taken as one sentence, with one word per line.
    A relation stands at the last word of its head and names the last word of its tail."""
    records, related = [], []
    for number, line in enumerate(lines_of(text), 1):
        with explain_errors(f"{where}, line {number}", LINE_FORM):
            if line.startswith("#doc"):
                id = line.removeprefix("#doc").strip()
                records.append({"orig_id": id, "tokens": [], "entities": [], "relations": []})
                continue
            _, word, tag, names, tails = line.split("\t")
            record = records[-1]
            position = len(record["tokens"])
            record["tokens"].append(word)
            add_tag(record["entities"], tag, position)
            for name, tail in zip(re.findall(r"'([^']+)'", names), re.findall(r"\d+", tails)):
                if name != "N":
                    related.append((number, record, name, (position, int(tail))))
    for number, record, name, (head, tail) in related:
        form = "such that a relation joins the last words of two entities"
        with explain_errors(f"{where}, line {number}", form):
            by_last_word = {entity["end"] - 1: index for index, entity in enumerate(record["entities"])}
            record["relations"].append({"type": name, "head": by_last_word[head], "tail": by_last_word[tail]})
    return records


def add_tag(entities: list[dict], tag: str, position: int):
    """Goes on with the last entity, or opens one, as the BIO tag of the word at this position says."""
    if tag == "O":
        return
    kind = re.fullmatch(r"[BI]-(\S+)", tag)[1]
    last = entities[-1] if entities else {"end": -1, "type": ""}
    if tag[0] == "I" and (last["end"], last["type"]) == (position, kind):
        last["end"] += 1
    else:  # an I- behind O opens an entity, too [L24]
        entities.append({"type": kind, "start": position, "end": position + 1})
