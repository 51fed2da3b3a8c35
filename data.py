"""The sentences: corpora, wordpieces, spans, negative samples, batches. It holds no model and does not train.

    python data.py --dataset ade                 the corpus card: what is in there, and what training cannot reach
    python data.py --dataset PATH                the same for a folder with train.json, dev.json and test.json
"""

import argparse
import hashlib
import io
import json
import os
import random
import re
import sys
import urllib.request
import zipfile
from collections import Counter
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

# -- Entities, relations, sentences ---------------------------------------------------------------------------------------


class DataError(ValueError):
    """Something in a user's file, folder or flag is not right; the message says where, and what would be."""


@dataclass(frozen=True)
class Entity:
    """A typed span of words, [start, end). Two are equal if type and span are; `score` and `head` do not count."""

    type: str
    start: int
    end: int
    score: float | None = field(default=None, compare=False)  # the model's posterior, when predicted
    head: tuple[int, int] | None = field(default=None, compare=False)  # ACE05's head region, when given [L22]


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

    def __post_init__(self):
        if not self.offsets:  # a corpus of words, without the text they were cut from
            self.text, position = " ".join(self.words), 0
            for word in self.words:
                self.offsets.append((position, position + len(word)))
                position += len(word) + 1

    @classmethod
    def from_text(cls, text: str, id: str = "text") -> "Sentence":
        """Cuts a text into words: runs of letters and digits, and every other visible character by itself."""
        offsets = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
        return cls(id, [text[a:b] for a, b in offsets], text=text, offsets=offsets)

    def chars(self, entity: Entity) -> tuple[int, int]:
        """Where the entity stands in `text`, [start, end) in characters."""
        return self.offsets[entity.start][0], self.offsets[entity.end - 1][1]

    def to_json(self) -> dict:
        """The sentence in SpERT's JSON."""
        at = {entity: index for index, entity in enumerate(self.entities)}
        return {
            "tokens": self.words,
            "entities": [{"type": e.type, "start": e.start, "end": e.end} for e in self.entities],
            "relations": [{"type": r.type, "head": at[r.head], "tail": at[r.tail]} for r in self.relations],
            "orig_id": self.id,
        }


@dataclass
class Corpus:
    """Three splits, and the types that training can learn, in alphabetical order."""

    name: str
    train: list[Sentence]
    dev: list[Sentence]
    test: list[Sentence]

    @property
    def splits(self) -> dict[str, list[Sentence]]:
        return {"train": self.train, "dev": self.dev, "test": self.test}

    @property
    def entity_types(self) -> list[str]:
        return sorted({entity.type for sentence in self.train for entity in sentence.entities})

    @property
    def relation_types(self) -> list[str]:
        return sorted({relation.type for sentence in self.train for relation in sentence.relations})


# -- toy: an embedded corpus, which looks like ADE and shows the paper's three motives (§1, Figure 1) ---------------------

DRUGS = "aspirin lithium warfarin heparin insulin digoxin morphine codeine quinine phenytoin gemcitabine cisplatin " \
    "tamoxifen clozapine ibuprofen rifampicin vancomycin amiodarone|interferon alfa|gold salts|low dose methotrexate"
EFFECTS = "rash tremor nausea delirium anemia jaundice vertigo seizures deafness gout psoriasis hepatitis " \
    "hyponatremia|pulmonary toxicity|acute renal failure|loss of taste|severe optic nerve atrophy|swelling of the left hand"
SYMPTOMS, FORMS = "itch cough wart acne burn".split(), "gel syrup cream patch spray".split()
CAUSES, SPARES = "induced provoked triggered".split(), "relieved cured eased".split()
FOR, AGAINST = "confirmed proved".split(), "refuted excluded".split()


def toy(seed: int = 2020, sizes=(400, 100, 200)) -> Corpus:
    """Sentences from a seeded grammar; each shows one of these, and names it in `phenomenon`:

    span      the type of a compound hangs on its head noun: a "cough syrup" is a Drug, a "syrup cough" an Adverse-Effect
    local     which effect is a drug's hangs on the verb between them, among other verbs: "A eased X but induced Y"
    sentence  whether a pair is related hangs on a word elsewhere: "X on A : rechallenge confirmed the suspicion"
    """
    rng, made = random.Random(seed), {}
    makers = [toy_span, toy_local, toy_sentence, toy_plain]
    while len(made) < sum(sizes):  # a sentence that was made before is made again, so that none is in two splits
        sentence = makers[len(made) % len(makers)](rng)
        made.setdefault(sentence.text, sentence)
    sentences = list(made.values())
    for number, sentence in enumerate(sentences):
        sentence.id = f"toy-{number}"
    train, dev = sizes[0], sizes[0] + sizes[1]
    return Corpus("toy", sentences[:train], sentences[train:dev], sentences[dev:])


def toy_names(rng: random.Random, names: str, k: int) -> list[str]:
    """k different names; those of several words stand behind the first bar."""
    single, *several = names.split("|")
    return rng.sample(single.split() + several, k)


def toy_sentence_of(phenomenon: str, pattern: str, relations=(), **named) -> Sentence:
    """A sentence from `pattern`, in which {d…} is a Drug, {x…} an Adverse-Effect; `relations` are pairs (x, d)."""
    words, found = [], {}
    for part in re.findall(r"\{\w+\}|[^\s{}]+", pattern):
        name = part[1:-1] if part.startswith("{") else ""
        new = named[name].split() if name else [part]
        if name:
            found[name] = Entity("Drug" if name[0] == "d" else "Adverse-Effect", len(words), len(words) + len(new))
        words += new
    related = [Relation("Adverse-Effect", found[x], found[d]) for x, d in relations]
    return Sentence("", words, list(found.values()), related, phenomenon=phenomenon)


def toy_span(rng: random.Random) -> Sentence:
    symptom, form = rng.choice(SYMPTOMS), rng.choice(FORMS)
    kind = rng.choice("dx")
    compound = f"{symptom} {form}" if kind == "d" else f"{form} {symptom}"
    compound = rng.choice(["{} ", "new {}", "{} grade two", "{} of old"]).format(compound)
    pattern = rng.choice([
        "We report on {%s} in a {adj} {who} .", "A {adj} {who} told us of {%s} .", "{%s} was the topic of this {adj} letter .",
        "In the {adj} {who} , {%s} came first .",
    ]) % kind
    adj, who = rng.choice("young old frail healthy".split()), rng.choice("woman man child nurse".split())
    return toy_sentence_of("span", pattern.replace("{adj}", adj).replace("{who}", who), **{kind: compound})


def toy_local(rng: random.Random) -> Sentence:
    (d, e), (x, y, z) = toy_names(rng, DRUGS, 2), toy_names(rng, EFFECTS, 3)
    causes = [rng.random() < 0.5 for _ in range(3)]
    u, v, w = (rng.choice(CAUSES if cause else SPARES) for cause in causes)
    pattern, pairs = rng.choice([
        (f"{{d}} {u} {{x}} but {v} {{y}} .", ["xd", "yd"]),
        (f"{{d}} {u} {{x}} , whereas {{e}} {v} {{y}} .", ["xd", "ye"]),
        (f"While {{d}} {u} {{x}} , it {v} {{y}} and later {w} {{z}} .", ["xd", "yd", "zd"]),
    ])
    relations = [("x" + x, "d" + d) for (x, d), cause in zip(pairs, causes) if cause]
    pattern = re.sub(r"\{([de])\}", r"{d\1}", re.sub(r"\{([xyz])\}", r"{x\1}", pattern))
    return toy_sentence_of("local", pattern, relations, dd=d, de=e, xx=x, xy=y, xz=z)


def toy_sentence(rng: random.Random) -> Sentence:
    (d,), (x,) = toy_names(rng, DRUGS, 1), toy_names(rng, EFFECTS, 1)
    holds = rng.random() < 0.5
    verdict = rng.choice(FOR if holds else AGAINST)
    pattern = rng.choice([
        f"{{x}} in a patient on {{d}} : rechallenge {verdict} the suspicion .",
        f"A patient on {{d}} had {{x}} , and later tests {verdict} our first idea .",
        f"As later {verdict} by rechallenge , {{x}} came with {{d}} .",
    ])
    return toy_sentence_of("sentence", pattern, [("x", "d")] if holds else [], d=d, x=x)


def toy_plain(rng: random.Random) -> Sentence:
    (d,), (x,) = toy_names(rng, DRUGS, 1), toy_names(rng, EFFECTS, 1)
    pattern, related = rng.choice([
        ("{d} - induced {x} is usually a dramatic condition .", [("x", "d")]),
        ("The patient received {d} for %d days ." % rng.randint(2, 30), []),
        ("There was no history of {x} after %d years ." % rng.randint(2, 30), []),
        ("The {d} level was normal on day %d ." % rng.randint(2, 30), []),
    ])
    made = toy_sentence_of("", pattern, related, d=d, x=x)
    if related and rng.random() < 0.5:  # an overlap: in "lithium - induced tremor", the whole is an effect as well
        drug, effect = made.entities
        made.entities.append(Entity("Adverse-Effect", drug.start, effect.end))
    return made


# -- The published corpora ------------------------------------------------------------------------------------------------

GITHUB = "https://raw.githubusercontent.com"
ADE_AT = f"{GITHUB}/davidsbatista/Annotated-Semantic-Relationships-Datasets/ad883cbbaf4e342326b444347cf7d035012a4f4e/datasets"
CONLL04_AT = f"{GITHUB}/bekou/multihead_joint_entity_relation_extraction/7f40a0f7c1892821591358518c542139e88f693e/data/CoNLL04"
SOURCES = {  # file under the data folder: address, SHA-256
    "ade/ADE-Corpus-V2.zip": (
        f"{ADE_AT}/ADE-Corpus-V2.zip",
        "0f833524307b5ba27e516ffabd182de6b1e1ce1c00be08e8fe0b9656c0935915",
    ),
    "conll04/train.txt": (f"{CONLL04_AT}/train.txt", "0f560fdaa150133fc4843f72e2a8e707e7f74f06a3a3095d4b9921f8d0ce3614"),
    "conll04/dev.txt": (f"{CONLL04_AT}/dev.txt", "99e854fd2a7d19247230c3ed8c304f79022380c9d21b58f25e7ffc5fe3884e2d"),
    "conll04/test.txt": (f"{CONLL04_AT}/test.txt", "d172819deff771c059c9c6688d67c3ff2bdaa25cf71ec56b1f7e8c6705f96700"),
}


def fetch(path: Path, url: str, sha256: str, timeout: float = 10) -> Path:
    """`path`, downloaded from `url` if it is not there; either way its SHA-256 must be the published one."""
    if path.exists():
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != sha256:
            raise DataError(f"{path}: its SHA-256 is {found[:12]}…, the published file's is {sha256[:12]}…; move it away, "
                            "and it is downloaded anew")
        return path
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=timeout) as answer, open(part, "wb") as file:
            total = int(answer.headers.get("Content-Length") or 0) or None
            with tqdm(total=total, unit="B", unit_scale=True, desc=path.name, leave=False) as bar:
                while block := answer.read(1 << 16):
                    bar.update(file.write(block))
        fetch(part, url, sha256)
        os.replace(part, path)
    except DataError:
        raise DataError(f"{url}: what came is not the published file, whose SHA-256 is {sha256}; put that at {path} by hand") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{path} is not there and {url} could not be fetched ({reason}): put the file there by hand, or start "
                        "without it: python train.py") from None
    finally:
        part.unlink(missing_ok=True)
    return path


def lines_of(path: Path) -> list[str]:
    """The lines of a UTF-8 file."""
    return text_of(path).splitlines()


def text_of(path: Path) -> str:
    """The text of a UTF-8 file, or the one line that says why there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


def read_ade(data_dir: Path, fold: int) -> Corpus:
    """ADE, one of ten folds [L17]: test is the fold, dev the next one, train the other eight.

    SpERT's own `ade_split_K_train.json` and `…_test.json` are used instead where they lie in the folder.
    """
    if not 0 <= fold <= 9:
        raise DataError(f"--fold {fold}: ADE has the folds 0 to 9")
    spert = [data_dir / "ade" / f"ade_split_{fold}_{part}.json" for part in ("train", "test")]
    if all(path.exists() for path in spert):
        train, test = map(read_json, spert)
        held_out = set(random.Random(0).sample(range(len(train)), len(train) // 9))
        dev = [sentence for index, sentence in enumerate(train) if index in held_out]
        return Corpus("ade", [s for index, s in enumerate(train) if index not in held_out], dev, test)
    path = fetch(data_dir / "ade/ADE-Corpus-V2.zip", *SOURCES["ade/ADE-Corpus-V2.zip"])
    text = zipfile.ZipFile(path).read("ADE-Corpus-V2/DRUG-AE.rel").decode("utf-8")
    sentences = parse_ade(text.splitlines(), f"{path}:DRUG-AE.rel")
    random.Random(2012).shuffle(sentences)
    folds = [sentences[k::10] for k in range(10)]
    dev = (fold + 1) % 10
    train = [sentence for k in range(10) if k not in (fold, dev) for sentence in folds[k]]
    return Corpus("ade", train, folds[dev], folds[fold])


def parse_ade(lines: list[str], where: str) -> list[Sentence]:
    """The sentences of DRUG-AE.rel: one row a relation, id|sentence|effect|begin|end|drug|begin|end."""
    rows: dict[tuple[str, str], list] = {}
    for number, line in enumerate(lines, 1):
        parts = line.split("|")
        if len(parts) != 8 or not all(parts[k].isdigit() for k in (3, 4, 6, 7)):
            raise DataError(f"{where}, row {number}: not id|sentence|effect|begin|end|drug|begin|end")
        effect, drug = (trimmed(name, int(begin), int(end)) for name, begin, end in (parts[2:5], parts[5:8]))
        rows.setdefault((parts[0], parts[1]), []).append((number, effect, drug))
    return [ade_sentence(id, text, group, where) for (id, text), group in rows.items()]


def trimmed(mention: str, begin: int, end: int) -> tuple[str, int, int]:
    """A mention without the blanks around it, which some have."""
    return mention.strip(), begin + len(mention) - len(mention.lstrip()), end - len(mention) + len(mention.rstrip())


def ade_sentence(id: str, text: str, group: list, where: str) -> Sentence:
    """One sentence of ADE. Its mentions have document offsets: the sentence's own is the one with which all fit its text."""
    number, mentions = group[0][0], {mention for _, *pair in group for mention in pair}
    origins = set.intersection(*({begin - found.start() for found in re.finditer(f"(?={re.escape(mention)})", text)}
                                 for mention, begin, _ in mentions))
    if len(origins) != 1:
        raise DataError(f"{where}, row {number}: its mentions fit the sentence at {len(origins)} offsets, not at one")
    origin, sentence = origins.pop(), Sentence.from_text(text)
    sentence.id = f"{id}:{origin}"
    start = {a: index for index, (a, _) in enumerate(sentence.offsets)}
    end = {b: index + 1 for index, (_, b) in enumerate(sentence.offsets)}
    found = {}
    for row, *pair in group:
        for kind, (_, a, b) in zip(("Adverse-Effect", "Drug"), pair):
            if a - origin not in start or b - origin not in end:
                raise DataError(f"{where}, row {row}: characters {a} to {b} do not begin and end at words")
            found.setdefault((kind, a, b), Entity(kind, start[a - origin], end[b - origin]))
    sentence.entities = list(found.values())
    relations = [Relation("Adverse-Effect", found["Adverse-Effect", *e[1:]], found["Drug", *d[1:]]) for _, e, d in group]
    sentence.relations = list(dict.fromkeys(relations))
    return sentence


def read_conll04(data_dir: Path) -> Corpus:
    """CoNLL04 in Bekoulis's split, which is the paper's [L16]."""
    paths = [fetch(data_dir / name, *SOURCES[name]) for name in SOURCES if name.startswith("conll04/")]
    return Corpus("conll04", *(parse_conll04(lines_of(path), path) for path in paths))


def parse_conll04(lines: list[str], where) -> list[Sentence]:
    """Documents `#doc id`, a word a line: index, word, BIO tag, relation types, and for each its tail's last word."""
    documents: list[tuple[str, list]] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#doc"):
            documents.append((line.split(maxsplit=1)[1], []))
            continue
        parts = line.split("\t")
        if len(parts) != 5 or not documents or not re.fullmatch(r"O|[BI]-\S+", parts[2]):
            raise DataError(f"{where}, line {number}: not a word line (index, word, BIO tag, relations, heads, tabs between)")
        names, heads = re.findall(r"'([^']+)'", parts[3]), [int(head) for head in re.findall(r"\d+", parts[4])]
        documents[-1][1].append((number, parts[1], parts[2], [pair for pair in zip(names, heads) if pair[0] != "N"]))
    return [conll04_sentence(id, rows, where) for id, rows in documents]


def conll04_sentence(id: str, rows: list, where) -> Sentence:
    """One document, as one sentence. Relations stand at their head's last word and name their tail's last word."""
    entities: list[Entity] = []
    for index, (_, _, tag, _) in enumerate(rows):
        goes_on = tag[0] == "I" and entities and (entities[-1].end, entities[-1].type) == (index, tag[2:])
        if goes_on:
            entities[-1] = Entity(tag[2:], entities[-1].start, index + 1)
        elif tag != "O":
            entities.append(Entity(tag[2:], index, index + 1))  # an I- after O opens an entity, too [L24]
    last = {entity.end - 1: entity for entity in entities}
    relations = []
    for index, (number, _, _, pairs) in enumerate(rows):
        for name, tail in pairs:
            if index not in last or tail not in last or tail == index:
                raise DataError(f"{where}, line {number}: {name} must join the last words of two entities, not {index} and {tail}")
            relations.append(Relation(name, last[index], last[tail]))
    return Sentence(id, [row[1] for row in rows], entities, relations)


def read_ace05(data_dir: Path, heads: bool = False) -> Corpus:
    """ACE05 as DyGIE++'s preprocessing writes it. With `heads`, an entity is its head region [L22]."""
    paths = [data_dir / "ace05" / f"{split}.json" for split in ("train", "dev", "test")]
    if missing := [str(path) for path in paths if not path.exists()]:
        raise DataError(f"{', '.join(missing)} not there: ACE05 is licensed (LDC2006T06); put there what DyGIE++'s preprocessing "
                        "writes, or start without it: python train.py")
    return Corpus("ace05", *(parse_ace05(lines_of(path), path, heads) for path in paths))


def parse_ace05(lines: list[str], where, heads: bool = False) -> list[Sentence]:
    """One document a line: `doc_key`, `sentences`, `ner` [start, end, type (, head start, head end)], `relations`
    [start, end, start, end, type]; word offsets count over the document and include the last word."""
    sentences = []
    for number, line in enumerate(lines, 1):
        try:
            document, shift = json.loads(line), 0
            for index, words in enumerate(document["sentences"]):
                found = {}
                for start, end, kind, *head in document["ner"][index]:
                    region = (head[0] - shift, head[1] + 1 - shift) if len(head) == 2 else None
                    first, last = region if heads and region else (start - shift, end + 1 - shift)
                    found[start, end] = check_entity(Entity(kind, first, last, head=region), words)
                relations = [Relation(kind, found[a, b], found[c, d]) for a, b, c, d, kind in document["relations"][index]]
                sentences.append(Sentence(f"{document['doc_key']}:{index}", words, list(dict.fromkeys(found.values())), relations))
                shift += len(words)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise DataError(f"{where}, line {number}: {type(error).__name__}: {error}; not DyGIE++'s form "
                            "(doc_key, sentences, ner, relations; offsets inclusive, over the document)") from None
    return sentences


def read_folder(folder: Path) -> Corpus:
    """A user's corpus: a folder with train.json, dev.json and test.json in SpERT's form."""
    if not folder.is_dir():
        raise DataError(f"--dataset {folder}: neither {', '.join(DATASETS)} nor a folder")
    if missing := [name for name in ("train", "dev", "test") if not (folder / f"{name}.json").exists()]:
        raise DataError(f"{folder}: {missing[0]}.json is not there; a corpus is train.json, dev.json and test.json")
    return Corpus(folder.name, *(read_json(folder / f"{name}.json") for name in ("train", "dev", "test")))


def read_json(path: Path) -> list[Sentence]:
    """SpERT's JSON: a list of {"tokens", "entities": [{"type", "start", "end"}], "relations": [{"type", "head", "tail"}]};
    `start` and `end` count words, `end` excluded; `head` and `tail` count the entities. All wrong records are named."""
    try:
        records = json.loads(text_of(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if not isinstance(records, list):
        raise DataError(f"{path}: must be a list of sentences")
    sentences, wrong = [], []
    for index, record in enumerate(records):
        try:
            sentences.append(sentence_of(record, f"{path.stem}-{index}"))
        except (DataError, KeyError, TypeError, AttributeError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            wrong.append(f"{path}, record {index}: {what}")
    if wrong:
        raise DataError("\n".join(wrong))
    return sentences


def sentence_of(record: dict, id: str) -> Sentence:
    """A sentence from one record of SpERT's JSON, checked."""
    words = record["tokens"]
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word for word in words):
        raise DataError("tokens must be a list of words, at least one, none empty")
    entities = [check_entity(Entity(e["type"], e["start"], e["end"]), words) for e in record["entities"]]
    relations = []
    for number, relation in enumerate(record["relations"]):
        head, tail = relation["head"], relation["tail"]
        if not all(type(k) is int and 0 <= k < len(entities) for k in (head, tail)) or entities[head] == entities[tail]:
            raise DataError(f"relation {number}: head {head} and tail {tail} must be two of its {len(entities)} entities, from 0")
        if not isinstance(relation["type"], str) or not relation["type"]:
            raise DataError(f"relation {number}: type must be a name")
        relations.append(Relation(relation["type"], entities[head], entities[tail]))
    return Sentence(str(record.get("orig_id", id)), words, list(dict.fromkeys(entities)), list(dict.fromkeys(relations)))


def check_entity(entity: Entity, words: list[str]) -> Entity:
    """The entity, if its type is a name and its span lies in the sentence."""
    if not isinstance(entity.type, str) or not entity.type:
        raise DataError(f"an entity's type is {entity.type!r}; it must be a name")
    if not (type(entity.start) is type(entity.end) is int and 0 <= entity.start < entity.end <= len(words)):
        raise DataError(f"an entity's span is {entity.start} to {entity.end}; the sentence's words are 0 to {len(words)}, "
                        "the end excluded")
    return entity


DATASETS = ("toy", "ade", "conll04", "ace05")


def read_corpus(dataset: str, data_dir: str | Path = "data", fold: int = 0, heads: bool = False) -> Corpus:
    """The corpus of that name, or of that folder; fetched into `data_dir` if it is published and not there."""
    readers = {"toy": toy, "ade": partial(read_ade, Path(data_dir), fold), "conll04": partial(read_conll04, Path(data_dir)),
               "ace05": partial(read_ace05, Path(data_dir), heads)}
    corpus = readers.get(dataset, partial(read_folder, Path(dataset)))()
    for name, sentences in corpus.splits.items():
        if not sentences:
            raise DataError(f"{dataset}: {name} has no sentence")
    return corpus


# -- Wordpieces -----------------------------------------------------------------------------------------------------------


def learn_tokenizer(sentences: list[Sentence], size: int = 8000):
    """A WordPiece tokenizer learned from sentences, for an encoder with random weights: nothing is fetched."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import BertTokenizerFast

    letters = sorted({letter for sentence in sentences for word in sentence.words for letter in word})
    first = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    # All letters are named beforehand: left to itself the trainer meets them in an order that differs from run to run.
    trainer = trainers.WordPieceTrainer(vocab_size=size, min_frequency=2, show_progress=False, special_tokens=first)
    learned = Tokenizer(models.WordPiece())
    learned.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    learned.train_from_iterator((word for sentence in sentences for word in sentence.words), trainer)
    return BertTokenizerFast(vocab=learned.get_vocab(), do_lower_case=False, strip_accents=False, model_max_length=512)


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
    encoded = []
    for sentence, coded in zip(sentences, tokenizer([s.words for s in sentences], is_split_into_words=True).encodings):
        present = set(coded.word_ids)
        if len(present) - (None in present) < len(sentence.words):
            words = [word if k in present else tokenizer.unk_token for k, word in enumerate(sentence.words)]
            coded = tokenizer([words], is_split_into_words=True).encodings[0]
        if len(coded.ids) > longest:
            raise DataError(f"{where}{sentence.id}: {len(coded.ids)} wordpieces, and the encoder takes {longest}; split the "
                            f'sentence that begins "{sentence.text[:40]}"')
        starts, ends = [0] * len(sentence.words), [0] * len(sentence.words)
        for piece, word in enumerate(coded.word_ids):
            if word is not None:
                starts[word], ends[word] = starts[word] or piece, piece + 1
        is_token = [piece == 0 or word is not None for piece, word in enumerate(coded.word_ids)]
        encoded.append(Encoded(sentence, coded.ids, is_token, starts, ends))
    return encoded


# -- Spans and negative samples -------------------------------------------------------------------------------------------


def enumerate_spans(n: int, max_width: int) -> list[tuple[int, int]]:
    """All spans [start, end) of n words, up to `max_width` words wide, by start."""
    return [(i, j) for i in range(n) for j in range(i + 1, min(i + max_width, n) + 1)]


def draw(available: list, k: int, seed: int, epoch: int, sentence: str, what: str) -> list:
    """min(k, all) of `available`, none twice, each equally likely; a function of (seed, epoch, sentence) [L29]."""
    return random.Random(f"{seed} {epoch} {sentence} {what}").sample(available, min(k, len(available)))


@dataclass
class Sampling:
    """How negatives are drawn (§3.4); `epoch` moves on, so that each epoch draws its own [L29]."""

    max_width: int = 10
    rate: int = 30  # negatives for each gold sample, and for one in a sentence without [L13]
    count: int | None = None  # or this many in each sentence, as SpERT
    among: str = "gold"  # negative pairs: among "gold" spans, or among all "sampled" ones [L13]
    seed: int = 0
    epoch: int = 0

    def negatives(self, gold: int) -> int:
        """How many negatives go with so many gold samples."""
        return self.rate * max(1, gold) if self.count is None else self.count


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


def training_example(encoded: Encoded, types: dict[str, int], sampling: Sampling) -> Example:
    """The gold spans and pairs of a sentence with fresh negatives; gold wider than the threshold is no candidate [L18]."""
    sentence, key = encoded.sentence, (sampling.seed, sampling.epoch, encoded.sentence.id)
    gold = {}
    for entity in sentence.entities:
        if entity.end - entity.start <= sampling.max_width:
            gold.setdefault((entity.start, entity.end), types[entity.type])  # of two types for a span, the first
    others = [span for span in enumerate_spans(len(sentence.words), sampling.max_width) if span not in gold]
    spans = list(gold) + draw(others, sampling.negatives(len(gold)), *key, "spans")
    arguments = len(gold) if sampling.among == "gold" else len(spans)
    at, related = {span: index for index, span in enumerate(gold)}, {}
    for r in sentence.relations:
        pair = at.get((r.head.start, r.head.end)), at.get((r.tail.start, r.tail.end))
        if None not in pair and pair[0] != pair[1]:
            related.setdefault(pair, set()).add(types[r.type])
    others = [(a, b) for a in range(arguments) for b in range(arguments) if a != b and (a, b) not in related]
    negative = draw(others, sampling.negatives(len(related)), *key, "pairs")
    return Example(encoded, spans, list(gold.values()) + [0] * (len(spans) - len(gold)), list(related) + negative,
                   list(related.values()) + [{0}] * len(negative), arguments)


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

    def to(self, device) -> "Batch":
        """The batch on another device."""
        moved = {f.name: value.to(device) if isinstance(value := getattr(self, f.name), Tensor) else value for f in fields(self)}
        return Batch(**moved)


def pad(rows: list[list], filler) -> Tensor:
    """Rows of different lengths as one tensor."""
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])


def make_batch(examples: list[Example], C: int, pad_id: int = 0) -> Batch:
    """The tensors of some examples; spans of words become spans of wordpieces here [L25]."""
    coded = [example.encoded for example in examples]
    pieces = [[(e.encoded.starts[i], e.encoded.ends[j - 1]) for i, j in e.spans] for e in examples]
    pairs = pad([e.pairs for e in examples], (0, 0)).view(len(examples), -1, 2).long()
    t_r = torch.zeros(*pairs.shape[:2], C)
    for b, example in enumerate(examples):
        for p, kinds in enumerate(example.pair_types):
            t_r[b, p, list(kinds)] = 1.0
    return Batch(
        examples,
        input_ids=pad([c.input_ids for c in coded], pad_id),
        attention_mask=pad([[1] * len(c.input_ids) for c in coded], 0),
        is_token=pad([c.is_token for c in coded], False),
        spans=pad(pieces, (0, 1)),
        widths=pad([[j - i for i, j in e.spans] for e in examples], 1),
        is_span=pad([[True] * len(e.spans) for e in examples], False),
        t_s=pad([e.span_types for e in examples], 0),
        pairs=pairs,
        is_pair=pad([[True] * len(e.pairs) for e in examples], False).bool(),
        t_r=t_r,
        arguments=max(e.arguments for e in examples),
    )


def batches_of(encoded: list[Encoded], size: int, rng: random.Random | None = None) -> list[list[Encoded]]:
    """Batches of similar length, so that little is padding: sorted, or, with `rng`, sorted within shuffled pools."""
    order = list(encoded)
    pool = len(order)
    if rng:
        rng.shuffle(order)
        pool = 32 * size
    pools = [sorted(order[k : k + pool], key=lambda c: len(c.input_ids)) for k in range(0, len(order), max(1, pool))]
    batches = [part[k : k + size] for part in pools for k in range(0, len(part), size)]
    if rng:
        rng.shuffle(batches)
    return batches


# -- The corpus card ------------------------------------------------------------------------------------------------------


def overlaps(a: Entity, b: Entity) -> bool:
    """Whether two entities share a word."""
    return a.start < b.end and b.start < a.end


def card(corpus: Corpus, max_width: int = 10) -> str:
    """What is in a corpus, and what training cannot reach, as a table in text."""
    splits = {**corpus.splits, "all": [s for part in corpus.splits.values() for s in part]}
    rows = []

    def row(name, count):
        rows.append((name, *(count(sentences) for sentences in splits.values())))

    row("sentences", len)
    row("words", lambda part: sum(len(s.words) for s in part))
    for title, items in (("entities", lambda s: s.entities), ("relations", lambda s: s.relations)):
        counts = {name: Counter(item.type for s in part for item in items(s)) for name, part in splits.items()}
        row(title, lambda part: sum(len(items(s)) for s in part))
        rows.extend((f"  {kind}", *(counts[name][kind] for name in splits)) for kind in sorted(counts["all"]))
    row("sentences with overlapping entities", lambda part: sum(
        any(overlaps(a, b) for k, a in enumerate(s.entities) for b in s.entities[:k]) for s in part))
    row("sentences without a relation", lambda part: sum(not s.relations for s in part))
    rows.append(("out of training's reach",))
    row(f"  entities wider than {max_width} words", lambda part: sum(e.end - e.start > max_width for s in part for e in s.entities))
    row("  relations with such an argument", lambda part: sum(
        any(e.end - e.start > max_width for e in (r.head, r.tail)) for s in part for r in s.relations))
    row("  second types of one span", lambda part: sum(len(s.entities) - len({(e.start, e.end) for e in s.entities}) for s in part))
    row("  entities or relations of a type that train lacks", lambda part: sum(
        item.type not in known for s in part
        for known, items in ((corpus.entity_types, s.entities), (corpus.relation_types, s.relations)) for item in items))
    widths = Counter(e.end - e.start for s in splits["all"] for e in s.entities)
    lines = [f"{corpus.name:50}" + "".join(f"{name:>9}" for name in splits)]
    lines += [f"{name:50}" + "".join(f"{count:9,}" for count in counts) for name, *counts in rows]
    return "\n".join([*lines, "entities by width in words: " + ", ".join(f"{w}: {widths[w]:,}" for w in sorted(widths))])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The corpus card.", allow_abbrev=False)
    parser.add_argument("--dataset", default="toy", help=f"{', '.join(DATASETS)}, or a folder (default: toy)")
    parser.add_argument("--data-dir", default="data", help="where published corpora are kept (default: data)")
    parser.add_argument("--fold", type=int, default=0, help="ADE's fold, 0 to 9 (default: 0)")
    parser.add_argument("--max-width", type=int, default=10, help="widest span, in words (default: 10)")
    given = parser.parse_args(arguments)
    try:
        print(card(read_corpus(given.dataset, given.data_dir, given.fold), given.max_width))
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
