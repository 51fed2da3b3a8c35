"""The random inputs of the proof: padded batches with spans and pairs, and annotated sentences.

`test_spanrel.py` uses them and hands them on: `from test_spanrel import Case, cases, sentences`."""

import itertools
import math
import random
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from hypothesis import strategies as st
from torch import nn

from baselines.ablations import Ablated
from baselines.readings import READINGS, WithReading
from baselines.spert import SpERT
from data import Encoded, Entity, Relation, Sentence
from spanrel import Config, SpanRel, joint_loss, relation_loss, span_loss

# -- Batches -------------------------------------------------------------------------------------------------

D = 4  # width of the encoder
SHAPE = dict(hidden=6, heads=2, width_dim=3, max_width=6)


@dataclass
class Case:
    """Some sentences as lists, for loops, and as one padded batch, for the functions under test.
    All numbers come from the seed. Those in the padding are random, too."""

    lengths: list[int]  # wordpieces of B_S: with [CLS], without [SEP]
    spans: list[list[tuple[int, int]]]  # in wordpieces
    widths: list[list[int]]  # in words
    pairs: list[list[tuple[int, int]]]  # indexes of spans
    seed: int

    def __post_init__(self):
        self.N = max(self.lengths) + 1  # with [SEP]
        self.S = max(map(len, self.spans))
        self.P = max(map(len, self.pairs))
        self.seeds = itertools.count(self.seed)
        self.generator = torch.Generator().manual_seed(self.seed)
        self.X = self.numbers(self.N, D)
        self.is_token = mask_of([range(n) for n in self.lengths], self.N)
        self.attention_mask = mask_of([range(n + 1) for n in self.lengths]).long()  # [SEP] too
        self.input_ids = torch.zeros_like(self.attention_mask)
        self.padded_spans = padded(self.spans, (0, 1))
        self.padded_widths = padded(self.widths, 1)
        self.padded_pairs = padded(self.pairs, (0, 0))
        self.is_span = mask_of(self.spans)
        self.is_pair = mask_of(self.pairs)
        self.t_s = self.is_span.long()  # each span and each pair is of type 1
        self.t_r = nn.functional.one_hot(self.is_pair.long(), 4).double()
        self.inside = torch.zeros(len(self.lengths), self.S, self.N, dtype=torch.bool)
        for b, s, (start, end) in each(self.spans):
            self.inside[b, s, start:end] = True
        self.between = torch.zeros(len(self.lengths), self.P, self.N, dtype=torch.bool)
        for b, p, spans in joined(self):
            (_, start), (end, _) = sorted(spans)
            self.between[b, p, start:end] = True

    def numbers(self, *shape):
        """Random numbers of shape B × shape, each time others."""
        return torch.randn(len(self.lengths), *shape, generator=self.generator, dtype=torch.float64)

    def sentence(self, b):
        """B_S of one sentence, for the loops."""
        return self.X[b, : self.lengths[b]].tolist()

    def seeded(self, make, *sizes, **config):
        """A module with random weights, each time others: make(*sizes, Config)."""
        torch.manual_seed(next(self.seeds))
        return make(*sizes, Config(**SHAPE | config)).double().eval()

    def model(self, padding=math.nan, model="span", ablate=(), **config):
        """The model that `make_model` makes of a setting, for three types of spans and four of pairs.
        Its encoder gives X, and `padding` for all that is not B_S."""
        torch.manual_seed(self.seed)
        encoder = Reader(self.X.masked_fill(~self.is_token[..., None], padding), self)
        parts = (Config(**SHAPE | config), encoder, 3, 4)
        if model == "spert":
            made = SpERT(*parts)
        elif ablate:
            made = Ablated(*parts, ablate)
        elif parts[0].relation_loss != Config.relation_loss:
            made = WithReading(*parts)
        else:
            made = SpanRel(*parts)
        return made.double().eval()

    @property
    def inputs(self):
        """What the model reads, in the order in which it takes it."""
        return self.input_ids, self.attention_mask, self.is_token, self.padded_spans, self.padded_widths

    def scores(self, model):
        """z_s and z_r of all spans and pairs."""
        arguments = 1 + max(self.padded_pairs.flatten().tolist(), default=-1)
        return model(*self.inputs, self.padded_pairs, arguments)

    def losses(self, model):
        """L, L^s and L^r."""
        config = model.config
        z_s, z_r = self.scores(model)
        L_s = span_loss(z_s, self.t_s, self.is_span)
        L_r = relation_loss(z_r, self.t_r, self.is_pair, READINGS[config.relation_loss])
        return joint_loss(L_s, L_r, config.span_weight, config.relation_weight), L_s, L_r

    def predicted(self, model):
        """For each sentence, its entities and its relations, in the form of `loop_predict`."""
        prediction = model.predict(*self.inputs, self.is_span)
        sentences = []
        for b in range(len(self.lengths)):
            entities, relations = [], []
            for m in prediction.is_entity[b].nonzero().flatten().tolist():
                y_s = prediction.y_s[b, m].tolist()
                kind = y_s.index(max(y_s))
                entities.append((int(prediction.kept[b, m]), kind, y_s[kind]))
            for p, kind in prediction.holds[b].nonzero().tolist():
                relations.append((*prediction.pairs[b, p].tolist(), kind, prediction.y_r[b, p, kind].item()))
            sentences.append((entities, relations))
        return sentences


class Reader(nn.Module):
    """An encoder that gives X for the input of a case, and reads no other."""

    def __init__(self, X, case):
        super().__init__()
        self.config = SimpleNamespace(hidden_size=D)
        self.X, self.case = X, case

    def forward(self, input_ids, attention_mask):
        assert input_ids is self.case.input_ids and attention_mask is self.case.attention_mask
        return SimpleNamespace(last_hidden_state=self.X)


def each(rows):
    """(sentence, place in it, item) of each item."""
    for b, row in enumerate(rows):
        for k, item in enumerate(row):
            yield b, k, item


def joined(case):
    """(sentence, place in it, the two spans) of each pair, the head first."""
    for b, p, (head, tail) in each(case.pairs):
        yield b, p, (case.spans[b][head], case.spans[b][tail])


def padded(rows, filler, longest=None):
    """Rows of different lengths as one tensor."""
    longest = longest or max(map(len, rows))
    full = [list(row) + [filler] * (longest - len(row)) for row in rows]
    return torch.tensor(full, dtype=torch.long).reshape(len(rows), longest, *torch.tensor(filler).shape)


def mask_of(rows, longest=None):
    """Which places of the padded rows are not padding."""
    return padded([[1] * len(row) for row in rows], 0, longest).bool()


@st.composite
def cases(draw):
    """One to three sentences of one to six words of one or two wordpieces, with up to six spans and pairs."""
    longest = draw(st.sampled_from([1, 2, 3, 6, 6, 6, 6, 6]))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = random.Random(seed)  # left to hypothesis, most sentences would have nothing in them
    lengths, spans, widths, pairs = [], [], [], []
    for _ in range(rng.randint(1, min(3, longest))):
        n = rng.choice([longest, rng.randint(1, longest)])
        starts = list(itertools.accumulate(rng.choices([1, 2], k=n), initial=1))  # of words, in wordpieces
        words = list(itertools.combinations(range(n + 1), 2))
        words.sort(key=lambda span: rng.random() * (span[1] - span[0]) ** 0.3)  # rather narrow ones first
        words = words[: rng.randint(0, 6)]
        tuples = list(itertools.permutations(range(len(words)), 2))
        lengths.append(starts[-1])
        spans.append([(starts[i], starts[j]) for i, j in words])
        widths.append([j - i for i, j in words])
        pairs.append(rng.sample(tuples, min(len(tuples), rng.randint(0, 6))))
    return Case(lengths, spans, widths, pairs, seed)


CASE = Case([6, 3], [[(1, 2), (3, 5), (5, 6)], [(1, 3)]], [[1, 2, 1], [1]], [[(0, 1), (2, 0)], []], seed=0)

# -- Sentences -----------------------------------------------------------------------------------------------

TYPES = ["A", "B"], ["R", "S"]  # of entities and of relations


@st.composite
def sentences(draw):
    """A sentence of up to nine words."""
    rng = random.Random(draw(st.integers(0, 2**32 - 1)))
    longest = draw(st.sampled_from([1, 3, 9, 9]))
    words = []
    for _ in range(rng.randint(1, longest)):
        words.append("".join(rng.choices("abcß-é😀", k=rng.randint(1, 4))))
    return Sentence("s", words, *annotated(rng, len(words)))


def annotated(rng, n, entity_types=TYPES[0], relation_types=TYPES[1]):
    """Entities and relations for n words. Entities overlap, nest, touch; some have two types, as do pairs."""
    spans = list(itertools.combinations(range(n + 1), 2))
    spans = rng.sample(spans, min(len(spans), 4))
    entities = [Entity(rng.choice(entity_types), *rng.choice(spans)) for _ in range(rng.randint(0, 6))]
    entities = list(dict.fromkeys(entities))
    pairs = list(itertools.permutations(entities, 2))
    pairs = rng.sample(pairs, min(len(pairs), 3))
    count = rng.randint(0, 5) if pairs else 0
    relations = [Relation(rng.choice(relation_types), *rng.choice(pairs)) for _ in range(count)]
    return entities, list(dict.fromkeys(relations))


def coded(sentence):
    """The sentence with one wordpiece a word."""
    n = len(sentence.words)
    is_token = [True] * (n + 1) + [False]
    return Encoded(sentence, [0] * (n + 2), is_token, list(range(1, n + 1)), list(range(2, n + 2)))
