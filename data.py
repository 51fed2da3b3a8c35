"""The sentences: corpora, wordpieces, spans, negative samples, batches. It holds no model and does not train.

    python data.py --dataset ade                 the corpus card: what is in there, and what training cannot reach
    python data.py --dataset PATH                the same for a folder with train.json, dev.json and test.json
"""

import argparse
import hashlib
import http.client
import itertools
import json
import os
import random
import re
import socket
import sys
import textwrap
import zipfile
from base64 import b64encode
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from functools import partial
from html import escape
from pathlib import Path
from unicodedata import combining, east_asian_width

import torch
from torch import Tensor

# -- Entities, relations, sentences ---------------------------------------------------------------------------------------


class DataError(ValueError):
    """Something in a user's file, folder or flag is not right; the message says where, and what would be."""


@dataclass(frozen=True)
class Entity:
    """A typed span of words, [start, end). Two are equal if type and span are, whatever their scores."""

    type: str
    start: int
    end: int
    score: float | None = field(default=None, compare=False)  # the model's posterior, when predicted

    def overlaps(self, other: "Entity") -> bool:
        """Do they share a word?"""
        return self.start < other.end and other.start < self.end


def likeliest(entities: list[Entity]) -> list[Entity]:
    """Those that overlap none with a higher score that is kept; of equals the first [L37]."""
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda e: -e.score):
        if not any(entity.overlaps(other) for other in kept):
            kept.append(entity)
    return [entity for entity in entities if entity in kept]


@dataclass(frozen=True)
class Relation:
    """A typed, ordered pair of entities [L19]. Equal if type and both entities are, types included ("strict")."""

    type: str
    head: Entity
    tail: Entity
    score: float | None = field(default=None, compare=False)


@dataclass
class Sentence:
    """Words with their entities and relations. `offsets` are the words' [start, end) in `text`, in characters."""

    id: str
    words: list[str]
    entities: list[Entity] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    text: str = ""
    offsets: list[tuple[int, int]] = field(default_factory=list)
    phenomenon: str = ""  # the toy corpus: which of the paper's three motives it shows
    repeated: int = field(default=0, compare=False)  # entities and relations that its file has more than once

    def __post_init__(self):
        if not self.text:  # a corpus of words, without the text they were cut from
            self.text, ends = " ".join(self.words), itertools.accumulate(len(word) + 1 for word in self.words)
            self.offsets = [(end - 1 - len(word), end - 1) for word, end in zip(self.words, ends)]

    @classmethod
    def from_text(cls, text: str, id: str = "text") -> "Sentence":
        """Cuts a text into words: runs of letters, digits and accents, and every other visible character by itself [L36]."""
        offsets = [match.span() for match in re.finditer(r"[\w\u0300-\u036f]+|[^\w\s]", text)]
        return cls(id, [text[a:b] for a, b in offsets], text=text, offsets=offsets)

    def chars(self, entity: Entity) -> tuple[int, int]:
        """Where the entity stands in `text`, [start, end) in characters."""
        return self.offsets[entity.start][0], self.offsets[entity.end - 1][1]

    def to_json(self) -> dict:
        """The sentence in SpERT's JSON, with its text, the entities' characters in it and, when predicted, scores."""
        at = {entity: index for index, entity in enumerate(self.entities)}
        scored = lambda item: {} if item.score is None else {"score": item.score}
        return {
            "tokens": self.words,
            "entities": [{"type": e.type, "start": e.start, "end": e.end, "chars": [*self.chars(e)], **scored(e)} for e in self.entities],
            "relations": [{"type": r.type, "head": at[r.head], "tail": at[r.tail], **scored(r)} for r in self.relations],
            "text": self.text,
            "orig_id": self.id,
        }

    def _repr_html_(self) -> str:
        """The picture as an image: Jupyter takes drawings out of a notebook that it does not trust yet, but not images."""
        return f'<img alt="{escape(show(self).strip())}" src="data:image/svg+xml;base64,{b64encode(picture(self).encode()).decode()}">'


@dataclass
class Corpus:
    """Three splits."""

    name: str
    train: list[Sentence]
    dev: list[Sentence]
    test: list[Sentence]

    @property
    def splits(self) -> dict[str, list[Sentence]]:
        """The three by name."""
        return {"train": self.train, "dev": self.dev, "test": self.test}

    def types(self, items: str) -> list[str]:
        """The types of train's "entities" or "relations"."""
        return sorted({item.type for sentence in self.train for item in getattr(sentence, items)})


# -- toy: an embedded corpus, which looks like ADE and shows the paper's three motives (§1, Figure 1) ---------------------

DRUGS = (
    "aspirin,lithium,warfarin,heparin,insulin,digoxin,morphine,codeine,quinine,phenytoin,gemcitabine,cisplatin,tamoxifen,"
    "clozapine,ibuprofen,rifampicin,vancomycin,amiodarone,interferon alfa,gold salts,low dose methotrexate"
).split(",")
EFFECTS = (
    "rash,tremor,nausea,delirium,anemia,jaundice,vertigo,seizures,deafness,gout,psoriasis,hepatitis,hyponatremia,"
    "pulmonary toxicity,acute renal failure,loss of taste,severe optic nerve atrophy,swelling of the left hand"
).split(",")
SYMPTOMS, FORMS = "itch,cough,wart,acne,burn,fever,cramp".split(","), "gel,syrup,cream,patch,spray,tablet,powder".split(",")
PROVES, REFUTES = ["confirmed", "proved"], ["refuted", "excluded"]
GIVES, MEASURES = ["given", "infused"], ["measured", "checked"]

# Patterns by phenomenon. D and E stand for two drugs, X and Y for two effects, T for an effect around the drug D, C for a
# compound, S for a substance, U and V for test results, the other capitals for `WORDS`. Behind the bar are the pairs of effect
# and drug that are related: XD always, XDU if what stands for U says so.
PATTERNS = {
    "span": ["we report on C in a A P .", "a A P told us of C .", "C was the topic of this A letter .", "in the A P , C came first ."],
    "local": ["D tested U for X , and E tested V for Y . | XDU YEV", "D tested U for X , but Y came with V tests for E . | XDU YEV",
              "while X came with U tests for D , E tested V for Y . | XDU YEV",
              "in a A P X came with U tests for D , and Y with V tests for E . | XDU YEV"],
    "sentence": ["X in a patient on D : rechallenge J the suspicion . | XDJ", "as J by a later rechallenge , X came with D . | XDJ",
                 "a patient on D had X , and later tests J our first idea . | XDJ",
                 "S was what had to be G in this A P .", "as G twice a day , S was normal in a A P ."],
    "": ["D - induced X is usually a dramatic condition . | XD", "severe T was suspected in a A P . | TD",
         "the patient received D for N days .", "there was no history of X after N years .", "the D level was normal on day N ."],
}  # fmt: skip
WORDS = {"J": PROVES + REFUTES, "G": GIVES + MEASURES, "A": ["young", "tall", "frail", "healthy"],
         "P": ["woman", "man", "child", "nurse"], "N": [str(n) for n in range(2, 31)],
         "S": ["glucose", "potassium", "calcium", "iron", "zinc", "oxygen"]}  # fmt: skip
COMPOUNDS = ["{} {}", "new {} {}", "{} {} type two", "{} {} at night"]


def toy(seed: int = 2020, sizes: tuple[int, int, int] = (600, 100, 400)) -> Corpus:
    """Sentences from a seeded grammar. Three of four show a motive of the paper, which `phenomenon` names:

    span      the type of a compound hangs on its head noun: a "cough syrup" is a Drug, a "syrup cough" an Adverse-Effect
    local     whether a pair is related hangs on most of the words between, among other such words: "A tested positive,
              negative and positive for X, and B tested negative, …"
    sentence  it hangs on a word elsewhere: "X in a patient on A: rechallenge refuted the suspicion"; so does what a substance
              is, a Drug if "given" and no entity if "measured"
    """
    rng, made, names = random.Random(seed), {}, list(PATTERNS)
    while len(made) < sum(sizes):  # what was made before is made again, so that no sentence is in two splits
        sentence = toy_sentence(rng, names[len(made) % len(names)], f"toy-{len(made)}")
        made.setdefault(sentence.text, sentence)
    sentences, dev, test = list(made.values()), sizes[0], sizes[0] + sizes[1]
    return Corpus("toy", sentences[:dev], sentences[dev:test], sentences[test:])


def toy_sentence(rng: random.Random, phenomenon: str, id: str) -> Sentence:
    """A pattern of the phenomenon with its letters replaced."""
    pattern, _, pairs = rng.choice(PATTERNS[phenomenon]).partition(" | ")
    nouns = rng.sample([rng.choice(SYMPTOMS), rng.choice(FORMS)], 2)  # in either order; the second is the head
    fill = {letter: rng.choice(words) for letter, words in WORDS.items()} | {"C": rng.choice(COMPOUNDS).format(*nouns)}
    fill |= dict(zip("DEXY", rng.sample(DRUGS, 2) + rng.sample(EFFECTS, 2))) | {letter: toy_tests(rng) for letter in "UV"}
    fill["T"] = f"{fill['D']} toxicity"
    types = dict.fromkeys("DE", "Drug") | dict.fromkeys("XYT", "Adverse-Effect") | {"C": "Drug" if nouns[1] in FORMS else "Adverse-Effect"}
    types |= {"S": "Drug"} if fill["G"] in GIVES else {}
    words, found = [], {}
    for part in pattern.split():
        start, words = len(words), words + fill.get(part, part).split()
        if part in types:
            found[part] = Entity(types[part], start, len(words))
        if part == "T":
            found["D"] = Entity("Drug", start, len(words) - 1)
    words[0] = words[0][0].upper() + words[0][1:]
    says_so = lambda U: fill[U] in PROVES or fill[U].count("positive") > fill[U].count("negative")
    relations = [Relation("Adverse-Effect", found[x], found[d]) for x, d, *U in pairs.split() if all(map(says_so, U))]
    return Sentence(id, words, list(found.values()), relations, phenomenon=phenomenon)


def toy_tests(rng: random.Random) -> str:
    """Three, five or seven test results; those that prevail do so by one."""
    often, once = rng.sample(["positive", "negative"], 2)
    k = rng.choice([1, 2, 3])
    results = rng.sample([often] * (k + 1) + [once] * k, 2 * k + 1)
    return f"{' , '.join(results[:-1])} and {results[-1]}"


# -- The published corpora ------------------------------------------------------------------------------------------------

ADE = "davidsbatista/Annotated-Semantic-Relationships-Datasets/ad883cbbaf4e342326b444347cf7d035012a4f4e/datasets"
CONLL04 = "bekou/multihead_joint_entity_relation_extraction/7f40a0f7c1892821591358518c542139e88f693e/data/CoNLL04"
SOURCES = {  # file in the data folder: repository, commit and path on GitHub, SHA-256
    "ade/ADE-Corpus-V2.zip": (f"{ADE}/ADE-Corpus-V2.zip", "0f833524307b5ba27e516ffabd182de6b1e1ce1c00be08e8fe0b9656c0935915"),
    "conll04/train.txt": (f"{CONLL04}/train.txt", "0f560fdaa150133fc4843f72e2a8e707e7f74f06a3a3095d4b9921f8d0ce3614"),
    "conll04/dev.txt": (f"{CONLL04}/dev.txt", "99e854fd2a7d19247230c3ed8c304f79022380c9d21b58f25e7ffc5fe3884e2d"),
    "conll04/test.txt": (f"{CONLL04}/test.txt", "d172819deff771c059c9c6688d67c3ff2bdaa25cf71ec56b1f7e8c6705f96700"),
}


def fetch(data_dir: Path, name: str, host: str = "https://raw.githubusercontent.com") -> Path:
    """The corpus file of that name, downloaded if it is not there; in either case its SHA-256 must be the published one.
    A download is written under a temporary name; a server that says nothing for ten seconds is not waited for."""
    path, (address, sha256), before = data_dir / name, SOURCES[name], socket.getdefaulttimeout()
    if path.exists() and not (path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256):
        raise DataError(f"{path}: not the published file, whose SHA-256 is {sha256}; move it away, and it is downloaded anew")
    try:
        socket.setdefaulttimeout(10)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            torch.hub.download_url_to_file(f"{host}/{address}", str(path), hash_prefix=sha256)
    except (OSError, http.client.HTTPException, RuntimeError) as error:  # a RuntimeError is the wrong SHA-256
        raise DataError(f"{path} is not there, and {host}/{address} cannot be fetched ({getattr(error, 'reason', error)}): put the "
                        "file there by hand, or start without it: python train.py") from None  # fmt: skip
    finally:
        socket.setdefaulttimeout(before)
    return path


def text_of(path: Path) -> str:
    """The text of a UTF-8 file, or the one line that says why there is none."""
    try:
        return path.read_text(encoding="utf-8-sig")  # with or without a byte order mark
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{str(path)[:200]}: {error.strerror}") from None


@contextmanager
def reading(where: str, form: str):
    """Whatever is wrong with a record is one line: where it stands, what is wrong, and the form it must have."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        what = "; ".join(str(error).splitlines()) if isinstance(error, DataError) else f"{type(error).__name__} {error}"
        raise DataError(f"{where}: {what}; it must be {form}") from None


def every(read, items) -> list:
    """`read(*item)` of each item; what is wrong with any of them is told for all, a line each."""
    done, wrong = [], []
    for item in items:
        try:
            done.append(read(*item))
        except DataError as error:
            wrong.append(str(error))
    if wrong:
        raise DataError("\n".join(wrong))
    return done


FORM = '{"tokens": [...], "entities": [{"type", "start", "end"}, ...], "relations": [{"type", "head", "tail"}, ...]}'


def splits_in(folder: Path, advice: str) -> list[Path]:
    """train.json, dev.json and test.json of a folder, or the one line that names what is not there."""
    paths = [folder / f"{split}.json" for split in ("train", "dev", "test")]
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise DataError(f"{', '.join(missing)} not there: {advice}")
    return paths


def read_ade(data_dir: Path, fold: int) -> Corpus:
    """ADE, one of ten folds: test is that fold, dev the next one, train the other eight [L17].

    Where SpERT's `ade_split_K_train.json` and `…_test.json` lie in the folder, they are the fold; dev is a ninth of train.
    """
    if not 0 <= fold <= 9:
        raise DataError(f"--fold {fold}: ADE's folds are 0 to 9")
    theirs = [data_dir / "ade" / f"ade_split_{fold}_{part}.json" for part in ("train", "test")]
    if any(path.exists() for path in theirs):
        train, test = map(read_json, theirs)
        random.Random(2012).shuffle(train)
        return Corpus("ade", train[len(train) // 9 :], train[: len(train) // 9], test)
    path = fetch(data_dir, "ade/ADE-Corpus-V2.zip")
    sentences = parse_ade(zipfile.ZipFile(path).read("ADE-Corpus-V2/DRUG-AE.rel").decode("utf-8"), path)
    random.Random(2012).shuffle(sentences)
    folds, dev = [sentences[k::10] for k in range(10)], (fold + 1) % 10
    return Corpus("ade", [s for k in range(10) if k not in (fold, dev) for s in folds[k]], folds[dev], folds[fold])


def parse_ade(text: str, where) -> list[Sentence]:
    """The sentences of DRUG-AE.rel, whose rows are a relation each."""
    form, groups = "id|sentence|effect|begin|end|drug|begin|end, with offsets in the document", {}
    for number, line in enumerate(text.splitlines(), 1):
        with reading(f"{where}, row {number}", form):
            id, sentence, effect, effect_at, _, drug, drug_at, _ = line.split("|")
            groups.setdefault((id, sentence), []).append((number, (effect, int(effect_at)), (drug, int(drug_at))))
    sentences = []
    for (id, sentence), rows in groups.items():
        with reading(f"{where}, row {rows[-1][0]}", form):
            sentences.append(ade_sentence(id, sentence, [pair for _, *pair in rows]))
    return sentences


def ade_sentence(id: str, text: str, pairs: list) -> Sentence:
    """One sentence of ADE, from the (effect, drug) of its relations, each its text and its offset in the document."""
    # The sentence's own offset is the one with which every mention stands where the sentence has its text.
    fits = [{at - m.start() for m in re.finditer(f"(?={re.escape(name)})", text)} for pair in pairs for name, at in pair]
    (origin,) = set.intersection(*fits)
    sentence = Sentence.from_text(text, f"{id}:{origin}")
    first = {a: index for index, (a, _) in enumerate(sentence.offsets)}
    last = {b: index + 1 for index, (_, b) in enumerate(sentence.offsets)}
    for pair in pairs:
        both = []
        for kind, (name, at) in zip(("Adverse-Effect", "Drug"), pair):
            a = at - origin + len(name) - len(name.lstrip())  # two mentions of the release have a blank at an end
            both.append(Entity(kind, first[a], last[a + len(name.strip())]))
        sentence.relations.append(Relation("Adverse-Effect", *both))
    sentence.relations = list(dict.fromkeys(sentence.relations))
    sentence.entities = list(dict.fromkeys(entity for r in sentence.relations for entity in (r.head, r.tail)))
    return sentence


def read_conll04(data_dir: Path) -> Corpus:
    """CoNLL04 in Bekoulis's split, which is the paper's [L16]."""
    paths = [fetch(data_dir, name) for name in SOURCES if name.startswith("conll04/")]
    return Corpus("conll04", *(parse_conll04(text_of(path), path) for path in paths))


def parse_conll04(text: str, where) -> list[Sentence]:
    """The documents, each behind a line `#doc id` and taken as one sentence; a word a line. A relation stands at its head's
    last word and names its tail's."""
    documents, related = [], []
    for number, line in enumerate(text.splitlines(), 1):
        with reading(f"{where}, line {number}", "index, word, BIO tag, relation types and their tails, with tabs between"):
            if line.startswith("#doc"):
                documents.append({"orig_id": line.removeprefix("#doc").strip(), "tokens": [], "entities": [], "relations": []})
                continue
            _, word, tag, names, tails = line.split("\t")
            document, at, entities = documents[-1], len(documents[-1]["tokens"]), documents[-1]["entities"]
            if tag[0] == "I" and entities and (entities[-1]["end"], entities[-1]["type"]) == (at, tag[2:]):
                entities[-1]["end"] += 1
            elif tag != "O":  # an I- behind O opens an entity, too [L24]
                entities.append({"type": re.fullmatch(r"[BI]-(\S+)", tag)[1], "start": at, "end": at + 1})
            pairs = zip(re.findall(r"'([^']+)'", names), re.findall(r"\d+", tails))
            related += [(number, document, name, at, int(tail)) for name, tail in pairs if name != "N"]
            document["tokens"].append(word)
    for number, document, name, head, tail in related:
        with reading(f"{where}, line {number}", "such that a relation joins the last words of two entities"):
            by_last = {entity["end"] - 1: k for k, entity in enumerate(document["entities"])}
            document["relations"].append({"type": name, "head": by_last[head], "tail": by_last[tail]})
    return [sentence_of(document, "", f"{where}, {document['orig_id']}") for document in documents]


def read_ace05(data_dir: Path, heads_only: bool = False) -> Corpus:
    """ACE05 as DyGIE++'s preprocessing writes it, which is with head regions for entities; where a file has full mentions and
    head regions, `heads_only` takes the latter [L22]."""
    advice = "ACE05 is licensed (LDC2006T06); put there what DyGIE++'s preprocessing writes, or start without it: python train.py"
    paths = splits_in(data_dir / "ace05", advice)
    return Corpus("ace05", *(parse_ace05(text_of(path), path, heads_only) for path in paths))


def parse_ace05(text: str, where, heads_only: bool = False) -> list[Sentence]:
    """One document a line. Offsets count the words of the document, the last word included."""
    form = "doc_key, sentences, ner [start, end, type] or [… head start, head end], relations [start, end, start, end, type]"
    sentences = []
    for number, line in enumerate(text.rstrip("\n").split("\n"), 1):
        with reading(f"{where}, line {number}", form):
            document, shift = json.loads(line), 0
            rows = zip(document["sentences"], document["ner"], document["relations"], strict=True)
            for index, (words, ner, related) in enumerate(rows):
                entities = [ace05_entity(*entry, shift=shift, heads_only=heads_only) for entry in ner]
                at = {tuple(ner[k][:2]): k for k in reversed(range(len(ner)))}  # of two types, the first
                relations = [{"type": kind, "head": at[a, b], "tail": at[c, d]} for a, b, c, d, kind in related]
                if heads_only:  # two mentions may share their head, and then cannot be related
                    relations = [r for r in relations if entities[r["head"]] != entities[r["tail"]]]
                if words:
                    record = {"tokens": words, "entities": entities, "relations": relations}
                    sentences.append(sentence_of(record, f"{document['doc_key']}:{index}", f"sentence {index}"))
                shift += len(words)
    return sentences


def ace05_entity(start, end, kind, head_start=None, head_end=None, *, shift: int, heads_only: bool) -> dict:
    """An entity, or its head region, of a sentence that begins `shift` words into its document."""
    if heads_only and head_end is None:
        raise DataError(f"--heads-only: the entity at {start} to {end} has no head region")
    first, last = (head_start, head_end) if heads_only else (start, end)
    return {"type": kind, "start": first - shift, "end": last + 1 - shift}


def read_folder(folder: Path) -> Corpus:
    """A corpus of one's own: a folder with train.json, dev.json and test.json in SpERT's form."""
    if not os.path.isdir(folder):
        raise DataError(f"--dataset {str(folder)[:200]}: neither {', '.join(DATASETS)} nor a folder")
    return Corpus(folder.resolve().name, *every(read_json, zip(splits_in(folder, "a corpus is train.json, dev.json and test.json"))))


def read_json(path: Path) -> list[Sentence]:
    """SpERT's JSON, a list of records: `start` and `end` count words, `end` excluded; `head` and `tail` count the entities.
    Names every record that is wrong."""
    return every(lambda k, record: sentence_of(record, f"{path.stem}-{k}", f"{path}, record {k}"), enumerate(records_of(path)))


def records_of(path: Path) -> list:
    """What is in the list that a JSON file holds."""
    text = text_of(path)
    with reading(path, f"JSON, a list of {FORM}"):
        records = json.loads(text)
        if not isinstance(records, list):
            raise DataError(f"it is {shown(records)}")
    return records


def sentence_of(record, id: str, where: str) -> Sentence:
    """A sentence from one record of SpERT's JSON, each entity and relation once."""
    if wrong := faults(record):
        raise DataError("\n".join(f"{where}, {fault}" for fault in wrong))
    entities = [Entity(e["type"], e["start"], e["end"]) for e in record["entities"]]
    relations = [Relation(r["type"], entities[r["head"]], entities[r["tail"]]) for r in record["relations"]]
    once = list(dict.fromkeys(entities)), list(dict.fromkeys(relations))
    repeated = len(entities) + len(relations) - sum(map(len, once))
    return Sentence(str(record.get("orig_id", id)), record["tokens"], *once, repeated=repeated)


def shown(value) -> str:
    """What stands in a file, short enough for a line, in ASCII."""
    return "missing or null" if value is None else textwrap.shorten(ascii(value), 60, placeholder=" …") or "blank"


def is_name(value) -> bool:
    """Whether it is text that is not empty and has no half of a character (a lone surrogate)."""
    return isinstance(value, str) and value != "" and not re.search("[\ud800-\udfff]", value)


def faults(record) -> list[str]:
    """All that is wrong with a record of SpERT's JSON: the field, what stands there, and what would be right."""
    if type(record) is not dict:
        return [f"it is {shown(record)}; it must be {FORM}"]
    parts = {name: record.get(name) for name in ("tokens", "entities", "relations")}
    if wrong := [f"{name}: {shown(part)}; must be a list" for name, part in parts.items() if type(part) is not list]:
        return wrong
    words, entities, relations = parts.values()
    n, m = len(words), len(entities)
    spans = [[e.get(name) for name in ("type", "start", "end")] if type(e) is dict else k for k, e in enumerate(entities)]
    wrong = [] if words else ["tokens: empty; a sentence has a word at least"]
    wrong += [f"tokens[{k}]: {shown(word)}; must be a word" for k, word in enumerate(words) if not is_name(word)]
    for k, e in enumerate(entities):
        found = faults_of(f"entities[{k}]", e, {"start": (0, n - 1), "end": (1, n)}, f"{n} words")
        if not found and e["start"] >= e["end"]:
            found = [f"entities[{k}].end: {e['end']}; must be beyond start, {e['start']}, since end is excluded"]
        wrong += found
    for k, r in enumerate(relations):
        found = faults_of(f"relations[{k}]", r, dict.fromkeys(("head", "tail"), (0, m - 1)), f"{m} entities")
        if not found and spans[r["head"]] == spans[r["tail"]]:
            found = [f"relations[{k}]: joins an entity with itself; it must join two"]
        wrong += found
    return wrong


def faults_of(where: str, item, ranges: dict[str, tuple[int, int]], what: str) -> list[str]:
    """What is wrong with an entity or a relation of a record: its type, and numbers beyond their ranges."""
    if type(item) is not dict:
        return [f'{where}: {shown(item)}; must be {{"type", {", ".join(map(json.dumps, ranges))}}}']
    wrong = [] if is_name(item.get("type")) else [f"{where}.type: {shown(item.get('type'))}; must be a name"]
    for name, (low, high) in ranges.items():
        if type(item.get(name)) is not int or not low <= item[name] <= high:
            must = f"must be an integer from {low} to {high}" if low <= high else "can be nothing"
            wrong.append(f"{where}.{name}: {shown(item.get(name))}; {must}, since there are {what}")
    return wrong


def read_texts(given: list[str]) -> list[tuple[Sentence, Sentence | None]]:
    """What is to be predicted: texts, or files of them, a sentence a line or JSON: a list of texts, of lists of words, or of
    records of SpERT's form. Each with its gold, None where a record has neither entities nor relations."""
    return [pair for number, text in enumerate(given, 1) for pair in read_text(text, f"text {number}")]


def read_text(text: str, id: str) -> list[tuple[Sentence, Sentence | None]]:
    """The sentences of one text or file, whose name may be mistyped: what ends like a file's is one."""
    if not os.path.exists(text) and not re.fullmatch(r"\S+\.(txt|json)", text):
        return [given_sentence(text, id, id)]
    path = Path(text)
    if path.suffix.lower() == ".json":
        items = enumerate(records_of(path))
    else:
        items = [(number, line) for number, line in enumerate(text_of(path).splitlines(), 1) if line.strip()]
    return every(lambda k, item: given_sentence(item, f"{path.name}:{k}", f"{path}, {k}"), items)


def given_sentence(record, id: str, where: str) -> tuple[Sentence, Sentence | None]:
    """A sentence and its gold from a text, a list of words, or a record."""
    if isinstance(record, str):
        if record and not is_name(record):
            raise DataError(f"{where}: {shown(record)}; it must be UTF-8")
        return Sentence.from_text(record, id), None
    record = {"tokens": record} if type(record) is list else record
    known = type(record) is not dict or {"entities", "relations"} & set(record)
    sentence = sentence_of(record if known else {**record, "entities": [], "relations": []}, id, where)
    return sentence, sentence if known else None


DATASETS = ("toy", "ade", "conll04", "ace05")


def read_corpus(dataset: str, data_dir: str | Path = "data", fold: int = 0, heads_only: bool = False) -> Corpus:
    """The corpus of that name, or of that folder; fetched into `data_dir` if it is published and not there."""
    data_dir = Path(data_dir)
    if fold and dataset != "ade" or heads_only and dataset != "ace05":
        raise DataError("--fold goes with --dataset ade, --heads-only with --dataset ace05")
    readers = {"toy": toy, "ade": partial(read_ade, data_dir, fold), "conll04": partial(read_conll04, data_dir),
               "ace05": partial(read_ace05, data_dir, heads_only)}  # fmt: skip
    corpus = readers.get(dataset, partial(read_folder, Path(dataset)))()
    for name, sentences in corpus.splits.items():
        if not sentences:
            raise DataError(f"{dataset}: {name} has no sentence")
    return corpus


# -- Wordpieces -----------------------------------------------------------------------------------------------------------


def learn_tokenizer(sentences: list[Sentence], size: int = 8000):
    """An uncased WordPiece tokenizer learned from sentences, for an encoder with random weights: nothing is fetched."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import BertTokenizerFast

    words = [word.lower() for sentence in sentences for word in sentence.words]
    letters = sorted(set("".join(words)))
    first = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    # All letters are named beforehand: left to itself the trainer meets them in an order that differs from run to run.
    trainer = trainers.WordPieceTrainer(vocab_size=size, min_frequency=2, show_progress=False, special_tokens=first)
    learned = Tokenizer(models.WordPiece())
    learned.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    learned.train_from_iterator(words, trainer)
    return BertTokenizerFast(vocab=learned.get_vocab(), do_lower_case=True, strip_accents=False, model_max_length=512)


def locate_encoder(name: str) -> str:
    """The folder of a pretrained encoder: `name` itself, or the hub's copy, fetched once. No network costs seconds, not
    minutes of retries."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    if Path(name).exists():
        if not (Path(name) / "config.json").exists():
            raise DataError(f"--encoder {name}: no config.json there; it must be a folder as `save_pretrained` writes it")
        return name
    try:
        with suppress(LocalEntryNotFoundError):  # not fetched before
            folder = Path(snapshot_download(name, local_files_only=True))
            if list(folder.glob("*.safetensors")) and list(folder.glob("tokenizer*")):
                return str(folder)
        HfApi().model_info(name, timeout=8)
        files = ["config.json", "*.safetensors", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json"]
        return snapshot_download(name, allow_patterns=files)
    except (HFValidationError, RepositoryNotFoundError):
        raise DataError(f"--encoder {name}: no such folder, and no such model on the hub") from None
    except Exception as error:  # whatever the hub's client raises when it cannot reach the hub
        raise DataError(f"--encoder {name} is not here and could not be fetched ({one_line(error)}): give the folder of a copy with "
                        "--encoder FOLDER, or train one of random weights: --encoder tiny, tiny-1, tiny-2 or base") from None


def pretrained_tokenizer(encoder: str):
    """The tokenizer of an encoder, a folder or a name on the hub."""
    from transformers import AutoTokenizer

    folder = locate_encoder(encoder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
    except Exception as error:  # whatever transformers raises on a folder that holds something else
        raise DataError(f"--encoder {encoder}: {one_line(error)}") from None
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise DataError(f"--encoder {encoder}: no vocabulary there; a tokenizer.json or vocab.txt belongs to it")
    return tokenizer


def one_line(error: Exception) -> str:
    """What an exception of a library says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


@dataclass
class Encoded:
    """A sentence in wordpieces; word k is the pieces [starts[k], ends[k]), and piece 0 is [CLS]."""

    sentence: Sentence
    input_ids: list[int]
    is_token: list[bool]  # [CLS] and the words' pieces: B_S, without [SEP] [L4]
    starts: list[int]
    ends: list[int]


def encode(sentences: list[Sentence], tokenizer, longest: int, where: str = "") -> list[Encoded]:
    """Each sentence in wordpieces, by the tokenizer's word ids. A word without any becomes [UNK]; a sentence of more than
    `longest` pieces is an error that names it, and is never cut."""
    coded = tokenizer([s.words for s in sentences], is_split_into_words=True).encodings if sentences else []
    return every(lambda sentence, code: encoded_sentence(sentence, code, tokenizer, longest, where), zip(sentences, coded))


def encoded_sentence(sentence: Sentence, coded, tokenizer, longest: int, where: str) -> Encoded:
    """One of them, from what the tokenizer made of it."""
    if coded.word_ids[0] is not None:
        raise DataError("--encoder: its tokenizer puts nothing before the sentence, and the model needs a [CLS] there")
    present = set(coded.word_ids)
    if len(present) - (None in present) < len(sentence.words):
        words = [word if k in present else tokenizer.unk_token for k, word in enumerate(sentence.words)]
        coded = tokenizer([words], is_split_into_words=True).encodings[0]
    if len(coded.ids) > longest:
        raise DataError(f"{where}{sentence.id}: {len(coded.ids)} wordpieces, and the encoder takes {longest}; split the "
                        f'sentence that begins "{sentence.text[:40]}"')  # fmt: skip
    starts, ends = [0] * len(sentence.words), [0] * len(sentence.words)
    for piece, word in enumerate(coded.word_ids):
        if word is not None:
            starts[word], ends[word] = starts[word] or piece, piece + 1
    is_token = [piece == 0 or word is not None for piece, word in enumerate(coded.word_ids)]
    return Encoded(sentence, coded.ids, is_token, starts, ends)


# -- Spans and negative samples -------------------------------------------------------------------------------------------


def enumerate_spans(n: int, max_width: int) -> list[tuple[int, int]]:
    """All spans [start, end) of n words, up to `max_width` words wide, by start."""
    return [(i, j) for i in range(n) for j in range(i + 1, min(i + max_width, n) + 1)]


@dataclass
class Sampling:
    """How negatives are drawn (§3.4); `epoch` moves on, so that each epoch draws its own [L29]."""

    max_width: int = 10
    rate: int = 30  # negatives for each gold sample, and for one in a sentence without [L13]
    count: int | None = None  # or this many in each sentence, as SpERT
    among: str = "gold"  # negative pairs: among "gold" spans, or among all "sampled" ones [L13]
    seed: int = 0
    epoch: int = 0

    def draw(self, available: list, gold: int, sentence: str, what: str) -> list:
        """As many of `available` as go with so many gold samples, none twice, each equally likely; what comes is a function
        of (seed, epoch, sentence) [L29]."""
        k = self.rate * max(1, gold) if self.count is None else self.count
        return random.Random(f"{self.seed} {self.epoch} {sentence} {what}").sample(available, min(k, len(available)))


@dataclass
class Example:
    """What the model classifies in a sentence: spans of words with their types, pairs of spans with theirs, 0 for none.
    The first `arguments` of the spans are the ones that pairs are made of."""

    encoded: Encoded
    spans: list[tuple[int, int]]
    span_types: list[int]
    pairs: list[tuple[int, int]] = field(default_factory=list)
    pair_types: list[set[int]] = field(default_factory=list)
    arguments: int = 0


def training_example(encoded: Encoded, entity_types: list[str], relation_types: list[str], sampling: Sampling) -> Example:
    """The gold spans and pairs of a sentence with fresh negatives; gold wider than the threshold is no candidate [L18]."""
    sentence, gold, related = encoded.sentence, {}, {}
    for entity in sentence.entities:
        if entity.end - entity.start <= sampling.max_width:  # of two types of a span, the first [L35]
            gold.setdefault((entity.start, entity.end), 1 + entity_types.index(entity.type))
    others = [span for span in enumerate_spans(len(sentence.words), sampling.max_width) if span not in gold]
    spans = list(gold) + sampling.draw(others, len(gold), sentence.id, "spans")
    arguments = len(gold) if sampling.among == "gold" else len(spans)  # [L13]
    at = {span: index for index, span in enumerate(gold)}
    for r in sentence.relations:
        pair = at.get((r.head.start, r.head.end)), at.get((r.tail.start, r.tail.end))
        if None not in pair and pair[0] != pair[1]:
            related.setdefault(pair, set()).add(1 + relation_types.index(r.type))
    others = [(a, b) for a in range(arguments) for b in range(arguments) if a != b and (a, b) not in related]
    negative = sampling.draw(others, len(related), sentence.id, "pairs")
    return Example(encoded, spans, list(gold.values()) + [0] * (len(spans) - len(gold)), list(related) + negative,
                   list(related.values()) + [{0}] * len(negative), arguments)  # fmt: skip


def prediction_example(encoded: Encoded, max_width: int) -> Example:
    """All spans of a sentence."""
    spans = enumerate_spans(len(encoded.sentence.words), max_width)
    return Example(encoded, spans, [0] * len(spans))


# -- Batches --------------------------------------------------------------------------------------------------------------


@dataclass
class Batch:
    """Examples as tensors, padded. What stands in padding is harmless: its masks say that it is not there."""

    examples: list[Example]
    input_ids: Tensor  # B N
    attention_mask: Tensor  # B N, [SEP] included
    is_token: Tensor  # B N, [CLS] and wordpieces
    spans: Tensor  # B S 2, [start, end) in wordpieces
    widths: Tensor  # B S, in words [L18]
    is_span: Tensor  # B S
    t_s: Tensor  # B S, true types
    pairs: Tensor  # B P 2, indexes of spans
    is_pair: Tensor  # B P
    t_r: Tensor  # B P C, 1 at true types
    arguments: int  # pairs index into the first so many spans

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The wordpieces and spans, in the order in which the model takes them."""
        return self.input_ids, self.attention_mask, self.is_token, self.spans, self.widths

    def to(self, device) -> "Batch":
        """The batch on another device; to a GPU from pinned memory, so that nothing waits for the copy."""
        pinned = torch.device(device).type == "cuda"
        move = lambda t: t.pin_memory().to(device, non_blocking=True) if pinned else t.to(device)
        return Batch(**{f.name: move(value) if isinstance(value := getattr(self, f.name), Tensor) else value for f in fields(self)})


def pad(rows: list[list], filler) -> Tensor:
    """Rows of different lengths as one tensor."""
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])


def there(rows: list[list]) -> Tensor:
    """Which places of the padded rows hold something."""
    counts = torch.tensor([len(row) for row in rows])
    return torch.arange(int(counts.max())) < counts[:, None]


def make_batch(examples: list[Example], C: int, pad_id: int = 0) -> Batch:
    """The tensors of some examples; spans of words become spans of wordpieces here [L25]."""
    coded = [example.encoded for example in examples]
    words = pad([e.spans for e in examples], (0, 1))
    first, last = pad([c.starts for c in coded], 0), pad([c.ends for c in coded], 0)
    pairs = pad([e.pairs for e in examples], (0, 0)).view(len(examples), -1, 2).long()
    t_r = torch.zeros(*pairs.shape[:2], C)
    for b, example in enumerate(examples):
        for p, kinds in enumerate(example.pair_types):
            t_r[b, p, list(kinds)] = 1.0
    return Batch(
        examples,
        input_ids=pad([c.input_ids for c in coded], pad_id),
        attention_mask=there([c.input_ids for c in coded]).long(),
        is_token=pad([c.is_token for c in coded], False),
        spans=torch.stack([first.gather(1, words[..., 0]), last.gather(1, words[..., 1] - 1)], -1),
        widths=words[..., 1] - words[..., 0],
        is_span=there([e.spans for e in examples]),
        t_s=pad([e.span_types for e in examples], 0),
        pairs=pairs,
        is_pair=there([e.pairs for e in examples]),
        t_r=t_r,
        arguments=max(e.arguments for e in examples),
    )


def sorted_within(pool: int, encoded: list[Encoded], key) -> list[Encoded]:
    """The sentences in the order given, but each `pool` of them sorted."""
    return [e for k in range(0, len(encoded), pool) for e in sorted(encoded[k : k + pool], key=key)]


def batches_of(encoded: list[Encoded], size: int, rng: random.Random | None = None) -> list[list[Encoded]]:
    """Batches in which little is padding. With `rng`, for training: in random order, of similar length within shuffled pools.
    Else, for prediction: the longest first, so that memory is taken once, and four batches at a time by words, as spans are
    of words."""
    if rng:
        order = list(encoded)
        rng.shuffle(order)
        order = sorted_within(32 * size, order, lambda e: len(e.input_ids))
    else:
        order = sorted(encoded, key=lambda e: -len(e.input_ids))
        order = sorted_within(4 * size, order, lambda e: -len(e.sentence.words))
    batches = [order[k : k + size] for k in range(0, len(order), size)]
    if rng:
        rng.shuffle(batches)
    return batches


# -- Showing sentences ----------------------------------------------------------------------------------------------------

# What a mark means, its colour in a terminal and on a page, and its dashes there.
MARKS = {"=": ("right, solid", 32, "#222", ""), "+": ("wrong, dashed", 31, "#c03a00", "5 3"), "-": ("missed, dotted", 33, "#0060a8", "1 3"),
         " ": ("", 0, "#222", "")}  # fmt: skip


def marked(items: list, gold: list | None) -> list[tuple]:
    """The items with their marks, then those that only gold has: = right, + wrong, - missed, blank where gold is not known."""
    found = [(" " if gold is None else "=" if item in gold else "+", item) for item in items]
    return found + [("-", item) for item in gold or [] if item not in items]


def show(sentence: Sentence, gold: Sentence | None = None, colour: bool = False) -> str:
    """A sentence's entities and relations, one a line, with characters and scores, marked where gold is known."""
    lines = [f"\n{sentence.text}"]
    for items, right in (sentence.entities, gold and gold.entities), (sentence.relations, gold and gold.relations):
        for mark, item in marked(items, right):
            line = f"  {mark} {told(sentence, item)}"
            lines.append(f"\033[{MARKS[mark][1]}m{line}\033[0m" if colour else line)
    return "\n".join(lines)


def told(sentence: Sentence, item: Entity | Relation) -> str:
    """Type, score and place of an entity or a relation."""
    score = "" if item.score is None else f"{item.score:.2f}"
    both = [item.head, item.tail] if isinstance(item, Relation) else [item]
    spans = [(sentence.text[a:b], a, b) for a, b in map(sentence.chars, both)]
    return f"{item.type:16} {score:5} " + " -> ".join(f'"{text}" [{a}, {b})' for text, a, b in spans)


CELL, WIDE = 8, 800  # pixels: a character of a word, a row of words
HUES = ("#f2c744", "#7cc7f0", "#8fd3a8", "#f0a68c", "#c9b6ec", "#d9d36a", "#b8c4cc", "#e8b4d4")  # colour-blind eyes tell them apart
HUE_OF: dict[str, str] = {}  # of the types, in the order in which they are first shown


def picture(sentence: Sentence, gold: Sentence | None = None) -> str:
    """The sentence as SVG: entities on coloured ground over brackets, relations as arcs to the tail; where gold is known,
    marked by sign and line: = solid, right; + dashed, wrong; - dotted, missed. It wraps, and holds no script."""
    places = layout(sentence)
    rows = [{"words": [], "under": [], "over": []} for _ in range(1 + max((row for row, *_ in places), default=0))]
    for word, (row, x, width) in zip(sentence.words, places):
        rows[row]["words"].append(f'<text x="{x}" textLength="{width}" lengthAdjust="spacingAndGlyphs">{escape(word)}</text>')
    for mark, e in marked(sentence.entities, gold and gold.entities):
        for row in sorted({row for row, *_ in places[e.start : e.end]}):
            inside = [(x, x + width) for at, x, width in places[e.start : e.end] if at == row]
            rows[row]["under"].append((inside[0][0], inside[-1][1], mark, e))
    for mark, r in marked(sentence.relations, gold and gold.relations):
        (row, a, wide), (row_t, b, wide_t) = places[r.head.start], places[r.tail.start]
        a, b = a + wide // 2 + 3, b + wide_t // 2 - 3  # 3: two arcs at an entity stay apart
        ends = [(row, a, b)] if row == row_t else [(row, a, WIDE * (row < row_t)), (row_t, WIDE * (row > row_t), b)]
        for at, x, y in ends:  # an arc between two rows runs to the edge of one and on from that of the other
            rows[at]["over"].append((x, y, mark, r, at == row, at == row_t))
    parts, y = [], 0
    for row in rows:
        drawn, height = picture_row(sentence, **row)
        parts.append(f'<g transform="translate(4 {y})">{drawn}</g>')
        y += height
    return (f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(show(sentence, gold).strip())}" width="{WIDE + 8}" '
            f'viewBox="0 0 {WIDE + 8} {y}" style="max-width:100%;background:#fff;font:13px monospace">{"".join(parts)}</svg>')  # fmt: skip


def layout(sentence: Sentence) -> list[tuple[int, int, int]]:
    """Row, x and width of each word, in a monospaced font, where wide characters take two places and accents none."""
    places, row, x, before = [], 0, 0, 0
    for word, (a, b) in zip(sentence.words, sentence.offsets):
        width = CELL * max(1, sum(0 if combining(c) else 1 + (east_asian_width(c) in "WF") for c in word))
        x += CELL if a > before else 0
        if x and x + width > WIDE:
            row, x = row + 1, 0
        places.append((row, x, min(width, WIDE)))
        x, before = x + width, b
    return places


def lanes(items: list[tuple]) -> list[tuple]:
    """Each (a, b, mark, item, …) with the first lane in which nothing else takes its room, and with its label and the
    label's place there."""
    taken, placed = [], []
    for a, b, mark, item, *rest in items:
        label = f"{mark} {item.type}".strip()
        at = max(0, min(a, b, WIDE - 7 * len(label)))
        room = min(a, b, at) - 3, max(a, b, at + 7 * len(label)) + 3
        lane = next((k for k, others in enumerate(taken) if all(room[1] <= c or d <= room[0] for c, d in others)), len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append(room)
        placed.append((lane, label, at, a, b, mark, item, *rest))
    return placed


def picture_row(sentence: Sentence, words: list, under: list, over: list) -> tuple[str, int]:
    """One row of the picture, and its height: arcs, the short ones lowest; words; brackets."""
    arcs, brackets = lanes(sorted(over, key=lambda arc: abs(arc[1] - arc[0]))), lanes(under)
    base, parts = 22 + 18 * (1 + max((lane for lane, *_ in arcs), default=-1)), []
    for lane, label, at, a, b, mark, entity in brackets:
        y, hue = base + 6 + 18 * lane, HUE_OF.setdefault(entity.type, HUES[len(HUE_OF) % len(HUES)])
        ground = f'<rect x="{a}" y="{base - 13}" width="{b - a}" height="17" fill="{hue}" fill-opacity=".6"/>'
        parts.append(labelled(told(sentence, entity), f"M{a},{y - 3}V{y}H{b}V{y - 3}", mark, label, at, y + 10, ground))
    for lane, label, at, a, b, mark, relation, leaves, arrives in arcs:
        y, low = base - 22 - 18 * lane, base - 14
        path = (f"M{a},{low}V{y}" if leaves else f"M{a},{y}") + f"H{b}" + (f"V{low}m-3,-5l3,5l3,-5" if arrives else "")
        parts.append(labelled(told(sentence, relation), path, mark, label, at + 3, y - 3))
    parts.append(f'<g transform="translate(0 {base})">{"".join(words)}</g>')
    return "".join(parts), base + 14 + 18 * (1 + max((lane for lane, *_ in brackets), default=-1))


def labelled(title: str, path: str, mark: str, label: str, x: int, y: int, ground: str = "") -> str:
    """A line in the manner of its mark, with its label; the title is what a pointer that rests there is told."""
    _, _, colour, dashes = MARKS[mark]
    return (f'<g><title>{escape(title)}</title>{ground}<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5" '
            f'stroke-dasharray="{dashes}"/><text x="{x}" y="{y}" font-size="11" fill="{colour}">{escape(label)}</text></g>')  # fmt: skip


def page(pairs: list[tuple[Sentence, Sentence | None]], title: str) -> str:
    """One self-contained HTML page of sentences, each with its gold or None; plain ASCII, whatever a terminal can print."""
    legend = "; ".join(f"{mark} {name}" for mark, (name, *_) in MARKS.items() if name) if any(gold for _, gold in pairs) else ""
    body = "".join(f"<figure><figcaption>{escape(s.id)}</figcaption>{picture(s, gold)}</figure>\n" for s, gold in pairs)
    style = "body{font:14px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}figure{margin:1.5em 0}figcaption{color:#555}"
    text = (f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{style}</style>\n'
            f"<h1>{escape(title)}</h1><p>{legend}</p>\n{body}</html>")  # fmt: skip
    return text.encode("ascii", "xmlcharrefreplace").decode()


# -- The corpus card ------------------------------------------------------------------------------------------------------


def card(corpus: Corpus, max_width: int = 10, tokenizer=None) -> str:
    """What is in a corpus, and what training cannot reach, as a table in text; with the tokenizer of an encoder, what that
    cannot read, too."""
    parts = [corpus.train, corpus.dev, corpus.test, corpus.train + corpus.dev + corpus.test]
    count = lambda f: [sum(map(f, part)) for part in parts]
    wide = lambda e: e.end - e.start > max_width
    overlap = lambda s: any(a.overlaps(b) for a, b in itertools.combinations(s.entities, 2))
    first = {tuple(s.words): id(s) for s in reversed(parts[-1])}
    rows = [("sentences", count(lambda s: 1)), ("words", count(lambda s: len(s.words)))]
    known = {(type(item), item.type) for s in corpus.train for item in s.entities + s.relations}
    for items in ("entities", "relations"):
        rows.append((items, count(lambda s: len(getattr(s, items)))))
        for kind in sorted({item.type for s in parts[-1] for item in getattr(s, items)}):
            rows.append((f"  {kind}", count(lambda s: sum(item.type == kind for item in getattr(s, items)))))
    rows += [
        ("sentences with overlapping entities", count(overlap)),  # [L15]
        ("sentences without a relation", count(lambda s: not s.relations)),
        ("sentences that stood before", count(lambda s: first[tuple(s.words)] != id(s))),
        ("entities, relations given twice", count(lambda s: s.repeated)),
        ("out of training's reach", []),
        (f"  entities wider than {max_width} words", count(lambda s: sum(map(wide, s.entities)))),
        ("  relations with such an argument", count(lambda s: sum(wide(r.head) or wide(r.tail) for r in s.relations))),
        ("  second types of a span", count(lambda s: len(s.entities) - len({(e.start, e.end) for e in s.entities}))),
        ("  of a type that train lacks", count(lambda s: sum((type(i), i.type) not in known for i in s.entities + s.relations))),
    ]
    if tokenizer:
        longest, unknown = tokenizer.model_max_length, tokenizer.unk_token_id
        coded = {id(e.sentence): e for e in encode(parts[-1], tokenizer, sys.maxsize)}
        words = lambda e: [e.input_ids[a:b] for a, b in zip(e.starts, e.ends)]
        rows.append((f"  sentences of over {longest:,} wordpieces", count(lambda s: len(coded[id(s)].input_ids) > longest)))
        rows.append((f"  words read as {tokenizer.unk_token}", count(lambda s: sum(unknown in ids for ids in words(coded[id(s)])))))
    widths = Counter(e.end - e.start for s in parts[-1] for e in s.entities)
    lines = [f"{corpus.name:40}{'train':>9}{'dev':>9}{'test':>9}{'all':>9}"]
    lines += [f"{name:40}" + "".join(f"{number:9,}" for number in numbers) for name, numbers in rows]
    return "\n".join([*lines, "entities by width in words  " + ", ".join(f"{w}: {widths[w]:,}" for w in sorted(widths))])


def main(arguments: list[str] | None = None) -> int:
    """Prints the card of the corpus that the command line names."""
    parser = argparse.ArgumentParser(description="The corpus card, or all that is wrong with a corpus.", allow_abbrev=False)
    parser.add_argument("--dataset", default="toy", help=f"{', '.join(DATASETS)}, or a folder (default: toy)")
    parser.add_argument("--data-dir", default="data", help="where published corpora are kept (default: data)")
    parser.add_argument("--fold", type=int, default=0, help="ADE's fold, 0 to 9 (default: 0)")
    parser.add_argument("--max-width", type=int, default=10, help="widest span, in words (default: 10)")
    parser.add_argument("--heads-only", action="store_true", help="ACE05: an entity is its head region")
    parser.add_argument("--encoder", help="a name on the hub or a folder: counts what that encoder cannot read, too")
    parser.error = refuse

    def tell():
        given = parser.parse_args(arguments)
        corpus = read_corpus(given.dataset, given.data_dir, given.fold, given.heads_only)
        print(card(corpus, given.max_width, given.encoder and pretrained_tokenizer(given.encoder)))

    return command_line(tell)


def refuse(message: str):
    """What argparse finds wrong, as one line."""
    raise DataError(f"{message}; --help lists the flags")


def command_line(action) -> int:
    """Runs what a command line asks for; the exit status is 0, or 2 after one line on what is wrong; 130 when stopped."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # where it was closed
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has not
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that have no é
    try:
        action()
        sys.stdout.flush()
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:  # with how to go on, where there is something to go on with
        print("stopped", *stopped.args, file=sys.stderr)
        return 130
    except BrokenPipeError:  # nobody reads on, as behind `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"{error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
