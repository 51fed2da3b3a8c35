"""The proof, in the paper's order.

Each equation is written a second time, with loops over one sentence, one span, one pair, and must agree with spanrel.py within
1e-10 on random ragged batches. Around it stand properties, each a plain sentence. Where one function is under test, it is an
argument: pytest passes ours, and `test_eq_1_agrees_with_the_loop(span_ends=mine)` puts another to the test.

    python -m pytest                                all of it
    python -m pytest -m "not slow"                  without what trains a model
    python -m pytest --hypothesis-profile=deep      with 2,000 random inputs for each property, not 25
"""

import base64
import copy
import dataclasses
import errno
import hashlib
import http.server
import inspect
import itertools
import json
import math
import os
import pickle
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import jaxtyping
import nbclient
import nbformat
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import data
import spanrel
import train
from data import DataError, Entity, Relation, Sentence
from spanrel import ABLATIONS, ATTENTION, EQUATIONS, FFNN, READINGS, SPERT, Config, SpanRel, SpERT

HERE = Path(__file__).parent
REAL = next((path for path in (HERE / "data", HERE.parent / "shared/data") if all((path / name).is_file() for name in data.SOURCES)), None)
needs_corpora = pytest.mark.skipif(REAL is None, reason="put the published corpora in data/: python data.py --dataset ade (conll04)")

# -- The paper a second time: loops over one sentence, one span, one pair, in float64 ------------------------------------------
# A vector is a list of numbers, so that [a ; b] is a + b. x is a sentence, X_0 … X_n; a span is (start, end) in wordpieces, end
# excluded. Of spanrel.py only the weights and the settings are used. (5) and (10) stand before their Softmax, as there.

D = 4  # width of the encoder


def dot(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True))


def softmax(scores):
    powers = [math.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def mean(numbers):
    return sum(numbers) / len(numbers) if numbers else 0.0


def weighted_sum(weights, vectors):
    return [dot(weights, column) for column in zip(*vectors, strict=True)]


def apply(ffnn, x):
    """Linear, or Linear → ReLU → … → Linear; x itself where there is no layer."""
    for k, layer in enumerate(module for module in ffnn.modules() if isinstance(module, nn.Linear)):
        x = [max(0.0, number) for number in x] if k else x
        bias = [0.0] * layer.out_features if layer.bias is None else layer.bias.tolist()
        x = [dot(row, x) + b for row, b in zip(layer.weight.tolist(), bias, strict=True)]
    return x


def loop_scores(attention, query, context):
    """§3.3: for each head, the score of the query with each vector of the context."""
    if isinstance(attention, spanrel.General):
        return [[dot(apply(attention.W, query), key) for key in context]]
    if isinstance(attention, spanrel.Additive):  # [L7]
        mixed = [[p + q for p, q in zip(apply(attention.W_1, query), apply(attention.W_2, key), strict=True)] for key in context]
        return [[apply(attention.v, [math.tanh(number) for number in vector])[0] for vector in mixed]]
    Q, K = apply(attention.ffnn_Q, query), [apply(attention.ffnn_K, key) for key in context]
    if isinstance(attention, spanrel.DotProduct):  # [L9]
        return [[apply(attention.W, [q * k for q, k in zip(Q, key, strict=True)])[0] for key in K]]
    size = len(Q) // attention.heads  # [L8]
    heads = [slice(h * size, (h + 1) * size) for h in range(attention.heads)]
    return [[dot(Q[head], key[head]) / math.sqrt(size) for key in K] for head in heads]


def loop_attention(attention, query, context):
    """§3.3: Attention(query, context, context), zeros over an empty context [L5]."""
    if not context:
        return [0.0] * D
    scores, mixed = loop_scores(attention, query, context), []
    values, size = [apply(attention.value, x) for x in context], D // len(scores)
    for h, score in enumerate(scores):  # each head weighs its own slice of the values [L10]
        mixed += weighted_sum(softmax(score), [value[h * size : (h + 1) * size] for value in values])
    return apply(attention.output, mixed)


def loop_max(vectors):
    """Max pooling, zeros where there is nothing to pool [L5]."""
    return [max(column) for column in zip(*vectors)] if vectors else [0.0] * D


def loop_1(x, span):
    return x[span[0]] + x[span[1] - 1]


def loop_2a(x, k, mlp):
    return apply(mlp, x[k])[0]


def loop_2b(V, span):
    total = sum(math.exp(V[m]) for m in range(*span))
    return [math.exp(V[k]) / total if k in range(*span) else 0.0 for k in range(len(V))]


def loop_2c(alpha, x, span):
    return [sum(alpha[m] * x[m][d] for m in range(*span)) for d in range(D)]


def loop_3(F_s, x, attention):
    return loop_attention(attention, F_s, x)


def loop_4(T_s, F_s, H_s, W):
    return T_s + F_s + H_s + W


def loop_5(R_s, ffnn):
    return apply(ffnn, R_s)


def loop_6(R_1, R_2, ffnn):
    return apply(ffnn, R_1) + apply(ffnn, R_2)


def loop_between(one, other):
    """B_c: the wordpieces between two spans, whichever comes first; none where they touch or overlap."""
    left, right = sorted([one, other])
    return range(left[1], right[0])


def loop_7(H_r, B_c, attention):
    return loop_attention(attention, H_r, B_c)


def loop_8(H_r, x, attention):
    return loop_attention(attention, H_r, x)


def loop_9(H_r, F_r, T_r, ffnn_F, ffnn_T):
    return H_r + apply(ffnn_F, F_r) + apply(ffnn_T, T_r)


def loop_10(R_r, ffnn):
    return apply(ffnn, R_r)


def loop_11(L_s, L_r):
    return 0.4 * L_s + 0.6 * L_r


def loop_span_loss(y_s, t_s):
    """L^s of some samples, each with its scores and its true type."""
    return mean([-math.log(softmax(y)[t]) for y, t in zip(y_s, t_s, strict=True)])


def loop_relation_loss(y_r, t_r, reading):
    """L^r of some samples, each with its scores and, for each type, 1 or 0; in one of three readings [L6]."""
    bce = lambda p, t: -math.log(p) if t else -math.log(1 - p)  # noqa: E731
    losses = []
    for y, t in zip(y_r, t_r, strict=True):
        if reading == "softmax-bce":
            losses.append(mean([bce(p, true) for p, true in zip(softmax(y), t, strict=True)]))
        elif reading == "softmax-ce":
            losses.append(mean([-math.log(p) for p, true in zip(softmax(y), t, strict=True) if true]))
        else:
            losses.append(mean([bce(1 / (1 + math.exp(-score)), true) for score, true in zip(y, t[1:], strict=True)]))
    return mean(losses)


def loop_span(model, x, span, width):
    """R_s of one span: (1)–(4), with the ablations of Table 3; or SpERT's."""
    W, pooled = model.width.weight[width - 1].tolist(), loop_max(x[slice(*span)])  # row j is width j+1 [L1]
    off = model.config.ablate
    if isinstance(model, SpERT) or {"span-specific", "span-sentence"} <= {*off}:
        return x[0] + pooled + W
    F_s = loop_2c(loop_2b([loop_2a(x, k, model.mlp) for k in range(len(x))], span), x, span)
    T_s = x[0] if "span-sentence" in off else loop_3(F_s, x, model.attention_s)  # F_s stays the query [L20]
    return T_s + pooled + W if "span-specific" in off else loop_4(T_s, F_s, loop_1(x, span), W)


def loop_pair(model, x, one, R_1, other, R_2):
    """R_r of one pair: (6)–(9), with the ablations of Table 4; or SpERT's."""
    B_c, off = [x[k] for k in loop_between(one, other)], model.config.ablate
    if isinstance(model, SpERT):
        return loop_max(B_c) + R_1[D:] + R_2[D:]  # each span without [CLS]
    H_r = loop_6(R_1, R_2, model.ffnn_pair)
    F_r = loop_max(B_c) if "local" in off else loop_7(H_r, B_c, model.attention_c)
    if "relation-sentence" in off:
        return H_r + apply(model.ffnn_F, F_r)
    return loop_9(H_r, F_r, loop_8(H_r, x, model.attention_S), model.ffnn_F, model.ffnn_T)


def best(posterior):
    """The highest type and its posterior, as a list of one; empty for type 0, which is none."""
    kind = posterior.index(max(posterior))
    return [(kind, posterior[kind])] if kind else []


def loop_predict(model, x, spans, widths):
    """The entities and relations of one sentence: classification and filtration, §3.1 and §3.2."""
    R = [loop_span(model, x, span, width) for span, width in zip(spans, widths, strict=True)]
    E = [(s, *found) for s, R_s in enumerate(R) for found in best(softmax(loop_5(R_s, model.ffnn_s)))]
    relations = []
    for a, b in itertools.permutations(range(len(E)), 2):
        one, other = E[a][0], E[b][0]
        y_r = loop_10(loop_pair(model, x, spans[one], R[one], spans[other], R[other]), model.ffnn_r)
        if model.config.relation_loss == "sigmoid-bce":  # each type above the threshold
            sigmoids = [1 / (1 + math.exp(-score)) for score in y_r]
            relations += [(a, b, kind, p) for kind, p in enumerate(sigmoids, 1) if p > model.config.threshold]
        else:
            relations += [(a, b, *found) for found in best(softmax(y_r))]
    return E, relations


# -- Random inputs --------------------------------------------------------------------------------------------------------

SHAPE = dict(hidden=6, heads=2, width_dim=3, max_width=6)


@dataclass
class Case:
    """Sentences in one padded batch. Its numbers, in padding too, come from the seed."""

    lengths: list[int]  # wordpieces of B_S: with [CLS], without [SEP]
    spans: list[list[tuple[int, int]]]  # in wordpieces
    widths: list[list[int]]  # in words
    pairs: list[list[tuple[int, int]]]
    seed: int

    def __post_init__(self):
        self.N, self.seeds = max(self.lengths) + 1, itertools.count(self.seed)  # + 1 is [SEP]
        self.generator = torch.Generator().manual_seed(self.seed)
        self.X = self.numbers(self.N, D)
        self.is_token, self.is_span, self.is_pair = (mask_of(rows) for rows in (map(range, self.lengths), self.spans, self.pairs))
        self.is_token, self.attended = nn.functional.pad(self.is_token, (0, 1)), mask_of([range(n + 1) for n in self.lengths])
        self.span, self.width, self.pair = padded(self.spans, (0, 1)), padded(self.widths, 1), padded(self.pairs, (0, 0))
        self.is_true = nn.functional.one_hot(self.is_pair.long(), 4)  # type 1 where there is a pair
        self.inside, self.between = (torch.zeros(*mask.shape, self.N, dtype=torch.bool) for mask in (self.is_span, self.is_pair))
        for b, s, span in each(self.spans):
            self.inside[b, s, range(*span)] = True
        for b, p, (one, other) in each(self.pairs):
            self.between[b, p, loop_between(self.spans[b][one], self.spans[b][other])] = True

    def numbers(self, *shape):
        """Random numbers of shape B × shape."""
        return torch.randn(len(self.lengths), *shape, generator=self.generator, dtype=torch.float64)

    def sentence(self, b):
        """B_S of one sentence, for the loops."""
        return self.X[b, : self.lengths[b]].tolist()

    def seeded(self, make, *sizes, **config):
        """A module with random weights, each time others; of an FFNN, `sizes` are those of input and output, and the layers."""
        torch.manual_seed(next(self.seeds))
        return make(*sizes, Config(**SHAPE | config)).double().eval()

    def model(self, padding=math.nan, **config):
        """SpanRel or SpERT, for three entity and four relation types, over an encoder that gives X, and `padding` elsewhere."""
        torch.manual_seed(self.seed)
        encoder, state = nn.Module(), self.X.masked_fill(~self.is_token[..., None], padding)

        def forward(input_ids, attention_mask):
            assert input_ids is self.is_token and attention_mask is self.attended  # with [SEP], unlike B_S
            return SimpleNamespace(last_hidden_state=state)

        encoder.config, encoder.forward = SimpleNamespace(hidden_size=D), forward
        make = SpERT if config.get("model") == "spert" else SpanRel
        return make(Config(**SHAPE | config), encoder, 3, 4).double().eval()

    def scores(self, model):
        """y_s and y_r of all its spans and pairs."""
        arguments = 1 + max(self.pair.flatten().tolist(), default=-1)
        return model(self.is_token, self.attended, self.is_token, self.span, self.width, self.pair, arguments)

    def losses(self, model, shares=(1.0, 1.0)):
        """L, L^s and L^r, where each span and each pair is of type 1."""
        y_s, y_r = self.scores(model)
        return model.loss(y_s, self.is_span.long(), self.is_span, y_r, self.is_true.double(), self.is_pair, shares)

    def predicted(self, model):
        """The entities and relations of each sentence."""
        return model.predict(self.is_token, self.attended, self.is_token, self.span, self.width, self.is_span)


def padded(rows, filler):
    """Rows of different lengths as one tensor; (0, 1) fills up spans, as [CLS]."""
    longest = max(map(len, rows))
    full = [[*row, *[filler] * (longest - len(row))] for row in rows]
    return torch.tensor(full, dtype=torch.long).reshape(len(rows), longest, *torch.tensor(filler).shape)


def mask_of(rows):
    """Which places of the padded rows are not padding."""
    return padded([[1] * len(row) for row in rows], 0).bool()


def each(rows):
    """(sentence, place in it, item) of each item."""
    return [(b, k, item) for b, row in enumerate(rows) for k, item in enumerate(row)]


def same(actual, expected, tolerance=1e-10):
    """Both have the same shape and the same numbers, within rounding."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    assert actual.shape == expected.shape and torch.allclose(actual.double(), expected, rtol=0, atol=tolerance)


def only(X, b, mask):
    """X where the mask of sentence b is true, 1e30 everywhere else. Weights that are not exactly 0 there would show."""
    Y = torch.full_like(X, 1e30)
    Y[b, mask] = X[b, mask]
    return Y


@st.composite
def cases(draw):
    """One to three sentences of one to six words, each of one or two wordpieces, with up to six spans and pairs."""
    most, seed, rows = draw(st.sampled_from([1, 2, 3, 6, 6, 6, 6, 6])), draw(st.integers(0, 2**32 - 1)), []
    rng = random.Random(seed)  # left to hypothesis, most sentences would have nothing in them
    for _ in range(rng.randint(1, min(3, most))):
        n = rng.choice([most, rng.randint(1, most)])
        at = list(itertools.accumulate(rng.choices([1, 2], k=n), initial=1))  # word k is the wordpieces [at[k], at[k + 1])
        spans = itertools.combinations(range(n + 1), 2)
        spans = sorted(spans, key=lambda span: rng.random() * (span[1] - span[0]) ** 0.5)[: rng.randint(0, 6)]  # rather narrow ones
        pairs = list(itertools.permutations(range(len(spans)), 2))
        pairs = rng.sample(pairs, min(len(pairs), rng.randint(0, 6)))
        rows.append((at[-1], [(at[i], at[j]) for i, j in spans], [j - i for i, j in spans], pairs))
    return Case(*map(list, zip(*rows)), seed)


CASE = Case([6, 3], [[(1, 2), (3, 5), (5, 6)], [(1, 3)]], [[1, 2, 1], [1]], [[(0, 1), (2, 0)], []], seed=0)


def joined(case):
    """The two spans of each pair, (head, tail)."""
    return [[case.spans[b][k] for k in pair] for b, _, pair in each(case.pairs)]


SHOWN = {
    "sentences of different lengths": lambda case: len({*case.lengths}) > 1,
    "a sentence of one word, one wordpiece": lambda case: 2 in case.lengths,
    "a span as wide as can be": lambda case: any(6 in widths for widths in case.widths),
    "a sentence without a span beside one with some": lambda case: [] in case.spans and any(case.spans),
    "no span at all": lambda case: not any(case.spans),
    "spans but no pair": lambda case: any(case.spans) and not any(case.pairs),
    "a pair and its mirror": lambda case: any((b, a) in pairs for pairs in case.pairs for a, b in pairs),
    "overlap": lambda case: any(a < c < b < d for (a, b), (c, d) in joined(case)),
    "one span in another": lambda case: any(a < c and d < b for (a, b), (c, d) in joined(case)),
    "nested spans that begin together": lambda case: any(a == c for (a, b), (c, d) in joined(case)),
    "adjacent spans: nothing between": lambda case: any(b == c for (a, b), (c, d) in joined(case)),
    "a head, some wordpieces, a tail": lambda case: any(b + 1 < c for (a, b), (c, d) in joined(case)),
    "a tail, some wordpieces, a head": lambda case: any(d + 1 < a for (a, b), (c, d) in joined(case)),
}


@pytest.fixture(scope="session")
def hundred():
    """The first hundred random inputs."""
    found = []

    @settings(max_examples=100, phases=[Phase.generate], derandomize=True)
    @given(case=cases())
    def collect(case):
        found.append(case)

    collect()
    return found


@pytest.mark.parametrize("what", SHOWN)
def test_of_a_hundred_random_inputs_three_or_more_show(what, hundred):
    assert sum(map(SHOWN[what], hundred)) >= 3


# -- §3.1  Spans ----------------------------------------------------------------------------------------------------------

X = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 1.0], [5.0, 5.0]]])  # four wordpieces, two numbers each; number 0 is [CLS]


def of(**functions):
    """The function under test is an argument. pytest passes ours."""
    return pytest.mark.parametrize([*functions], [tuple(functions.values())], ids=["-".join(functions)])


def batch(*rows):
    """A batch of one sentence: the batch dimension goes in front."""
    return torch.tensor([rows])


@of(enumerate_spans=data.enumerate_spans)
@given(n=st.integers(0, 40), width=st.integers(1, 12))
def test_enumeration_is_every_span_up_to_the_width_once(n, width, enumerate_spans):
    spans = enumerate_spans(n, width)
    assert len(spans) == sum(max(0, n - w + 1) for w in range(1, width + 1))
    assert len(set(spans)) == len(spans)
    assert all(0 <= start < end <= n and end - start <= width for start, end in spans)


@of(span_ends=EQUATIONS["1"])
def test_eq_1_is_the_first_and_the_last_wordpiece(span_ends):
    H_s = span_ends(X, batch([1, 3], [2, 3]))
    assert H_s.tolist() == [[[0, 2, 3, 1], [3, 1, 3, 1]]]  # a span of one stands twice


@of(span_ends=EQUATIONS["1"])
@given(case=cases())
def test_eq_1_agrees_with_the_loop(case, span_ends):
    H_s = span_ends(case.X, case.span)
    for b, s, span in each(case.spans):
        same(H_s[b, s], loop_1(case.sentence(b), span))


@of(token_scores=EQUATIONS["2a"])
@given(case=cases())
def test_eq_2a_scores_each_token_by_one_shared_mlp(case, token_scores):
    mlp = case.seeded(FFNN, D, 1, 2)
    V = token_scores(case.X, mlp)
    for b, length in enumerate(case.lengths):
        same(V[b, :length], [loop_2a(case.sentence(b), k, mlp) for k in range(length)])


@of(token_weights=EQUATIONS["2b"])
def test_eq_2b_is_a_softmax_over_the_span_alone(token_weights):
    inside = batch([False, True, True, False], [False, False, False, False])
    alpha = token_weights(torch.tensor([[9.0, 0.0, math.log(3.0), 9.0]]), inside)
    assert torch.allclose(alpha, batch([0, 0.25, 0.75, 0], [0.0, 0, 0, 0]))
    assert (alpha[~inside] == 0).all()  # exactly


@of(token_weights=EQUATIONS["2b"])
@given(case=cases())
def test_eq_2b_agrees_with_the_loop(case, token_weights):
    V = case.numbers(case.N)
    alpha = token_weights(V, case.inside)
    for b, s, span in each(case.spans):
        same(alpha[b, s], loop_2b(V[b].tolist(), span))


@of(token_weights=EQUATIONS["2b"])
@given(case=cases(), scale=st.sampled_from([0.0, 1.0, 1e3]))
def test_eq_2b_weights_are_a_distribution_over_the_span(case, scale, token_weights):
    alpha = token_weights(case.numbers(case.N) * scale, case.inside)
    assert (alpha >= 0).all() and (alpha[~case.inside] == 0).all()
    same(alpha.sum(-1), case.inside.any(-1).double())


@of(span_specific=EQUATIONS["2c"])
def test_eq_2c_is_the_weighted_sum(span_specific):
    F_s = span_specific(batch([0, 0.25, 0.75, 0]), X)
    assert torch.allclose(F_s, batch([2.25, 1.25]))


@of(span_specific=EQUATIONS["2c"])
@given(case=cases())
def test_eq_2c_agrees_with_the_loop(case, span_specific):
    alpha = case.numbers(case.span.shape[1], case.N).masked_fill(~case.inside, 0.0)
    F_s = span_specific(alpha, case.X)
    for b, s, span in each(case.spans):
        same(F_s[b, s], loop_2c(alpha[b, s].tolist(), case.sentence(b), span))


@of(token_scores=EQUATIONS["2a"], token_weights=EQUATIONS["2b"], span_specific=EQUATIONS["2c"])
@given(case=cases())
def test_eq_2_what_lies_outside_the_span_changes_nothing(case, token_scores, token_weights, span_specific):
    mlp = case.seeded(FFNN, D, 1, 2)
    F_s = lambda X: span_specific(token_weights(token_scores(X, mlp), case.inside), X)  # noqa: E731
    usual = F_s(case.X)
    for b, s, _ in each(case.spans):
        same(F_s(only(case.X, b, case.inside[b, s]))[b, s], usual[b, s])


class Uniform(nn.Module):
    """An attention that gives equal weight to all that the mask allows."""

    def forward(self, query, context, mask):
        mask = mask.expand(-1, query.shape[1], -1).float()
        return mask / mask.sum(-1, keepdim=True).clamp(min=1) @ context


@of(span_context=EQUATIONS["3"])
def test_eq_3_attends_over_cls_and_the_sentence_but_not_sep(span_context):
    T_s = span_context(batch([0.0, 0.0]), X, batch(True, True, True, False), Uniform())
    assert torch.allclose(T_s, batch([4 / 3, 1.0]))


@of(span_context=EQUATIONS["3"])
@given(case=cases(), kind=st.sampled_from([*ATTENTION]))
def test_eq_3_agrees_with_the_loop(case, kind, span_context):
    F_s, attention = case.numbers(case.span.shape[1], D), case.seeded(ATTENTION[kind], D, D)
    T_s = span_context(F_s, case.X, case.is_token, attention)
    for b, s, _ in each(case.spans):
        same(T_s[b, s], loop_3(F_s[b, s].tolist(), case.sentence(b), attention))


@of(span_context=EQUATIONS["3"])
@given(case=cases(), kind=st.sampled_from([*ATTENTION]))
def test_eq_3_sees_neither_sep_nor_padding_nor_another_sentence(case, kind, span_context):
    F_s, attention = case.numbers(case.span.shape[1], D), case.seeded(ATTENTION[kind], D, D)
    T_s = lambda X: span_context(F_s, X, case.is_token, attention)  # noqa: E731
    usual = T_s(case.X)
    for b, s, _ in each(case.spans):
        same(T_s(only(case.X, b, case.is_token[b]))[b, s], usual[b, s])


@of(span_representation=EQUATIONS["4"])
def test_eq_4_concatenates_in_the_papers_order(span_representation):
    R_s = span_representation(batch([1.0]), batch([2.0]), batch([3.0, 4.0]), batch([5.0]))
    assert R_s.tolist() == [[[1, 2, 3, 4, 5]]]


@of(span_representation=EQUATIONS["4"])
@given(case=cases())
def test_eq_4_agrees_with_the_loop(case, span_representation):
    parts = [case.numbers(case.span.shape[1], width) for width in (D, D, 2 * D, 3)]
    R_s = span_representation(*parts)
    for b, s, _ in each(case.spans):
        same(R_s[b, s], loop_4(*(part[b, s].tolist() for part in parts)))


@of(classify_spans=EQUATIONS["5"], span_posterior=spanrel.span_posterior)
def test_eq_5_gives_the_scores_whose_softmax_is_the_posterior(classify_spans, span_posterior):
    y_s = classify_spans(batch([0.0, math.log(3.0)]), nn.Identity())
    assert torch.allclose(span_posterior(y_s), batch([0.25, 0.75]))


@of(classify_spans=EQUATIONS["5"], span_posterior=spanrel.span_posterior)
@given(case=cases())
def test_eq_5_agrees_with_the_loop(case, classify_spans, span_posterior):
    R_s, ffnn = case.numbers(case.span.shape[1], 5), case.seeded(FFNN, 5, 3, 2)
    y_s = classify_spans(R_s, ffnn)
    for b, s, _ in each(case.spans):
        scores = loop_5(R_s[b, s].tolist(), ffnn)
        same(y_s[b, s], scores)
        same(span_posterior(y_s)[b, s], softmax(scores))


@of(filter_spans=spanrel.filter_spans)
@given(case=cases())
def test_span_filtration_keeps_what_is_not_none_entity(case, filter_spans):
    y_s = case.numbers(case.span.shape[1], 3)
    E, is_entity = filter_spans(y_s, case.is_span)
    for b, spans in enumerate(case.spans):
        kept = [s for s in range(len(spans)) if max(y_s[b, s].tolist()) != y_s[b, s, 0]]
        assert E[b][is_entity[b]].tolist() == kept
    assert E.shape[1] == is_entity.sum(-1).max()


# -- §3.2  Relations ------------------------------------------------------------------------------------------------------


@of(all_pairs=spanrel.all_pairs)
@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=3))
def test_relation_tuples_are_every_ordered_pair_of_two_entities(counts, all_pairs):
    pairs, is_pair = all_pairs(mask_of(map(range, counts)))
    for b, count in enumerate(counts):
        assert pairs[b][is_pair[b]].tolist() == [[i, j] for i in range(count) for j in range(count) if i != j]


@of(relation_tuple=EQUATIONS["6"])
def test_eq_6_reduces_both_arguments_by_one_ffnn_head_first(relation_tuple):
    double = nn.Linear(1, 1, bias=False)
    double.weight.data = torch.tensor([[2.0]])
    H_r = relation_tuple(batch([1.0], [2.0], [3.0]), batch([2, 0], [0, 2]), double)
    assert H_r.tolist() == [[[6, 2], [2, 6]]]


@of(relation_tuple=EQUATIONS["6"])
@given(case=cases())
def test_eq_6_agrees_with_the_loop(case, relation_tuple):
    R_s, ffnn = case.numbers(case.span.shape[1], 5), case.seeded(FFNN, 5, 3, 2)
    H_r = relation_tuple(R_s, case.pair, ffnn)
    for b, p, (one, other) in each(case.pairs):
        same(H_r[b, p], loop_6(R_s[b, one].tolist(), R_s[b, other].tolist(), ffnn))


@of(local_context=EQUATIONS["7"], mask_between=spanrel.mask_between)
def test_eq_7_attends_over_the_words_between_and_is_zero_where_there_are_none(local_context, mask_between):
    spans, pairs = batch([1, 2], [3, 4], [2, 3], [1, 3], [2, 4]), batch([0, 1], [1, 0], [0, 2], [0, 3], [3, 4])
    between = mask_between(spans, pairs, 4)
    assert between[0].sum(-1).tolist() == [1, 1, 0, 0, 0]  # a gap, seen from both sides; adjacent; nested; overlapping
    F_r = local_context(torch.zeros(1, 5, 3), X, between, Uniform())
    assert F_r.tolist() == [[[3, 1], [3, 1], [0, 0], [0, 0], [0, 0]]]


@of(mask_inside=spanrel.mask_inside, mask_between=spanrel.mask_between)
@given(case=cases())
def test_the_masks_say_which_wordpieces_are_in_a_span_and_between_two(case, mask_inside, mask_between):
    inside = mask_inside(case.span, case.N)
    assert torch.equal(inside[case.is_span], case.inside[case.is_span])
    between = mask_between(case.span, case.pair, case.N)
    assert torch.equal(between[case.is_pair], case.between[case.is_pair])


@of(local_context=EQUATIONS["7"])
@given(case=cases(), kind=st.sampled_from([*ATTENTION]))
def test_eq_7_agrees_with_the_loop(case, kind, local_context):
    H_r, attention = case.numbers(case.pair.shape[1], 7), case.seeded(ATTENTION[kind], 7, D)
    F_r = local_context(H_r, case.X, case.between, attention)
    for b, p, (one, other) in each(case.pairs):
        B_c = [case.sentence(b)[k] for k in loop_between(case.spans[b][one], case.spans[b][other])]
        same(F_r[b, p], loop_7(H_r[b, p].tolist(), B_c, attention))


@of(local_context=EQUATIONS["7"])
@given(case=cases(), kind=st.sampled_from([*ATTENTION]))
def test_eq_7_what_is_not_between_changes_nothing(case, kind, local_context):
    H_r, attention = case.numbers(case.pair.shape[1], 7), case.seeded(ATTENTION[kind], 7, D)
    F_r = lambda X: local_context(H_r, X, case.between, attention)  # noqa: E731
    usual = F_r(case.X)
    for b, p, _ in each(case.pairs):
        same(F_r(only(case.X, b, case.between[b, p]))[b, p], usual[b, p])


@of(sentence_context=EQUATIONS["8"])
def test_eq_8_attends_over_the_sentence(sentence_context):
    T_r = sentence_context(torch.zeros(1, 1, 3), X, batch(True, True, True, False), Uniform())
    assert torch.allclose(T_r, batch([4 / 3, 1.0]))


@of(sentence_context=EQUATIONS["8"])
@given(case=cases(), kind=st.sampled_from([*ATTENTION]))
def test_eq_8_agrees_with_the_loop(case, kind, sentence_context):
    H_r, attention = case.numbers(case.pair.shape[1], 7), case.seeded(ATTENTION[kind], 7, D)
    T_r = sentence_context(H_r, case.X, case.is_token, attention)
    for b, p, _ in each(case.pairs):
        same(T_r[b, p], loop_8(H_r[b, p].tolist(), case.sentence(b), attention))


@of(sentence_context=EQUATIONS["8"])
@given(case=cases(), kind=st.sampled_from([*ATTENTION]))
def test_eq_8_sees_neither_sep_nor_padding_nor_another_sentence(case, kind, sentence_context):
    H_r, attention = case.numbers(case.pair.shape[1], 7), case.seeded(ATTENTION[kind], 7, D)
    T_r = lambda X: sentence_context(H_r, X, case.is_token, attention)  # noqa: E731
    usual = T_r(case.X)
    for b, p, _ in each(case.pairs):
        same(T_r(only(case.X, b, case.is_token[b]))[b, p], usual[b, p])


@of(relation_representation=EQUATIONS["9"])
def test_eq_9_reduces_the_contexts_by_two_ffnns(relation_representation):
    double, negate = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    double.weight.data, negate.weight.data = torch.tensor([[2.0]]), torch.tensor([[-1.0]])
    R_r = relation_representation(batch([1.0]), batch([3.0]), batch([4.0]), double, negate)
    assert R_r.tolist() == [[[1, 6, -4]]]


@of(relation_representation=EQUATIONS["9"])
@given(case=cases())
def test_eq_9_agrees_with_the_loop(case, relation_representation):
    parts = [case.numbers(case.pair.shape[1], width) for width in (7, D, D)]
    ffnns = [case.seeded(FFNN, D, width, 3) for width in (5, 6)]
    R_r = relation_representation(*parts, *ffnns)
    for b, p, _ in each(case.pairs):
        same(R_r[b, p], loop_9(*(part[b, p].tolist() for part in parts), *ffnns))


@of(classify_relations=EQUATIONS["10"], relation_posterior=spanrel.relation_posterior)
def test_eq_10_gives_the_scores_whose_softmax_is_the_posterior(classify_relations, relation_posterior):
    y_r = classify_relations(batch([0.0, math.log(3.0)]), nn.Identity())
    for reading in ("softmax-bce", "softmax-ce"):
        assert torch.allclose(relation_posterior(y_r, reading), batch([0.25, 0.75]))
    assert torch.allclose(relation_posterior(y_r, "sigmoid-bce"), batch([0, 0.5, 0.75]))  # no NoneRelation


@of(classify_relations=EQUATIONS["10"], relation_posterior=spanrel.relation_posterior)
@given(case=cases())
def test_eq_10_agrees_with_the_loop(case, classify_relations, relation_posterior):
    R_r, ffnn = case.numbers(case.pair.shape[1], 5), case.seeded(FFNN, 5, 3, 2)
    y_r = classify_relations(R_r, ffnn)
    for b, p, _ in each(case.pairs):
        scores = loop_10(R_r[b, p].tolist(), ffnn)
        same(y_r[b, p], scores)
        same(relation_posterior(y_r, "softmax-bce")[b, p], softmax(scores))


@of(filter_relations=spanrel.filter_relations)
@given(case=cases(), reading=st.sampled_from(READINGS), threshold=st.sampled_from([0.2, 0.4, 0.6]))
def test_relation_filtration_keeps_the_highest_type_or_those_above_the_threshold(case, reading, threshold, filter_relations):
    posterior = case.numbers(case.pair.shape[1], 4).softmax(-1)
    if reading == "sigmoid-bce":
        posterior = (5 * posterior).round() / 5  # so that some are at the threshold
    holds = filter_relations(posterior, case.is_pair, reading, threshold)
    for b, p in itertools.product(range(len(case.lengths)), range(case.pair.shape[1])):
        score = posterior[b, p].tolist()
        expected = [c for c in (1, 2, 3) if (score[c] > threshold if reading == "sigmoid-bce" else score[c] == max(score))]
        assert holds[b, p].nonzero().flatten().tolist() == (expected if p < len(case.pairs[b]) else [])


@given(case=cases())
def test_max_pooling_agrees_with_the_loop_and_its_gradient_goes_to_the_largest_alone(case):
    for mask in (case.inside, case.between):
        X = case.X.masked_fill(~case.is_token[..., None], math.nan).requires_grad_()
        pooled = spanrel.masked_max(X, mask)
        pooled.sum().backward()
        expected = torch.zeros_like(X)
        for b, k in itertools.product(range(len(mask)), range(mask.shape[1])):
            rows = case.X[b, mask[b, k]]
            same(pooled[b, k], loop_max(rows.tolist()))
            for d in range(D if len(rows) else 0):
                expected[b, mask[b, k].nonzero()[rows[:, d].argmax()], d] += 1
        same(X.grad, expected)


# -- §3.3  Attention ------------------------------------------------------------------------------------------------------

four = pytest.mark.parametrize("attention", ATTENTION.values(), ids=ATTENTION)


@pytest.mark.parametrize("d_in, d_out, layers", [(4, 1, 1), (4, 3, 2), (2, 5, 3)])
def test_an_ffnn_is_linear_relu_dropout_and_a_last_linear(d_in, d_out, layers):  # [L11]
    ffnn = [*FFNN(d_in, d_out, layers, Config(hidden=6, dropout=0.3))]
    assert [*map(type, ffnn)] == [nn.Linear, nn.ReLU, nn.Dropout] * (layers - 1) + [nn.Linear]
    widths = [d_in] + [6] * (layers - 1) + [d_out]
    assert [(layer.in_features, layer.out_features) for layer in ffnn[::3]] == [*zip(widths, widths[1:])]
    assert all(dropout.p == 0.3 for dropout in ffnn[2::3])


def test_the_ffnns_of_eq_9_have_three_layers_and_all_others_two():  # [L12]
    ffnns = {name: module for name, module in CASE.model().named_modules() if isinstance(module, FFNN)}
    depth = {name: sum(isinstance(layer, nn.Linear) for layer in ffnn) for name, ffnn in ffnns.items()}
    assert depth.pop("ffnn_F") == depth.pop("ffnn_T") == 3 and {*depth.values()} == {2} and len(depth) == 4 + 2 * 3


MODULES = {"multihead": {"ffnn_Q", "ffnn_K"}, "dot": {"ffnn_Q", "ffnn_K", "W"}, "general": {"W"}, "additive": {"W_1", "W_2", "v"}}


@pytest.mark.parametrize("name", ATTENTION)
def test_query_and_key_have_weights_of_their_own(name):
    for project, more in ((False, set()), (True, {"value", "output"})):  # [L10]
        attention = CASE.seeded(ATTENTION[name], D, D, project=project)
        names = {parameter for parameter, _ in attention.named_parameters()}
        assert {parameter.split(".")[0] for parameter in names} == MODULES[name] | more
        assert not {"value.bias", "output.bias"} & names  # so that an empty context gives zeros


@four
@given(case=cases(), project=st.booleans())
def test_attention_agrees_with_the_loop(attention, case, project):
    query, attend = case.numbers(case.pair.shape[1], 7), case.seeded(attention, 7, D, project=project)
    result = attend(query, case.X, case.between)
    for b, p, _ in each(case.pairs):
        context = case.X[b, case.between[b, p]].tolist()
        same(result[b, p], loop_attention(attend, query[b, p].tolist(), context))


@four
@given(case=cases(), scale=st.sampled_from([1.0, 1e3]))
def test_attention_weights_are_a_distribution_over_what_is_there(attention, case, scale):
    query, attend = case.numbers(case.pair.shape[1], 7) * scale, case.seeded(attention, 7, D)
    weights, mask = attend.weights(query, case.X, case.between), case.between[:, None]
    assert weights.shape[1] == attend.heads and (weights >= 0).all()
    assert (weights.masked_fill(mask, 0.0) == 0).all()  # exactly
    same(weights.sum(-1), mask.any(-1).double().expand(weights.shape[:-1]))


@four
@given(case=cases(), project=st.booleans())
def test_attention_over_nothing_is_zero_with_finite_gradients(attention, case, project):
    attend, query, context = case.seeded(attention, 7, D, project=project), case.numbers(2, 7), case.X.clone()
    result = attend(query.requires_grad_(), context.requires_grad_(), torch.zeros(len(context), 1, case.N, dtype=torch.bool))
    assert (result == 0).all()
    result.sum().backward()
    assert all(t.grad is None or t.grad.isfinite().all() for t in (query, context, *attend.parameters()))


def test_multihead_score_is_the_scaled_dot_product_of_each_head():
    attention = ATTENTION["multihead"](4, 4, Config(hidden=4, heads=2))
    attention.ffnn_Q = attention.ffnn_K = nn.Identity()
    score = attention.score(batch([1.0, 2.0, 3.0, 4.0]), batch([1.0, 1.0, 0.0, 2.0]))
    assert torch.allclose(score.flatten(), torch.tensor([3.0, 8.0]) / math.sqrt(2))


def test_dot_general_and_additive_scores_by_hand():
    query, context, config = batch([1.0, 2.0]), batch([3.0, 4.0]), Config(hidden=2)
    product, general, additive = (ATTENTION[name](2, 2, config) for name in ("dot", "general", "additive"))
    product.ffnn_Q = product.ffnn_K = nn.Identity()
    assert [*product.W.weight.shape] == [1, 2]  # [L9]
    product.W.weight.data = torch.tensor([[10.0, 1.0]])
    assert product.score(query, context).item() == 10 * 1 * 3 + 1 * 2 * 4
    general.W.weight.data = torch.tensor([[0.0, 0.0], [5.0, 0.0]])  # from query 1 to key 2
    assert general.score(query, context).item() == 1 * 5 * 4
    for layer in (additive.W_1, additive.W_2):
        layer.weight.data = torch.eye(2)
    additive.W_1.bias.data.zero_()
    additive.v.weight.data = torch.tensor([[1.0, -1.0]])
    assert additive.score(query, context).item() == pytest.approx(math.tanh(4) - math.tanh(6), abs=1e-6)


@of(additive=ATTENTION["additive"])
@given(case=cases())
def test_additive_attention_as_printed_ignores_its_query_and_ours_does_not(case, additive):
    one, other, mask = case.numbers(1, 7), case.numbers(1, 7), case.is_token[:, None]
    W_1, W_2 = case.numbers(7)[0], case.numbers(D)[0]
    printed = lambda query: ((query @ W_1)[..., None] + (case.X @ W_2)[:, None]).softmax(-1)  # noqa: E731
    same(printed(one), printed(other))  # [L7]
    ours = case.seeded(additive, 7, D)
    assert not torch.allclose(ours.weights(one, case.X, mask), ours.weights(other, case.X, mask))


# -- §3.4  Loss and negative samples --------------------------------------------------------------------------------------


def number(value):
    return torch.tensor(value, dtype=torch.float64)


@of(joint_loss=EQUATIONS["11"])
def test_eq_11_weighs_the_parts_by_four_and_six_tenths(joint_loss):
    assert joint_loss(number(1.0), number(0.0)).item() == 0.4 and joint_loss(number(0.0), number(1.0)).item() == 0.6
    assert joint_loss(number(1.0), number(10.0), 1.0, 1.0).item() == 11.0  # SpERT's weights


@of(joint_loss=EQUATIONS["11"])
@given(a=st.floats(-100, 100), b=st.floats(-100, 100), c=st.floats(-100, 100))
def test_eq_11_is_linear_in_each_part(a, b, c, joint_loss):
    L = lambda L_s, L_r: joint_loss(number(L_s), number(L_r))  # noqa: E731
    same(L(a, b), loop_11(a, b))
    same(L(a + c, b), L(a, b) + L(c, 0.0))
    same(L(a, b + c), L(a, b) + L(0.0, c))


@of(span_loss=spanrel.span_loss)
@given(case=cases())
def test_span_loss_agrees_with_the_loop(case, span_loss):
    y_s, t_s = case.numbers(case.span.shape[1], 3), case.numbers(case.span.shape[1], 3).argmax(-1)
    same(span_loss(y_s, t_s, case.is_span), loop_span_loss(y_s[case.is_span].tolist(), t_s[case.is_span].tolist()))


@of(relation_loss=spanrel.relation_loss)
@pytest.mark.parametrize("reading", READINGS)
@given(case=cases(), C=st.integers(2, 4))
def test_relation_loss_agrees_with_the_loop(reading, case, C, relation_loss):
    y_r = case.numbers(case.pair.shape[1], C - 1 if reading == "sigmoid-bce" else C)
    t_r = (case.numbers(case.pair.shape[1], C) > 0).double()  # one type, several
    t_r[..., 0] = (t_r[..., 1:].sum(-1) == 0).double()  # or NoneRelation
    y, t = y_r[case.is_pair].tolist(), t_r[case.is_pair].tolist()
    same(relation_loss(y_r, t_r, case.is_pair, reading), loop_relation_loss(y, t, reading))


@of(span_loss=spanrel.span_loss, relation_loss=spanrel.relation_loss)
@pytest.mark.parametrize("reading", READINGS)
@given(case=cases())
def test_padded_samples_weigh_nothing(reading, case, span_loss, relation_loss):
    c = 3 if reading == "sigmoid-bce" else 4
    y_s, y_r = case.numbers(case.span.shape[1], 3), case.numbers(case.pair.shape[1], c)
    t_s, t_r = case.is_span.long(), case.is_true.double()
    losses = (
        (lambda y: span_loss(y, t_s, case.is_span), y_s, case.is_span),
        (lambda y: relation_loss(y, t_r, case.is_pair, reading), y_r, case.is_pair),
    )
    for L, y, is_there in losses:
        other = y.masked_fill(~is_there[..., None], 1e30).requires_grad_()
        same(L(other), L(y).item())
        L(other).backward()
        assert (other.grad[~is_there] == 0).all()


@of(relation_loss=spanrel.relation_loss)
def test_softmax_bce_is_exact_where_the_softmax_rounds_to_one(relation_loss):
    sure = torch.tensor([[[17.0, 0.0, 0.0]]], requires_grad=True)  # in float32 the first posterior is 1
    wrong = relation_loss(sure, batch([0.0, 1.0, 0.0]), batch(True), "softmax-bce")
    wrong.backward()
    assert wrong.item() == pytest.approx(((17 - math.log(2)) + 17 + 0) / 3, rel=1e-3)  # -log(1 - p_0), -log p_1, -log(1 - p_2)
    assert torch.allclose(sure.grad[0, 0], torch.tensor([2 / 3, -0.5, -1 / 6]), atol=1e-3)


@of(draw=data.Sampling.draw)
@given(available=st.integers(0, 400), gold=st.integers(0, 9), rate=st.integers(1, 40), count=st.sampled_from([None, 5]))
def test_sampling_draws_as_many_as_the_rate_says_and_none_twice(available, gold, rate, count, draw):
    sampling = data.Sampling(rate=rate, count=count)
    drawn = draw(sampling, list(range(available)), gold, "s", "spans")
    assert len(drawn) == min(available, rate * max(1, gold) if count is None else count)
    assert len(set(drawn)) == len(drawn) and set(drawn) <= set(range(available))


@of(draw=data.Sampling.draw)
def test_sampling_is_thirtyfold_as_the_paper_says(draw):
    assert [len(draw(data.Sampling(), list(range(400)), gold, "s", "spans")) for gold in (0, 1, 2, 20)] == [30, 30, 60, 400]


@of(draw=data.Sampling.draw)
def test_sampling_is_a_function_of_seed_epoch_and_sentence(draw):
    def by(seed, epoch, sentence, what):
        return tuple(draw(data.Sampling(seed=seed, epoch=epoch), list(range(99)), 1, sentence, what))

    ways = list(itertools.product((0, 1), (1, 2), ("s", "t"), ("spans", "pairs")))
    assert [by(*way) for way in ways] == [by(*way) for way in ways]
    assert len({by(*way) for way in ways}) == len(ways)


@of(draw=data.Sampling.draw)
def test_sampling_is_uniform(draw):
    drawn = Counter()
    for epoch in range(3000):  # three of twelve: each 750 times, with a standard deviation of 24
        drawn.update(draw(data.Sampling(rate=3, epoch=epoch), list(range(12)), 1, "s", "spans"))
    assert drawn.total() == 9000 and all(abs(drawn[k] - 750) < 4.5 * 24 for k in range(12))


def coded(sentence):
    """The sentence with one wordpiece a word."""
    n = len(sentence.words)
    starts, ends = list(range(1, n + 1)), list(range(2, n + 2))
    return data.Encoded(sentence, input_ids=[0] * (n + 2), is_token=[True] * (n + 1) + [False], starts=starts, ends=ends)


TYPES = ["A", "B"], ["R", "S"]


def annotated(rng, n, entity_types=TYPES[0], relation_types=TYPES[1]):
    """Entities and relations for n words: entities overlap, nest and touch, some have two types; so do pairs."""
    spans, unlike = list(itertools.combinations(range(n + 1), 2)), lambda items: [*dict.fromkeys(items)]  # noqa: E731
    few = rng.sample(spans, min(len(spans), 4))
    entities = unlike(Entity(rng.choice(entity_types), *rng.choice(few)) for _ in range(rng.randint(0, 6)))
    pairs = list(itertools.permutations(entities, 2))
    few = rng.sample(pairs, min(len(pairs), 3))
    return entities, unlike(Relation(rng.choice(relation_types), *rng.choice(few)) for _ in range(rng.randint(0, 5) if few else 0))


@st.composite
def sentences(draw):
    """A sentence of up to nine words."""
    rng = random.Random(draw(st.integers(0, 2**32 - 1)))
    words = ["".join(rng.choices("abcß-é😀", k=rng.randint(1, 4))) for _ in range(rng.randint(1, draw(st.sampled_from([1, 3, 9, 9]))))]
    return Sentence("s", words, *annotated(rng, len(words)))


def narrow(sentence, width):
    """The gold spans that training can reach, each with its first type."""
    return {(e.start, e.end): 1 + TYPES[0].index(e.type) for e in reversed(sentence.entities) if e.end - e.start <= width}


@of(training_example=data.training_example)
@given(sentence=sentences(), width=st.integers(1, 6), rate=st.sampled_from([1, 2, 30]))
def test_training_spans_are_the_gold_ones_and_others_never_gold_never_twice(sentence, width, rate, training_example):
    example, gold = training_example(coded(sentence), *TYPES, data.Sampling(width, rate)), narrow(sentence, width)
    spans, types = example.spans, example.span_types
    assert dict(zip(spans[: len(gold)], types)) == gold
    assert len(types) == len(spans) == len(set(spans)) and not any(types[len(gold) :])
    assert all(0 <= start < end <= len(sentence.words) and end - start <= width for start, end in spans)
    available = len(data.enumerate_spans(len(sentence.words), width)) - len(gold)
    assert len(spans) - len(gold) == min(available, rate * max(1, len(gold)))


@of(training_example=data.training_example)
@given(sentence=sentences(), width=st.integers(1, 6), rate=st.sampled_from([1, 2, 30]), among=st.sampled_from(["gold", "sampled"]))
def test_training_pairs_are_the_related_ones_and_others_never_related_never_twice(sentence, width, rate, among, training_example):
    example, gold = training_example(coded(sentence), *TYPES, data.Sampling(width, rate, among=among)), narrow(sentence, width)
    pairs, types = [(example.spans[a], example.spans[b]) for a, b in example.pairs], example.pair_types
    related = {}
    for r in sentence.relations:
        head, tail = (r.head.start, r.head.end), (r.tail.start, r.tail.end)
        if head in gold and tail in gold and head != tail:
            related.setdefault((head, tail), set()).add(1 + TYPES[1].index(r.type))
    assert dict(zip(pairs[: len(related)], types)) == related
    assert len(types) == len(pairs) == len(set(pairs)) and all(kinds == {0} for kinds in types[len(related) :])
    arguments = len(gold) if among == "gold" else len(example.spans)
    assert example.arguments == arguments and all(a != b and max(a, b) < arguments for a, b in example.pairs)
    assert len(pairs) - len(related) == min(arguments * (arguments - 1) - len(related), rate * max(1, len(related)))


@of(training_example=data.training_example)
def test_every_pair_is_a_negative_where_there_are_few_a_related_ones_mirror_too(training_example):
    entities = [Entity("A", k, k + 1) for k in range(3)]
    sentence = Sentence("s", ["w"] * 4, entities, [Relation("S", entities[0], entities[1])])
    example = training_example(coded(sentence), *TYPES, data.Sampling())
    assert dict(zip(example.pairs, example.pair_types)) == {(0, 1): {2}} | dict.fromkeys([(0, 2), (1, 0), (1, 2), (2, 0), (2, 1)], {0})


@of(training_example=data.training_example)
def test_negatives_are_drawn_anew_in_each_epoch_and_each_sentence(training_example):
    entities = [Entity("A", k, k + 1) for k in range(10)]

    def negatives(id, epoch):
        example = training_example(coded(Sentence(id, ["w"] * 40, entities)), *TYPES, data.Sampling(epoch=epoch))
        return example.spans, example.pairs

    spans, pairs = zip(*(negatives(*way) for way in (("s", 1), ("s", 2), ("t", 1))))
    for drawn in (spans, pairs):
        assert len({*map(tuple, drawn)}) == 3
    assert negatives("s", 1) == (spans[0], pairs[0])


@given(sentence=sentences(), width=st.integers(1, 6))
def test_a_prediction_example_is_every_span(sentence, width):
    example = data.prediction_example(coded(sentence), width)
    assert example.spans == data.enumerate_spans(len(sentence.words), width)
    assert example.span_types == [0] * len(example.spans) and example.pairs == [] and example.arguments == 0


# -- The whole model ------------------------------------------------------------------------------------------------------

ALL_ABLATIONS = [tuple(itertools.compress(ABLATIONS, bits)) for bits in itertools.product((0, 1), repeat=4)][1:]
SETTINGS = [dict(attention=name) for name in ATTENTION] + [dict(ablate=parts) for parts in ALL_ABLATIONS]
SETTINGS += [dict(relation_loss="softmax-ce"), dict(relation_loss="sigmoid-bce", threshold=0.6), dict(project=True), SPERT]
NAMES = [s.get("model") or "+".join(s.get("ablate", ())) or "-".join(map(str, s.values())) for s in SETTINGS]
every_setting = pytest.mark.parametrize("shape", SETTINGS, ids=NAMES)


@every_setting
@given(case=cases())
def test_the_model_agrees_with_the_loops(shape, case):
    model = case.model(**shape)
    y_s, y_r = case.scores(model)
    for b, spans in enumerate(case.spans):
        x = case.sentence(b)
        R = [loop_span(model, x, span, width) for span, width in zip(spans, case.widths[b])]
        for s, R_s in enumerate(R):
            same(y_s[b, s], loop_5(R_s, model.ffnn_s))
        for p, (one, other) in enumerate(case.pairs[b]):
            R_r = loop_pair(model, x, spans[one], R[one], spans[other], R[other])
            same(y_r[b, p], loop_10(R_r, model.ffnn_r))


@every_setting
@given(case=cases())
def test_prediction_agrees_with_the_loops(shape, case):
    model = case.model(**shape)
    for b, (entities, relations) in enumerate(case.predicted(model)):
        expected = loop_predict(model, case.sentence(b), case.spans[b], case.widths[b])
        for found, loops in zip((entities, relations), expected, strict=True):
            assert [item[:-1] for item in found] == [item[:-1] for item in loops]
            same(torch.tensor([item[-1] for item in found]), [item[-1] for item in loops], 1e-6)  # posteriors are in float32


WIRINGS = [dict(attention=name) for name in ATTENTION] + [dict(ablate=ABLATIONS), SPERT]
wiring = st.sampled_from(WIRINGS)


@given(case=cases(), shape=wiring, padding=st.sampled_from([0.0, 1e30, math.inf]))
def test_what_the_encoder_says_of_padding_changes_nothing(case, shape, padding):
    usual, changed = case.scores(case.model(math.nan, **shape)), case.scores(case.model(padding, **shape))
    for one, other in zip(usual, changed, strict=True):
        same(one, other)


@given(case=cases(), shape=wiring, rng=st.randoms())
def test_the_order_of_sentences_spans_and_pairs_is_carried_through(case, shape, rng):
    model = case.model(**shape)
    y_s, y_r = case.scores(model)
    b, s, p = (rng.sample(range(n), n) for n in (len(case.lengths), case.span.shape[1], case.pair.shape[1]))
    new_place = torch.tensor(s, dtype=torch.long).argsort()
    case.X, case.is_token = case.X[b], case.is_token[b]
    case.span, case.width, case.pair = case.span[b][:, s], case.width[b][:, s], case.pair[b][:, p]
    case.pair = new_place[case.pair] if s else case.pair
    other_s, other_r = case.scores(case.model(**shape))
    same(other_s, y_s[b][:, s])
    same(other_r, y_r[b][:, p])


@given(case=cases(), shape=wiring)
def test_a_sentence_alone_and_among_others_is_the_same(case, shape):
    y_s, y_r = case.scores(case.model(**shape))
    for b, n in enumerate(case.lengths):
        one = Case([n], [case.spans[b]], [case.widths[b]], [case.pairs[b]], case.seed)
        one.X = case.X[b : b + 1, : n + 1]
        alone_s, alone_r = one.scores(one.model(**shape))
        same(alone_s[0], y_s[b, : len(case.spans[b])])
        same(alone_r[0], y_r[b, : len(case.pairs[b])])


@given(case=cases(), shape=wiring, chunk=st.sampled_from([1, 100, 1000]))
def test_chunks_of_any_size_predict_the_same(case, shape, chunk):
    model = case.model(**shape)
    whole, model.config.chunk = case.predicted(model), chunk  # 1: one span, one pair at a time
    for (entities, relations), (others, pairs) in zip(whole, case.predicted(model), strict=True):
        assert [item[:-1] for item in entities + relations] == [item[:-1] for item in others + pairs]
        same(torch.tensor([item[-1] for item in entities + relations]), [item[-1] for item in others + pairs], 1e-6)


@pytest.mark.parametrize("chunk, rows", [(0, 1), (2 * 7 * 6, 1), (2 * 7 * 6 * 2, 2), (2 * 7 * 6 * 3 - 1, 2)])
def test_a_chunk_holds_at_most_so_many_numbers(chunk, rows, monkeypatch):
    model, sizes = CASE.model(chunk=chunk), []  # two sentences of seven wordpieces, six numbers each
    represent = model.represent_spans
    monkeypatch.setattr(model, "represent_spans", lambda *given: sizes.append(given[2].shape[1]) or represent(*given))
    CASE.predicted(model)
    assert sizes == {1: [1, 1, 1], 2: [2, 1]}[rows]


def test_a_single_chunk_is_not_copied():
    made = []
    assert spanrel.in_chunks(lambda rows: made.append(rows + 1) or made[-1], 9, torch.ones(1, 3, 2)) is made[0]


@pytest.mark.parametrize("reading", READINGS)
def test_every_tensor_is_made_on_the_device_of_its_inputs(reading):
    model = CASE.model(relation_loss=reading)
    losses, predicted = CASE.losses(model), CASE.predicted(model)
    with torch.device("meta"):  # where a tensor lands whose device is not named
        assert CASE.losses(model) == losses and CASE.predicted(model) == predicted


OWN = dict(relation_loss="softmax-ce", span_weight=0.1, relation_weight=2.0)


@pytest.mark.parametrize("shape, weights", [({}, (0.4, 0.6)), (SPERT, (1.0, 1.0)), (OWN, (0.1, 2.0))], ids=["span", "spert", "own"])
def test_the_loss_of_a_setting_is_eq_11_with_its_weights(shape, weights):
    model = CASE.model(**shape)
    (L, L_s, L_r), (y_s, y_r) = CASE.losses(model), CASE.scores(model)
    y_s, y_r, t_r = y_s[CASE.is_span].tolist(), y_r[CASE.is_pair].tolist(), CASE.is_true[CASE.is_pair].tolist()
    same(L_s, loop_span_loss(y_s, [1] * len(y_s)))
    same(L_r, loop_relation_loss(y_r, t_r, model.config.relation_loss))
    same(L, weights[0] * L_s.item() + weights[1] * L_r.item())
    half, part_s, part_r = CASE.losses(model, shares=(0.5, 0.25))  # of two processes, one's
    same(part_s, 0.5 * L_s.item()), same(part_r, 0.25 * L_r.item()), same(half, weights[0] * part_s.item() + weights[1] * part_r.item())


@every_setting
@pytest.mark.parametrize("part", [1, 2], ids=["L_s", "L_r"])
def test_the_gradient_of_each_loss_is_its_slope(shape, part):
    model = CASE.model(**shape)
    X = CASE.X.masked_fill(~CASE.is_token[..., None], 0.0).requires_grad_()
    model.encoder.forward = lambda input_ids, attention_mask: SimpleNamespace(last_hidden_state=X)

    weights, ends = [X, *model.parameters()], []
    gradients = torch.autograd.grad(CASE.losses(model)[part], weights, allow_unused=True)  # the span loss knows nothing of the pairs' weights
    torch.manual_seed(0)
    direction = [torch.randn_like(weight) for weight in weights]
    with torch.no_grad():
        for step in (1e-6, -2e-6):  # forth, and back beyond where it began
            for weight, along in zip(weights, direction):
                weight += step * along
            ends.append(CASE.losses(model)[part].item())
    slope = sum((gradient * along).sum().item() for gradient, along in zip(gradients, direction) if gradient is not None)
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, rel=1e-6)


@every_setting
def test_dropout_is_the_settings_everywhere_and_nothing_else_differs_in_training(shape):
    dropout = lambda model: [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)]  # noqa: E731
    assert {*dropout(CASE.model(**shape | {"dropout": 0.3}))} == {0.3}
    model = CASE.model(**shape | {"dropout": 0.0})
    for one, other in zip(CASE.scores(model), CASE.scores(model.train()), strict=True):
        assert torch.equal(one, other)


@every_setting
def test_gradients_reach_every_parameter_of_every_setting(shape):
    run = toy_run(**shape)
    loss, L_s, L_r = train.train_step(run, some_batch(run))
    assert L_s > 0 and L_r > 0
    loss.backward()
    unused = {n for n, p in run.model.named_parameters() if p.grad is None or not p.grad.any()}
    # a bias that is the same for all keys of a softmax changes nothing, so its gradient is only rounding, or zero
    assert all(n.endswith(("mlp.3.bias", "ffnn_K.3.bias", "key.bias")) for n in unused), unused


NEEDED_BY = {"span-sentence": {"attention_s"}, "local": {"attention_c"}, "relation-sentence": {"attention_S", "ffnn_T"}}


@pytest.mark.parametrize("ablate", [(), *ALL_ABLATIONS], ids="+".join)
def test_a_setting_has_the_modules_that_it_uses_each_its_own_and_no_others(ablate):
    everything = {"width", "mlp", "attention_s", "ffnn_s", "ffnn_pair", "attention_c", "ffnn_F", "attention_S", "ffnn_T", "ffnn_r"}
    gone = set().union(*(NEEDED_BY.get(part, ()) for part in ablate), ["mlp"] if {"span-specific", "span-sentence"} <= {*ablate} else [])
    assert {name.split(".")[0] for name, _ in CASE.model(ablate=ablate).named_parameters()} == everything - gone


@pytest.mark.parametrize("heads, hidden", [(3, 6), (4, 6)])  # 3 does not divide the encoder's width of 4, 4 not the hidden width
def test_heads_divide_both_widths(heads, hidden):
    with pytest.raises(ValueError, match=f"^--heads {heads} must divide the encoder's width 4 and --hidden {hidden}$"):
        CASE.model(heads=heads, hidden=hidden)
    CASE.model(heads=heads, hidden=hidden, attention="dot")  # whose score has one head


def test_spert_begins_as_its_authors_layers_do():
    model = toy_run(**SPERT).model
    for layer in (model.width, model.ffnn_s[1], model.ffnn_r[1]):  # [L32]
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.2) and layer.weight.mean().item() == pytest.approx(0, abs=0.005)
    assert not model.ffnn_s[1].bias.any() and not model.ffnn_r[1].bias.any()


SMALL = data.toy(sizes=(40, 10, 10))


def toy_run(epochs=1, **shape):
    chosen = dict(hidden=16, heads=2) | shape
    return train.new_run(train.settings_of(dataset="toy", epochs=epochs, **chosen), SMALL)


def eager(**shape):
    """A model that calls many spans entities and most pairs related, so that its predictions are not empty."""
    run = toy_run(**shape)
    for ffnn in (run.model.ffnn_s, run.model.ffnn_r):
        ffnn[-1].bias.data[0] = -0.2
    return run


def some_batch(run, k=6):
    return run.training_batch(run.encode(SMALL.train[:k]), data.Sampling())


def test_a_real_encoder_predicts_a_sentence_alone_as_among_others():
    run = eager(encoder="tiny-2")
    encoded = run.encode(SMALL.test[:3])
    for sentence, expected in zip(encoded, run.annotate(encoded), strict=True):
        (alone,) = run.annotate([sentence])
        assert expected.entities and alone.entities == expected.entities and alone.relations == expected.relations
        assert [e.score for e in alone.entities] == pytest.approx([e.score for e in expected.entities], abs=1e-5)


@pytest.fixture(scope="session")
def eager_run():
    return eager()


@given(text=st.text("aé😀 .-\n\u0301", max_size=12))
def test_predicted_offsets_point_at_the_text_they_name(eager_run, text):
    (sentence,) = eager_run.predict([text])
    assert sentence.text == text
    for e in sentence.entities:
        a, b = sentence.chars(e)
        assert "".join(text[a:b].split()) == "".join(sentence.words[e.start : e.end])
    assert all(r.head in sentence.entities and r.tail in sentence.entities for r in sentence.relations)


@pytest.mark.parametrize("shape", WIRINGS, ids=[*ATTENTION, "ablated", "spert"])
def test_what_is_saved_and_loaded_predicts_the_same_bit_for_bit(shape, tmp_path):
    run = eager(**shape)
    run.save(tmp_path)
    again, sentences = train.load(tmp_path, "cpu"), SMALL.test[:3]
    for name, weight in run.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name])
    one, two = run.annotate(run.encode(sentences)), again.annotate(again.encode(sentences))
    details = lambda s: [(item, item.score) for item in (*s.entities, *s.relations)]  # noqa: E731
    assert any(map(details, one)) and list(map(details, one)) == list(map(details, two))


# -- Shapes and traces ----------------------------------------------------------------------------------------------------

MISSHAPEN = {  # what a student passes; what the message names: function, argument, its shape, the dimension that does not fit
    "1": (lambda f: f(torch.rand(2, 3, 4), torch.zeros(2, 5, 3, dtype=torch.long)), r"span_ends.*parameter 'spans'.*i64\[2,5,3\].*B S 2"),
    "2c": (lambda f: f(torch.rand(2, 3, 4), torch.rand(2, 5, 6)), r"span_specific.*parameter 'X'.*f32\[2,5,6\].*B N D.*N=4"),
    "6": (lambda f: f(torch.rand(2, 3, 4), torch.zeros(1, 5, 2, dtype=torch.long), nn.Identity()),
          r"relation_tuple.*parameter 'pairs'.*i64\[1,5,2\].*B P 2.*B=2"),
}  # fmt: skip


@pytest.mark.parametrize("number", MISSHAPEN)
def test_a_wrong_shape_is_told_by_argument_and_dimension(number):
    call, says = MISSHAPEN[number]
    with pytest.raises(jaxtyping.TypeCheckError, match=f"(?s){says}"):
        call(EQUATIONS[number])


def test_shape_checks_can_be_switched_off():
    code = "import spanrel, torch; print(spanrel.span_ends(torch.rand(2, 3, 4), torch.ones(2, 5, 3, dtype=torch.long)).shape)"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, env={**os.environ, "SPANREL_SHAPES": "off"}, capture_output=True)
    assert b"[2, 5, 8]" in done.stdout, done.stderr


def test_every_equation_has_one_function_and_tests_of_its_name():
    assert list(EQUATIONS) == ["1", "2a", "2b", "2c", *map(str, range(3, 12))]
    functions = [f for name, f in vars(spanrel).items() if inspect.isfunction(f) and "__mutmut" not in name]
    numbered = [(match[1], f) for f in functions if (match := re.match(r"Eq\. \((\w+)\)\.  \S", f.__doc__ or ""))]
    assert numbered == [*EQUATIONS.items()]  # those with a line "Eq. (k).", in the order of the file
    for number in EQUATIONS:
        assert any(name.startswith(f"test_eq_{number}_") for name in globals()) and f"loop_{number}" in globals()


def test_every_ledger_number_in_the_code_has_its_row_and_every_row_its_line():
    code = "".join((HERE / name).read_text(encoding="utf-8") for name in ("spanrel.py", "data.py", "train.py"))
    rows = re.findall(r"^\| (L\d+) \|", (HERE / "README.md").read_text(encoding="utf-8"), re.M)
    assert rows == [f"L{k}" for k in range(1, len(rows) + 1)] and set(re.findall(r"\[(L\d+)\]", code)) == set(rows)


def test_every_function_and_test_that_the_readme_names_is_there():
    named = re.findall(r"`(\w+)`", (HERE / "README.md").read_text(encoding="utf-8").partition("## Equation")[2].partition("\n## ")[0])
    here = {*globals(), *vars(spanrel), *vars(data)}
    assert set(EQUATIONS[k].__name__ for k in EQUATIONS) <= {*named} and {name for name in named if "_" in name} <= here


def test_ci_runs_the_two_commands_of_the_readme():
    commands = re.search(r"```sh\n(.+?)\n(.+?)\n```", (HERE / "README.md").read_text(encoding="utf-8")).groups()
    script = (HERE / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert [line for line in script if line in commands] == list(commands)


# -- Wordpieces and batches -----------------------------------------------------------------------------------------------


def test_wordpieces_of_words_with_and_without_pieces():
    tokenizer = data.learn_tokenizer([Sentence("s", ["lithium", "tremor"] * 3)])
    (coded,) = data.encode([Sentence("s", ["lithium", "\u200b", "tremorlithium", "😀"])], tokenizer, 99)
    pieces = tokenizer.convert_ids_to_tokens(coded.input_ids)
    assert [pieces[a:b] for a, b in zip(coded.starts, coded.ends)][:2] == [["lithium"], ["[UNK]"]]
    assert coded.ends[2] - coded.starts[2] > 1 and pieces[coded.starts[3]] == "[UNK]"
    assert pieces[0] == "[CLS]" and coded.is_token == [True] * (len(pieces) - 1) + [False]  # all but [SEP]


def test_a_learned_tokenizer_is_the_same_each_time():
    code = "import data; print(sorted(data.learn_tokenizer(data.toy().train).get_vocab().items()))"
    runs = [subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True).stdout for _ in range(2)]
    assert runs[0] == runs[1] != b""


def test_a_sentence_too_long_is_named_and_never_cut():
    tokenizer = data.learn_tokenizer([Sentence("s", ["a"])])
    with pytest.raises(DataError, match=r"mine, train, s7: 12 wordpieces, and the encoder takes 11.*a a a"):
        data.encode([Sentence("s7", ["a"] * 10)], tokenizer, 11, "mine, train, ")
    assert len(data.encode([Sentence("s7", ["a"] * 10)], tokenizer, 12)[0].input_ids) == 12


def test_spans_of_words_become_spans_of_wordpieces():
    coded = data.Encoded(Sentence("s", ["a", "bcd", "e"]), [0] * 7, [True] * 6 + [False], [1, 2, 5], [2, 5, 6])
    batch = data.make_batch([data.prediction_example(coded, 2)], 2)
    assert batch.spans[0].tolist() == [[1, 2], [1, 5], [2, 5], [2, 6], [5, 6]]
    assert batch.widths[0].tolist() == [1, 2, 1, 2, 1] and batch.pairs.shape == (1, 0, 2) and batch.t_r.shape == (1, 0, 2)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 9), st.booleans())
def test_batches_hold_every_sentence_once(lengths, size, shuffled):
    encoded = [data.Encoded(Sentence(str(k), ["w"]), [0] * n, [], [], []) for k, n in enumerate(lengths)]
    batches = data.batches_of(encoded, size, random.Random(0) if shuffled else None)
    assert sorted(c.sentence.id for part in batches for c in part) == sorted(c.sentence.id for c in encoded)
    assert all(1 <= len(part) <= size for part in batches)


def test_batches_are_of_similar_length_and_others_in_another_order_with_each_seed():
    encoded = [data.Encoded(Sentence(str(k), ["w"]), [0] * (k % 10), [], [], []) for k in range(120)]
    ids = lambda batches: [tuple(c.sentence.id for c in part) for part in batches]  # noqa: E731
    one, other, again = (data.batches_of(encoded, 4, random.Random(seed)) for seed in (0, 1, 0))
    assert ids(one) == ids(again) and {*ids(one)} != {*ids(other)}
    lengths = [[len(c.input_ids) for c in part] for part in one]
    assert sum(max(part) - min(part) for part in lengths) < 0.5 * len(lengths) and lengths != sorted(lengths)


@given(found=st.lists(sentences(), min_size=1, max_size=3))
def test_a_batch_is_its_examples_padded(found):
    examples = [data.training_example(coded(s), *TYPES, data.Sampling(3, 2)) for s in found]
    batch = data.make_batch(examples, C=3, pad_id=7)
    for b, example in enumerate(examples):
        n, S, P = len(example.encoded.input_ids), len(example.spans), len(example.pairs)
        assert batch.input_ids[b].tolist() == example.encoded.input_ids + [7] * (batch.input_ids.shape[1] - n)
        for mask, count in ((batch.attention_mask, n), (batch.is_token, n - 1), (batch.is_span, S), (batch.is_pair, P)):  # without [SEP]
            assert mask[b].tolist() == [True] * count + [False] * (mask.shape[1] - count)
        assert [tuple(span) for span in batch.spans[b, :S].tolist()] == [(i + 1, j + 1) for i, j in example.spans]  # behind [CLS]
        assert batch.widths[b, :S].tolist() == [j - i for i, j in example.spans] and batch.t_s[b, :S].tolist() == example.span_types
        assert [tuple(pair) for pair in batch.pairs[b, :P].tolist()] == example.pairs
        assert [{*row.nonzero().flatten().tolist()} for row in batch.t_r[b, :P]] == example.pair_types and not batch.t_r[b, P:].any()
    assert batch.arguments == max(example.arguments for example in examples)


# -- Readers --------------------------------------------------------------------------------------------------------------


def test_toy_shows_what_it_says():
    corpus = data.toy()
    assert [len(part) for part in corpus.splits.values()] == [600, 100, 400] and corpus.train == data.toy().train
    everything = [s for part in corpus.splits.values() for s in part]
    assert len({s.text for s in everything}) == 1100
    assert {s.phenomenon for s in everything} == {"span", "local", "sentence", ""}
    assert {e.end - e.start for s in everything for e in s.entities} >= {1, 2, 3, 4, 5}
    assert any(a.start < b.end and b.start < a.end for s in everything for a in s.entities for b in s.entities if a != b)
    assert any(not s.relations for s in everything) and any(len(s.relations) > 1 for s in everything)
    types = {}
    for s in everything:
        if s.phenomenon == "span":  # the same two nouns in either order have either type
            types.setdefault(frozenset(s.words[s.entities[0].start : s.entities[0].end]), set()).add(s.entities[0].type)
        if s.phenomenon == "local":  # both pairs have both words between, and the more frequent one decides
            (a, b), (c, d) = [sorted((e.start, e.end) for e in s.entities)[k : k + 2] for k in (0, 2)]
            says = [s.words[left[1] : right[0]] for left, right in ((a, b), (c, d))]
            assert all({"positive", "negative"} <= set(words) for words in says)
            assert len(s.relations) == sum(words.count("positive") > words.count("negative") for words in says)
        if s.phenomenon == "sentence":  # one word elsewhere decides
            found = s.relations if len(s.entities) == 2 else s.entities
            assert bool(found) == bool({"confirmed", "proved", "given", "infused"} & set(s.words))
    assert max(map(len, types.values())) == 2


ROWS = """1|A rash by aspirin and quinine.|rash|102|106|aspirin|110|117
1|A rash by aspirin and quinine.|rash|102|106|quinine|122|129
2|Gold gold rash.|gold rash|5|14| gold|4|9"""


def test_ade_reader_finds_the_offset_of_each_sentence():
    one, two = data.parse_ade(ROWS, "f")
    assert one.words == ["A", "rash", "by", "aspirin", "and", "quinine", "."] and one.id == "1:100"
    assert one.entities == [Entity("Adverse-Effect", 1, 2), Entity("Drug", 3, 4), Entity("Drug", 5, 6)]
    assert [(r.head, r.tail) for r in one.relations] == [(one.entities[0], one.entities[1]), (one.entities[0], one.entities[2])]
    assert two.entities == [Entity("Adverse-Effect", 1, 3), Entity("Drug", 1, 2)]  # overlapping ones are kept


@pytest.mark.parametrize("row", ["1|text|rash|0|4", "1|A rash.|rash|x|6|A|0|1", "1|A rash.|itch|2|6|A|0|1", "1|A rash.|rash|2|6|A|1|2"])
def test_ade_reader_names_the_row_that_is_wrong(row):
    with pytest.raises(DataError, match="f, row 4: "):
        data.parse_ade(f"{ROWS}\n{row}", "f")


DOCUMENT = """#doc 7
0\tAnn\tB-Peop\t['N']\t[0]
1\tLee\tI-Peop\t['Live_In', 'Work_For']\t[4, 3]
2\tleft\tO\t['N']\t[2]
3\tIBM\tI-Org\t['N']\t[3]
4\tRome\tB-Loc\t['N']\t[4]
5\tParis\tB-Loc\t['N']\t[5]"""


def test_conll04_reader_on_a_small_document():
    (sentence,) = data.parse_conll04(DOCUMENT, "f")
    ann, ibm, rome, paris = sentence.entities
    assert (ann, ibm) == (Entity("Peop", 0, 2), Entity("Org", 3, 4))  # an I- behind O opens an entity [L24]
    assert (rome.start, paris.start) == (4, 5)  # adjacent ones stay two
    assert sentence.relations == [Relation("Live_In", ann, rome), Relation("Work_For", ann, ibm)]


@pytest.mark.parametrize("line", ["0 Ann B-Peop ['N'] [0]", "0\tAnn\tPeop\t['N']\t[0]", "6\tx\tB-Loc\t['Kill']\t[2]", "6\tx\tO\t['Kill']\t[1]", "6\tx\tI\t['N']\t[6]"])
def test_conll04_reader_names_the_line_that_is_wrong(line):
    with pytest.raises(DataError, match="f, line 8: "):
        data.parse_conll04(f"{DOCUMENT}\n{line}", "f")


ACE = {
    "doc_key": "d", "sentences": [["He", "left", "."], ["The", "old", "man", "saw", "Rome"]],
    "ner": [[[0, 0, "PER", 0, 0]], [[3, 5, "PER", 5, 5], [7, 7, "GPE", 7, 7]]],
    "relations": [[], [[3, 5, 7, 7, "PHYS"]]],
}  # fmt: skip


def test_ace05_reader_by_mention_and_by_head():
    first, second = data.parse_ace05(json.dumps(ACE), "f")
    assert first.entities == [Entity("PER", 0, 1)] and second.entities == [Entity("PER", 0, 3), Entity("GPE", 4, 5)]
    assert second.relations == [Relation("PHYS", *second.entities)]
    _, by_head = data.parse_ace05(json.dumps(ACE), "f", heads_only=True)
    assert by_head.entities == [Entity("PER", 2, 3), Entity("GPE", 4, 5)] and by_head.relations[0].head == by_head.entities[0]


def test_ace05_keeps_both_types_of_a_span_and_what_the_reader_cannot_use_is_left_out():
    both = ACE | {"sentences": [[], ["a", "\u2028"]], "ner": [[], [[0, 0, "PER"], [0, 0, "ORG"], [1, 1, "ORG"]]], "relations": [[], [[0, 0, 1, 1, "X"]]]}
    (sentence,) = data.parse_ace05(json.dumps(both, ensure_ascii=False), "f")
    assert [e.type for e in sentence.entities] == ["PER", "ORG", "ORG"] and sentence.relations[0].head.type == "PER"
    with pytest.raises(DataError, match="--heads-only: the entity at 0 to 0 has no head region"):
        data.parse_ace05(json.dumps(both), "f", heads_only=True)
    shared = ACE | {"ner": [[], [[3, 5, "PER", 5, 5], [4, 5, "PER", 5, 5]]], "relations": [[], [[3, 5, 4, 5, "X"]]]}
    assert data.parse_ace05(json.dumps(shared), "f", heads_only=True)[1].relations == []


ACE_WRONG = [{"ner": [[[0, 9, "PER"]], []]}, {"relations": [[[0, 0, 1, 1, "X"]], []]}, {"sentences": 3}, {"ner": []}, {"sentences": ["abc", ["d"]]},
             {"ner": [[[0, 0, None]], []]}, {"ner": [[[True, 0, "PER"]], []]}]  # fmt: skip


@pytest.mark.parametrize("change", ACE_WRONG, ids=range(len(ACE_WRONG)))
def test_ace05_reader_names_the_document_that_is_wrong(change):
    with pytest.raises(DataError, match="f, line 2: "):
        data.parse_ace05(json.dumps(ACE) + "\n" + json.dumps(ACE | change), "f")


@given(written=st.lists(sentences(), min_size=1, max_size=4))
def test_what_is_written_in_sperts_json_is_read_back(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("json") / "train.json"
    path.write_text(json.dumps([s.to_json() for s in written]), encoding="utf-8")
    assert data.read_json(path) == written


RECORD = {"tokens": ["a", "b"], "entities": [{"type": "A", "start": 0, "end": 1}, {"type": "A", "start": 1, "end": 2}],
          "relations": [{"type": "R", "head": 0, "tail": 1}]}  # fmt: skip
def entity(**change):
    return {"entities": [{"type": "A", "start": 0, "end": 1} | change], "relations": []}


def relation(**change):
    return {"relations": [{"type": "R", "head": 0, "tail": 1} | change]}


WRONG = {  # what is changed in RECORD: the field that is named
    "no words": ({"tokens": []}, "tokens: empty"),
    "a text for words": ({"tokens": "ab"}, "tokens: 'ab'; must be a list"),
    "no tokens": ({"tokens": None}, "tokens: missing or null"),
    "an empty word": ({"tokens": ["a", ""]}, "tokens[1]: ''; must be a word"),
    "a number for a word": ({"tokens": ["a", 7]}, "tokens[1]: 7"),
    "half a character": ({"tokens": ["a", "\ud800"]}, "tokens[1]: '\\ud800'"),
    "no entities": ({"entities": None}, "entities: missing"),
    "an object for entities": ({"entities": {}}, "entities: {}; must be a list"),
    "a number for an entity": ({"entities": [3], "relations": []}, 'entities[0]: 3; must be {"type", "start", "end"}'),
    "end beyond the words": (entity(end=3), "entities[0].end: 3; must be an integer from 1 to 2, since there are 2 words"),
    "end at start": (entity(start=1, end=1), "entities[0].end: 1; must be beyond start, 1"),
    "a negative start": (entity(start=-1), "entities[0].start: -1"),
    "a start that is no integer": (entity(start=0.0), "entities[0].start: 0.0"),
    "a start that is true": (entity(start=False), "entities[0].start: False"),
    "a text for a start": (entity(start="0"), "entities[0].start: '0'"),
    "no end": (entity(end=None), "entities[0].end: missing"),
    "an empty type": (entity(type=""), "entities[0].type: ''; must be a name"),
    "no type": (entity(type=None), "entities[0].type: missing"),
    "a list for a type": (entity(type=["A"]), "entities[0].type: ['A']"),
    "no relations": ({"relations": None}, "relations: missing"),
    "a tail beyond the entities": (relation(tail=2), "relations[0].tail: 2; must be an integer from 0 to 1, since there are 2 entities"),
    "a head that is true": (relation(head=True), "relations[0].head: True"),
    "no entity to join": ({"entities": []}, "relations[0].head: 0; can be nothing, since there are 0 entities"),
    "head = tail": (relation(head=1), "relations[0]: joins an entity with itself"),
    "head = tail, given twice": ({"entities": [RECORD["entities"][0]] * 2}, "relations[0]: joins an entity with itself"),
    "a relation without a type": (relation(type=None), "relations[0].type: missing"),
}


@pytest.mark.parametrize("change, says", WRONG.values(), ids=WRONG)
def test_a_wrong_field_is_named_in_every_record(tmp_path, change, says):
    path = tmp_path / "train.json"
    path.write_text(json.dumps([RECORD | change, RECORD, RECORD | change]))
    with pytest.raises(DataError) as error:
        data.read_json(path)
    lines = str(error.value).splitlines()
    assert any(line.startswith(f"{path}, record 0, {says}") for line in lines) and any(f"record 2, {says}" in line for line in lines)
    assert not any("record 1" in line for line in lines)


def test_all_that_is_wrong_with_a_record_is_named():
    wrong = {"tokens": ["a", 1], "entities": [{"type": "", "start": 5, "end": "x"}, 3, {"type": "A", "start": 1, "end": 1}],
             "relations": [{"type": "R", "head": 1, "tail": 1}, {"type": None, "head": 9, "tail": 0}]}  # fmt: skip
    assert [fault.split(":")[0] for fault in data.faults(wrong)] == [
        "tokens[1]", "entities[0].type", "entities[0].start", "entities[0].end", "entities[1]", "entities[2].end",
        "relations[0]", "relations[1].type", "relations[1].head"]  # fmt: skip


@given(sentence=sentences())
def test_what_a_sentence_writes_has_no_faults(sentence):
    assert data.faults(sentence.to_json()) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 5) | st.floats() | st.text(max_size=3) | st.sampled_from([1e999, 10**30, "\ud800"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["tokens", "entities", "relations", "type", "start", "end", "head", "tail", "orig_id"]), inner, max_size=6),
    max_leaves=20,
)
ALMOST = st.fixed_dictionaries({
    "tokens": st.lists(st.sampled_from(["a", "b", "", 1]) | JSON, max_size=4) | JSON,
    "entities": st.lists(st.fixed_dictionaries({"type": st.sampled_from(["A", "B"]) | JSON, "start": JSON, "end": JSON}), max_size=3) | JSON,
    "relations": st.lists(st.fixed_dictionaries({"type": JSON, "head": JSON, "tail": JSON}), max_size=3) | JSON,
})  # fmt: skip


@settings(max_examples=5 * settings().max_examples)
@given(document=JSON | st.lists(ALMOST, max_size=3) | st.lists(JSON | st.just(RECORD), max_size=3), cut=st.none() | st.integers(0, 40))
def test_any_json_is_a_corpus_or_is_told_line_by_line(tmp_path_factory, document, cut):
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    text = json.dumps(document)
    for name in ("train", "dev", "test"):
        (folder / f"{name}.json").write_text(text[:cut])
    for use in (lambda: data.card(data.read_corpus(str(folder))), lambda: data.read_texts([str(folder / "test.json")])):
        try:
            use()
        except DataError as error:
            assert all(line.startswith(str(folder)) for line in str(error).splitlines())


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff[]", b"[]", b"[" * 100000])
def test_a_file_that_holds_no_sentences_is_named_and_the_status_is_2(tmp_path, content, capsys):
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.json").write_bytes(content)
    assert data.main(["--dataset", str(tmp_path)]) == 2
    said = capsys.readouterr().err.splitlines()
    if content == b"[]":
        assert said == [f"{tmp_path}: train has no sentence"]
    else:  # all three files are named
        assert [line.split(": ")[0] for line in said] == [str(tmp_path / f"{name}.json") for name in ("train", "dev", "test")]


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_words_of_a_text_stand_where_their_offsets_say_and_nothing_visible_is_lost(text):
    sentence = Sentence.from_text(text)
    assert [text[a:b] for a, b in sentence.offsets] == sentence.words and sentence.text == text
    assert "".join(sentence.words) == "".join(text.split())


def test_raw_text_is_cut_as_ade_is():
    text = "Gemcitabine-induced pulmonary toxicity, 😀 é e\u0301!"  # one é is two characters
    sentence = Sentence.from_text(text)
    assert sentence.words == ["Gemcitabine", "-", "induced", "pulmonary", "toxicity", ",", "😀", "é", "e\u0301", "!"]
    assert text[slice(*sentence.chars(Entity("Adverse-Effect", 3, 5)))] == "pulmonary toxicity"


# -- Showing sentences ----------------------------------------------------------------------------------------------------


def svg(sentence, gold=None):
    """The picture as a tree, and its texts with their places."""
    tree = ElementTree.fromstring(data.picture(sentence, gold))
    return tree, [t.text for t in tree.iter("{http://www.w3.org/2000/svg}text")]


@given(sentence=sentences(), other=st.randoms())
def test_a_picture_is_well_formed_and_holds_every_word_and_label_with_its_mark(sentence, other):
    predicted = Sentence(sentence.id, sentence.words, *annotated(other, len(sentence.words)))
    for shown, gold in ((sentence, None), (predicted, sentence)):
        _, texts = svg(shown, gold)
        assert not Counter(shown.words) - Counter(texts)
        marks = data.marked(shown.entities, gold and gold.entities) + data.marked(shown.relations, gold and gold.relations)
        assert {f"{mark} {item.type}".strip() for mark, item in marks} == set(texts) - set(shown.words)
        terminal = data.show(shown, gold).splitlines()[2:]
        assert [line[2] for line in terminal] == [mark for mark, _ in marks]


def test_right_wrong_and_missed_are_told_apart_by_sign_and_by_line():
    a, b, c = Entity("A", 0, 1), Entity("B", 1, 2), Entity("A", 2, 3)
    predicted, gold = Sentence("s", ["x", "y", "z"], [a, b], []), Sentence("s", ["x", "y", "z"], [a, c], [Relation("R", a, c)])
    tree, texts = svg(predicted, gold)
    assert {"= A", "+ B", "- A", "- R"} <= set(texts)
    dashes = [path.get("stroke-dasharray") for path in tree.iter("{http://www.w3.org/2000/svg}path")]
    assert dashes == ["", "5 3", "1 3", "1 3"]
    assert data.show(predicted, gold).splitlines()[2:] == [
        '  = A                      "x" [0, 1)', '  + B                      "y" [2, 3)', '  - A                      "z" [4, 5)',
        '  - R                      "x" [0, 1) -> "z" [4, 5)']  # fmt: skip
    assert "\033[31m  + B" in data.show(predicted, gold, colour=True)


def test_words_are_laid_out_in_rows_with_room_for_wide_characters_and_none_for_accents():
    sentence = Sentence.from_text("é e\u0301 日本 x-y " + "long " * 40)
    places = data.layout(sentence)
    widths = [width // data.CELL for _, _, width in places]
    assert [width for word, width in zip(sentence.words, widths) if word == "日本"] == [4] and widths[:2] == [1, 1]  # é and e with its accent
    x = {word: (at, width) for word, (_, at, width) in zip(sentence.words, places)}
    assert x["-"][0] == x["x"][0] + x["x"][1] and x["y"][0] == x["-"][0] + x["-"][1]  # no blank within x-y
    rows = [row for row, _, _ in places]
    assert rows == sorted(rows) and rows[-1] == 2 and all(0 <= at and at + width <= data.WIDE for _, at, width in places)


def test_a_relation_between_two_rows_leaves_one_and_arrives_in_the_other():
    words = ["w"] * 120
    a, b = Entity("A", 0, 1), Entity("A", 119, 120)
    for head, tail in ((a, b), (b, a)):
        tree, texts = svg(Sentence("s", words, [a, b], [Relation("R", head, tail)]))
        arcs = [path.get("d") for path in tree.iter("{http://www.w3.org/2000/svg}path")]
        assert texts.count("R") == 2 and sum("l3,5l3,-5" in path for path in arcs) == 1  # one arrow


def test_a_page_is_one_ascii_file_in_which_nothing_of_the_text_is_markup():
    sentence = Sentence.from_text("<script>alert(1)</script> & é 😀", '"><b>')
    page = data.page([(sentence, None), (sentence, sentence)], "a <title>")
    assert page.isascii() and "<script" not in page and "<b>" not in page and "a &lt;title&gt;" in page
    assert "src=" not in page and "href=" not in page and "&#128512;" in page  # it needs no other file
    assert "dashed" in page and "dashed" not in data.page([(sentence, None)], "without gold")
    (image,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', sentence._repr_html_())
    assert base64.b64decode(image).decode() == data.picture(sentence) and "<script" not in sentence._repr_html_()


def test_texts_to_predict_come_from_arguments_lines_and_json(tmp_path):
    lines, records = tmp_path / "lines.text", tmp_path / "records.JSON"
    lines.write_text("\ufeffA rash.\n\nNo 😀 rash.\n", encoding="utf-8")
    records.write_text(json.dumps(["A rash.", ["A", "rash"], RECORD, {"tokens": ["x"]}]))
    pairs = data.read_texts(["A rash.", str(lines), str(records)])
    assert [s.words for s, _ in pairs] == [["A", "rash", "."], ["A", "rash", "."], ["No", "😀", "rash", "."], ["A", "rash", "."],
                                           ["A", "rash"], ["a", "b"], ["x"]]  # fmt: skip
    assert [s.id for s, _ in pairs] == ["text 1", "lines.text:1", "lines.text:3"] + [f"records.JSON:{k}" for k in range(4)]
    assert [gold is not None for _, gold in pairs] == [False] * 5 + [True, False]


# -- The published corpora ------------------------------------------------------------------------------------------------


def numbers(corpus, name):
    """The counts in that row of the corpus card: train, dev, test, all."""
    row = next(line for line in data.card(corpus).splitlines() if re.match(rf" *{name}  ", line))
    return [int(count.replace(",", "")) for count in row.split()[-4:]]


@needs_corpora
def test_ade_has_the_counts_that_were_published():
    corpus = data.read_corpus("ade", REAL)
    counted = {"sentences": 4272, "entities": 10839, "Adverse-Effect": 5776, "Drug": 5063, "relations": 6821,
               "sentences with overlapping entities": 119, "entities wider than 10 words": 7}  # fmt: skip
    assert {name: numbers(corpus, name)[-1] for name in counted} == counted


@needs_corpora
def test_ades_folds_partition_the_corpus():
    folds = [data.read_corpus("ade", REAL, fold) for fold in range(10)]
    assert sorted(s.id for fold in folds for s in fold.test) == sorted(s.id for part in folds[0].splits.values() for s in part)
    for fold in folds:
        ids = [{s.id for s in part} for part in fold.splits.values()]
        assert sum(map(len, ids)) == len(set.union(*ids)) == 4272


@needs_corpora
def test_conll04_has_the_counts_that_were_published():
    corpus = data.read_corpus("conll04", REAL)
    assert numbers(corpus, "sentences")[:3] == [910, 243, 288]
    assert numbers(corpus, "entities")[:3] == [3393, 877, 1079]
    assert numbers(corpus, "relations")[:3] == [1273, 353, 422]


def test_sperts_own_fold_files_are_used_where_they_lie(tmp_path):
    (tmp_path / "ade").mkdir()
    for part, count in (("train", 18), ("test", 3)):
        (tmp_path / f"ade/ade_split_4_{part}.json").write_text(json.dumps([RECORD | {"orig_id": k} for k in range(count)]))
    corpus = data.read_corpus("ade", tmp_path, 4)
    assert [len(part) for part in corpus.splits.values()] == [16, 2, 3]


@pytest.fixture
def server(tmp_path):
    """A local server in the hub's place; it gives what is put into its folder."""
    root = tmp_path / "server"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given):
            super().__init__(*given, directory=root)

        def log_message(self, *given):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield root, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_download_is_checked_kept_and_not_fetched_again(server, tmp_path, monkeypatch):
    root, host = server
    (root / "file.txt").write_text(DOCUMENT)
    monkeypatch.setitem(data.SOURCES, "conll04/train.txt", ("file.txt", hashlib.sha256(DOCUMENT.encode()).hexdigest()))
    path = data.fetch(tmp_path, "conll04/train.txt", host)
    assert path.read_text() == DOCUMENT and [p.name for p in path.parent.iterdir()] == ["train.txt"]  # nothing half-written
    assert data.fetch(tmp_path, "conll04/train.txt", "http://127.0.0.1:9") == path
    path.write_text("mine")
    with pytest.raises(DataError, match="not the published file"):
        data.fetch(tmp_path, "conll04/train.txt", host)
    assert path.read_text() == "mine"


def test_a_wrong_download_is_not_kept(server, tmp_path):
    root, host = server
    address, _ = data.SOURCES["ade/ADE-Corpus-V2.zip"]
    (root / address).parent.mkdir(parents=True)
    (root / address).write_text("an error page")
    with pytest.raises(DataError, match=r"cannot be fetched \(invalid hash"):
        data.fetch(tmp_path, "ade/ADE-Corpus-V2.zip", host)
    assert not list((tmp_path / "ade").iterdir())


@needs_corpora
def test_the_real_corpora_come_through_the_real_download(server, tmp_path):
    root, host = server
    for name, (address, _) in data.SOURCES.items():
        (root / address).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REAL / name, root / address)
        data.fetch(tmp_path, name, host)
    assert len(data.read_corpus("ade", tmp_path).test) == 428 and len(data.read_corpus("conll04", tmp_path).test) == 288


def test_no_network_is_one_line_that_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"train.txt is not there, and http://127.0.0.1:9/.* put the file there by hand.*python train.py"):
        data.fetch(tmp_path, "conll04/train.txt", "http://127.0.0.1:9")


def cli(*arguments, by=(), **env):
    command = [sys.executable, *by, "train.py", *map(str, arguments)]
    return subprocess.run(command, cwd=HERE, env={**os.environ, **env}, text=True, capture_output=True)


def test_no_network_for_the_encoder_is_one_line_within_seconds(tmp_path):
    begun = time.time()
    done = cli("--encoder", "bert-base-cased", "--output", tmp_path / "run", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and time.time() - begun < 15 + 10  # starting Python included
    assert "--encoder bert-base-cased is not here" in done.stderr and "--encoder tiny" in done.stderr


BAD_FLAGS = [
    ("--negative-rate", -5), ("--clip", 0), ("--warmup", "nan"), ("--dropout", 2), ("--lr", "nan"), ("--clip", -1), ("--layers", 100000), ("--load", ""),
    ("--seed", 10**20), ("--fold", 7), ("--heads-only",), ("--dataset", "n" * 5000), ("--load", "n" * 5000, "--predict", "x"),
    ("--epochs", 0), ("--model", "spert", "--ablate", "local"), ("--model", "spert", "--attention", "dot"), ("--encoder", HERE),
    ("--encoder", "a//b"), ("--dataset", "nowhere"), ("--dataset", HERE), ("--dataset", "ade", "--fold", 10), ("--device", "abacus"),
    ("--output", HERE), ("--heads", 7), ("--load", HERE, "--evaluate"), ("--predict", "x"), ("--evaluate",),
    ("--dataset", "ace05", "--data-dir", HERE),
]  # fmt: skip


@pytest.mark.parametrize("arguments", BAD_FLAGS, ids=lambda a: " ".join(map(str, a))[:40])
def test_a_bad_flag_is_one_line_and_status_2(arguments, capsys):
    assert train.main([str(a) for a in arguments]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1 and not said.out


@pytest.fixture(scope="session")
def saved_run(tmp_path_factory):
    """A run folder, of a model that was not trained."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    folder.mkdir()
    toy_run().save(folder)
    return folder


def changed(name, **change):
    """Changes what a JSON file of the run folder says."""
    return {f"run/{name}": lambda old: json.dumps({**json.loads(old), **change}).encode()}


GONE, HALF = (lambda old: None), (lambda old: old[: len(old) // 2])
TEXT = ("--load", "run", "--predict", "A rash.")
RECORDS = json.dumps([RECORD] * 2).encode()
CORPUS = {f"mine/{name}.json": RECORDS for name in ("train", "dev", "test")}
CARD, TRAIN = ("data", "--dataset", "mine"), ("--dataset", "mine", "--encoder", "tiny", "--epochs", "1", "--output", "new")
BAD_INPUTS = {  # files beside a good corpus and a good run, the command, and what must be said
    "a split is missing": ({"mine/dev.json": None}, CARD, "mine/dev.json not there"),
    "two splits are missing": ({"mine/dev.json": None, "mine/test.json": None}, TRAIN, "mine/dev.json, mine/test.json not there"),
    "an empty file": ({"mine/train.json": b""}, CARD, "mine/train.json: JSONDecodeError"),
    "a truncated file": ({"mine/train.json": RECORDS[:-9]}, CARD, "mine/train.json: JSONDecodeError"),
    "no UTF-8": ({"mine/train.json": b'["\xff"]'}, CARD, "mine/train.json: not UTF-8 at byte 2"),
    "UTF-16": ({"mine/train.json": RECORDS.decode().encode("utf-16")}, CARD, "mine/train.json: not UTF-8 at byte 0"),
    "an object for a list": ({"mine/train.json": b"{}"}, CARD, "mine/train.json: it is {}"),
    "deeper than Python reads": ({"mine/train.json": b"[" * 10**5}, CARD, "mine/train.json: RecursionError"),
    "a number for a record": ({"mine/train.json": b"[3]"}, TRAIN, "mine/train.json, record 0, it is 3"),
    "no sentence": ({"mine/test.json": b"[]"}, TRAIN, "mine: test has no sentence"),
    "a folder of nothing": ({}, ("data", "--dataset", "run"), "run/train.json, run/dev.json, run/test.json not there"),
    "no such folder": ({}, ("data", "--dataset", "nowhere"), "--dataset nowhere: neither toy"),
    "a fold of one's own": ({}, (*TRAIN, "--fold", "3"), "--fold goes with --dataset ade"),
    "another ADE": ({"data/ade/ADE-Corpus-V2.zip": b"x"}, ("data", "--dataset", "ade"), "data/ade/ADE-Corpus-V2.zip: not the published file"),
    "another CoNLL04": ({"data/conll04/train.txt": b"x"}, ("--dataset", "conll04"), "data/conll04/train.txt: not the published file"),
    "no ACE05": ({}, ("data", "--dataset", "ace05"), "ACE05 is licensed"),
    "a wrong ACE05": ({f"data/ace05/{name}.json": b"{}" for name in ("train", "dev", "test")}, ("data", "--dataset", "ace05"), "train.json, line 1: KeyError"),
    "a sentence beyond the encoder": ({"mine/dev.json": json.dumps([RECORD | {"tokens": ["a", "b"] * 300}]).encode()}, TRAIN, "dev-0: 602 wordpieces"),
    "an encoder without weights": ({"run/model.safetensors": None}, ("--dataset", "mine", "--encoder", "run", "--output", "new"), "--encoder run: "),
    "an encoder of pickles": ({"run/model.safetensors": None, "run/pytorch_model.bin": b"x"}, ("--encoder", "run", "--output", "new"), "--encoder run: "),
    "a run that is there": ({}, (*TRAIN[:-1], "run"), "--output run exists; a run is never written over"),
    "a folder that cannot be made": ({"file": b""}, (*TRAIN[:-1], "file/new"), "--output file/new: Not a directory"),
    "no such flag": ({}, ("--epoch", "3"), "unrecognized arguments: --epoch 3"),
    "a word for a number": ({}, ("--epochs", "many"), "argument --epochs: invalid int value: 'many'"),
    "no such choice": ({}, ("--attention", "soft"), "argument --attention: invalid choice: 'soft'"),
    "a flag without its value": ({}, ("--load",), "argument --load: expected one argument"),
    "a flag of the future": ({}, ("data", "--encodr", "x"), "unrecognized arguments"),
    "a setting of a saved run": ({}, (*TEXT, "--epochs", "3"), "--epochs does not go with --load"),
    "another encoder for a saved run": ({}, (*TEXT, "--encoder", "base"), "--encoder does not go with --load"),
    "nothing to do with a run": ({}, ("--load", "run"), "--load RUN goes with --predict TEXT or --evaluate"),
    "prediction without a run": ({}, ("--predict", "A rash."), "--predict goes with --load RUN"),
    "two things at once": ({}, ("--load", "run", "--report", "run"), "--report does not go with --load"),
    "a run without weights": ({"run/model.safetensors": None}, TEXT, "run: model.safetensors is not there"),
    "a run without a tokenizer": ({"run/tokenizer.json": None}, TEXT, "run: tokenizer.json is not there"),
    "half the weights": ({"run/model.safetensors": HALF}, TEXT, "run: not a whole run: SafetensorError"),
    "half a config": ({"run/config.json": HALF}, TEXT, "run: not a whole run: JSONDecodeError"),
    "half a tokenizer": ({"run/tokenizer.json": HALF}, TEXT, "run: not a whole run: "),
    "the weights of other types": (changed("config.json", entity_types=["A"]), TEXT, "run: not a whole run: RuntimeError"),
    "another encoder's description": (changed("config.json", encoder={"model_type": "bert", "hidden_size": 32, "num_attention_heads": 4}), TEXT, "run: not a whole run: "),
    "no types": (changed("config.json", relation_types=None), TEXT, "run: not a whole run: TypeError"),
    "a setting that there is not": (changed("config.json", settings={"config": {"ablate": [], "glue": 1}}), TEXT, "run: not a whole run: TypeError"),
    "a file that is not there": ({}, (*TEXT[:-1], "texts.txt"), "texts.txt: No such file or directory"),
    "a folder of texts": ({}, (*TEXT[:-1], "mine"), "mine: Is a directory"),
    "texts that are no UTF-8": ({"texts.txt": b"A r\xe4sh"}, (*TEXT[:-1], "texts.txt"), "texts.txt: not UTF-8 at byte 3"),
    "texts in half a JSON": ({"texts.json": b'["A rash."'}, (*TEXT[:-1], "texts.json"), "texts.json: JSONDecodeError"),
    "a number for a text": ({"texts.json": b'["A rash.", 3]'}, (*TEXT[:-1], "texts.json"), "texts.json, 1, it is 3"),
    "a text without words in JSON": ({"texts.json": b'[{"tokens": []}]'}, (*TEXT[:-1], "texts.json"), "texts.json, 0, tokens: empty"),
    "a text beyond the encoder": ({}, (*TEXT[:-1], "word " * 600), "wordpieces, and the encoder takes 512; split the sentence that begins"),
    "half a character": ({}, (*TEXT[:-1], "\udc80"), "text 1: '\\udc80'; it must be UTF-8"),
    "no such format": ({}, (*TEXT, "--format", "pdf"), "argument --format: invalid choice: 'pdf'"),
    "nothing to resume": ({}, ("--resume", "nowhere"), "--resume nowhere: no config.json there"),
    "a run that came to its end": ({"run/metrics.json": b"{}"}, ("--resume", "run"), "--resume run: that run came to its end"),
    "a resumed run with other settings": ({}, ("--resume", "run", "--epochs", "9"), "--epochs does not go with --resume"),
    "half a checkpoint": ({"run/checkpoint.safetensors": b"x"}, ("--resume", "run"), "run/checkpoint.safetensors: not a checkpoint of this run"),
    "a report of nothing": ({}, ("--report", "nowhere"), "nowhere: No such file or directory"),
    "a report of a run without scores": ({}, ("--report", "run"), "run/metrics.json: No such file or directory"),
    "a report of something else": ({"mine.json": b'[{"command": "ls"}]'}, ("--report", "mine.json"), "mine.json: 'ls' trains nothing"),
    "a report of counts for some sentences": ({"mine.json": json.dumps([{"command": "python train.py", **train.scores([], []), "by_sentence":
        {"entity": {"all": {"gold": "1 2", "predicted": "1", "correct": "1"}}}}]).encode()}, ("--report", "mine.json"), "mine.json: "),
    "a report of what is no run": ({"mine.json": b'[{"command": "python train.py --load x"}]'}, ("--report", "mine.json"), "trains nothing"),
    "a report of a command of yesterday": ({"mine.json": b'[{"command": "python train.py --glue 1"}]'}, ("--report", "mine.json"), "unrecognized arguments: --glue 1"),
}  # fmt: skip


def contents(folder):
    """Every file below a folder, with what is in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("files, command, says", BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_a_bad_input_is_one_line_and_nothing_is_written(files, command, says, tmp_path, saved_run, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved_run, "run")
    for name, content in (CORPUS | files).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = content(path.read_bytes()) if callable(content) else content
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
    before = contents(tmp_path)
    run = data.main if command[0] == "data" else train.main
    assert run(list(command[command[0] == "data" :])) == 2
    said = capsys.readouterr()
    assert says in said.err and len(said.err.splitlines()) == 1 and not said.out
    assert contents(tmp_path) == before


def test_every_error_of_every_split_is_listed(tmp_path, capsys):
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.json").write_text(json.dumps([RECORD, RECORD | entity(start=7, end=9), 3]))
    assert data.main(["--dataset", str(tmp_path)]) == 2
    assert [line.split(": ")[0].replace(str(tmp_path), "") for line in capsys.readouterr().err.splitlines()] == [
        f"/{name}.json, record {place}" for name in ("train", "dev", "test") for place in ("1, entities[0].start", "1, entities[0].end", "2, it is 3; it must be {\"tokens\"")]  # fmt: skip


def test_the_card_counts_what_is_twice_and_what_an_encoder_cannot_read(tmp_path, saved_run, capsys):
    twice = RECORD | {"entities": RECORD["entities"] * 2, "relations": RECORD["relations"] * 2}
    long = {"tokens": ["a"] * 600, "entities": [{"type": "C", "start": 0, "end": 1}], "relations": []}
    odd = {"tokens": ["a", "\u200b", "日"], "entities": [], "relations": []}  # one has no wordpiece, one no known character
    for name, records in (("train", [RECORD, twice]), ("dev", [RECORD]), ("test", [long, odd])):
        (tmp_path / f"{name}.json").write_text(json.dumps(records))
    assert data.main(["--dataset", str(tmp_path), "--encoder", str(saved_run)]) == 0
    rows = {line[:40].strip(): line[40:].split() for line in capsys.readouterr().out.splitlines()}
    assert rows["sentences that stood before"] == ["1", "1", "0", "2"]
    assert rows["entities, relations given twice"] == ["3", "0", "0", "3"]
    assert rows["of a type that train lacks"] == ["0", "0", "1", "1"]
    assert rows["sentences of over 512 wordpieces"] == ["0", "0", "1", "1"] and rows["words read as [UNK]"] == ["0", "0", "2", "2"]


# -- Scores ---------------------------------------------------------------------------------------------------------------


def test_scores_on_a_case_worked_by_hand():
    a, b, c, wrong = Entity("A", 0, 1), Entity("A", 2, 4), Entity("B", 5, 6), Entity("B", 2, 4)
    gold = [Sentence("1", ["w"] * 6, [a, b, c], [Relation("R", a, b), Relation("R", a, c), Relation("S", c, a)])]
    guess = [Sentence("1", ["w"] * 6, [a, wrong, c], [Relation("R", a, wrong), Relation("R", a, c), Relation("S", a, c)])]
    result = train.scores(gold, guess)
    assert result["entity"]["micro"] == {"p": 200 / 3, "r": 200 / 3, "f1": 200 / 3, "gold": 3, "predicted": 3, "correct": 2}
    assert result["entity"]["by_type"]["A"]["p"] == 100 and result["entity"]["by_type"]["A"]["r"] == 50
    assert result["entity"]["macro"]["f1"] == pytest.approx((200 / 3 + 200 / 3) / 2)
    assert result["relation"]["strict"]["micro"]["correct"] == 1  # not with an argument of the wrong type
    assert result["relation"]["boundaries"]["micro"]["correct"] == 2  # nor, in either, turned around
    assert result["relation"]["strict"]["by_type"]["S"]["f1"] == 0
    longer = Entity("A", 2, 5)
    moved = [Sentence("1", ["w"] * 6, [a, longer], [Relation("R", a, longer), Relation("R", longer, a)])]
    assert train.scores(gold, moved)["relation"]["boundaries"]["micro"]["correct"] == 0  # nor with another end


def loop_tally(gold, predicted):
    """Counts and F1 by type, by comparing each predicted item with each gold one; items are lists that begin with their type."""
    unlike = lambda items: [item for k, item in enumerate(items) if item not in items[:k]]  # noqa: E731
    gold, predicted, by_type = [unlike(items) for items in gold], [unlike(items) for items in predicted], {}
    for kind in {item[0] for items in gold + predicted for item in items}:
        right = sum(p == g and p[0] == kind for ps, gs in zip(predicted, gold) for p in ps for g in gs)
        counts = [sum(item[0] == kind for items in part for item in items) for part in (gold, predicted)]
        by_type[kind] = (right, *counts, loop_f1(right, *counts))
    total = [sum(row[k] for row in by_type.values()) for k in range(3)]
    return by_type, (*total, loop_f1(*total)), mean([row[3] for row in by_type.values()])


def loop_f1(right, gold, predicted):
    p, r = right / predicted if predicted else 0.0, right / gold if gold else 0.0
    return 100 * 2 * p * r / (p + r) if p + r else 0.0


@st.composite
def scored(draw, entity_types=TYPES[0], relation_types=TYPES[1]):
    """Gold sentences, and predictions that share some of their entities and relations."""
    rng, gold, predicted = random.Random(draw(st.integers(0, 2**32 - 1))), [], []
    for n in draw(st.lists(st.integers(1, 8), max_size=3)):
        (entities, relations), (others, related) = (annotated(rng, n, entity_types, relation_types) for _ in range(2))
        found = [*dict.fromkeys([e for e in entities if rng.random() < 0.7] + others)]
        kept = [r for r in relations if r.head in found and r.tail in found and rng.random() < 0.7]
        gold.append(Sentence("s", ["w"] * n, entities, relations))
        predicted.append(Sentence("s", ["w"] * n, found, [*dict.fromkeys(kept + related)]))
    return gold, predicted


def place(entity):
    return [entity.start, entity.end]


@of(scores=train.scores)
@given(both=scored())
def test_scores_agree_with_a_count_of_each_against_each(both, scores):
    result, (gold, predicted) = scores(*both), both
    views = {
        "entity": lambda s: [[e.type, *place(e)] for e in s.entities],
        "strict": lambda s: [[r.type, r.head.type, *place(r.head), r.tail.type, *place(r.tail)] for r in s.relations],
        "boundaries": lambda s: [[r.type, *place(r.head), *place(r.tail)] for r in s.relations],
    }
    for name, view in views.items():
        table = result["entity"] if name == "entity" else result["relation"][name]
        by_type, micro, macro = loop_tally([view(s) for s in gold], [view(s) for s in predicted])
        row = lambda part: (part["correct"], part["gold"], part["predicted"], pytest.approx(part["f1"]))  # noqa: E731
        assert {kind: row(part) for kind, part in table["by_type"].items()} == by_type
        assert row(table["micro"]) == micro and table["macro"]["f1"] == pytest.approx(macro)
        for part in (table["micro"], *table["by_type"].values()):
            assert part["p"] == pytest.approx(100 * part["correct"] / max(1, part["predicted"]))
            assert part["r"] == pytest.approx(100 * part["correct"] / max(1, part["gold"]))
        for x in ("p", "r"):
            assert table["macro"][x] == pytest.approx(mean([part[x] for part in table["by_type"].values()]))


@of(scores=train.scores)
@given(both=scored())
def test_perfect_predictions_score_100_and_empty_ones_0(both, scores):
    gold, _ = both
    perfect, none = scores(gold, gold), scores(gold, [Sentence("s", s.words) for s in gold])
    for table in (perfect["entity"], *perfect["relation"].values()):
        best = 100 if table["micro"]["gold"] else 0
        assert [table[name][x] for name in ("micro", "macro") for x in ("p", "r", "f1")] == [best] * 6
    for table in (none["entity"], *none["relation"].values()):
        assert [table[name][x] for name in ("micro", "macro") for x in ("p", "r", "f1")] == [0] * 6


@of(scores=train.scores)
def test_as_many_sentences_must_be_predicted_as_there_are(scores):
    with pytest.raises(ValueError):
        scores([Sentence("s", ["w"])] * 2, [Sentence("s", ["w"])])
    with pytest.raises(ValueError):
        train.missed([Sentence("1", ["a"])], [], 10)


@of(scores=train.scores)
@given(both=scored(entity_types=["A"], relation_types=["R"]))
def test_micro_and_macro_average_are_the_same_for_one_type(both, scores):
    result = scores(*both)
    for table in (result["entity"], *result["relation"].values()):
        assert {x: table["micro"][x] for x in ("p", "r", "f1")} == pytest.approx(table["macro"])


@of(scores=train.scores)
@given(both=scored(entity_types=["A"]))  # of two types of a span, boundaries would make one
def test_strict_scores_are_at_most_those_by_boundaries(both, scores):
    strict, boundaries = (scores(*both)["relation"][name]["micro"] for name in ("strict", "boundaries"))
    assert strict["correct"] <= boundaries["correct"] and strict["f1"] <= boundaries["f1"]


@of(scores=train.scores)
@given(sentence=sentences(), width=st.integers(1, 5))
def test_gold_wider_than_the_threshold_counts_as_missed(sentence, width, scores):
    reachable = {*data.prediction_example(coded(sentence), width).spans}
    found = [e for e in sentence.entities if (e.start, e.end) in reachable]  # the best that any model can predict
    micro = scores([sentence], [Sentence("s", sentence.words, found)])["entity"]["micro"]
    wide = sum(e.end - e.start > width for e in sentence.entities)
    assert micro["gold"] - micro["correct"] == wide and micro["gold"] == len(sentence.entities)


# -- Runs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_toy(monkeypatch):
    """A toy corpus that trains in a second."""
    monkeypatch.setattr(data, "toy", lambda: SMALL)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_numbers(tmp_path, small_toy):
    runs = [train.train(train.settings_of(epochs=1, seed=seed, device="cpu", output=str(tmp_path / name))) for seed, name in ((3, "a"), (3, "b"), (4, "c"))]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    assert runs[0]["entity"] == runs[1]["entity"] and runs[0]["relation"] == runs[1]["relation"]


def test_the_best_epoch_on_dev_is_kept_by_the_mean_of_entity_and_relation_f1(tmp_path, monkeypatch, small_toy):
    curve, weights, seen = iter([(90, 10), (60, 80), (70, 70), (80, 20), (99, 99)]), [], []  # the last is test's

    def measured(run, encoded):
        weights.append(run.model.ffnn_s[0].weight.clone())
        seen.append(encoded[0].sentence.id)
        entity, relation = ({"micro": {"f1": score}, "macro": {"f1": 0}} for score in next(curve))
        return {"entity": entity, "relation": {"strict": relation}}, [e.sentence for e in encoded]

    monkeypatch.setattr(train, "measure", measured)
    monkeypatch.setattr(train, "final_table", lambda *_: "")
    result, toy = train.train(train.settings_of(epochs=4, output=str(tmp_path / "run"))), data.toy()
    assert result["best_epoch"] == 2  # of equals, the first
    assert torch.equal(weights[4], weights[1]) and not torch.equal(weights[4], weights[3])
    assert seen == [toy.dev[0].id] * 4 + [toy.test[0].id]


def test_each_epoch_has_its_own_negatives_and_its_own_order(tmp_path, monkeypatch):
    seen, run = [], toy_run(epochs=3)

    def epoch(run, batches, sampling, optimizer, schedule):
        seen.append((sampling.epoch, [e.sentence.id for part in batches for e in part]))
        return {"loss": 0.0}

    monkeypatch.setattr(train, "train_epoch", epoch)
    train.fit(run, run.encode(SMALL.train), [], tmp_path)
    assert [number for number, _ in seen] == [1, 2, 3] and len({tuple(ids) for _, ids in seen}) == 3


def test_negatives_are_drawn_as_the_settings_say():
    given = train.settings_of(max_width=7, negative_rate=3, negative_count=9, pairs_among="sampled", seed=5)
    assert train.sampling_of(given) == data.Sampling(max_width=7, rate=3, count=9, among="sampled", seed=5, epoch=0)
    assert train.sampling_of(train.settings_of()) == data.Sampling(10, 30, None, "gold", 0)


def norm_of(model):
    return torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()


def test_one_epoch_descends_the_joint_loss_in_training_mode_with_clipped_gradients():
    run, steps = toy_run(clip=0.5), []
    batches = data.batches_of(run.encode(SMALL.train[:6]), 2)

    class Optimizer:
        def step(self):
            steps.append((run.model.training, norm_of(run.model)))

        def zero_grad(self):
            run.model.zero_grad()

    run.model.eval()  # as `measure` leaves it
    losses = train.train_epoch(run, batches, data.Sampling(), Optimizer(), SimpleNamespace(step=lambda: steps.append("schedule")))
    assert steps[1::2] == ["schedule"] * 3 and all(training and norm <= 0.5 + 1e-4 for training, norm in steps[::2])
    assert losses["loss"] == pytest.approx(0.4 * losses["span_loss"] + 0.6 * losses["relation_loss"])
    steps.clear()
    run.settings.clip = 1e9
    for descend in (lambda: train.train_epoch(run, batches[:1], data.Sampling(), Optimizer(), SimpleNamespace(step=lambda: None)),
                    lambda: train.train_step(run, run.training_batch(batches[0], data.Sampling()))[0].backward()):  # fmt: skip
        torch.manual_seed(0)  # dropout
        descend()
    assert steps[0][1] == pytest.approx(norm_of(run.model), rel=1e-4)


def test_descend_steps_once_along_the_gradient_and_forgets_it():
    run = SimpleNamespace(model=nn.Linear(1, 1, bias=False), settings=SimpleNamespace(clip=1e9))
    optimizer, before = torch.optim.SGD(run.model.parameters(), lr=0.1), run.model.weight.item()
    for _ in range(2):
        train.descend(run, 3 * run.model.weight.sum(), optimizer)
    assert run.model.weight.item() == pytest.approx(before - 2 * 0.1 * 3)


@pytest.mark.parametrize("shape", WIRINGS, ids=[*ATTENTION, "ablated", "spert"])
def test_bf16_is_autocast_with_the_loss_in_float32(shape, monkeypatch):
    run = eager(precision="bf16", **shape)
    kinds, forward = [], run.model.forward
    monkeypatch.setattr(run.model, "forward", lambda *given: [kinds.append(y.dtype) or y for y in forward(*given)])
    losses = train.train_step(run, some_batch(run))
    losses[0].backward()
    assert {*kinds} == {torch.bfloat16} and {loss.dtype for loss in losses} == {torch.float32} and losses[0].isfinite()
    assert {weight.dtype for weight in run.model.parameters()} == {torch.float32}
    monkeypatch.setattr(run.model, "collect", lambda y_s, kept, is_entity, y_r, *_: kinds.extend([y_s.dtype, y_r.dtype]) or [([], [])] * len(y_s))
    kinds.clear()
    embed = run.model.embed
    monkeypatch.setattr(run.model, "embed", lambda *given: (torch.is_autocast_enabled("cpu") and kinds.append("autocast"), embed(*given))[1])
    run.annotate(run.encode(SMALL.test[:2]))
    assert kinds == ["autocast", torch.float32, torch.float32]


def test_prediction_keeps_to_the_widest_span_of_the_settings():
    run = eager(max_width=3)
    found = [e for s in run.annotate(run.encode(SMALL.test[:3])) for e in s.entities]
    assert max(e.end - e.start for e in found) == 3


def test_phenomena_are_parts_of_the_whole():
    run, test = eager(), data.toy(sizes=(40, 10, 12)).test
    result, _ = train.measure(run, run.encode(test))
    assert set(result["phenomena"]) == {"span", "local", "sentence"}
    total = lambda count: sum(part["entity"]["micro"][count] for part in result["phenomena"].values())  # noqa: E731
    assert total("gold") == sum(len(s.entities) for s in test if s.phenomenon)
    assert all(total(count) <= result["entity"]["micro"][count] for count in ("correct", "predicted"))


def test_a_saved_run_takes_another_threshold(tmp_path, capsys):
    run = toy_run(relation_loss="sigmoid-bce")
    run.model.ffnn_s[-1].bias.data[0] = -9.0  # so that there are pairs
    run.save(tmp_path)
    told = []
    for threshold in ("0", "1"):
        assert train.main(["--load", str(tmp_path), "--predict", "a rash by aspirin", "--threshold", threshold]) == 0
        told.append(capsys.readouterr().out)
    assert "->" in told[0] and "->" not in told[1]


def test_the_tokenizer_of_a_random_encoder_is_learned_from_train_alone():
    corpus = data.toy(sizes=(40, 10, 10))
    corpus.dev[0].words[0] = corpus.test[0].words[0] = "zzzzz"
    corpus.dev, corpus.test = corpus.dev * 3, corpus.test * 3
    assert "zzzzz" not in train.new_run(train.settings_of(), corpus).tokenizer.get_vocab()


@given(rng=st.randoms(use_true_random=False))
def test_flat_keeps_the_likeliest_of_overlapping_entities(rng):
    entities = [dataclasses.replace(e, score=rng.randrange(4) / 4) for e in annotated(rng, 6)[0]]
    kept = data.likeliest(entities)
    assert kept == [e for e in entities if e in kept] and not any(a.overlaps(b) for a, b in itertools.combinations(kept, 2))
    for e in entities:
        rivals = [other for other in kept if set(range(e.start, e.end)) & set(range(other.start, other.end))]
        assert e in kept or any((-other.score, entities.index(other)) < (-e.score, entities.index(e)) for other in rivals)


def test_a_saved_run_is_read_flat_where_that_is_asked_for(saved_run, monkeypatch, small_toy, capsys):
    run, found = train.load(saved_run), [Entity("Drug", 0, 2), Entity("Drug", 1, 3), Entity("Drug", 3, 4)]
    example = data.prediction_example(coded(Sentence("s", list("abcd"))), 10)
    spans = [example.spans.index((e.start, e.end)) for e in found]
    results = [(span, 1, score) for span, score in zip(spans, (0.7, 0.8, 0.6))], [(0, 2, 1, 0.9), (1, 2, 1, 0.9), (2, 1, 1, 0.9)]
    assert len(run.annotated(example, *results).entities) == len(run.annotated(example, *results).relations) == 3
    run.settings.flat = True
    read = run.annotated(example, *results)
    assert [(e.start, e.end) for e in read.entities] == [(1, 3), (3, 4)] and len(read.relations) == 2
    seen = []
    monkeypatch.setattr(train.Run, "annotate", lambda run, encoded: seen.append(run.settings.flat) or [e.sentence for e in encoded])
    for flags in ((), ("--flat",)):
        assert train.main(["--load", str(saved_run), "--evaluate", *flags]) == 0
    assert not seen[0] and seen[-1]


def test_ade_is_reported_by_macro_average_and_the_others_by_micro():
    table = {"micro": {"f1": 1}, "macro": {"f1": 2}}
    assert [table[train.averaged(train.Settings(dataset=name))]["f1"] for name in ("ade", "conll04", "ace05", "toy")] == [2, 1, 1, 1]


def test_optimizer_has_two_rates_no_decay_for_biases_and_a_linear_schedule():
    run = toy_run(lr=1e-3, head_lr=5e-3, warmup=0.25)
    optimizer, schedule = train.optimizer_of(run, 8)
    assert type(optimizer) is torch.optim.AdamW
    groups = {(g["initial_lr"], g["weight_decay"]): {id(p) for p in g["params"]} for g in optimizer.param_groups}
    named = dict(run.model.named_parameters())
    assert set(groups) == {(1e-3, 0.01), (1e-3, 0.0), (5e-3, 0.01), (5e-3, 0.0)} and sum(map(len, groups.values())) == len(named)
    assert id(named["encoder.embeddings.LayerNorm.weight"]) in groups[1e-3, 0.0] and id(named["ffnn_s.0.weight"]) in groups[5e-3, 0.01]
    factors = []
    for _ in range(9):
        factors.append(optimizer.param_groups[0]["lr"] / 1e-3)
        optimizer.step()
        schedule.step()
    assert factors == pytest.approx([0, 1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0])


def test_what_the_paper_prints_is_the_default_and_what_it_leaves_open_is_as_measured():
    run = train.settings_of(dataset="conll04")
    printed = dict(encoder="bert-base-cased", batch_size=8, negative_rate=30, negative_count=0)  # §4.2
    spert = dict(epochs=20, warmup=0.1, weight_decay=0.01, clip=1.0)  # "follow Eberts and Ulges (2019)"
    measured = dict(lr=1e-4, head_lr=5e-4, pairs_among="gold", train_on_dev=False, precision="fp32", eval_split="test")
    assert {name: getattr(run, name) for name in printed | spert | measured} == printed | spert | measured
    printed = dict(model="span", attention="multihead", ablate=(), heads=8, layers=2, context_layers=3, dropout=0.2, width_dim=50, max_width=10,
                   span_weight=0.4, relation_weight=0.6)  # fmt: skip
    measured = dict(hidden=192, project=False, relation_loss="softmax-bce", threshold=0.4)
    assert {name: getattr(run.config, name) for name in printed | measured} == printed | measured
    theirs = train.settings_of(dataset="ade", model="spert")
    assert (theirs.batch_size, theirs.lr, theirs.head_lr, theirs.negative_count, theirs.epochs) == (2, 5e-5, 5e-5, 100, 20)


def test_a_setting_is_a_field_with_a_default_help_and_choices():
    field = spanrel.setting(3, "how many", (3, 4))
    assert field.default == 3 and dict(field.metadata) == {"help": "how many", "choices": (3, 4)}


@pytest.mark.parametrize("name, value, known", [("attention", "x", ATTENTION), ("ablate", ("local", "x"), ABLATIONS)])
def test_a_config_refuses_what_there_is_not(name, value, known):
    with pytest.raises(ValueError, match=f"^{name} 'x': choose from {', '.join(known)}$"):
        Config(**{name: value})


def test_spert_has_one_learning_rate():
    assert [train.settings_of(dataset="ade", model="spert", **given).head_lr for given in ({}, {"lr": 1e-4}, {"head_lr": 1.0})] == [5e-5, 1e-4, 1.0]


def test_the_recorded_command_makes_the_same_run():
    for flags in (
        {}, {"dataset": "ade", "fold": 3}, {"model": "spert"}, {"dataset": "conll04", "model": "spert", "lr": 1e-4}, {"encoder": "my encoder"},
        {"ablate": ("local", "span-specific"), "project": True, "attention": "dot", "seed": 4, "hidden": 96, "head_lr": 1e-4},
    ):  # fmt: skip
        settings = train.settings_of(**flags)
        assert train.settings_in(train.command_of(settings)) == settings


def test_every_command_in_results_json_is_one_of_today():
    for run in json.loads((HERE / "results.json").read_text(encoding="utf-8")):
        settings = train.settings_in(run["command"])
        assert train.command_of(settings) == run["command"] and settings.seed == run["seed"]
        assert run["split"] == f"{settings.dataset}, {settings.eval_split}" and run["seconds"] > 0 and run["hardware"]


def test_dev_is_scored_where_settings_are_chosen_and_not_once_trained_on(tmp_path, small_toy):
    result = train.train(train.settings_of(epochs=1, eval_split="dev", output=str(tmp_path / "run")))
    assert result["entity"]["micro"]["gold"] == sum(len(s.entities) for s in data.toy().dev)
    with pytest.raises(DataError, match="--eval-split dev and --train-on-dev"):
        train.settings_of(eval_split="dev", train_on_dev=True)


class Killed(Exception):
    """What ends a run in these tests, wherever it is."""


def stopped(settings, monkeypatch, name, at):
    """Trains until `train.name` is called for the `at`-th time."""
    calls, whole = itertools.count(1), getattr(train, name)

    def killed(*given):
        if next(calls) == at:
            raise Killed
        return whole(*given)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train, name, killed)
        train.train(settings)


@pytest.mark.parametrize("name, at", [("train_step", 1), ("write", 2), ("train_step", 12), ("measure", 2), ("checkpoint", 2), ("write", 8), ("measure", 4)])
def test_a_resumed_run_comes_to_the_same_weights_bit_for_bit(tmp_path, small_toy, monkeypatch, name, at):
    kept = ("model.safetensors", "predictions.json", "config.json", "tokenizer.json")
    settings = {k: train.settings_of(epochs=3, device="cpu", output=str(tmp_path / k)) for k in ("whole", "cut")}
    train.train(settings["whole"])
    stopped(settings["cut"], monkeypatch, name, at)
    result = train.resume(str(tmp_path / "cut"), {})
    whole, cut = contents(tmp_path / "whole"), contents(tmp_path / "cut")
    assert whole.keys() == cut.keys() and [whole[k] for k in kept if k != "config.json"] == [cut[k] for k in kept if k != "config.json"]
    curves = [[{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in files["history.jsonl"].splitlines()] for files in (whole, cut)]
    assert curves[0] == curves[1] and len(curves[0]) == 3
    assert result["best_epoch"] == json.loads(whole["metrics.json"])["best_epoch"]


@pytest.mark.slow
def test_a_run_killed_at_random_moments_and_resumed_is_the_uninterrupted_one(tmp_path):
    given, rng = ("--epochs", 3, "--device", "cpu"), random.Random(6)
    begun = time.time()
    assert cli(*given, "--output", tmp_path / "whole").returncode == 0
    seconds, whole = time.time() - begun, contents(tmp_path / "whole")
    for k in range(int(os.environ.get("SPANREL_KILLS", 1))):
        folder, start = tmp_path / f"cut{k}", [*given, "--output", tmp_path / f"cut{k}"]
        while not (folder / "metrics.json").exists():  # killed again and again, until it is too late
            going = subprocess.Popen([sys.executable, "train.py", *map(str, start)], cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                going.wait(rng.uniform(0.2, 1.2) * seconds)
            except subprocess.TimeoutExpired:
                going.kill()
                going.wait()
            if (folder / "config.json").exists():
                start = ["--resume", folder]
            elif folder.exists():  # it had not begun
                shutil.rmtree(folder)
        cut = contents(folder)
        assert cut["model.safetensors"] == whole["model.safetensors"] and cut["predictions.json"] == whole["predictions.json"]


def test_a_run_does_not_go_on_with_another_corpus(tmp_path, small_toy, monkeypatch, capsys):
    settings = train.settings_of(epochs=3, device="cpu", output=str(tmp_path / "run"))
    stopped(settings, monkeypatch, "checkpoint", 3)
    SMALL.dev[0].entities, kept = [], SMALL.dev[0].entities
    assert train.main(["--resume", str(tmp_path / "run")]) == 2
    SMALL.dev[0].entities = kept
    (said,) = capsys.readouterr().err.splitlines()
    assert "the corpus has changed since); move it away" in said and "go on with" not in said
    assert train.resume(str(tmp_path / "run"), {})["seconds"] > sum(line["seconds"] for line in train.history_in(tmp_path / "run"))


def test_ctrl_c_says_how_to_go_on(tmp_path, small_toy, monkeypatch, capsys):
    whole, calls = train.measure, itertools.count(1)

    def measure(*given):
        if next(calls) == at:
            raise KeyboardInterrupt
        return whole(*given)

    monkeypatch.setattr(train, "measure", measure)
    for at, kept in ((1, "no epoch was finished"), (4, "its last checkpoint is kept")):
        folder = tmp_path / f"run {at}"
        assert train.main(["--epochs", "3", "--output", str(folder)]) == 130
        said = capsys.readouterr().err.splitlines()
        assert said == [f"stopped {kept}; go on with: python train.py --resume '{folder}'"]
    assert train.main(["--resume", str(folder)]) == 0 and (folder / "metrics.json").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.safetensors", "history.jsonl", "metrics.json"])
def test_a_full_disk_is_one_line_and_the_last_checkpoint_is_whole(tmp_path, small_toy, monkeypatch, capsys, name):
    folder, synced = tmp_path / "run", os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: full(number) if full.armed else synced(number))

    def full(number):
        if Path(f"/proc/self/fd/{number}").resolve().name == f"{name}.part":
            raise OSError(errno.ENOSPC, "No space left on device")

    full.armed, whole, scores = False, train.checkpoint, train.measure

    def checkpoint(*given):
        whole(*given)
        full.armed = True  # from the second epoch on

    monkeypatch.setattr(train, "checkpoint", checkpoint)
    rising = itertools.count()  # each epoch is better than the one before, so that its weights are written

    def measure(run, encoded):
        result, predicted = scores(run, encoded)
        result["entity"]["micro"]["f1"] = next(rising)
        return result, predicted

    monkeypatch.setattr(train, "measure", measure)
    assert train.main(["--epochs", "3", "--output", str(folder)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said == [f"{folder / name}: No space left on device; its last checkpoint is kept; go on with: python train.py --resume {folder}"]
    assert not list(folder.glob("*.part"))
    full.armed = False
    monkeypatch.setattr(train, "checkpoint", whole)
    assert train.main(["--resume", str(folder)]) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on a file's size, as of a full disk")
@pytest.mark.parametrize("size, name, advice", [(1000, "", "start it anew"), (100000, "/model.safetensors", "go on with")])
def test_a_disk_that_is_full_at_once_is_one_line(tmp_path, size, name, advice):
    limited = (f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); sys.argv = sys.argv[1:]; "
               "runpy.run_path('train.py', run_name='__main__')")  # fmt: skip
    done = cli("--epochs", 1, "--output", tmp_path / "run", by=("-c", limited))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"{tmp_path}/run{name}: ") and "File too large" in said and f"; no epoch was finished; {advice}" in said


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_that_is_no_number_stops_the_run_and_names_the_sentences(tmp_path, small_toy, monkeypatch, capsys, what):
    whole, steps = train.train_step, itertools.count(1)

    def step(run, batch):
        losses = whole(run, batch)
        if next(steps) != 7:  # the second of the second epoch, of five each
            return losses
        seen.extend(example.encoded.sentence.id for example in batch.examples)
        broken = losses[0] * math.nan
        return (broken if what == "loss" else losses[0] + (broken - broken.detach()).nan_to_num(0), *losses[1:])

    seen, good = [], []
    monkeypatch.setattr(train, "train_step", step)
    real = train.checkpoint
    monkeypatch.setattr(train, "checkpoint", lambda path, *rest: (real(path, *rest), good.append(path.read_bytes())))
    assert train.main(["--epochs", "3", "--output", str(tmp_path / "run")]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("epoch 2, step 2: the loss is ") and f"on the sentences {', '.join(seen)}; a lower --lr" in said and "nan" in said
    assert "its last checkpoint is kept" in said and (tmp_path / "run" / train.CHECKPOINT).read_bytes() == good[-1] and len(good) == 1


def test_what_is_never_predicted_and_what_has_no_gold_is_said_in_words():
    a, b = Entity("A", 0, 1), Entity("B", 1, 12)
    gold = [Sentence("1", ["w"] * 12, [a, b], [Relation("R", a, b)]), Sentence("2", ["w"] * 3, [a, Entity("A", 1, 2)], [Relation("R", a, Entity("A", 1, 2))])]
    blank, settings = [Sentence(s.id, s.words) for s in gold], train.settings_of()
    result = {**train.scores(gold, blank), "missed_relations": train.missed(gold, blank, 10)}
    assert train.remarks(settings, result) == [
        "relations missed: an argument is too wide 1, an argument missed or mistyped 1, the relation itself 0",
        "never predicted, though test has some: entity A, B", "never predicted, though test has some: relation R"]  # fmt: skip
    result = {**train.scores(blank, gold), "missed_relations": train.missed(blank, gold, 10)}
    assert train.remarks(settings, result) == [f"test has no gold {what}: no recall, no F1 can be measured" for what in ("entity", "relation")]
    assert "test has no gold entity" in train.final_table(settings, result)


@given(both=scored(), width=st.integers(1, 5))
def test_every_missed_relation_has_one_cause(both, width):
    gold, predicted = both
    causes = train.missed(gold, predicted, width)
    table = train.scores(gold, predicted)["relation"]["strict"]["micro"]
    assert sum(causes.values()) == table["gold"] - table["correct"] and causes.keys() == train.CAUSES.keys()
    bare = train.missed(gold, [Sentence(s.id, s.words, s.entities) for s in gold], width)
    assert bare["argument"] == 0 and bare["width"] == sum(max(e.end - e.start for e in (r.head, r.tail)) > width for s in gold for r in s.relations)


def test_a_saved_run_is_safetensors_and_json_and_loads_without_pickle_or_network(saved_run, monkeypatch):
    assert {path.suffix for path in saved_run.iterdir()} == {".safetensors", ".json"}

    def forbidden(*given, **named):
        raise AssertionError("a run must load without this")

    for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load"), (socket, "create_connection"), (socket.socket, "connect")):
        monkeypatch.setattr(owner, name, forbidden)
    assert len(train.load(saved_run, "cpu").predict(["A rash by aspirin."])) == 1


def test_predictions_are_text_json_or_a_page(saved_run, tmp_path, capsys):
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(["😀 Aspirin, then e\u0301 rash.", {"tokens": ["Aspirin", "rash"], "entities": [{"type": "Drug", "start": 0, "end": 1}], "relations": []}]))
    told = {}
    for form in train.FORMATS:
        assert train.main(["--load", str(saved_run), "--predict", str(path), "A rash.", "--format", form]) == 0
        told[form] = capsys.readouterr().out
    first, second, third = json.loads(told["json"])
    assert first["text"] == "😀 Aspirin, then e\u0301 rash." and first["tokens"][-2:] == ["rash", "."] and second["orig_id"] == "texts.json:1"
    for record in (first, second, third):
        assert data.faults(record) == []
        for e in record["entities"]:
            words = record["tokens"][e["start"] : e["end"]]
            assert record["text"][slice(*e["chars"])].split() == " ".join(words).split() or "".join(words) in record["text"][slice(*e["chars"])].replace(" ", "")
            assert 0 < e["score"] <= 1
    assert told["html"].count("<svg") == 3 and told["html"].startswith("<!doctype html>") and told["text"].count("\n\n") == 2
    marks = {line[2] for line in told["text"].split("\n\n")[1].splitlines()[1:]}
    assert marks and marks <= set("=+-")  # gold is known for the second alone


def test_evaluate_shows_the_whole_split_with_its_gold(saved_run, small_toy, capsys):
    for form, says in (("text", "toy, test, micro"), ("html", "- missed, dotted"), ("json", '"orig_id"')):
        assert train.main(["--load", str(saved_run), "--evaluate", "--format", form]) == 0
        assert says in capsys.readouterr().out


def test_the_report_has_the_papers_figures_beside_the_mean_of_ones_own(tmp_path, small_toy, capsys):
    for seed in (0, 1):
        train.train(train.settings_of(seed=seed, epochs=2, output=str(tmp_path / f"run{seed}")))
    prf = {"p": 80.0, "r": 90.0, "f1": 84.7}
    record = lambda k, fold: {"command": f"python train.py --dataset ade --fold {fold} --encoder mine --model spert",
                              "entity": {"micro": prf, "macro": {**prf, "f1": k}}, "relation": {"strict": {"micro": prf, "macro": prf}}}  # fmt: skip  # noqa: E731
    (tmp_path / "mine.json").write_text(json.dumps([record(80, 0), record(90, 3)]))
    capsys.readouterr()
    assert train.main(["--report", *(str(tmp_path / name) for name in ("run0", "run1", "mine.json", "run0/"))]) == 0  # twice is once
    told = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.splitlines() if line.startswith("|")]
    assert ["ade", "spert", "88.99 / 89.59 / 89.28", "77.77 / 79.96 / 78.84", "80.00 / 90.00 / 85.00 ± 7.07", "80.00 / 90.00 / 84.70 ± 0.00",
            "mine", "2", "(2)"] in lines  # fmt: skip
    assert ["conll04", "Multi-turn QA", "89.0 / 86.6 / 87.8", "69.2 / 68.2 / 68.9", "", "", "", "0", ""] in lines and "68.7" in told
    runs = [json.loads((tmp_path / f"run{seed}/metrics.json").read_text())["entity"]["micro"]["f1"] for seed in (0, 1)]
    (toy,) = [cells for cells in lines if cells[0] == "toy"]  # in Table 1 alone, since nothing is compared with it
    assert toy[1:4] == ["multihead --epochs 2", "", ""] and toy[4].endswith(f"{statistics.mean(runs):.2f} ± {statistics.stdev(runs):.2f}")
    assert toy[6:] == ["tiny", "2", "(1)"] and lines[-2][0] == "(1)" and lines[-2][-1] == "`python train.py --epochs 2`"
    assert lines[-1][:5] == ["(2)", "85.00 ± 7.07", "84.70 ± 0.00", "2", ""] and "Differences" not in told
    missing = [line for line in told.splitlines() if line.startswith("Missing: ")]
    assert len(missing) == 4 and "`python train.py --dataset conll04 --attention dot`" in missing[1]
    assert "`python train.py --dataset ade --encoder mine --model spert --fold 4`" in missing[0] and "spert --fold 3`" not in missing[0]
    assert "`python train.py --dataset ace05 --eval-split dev --ablate local relation-sentence`" in missing[3]
    sums = [json.loads((tmp_path / f"run{seed}/metrics.json").read_text())["missed_relations"] for seed in (0, 1)]
    assert lines[-2][5:8] == [str(sums[0][cause] + sums[1][cause]) for cause in ("width", "argument", "relation")]


def recorded_run(command, gold=(), predicted=(), **more):
    """A run as a report reads it, of these predictions."""
    settings = train.settings_in(command)
    counts = train.by_sentence(gold, predicted, train.averaged(settings))
    return settings, {"command": command, **train.scores(gold, predicted), "by_sentence": counts, **more}


def test_runs_that_are_in_no_table_are_listed_with_what_they_missed():
    told = [recorded_run("python train.py", missed_relations=dict(width=width, argument=2, relation=3), seconds=60 * width) for width in (1, 2)]
    row = train.all_runs({"ls": [*told, recorded_run("python train.py")], "no": [recorded_run("python train.py")]}).splitlines()[-2:]
    assert row == ["| (1) | – | – | 3 | 1.5 | 3 | 4 | 6 | `ls` |", "| (2) | – | – | 1 |  |  |  |  | `no` |"]


@given(rng=st.randoms(use_true_random=False), dataset=st.sampled_from(["ade", "conll04"]), fold=st.integers(0, 9))
def test_resamples_have_the_scores_of_the_sentences_that_were_drawn(rng, dataset, fold):
    one = Sentence("s", ["a", "b"], [Entity("A", 0, 1), Entity("B", 1, 2)])
    one.relations = [Relation("R", *one.entities)]
    gold, predicted = ([Sentence("s", list("abcd"), *annotated(rng, 4)) for _ in range(5)] + [one] for _ in range(2))
    run, perfect = (recorded_run(f"python train.py --dataset {dataset} --fold {fold}", gold, found) for found in (predicted, gold))
    drawn = torch.randint(6, (train.RESAMPLES, 6), generator=torch.Generator().manual_seed(fold))
    for what in ("entity", "relation"):
        kinds = run[1]["by_sentence"][what].values()
        for name in train.COUNTS:
            assert sum(int(n) for part in kinds for n in part[name].split()) == train.tables_of(run[1])[what]["micro"][name]
        found = train.resampled([run], what)
        assert len(found) - 1 == train.RESAMPLES == 10_000
        for of_draw, draw in zip(found, [range(6), *drawn[:10]]):
            table = train.tables_of(train.scores([gold[i] for i in draw], [predicted[i] for i in draw]))[what]
            assert of_draw.item() == pytest.approx(table[train.averaged(run[0])]["f1"])
        same(train.resampled([run, perfect], what), (found + train.resampled([perfect], what)) / 2)


def differences(groups):
    """The rows of the report's differences, with the interval as numbers."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in train.difference_table(groups).splitlines()[4:]]
    return [[*row[:4], *map(float, re.findall(r"[+-][\d.]+", row[4])), *row[5:]] for row in rows]


def of_rights(command, rights, size=40):
    """A run that finds the first `rights` of as many entities as sentences, one in each."""
    gold, wrong = (Sentence("s", ["a", "b"], [Entity("Peop", 0, end)], []) for end in (1, 2))
    return recorded_run(command, [gold] * size, [gold] * rights + [wrong] * (size - rights))


def test_the_full_model_is_compared_with_each_other_of_its_flags_in_pairs():
    command = "python train.py --dataset conll04 --encoder mine"
    groups = {command: [of_rights(command, 30), of_rights(command, 30)]}
    for more, rights in {"--model spert": 20, "--attention dot": 30, "--epochs 9 --attention dot": 40}.items():
        groups[f"{command} {more}"] = [of_rights(f"{command} {more}", rights)]
    rows, nothing = differences(groups), ["–", "–", "2, 1"]
    assert rows[2] == ["conll04, test", "dot", "entity", "+2.00", 0, 0, 0, "75.00 ± 0.00", "75.00", "2, 1", "(1), (3)"]  # as they are right on the same
    assert rows[3] == ["conll04, test", "dot", "relation", "+3.44", *nothing, "(1), (3)"] and len(rows) == 4
    assert rows[0][:5] == ["conll04, test", "spert", "entity", "+1.29", 25] and rows[0][7:9] == ["75.00 ± 0.00", "50.00"] and rows[1][3] == "+2.86"
    spread = 1.96 * 100 * math.sqrt(0.25 * 0.75 / 40)  # of a sum of 40, each 1 with probability ¼: they differ on ten sentences
    assert rows[0][5:7] == pytest.approx([25 - spread, 25 + spread], abs=1.5)


def test_only_runs_on_the_same_sentences_are_compared_and_each_fold_counts_once():
    full = lambda fold, rights, size=40: of_rights(f"python train.py --dataset ade --fold {fold}", rights, size)
    spert = lambda fold, rights, size=40: of_rights(f"python train.py --dataset ade --fold {fold} --model spert", rights, size)
    key = "python train.py --dataset ade"
    groups = lambda ours, theirs: {key: ours, f"{key} --model spert": theirs}
    (row, _) = differences(groups([full(0, 36), full(0, 36), full(0, 36), full(1, 20)], [spert(0, 36), spert(1, 20), spert(1, 20), spert(2, 1)]))
    assert row[4:7] == [0, 0, 0] and row[9] == "4, 3"  # whatever the seeds of each; fold 2 has no counterpart
    assert train.difference_table(groups([full(0, 36)], [spert(1, 36)])) == ""
    assert train.difference_table(groups([full(0, 36)], [spert(0, 36, 39)])) == ""  # the corpus has changed
    assert train.difference_table(groups([full(0, 36)], [(spert(0, 36)[0], {})])) == ""


def test_a_run_of_changed_code_is_listed_but_compared_with_nothing(tmp_path, capsys):
    command = "python train.py --dataset conll04 --encoder mine"
    records = [{**of_rights(command, 30)[1], "note": "with it's\nline"}, of_rights(f"{command} --model spert", 20)[1]]
    (tmp_path / "mine.json").write_text(json.dumps(records))
    assert train.main(["--report", str(tmp_path / "mine.json")]) == 0
    told = capsys.readouterr().out
    assert told.endswith(f"| (2) | 75.00 | – | 1 |  |  |  |  | `{command} # with it's line` |\n") and "Differences" not in told
    assert "| conll04 | multihead | 90.23 | 74.33 |  |  |  | 0 |  |" in told


def test_every_missing_command_of_a_report_fills_its_cell():
    for number, tables in train.PRINTED.items():
        for dataset, models in tables.items():
            for label, printed in models.items():
                assert len(printed.split()) in (3, 7)
                for command in train.command_for(number, dataset, label):
                    command = command.strip("`")
                    run = train.settings_in(command)
                    cells = train.belonging(number, {command: [(run, {})]})
                    assert cells[dataset, "", label] == [(command, [(run, {})], "")]


def test_the_report_of_the_recorded_runs_prints_the_four_tables(capsys):
    assert train.main(["--report", str(HERE / "results.json")]) == 0
    told = capsys.readouterr().out
    assert re.findall(r"\*\*Table (\d)\*\*", told) == ["1", "2", "3", "4"] and "| toy span | multihead span-specific |" in told


def test_the_readmes_tables_are_the_reports():
    told = train.report([str(HERE / "results.json")]).splitlines()
    section = (HERE / "README.md").read_text(encoding="utf-8").partition("## The paper's tables, run")[2].partition("\n## ")[0]
    tables = [part.splitlines() for part in section.split("\n\n") if part.startswith("| ")]
    printed = [rows for rows in tables if rows[0] in told]
    assert len(printed) == 5 and all(set(rows) <= set(told) for rows in printed)
    (commands,) = [rows[2:] for rows in tables if rows[0].startswith("|  | command")]
    cells = lambda row: row[2:-2].split(" | ")
    listed = {cells(row)[0]: cells(row) for row in told if row.startswith("| (")}
    for number, *rest in map(cells, commands):
        assert rest == [listed[number][-1], *listed[number][3:5]]
    named = {number for rows in printed for row in rows[2:] for number in row.split("|")[-2].strip().split(", ")}
    assert named - {""} == {number for number, *_ in map(cells, commands)}


def test_help_fits_two_screens():
    lines = train.parser_of().format_help().splitlines()
    assert len(lines) <= 2 * 40 and max(map(len, lines)) <= 128
    flags = [f for kind in (train.Settings, Config) for f in dataclasses.fields(kind) if f.metadata]
    for f in flags:  # each with its default, unless that is nothing
        told = train.help_of(f)
        assert f"default: {f.default}" in told or f.default in (False, "", ())


def test_the_readmes_corpus_trains_and_predicts(tmp_path, capsys):
    (written,) = re.findall(r"```json\n(.*?)```", (HERE / "README.md").read_text(encoding="utf-8"), re.S)
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.json").write_text(written, encoding="utf-8")
    assert len(json.loads(written)) == 3 and data.main(["--dataset", str(tmp_path)]) == 0
    flags = re.search(r"python train.py --dataset mine (.*) --output runs/mine", (HERE / "README.md").read_text(encoding="utf-8"))[1]
    assert train.main(["--dataset", str(tmp_path), *flags.split(), "--output", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run/metrics.json").read_text())["relation"]["strict"]["micro"]["f1"] == 100


@pytest.mark.slow
def test_two_processes_train_and_score_as_one_does(tmp_path):
    words, sizes = data.learn_tokenizer(SMALL.train), dict(num_hidden_layers=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    words.save_pretrained(tmp_path / "encoder")
    torch.manual_seed(0)
    spanrel.build_encoder({"model_type": "bert", "vocab_size": len(words), **spanrel.TINY, **sizes}, 0).save_pretrained(tmp_path / "encoder")
    for name, sentences in SMALL.splits.items():  # the last batch of the nine has one sentence, so that one process has none
        (tmp_path / f"{name}.json").write_text(json.dumps([s.to_json() for s in sentences[:9]]))
    given = ["--dataset", tmp_path, "--encoder", tmp_path / "encoder", "--dropout", 0, "--batch-size", 4, "--epochs", 3, "--lr", 1e-3]
    found = []
    for by in ((), ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")):
        folder = tmp_path / f"run{len(found)}"
        done = cli(*given, "--device", "cpu", "--output", folder, by=by, OMP_NUM_THREADS="1")
        assert done.returncode == 0 and done.stdout.count("epoch 3") == done.stdout.count("the run is in") == 1, done.stderr
        history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        assert len(history) == 3
        found.append(([{name: line[name] for name in sorted(line) if name != "seconds"} for line in history],
                      json.loads((folder / "predictions.json").read_text()), train.load(folder).model.state_dict()))  # fmt: skip
    (one, said, weights), (two, said_by_two, weights_of_two) = found
    for line, its in zip(one, two, strict=True):
        assert line == pytest.approx(its, rel=1e-4)
    assert said == said_by_two and len(said) == 9
    for name, weight in weights.items():
        if "key.bias" not in name:  # whose gradient is rounding: the softmax does not see it
            assert (weight - weights_of_two[name]).abs().mean() < 1e-4, name


def test_benchmark_sets_the_model_beside_its_encoder(tmp_path, capsys, small_toy, monkeypatch):
    monkeypatch.setattr(train, "growth", partial(train.growth, lengths=(20, 40, 10**6), counts=(2, 200)))
    monkeypatch.setattr(train, "in_turn", partial(train.in_turn, passes=1))
    given = ["--benchmark", "--encoder", "tiny-1", "--output", str(tmp_path / "cost.json")]
    assert train.main(given) == 0
    printed, cost = capsys.readouterr().out, json.loads((tmp_path / "cost.json").read_text())
    assert cost["command"] == "python train.py --encoder tiny-1 --benchmark" and printed.startswith(cost["command"])
    for part in ("training", "prediction"):
        assert cost[part]["model"]["seconds"] > cost[part]["encoder"]["seconds"] > 0
        assert re.search(rf"{part}: .* {cost[part]['model']['seconds'] / cost[part]['encoder']['seconds']:.2f}\n", printed)
    assert cost["prediction"]["sentences"] == len(data.toy().test) and cost["reading"] > 0
    assert [(row["wordpieces"], row["entities"], row["pairs"]) for row in cost["growth"]] == [(20, 2, 2), (40, 2, 2), (40, 200, 39800)]
    assert train.main(given) == 2 and "cost.json: with --benchmark it is a new file" in capsys.readouterr().err
    assert train.main(["--benchmark", "--load", "run", "--evaluate"]) == 2 and "--benchmark does not go with --load" in capsys.readouterr().err


def test_benchmark_predicts_with_the_gold_entities_whatever_the_model_says(monkeypatch):
    run, found = eager(), []
    encoded = run.encode(SMALL.test[:5])
    before = run.annotate(encoded)

    def in_turn(run, batches, actions):
        found.extend((batch, actions["model"](batch)) for batch in batches * 2)

    monkeypatch.setattr(train, "in_turn", in_turn)
    train.cost_of_prediction(run, encoded)
    assert len(found) == 2
    for batch, sentences in found:
        for example, sentence in zip(batch.examples, sentences, strict=True):
            gold = {(e.start, e.end) for e in example.encoded.sentence.entities}
            assert {(e.start, e.end) for e in sentence.entities} == gold and len(sentence.entities) == len(gold)
    assert run.annotate(encoded) == before  # nothing of it stays


def test_benchmark_switches_the_shape_checks_off_for_one_action_alone(monkeypatch):
    run, seen = toy_run(), []
    step = train.train_step

    def spied(run, batch):
        seen.append((jaxtyping.config.jaxtyping_disable, "embed" in vars(run.model)))
        return step(run, batch)

    def in_turn(run, batches, actions):
        for name in ("model", "heads", "heads, unchecked", "model"):
            actions[name](batches[0])

    monkeypatch.setattr(train, "train_step", spied)
    monkeypatch.setattr(train, "in_turn", in_turn)
    before = [weight.clone() for weight in run.model.parameters()]
    train.cost_of_training(run, run.encode(SMALL.train[:8]))
    assert seen == [(False, False), (False, True), (True, True), (False, False)]  # checks off?, without the encoder?
    assert all(map(torch.equal, before, run.model.parameters()))


def test_actions_run_by_themselves_and_then_in_turn_and_medians_add_up(monkeypatch):
    done, clock = [], iter(range(10**6))
    monkeypatch.setattr(train, "timer", lambda: next(clock) ** 2)
    run, batches = toy_run(), [SimpleNamespace(examples=[1, 2]), SimpleNamespace(examples=[3])]
    actions = {name: partial(lambda name, batch: done.append((name, len(batch.examples))), name) for name in "ab"}
    cost = train.in_turn(run, batches, actions, passes=3)
    assert done == [("a", 2), ("a", 1), ("b", 2), ("b", 1)] + [("a", 2), ("b", 2), ("a", 1), ("b", 1)] * 3
    assert (cost["batches"], cost["sentences"]) == (2, 3)
    taken = [(2 * k + 1) ** 2 - (2 * k) ** 2 for k in range(12)]  # the second pass is the median of the three
    assert cost["a"]["seconds"] == taken[4] + taken[6] and cost["b"]["seconds"] == taken[5] + taken[7]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not forget its peak")
def test_the_peak_of_memory_starts_anew():
    device, size = torch.device("cpu"), 400 * 2**20
    assert train.reset_peak(device)
    before = train.peak_memory(device)
    big = torch.ones(size // 4)
    high = train.peak_memory(device)
    del big
    assert high > before + 0.9 * size and train.reset_peak(device) and train.peak_memory(device) < high - 0.9 * size


def test_batches_are_built_in_order_one_ahead_by_a_thread():
    built = []

    def build(k):
        if k == 3:
            raise DataError("the third")
        built.append((k, threading.current_thread() is threading.main_thread()))
        return -k

    used = train.ahead(build, range(4))
    assert [next(used) for _ in range(3)] == [0, -1, -2] and built == [(0, False), (1, False), (2, False)]
    with pytest.raises(DataError, match="the third"):
        next(used)
    assert list(train.ahead(build, [])) == [] and list(train.ahead(build, [7])) == [-7]


@pytest.mark.parametrize("shape", WIRINGS, ids=[*ATTENTION, "ablated", "spert"])
def test_a_training_step_reads_no_value_from_the_device(shape):
    run = toy_run(**shape)
    batch = some_batch(run)
    run.model.encoder = Lookup(run.model.D, len(run.tokenizer))  # transformers' own encoders read one: whether there is padding
    run.model.to("meta")  # where there are no values to read
    optimizer = torch.optim.SGD(run.model.parameters(), lr=0.1)
    losses = train.train_step(run, batch.to("meta"))
    train.descend(run, losses[0], optimizer)
    assert all(loss.is_meta for loss in losses)


class Lookup(nn.Module):
    """An encoder that only looks up."""

    def __init__(self, D, size):
        super().__init__()
        self.table = nn.Embedding(size, D)

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


MINILM = HERE.parent / "shared/encoder/minilm-l6"


@pytest.mark.slow
@needs_corpora
@pytest.mark.skipif(not MINILM.is_dir(), reason="put a pretrained encoder, as `save_pretrained` writes it, at ../shared/encoder/minilm-l6")
@pytest.mark.parametrize("dataset", ["ade", "conll04"])
@pytest.mark.parametrize("shape", [dict(), dict(ablate=ABLATIONS), dict(model="spert")], ids=["full", "ablated", "spert"])
def test_real_corpora_train_with_a_real_encoder(dataset, shape):
    corpus = data.read_corpus(dataset, REAL)
    run = train.new_run(train.settings_of(dataset=dataset, encoder=str(MINILM), device="cpu", **shape), corpus)
    optimizer, schedule = train.optimizer_of(run, 8)
    batches = data.batches_of(run.encode(corpus.train[:4]), 2)
    before = [p.clone() for p in run.model.encoder.parameters()]
    losses = [train.train_epoch(run, batches, data.Sampling(), optimizer, schedule)["loss"] for _ in range(4)]
    assert losses[-1] < losses[0]
    assert not all(torch.equal(a, b) for a, b in zip(before, run.model.encoder.parameters()))  # it is fine-tuned, too
    assert [s.words for s in run.annotate(run.encode(corpus.test[:3]))] == [s.words for s in corpus.test[:3]]


def test_train_on_dev_keeps_the_last_epoch(tmp_path):
    for name, kind in (("train", "A"), ("dev", "only-dev"), ("test", "A")):
        record = RECORD | {"entities": [{"type": kind, "start": 0, "end": 1}], "relations": []}
        (tmp_path / f"{name}.json").write_text(json.dumps([record]))
    given = dict(dataset=str(tmp_path), encoder="tiny", epochs=2, train_on_dev=True, output=str(tmp_path / "run"))
    result = train.train(train.settings_of(**given))
    history = [json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert json.loads((tmp_path / "run/config.json").read_text())["entity_types"] == ["A", "only-dev"]
    assert result["best_epoch"] == 2 and len(history) == 2 and "entity_f1" not in history[0]


def test_a_corpus_of_ones_own_without_relations_trains(tmp_path, capsys):
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.json").write_text(json.dumps([RECORD | {"relations": []}] * 3))
    for model in ("span", "spert"):
        given = ["--dataset", tmp_path, "--encoder", "tiny", "--epochs", 1, "--model", model, "--output", tmp_path / model]
        assert train.main([str(a) for a in given]) == 0
        assert json.loads((tmp_path / model / "metrics.json").read_text())["relation"]["strict"]["micro"]["gold"] == 0


def test_an_entity_and_a_relation_may_have_the_same_type(tmp_path):
    record = RECORD | {"relations": [{"type": "A", "head": 0, "tail": 1}, {"type": "R", "head": 1, "tail": 0}]}
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.json").write_text(json.dumps([record] * 4))
    result = train.train(train.settings_of(dataset=str(tmp_path), encoder="tiny", epochs=60, lr=1e-3, output=str(tmp_path / "run")))
    assert result["entity"]["micro"]["f1"] == result["relation"]["strict"]["micro"]["f1"] == 100


def test_an_encoder_that_is_not_whole_is_named(tmp_path):
    source = data.learn_tokenizer(data.toy().train)
    for lack in ("weights", "vocabulary"):
        folder = tmp_path / lack
        spanrel.build_encoder("tiny", len(source)).save_pretrained(folder)
        if lack == "weights":
            source.save_pretrained(folder)
            settings = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 3}))
        with pytest.raises(DataError, match=f"--encoder .*{lack}"):
            train.new_run(train.settings_of(encoder=str(folder)), data.toy())


def test_a_byte_level_encoder_reads_a_word_alike_wherever_it_stands(tmp_path):
    from tokenizers import pre_tokenizers
    from transformers import AutoConfig, AutoModel, RobertaTokenizerFast

    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    RobertaTokenizerFast(vocab={piece: k for k, piece in enumerate(vocabulary)}, merges=[]).save_pretrained(tmp_path)
    sizes = dict(vocab_size=len(vocabulary), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    AutoModel.from_config(AutoConfig.for_model("roberta", pad_token_id=1, **sizes)).save_pretrained(tmp_path)
    run = train.new_run(train.settings_of(encoder=str(tmp_path)), data.toy())
    (encoded,) = run.encode([Sentence("s", ["ab", "ab"])])
    assert run.tokenizer.convert_ids_to_tokens(encoded.input_ids) == ["<s>", "Ġ", "a", "b", "Ġ", "a", "b", "</s>"]
    assert (encoded.starts, encoded.ends) == ([1, 4], [4, 7]) and encoded.is_token == [True] * 7 + [False]


def test_an_encoder_is_float32_however_it_was_stored_and_may_lack_its_pooler_alone(tmp_path):
    from transformers import BertConfig, BertModel

    sizes = dict(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    stored = BertModel(BertConfig(**sizes), add_pooling_layer=False).to(torch.bfloat16)
    stored.save_pretrained(tmp_path)
    for encoder in (spanrel.build_encoder(str(tmp_path), 0), spanrel.build_encoder(stored.config.to_dict(), 0)):
        assert {weight.dtype for weight in encoder.parameters()} == {torch.float32} and encoder.pooler is None
    given = spanrel.build_encoder(str(tmp_path), 0).state_dict()
    assert all(torch.equal(given[name], weight.float()) for name, weight in stored.state_dict().items())
    stored.save_pretrained(tmp_path, state_dict={name: weight for name, weight in stored.state_dict().items() if "layer.0.output" not in name})
    with pytest.raises(ValueError, match=r"^the weights there lack encoder\.layer\.0\.output\.LayerNorm\.bias and 3 more$"):
        spanrel.build_encoder(str(tmp_path), 0)


def test_random_encoders_have_the_vocabulary_and_as_many_layers_as_they_say():
    for name, layers in (("tiny", 0), ("tiny-1", 1), ("tiny-2", 2)):
        config = spanrel.build_encoder(name, 77).config
        assert (config.vocab_size, config.num_hidden_layers, config.hidden_size) == (77, layers, 64)


def test_the_longest_sentence_and_the_kind_of_encoder_are_known(tmp_path):
    from transformers import AutoConfig, AutoModel

    words = data.learn_tokenizer(data.toy().train)
    words.model_max_length = int(1e30)  # as where a tokenizer's folder does not say
    sizes = dict(vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    for kind, longest in (("bert", 40), ("roberta", 38)):
        AutoModel.from_config(AutoConfig.for_model(kind, max_position_embeddings=40, pad_token_id=1, **sizes)).save_pretrained(tmp_path / kind)
        words.save_pretrained(tmp_path / kind)
        run = train.new_run(train.settings_of(encoder=str(tmp_path / kind)), data.toy())
        run.model.eval()
        ids = torch.full((1, longest), 5)
        assert run.longest == longest and run.model.encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.isfinite().all()
    sizes = dict(d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2)
    AutoModel.from_config(AutoConfig.for_model("bart", vocab_size=len(words), **sizes)).save_pretrained(tmp_path / "bart")
    words.save_pretrained(tmp_path / "bart")
    with pytest.raises(DataError, match="it has a decoder, too; it must be an encoder alone, as BERT is$"):
        train.new_run(train.settings_of(encoder=str(tmp_path / "bart")), data.toy())


@pytest.fixture(scope="session")
def default_run(tmp_path_factory):
    """`python train.py`, as the README says, once for all tests that look at it."""
    folder, begun = tmp_path_factory.mktemp("runs") / "toy", time.time()
    done = cli("--output", folder)
    return folder, done, time.time() - begun


@pytest.mark.slow
def test_the_default_run_is_quick_and_good(default_run):
    folder, done, seconds = default_run
    assert done.returncode == 0, done.stderr
    metrics = json.loads((folder / "metrics.json").read_text())
    assert seconds < 90 and metrics["entity"]["micro"]["f1"] >= 95 and metrics["relation"]["strict"]["micro"]["f1"] >= 90
    assert set(metrics["phenomena"]) == {"span", "local", "sentence"}
    present = {path.name for path in folder.iterdir()}
    assert present >= {"config.json", "model.safetensors", "tokenizer.json", "metrics.json", "history.jsonl", "predictions.json"}
    assert len((folder / "history.jsonl").read_text().splitlines()) == metrics["settings"]["epochs"]
    assert len(data.read_json(folder / "predictions.json")) == 400


@pytest.mark.slow
def test_a_saved_run_scores_and_predicts_as_it_did(default_run):
    folder, _, _ = default_run
    run, test = train.load(folder), data.toy().test
    result, predicted = train.measure(run, run.encode(test))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert result == {name: metrics[name] for name in result}
    assert [s.to_json() for s in predicted] == json.loads((folder / "predictions.json").read_text())
    text = "Gemcitabine-induced pulmonary toxicity is usually a dramatic condition."
    sentence, blank = run.predict([text, " "])
    assert [(e.type, text[slice(*sentence.chars(e))]) for e in sentence.entities] == [
        ("Drug", "Gemcitabine"), ("Adverse-Effect", "pulmonary toxicity")]  # fmt: skip
    (relation,) = sentence.relations
    assert relation.type == relation.head.type == "Adverse-Effect" and relation.tail.type == "Drug"
    assert all(0 <= item.score <= 1 for item in (*sentence.entities, relation)) and not blank.entities
    done = cli("--load", folder, "--predict", text, "--evaluate")
    assert '"Gemcitabine" [0, 11)' in done.stdout and '"pulmonary toxicity" [20, 38)' in done.stdout
    assert f"{metrics['entity']['micro']['f1']:.2f}" in done.stdout


@pytest.mark.slow
def test_a_run_that_is_not_whole_is_one_line(default_run, tmp_path, capsys):
    folder, _, _ = default_run
    for name, content in (("model.safetensors", b"x"), ("config.json", b"{}"), ("config.json", b"["), ("tokenizer.json", b"{")):
        broken = tmp_path / f"{name}-{len(content)}-{content[:1].hex()}"
        shutil.copytree(folder, broken)
        (broken / name).write_bytes(content)
        assert train.main(["--load", str(broken), "--evaluate"]) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and str(broken) in said[0]
    assert train.main(["--load", str(folder), "--evaluate", "--epochs", "3"]) == 2


# -- The lesson: the exercises of tutorial.ipynb check themselves ---------------------------------------------------------
# An exercise has our answer, small inputs, the wrong answers that students really write, each by the misconception that it
# smells of, and properties: the tests above, on the student's function.

take = spanrel.take
scored_by = lambda Q, K: Q @ K.mT / Q.shape[-1] ** 0.5  # noqa: E731


def attend(Q, K, V, mask):
    """One attention."""
    return spanrel.masked_softmax(scored_by(Q, K), mask) @ V


def as_printed(Q, K, mask):
    """The weights of additive attention as the paper prints its score, where W_1 and W_2 are sums [L7]."""
    return spanrel.masked_softmax(Q.sum(-1)[..., None] + K.sum(-1)[:, None], mask)


def even(Q, K, mask):
    """Weights that ignore the query in another way: the mean of what is there."""
    return spanrel.masked_softmax(torch.zeros(*Q.shape[:2], K.shape[1]), mask)


def as_cited(Q, K, mask):
    """The same in the form of Bahdanau et al., whom the paper cites."""
    return spanrel.masked_softmax((Q[:, :, None] + K[:, None]).tanh().sum(-1), mask)


def ignores_query(weights, Q, K, mask):
    """Whether another query has the same weights."""
    return torch.allclose(weights(Q, K, mask), weights(2 * Q.flip(-1) + 1, K, mask))


def pairs_there(sentence):
    """How many ordered pairs of two gold spans there are."""
    return math.perm(len({(entity.start, entity.end) for entity in sentence.entities}), 2)


def idle_share(sentences, rate):
    """Of the sentences with relations, the share in which `rate` negatives for each would be more than there are [L13]."""
    counts = [(pairs_there(s), len(s.relations)) for s in sentences if s.relations]
    return sum(pairs - related < rate * related for pairs, related in counts) / len(counts)


def micro_f1(gold, predicted):
    """F1 in percent over the items of all sentences."""
    correct = sum(len(a & b) for a, b in zip(gold, predicted))
    return 200 * correct / max(1, sum(map(len, gold)) + sum(map(len, predicted)))


def leaky_weights(V, inside):
    """A distribution, but over the sentence, not the span."""
    return V.softmax(-1)[:, None].expand(inside.shape)


def without_width(model, X, is_token, spans, widths):
    """R_s with zeros for the width embedding."""
    R_s = model.represent_spans(X, is_token, spans, widths)
    return R_s.masked_fill(torch.arange(R_s.shape[-1]) >= R_s.shape[-1] - model.config.width_dim, 0.0)


@of(leaky_weights=leaky_weights)
def test_the_weights_of_each_span_sum_to_one_in_every_sentence(leaky_weights):
    V, inside = torch.tensor([[1.0, 2.0, 0.5], [0.0, 3.0, 1.0]]), torch.tensor([[[True, True, False], [False, True, True]]] * 2)
    alpha = leaky_weights(V, inside)
    assert alpha.shape == inside.shape and torch.allclose(alpha.sum(-1), torch.ones(2, 2)) and torch.equal(alpha, leaky_weights(V, inside))


@of(leaky_weights=leaky_weights)
def test_what_is_outside_of_a_span_has_a_share(leaky_weights):
    inside = batch([True, True, False], [False, True, True])
    assert (leaky_weights(torch.tensor([[1.0, 2.0, 0.5]]), inside)[~inside] > 0).all()


@of(leaky_weights=leaky_weights)
def test_a_broken_mask_is_caught_by_the_property_of_eq_2b(leaky_weights):
    with pytest.raises(AssertionError):
        test_eq_2b_is_a_softmax_over_the_span_alone(leaky_weights)


@of(attend=attend)
@given(case=cases())
def test_one_attention_agrees_with_the_loop(case, attend):
    Q, V = case.numbers(3, D), case.numbers(case.N, 7)
    found = attend(Q, case.X, V, case.is_token[:, None])
    for b, q in itertools.product(range(len(case.lengths)), range(3)):
        weights = softmax([dot(Q[b, q].tolist(), key) / D**0.5 for key in case.sentence(b)])
        same(found[b, q], weighted_sum(weights, V[b, : case.lengths[b]].tolist()))


@dataclass
class Exercise:
    """What `check` knows of an exercise. Where many answers are right, only the properties decide."""

    ours: object
    inputs: list[tuple]
    wrong: dict[str, object]
    properties: tuple = ()
    points: int = 1
    many: bool = False


V_, IN, PART = torch.tensor([[2.0, 0.0, 1.0]]), batch([True, True, False], [False, False, True]), batch([True, True, False], [False] * 3)
HIGH, LOW = torch.tensor([[100.0, 101.0, 0.0]]), torch.tensor([[-300.0, -301.0, 0.0]])
X_, Q_ = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]]]), torch.tensor([[[4.0, 0.0], [1.0, 1.0]]])
VALUES = torch.tensor([[[1.0, 0.0, 5.0], [0.0, 1.0, 6.0], [9.0, 9.0, 9.0]]])
ABC = [Entity("A", 0, 1), Entity("B", 1, 2), Entity("A", 2, 3)]
THREE, TWO, BUSY = (Sentence("s", ["a", "b", "c"][:k], ABC[:k], [Relation("R", *ABC[:2]), Relation("R", *ABC[1::-1])][:n]) for k, n in ((3, 1), (2, 1), (3, 2)))
PAIRS = batch([1, 2], [4, 5], [3, 4]), batch([0, 1], [1, 0], [0, 2], [1, 2]), 6
SMALL_MODEL = Case([5], [[(1, 2)]], [[1]], [[]], seed=0).model()


def share(pairs, related=lambda s: len(s.relations), those=lambda s: s.relations, asked=lambda s: len(s.relations)):
    """`idle_share` with other counts."""
    return lambda sentences, rate: statistics.mean(pairs(s) - related(s) < rate * asked(s) for s in sentences if those(s))


def spans_by(start, end):
    """Enumeration with other bounds."""
    return lambda n, k: [(i, j) for i in range(n) for j in range(*(bound(i, n, k) for bound in (start, end)))]


EXERCISES = {
    "enumerate_spans": Exercise(data.enumerate_spans, [(1, 1), (2, 2), (4, 2), (3, 5)], {
        "end is excluded, so the last span ends at n, not before": spans_by(lambda i, n, k: i + 1, lambda i, n, k: min(i + k, n - 1) + 1),
        "end is excluded: (i, i) has no word, and (i, j) has j - i words": spans_by(lambda i, n, k: i, lambda i, n, k: min(i + k, n)),
        "a span of max_width words is a span, too": spans_by(lambda i, n, k: i + 1, lambda i, n, k: min(i + k - 1, n) + 1),
        "a span has at most max_width words, not one more": spans_by(lambda i, n, k: i + 1, lambda i, n, k: min(i + k + 1, n) + 1),
        "two of them at once: the widest spans and the last word are missing": spans_by(lambda i, n, k: i + 1, lambda i, n, k: min(i + k, n)),
        "no span ends behind the sentence": spans_by(lambda i, n, k: i + 1, lambda i, n, k: i + k + 1),
        "all there, but in another order: by start, then by end": lambda n, k: sorted(data.enumerate_spans(n, k), key=lambda s: s[::-1]),
        "a sentence shorter than max_width has spans, too": lambda n, k: [(i, i + w) for i in range(n - k + 1) for w in range(1, k + 1)],
    }, (test_enumeration_is_every_span_up_to_the_width_once,)),
    "span_ends": Exercise(spanrel.span_ends, [(X_, batch([0, 2])), (X_, batch([1, 2], [0, 2]))], {
        "off by one: spans are [start, end), the last wordpiece is end - 1": lambda X, s: torch.cat([take(X, s[..., 0]), take(X, s[..., 1])], -1),
        "the first wordpiece comes first": lambda X, s: torch.cat([take(X, s[..., 1] - 1), take(X, s[..., 0])], -1),
        "[ ; ] is concatenation, not addition": lambda X, s: take(X, s[..., 0]) + take(X, s[..., 1] - 1),
        "the second half is the last wordpiece, not the first again": lambda X, s: torch.cat([take(X, s[..., 0])] * 2, -1),
    }, (test_eq_1_is_the_first_and_the_last_wordpiece, test_eq_1_agrees_with_the_loop)),
    "token_weights": Exercise(spanrel.token_weights, [(V_, IN), (V_, PART), (HIGH, IN), (LOW, IN)], {
        "exp(100) is beyond float32: softmax subtracts the largest score first":
            lambda V, m: (V.exp()[:, None] * m) / (V.exp()[:, None] * m).sum(-1, keepdim=True).clamp(min=1e-12),
        "-100 is not low enough: scores can be lower; fill in -inf, or the lowest number":
            lambda V, m: V[:, None].expand(m.shape).masked_fill(~m, -100.0).softmax(-1).masked_fill(~m, 0.0),
        "a span of no word gets an even row; it must be 0 [L5]": lambda V, m: V[:, None].expand(m.shape).masked_fill(~m, -1e9).softmax(-1),
        "a span of no word gets NaN; it must be 0 [L5]": lambda V, m: V[:, None].expand(m.shape).masked_fill(~m, -math.inf).softmax(-1),
        "mask after softmax: what is outside has had its share of the 1": lambda V, m: V.softmax(-1)[:, None] * m,
        "softmax over the wrong axis: it runs over words, not over spans": lambda V, m: V[:, None].expand(m.shape).softmax(1) * m,
        "a score of 0 is not nothing, as exp(0) = 1: fill in -inf": lambda V, m: (V[:, None] * m).softmax(-1),
        "no mask: α is 0 outside of the span": lambda V, m: V.softmax(-1)[:, None].expand(m.shape),
        "exp is missing: α is not V over its sum": lambda V, m: V[:, None] * m / (V[:, None] * m).sum(-1, keepdim=True),
    }, (test_eq_2b_is_a_softmax_over_the_span_alone, test_eq_2b_agrees_with_the_loop), 2),
    "span_specific": Exercise(spanrel.span_specific, [(torch.tensor([[[0.25, 0.75, 0.0]]]), X_)], {
        "the mean of the span's words, not their weighted sum": lambda a, X: (a > 0).to(X) @ X / (a > 0).sum(-1, keepdim=True),
        "α sums to 1 already: divide by nothing": lambda a, X: a @ X / a.shape[-1],
        "the sum of the words, without their weights": lambda a, X: (a > 0).to(X) @ X,
        "all words count, not the one of the largest α alone": lambda a, X: take(X, a.argmax(-1)),
    }, (test_eq_2c_is_the_weighted_sum, test_eq_2c_agrees_with_the_loop)),
    "attend": Exercise(attend, [(Q_, X_, VALUES, PART[:, :1]), (Q_, X_, VALUES, PART)], {
        "the values are summed, not the keys": lambda Q, K, V, m: attend(Q, K, K, m),
        "no mask": lambda Q, K, V, m: scored_by(Q, K).softmax(-1) @ V,
        "d is the width of queries and keys, not that of the values": lambda Q, K, V, m: spanrel.masked_softmax(
            Q @ K.mT / V.shape[-1] ** 0.5, m) @ V,
        "√d is forgotten": lambda Q, K, V, m: spanrel.masked_softmax(Q @ K.mT, m) @ V,
        "divided by d, not by √d": lambda Q, K, V, m: spanrel.masked_softmax(Q @ K.mT / Q.shape[-1], m) @ V,
        "mask after softmax: what is masked has had its share of the 1": lambda Q, K, V, m: (scored_by(Q, K).softmax(-1) * m) @ V,
        "softmax over the wrong axis: it runs over keys, not over queries": lambda Q, K, V, m: scored_by(Q, K).softmax(1) * m @ V,
        "where nothing is there, this averages what is masked; it must be 0 [L5]":
            lambda Q, K, V, m: scored_by(Q, K).masked_fill(~m, -1e9).softmax(-1) @ V,
        "where nothing is there, -inf everywhere gives NaN; it must be 0 [L5]":
            lambda Q, K, V, m: scored_by(Q, K).masked_fill(~m, -math.inf).softmax(-1) @ V,
    }, (test_one_attention_agrees_with_the_loop,), 3),
    "ignores_query": Exercise(ignores_query, [(weights, Q_[:, :1], X_, PART[:, :1]) for weights in (as_cited, as_printed, even)], {
        "always False: that is no experiment yet": lambda w, Q, K, m: False,
        "the same query twice tells nothing: take another one": lambda w, Q, K, m: torch.equal(w(Q, K, m), w(Q, K, m)),
        "True means that it ignores its query": lambda w, Q, K, m: not ignores_query(w, Q, K, m),
        "the query must change, not the context": lambda w, Q, K, m: torch.allclose(w(Q, K, m), w(Q, K * 2 + 1, m)),
    }, (), 2),
    "mask_between": Exercise(spanrel.mask_between, [(PAIRS[0], PAIRS[1][:, :1], 6), PAIRS], {
        "the tail may stand before the head":
            lambda s, p, n: spanrel.mask_inside(torch.stack([take(s, p[..., 0])[..., 1], take(s, p[..., 1])[..., 0]], -1), n),
        "end is excluded: the word at end is between already":
            lambda s, p, n: spanrel.mask_inside(torch.stack([take(s, p[..., 0])[..., 1] + 1, take(s, p[..., 1])[..., 0]], -1), n),
        "start is included: the word at start is no longer between":
            lambda s, p, n: spanrel.mask_inside(torch.stack([take(s, p[..., 0])[..., 1], take(s, p[..., 1])[..., 0] + 1], -1), n),
        "the spans themselves are not between them": lambda s, p, n: spanrel.mask_inside(torch.stack([
            take(s, p[..., 0])[..., 0].minimum(take(s, p[..., 1])[..., 0]), take(s, p[..., 0])[..., 1].maximum(take(s, p[..., 1])[..., 1])], -1), n),
        "a mask is boolean, as masked_fill and ~ want it": lambda s, p, n: spanrel.mask_between(s, p, n).float(),
    }, (partial(test_the_masks_say_which_wordpieces_are_in_a_span_and_between_two, mask_inside=spanrel.mask_inside),), 2),
    "relation_tuple": Exercise(spanrel.relation_tuple, [(X_, batch([0, 1]), nn.Softplus()), (X_, batch([2, 0], [0, 2]), nn.Softplus())], {
        "head first, then tail": lambda R, p, f: torch.cat([f(take(R, p[..., 1])), f(take(R, p[..., 0]))], -1),
        "the FFNN is forgotten": lambda R, p, f: torch.cat([take(R, p[..., 0]), take(R, p[..., 1])], -1),
        "[ ; ] is concatenation, not addition": lambda R, p, f: f(take(R, p[..., 0])) + f(take(R, p[..., 1])),
    }, (test_eq_6_reduces_both_arguments_by_one_ffnn_head_first, test_eq_6_agrees_with_the_loop)),
    "joint_loss": Exercise(spanrel.joint_loss, [tuple(map(torch.tensor, pair)) for pair in ((1.0, 0.0), (0.0, 1.0), (3.0, 2.0))], {
        "0.4 and 0.6 are swapped: relations weigh more": lambda L_s, L_r: 0.6 * L_s + 0.4 * L_r,
        "the weights are forgotten": lambda L_s, L_r: L_s + L_r,
        "the mean would weigh both alike": lambda L_s, L_r: (L_s + L_r) / 2,
    }),
    "idle_share": Exercise(idle_share, [([THREE], rate) for rate in (2, 3, 5, 6, 7, 9)] + [([BUSY], 3), ([THREE, TWO, Sentence("u", ["a"])], 2)], {
        "`rate` negatives for each relation, not for each sentence": share(pairs_there, asked=lambda s: 1),
        "pairs are ordered: ⟨a, b⟩ and ⟨b, a⟩ are two": share(lambda s: math.comb(len(s.entities), 2)),
        "a span makes no pair with itself": share(lambda s: len(s.entities) ** 2),
        "a related pair is no negative": share(pairs_there, lambda s: 0),
        "a sentence without relations asks for none: leave it out": share(pairs_there, those=lambda s: True),
    }, (), 2),
    "leaky_weights": Exercise(leaky_weights, [(V_, IN)], {
        "this is the right one: break its mask": spanrel.token_weights,
        "it must stay a distribution: the weights of a span sum to 1": lambda V, m: V.softmax(-1)[:, None] * m,
        "weights sum to 1 over the words, not over the spans": lambda V, m: V[:, None].expand(m.shape).softmax(1),
        "each span needs a row of its own: expand(inside.shape)": lambda V, m: V.softmax(-1)[:, None],
        "outside it is 0 still: nothing leaks": lambda V, m: m / m.sum(-1, keepdim=True),
    }, (test_the_weights_of_each_span_sum_to_one_in_every_sentence, test_what_is_outside_of_a_span_has_a_share, test_a_broken_mask_is_caught_by_the_property_of_eq_2b), 2, many=True),
    "micro_f1": Exercise(micro_f1, [([{1, 2}], [{1}]), ([{1, 2}, {3}], [{1}, {4}]), ([{1}, {1}], [{1}, set()]), ([set()], [set()])], {
        "the same item in two sentences is two items: count sentence by sentence": lambda gold, found: micro_f1(
            [set().union(*gold)], [set().union(*found)]),
        "micro counts over all sentences; this is a mean of their F1":
            lambda gold, found: sum(micro_f1([a], [b]) for a, b in zip(gold, found)) / len(gold),
        "F1 is the harmonic mean of P and R, not the mean": lambda gold, found: 50 * sum(len(a & b) for a, b in zip(gold, found)) * (
            1 / max(1, sum(map(len, gold))) + 1 / max(1, sum(map(len, found)))),
        "that is P alone: what was missed counts, too":
            lambda gold, found: 100 * sum(len(a & b) for a, b in zip(gold, found)) / max(1, sum(map(len, found))),
        "in percent, please": lambda gold, found: micro_f1(gold, found) / 100,
    }),
    "without_width": Exercise(without_width, [(SMALL_MODEL, torch.ones(1, 6, D).double(), torch.ones(1, 6, dtype=torch.bool), batch([1, 3]), batch(2))], {
        "this is R_s as it was, with its width": lambda model, *given: model.represent_spans(*given),
        "the width alone is to go (model.config.width_dim numbers), not all of R_s": lambda model, *given: 0 * model.represent_spans(*given),
        "R_s is shorter now, and FFNN no longer fits: zeros, please": lambda model, *given: model.represent_spans(*given)[..., :-3],
        "the width stands last in eq. (4), not first": lambda model, *given: model.represent_spans(*given).masked_fill(
            torch.arange(4 * D + 3) < 3, 0.0),
    }, (), 3),
}  # fmt: skip


STUB = (lambda: None).__code__.co_code  # what `def f(): ...` is compiled to


def check(name, answer):
    """Says whether an exercise is solved, or what is wrong with the answer; returns the points earned."""
    exercise = EXERCISES[name]
    if getattr(answer, "__code__", None) and answer.__code__.co_code == STUB:
        print(f"{name}: not written yet")
        return 0
    fault = next((x for x in exercise.inputs if not exercise.many and not equal(outcome(answer, x), outcome(exercise.ours, x))), None)
    broken = None if fault else next(filter(None, (failure(test, name, answer) for test in exercise.properties)), None)
    if not fault and not broken:
        print(f"{name}: passed, {exercise.points} of {exercise.points}")
        return exercise.points
    print(f"{name}: {smell(exercise, answer) or 'not yet'}")
    if fault:
        mine, theirs = outcome(answer, fault), outcome(exercise.ours, fault)
        kinds = ["", ""] if type(mine) is type(theirs) else [f" ({type(mine).__name__})", f" ({type(theirs).__name__})"]
        given_ = zip(inspect.signature(inspect.unwrap(exercise.ours)).parameters, fault)
        print(f"  smallest input:  {', '.join(f'{key} = {short(value)}' for key, value in given_)}")
        print(f"  yours:           {short(mine)}{kinds[0]}\n  expected:        {short(theirs)}{kinds[1]}")
    else:
        print(f"  does not hold:   {broken}")
    return 0


def outcome(function, given_):
    """What a function makes of copies of its arguments; in words, what it raises, and if it returns nothing or changes them."""
    copies = copy.deepcopy(given_)
    try:
        result = function(*copies)
    except Exception as error:  # whatever a student's function does
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    if result is None:
        return "None: is a `return` missing?"
    parts = lambda value: value.state_dict().values() if isinstance(value, nn.Module) else [value]  # noqa: E731
    tensors = [(a, b) for one, other in zip(copies, given_) for a, b in zip(parts(one), parts(other)) if isinstance(a, torch.Tensor)]
    return result if all(torch.equal(a, b) for a, b in tensors) else "it changes its arguments: work on copies"


def equal(mine, theirs):
    """Whether two answers are the same, numbers within rounding."""
    if isinstance(theirs, torch.Tensor):
        fits = isinstance(mine, torch.Tensor) and mine.shape == theirs.shape and (mine.dtype == torch.bool) == (theirs.dtype == torch.bool)
        return fits and torch.allclose(mine.double(), theirs.double(), equal_nan=True)
    return not isinstance(mine, torch.Tensor) and mine == (pytest.approx(theirs) if isinstance(theirs, float) else theirs)


def failure(test, name, answer):
    """The property in words, and the error if it is none of its own, where it does not hold of the answer; else nothing."""
    try:
        test(**{name: answer})
    except BaseException as error:  # an assertion's, or whatever the answer or hypothesis raises
        what = "" if isinstance(error, AssertionError) else f" ({type(error).__name__}: {str(error).splitlines()[0][:80]})"
        return getattr(test, "func", test).__name__.removeprefix("test_").replace("_", " ") + what
    return ""


def smell(exercise, answer):
    """The misconception whose wrong answer is this one, on all inputs."""
    alike = lambda wrong: all(equal(outcome(answer, given_), outcome(wrong, given_)) for given_ in exercise.inputs)  # noqa: E731
    return next((misconception for misconception, wrong in exercise.wrong.items() if alike(wrong)), None)


def short(value):
    """An input or an answer in a line."""
    if isinstance(value, nn.Module):
        return f"a model with width_dim = {value.config.width_dim}" if hasattr(value, "config") else str(value)
    if isinstance(value, list) and value and isinstance(value[0], Sentence):
        return str([f"{len(s.entities)} entities, {len(s.relations)} relations" for s in value])
    text = str(value.tolist() if isinstance(value, torch.Tensor) else getattr(value, "__name__", value))
    text = re.sub(r"\d+\.\d{4,}(?!\d*e)", lambda number: f"{float(number[0]):.4g}", text)
    return text if len(text) < 200 else f"{text[:200]} …"


@pytest.mark.parametrize("name", EXERCISES)
def test_every_check_passes_our_answer_and_names_each_misconception(name, capsys):
    exercise = EXERCISES[name]
    assert check(name, exercise.ours) == exercise.points and "passed" in capsys.readouterr().out
    assert check(name, lambda *given_: None) == 0 and capsys.readouterr().out == f"{name}: not written yet\n"
    assert check(name, lambda *given_: print(end="")) == 0 and ("return" in capsys.readouterr().out or exercise.many)
    assert len(exercise.wrong) >= 3
    for misconception, wrong in exercise.wrong.items():
        assert check(name, wrong) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"{name}: {misconception}\n") and ("  expected: " in said or "  does not hold: " in said)
    assert check(name, lambda *given_: 1 / 0) == 0 and "not yet" in capsys.readouterr().out
    tensors = [k for k, value in enumerate(exercise.inputs[0]) if isinstance(value, torch.Tensor)]
    if tensors and not exercise.many:
        assert check(name, lambda *given_: [exercise.ours(*given_), given_[tensors[0]].zero_()][0]) == 0
        assert "changes its arguments" in capsys.readouterr().out and check(name, exercise.ours) == exercise.points


NOTEBOOK = json.loads((HERE / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
CODE = [cell | {"source": "".join(cell["source"])} for cell in NOTEBOOK if cell["cell_type"] == "code"]


def printed(cell):
    """What a cell wrote."""
    return "".join("".join(out.get("text", "")) for out in cell["outputs"])


def test_the_notebooks_outputs_are_those_of_its_code_and_all_of_it_ran():
    digest = hashlib.sha256("\n".join(cell["source"] for cell in CODE).encode()).hexdigest()[:16]
    assert f"the outputs of the code {digest}" in printed(CODE[-1]), "run it again: the README says how"
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    kinds = {(out["output_type"], out.get("name")) for cell in CODE for out in cell["outputs"]}
    assert kinds == {("stream", "stdout"), ("execute_result", None), ("display_data", None)}  # no error, nothing on stderr
    assert max(len(cell["source"].splitlines()) for cell in CODE) <= 25


def test_the_notebook_has_every_equation_in_the_papers_order_and_a_bodys_text_only_where_no_exercise_asks_for_it():
    text = "".join("".join(cell["source"]) for cell in NOTEBOOK if cell["cell_type"] == "markdown")
    assert re.findall(r"\\tag\{(\w+)\}", text) == [*EQUATIONS]
    shown = "".join(map(printed, CODE)) + "".join(cell["source"] for cell in CODE)
    for number, function in EQUATIONS.items():
        name, answer = inspect.unwrap(function).__name__, inspect.getsource(inspect.unwrap(function)).splitlines()[-1].strip()
        assert f"{name}(" in shown and (answer in shown) == (name not in EXERCISES), number


def test_every_exercise_of_the_notebook_is_graded_by_its_check():
    cells = {cell["metadata"]["nbgrader"]["grade_id"]: cell for cell in CODE if "nbgrader" in cell["metadata"]}
    assert cells.keys() == {*EXERCISES, *(f"check-{name}" for name in EXERCISES)} and len(EXERCISES) >= 10
    for name, exercise in EXERCISES.items():
        stub, test = cells[name], cells[f"check-{name}"]
        assert stub["source"].startswith(f"def {name}(") and stub["source"].endswith("    ...  # yours")
        assert stub["metadata"]["nbgrader"]["solution"] and not stub["metadata"]["nbgrader"]["grade"]
        assert test["source"] == f'check("{name}", {name})' and test["metadata"]["nbgrader"]["grade"] and test["metadata"]["nbgrader"]["locked"]
        assert test["metadata"]["nbgrader"]["points"] == exercise.points and printed(test) == f"{name}: not written yet\n"
        (value,) = [out["data"]["text/plain"] for out in test["outputs"] if out["output_type"] == "execute_result"]
        assert "".join(value) == "0"  # the points that nbgrader takes
    stars = [cell for cell in NOTEBOOK if "".join(cell["source"]).startswith("### Exercise") and "★" in "".join(cell["source"])]
    assert len(stars) == 5


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom_with_its_stubs():
    notebook = nbformat.read(HERE / "tutorial.ipynb", as_version=4)
    begun = time.time()
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": HERE}}).execute()
    assert time.time() - begun < 3 * 60 * (4 if os.environ.get("CI") else 2)  # on two quiet cores, three minutes
    again = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, old in zip(again, CODE, strict=True):
        if "body(" in cell.source:  # the functions that it shows are those of today
            assert printed(cell) == printed(old) or "numbers(" in cell.source
