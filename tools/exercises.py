"""The exercises of `tutorial.ipynb`, which check themselves: `check("span_ends", span_ends)`.
An exercise has our answer, small inputs of two sentences, and the wrong answers that students really write,
each under the name of its misconception. It also has properties of `test_spanrel.py` or of this file, which
take the student's function in the place of ours. Where an answer is differentiated, so is the student's."""

import copy
import inspect
import itertools
import math
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from torch import nn

import spanrel
import test_spanrel as proof
from data import Entity, Relation, Sentence, enumerate_spans
from spanrel import masked_softmax, take
from support.scores import prf
from test_spanrel import Case, D, batch, cases, dot, same, softmax, weighted_sum

AGAIN = "each sentence has its own numbers: here the first one's stand for all"
ALONE = "each sentence has its answer: here it is that of the first one alone"
ARRAY = "a tensor, please, not an array of numpy"
LOST = "the numbers are right, but the gradient is lost: no .item(), .detach(), no_grad or numpy"
NAN = "the numbers are right, but the gradient is NaN: there is 0 / 0 where the mask is empty [L5]"


@dataclass
class Exercise:
    """What `check` knows of an exercise. Where many answers are right, only the properties decide."""

    ours: object
    inputs: list[tuple]
    wrong: dict[str, object]
    properties: tuple = ()
    points: int = 1
    many: bool = False
    batched: bool = False  # the answer and all tensors given have the dimension B
    differentiated: bool = False  # training needs the gradient of the answer

    def __post_init__(self):
        self.ours = inspect.unwrap(self.ours)  # without the checks of its shapes, which take time
        if self.batched:
            self.wrong[AGAIN] = lambda *inputs: self.ours(*first_sentence(inputs, again=True))
            self.wrong[ALONE] = lambda *inputs: self.ours(*first_sentence(inputs))
            self.wrong[ARRAY] = lambda *inputs: self.ours(*inputs).detach().numpy()
        if self.differentiated:
            self.wrong[LOST] = lambda *inputs: self.ours(*inputs).detach()


def first_sentence(inputs, again=False):
    """The inputs of the first sentence, alone or again for each sentence."""
    chosen = []
    for value in inputs:
        if isinstance(value, torch.Tensor):
            value = value[:1].expand_as(value) if again else value[:1]
        chosen.append(value)
    return chosen


EXERCISES: dict[str, Exercise] = {}

# -- Answers and properties of our own, and wrong answers that take their mistake as an argument -------------


def spans_off(start, widest, last, n, k):
    """`enumerate_spans`, but its bounds are off: 1, 0, 0 is right."""
    spans = itertools.product(range(n), range(n + k + 1))
    return [(i, j) for i, j in spans if i + start <= j <= min(i + k + widest, n + last)]


def leaky_weights(V, inside):
    """A distribution, but over the sentence, not the span."""
    return V.softmax(-1)[:, None].expand(inside.shape)


def the_weights_of_each_span_sum_to_one_in_every_sentence(leaky_weights):
    V, two = torch.tensor([[1.0, 2.0, 0.5], [0.0, 3.0, 1.0]]), [[True, True, False], [False, True, True]]
    alpha = leaky_weights(V, torch.tensor([two, two]))
    assert alpha.shape == (2, 2, 3) and torch.allclose(alpha.sum(-1), torch.ones(2, 2))
    assert torch.equal(alpha, leaky_weights(V, torch.tensor([two, two])))


def what_is_outside_of_a_span_has_a_share(leaky_weights):
    inside = batch([True, True, False], [False, True, True])
    assert (leaky_weights(torch.tensor([[1.0, 2.0, 0.5]]), inside)[~inside] > 0).all()


def a_broken_mask_is_caught_by_the_property_of_eq_2b(leaky_weights):
    with pytest.raises(AssertionError):
        proof.test_eq_2b_is_a_softmax_over_the_span_alone(leaky_weights)


def over_sum(powers):
    """A Softmax by hand: its powers over their sum, 0 where there are none."""
    return powers / powers.sum(-1, keepdim=True).clamp(min=1e-12)


def ordered(one, other):
    """Two numbers, the smaller one first."""
    return one.minimum(other), one.maximum(other)


def mask_by(gap, spans, pairs, n):
    """`mask_between`, but the gap of [a, b) and [c, d) is gap(a, b, c, d)."""
    ends = torch.cat([take(spans, pairs[..., 0]), take(spans, pairs[..., 1])], -1)
    return spanrel.mask_inside(torch.stack(gap(*ends.unbind(-1)), -1), n)


def scaled(Q, K):
    """The scores of scaled dot-product attention."""
    return Q @ K.mT / Q.shape[-1] ** 0.5


def attend(Q, K, V, mask):
    """One attention."""
    return masked_softmax(scaled(Q, K), mask) @ V


@given(case=cases())
def one_attention_agrees_with_the_loop(case, attend):
    Q, V, mask = case.numbers(3, D), case.numbers(case.N, 7), case.numbers(3, case.N) > 0
    attended = attend(Q, case.X, V, mask)
    for b, q in itertools.product(range(len(case.lengths)), range(3)):
        keys, values = case.X[b, mask[b, q]].tolist(), V[b, mask[b, q]].tolist()
        weights = softmax([dot(Q[b, q].tolist(), key) / D**0.5 for key in keys])
        same(attended[b, q], weighted_sum(weights, values) if keys else [0.0] * 7, FLOAT32)


def as_printed(Q, K, mask):
    """The weights of additive attention as the paper prints its score, where W_1 and W_2 are sums [L7]."""
    return masked_softmax(Q.sum(-1)[..., None] + K.sum(-1)[:, None], mask)


def as_cited(Q, K, mask):
    """The same in the form of Bahdanau et al., whom the paper cites."""
    return masked_softmax((Q[:, :, None] + K[:, None]).tanh().sum(-1), mask)


def even(Q, K, mask):
    """Weights that ignore the query in another way: the mean of what is there."""
    return masked_softmax(0 * scaled(Q, K), mask)


def pull(Q):
    """A number for each query."""
    return (Q @ torch.arange(1.0, 1 + Q.shape[-1]))[..., None]


def milder(Q, K, mask):
    """Weights that ignore the context. Their query makes them more or less even; the largest stays."""
    return masked_softmax(pull(Q).sigmoid() * torch.arange(K.shape[1]), mask)


def wilder(Q, K, mask):
    """The same, but a small change of the query moves the largest from one end to the other."""
    return masked_softmax((40 * pull(Q)).sin() * torch.arange(K.shape[1]), mask)


def gates(Q, K, mask):
    """Weights that do not sum to 1: a sigmoid for each key."""
    return (pull(Q).sigmoid() * torch.arange(K.shape[1])).sigmoid() * mask


def ignores_query(weights, Q, K, mask):
    """Whether another query has the same weights."""
    return torch.allclose(weights(Q, K, mask), weights(2 * Q.flip(-1) + 1, K, mask))


def idle_share(
    sentences, rate, itself=1, orders=2, related=1, wanted=None, least=1, span=attrgetter("start", "end")
):
    """Of the sentences with relations, the share with fewer than `rate` negatives for each of them [L13].
    The defaults are right: a wrong answer counts n spans and k relations with another value of one."""
    idle = []
    for s in sentences:
        n, k = len({*map(span, s.entities)}), len(s.relations)
        negatives = n * (n - itself) * orders / 2 - related * k
        idle += [negatives < rate * (wanted or k)] if k >= least else []
    return sum(idle) / len(idle)


def micro_f1(gold, predicted, rate="f1"):
    """F1 (or precision "p", or recall "r") in percent over the items of all sentences."""
    correct = sum(len(a & b) for a, b in zip(gold, predicted))
    return prf(sum(map(len, gold)), sum(map(len, predicted)), correct)[rate]


def without_width(model, X, is_token, spans, widths):
    """R_s with zeros for the width embedding."""
    R_s = model.represent_spans(X, is_token, spans, widths)
    return R_s.masked_fill(torch.arange(R_s.shape[-1]) >= R_s.shape[-1] - model.config.width_dim, 0.0)


def without_numbers(part, model, *rest):
    """R_s with zeros for a part of its numbers."""
    R_s = model.represent_spans(*rest)
    R_s[..., part] = 0.0
    return R_s


def without_weights(model, *rest):
    """R_s without its width, but the model has lost its width embedding."""
    model.width.weight.data.zero_()
    return model.represent_spans(*rest)


# -- §3.1  Spans ---------------------------------------------------------------------------------------------

EXERCISES["enumerate_spans"] = Exercise(enumerate_spans, [(1, 1), (2, 2), (4, 2), (3, 5)], {
    "end is excluded, so the last span ends at n, not before": partial(spans_off, 1, 0, -1),
    "end is excluded: (i, i) has no word, and (i, j) has j - i words": partial(spans_off, 0, -1, -1),
    "a span of max_width words is a span, too": partial(spans_off, 1, -1, 0),
    "a span has at most max_width words, not one more": partial(spans_off, 1, 1, 0),
    "two of them at once: the widest spans and the last word are missing": partial(spans_off, 1, -1, -1),
    "no span ends behind the sentence": partial(spans_off, 1, 0, math.inf),
    "all there, but in another order: by start, then by end":
        lambda n, k: sorted(enumerate_spans(n, k), key=lambda span: span[::-1]),
    "a sentence shorter than max_width has spans, too":
        lambda n, k: [(start, end) for start, end in enumerate_spans(n, k) if start + k <= n],
    "a span is (start, end), not (start, number of words)":
        lambda n, k: [(start, end - start) for start, end in enumerate_spans(n, k)],
    "a span is a tuple, which can be a key; a list cannot": lambda n, k: [*map(list, enumerate_spans(n, k))],
    "words are counted from 0": lambda n, k: [(i + 1, j + 1) for i, j in enumerate_spans(n, k)],
    "spans of one word alone: up to max_width words, please": lambda n, k: enumerate_spans(n, 1),
}, (proof.test_enumeration_is_every_span_up_to_the_width_once,))  # fmt: skip

X = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]], [[5.0, 4.0], [2.0, 7.0], [6.0, 8.0]]])
ENDS = [(X, torch.tensor(spans)) for spans in ([[[0, 2]], [[1, 2]]], [[[1, 2], [0, 2]], [[0, 2], [1, 2]]])]
EXERCISES["span_ends"] = Exercise(spanrel.span_ends, ENDS, {
    "off by one: spans are [start, end), the last wordpiece is end - 1":
        lambda X, s: torch.cat([take(X, s[..., 0]), take(X, s[..., 1])], -1),
    "off by one: the last wordpiece is end - 1, not end - 2":
        lambda X, s: torch.cat([take(X, s[..., 0]), take(X, s[..., 1] - 2)], -1),
    "the first wordpiece comes first": lambda X, s: spanrel.span_ends(X, s).roll(X.shape[-1], -1),
    "[ ; ] is concatenation, not addition": lambda X, s: take(X, s[..., 0]) + take(X, s[..., 1] - 1),
    "[ ; ] is concatenation, not a mean": lambda X, s: (take(X, s[..., 0]) + take(X, s[..., 1] - 1)) / 2,
    "[ ; ] makes one vector of two: torch.cat, not torch.stack":
        lambda X, s: torch.stack([take(X, s[..., 0]), take(X, s[..., 1] - 1)], -2),
    "the second half is the last wordpiece, not the first again": lambda X, s: take(X, s[..., 0]).tile(2),
    "X[:, index] takes the words of each sentence for all sentences: take(X, index)":
        lambda X, s: torch.cat([X[:, s[..., 0]], X[:, s[..., 1] - 1]], -1),
    "each sentence has its own spans: here those of the first one stand for all":
        lambda X, s: spanrel.span_ends(X, s[:1].expand_as(s)),
}, (proof.test_eq_1_is_the_first_and_the_last_wordpiece, proof.test_eq_1_agrees_with_the_loop),
    batched=True, differentiated=True)  # fmt: skip

V = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
IN = torch.tensor([[[True, True, False], [False, False, True]], [[False, True, True], [True, True, False]]])
EMPTY = torch.tensor([[[True, True, False], [False, False, False]]] * 2)
HIGH, LOW = torch.tensor([[100.0, 101.0, 0.0], [2e4, 2e4, 0.0]]), torch.tensor([[-2e4, -2e4, 0.0]] * 2)
BEYOND = torch.tensor([[2.0, 0.0, 80.0], [0.0, 3.0, 80.0]])  # the largest score is outside
SCORED = [(V, IN), (V, EMPTY), (BEYOND, EMPTY), (HIGH, EMPTY[:, [0, 0]]), (LOW, EMPTY[:, [0, 0]])]
EXERCISES["token_weights"] = Exercise(spanrel.token_weights, SCORED, {
    "exp(100) is beyond float32: softmax subtracts the largest score first":
        lambda V, m: over_sum(V.exp()[:, None] * m),
    "exp(100) is beyond float32: nan_to_num hides it, but the weights are lost":
        lambda V, m: over_sum(V.exp()[:, None] * m).nan_to_num(),
    "each sentence has its own mask: here that of the first one stands for all":
        lambda V, m: masked_softmax(V[:, None], m[:1].expand_as(m)),
    "each span has its own mask: here that of the first one stands for all":
        lambda V, m: masked_softmax(V[:, None], m[:, :1].expand_as(m)),
    "the largest score to subtract is that of the span: outside there may be a far larger one":
        lambda V, m: over_sum((V - V.amax(-1, True)).exp()[:, None] * m),
    "-100 is not low enough: scores can be lower; fill in -inf, or the lowest number":
        lambda V, m: V[:, None].masked_fill(~m, -100.0).softmax(-1).masked_fill(~m, 0.0),
    "a span of no word gets an even row; it must be 0 [L5]":
        lambda V, m: V[:, None].masked_fill(~m, -1e9).softmax(-1),
    "a span of no word gets NaN; it must be 0 [L5]":
        lambda V, m: V[:, None].masked_fill(~m, -math.inf).softmax(-1),
    "mask after softmax: what is outside has had its share of the 1": lambda V, m: V.softmax(-1)[:, None] * m,
    "softmax over the wrong axis: it runs over words, not over spans":
        lambda V, m: V[:, None].expand(m.shape).softmax(1) * m,
    "softmax over the wrong axis, if behind the mask: it runs over words, not over spans":
        lambda V, m: V[:, None].masked_fill(~m, -1e9).softmax(1) * m,
    "softmax over the wrong axis: it runs over words, not over sentences":
        lambda V, m: V[:, None].expand(m.shape).softmax(0) * m,
    "a score of 0 is not nothing, as exp(0) = 1: fill in -inf": lambda V, m: (V[:, None] * m).softmax(-1),
    "a score of 0 is not nothing: what is outside has had its share of the 1":
        lambda V, m: (V[:, None] * m).softmax(-1) * m,
    "no mask: α is 0 outside of the span": lambda V, m: V.softmax(-1)[:, None].expand(m.shape),
    "the mask is inverted: True is inside, and masked_fill fills where it is True":
        lambda V, m: masked_softmax(V[:, None], ~m),
    "[:, None] is forgotten: V needs a place for the spans, or its sentences are taken for spans":
        lambda V, m: masked_softmax(V, m),
    "exp is missing: α is not V over its sum": lambda V, m: V[:, None] * m / (V[:, None] * m).sum(-1, True),
    "V is missing: the weights of a span are not even": lambda V, m: over_sum(m * V.new_ones(1)),
    NAN: lambda V, m: (V[:, None] + V.new_zeros(m.shape).masked_fill(~m, -math.inf)).softmax(-1).nan_to_num(),
}, (proof.test_eq_2b_is_a_softmax_over_the_span_alone, proof.test_eq_2b_agrees_with_the_loop), 2,
    batched=True, differentiated=True)  # fmt: skip

ALPHA = torch.tensor([[[0.25, 0.75, 0.0]], [[0.0, 0.5, 0.5]]])
EXERCISES["span_specific"] = Exercise(spanrel.span_specific, [(ALPHA, X), (ALPHA[:, [0, 0]], X)], {
    "the mean of the span's words, not their weighted sum": lambda a, X: (a > 0) / (a > 0).sum(-1, True) @ X,
    "α sums to 1 already: divide by nothing": lambda a, X: a @ X / a.shape[-1],
    "the sum of the words, without their weights": lambda a, X: (a > 0).to(X) @ X,
    "the mean of the sentence: α is forgotten": lambda a, X: X.mean(1, True).expand(-1, a.shape[1], -1),
    "all words count, not the one of the largest α alone": lambda a, X: take(X, a.argmax(-1)),
    "α is a Softmax already: no second one": lambda a, X: a.softmax(-1) @ X,
    "the words are weighted, but not summed": lambda a, X: a[..., None] * X[:, None],
    "the largest number of each column, not the sum": lambda a, X: (a[..., None] * X[:, None]).amax(2),
    "the sum runs over the words of its sentence, not over all sentences":
        lambda a, X: torch.einsum("bsn,cnd->bsd", a, X),
}, (proof.test_eq_2c_is_the_weighted_sum, proof.test_eq_2c_agrees_with_the_loop),
    batched=True, differentiated=True)  # fmt: skip

EXERCISES["leaky_weights"] = Exercise(leaky_weights, [(V, IN)], {
    "this is the right one: break its mask": spanrel.token_weights,
    "it must stay a distribution: the weights of a span sum to 1": lambda V, m: V.softmax(-1)[:, None] * m,
    "weights sum to 1 over the words, not over the spans": lambda V, m: V[:, None].expand(m.shape).softmax(1),
    "each span needs a row of its own: expand(inside.shape)": lambda V, m: V.softmax(-1)[:, None],
    "outside it is 0 still: nothing leaks": lambda V, m: m / m.sum(-1, keepdim=True),
}, (the_weights_of_each_span_sum_to_one_in_every_sentence, what_is_outside_of_a_span_has_a_share,
    a_broken_mask_is_caught_by_the_property_of_eq_2b), 2, many=True)  # fmt: skip

# -- §3.2  Relations -----------------------------------------------------------------------------------------

FFNN = nn.Linear(2, 2)
FFNN.weight.data, FFNN.bias.data = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([1.0, 0.0])
ONE = torch.tensor([[[0, 1]], [[2, 0]]])
TWO = torch.tensor([[[2, 0], [0, 2]], [[1, 2], [0, 1]]])
EXERCISES["relation_tuple"] = Exercise(spanrel.relation_tuple, [(X, ONE, FFNN), (X, TWO, FFNN)], {
    "head first, then tail": lambda R, p, f: torch.cat([f(take(R, p[..., 1])), f(take(R, p[..., 0]))], -1),
    "the FFNN is forgotten": lambda R, p, f: torch.cat([take(R, p[..., 0]), take(R, p[..., 1])], -1),
    "[ ; ] is concatenation, not addition": lambda R, p, f: f(take(R, p[..., 0])) + f(take(R, p[..., 1])),
    "[ ; ] makes one vector of two: torch.cat, not torch.stack":
        lambda R, p, f: torch.stack([f(take(R, p[..., 0])), f(take(R, p[..., 1]))], -2),
    "the FFNN reduces one span at a time, not the concatenation of two":
        lambda R, p, f: f(torch.cat([take(R, p[..., 0]), take(R, p[..., 1])], -1)),
    "the tail is missing: this is the head twice": lambda R, p, f: f(take(R, p[..., 0])).tile(2),
    "the FFNN reduces the tail, too":
        lambda R, p, f: torch.cat([f(take(R, p[..., 0])), take(R, p[..., 1])], -1),
    "the FFNN is applied once, not twice": lambda R, p, f: spanrel.relation_tuple(f(R), p, f),
    "R_s[:, index] takes the spans of each sentence for all sentences: take(R_s, index)":
        lambda R, p, f: torch.cat([f(R)[:, p[..., 0]], f(R)[:, p[..., 1]]], -1),
    "each sentence has its own pairs: here those of the first one stand for all":
        lambda R, p, f: spanrel.relation_tuple(R, p[:1].expand_as(p), f),
}, (proof.test_eq_6_reduces_both_arguments_by_one_ffnn_head_first,
    proof.test_eq_6_agrees_with_the_loop), batched=True, differentiated=True)  # fmt: skip

masks_are_right = proof.test_the_masks_say_which_wordpieces_are_in_a_span_and_between_two
SPANS = torch.tensor([[[1, 2], [5, 6], [4, 5]], [[1, 3], [6, 7], [1, 6]]])
PAIRS = torch.tensor([[[0, 1], [1, 0], [0, 2], [1, 2]], [[1, 0], [0, 1], [0, 2], [2, 1]]])
EXERCISES["mask_between"] = Exercise(spanrel.mask_between, [(SPANS, PAIRS[:, :1], 8), (SPANS, PAIRS, 8)], {
    "the tail may stand before the head": partial(mask_by, lambda a, b, c, d: (b, c)),
    "end is excluded: the word at end is between already":
        partial(mask_by, lambda a, b, c, d: (b.minimum(d) + 1, a.maximum(c))),
    "start is included: the word at start is no longer between":
        partial(mask_by, lambda a, b, c, d: (b.minimum(d), a.maximum(c) + 1)),
    "end is excluded: the word at end - 1 is in the span, not between":
        partial(mask_by, lambda a, b, c, d: (b.minimum(d) - 1, a.maximum(c))),
    "the word before the later span is between, too":
        partial(mask_by, lambda a, b, c, d: (b.minimum(d), a.maximum(c) - 1)),
    "the gap is one too narrow on both sides":
        partial(mask_by, lambda a, b, c, d: (b.minimum(d) + 1, a.maximum(c) - 1)),
    "the gap is one too wide on both sides":
        partial(mask_by, lambda a, b, c, d: (b.minimum(d) - 1, a.maximum(c) + 1)),
    "nothing is between here: the gap is from the smaller end (not the larger) to the larger start":
        partial(mask_by, lambda a, b, c, d: (b.maximum(d), a.maximum(c))),
    "the gap begins at an end: the earlier span is not between":
        partial(mask_by, lambda a, b, c, d: (a.minimum(c), a.maximum(c))),
    "the gap stops at a start: the later span is not between":
        partial(mask_by, lambda a, b, c, d: (b.minimum(d), b.maximum(d))),
    "the spans themselves are not between them":
        partial(mask_by, lambda a, b, c, d: (a.minimum(c), b.maximum(d))),
    "what touches or overlaps has nothing between":
        partial(mask_by, lambda a, b, c, d: ordered(b.minimum(d), a.maximum(c))),
    "the mask is inverted: True is between": lambda s, p, n: ~spanrel.mask_between(s, p, n),
    "a mask is boolean, as masked_fill and ~ want it": lambda s, p, n: spanrel.mask_between(s, p, n).float(),
}, (partial(masks_are_right, mask_inside=spanrel.mask_inside),), 2, batched=True)  # fmt: skip

# -- §3.3  Attention -----------------------------------------------------------------------------------------

Q = torch.tensor([[[4.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [2.0, -1.0]]])
NARROW = torch.tensor([[[1.0], [0.0], [9.0]], [[4.0], [2.0], [7.0]]])  # N ≠ D
WIDE = torch.arange(24.0).reshape(2, 3, D).sin()
SEEN = torch.tensor([[[True, True, False], [False] * 3], [[False, True, True], [True, False, False]]])
LARGE = torch.tensor([[[200.0, 0, 0, 0], [0.0, 1, 0, 0]]] * 2)  # two queries with d = 4
KEYS = LARGE[:, [0, 0, 0]] * torch.tensor([1.0, 1.0, 0.0])[:, None]  # scores of 20,000, of ±20,000 below
FAR = LARGE[:, [0, 1, 0]] * torch.tensor([0.01, 1.0, 0.4])[:, None]  # the largest score, of 80, is masked
ATTENDED = [(Q, X, NARROW, SEEN), (Q, X, WIDE, SEEN), (LARGE / 100, FAR, WIDE, EMPTY),
            (LARGE, KEYS, WIDE, EMPTY), (LARGE, -KEYS, WIDE, EMPTY)]  # fmt: skip
EXERCISES["attend"] = Exercise(attend, ATTENDED, {
    "the values are summed, not the keys": lambda Q, K, V, m: attend(Q, K, K, m),
    "the weights are not the answer yet: the values are missing":
        lambda Q, K, V, m: masked_softmax(scaled(Q, K), m),
    "no mask": lambda Q, K, V, m: scaled(Q, K).softmax(-1) @ V,
    "no Softmax": lambda Q, K, V, m: scaled(Q, K) * m @ V,
    "the mask is inverted: True is there, and masked_fill fills where it is True":
        lambda Q, K, V, m: attend(Q, K, V, ~m),
    "d is the width of queries and keys, not that of the values":
        lambda Q, K, V, m: masked_softmax(Q @ K.mT / V.shape[-1] ** 0.5, m) @ V,
    "√N for √d: d is the width of a key, not the number of keys":
        lambda Q, K, V, m: masked_softmax(Q @ K.mT / K.shape[1] ** 0.5, m) @ V,
    "√d is forgotten": lambda Q, K, V, m: masked_softmax(Q @ K.mT, m) @ V,
    "divided by d, not by √d": lambda Q, K, V, m: masked_softmax(Q @ K.mT / Q.shape[-1], m) @ V,
    "divided by √d, not multiplied": lambda Q, K, V, m: masked_softmax(Q @ K.mT * Q.shape[-1] ** 0.5, m) @ V,
    "mask after softmax: what is masked has had its share of the 1":
        lambda Q, K, V, m: (scaled(Q, K).softmax(-1) * m) @ V,
    "a mean over padding: a masked score of 0 is not nothing, as exp(0) = 1":
        lambda Q, K, V, m: (scaled(Q, K) * m).softmax(-1) @ V,
    "a masked score of 0 is not nothing: what is masked has had its share of the 1":
        lambda Q, K, V, m: ((scaled(Q, K) * m).softmax(-1) * m) @ V,
    "softmax over the wrong axis: it runs over keys, not over queries":
        lambda Q, K, V, m: (scaled(Q, K).softmax(1) * m) @ V,
    "softmax over the wrong axis, if behind the mask: it runs over keys, not over queries":
        lambda Q, K, V, m: (scaled(Q, K).masked_fill(~m, -1e9).softmax(1) * m) @ V,
    "the scores are missing: the weights are not even": lambda Q, K, V, m: over_sum(m * torch.ones(1)) @ V,
    "a mean over padding: the weights are not even, and what is masked is no part":
        lambda Q, K, V, m: (m * torch.ones(1)) @ V / V.shape[1],
    "where nothing is there, this averages what is masked; it must be 0 [L5]":
        lambda Q, K, V, m: scaled(Q, K).masked_fill(~m, -1e9).softmax(-1) @ V,
    "where nothing is there, -inf everywhere gives NaN; it must be 0 [L5]":
        lambda Q, K, V, m: scaled(Q, K).masked_fill(~m, -math.inf).softmax(-1) @ V,
    "mask[..., :1] asks for the first key alone; mask.any(-1) asks whether anything is there":
        lambda Q, K, V, m: scaled(Q, K).masked_fill(~m, -1e9).softmax(-1) @ V * m[..., :1],
    "-100 is not low enough: scores can be lower; fill in -inf, or the lowest number":
        lambda Q, K, V, m: scaled(Q, K).masked_fill(~m, -100.0).softmax(-1).masked_fill(~m, 0.0) @ V,
    "exp(100) is beyond float32: softmax subtracts the largest score first":
        lambda Q, K, V, m: over_sum(scaled(Q, K).exp() * m) @ V,
    "exp(100) is beyond float32: nan_to_num hides it, but the weights are lost":
        lambda Q, K, V, m: over_sum(scaled(Q, K).exp() * m).nan_to_num() @ V,
    "each sentence has its own mask: here that of the first one stands for all":
        lambda Q, K, V, m: attend(Q, K, V, m[:1].expand_as(m)),
    "each query has its own mask: here that of the first one stands for all":
        lambda Q, K, V, m: attend(Q, K, V, m[:, :1].expand_as(m)),
    "d is the width of a query, not the number of queries":
        lambda Q, K, V, m: masked_softmax(Q @ K.mT / Q.shape[1] ** 0.5, m) @ V,
    "the largest score to subtract is one of those that are there: a masked one may be far larger":
        lambda Q, K, V, m: over_sum((scaled(Q, K) - scaled(Q, K).amax(-1, True)).exp() * m) @ V,
    NAN: lambda Q, K, V, m: (scaled(Q, K) + torch.zeros(m.shape).masked_fill(~m, -math.inf))
        .softmax(-1).nan_to_num() @ V,
}, (one_attention_agrees_with_the_loop,), 3, batched=True, differentiated=True)  # fmt: skip

RISING = torch.tensor([[[0.0, 0.0], [0.5, 0.5], [1.0, 1.5]], [[0.5, 0.0], [1.0, 1.0], [1.5, 1.0]]])
WEIGHED = [(weights, Q / 4, RISING, SEEN) for weights in (as_cited, as_printed, even, milder, gates)]
WEIGHED += [(weights, Q / 4, RISING, torch.ones_like(SEEN)) for weights in (milder, wilder)]
EXERCISES["ignores_query"] = Exercise(ignores_query, WEIGHED, {
    "always False: that is no experiment yet": lambda w, Q, K, m: False,
    "always True: that is no experiment yet, or it is the same query twice; take another one":
        lambda w, *x: torch.equal(w(*x), w(*x)),
    "True means that it ignores its query": lambda w, Q, K, m: not ignores_query(w, Q, K, m),
    "the query must change, not the context": lambda w, Q, K, m: torch.equal(w(Q, K, m), w(Q, 2 * K + 1, m)),
    "the query alone must change, not the context with it":
        lambda w, Q, K, m: torch.allclose(w(Q, K, m), w(2 * Q.flip(-1) + 1, 2 * K + 1, m)),
    "compare all weights: where the largest is (arg max) may stay, and the others change":
        lambda w, Q, K, m: torch.equal(w(Q, K, m).argmax(-1), w(2 * Q.flip(-1) + 1, K, m).argmax(-1)),
    "compare the weights themselves: their sum is 1 for any query":
        lambda w, Q, K, m: torch.allclose(w(Q, K, m).sum(-1), w(2 * Q.flip(-1) + 1, K, m).sum(-1)),
    "all weights must stay, not any: what is masked stays 0 for any query":
        lambda w, Q, K, m: bool(torch.isclose(w(Q, K, m), w(2 * Q.flip(-1) + 1, K, m)).any()),
}, points=2)  # fmt: skip

# -- §3.4  Training, scores, and an ablation -----------------------------------------------------------------

LOSSES = [tuple(map(torch.tensor, pair)) for pair in ((1.0, 0.0), (0.0, 1.0), (3.0, 2.0))]
EXERCISES["joint_loss"] = Exercise(spanrel.joint_loss, LOSSES, {
    "0.4 and 0.6 are swapped: relations weigh more": lambda L_s, L_r: 0.6 * L_s + 0.4 * L_r,
    "the weights are forgotten": lambda L_s, L_r: L_s + L_r,
    "the mean would weigh both alike": lambda L_s, L_r: (L_s + L_r) / 2,
    "the relations are forgotten": lambda L_s, L_r: 0.4 * L_s,
    "the spans are forgotten": lambda L_s, L_r: 0.6 * L_r,
    "0.4 and 0.6 are no percents": lambda L_s, L_r: 40 * L_s + 60 * L_r,
    "a sum, not a product": lambda L_s, L_r: 0.4 * L_s * 0.6 * L_r,
    "the numbers are right, but the relations have no gradient: no .item() or .detach()":
        lambda L_s, L_r: 0.4 * L_s + 0.6 * L_r.detach(),
    "the numbers are right, but the spans have no gradient: no .item() or .detach()":
        lambda L_s, L_r: 0.4 * L_s.detach() + 0.6 * L_r,
}, differentiated=True)  # fmt: skip

A, B, C = Entity("A", 0, 1), Entity("B", 1, 2), Entity("A", 2, 3)
FEW, MIRRORED = [Relation("R", A, B)], [Relation("R", A, B), Relation("R", B, A)]
THREE, BUSY = (Sentence("s", ["a", "b", "c"], [A, B, C], relations) for relations in (FEW, MIRRORED))
NONE, TYPED = Sentence("u", ["a"]), Sentence("v", ["a", "b"], [A, Entity("B", 0, 1), B], FEW)
SEVERAL = [THREE, Sentence("t", ["a", "b"], [A, B], FEW), NONE]
ASKED = [*(([NONE, THREE], rate) for rate in (2, 3, 5, 6, 7, 9)), ([NONE, BUSY], 3), (SEVERAL, 2),
         ([THREE, TYPED], 3)]  # fmt: skip
EXERCISES["idle_share"] = Exercise(idle_share, ASKED, {
    "`rate` negatives for each relation, not for each sentence": partial(idle_share, wanted=1),
    "pairs are ordered: ⟨a, b⟩ and ⟨b, a⟩ are two": partial(idle_share, orders=1),
    "a span makes no pair with itself": partial(idle_share, itself=0),
    "a related pair is no negative": partial(idle_share, related=0),
    "a sentence without relations asks for none: leave it out": partial(idle_share, least=0),
    "count spans, not entities: two types of one span are one span":
        partial(idle_share, span=attrgetter("type", "start", "end")),
    "as many negatives as asked for are enough: more than there are is <, not ≤":
        lambda sentences, rate: idle_share(sentences, rate + 1e-9),
    "the share that is idle, not the share that is not": lambda *inputs: 1 - idle_share(*inputs),
    "a share from 0 to 1, not in percent": lambda *inputs: 100 * idle_share(*inputs),
    "a share, not a number of sentences":
        lambda sentences, rate: idle_share(sentences, rate) * sum(bool(s.relations) for s in sentences),
}, points=2)  # fmt: skip

MARKED = [([{1, 2}, {3}], [{1}, {3, 4, 5}]), ([{1, 2}, {3}], [{1}, {4}]), ([{1}, {1}], [{1}, set()]),
          ([set(), set()], [set(), set()])]  # fmt: skip
EXERCISES["micro_f1"] = Exercise(micro_f1, MARKED, {
    "the same item in two sentences is two items: count sentence by sentence":
        lambda gold, predicted: micro_f1([set().union(*gold)], [set().union(*predicted)]),
    "micro counts over all sentences; this is a mean of their F1":
        lambda gold, predicted: sum(micro_f1([a], [b]) for a, b in zip(gold, predicted)) / len(gold),
    "F1 is the harmonic mean of P and R, not the mean":
        lambda gold, predicted: (micro_f1(gold, predicted, "p") + micro_f1(gold, predicted, "r")) / 2,
    "that is P alone: what was missed counts, too": partial(micro_f1, rate="p"),
    "that is R alone: what was predicted wrongly counts, too": partial(micro_f1, rate="r"),
    "in percent, please": lambda gold, predicted: micro_f1(gold, predicted) / 100,
    "the 2 is missing: F1 is 2 · correct / (gold + predicted)":
        lambda gold, predicted: micro_f1(gold, predicted) / 2,
    "all sentences count, not the first alone": lambda gold, predicted: micro_f1(gold[:1], predicted[:1]),
    "that is correct / (gold or predicted), which counts what is correct once":
        lambda gold, predicted: 100 * micro_f1(gold, predicted) / (200 - micro_f1(gold, predicted)),
    "0 where nothing is gold or predicted, not 100":
        lambda gold, predicted: micro_f1(gold, predicted) if any(gold + predicted) else 100.0,
    "0 where nothing is gold or predicted: this divides by 0":
        lambda gold, predicted: micro_f1(gold, predicted) if any(gold + predicted) else 0 / 0,
})  # fmt: skip

SMALL = Case([5], [[(1, 2)]], [[1]], [[]], seed=0).model().float()
SMALL.encoder = nn.Identity()  # it is not asked: X is given
SPAN = WIDE, torch.ones(2, 3).bool(), torch.tensor([[[1, 3]], [[0, 1]]]), torch.tensor([[2], [1]])
EXERCISES["without_width"] = Exercise(without_width, [(SMALL, *SPAN)], {
    "this is R_s as it was, with its width": lambda model, *rest: model.represent_spans(*rest),
    "the width alone is to go (model.config.width_dim numbers), not all of R_s":
        lambda model, *rest: 0 * model.represent_spans(*rest),
    "R_s is shorter now, and FFNN no longer fits: zeros, please":
        lambda model, *rest: model.represent_spans(*rest)[..., :-3],
    "the width stands last in eq. (4), not first": partial(without_numbers, slice(None, 3)),
    "one number of the width is left": partial(without_numbers, slice(-2, None)),
    "one number too many: H_s loses its last": partial(without_numbers, slice(-4, None)),
    "the last number alone is not the width (model.config.width_dim numbers)": partial(without_numbers, -1),
    "H_s stays: the width is the last part of eq. (4), not the last two":
        partial(without_numbers, slice(2 * D, None)),
    "the width of all spans is 1 now: zeros, please":
        lambda model, X, t, s, w: model.represent_spans(X, t, s, 0 * w + 1),
    "zeros, please, not ones": lambda *inputs: without_width(*inputs) + (torch.arange(4 * D + 3) >= 4 * D),
    "the model must stay as it is: put zeros into R_s, not into its weights": without_weights,
}, points=3, batched=True)  # fmt: skip

# -- The check -----------------------------------------------------------------------------------------------

STUB = (lambda: None).__code__.co_code  # what `def f(): ...` is compiled to
FLOAT32 = 1e-5  # rounding
LONGEST = 240  # characters of a value


def check(name, answer):
    """Says whether an exercise is solved, or what is wrong with the answer; returns the points earned."""
    exercise = EXERCISES[name]
    if hasattr(answer, "__code__") and answer.__code__.co_code == STUB:
        print(f"{name}: not written yet")
        return 0
    fault = next(faults(name, answer), None)
    if not fault:
        print(f"{name}: passed, {exercise.points} of {exercise.points}")
        return exercise.points
    print(f"{name}: {misconception(exercise, answer) or 'not yet'}\n{fault}")
    return 0


def faults(name, answer):
    """In words, the inputs on which an answer is not ours, then the properties that do not hold of it."""
    exercise = EXERCISES[name]
    ways = [outcome, gradients] if exercise.differentiated else [outcome]
    for way, inputs in itertools.product(ways, [] if exercise.many else exercise.inputs):
        if not agree(way(answer, inputs), way(exercise.ours, inputs)):
            yield named("smallest input:", exercise, inputs) + difference(way, exercise, answer, inputs)
    for test in exercise.properties:
        witness = Witness(answer, exercise.ours)
        try:
            with patch.object(proof, "same", partial(same, tolerance=FLOAT32)):
                test(**{name: witness})
        except (Exception, pytest.fail.Exception):  # of an assertion, or whatever the answer raises
            words = getattr(test, "func", test).__name__.removeprefix("test_").replace("_", " ")
            fault = f"  does not hold:   {words}\n" + named("counterexample:", exercise, witness.inputs)
            yield fault + difference(outcome, exercise, answer, witness.inputs)


def misconception(exercise, answer):
    """The name of the wrong answer that does the same on all inputs, or of a gradient that is not there."""
    ours = [outcome(exercise.ours, inputs) for inputs in exercise.inputs]
    yours = behaviour(exercise, answer, ours)
    for name, wrong in exercise.wrong.items():
        if agree(yours, behaviour(exercise, wrong, ours)):
            return name
    slopes = []
    for result in yours:
        slopes += result.values() if isinstance(result, dict) else []
    if any(gradient is None for gradient in slopes):
        return LOST
    return NAN if any(gradient.isnan().any() for gradient in slopes) else None


def behaviour(exercise, function, ours):
    """What a function makes of all inputs and, if that is what ours does, its gradients."""
    results = [outcome(function, inputs) for inputs in exercise.inputs]
    if exercise.differentiated and agree(results, ours):
        results += [gradients(function, inputs) for inputs in exercise.inputs]
    return results


class Witness:
    """An answer in the place of ours. It is given float32, and its last inputs are kept.
    Where there is no span or no pair at all, which no exercise mentions, ours answers."""

    def __init__(self, answer, ours):
        self.answer, self.ours, self.inputs = answer, ours, ()

    def __call__(self, *inputs):
        if not all(tensor.numel() for tensor in tensors_of(inputs)):
            return self.ours(*inputs)
        self.inputs = [in_float32(value) for value in inputs]
        result = self.answer(*self.inputs)
        if torch.float64 in [tensor.dtype for tensor in tensors_of(inputs)]:
            return result.double()
        return result


def in_float32(value):
    """A module or a tensor with its numbers in float32, anything else as it is."""
    if isinstance(value, nn.Module):
        return copy.deepcopy(value).float()
    is_double = isinstance(value, torch.Tensor) and value.dtype == torch.float64
    return value.float() if is_double else value


def outcome(function, inputs):
    """What a function makes of copies of inputs; in words, if it raises, returns nothing, or changes them."""
    copies = copy.deepcopy(inputs)
    try:
        result = function(*copies)
    except Exception as error:  # whatever a student's function does
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    if result is None:
        return "None: is a `return` missing?"
    if not all(map(torch.equal, tensors_of(inputs), tensors_of(copies))):
        return "it changes its arguments: work on copies"
    is_tensor = isinstance(result, torch.Tensor)
    if hasattr(result, "__array__") and not is_tensor and result.shape:
        return "an array of numpy"
    return result.item() if is_tensor and result.dim() == 0 else result


def gradients(function, inputs):
    """The gradient of a sum of what a function makes with respect to each tensor of numbers, or None.
    Each number of the result has another weight, as the sum of a Softmax is always 1."""
    given = {}
    for place, value in enumerate(inputs):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            given[place] = value.clone().requires_grad_()
    copies = [given[place] * 1 if place in given else value for place, value in enumerate(inputs)]
    try:
        result = function(*copies)
        weights = torch.arange(1.0, 1 + result.numel()).reshape(result.shape)
        (weights * result).sum().backward()
    except Exception:  # there is no gradient: .numpy() refuses, or nothing leads back to the inputs
        pass
    return {place: leaf.grad for place, leaf in given.items()}


def tensors_of(inputs):
    """The tensors among some inputs, those of models included."""
    tensors = []
    for value in inputs:
        tensors += value.state_dict().values() if isinstance(value, nn.Module) else [value]
    return [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]


def agree(yours, expected):
    """Whether two results are the same, numbers within the rounding of float32."""
    if isinstance(expected, dict):
        return all(agree(yours[place], expected[place]) for place in expected)
    if isinstance(expected, list) and isinstance(yours, list):
        return len(yours) == len(expected) and all(map(agree, yours, expected))
    are_tensors = [isinstance(result, torch.Tensor) for result in (yours, expected)]
    if not any(are_tensors):
        return yours == (pytest.approx(expected, FLOAT32) if isinstance(expected, float) else expected)
    if not all(are_tensors) or yours.shape != expected.shape:
        return False
    boolean = (yours.dtype == torch.bool) == (expected.dtype == torch.bool)
    return boolean and bool(close(yours, expected).all())


def close(yours, expected):
    """Which numbers of two tensors are the same within rounding."""
    return torch.isclose(yours.double(), expected.double(), rtol=1e-4, atol=FLOAT32, equal_nan=True)


# -- What a check prints -------------------------------------------------------------------------------------


def names_of(exercise):
    """The names of the arguments."""
    return [*inspect.signature(exercise.ours).parameters]


def named(title, exercise, inputs):
    """A line for each input, by its name."""
    text = ""
    for name, value in zip(names_of(exercise), inputs):
        text += f"  {title:16} {name} = {short(value, longest=4 * LONGEST)}\n"
        title = ""
    return text


def difference(way, exercise, answer, inputs):
    """What the answer makes of some inputs, and what ours does, unless many answers are right."""
    yours, expected = way(answer, inputs), way(exercise.ours, inputs)
    if exercise.many:
        return f"  yours:           {short(yours)}"
    subject = ""
    if isinstance(expected, dict):  # of gradients
        place = next(place for place in expected if not agree(yours[place], expected[place]))
        subject = f"the gradient of {names_of(exercise)[place]} is "
        yours, expected = yours[place], expected[place]
    place, yours, expected = first_difference(yours, expected)
    texts, digits = [short(yours), short(expected)], 4
    while texts[0] == texts[1] and digits < 17:
        digits += 1
        texts = [short(yours, digits), short(expected, digits)]
    kinds = [kind_of(yours), kind_of(expected)]
    if kinds[0] == kinds[1] or "" in kinds:
        kinds = ["", ""]
    lines = ""
    for title, text, kind in zip(("yours:", "expected:"), texts, kinds):
        lines += f"  {title:16} {subject}{place}{text}{kind}\n"
    return lines.rstrip()


def first_difference(yours, expected):
    """Where two long results begin to differ, in words, and both from there on. Short ones stay whole."""
    if len(short(expected, longest=None)) < LONGEST:
        return "", yours, expected
    are_tensors = isinstance(yours, torch.Tensor) and isinstance(expected, torch.Tensor)
    if are_tensors and yours.shape == expected.shape:
        for place in (~close(yours, expected)).nonzero().tolist()[:1]:
            return f"at {place}: ", yours[tuple(place)], expected[tuple(place)]
    if isinstance(yours, list) and isinstance(expected, list):
        start = 0
        while start < len(expected) and yours[start : start + 1] == expected[start : start + 1]:
            start += 1
        return f"from number {start} on: ", yours[start:], expected[start:]
    return "", yours, expected


def kind_of(result):
    """The type of a result, and the shape of a tensor."""
    if not isinstance(result, torch.Tensor):
        return "" if result is None or isinstance(result, str) else f" ({type(result).__name__})"
    kind = "boolean tensor" if result.dtype == torch.bool else "tensor"
    return f" ({kind} of shape {[*result.shape]})"


def short(value, digits=4, longest=LONGEST):
    """An input or a result in a line."""
    if isinstance(value, nn.Linear):
        text = f"nn.Linear with weight {short(value.weight)} and bias {short(value.bias)}"
    elif isinstance(value, nn.Module):
        is_model = hasattr(value, "config")
        text = f"a model with width_dim = {value.config.width_dim}" if is_model else type(value).__name__
    elif isinstance(value, list) and value and isinstance(value[0], Sentence):
        text = "; ".join(map(described, value))
    else:
        text = numbers(value.tolist() if isinstance(value, torch.Tensor) else value, digits)
    return text if longest is None or len(text) < longest else f"{text[:longest]} …"


def described(sentence):
    """The entities and relations of a sentence."""
    entities = [f"{e.type} [{e.start}, {e.end})" for e in sentence.entities]
    return f"a sentence with entities {', '.join(entities) or 'none'} and {len(sentence.relations)} relations"


def numbers(value, digits):
    """A value with so many digits of each of its numbers."""
    if isinstance(value, list):
        return f"[{', '.join(numbers(item, digits) for item in value)}]"
    return f"{value + 0.0:.{digits}g}" if isinstance(value, float) else str(getattr(value, "__name__", value))
