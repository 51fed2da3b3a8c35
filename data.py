"""The sentences: wordpieces, spans, negative samples, batches. This file has no model and does not train.

    python data.py --dataset ade      the corpus card: what the corpus has, and what training cannot reach
    python data.py --dataset PATH     the same for a folder in a form of docs/corpora.md

`corpora/` reads the corpora. A sentence is made from a record in one place, `sentence_of`."""

import dataclasses
import itertools
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    from support.errors import end_quietly

    end_quietly()

import torch
from torch import Tensor

from corpora import READERS, own
from corpora.card import card, parse_card_flags, types_in
from corpora.records import SPLITS, check_record, is_text, record_of
from corpora.words import cut_words, find_words, rule_of
from support import pictures
from support.encoders import load_encoder, longest_input, silence_transformers
from support.errors import InputError, excerpt, printable, read_each, read_in_turn, run_program

# -- Entities, relations, sentences --------------------------------------------------------------------------


@dataclass(frozen=True)
class Entity:
    """A typed span of words, [start, end). Two are equal if they share type and span, whatever the scores."""

    type: str
    start: int
    end: int
    score: float | None = field(default=None, compare=False)  # the model's posterior, when predicted


@dataclass(frozen=True)
class Relation:
    """A typed, ordered pair of entities [L19]. Two are equal if they share type and entities ("strict")."""

    type: str
    head: Entity
    tail: Entity
    score: float | None = field(default=None, compare=False)


@dataclass
class Sentence:
    """Words with their entities and relations. `offsets` are the words' places in `text`, in characters."""

    id: str
    words: list[str]
    entities: list[Entity] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    text: str = ""
    offsets: list[tuple[int, int]] = field(default_factory=list)
    phenomenon: str = ""  # in the toy corpus: which of the paper's three problems it shows
    repeated: int = field(default=0, compare=False)  # entities and relations given more than once

    def __post_init__(self):
        if not self.offsets:
            self.offsets = find_words(self.words, self.text)
        if len(self.offsets) < len(self.words):  # `text` is not what the words were cut from
            self.text = " ".join(self.words)
            self.offsets = find_words(self.words, self.text)

    @classmethod
    def from_text(cls, text: str, id: str = "text", rule: str = "letters") -> "Sentence":
        """Cuts a text into words by one of the rules of `corpora/words.py` [L36]."""
        offsets = cut_words(text, rule)
        return cls(id, [text[start:end] for start, end in offsets], text=text, offsets=offsets)

    def chars(self, entity: Entity) -> tuple[int, int]:
        """Where the entity stands in `text`, [start, end) in characters."""
        return self.offsets[entity.start][0], self.offsets[entity.end - 1][1]

    to_record = record_of  # the sentence in SpERT's JSON, with its text, the characters and the scores
    _repr_html_ = pictures.image  # how Jupyter shows it


def sentence_of(record, id: str, where: str, fewest_words: int = 1) -> Sentence:
    """The sentence of a record in SpERT's JSON, each entity and relation once.
    This is the only way from a record to a sentence. An error names the place of the record, `where`."""
    check_record(record, where, fewest_words)
    entities = [Entity(e["type"], e["start"], e["end"]) for e in record["entities"]]
    relations = [Relation(r["type"], entities[r["head"]], entities[r["tail"]]) for r in record["relations"]]
    kept = list(dict.fromkeys(entities)), list(dict.fromkeys(relations))
    repeated = len(entities) + len(relations) - len(kept[0]) - len(kept[1])
    text = record["text"] if is_text(record.get("text")) else ""
    phenomenon, name = str(record.get("phenomenon") or ""), printable(str(record.get("orig_id") or id), 200)
    return Sentence(name, record["tokens"], *kept, text, phenomenon=phenomenon, repeated=repeated)


# -- Corpora, and texts to predict ---------------------------------------------------------------------------


@dataclass
class Corpus:
    """Sentences to train on, to choose the epoch by, and to score."""

    name: str
    train: list[Sentence]
    dev: list[Sentence]
    test: list[Sentence]

    @property
    def splits(self) -> dict[str, list[Sentence]]:
        """The three by name."""
        return {"train": self.train, "dev": self.dev, "test": self.test}

    @property
    def rule(self) -> str:
        """The name of the rule of `corpora/words.py` that fits the words of train best."""
        return rule_of(self.train)[0]

    def types(self, items: str) -> list[str]:
        """The types of the "entities" or "relations" in train."""
        return sorted(types_in(self.train, items))


def read_corpus(dataset: str, data_dir: str | Path = "data", fold: int = 0, split: str = "") -> Corpus:
    """The corpus of this name, fetched if it is missing, or the corpus in a folder, which `split` divides."""
    if fold and dataset != "ade":
        raise InputError("--fold goes with --dataset ade")
    if split and dataset in READERS:
        raise InputError(f"--split goes with a folder of your own: {dataset} has its splits")
    if dataset in READERS:
        return corpus_of(dataset, READERS[dataset](Path(data_dir), fold))
    folder = Path(dataset)
    return corpus_of(folder.resolve().name, own.read(folder, tuple(READERS), split), dataset)


def corpus_of(name: str, records: dict[str, list], where: str = "") -> Corpus:
    """The corpus of some records by split. `where` is their place, for messages."""

    def read_split(split):
        if not records[split]:
            raise InputError(f"{where or name}: {split} has no sentence")
        place = f"{where or name}, {split}"
        numbered = [(r, f"{split}-{k}", f"{place}, record {k}") for k, r in enumerate(records[split])]
        return read_each(sentence_of, numbered)

    return Corpus(name, *read_each(read_split, [(split,) for split in SPLITS]))  # all errors of all splits


def read_inputs(arguments: list[str], rule: str = "letters") -> Iterator[tuple[Sentence, Sentence | None]]:
    """Yields the sentences to predict, from texts and files, each with its gold, or None without one."""
    return read_in_turn(partial(input_sentence, rule=rule), own.read_inputs(arguments))


def input_sentence(item, id: str, where: str, rule: str = "letters") -> tuple[Sentence, Sentence | None]:
    """A sentence, and its gold or None, from a text, a list of words or a record. It may have no words."""
    if isinstance(item, str):
        if item and not is_text(item):
            raise InputError(f"{where}: {excerpt(item)}; it must be UTF-8")
        sentence = Sentence.from_text(item, id, rule)
        check_record(sentence.to_record(), where, fewest_words=0)
        return sentence, None
    record = {"tokens": item} if type(item) is list else item
    has_gold = type(record) is dict and "relations" in record
    if type(record) is dict and "tokens" in record:
        record = {"entities": [], "relations": [], **record}
    sentence = sentence_of(record, id, where, fewest_words=0)
    if record.get("text") not in (None, "", sentence.text):
        raise InputError(f"{where}, text: the tokens are not its words, in order; mend it, or leave it out")
    return sentence, sentence if has_gold else None


# -- Wordpieces ----------------------------------------------------------------------------------------------


@dataclass
class Encoded:
    """A sentence in wordpieces. Word k is the pieces [starts[k], ends[k]), and piece 0 is [CLS]."""

    sentence: Sentence
    input_ids: list[int]
    is_token: list[bool]  # [CLS] and the pieces of the words: B_S, without [SEP] [L4]
    starts: list[int]
    ends: list[int]


def encode(sentences: list[Sentence], tokenizer, longest: int, where: str = "") -> list[Encoded]:
    """Each sentence in wordpieces. A word that has none becomes [UNK].
    A sentence of more than `longest` pieces is never cut: it is an error that names it."""
    if not sentences:
        return []
    words = [s.words[:longest] for s in sentences]  # a longer sentence is refused below
    pieces = tokenizer(words, is_split_into_words=True).encodings
    if pieces[0].word_ids[0] is not None:
        raise InputError("--encoder: its tokenizer puts nothing before the sentence, where [CLS] must stand")
    return read_each(encode_sentence, [(s, p, tokenizer, longest, where) for s, p in zip(sentences, pieces)])


def encode_sentence(sentence: Sentence, pieces, tokenizer, longest: int, where: str) -> Encoded:
    """One sentence, from what the tokenizer made of it."""
    n, with_pieces = len(sentence.words), set(pieces.word_ids) - {None}
    if len(with_pieces) < n <= longest:
        words = [word if k in with_pieces else tokenizer.unk_token for k, word in enumerate(sentence.words)]
        pieces = tokenizer([words], is_split_into_words=True).encodings[0]
    if max(n, len(pieces.ids)) > longest:
        size = f"{n} words" if n > longest else f"{len(pieces.ids)} wordpieces"
        hint = f'split the sentence that begins "{sentence.text[:40]}"'
        raise InputError(f"{where}{sentence.id}: {size}, and the encoder takes {longest} wordpieces; {hint}")
    starts, ends = [0] * n, [0] * n
    for piece, word in enumerate(pieces.word_ids):
        if word is not None:
            starts[word] = starts[word] or piece  # 0 is [CLS], never a word's
            ends[word] = piece + 1
    is_token = [piece == 0 or word is not None for piece, word in enumerate(pieces.word_ids)]
    return Encoded(sentence, pieces.ids, is_token, starts, ends)


# -- Spans and negative samples ------------------------------------------------------------------------------


def enumerate_spans(n: int, max_width: int) -> list[tuple[int, int]]:
    """All spans [start, end) of n words that are at most `max_width` words wide, by start, then by end."""
    spans = []
    for start in range(n):
        spans += [(start, end) for end in range(start + 1, min(start + max_width, n) + 1)]
    return spans


@dataclass
class Sampling:
    """How negatives are drawn (§3.4). Each epoch draws its own [L29]."""

    max_width: int = 10
    rate: int = 30  # negatives for each gold sample; no gold counts as one [L13]
    count: int | None = None  # or this many in each sentence, as in SpERT
    among: str = "gold"  # negative pairs join "gold" spans; with "both", also gold and wrong ones [L13]
    symmetric: tuple[str, ...] = ()  # relation types that hold for both orders of a pair
    seed: int = 0
    epoch: int = 0

    def draw(self, available: list, gold: int, sentence: str, stream: str, drawn: int = 0) -> list:
        """Draws the negatives that go with `gold` gold samples, less those `drawn` before, none twice.
        The draw is a function of (seed, epoch, sentence, stream): a run can be repeated and resumed [L29]."""
        wanted = (self.rate * max(1, gold) if self.count is None else self.count) - drawn
        rng = random.Random(f"{self.seed} {self.epoch} {sentence} {stream}")
        return rng.sample(available, min(wanted, len(available)))


@dataclass
class Example:
    """What the model classifies in a sentence: spans of words and pairs of spans, with their types (0: none).
    Pairs hold indexes of spans, and only the first `arguments` spans occur in pairs."""

    encoded: Encoded
    spans: list[tuple[int, int]]
    span_types: list[int]
    pairs: list[tuple[int, int]] = field(default_factory=list)
    pair_types: list[set[int]] = field(default_factory=list)
    arguments: int = 0


def training_example(encoded: Encoded, entity_types, relation_types, sampling: Sampling) -> Example:
    """The gold spans and pairs of a sentence with fresh negatives.
    Gold wider than the threshold is no candidate [L18]. Of two types of a span, the first counts [L35]."""
    sentence = encoded.sentence
    type_of_span: dict[tuple[int, int], int] = {}
    for entity in sentence.entities:
        if entity.end - entity.start <= sampling.max_width:
            type_of_span.setdefault((entity.start, entity.end), 1 + entity_types.index(entity.type))
    gold = list(type_of_span)
    candidates = enumerate_spans(len(sentence.words), sampling.max_width)
    others = [span for span in candidates if span not in type_of_span]
    spans = gold + sampling.draw(others, len(gold), sentence.id, "spans")
    span_types = list(type_of_span.values()) + [0] * (len(spans) - len(gold))

    index_of_span = {span: index for index, span in enumerate(gold)}
    types_of_pair: dict[tuple[int, int], set[int]] = {}
    for relation in sentence.relations:
        head = index_of_span.get((relation.head.start, relation.head.end))
        tail = index_of_span.get((relation.tail.start, relation.tail.end))
        if head is not None and tail is not None and head != tail:
            orders = [(head, tail), (tail, head)][: 2 if relation.type in sampling.symmetric else 1]
            for pair in orders:
                types_of_pair.setdefault(pair, set()).add(1 + relation_types.index(relation.type))
    right, arguments = range(len(gold)), len(gold)
    others = [pair for pair in itertools.permutations(right, 2) if pair not in types_of_pair]
    negatives = sampling.draw(others, len(types_of_pair), sentence.id, "pairs")
    if sampling.among == "both":  # pairs with one wrong argument, as many as are missing [L13]
        wrong, arguments = range(len(gold), len(spans)), len(spans)
        others = [*itertools.product(right, wrong), *itertools.product(wrong, right)]
        negatives += sampling.draw(others, len(types_of_pair), sentence.id, "wrong", len(negatives))
    pair_types = list(types_of_pair.values()) + [{0}] * len(negatives)
    return Example(encoded, spans, span_types, list(types_of_pair) + negatives, pair_types, arguments)


def prediction_example(encoded: Encoded, max_width: int, given_entities: bool = False) -> Example:
    """All spans of a sentence; with `given_entities`, only the spans of its entities."""
    spans = [(entity.start, entity.end) for entity in encoded.sentence.entities]
    if not given_entities:
        spans = enumerate_spans(len(encoded.sentence.words), max_width)
    widest = max((end - start for start, end in spans), default=0)
    if widest > max_width:
        where = f"{encoded.sentence.id}: an entity of {widest} words"
        raise InputError(f"{where}; the run knows entities of up to {max_width} words (--max-width)")
    return Example(encoded, spans, [0] * len(spans))


def predicted_sentences(
    examples: list[Example], prediction, entity_types, relation_types, given_entities: bool = False
) -> list[Sentence]:
    """The sentences of some examples with the entities and relations of `SpanRel.predict`.
    In each row the entities come first, so that number m of the row is entity m of the sentence."""
    kept, y_s = prediction.kept.cpu(), prediction.y_s.cpu()
    pairs, y_r = prediction.pairs.cpu(), prediction.y_r.cpu()
    sentences = [dataclasses.replace(e.encoded.sentence, entities=[], relations=[]) for e in examples]
    for b, m in prediction.is_entity.nonzero().tolist():
        example, index, kind = examples[b], int(kept[b, m]), int(y_s[b, m].argmax())
        if given_entities:
            entity = example.encoded.sentence.entities[index]
        else:
            entity = Entity(entity_types[kind - 1], *example.spans[index], score=float(y_s[b, m, kind]))
        sentences[b].entities.append(entity)
    for b, p, kind in prediction.holds.nonzero().tolist():
        head, tail = (sentences[b].entities[m] for m in pairs[b, p].tolist())
        sentences[b].relations.append(Relation(relation_types[kind - 1], head, tail, float(y_r[b, p, kind])))
    return sentences


# -- Batches -------------------------------------------------------------------------------------------------


@dataclass
class Batch:
    """Examples as padded tensors. The masks are False at padding, and what stands there changes nothing."""

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
    arguments: int  # only the first `arguments` spans occur in pairs

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The wordpieces and spans, in the order in which the model takes them."""
        return self.input_ids, self.attention_mask, self.is_token, self.spans, self.widths

    def to(self, device) -> "Batch":
        """The batch on another device; to a GPU from pinned memory, so that nothing waits for the copy."""
        is_gpu = torch.device(device).type == "cuda"
        moved = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                moved[name] = value.pin_memory().to(device, non_blocking=True) if is_gpu else value.to(device)
        return dataclasses.replace(self, **moved)


def pad(rows: list[list], filler) -> Tensor:
    """Rows of different lengths as one tensor."""
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])


def mask_of(rows: list[list]) -> Tensor:
    """Which places of the padded rows are not padding."""
    counts = torch.tensor(list(map(len, rows)))
    return torch.arange(int(counts.max())) < counts[:, None]


def make_batch(examples: list[Example], C: int, pad_id: int = 0) -> Batch:
    """The tensors of some examples. Spans of words become spans of wordpieces here [L25]."""
    encoded = [example.encoded for example in examples]
    # `view` keeps the shape if no sentence has a span or a pair. Padding is the first word, (0, 1).
    words = pad([example.spans for example in examples], (0, 1)).view(len(examples), -1, 2).long()
    pairs = pad([example.pairs for example in examples], (0, 0)).view(len(examples), -1, 2).long()
    word_starts, word_ends = pad([e.starts for e in encoded], 0), pad([e.ends for e in encoded], 0)
    starts, ends = word_starts.gather(1, words[..., 0]), word_ends.gather(1, words[..., 1] - 1)
    t_r = torch.zeros(*pairs.shape[:2], C)
    for b, example in enumerate(examples):
        for p, types in enumerate(example.pair_types):
            t_r[b, p, list(types)] = 1.0
    return Batch(
        examples,
        input_ids=pad([e.input_ids for e in encoded], pad_id),
        attention_mask=mask_of([e.input_ids for e in encoded]).long(),
        is_token=pad([e.is_token for e in encoded], False),
        spans=torch.stack([starts, ends], -1),
        widths=words[..., 1] - words[..., 0],
        is_span=mask_of([example.spans for example in examples]),
        t_s=pad([example.span_types for example in examples], 0).long(),
        pairs=pairs,
        is_pair=mask_of([example.pairs for example in examples]),
        t_r=t_r,
        arguments=max(example.arguments for example in examples),
    )


def batches_of(encoded: list[Encoded], size: int, rng: random.Random | None = None) -> list[list[Encoded]]:
    """Divides the sentences into batches of similar length, which need little padding.
    With `rng` (training), only random pools of 32 batches are sorted, and the batches are shuffled [L34].
    Without `rng` (prediction), the longest come first, so that memory is allocated once. Groups of four
    batches are then sorted by number of words, as the number of spans depends on it."""
    if rng:
        order, pool = list(encoded), 32 * size
        rng.shuffle(order)
    else:
        order, pool = sorted(encoded, key=lambda e: -len(e.input_ids)), 4 * size
    batches = []
    for start in range(0, len(order), pool):
        similar = order[start : start + pool]
        similar.sort(key=lambda e: len(e.input_ids) if rng else -len(e.sentence.words))
        batches += [similar[k : k + size] for k in range(0, len(similar), size)]
    if rng:
        rng.shuffle(batches)
    return batches


# -- Command line --------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Prints the card of the corpus that the command line names."""

    def print_card():
        silence_transformers()
        given = parse_card_flags(arguments, tuple(READERS))
        corpus = read_corpus(given.dataset, given.data_dir, given.fold, given.split)
        for sentence in corpus.train[: given.show]:
            print(pictures.show(sentence))
        encoded, tokenizer, longest = None, None, 0
        if given.encoder:
            tokenizer, encoder = load_encoder(given.encoder, [s.words for s in corpus.train])
            encoded = encode(corpus.train + corpus.dev + corpus.test, tokenizer, sys.maxsize)
            longest = longest_input(tokenizer, encoder)
        print(card(corpus, given.max_width, encoded, tokenizer, longest))

    return run_program(print_card)


if __name__ == "__main__":
    sys.exit(main())
