"""The exercises of `tutorial.ipynb`, which check themselves: `check("span_ends", span_ends)`.
`tools/checks.py` says how. Our answers are `spanrel`'s functions or those of `tools/answers.py`."""

import contextlib
import inspect
import itertools
import math
import sys
from functools import partial
from operator import attrgetter
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.overrides import TorchFunctionMode

import data
import spanrel
import test_spanrel as proof
import train
from baselines.readings import READINGS
from data import Entity, Relation, Sentence
from spanrel import EQUATIONS, Config, masked_softmax, take
from support.scores import prf
from test_spanrel import Case, D, batch, cases, dot, same, softmax, weighted_sum
from tools import answers
from tools.answers import attend, ignores_query, leaky_weights, without_width
from tools.checks import FLOAT32, NAN, Exercise, faults, is_stub, misconception, outcome

EXERCISES: dict[str, Exercise] = {}
BOTH = ("softmax-bce", "softmax-ce")  # readings of L6 in which y is a Softmax

# -- Answers and properties of our own, and wrong answers that take their mistake as an argument -------------


def spans_off(start, widest, last, n, k):
    """`enumerate_spans`, but its bounds are off: 1, 0, 0 is right."""
    spans = itertools.product(range(n), range(n + k + 1))
    return [(i, j) for i, j in spans if i + start <= j <= min(i + k + widest, n + last)]


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


def turned(Q, K, mask):
    """Weights by the angle between query and key: the length of the query does not count."""
    return masked_softmax(nn.functional.normalize(Q, dim=-1) @ K.mT, mask)


def absolute(Q, K, mask):
    """Weights by the size of the scores: a query and its opposite have the same."""
    return masked_softmax(scaled(Q, K).abs(), mask)


def gates(Q, K, mask):
    """Weights that do not sum to 1: a sigmoid for each key."""
    return (pull(Q).sigmoid() * torch.arange(K.shape[1])).sigmoid() * mask


def counted_share(
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


def rate_over(gold, predicted, rate="f1"):
    """F1 (or precision "p", or recall "r") in percent over the items of all sentences."""
    correct = sum(len(a & b) for a, b in zip(gold, predicted))
    return prf(sum(map(len, gold)), sum(map(len, predicted)), correct)[rate]


def without_numbers(part, model, *rest):
    """R_s with zeros for a part of its numbers."""
    R_s = model.represent_spans(*rest)
    R_s[..., part] = 0.0
    return R_s


def without_weights(model, *rest):
    """R_s without its width, but the model has lost its width embedding."""
    model.width.weight.data.zero_()
    return model.represent_spans(*rest)


def shifted(start, end, spans, n):
    """`mask_inside`, but the bounds of the spans are off."""
    return spanrel.mask_inside(spans + torch.tensor([start, end]), n)


def parts_and_layer(case):
    """Random inputs of `first_layer`."""
    linear = case.seeded(spanrel.FFNN, 4 * D + 3, 5, 1)[0]  # its only layer
    T_s, F_s, W = case.numbers(case.S, D), case.numbers(case.S, D), case.numbers(case.S, 3)
    return T_s, F_s, case.X, W, case.padded_spans, linear


@given(case=cases())
def the_first_layer_taken_apart_is_that_of_eq_4(case, first_layer):
    T_s, F_s, X, W, spans, linear = parts_and_layer(case)
    expected = linear(spanrel.span_representation(T_s, F_s, spanrel.span_ends(X, spans), W)).detach()
    linear.forward = refuse_the_whole
    same(first_layer(T_s, F_s, X, W, spans, linear), expected, FLOAT32)


PRODUCTS = ("linear", "bilinear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "einsum")
PRODUCTS += ("tensordot", "inner", "mul", "multiply", "__mul__", "__rmul__")


class RefuseProducts(TorchFunctionMode):
    """Within it no product takes a whole weight of this shape, turned or expanded."""

    def __init__(self, shape):
        super().__init__()
        self.shape = set(shape)

    def __torch_function__(self, function, types, inputs=(), named=None):
        """Calls a function of torch, if it may be called."""
        shapes = [set(value.shape) for value in inputs if isinstance(value, torch.Tensor)]
        if function.__name__ in PRODUCTS and any(self.shape <= shape for shape in shapes):
            refuse_the_whole(None)
        return function(*inputs, **named or {})


@given(case=cases())
def no_product_takes_the_weight_as_a_whole(case, first_layer):
    *parts, linear = parts_and_layer(case)
    with RefuseProducts(linear.weight.shape):
        first_layer(*parts, linear)


def refuse_the_whole(R_s):
    """What the layer does with R_s where it must be taken apart."""
    raise RuntimeError("this is the layer of R_s as a whole; take its weight apart")


def layer_of(parts, T_s, F_s, X, W, spans, linear):
    """`first_layer`, but R_s is made of other parts, or of them in another order."""
    first, last = take(X, spans[..., 0]), take(X, spans[..., 1] - 1)
    own = {"T": T_s, "F": F_s, "first": first, "last": last, "end": take(X, spans[..., 1]), "W": W}
    return linear(torch.cat([own[part] for part in parts.split()], -1))


def kept_alone(answer, y_s, is_span):
    """What counts of `filter_spans`: where the mask is False, the index of any span will do."""
    if isinstance(answer, torch.Tensor):
        raise TypeError("two tensors, please: the indexes and the mask")
    kept, is_entity = answer
    if kept.is_floating_point():
        raise TypeError("indexes are whole numbers: dtype=torch.long, where there are none, too")
    is_index = (0 <= kept) & (kept < y_s.shape[1])
    return kept.where(is_entity | ~is_index, 0), is_entity


def kept_by(keep, order=None):
    """Span filtration by another rule, or in another order."""
    order = torch.arange(keep.shape[1]).expand(keep.shape) if order is None else order
    kept = (keep.gather(1, order).int()).argsort(dim=-1, descending=True, stable=True)
    kept = order.gather(1, kept)[:, : int(keep.sum(-1).max())]
    return kept, keep.gather(1, kept)


def sorted_by(keep, **order):
    """Span filtration that keeps all columns."""
    kept = keep.int().argsort(dim=-1, stable=True, **{"descending": True, **order})
    return kept, keep.gather(1, kept)


def kept_by_quicksort(keep):
    """Span filtration with a sort that is not stable."""
    kept = keep.int().argsort(dim=-1, descending=True)[:, : int(keep.sum(-1).max())]
    return kept, keep.gather(1, kept)


def heads_by(mix, Q, K, V, mask, heads):
    """`multi_head`, but its slices are mixed in another way: mix(Q, K, V, mask)."""
    slices = [spanrel.split_heads(rows, heads) for rows in (Q, K, V)]
    return mix(*slices, mask[:, None]).transpose(1, 2).flatten(2)


def interleaved(rows, heads):
    """Heads of every `heads`-th column instead of slices."""
    return rows.unflatten(-1, (-1, heads)).movedim(-1, 1)


@given(case=cases())
def each_head_is_one_attention_in_its_slice(case, multi_head):
    Q, V, mask = case.numbers(3, D), case.numbers(case.N, 6), case.numbers(3, case.N) > 0
    mixed = multi_head(Q, case.X, V, mask, 2)
    assert mixed.shape == (*Q.shape[:2], 6)
    for head in range(2):
        part, own = slice(head * D // 2, (head + 1) * D // 2), slice(3 * head, 3 * head + 3)
        same(mixed[..., own], attend(Q[..., part], case.X[..., part], V[..., own], mask), FLOAT32)


def slope(loss, z, t):
    """The gradient of the loss of one pair with respect to its scores."""
    z = z.clone().requires_grad_()
    loss(z[None, None], t[None, None]).sum().backward()
    return z.grad


@given(z=st.lists(st.floats(-2, 2), min_size=3, max_size=6), true=st.integers(0, 2))
def each_reading_has_its_gradient(z, true, reading_of):
    z, t = torch.tensor(z), torch.eye(len(z))[true]
    for reading in BOTH:
        assert reading_of(z, t, slope(READINGS[reading], z, t)) == reading


# -- §3.1  Spans ---------------------------------------------------------------------------------------------

EXERCISES["enumerate_spans"] = Exercise(data.enumerate_spans, [(1, 1), (2, 2), (4, 2), (3, 5)], {
    "end is excluded, so the last span ends at n, not before": partial(spans_off, 1, 0, -1),
    "end is excluded: (i, i) has no word, and (i, j) has j - i words": partial(spans_off, 0, -1, -1),
    "a span of max_width words is a span, too": partial(spans_off, 1, -1, 0),
    "a span has at most max_width words, not one more": partial(spans_off, 1, 1, 0),
    "two of them at once: the widest spans and the last word are missing": partial(spans_off, 1, -1, -1),
    "no span ends behind the sentence": partial(spans_off, 1, 0, math.inf),
    "all there, but in another order: by start, then by end":
        lambda n, k: sorted(data.enumerate_spans(n, k), key=lambda span: span[::-1]),
    "a sentence shorter than max_width has spans, too":
        lambda n, k: [(start, end) for start, end in data.enumerate_spans(n, k) if start + k <= n],
    "a span is (start, end), not (start, number of words)":
        lambda n, k: [(start, end - start) for start, end in data.enumerate_spans(n, k)],
    "a span is a tuple, which can be a key; a list cannot":
        lambda n, k: [*map(list, data.enumerate_spans(n, k))],
    "words are counted from 0": lambda n, k: [(i + 1, j + 1) for i, j in data.enumerate_spans(n, k)],
    "spans of one word alone: up to max_width words, please": lambda n, k: data.enumerate_spans(n, 1),
}, (proof.test_enumeration_is_every_span_up_to_the_width_once,))  # fmt: skip

SPANS = torch.tensor([[[1, 2], [5, 6], [4, 5]], [[1, 3], [6, 7], [1, 6]]])
masks_are_right = proof.test_the_masks_say_which_wordpieces_are_in_a_span_and_between_two
EXERCISES["mask_inside"] = Exercise(spanrel.mask_inside, [(SPANS[:, :1], 4), (SPANS, 8)], {
    "end is excluded: the wordpiece at end is outside": partial(shifted, 0, 1),
    "start is included: the wordpiece at start is inside": partial(shifted, 1, 0),
    "end - 1 is the last wordpiece inside, not end - 2": partial(shifted, 0, -1),
    "the wordpiece before start is outside": partial(shifted, -1, 0),
    "not all that stands before end is inside: the span has a start": partial(shifted, -99, 0),
    "not all that stands behind start is inside: the span has an end": partial(shifted, 0, 99),
    "both must hold, the start and the end: & is and, | is or":
        lambda s, n: spanrel.mask_inside(s, n) | True,
    "what is between the ends is inside, too, not the ends alone":
        lambda s, n: shifted(0, 0, s, n) & ~(shifted(1, 0, s, n) & shifted(0, -1, s, n)),
    "the mask is inverted: True is inside": lambda s, n: ~spanrel.mask_inside(s, n),
    "a mask is boolean, as masked_fill and ~ want it": lambda s, n: spanrel.mask_inside(s, n).float(),
}, (partial(masks_are_right, mask_between=spanrel.mask_between),), batched=True)  # fmt: skip

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

MLP = nn.Linear(2, 1)
MLP.weight.data, MLP.bias.data = torch.tensor([[1.0, -2.0]]), torch.tensor([0.5])
EXERCISES["token_scores"] = Exercise(spanrel.token_scores, [(X, MLP), (X[:, :1], MLP)], {
    "a number for each wordpiece, B N: squeeze the last dimension": lambda X, f: f(X),
    "squeeze(-1): squeeze() takes away any dimension of 1, N too": lambda X, f: f(X).squeeze(),
    "the MLP is forgotten": lambda X, f: X.sum(-1),
    "the Softmax comes in (2b): these are scores": lambda X, f: f(X).squeeze(-1).softmax(-1),
    "a score may be below 0": lambda X, f: f(X).squeeze(-1).relu(),
    "a score is any number: no Sigmoid": lambda X, f: f(X).squeeze(-1).sigmoid(),
    "a score for each wordpiece, not for the mean of the sentence":
        lambda X, f: f(X.mean(1, True).expand_as(X)).squeeze(-1),
}, (proof.test_eq_2a_scores_each_token_by_one_shared_mlp,), batched=True, differentiated=True)  # fmt: skip

LOWEST = torch.finfo(torch.float32).min
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
    "what is filled in is not low enough: scores can be lower; fill in -inf, or the lowest number":
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
    "the first mask is inverted: masked_fill fills where it is True, so fill ~inside":
        lambda V, m: V[:, None].masked_fill(m, LOWEST).softmax(-1).masked_fill(~m, 0.0),
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

LOOKS = spanrel.General(2, 2, Config())
LOOKS.W.weight.data = torch.tensor([[1.0, 0.5], [-0.5, 2.0]])
TOKENS = torch.tensor([[True, True, False], [True, True, True]])
F = torch.tensor([[[1.0, 0.0], [0.5, 1.0]], [[0.0, 1.0], [1.0, -1.0]]])
ASKING = [(F[:, :1], X, TOKENS, LOOKS), (F, X, TOKENS, LOOKS)]
EXERCISES["span_context"] = Exercise(spanrel.span_context, ASKING, {
    "no mask: [SEP] and padding are seen": lambda F, X, m, f: f(F, X, torch.ones_like(m)[:, None]),
    "the mask is inverted: True is a wordpiece of the sentence": lambda F, X, m, f: f(F, X, ~m[:, None]),
    "[CLS] belongs to the sentence [L4]":
        lambda F, X, m, f: f(F, X, (m & (torch.arange(m.shape[1]) > 0))[:, None]),
    "the query is F_s, and the sentence is key and value: F_s stands first":
        lambda F, X, m, f: f(X, F, m[:, None]),
    "the mask needs a place for the queries: is_token[:, None]": lambda F, X, m, f: f(F, X, m),
    "T_s is the attention alone, F_s comes in with (4)": lambda F, X, m, f: f(F, X, m[:, None]) + F,
    "the attention is missing: not a mean of the sentence":
        lambda F, X, m, f: (X * m[..., None]).sum(1, True).expand_as(F) / m.sum(1)[:, None, None],
    "the spans are not asked each for itself: all queries are the mean":
        lambda F, X, m, f: f(F.mean(1, True).expand_as(F) + 1, X, m[:, None]),
}, (proof.test_eq_3_attends_over_cls_and_the_sentence_but_not_sep,),
    batched=True, differentiated=True)  # fmt: skip

ENDS_OF = torch.arange(16.0).reshape(2, 2, 4).cos()
WIDTHS = torch.arange(12.0).reshape(2, 2, 3)
OF_A_SPAN = (F, F + 3, ENDS_OF, WIDTHS)
ONE_SPAN = tuple(part[:, :1] for part in OF_A_SPAN)
EXERCISES["span_representation"] = Exercise(spanrel.span_representation, [ONE_SPAN, OF_A_SPAN], {
    "T_s stands first": lambda T, F, H, W: torch.cat([F, T, H, W], -1),
    "F_s stands before H_s": lambda T, F, H, W: torch.cat([T, H, F, W], -1),
    "the order is that of the formula: H_s comes third": lambda T, F, H, W: torch.cat([H, T, F, W], -1),
    "the order is that of the formula: H_s comes third, T_s first":
        lambda T, F, H, W: torch.cat([H, F, T, W], -1),
    "the width stands last": lambda T, F, H, W: torch.cat([W, T, F, H], -1),
    "the width is missing": lambda T, F, H, W: torch.cat([T, F, H], -1),
    "the context T_s is missing": lambda T, F, H, W: torch.cat([F, H, W], -1),
    "[ ; ] is concatenation, not addition": lambda T, F, H, W: torch.cat([T + F, H, W], -1),
    "side by side in each span, dim -1: not one under the other":
        lambda T, F, H, W: torch.cat([T, F, H, W], 1),
}, (proof.test_eq_4_concatenates_in_the_papers_order, proof.test_eq_4_agrees_with_the_loop),
    batched=True, differentiated=True)  # fmt: skip

LAYER = nn.Linear(11, 2)
LAYER.weight.data = torch.arange(22.0).reshape(2, 11).remainder(5) - 2
LAYER.bias.data = torch.tensor([1.0, -1.0])
PARTS = (F, F + 3, X, WIDTHS, torch.tensor([[[0, 2], [0, 1]], [[0, 2], [1, 2]]]), LAYER)
EXERCISES["first_layer"] = Exercise(answers.first_layer, [PARTS], {
    "the bias is forgotten": lambda *x: layer_of("T F first last W", *x) - x[-1].bias,
    "the bias is added once, not with each part":
        lambda *x: layer_of("T F first last W", *x) + 4 * x[-1].bias,
    "F_s and T_s are swapped: (4) begins with T_s": partial(layer_of, "F T first last W"),
    "the first and the last wordpiece are swapped": partial(layer_of, "T F last first W"),
    "the last wordpiece is that at end - 1": partial(layer_of, "T F first end W"),
    "the first wordpiece stands twice": partial(layer_of, "T F first first W"),
    "the width's columns are the last ones": partial(layer_of, "W T F first last"),
    "this is the layer, not R_s: W · R_s + b": lambda T, F, X, W, s, f: spanrel.span_representation(
        T, F, spanrel.span_ends(X, s), W),
    "the ReLU comes behind the layer": lambda *x: layer_of("T F first last W", *x).relu(),
}, (the_first_layer_taken_apart_is_that_of_eq_4, no_product_takes_the_weight_as_a_whole), 3, batched=True,
    differentiated=True)  # fmt: skip

SCORES = nn.Linear(2, 3)
SCORES.weight.data = torch.tensor([[1.0, 0.5], [-1.0, 1.0], [0.0, 0.5]])
SCORES.bias.data = torch.tensor([0.0, 1.0, 0.5])
SOFTMAX = {  # what is made of (5) and (10)
    "the Softmax is missing: these are the scores": lambda R, f: f(R),
    "softmax over the wrong axis: it runs over the types": lambda R, f: f(R).softmax(1),
    "a Sigmoid for each type does not sum to 1": lambda R, f: f(R).sigmoid(),
    "one Softmax, not two": lambda R, f: f(R).softmax(-1).softmax(-1),
    "the posterior, not its logarithm": lambda R, f: f(R).log_softmax(-1),
    "the FFNN is missing": lambda R, f: R.softmax(-1),
    "first the FFNN, then the Softmax of its scores": lambda R, f: f(R.softmax(-1)),
    "the posterior of each type, not the type alone": lambda R, f: f(R).argmax(-1),
}
EXERCISES["classify_spans"] = Exercise(
    spanrel.classify_spans, [(F[:, :1], SCORES), (F, SCORES)], dict(SOFTMAX),
    (partial(proof.test_eq_5_agrees_with_the_loop, span_scores=spanrel.span_scores),),
    batched=True, differentiated=True)  # fmt: skip

POSTERIOR = torch.tensor([[[0.1, 0.3, 0.6], [0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.1, 0.8, 0.1]],
                          [[0.4, 0.3, 0.3], [0.2, 0.1, 0.7], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]]])  # fmt: skip
IS_SPAN = torch.tensor([[True] * 4, [True, True, True, False]])
FILTERED = [(POSTERIOR[:, :3], IS_SPAN[:, :3]), (POSTERIOR, IS_SPAN)]
FILTERED.append((POSTERIOR.repeat(1, 10, 1), IS_SPAN.repeat(1, 10)))  # so many that a sort need not be stable
FILTERED.append((POSTERIOR[:, 1:3].sort(-1, descending=True).values, IS_SPAN[:, 1:3]))  # none is kept
EXERCISES["filter_spans"] = Exercise(spanrel.filter_spans, FILTERED, {
    "class 0 is NoneEntity: such a span is dropped": lambda y, m: kept_by(m),
    "padding is no span: is_span is False there": lambda y, m: kept_by(y.argmax(-1) > 0),
    "the highest class decides: it need not be above a half":
        lambda y, m: kept_by((y[..., 1:].amax(-1) > 0.5) & m),
    "all but NoneEntity together may outweigh it: the highest class decides":
        lambda y, m: kept_by((y[..., 0] < 0.5) & m),
    "in the order of the spans, not of their posteriors": lambda y, m: kept_by(
        (y.argmax(-1) > 0) & m, y.amax(-1).argsort(-1, descending=True)),
    "in the order of the spans: sort with stable=True": lambda y, m: kept_by_quicksort(
        (y.argmax(-1) > 0) & m),
    "in the order of the spans, not the other way round": lambda y, m: kept_by(
        (y.argmax(-1) > 0) & m, torch.arange(y.shape[1]).flip(0).expand(m.shape)),
    "the mask is False where a sentence has fewer entities than another":
        lambda y, m: (spanrel.filter_spans(y, m)[0], torch.ones_like(spanrel.filter_spans(y, m)[1])),
    "as many columns as the sentence with most entities has, not as there are spans":
        lambda y, m: sorted_by((y.argmax(-1) > 0) & m),
    "this puts the spans that are dropped first: descending=True":
        lambda y, m: sorted_by((y.argmax(-1) > 0) & m, descending=False),
    "where a sentence keeps fewer, the index must be that of a span, such as 0; -1 is none":
        lambda y, m: (spanrel.filter_spans(y, m)[0].where(spanrel.filter_spans(y, m)[1], -1),
                      spanrel.filter_spans(y, m)[1]),
    "the types are not asked for: which spans, as indexes": lambda y, m: (
        take(y, spanrel.filter_spans(y, m)[0]).argmax(-1), spanrel.filter_spans(y, m)[1]),
}, (proof.test_span_filtration_keeps_what_is_not_none_entity,), 2, batched=True,
    compared=kept_alone)  # fmt: skip

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

between_is_attended = partial(
    proof.test_eq_7_attends_over_the_words_between_and_is_zero_where_there_are_none,
    mask_between=spanrel.mask_between)  # fmt: skip
PAIR_LOOKS = spanrel.General(3, 2, Config())
PAIR_LOOKS.W.weight.data = torch.tensor([[1.0, 0.5, 0.0], [-0.5, 2.0, 1.0]])
H = torch.tensor([[[1.0, 0.0, 0.5], [0.5, 1.0, 0.0]], [[0.0, 1.0, 1.0], [1.0, -1.0, 0.5]]])
GAPS = torch.tensor([[[False, True, True], [False] * 3], [[True, True, False], [False, True, False]]])
EXERCISES["local_context"] = Exercise(
    spanrel.local_context, [(H[:, :1], X, GAPS[:, :1], PAIR_LOOKS), (H, X, GAPS, PAIR_LOOKS)], {
    "no mask: this is the whole sentence, as in (8)": lambda H, X, m, f: f(H, X, torch.ones_like(m)),
    "the mask is inverted: True is between": lambda H, X, m, f: f(H, X, ~m),
    "the query is H_r, and the words between are key and value: H_r stands first":
        lambda H, X, m, f: f(X, H, m),
    "each pair has its own mask: not one for all pairs of the sentence":
        lambda H, X, m, f: f(H, X, m.any(1, True)),
    "each pair has its own mask already: no [:, None]": lambda H, X, m, f: f(H, X, m[:, None]),
    "the attention is missing: not a mean of the words between":
        lambda H, X, m, f: m.float() @ X / m.sum(-1, True).clamp(min=1),
}, (between_is_attended,), batched=True, differentiated=True)  # fmt: skip

OTHER = nn.Linear(2, 2)
OTHER.weight.data, OTHER.bias.data = torch.tensor([[0.5, -1.0], [2.0, 1.0]]), torch.tensor([0.0, -1.0])
CONTEXTS = (F, F.flip(-1) + 2, FFNN, OTHER)
EXERCISES["relation_representation"] = Exercise(spanrel.relation_representation, [(H, *CONTEXTS)], {
    "F_r stands before T_r": lambda H, F, T, f, g: torch.cat([H, g(T), f(F)], -1),
    "H_r stands first": lambda H, F, T, f, g: torch.cat([f(F), g(T), H], -1),
    "each context has its own FFNN: they are swapped": lambda H, F, T, f, g: torch.cat([H, g(F), f(T)], -1),
    "side by side in each pair, dim -1: not one under the other":
        lambda H, F, T, f, g: torch.cat([H, f(F), g(T)], 1),
    "two different FFNNs, not FFNN_F twice": lambda H, F, T, f, g: torch.cat([H, f(F), f(T)], -1),
    "the contexts are not reduced": lambda H, F, T, f, g: torch.cat([H, F, T], -1),
    "the sentence T_r is missing": lambda H, F, T, f, g: torch.cat([H, f(F)], -1),
    "the words between, F_r, are missing": lambda H, F, T, f, g: torch.cat([H, g(T)], -1),
    "[ ; ] is concatenation, not addition": lambda H, F, T, f, g: torch.cat([H, f(F) + g(T)], -1),
}, (proof.test_eq_9_agrees_with_the_loop,), batched=True, differentiated=True)  # fmt: skip

EXERCISES["classify_relations"] = Exercise(
    spanrel.classify_relations, [(F[:, :1], SCORES), (F, SCORES)], dict(SOFTMAX),
    (partial(proof.test_eq_10_agrees_with_the_loop, relation_scores=spanrel.relation_scores),),
    batched=True, differentiated=True)  # fmt: skip

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
    "what is filled in is not low enough: scores can be lower; fill in -inf, or the lowest number":
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

ASKERS = torch.arange(16.0).reshape(2, 2, 4).remainder(5) - 1
KEPT = torch.arange(24.0).reshape(2, 3, 4)
HEADED = [(ASKERS, KEPT.remainder(7) - 2, KEPT.remainder(5), SEEN, heads) for heads in (2, 4, 1)]
EXERCISES["multi_head"] = Exercise(answers.multi_head, HEADED, {
    "√d of a slice: each head divides by the root of its own width, d / heads":
        lambda Q, K, V, m, n: heads_by(attend, Q / n**0.5, K, V, m, n),
    "√heads is not √d": lambda Q, K, V, m, n: heads_by(attend, Q * Q.shape[-1] ** 0.5 / n, K, V, m, n),
    "√d is forgotten": lambda Q, K, V, m, n: heads_by(attend, Q * (Q.shape[-1] / n) ** 0.5, K, V, m, n),
    "one head: nothing is cut": lambda Q, K, V, m, n: attend(Q, K, V, m),
    "one score for all heads: Q and K are cut, too":
        lambda Q, K, V, m, n: masked_softmax(Q @ K.mT / (Q.shape[-1] / n) ** 0.5, m) @ V,
    "a head is a slice of columns that stand side by side: unflatten(-1, (heads, -1))":
        lambda Q, K, V, m, n: attend(*(interleaved(rows, n) for rows in (Q, K, V)), m[:, None])
        .movedim(1, -1).flatten(2),
    "the heads stand side by side at the end: transpose before flatten":
        lambda Q, K, V, m, n: attend(*(spanrel.split_heads(rows, n) for rows in (Q, K, V)), m[:, None])
        .reshape(*Q.shape[:2], -1),
    "the heads stand side by side, they are not summed":
        lambda Q, K, V, m, n: attend(*(spanrel.split_heads(rows, n) for rows in (Q, K, V)), m[:, None])
        .sum(1),
    "V is cut, too: each head gives a slice": lambda Q, K, V, m, n: (masked_softmax(
        scaled(spanrel.split_heads(Q, n), spanrel.split_heads(K, n)), m[:, None]) @ V[:, None])
        .transpose(1, 2).flatten(2),
    "the mask needs a place for the heads: mask[:, None]": lambda Q, K, V, m, n: attend(
        *(spanrel.split_heads(rows, n) for rows in (Q, K, V)), m).transpose(1, 2).flatten(2),
    "no mask": lambda Q, K, V, m, n: answers.multi_head(Q, K, V, m | ~m, n),
    "the mask is inverted: True is there": lambda Q, K, V, m, n: answers.multi_head(Q, K, V, ~m, n),
    "mask after softmax: what is masked has had its share of the 1": partial(
        heads_by, lambda Q, K, V, m: (scaled(Q, K).softmax(-1) * m) @ V),
    "where nothing is there, this averages what is masked; it must be 0 [L5]": partial(
        heads_by, lambda Q, K, V, m: scaled(Q, K).masked_fill(~m, -1e9).softmax(-1) @ V),
    "where nothing is there, -inf everywhere gives NaN; it must be 0 [L5]": partial(
        heads_by, lambda Q, K, V, m: scaled(Q, K).masked_fill(~m, -math.inf).softmax(-1) @ V),
}, (each_head_is_one_attention_in_its_slice,), 3, batched=True, differentiated=True)  # fmt: skip

RISING = torch.tensor([[[0.0, 0.0], [0.5, 0.5], [1.0, 1.5]], [[0.5, 0.0], [1.0, 1.0], [1.5, 1.0]]])
WEIGHED = [(weights, Q / 4, RISING, SEEN) for weights in (as_cited, as_printed, even, milder, gates)]
WEIGHED += [(weights, Q / 4, RISING, SEEN | ~SEEN) for weights in (milder, wilder, turned, absolute)]
WEIGHED += [(as_cited, Q[:, :1] / 4, RISING, SEEN[:, :1] | ~SEEN[:, :1])]  # a single query
WEIGHED += [(as_cited, Q[:1, :1] / 4, RISING[:1], SEEN[:1, :1] | ~SEEN[:1, :1])]  # of a single sentence
EXERCISES["ignores_query"] = Exercise(ignores_query, WEIGHED, {
    "always False: that is no experiment yet": lambda w, Q, K, m: False,
    "always True: that is no experiment yet, or it is the same query twice; take another one":
        lambda w, *x: torch.equal(w(*x), w(*x)),
    "True means that it ignores its query": lambda w, Q, K, m: not ignores_query(w, Q, K, m),
    "with a single query, to change the order of the queries changes nothing: give it new numbers":
        lambda w, Q, K, m: torch.allclose(w(Q, K, m), w(Q.flip(1), K, m)),
    "with a single sentence, to change the order of the sentences changes nothing: give it new numbers":
        lambda w, Q, K, m: torch.allclose(w(Q, K, m), w(Q.flip(0), K, m)),
    "a longer query of the same direction is not new enough":
        lambda w, Q, K, m: torch.allclose(w(Q, K, m), w(2 * Q, K, m)),
    "the opposite query is not new enough: a score may ignore its sign":
        lambda w, Q, K, m: torch.allclose(w(Q, K, m), w(-Q, K, m)),
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
LOSSES.append((*LOSSES[-1], 1.0, 1.0))
EXERCISES["joint_loss"] = Exercise(spanrel.joint_loss, LOSSES, {
    "0.4 and 0.6 are swapped: relations weigh more": lambda L_s, L_r, a=0.6, b=0.4: a * L_s + b * L_r,
    "the weights are forgotten": lambda L_s, L_r, *weights: L_s + L_r,
    "the mean would weigh both alike": lambda L_s, L_r, *weights: (L_s + L_r) / 2,
    "the relations are forgotten": lambda L_s, L_r, a=0.4, b=0.6: a * L_s,
    "the spans are forgotten": lambda L_s, L_r, a=0.4, b=0.6: b * L_r,
    "0.4 and 0.6 are no percents": lambda L_s, L_r, a=0.4, b=0.6: 100 * (a * L_s + b * L_r),
    "a sum, not a product": lambda L_s, L_r, a=0.4, b=0.6: a * L_s * b * L_r,
    "the weights are arguments: SpERT gives both a weight of 1":
        lambda L_s, L_r, *weights: 0.4 * L_s + 0.6 * L_r,
    "the numbers are right, but the relations have no gradient: no .item() or .detach()":
        lambda L_s, L_r, a=0.4, b=0.6: a * L_s + b * L_r.detach(),
    "the numbers are right, but the spans have no gradient: no .item() or .detach()":
        lambda L_s, L_r, a=0.4, b=0.6: a * L_s.detach() + b * L_r,
}, differentiated=True)  # fmt: skip

ONE_PAIR = (torch.tensor([1.0, 0.0, -1.0]), torch.eye(3)[0])
OTHER_PAIR = (torch.tensor([0.5, 2.0, 0.0]), torch.eye(3)[2])
LEARNED = (torch.tensor([3.0, 0.0, 0.0]), torch.eye(3)[0])  # both gradients are small
GRADIENTS = []
for z, t in (ONE_PAIR, OTHER_PAIR, LEARNED):
    GRADIENTS += [(z, t, slope(READINGS[reading], z, t)) for reading in BOTH]
EXERCISES["reading_of"] = Exercise(answers.reading_of, GRADIENTS, {
    "it says \"softmax-ce\" of each gradient: compare all numbers with y - t": lambda z, t, g: "softmax-ce",
    "it says \"softmax-bce\" of each gradient: compare all numbers with y - t, y = Softmax(z)":
        lambda z, t, g: "softmax-bce",
    "too generous: where the model has learned the pair, both gradients are small (atol=1e-5)":
        lambda z, t, g: BOTH[torch.allclose(g, z.softmax(-1) - t, atol=0.1)],
    "the names are swapped": lambda z, t, g: BOTH[answers.reading_of(z, t, g) == BOTH[0]],
    "the name of the reading, not True or False": lambda z, t, g: answers.reading_of(z, t, g) == BOTH[0],
    "t is the true class: the highest score need not be its":
        lambda z, t, g: answers.reading_of(z, torch.eye(3)[z.argmax()], g),
    "names as in the ledger, with a hyphen": lambda z, t, g: answers.reading_of(z, t, g).replace("-", "_"),
}, (each_reading_has_its_gradient,), 2)  # fmt: skip

A, B, C = Entity("A", 0, 1), Entity("B", 1, 2), Entity("A", 2, 3)
FEW, MIRRORED = [Relation("R", A, B)], [Relation("R", A, B), Relation("R", B, A)]
THREE, BUSY = (Sentence("s", ["a", "b", "c"], [A, B, C], relations) for relations in (FEW, MIRRORED))
NONE, TYPED = Sentence("u", ["a"]), Sentence("v", ["a", "b"], [A, Entity("B", 0, 1), B], FEW)
SEVERAL = [THREE, Sentence("t", ["a", "b"], [A, B], FEW), NONE]
ASKED = [*(([NONE, THREE], rate) for rate in (2, 3, 5, 6, 7, 9)), ([NONE, BUSY], 3), (SEVERAL, 2),
         ([THREE, TYPED], 3)]  # fmt: skip
EXERCISES["idle_share"] = Exercise(answers.idle_share, ASKED, {
    "`rate` negatives for each relation, not for each sentence": partial(counted_share, wanted=1),
    "pairs are ordered: ⟨a, b⟩ and ⟨b, a⟩ are two": partial(counted_share, orders=1),
    "a span makes no pair with itself": partial(counted_share, itself=0),
    "a related pair is no negative": partial(counted_share, related=0),
    "a sentence without relations asks for none: leave it out": partial(counted_share, least=0),
    "count spans, not entities: two types of one span are one span":
        partial(counted_share, span=attrgetter("type", "start", "end")),
    "as many negatives as asked for are enough: more than there are is <, not ≤":
        lambda sentences, rate: counted_share(sentences, rate + 1e-9),
    "the share that is idle, not the share that is not": lambda *inputs: 1 - counted_share(*inputs),
    "a share from 0 to 1, not in percent": lambda *inputs: 100 * counted_share(*inputs),
    "a share, not a number of sentences":
        lambda sentences, rate: counted_share(sentences, rate) * sum(bool(s.relations) for s in sentences),
}, points=2)  # fmt: skip

MARKED = [([{1, 2}, {3}], [{1}, {3, 4, 5}]), ([{1, 2}, {3}], [{1}, {4}]), ([{1}, {1}], [{1}, set()]),
          ([set(), set()], [set(), set()])]  # fmt: skip
EXERCISES["micro_f1"] = Exercise(answers.micro_f1, MARKED, {
    "the same item in two sentences is two items: count sentence by sentence":
        lambda gold, predicted: rate_over([set().union(*gold)], [set().union(*predicted)]),
    "micro counts over all sentences; this is a mean of their F1":
        lambda gold, predicted: sum(rate_over([a], [b]) for a, b in zip(gold, predicted)) / len(gold),
    "F1 is the harmonic mean of P and R, not the mean":
        lambda gold, predicted: (rate_over(gold, predicted, "p") + rate_over(gold, predicted, "r")) / 2,
    "that is P alone: what was missed counts, too": partial(rate_over, rate="p"),
    "that is R alone: what was predicted wrongly counts, too": partial(rate_over, rate="r"),
    "in percent, please": lambda gold, predicted: rate_over(gold, predicted) / 100,
    "the 2 is missing: F1 is 2 · correct / (gold + predicted)":
        lambda gold, predicted: rate_over(gold, predicted) / 2,
    "all sentences count, not the first alone": lambda gold, predicted: rate_over(gold[:1], predicted[:1]),
    "that is correct / (gold or predicted), which counts what is correct once":
        lambda gold, predicted: 100 * rate_over(gold, predicted) / (200 - rate_over(gold, predicted)),
    "0 where nothing is gold or predicted, not 100":
        lambda gold, predicted: rate_over(gold, predicted) if any(gold + predicted) else 100.0,
    "0 where nothing is gold or predicted: this divides by 0":
        lambda gold, predicted: rate_over(gold, predicted) if any(gold + predicted) else 0 / 0,
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


def check(name, answer):
    """Says whether an exercise is solved, or what is wrong with the answer; returns the points earned."""
    exercise = EXERCISES[name]
    if is_stub(answer):
        print(f"{name}: not written yet")
        return 0
    fault = next(faults(exercise, answer), None)
    if not fault:
        print(f"{name}: passed, {exercise.points} of {exercise.points}")
        return exercise.points
    print(f"{name}: {misconception(exercise, answer) or 'not yet'}\n{fault}")
    return 0


def beside(name, answer, *inputs):
    """What an answer makes of some inputs, and what ours does: the two that `show_beside` draws."""
    exercise = EXERCISES[name]
    yours = "not written yet" if is_stub(answer) else outcome(exercise, answer, inputs)
    return yours, outcome(exercise, exercise.ours, inputs)


def grade(name, answer):
    """The same for marks that count: an answer that is ours by another name, or calls ours, earns nothing."""
    if not inspect.isfunction(answer):
        print(f"{name}: a function, please, made by def")
        return 0
    place = answer.__globals__
    if any(unwrapped(value) is EXERCISES[name].ours for value in [answer, *place.values()]):
        print(f"{name}: that is ours")
        return 0
    with out_of_reach(name, place):
        return check(name, answer)


def unwrapped(value):
    """A function without the checks of its shapes, and anything else as it is."""
    return inspect.unwrap(value) if inspect.isfunction(value) else value


@contextlib.contextmanager
def out_of_reach(name, place):
    """Within it our functions of this name cannot be called from one place, the notebook of an answer."""
    with contextlib.ExitStack() as stack:
        for module in (spanrel, data, train, answers):
            ours = getattr(module, name, None)
            if ours:
                stack.enter_context(patch.object(module, name, guarded(ours, place)))
        for number, equation in EQUATIONS.items():
            if unwrapped(equation).__name__ == name:
                stack.enter_context(patch.dict(EQUATIONS, {number: guarded(equation, place)}))
        yield


def guarded(ours, place):
    """A function that refuses to be called by the functions of one place."""

    def call(*inputs):
        if sys._getframe(1).f_globals is place:
            raise RuntimeError(f"an answer must not call ours: {ours.__name__}")
        return ours(*inputs)

    return call
