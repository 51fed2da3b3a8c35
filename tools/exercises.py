"""The exercises of `tutorial.ipynb`, which check themselves: `check("span_ends", span_ends)`.
An exercise has our answer, small inputs, the wrong answers that students really write, each by the
misconception that it smells of, and properties of `test_spanrel.py` or of this file, which take the student's
function in the place of ours."""

import copy
import inspect
import itertools
import math
import re
from dataclasses import dataclass
from functools import partial

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


@dataclass
class Exercise:
    """What `check` knows of an exercise. Where many answers are right, only the properties decide."""

    ours: object
    inputs: list[tuple]
    wrong: dict[str, object]
    properties: tuple = ()
    points: int = 1
    many: bool = False


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
    Q, V = case.numbers(3, D), case.numbers(case.N, 7)
    attended = attend(Q, case.X, V, case.is_token[:, None])
    for b, q in itertools.product(range(len(case.lengths)), range(3)):
        weights = softmax([dot(Q[b, q].tolist(), key) / D**0.5 for key in case.sentence(b)])
        same(attended[b, q], weighted_sum(weights, V[b, : case.lengths[b]].tolist()))


def as_printed(Q, K, mask):
    """The weights of additive attention as the paper prints its score, where W_1 and W_2 are sums [L7]."""
    return masked_softmax(Q.sum(-1)[..., None] + K.sum(-1)[:, None], mask)


def as_cited(Q, K, mask):
    """The same in the form of Bahdanau et al., whom the paper cites."""
    return masked_softmax((Q[:, :, None] + K[:, None]).tanh().sum(-1), mask)


def even(Q, K, mask):
    """Weights that ignore the query in another way: the mean of what is there."""
    return masked_softmax(0 * scaled(Q, K), mask)


def ignores_query(weights, Q, K, mask):
    """Whether another query has the same weights."""
    return torch.allclose(weights(Q, K, mask), weights(2 * Q.flip(-1) + 1, K, mask))


def idle_share(sentences, rate, itself=1, orders=2, related=1, wanted=None, least=1):
    """Of the sentences with relations, the share with fewer than `rate` negatives for each of them [L13].
    The defaults are right: a wrong answer counts n spans and k relations with another value of one."""
    idle = []
    for s in sentences:
        n, k = len({(entity.start, entity.end) for entity in s.entities}), len(s.relations)
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
}, (proof.test_enumeration_is_every_span_up_to_the_width_once,))  # fmt: skip

X = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]]])
EXERCISES["span_ends"] = Exercise(spanrel.span_ends, [(X, batch([0, 2])), (X, batch([1, 2], [0, 2]))], {
    "off by one: spans are [start, end), the last wordpiece is end - 1":
        lambda X, s: torch.cat([take(X, s[..., 0]), take(X, s[..., 1])], -1),
    "the first wordpiece comes first": lambda X, s: spanrel.span_ends(X, s).roll(X.shape[-1], -1),
    "[ ; ] is concatenation, not addition": lambda X, s: take(X, s[..., 0]) + take(X, s[..., 1] - 1),
    "the second half is the last wordpiece, not the first again": lambda X, s: take(X, s[..., 0]).tile(2),
}, (proof.test_eq_1_is_the_first_and_the_last_wordpiece, proof.test_eq_1_agrees_with_the_loop))  # fmt: skip

V, IN = torch.tensor([[2.0, 0.0, 1.0]]), batch([True, True, False], [False, False, True])
PART = batch([True, True, False], [False, False, False])
HIGH, LOW = torch.tensor([[100.0, 101.0, 0.0]]), torch.tensor([[-300.0, -301.0, 0.0]])
EXERCISES["token_weights"] = Exercise(spanrel.token_weights, [(V, IN), (V, PART), (HIGH, IN), (LOW, IN)], {
    "exp(100) is beyond float32: softmax subtracts the largest score first":
        lambda V, m: V.exp()[:, None] * m / (V.exp()[:, None] * m).sum(-1, keepdim=True).clamp(min=1e-12),
    "-100 is not low enough: scores can be lower; fill in -inf, or the lowest number":
        lambda V, m: V[:, None].masked_fill(~m, -100.0).softmax(-1).masked_fill(~m, 0.0),
    "a span of no word gets an even row; it must be 0 [L5]":
        lambda V, m: V[:, None].masked_fill(~m, -1e9).softmax(-1),
    "a span of no word gets NaN; it must be 0 [L5]":
        lambda V, m: V[:, None].masked_fill(~m, -math.inf).softmax(-1),
    "mask after softmax: what is outside has had its share of the 1": lambda V, m: V.softmax(-1)[:, None] * m,
    "softmax over the wrong axis: it runs over words, not over spans":
        lambda V, m: V[:, None].expand(m.shape).softmax(1) * m,
    "a score of 0 is not nothing, as exp(0) = 1: fill in -inf": lambda V, m: (V[:, None] * m).softmax(-1),
    "no mask: α is 0 outside of the span": lambda V, m: V.softmax(-1)[:, None].expand(m.shape),
    "exp is missing: α is not V over its sum": lambda V, m: V[:, None] * m / (V[:, None] * m).sum(-1, True),
}, (proof.test_eq_2b_is_a_softmax_over_the_span_alone, proof.test_eq_2b_agrees_with_the_loop), 2)  # fmt: skip

EXERCISES["span_specific"] = Exercise(spanrel.span_specific, [(torch.tensor([[[0.25, 0.75, 0.0]]]), X)], {
    "the mean of the span's words, not their weighted sum": lambda a, X: (a > 0) / (a > 0).sum(-1, True) @ X,
    "α sums to 1 already: divide by nothing": lambda a, X: a @ X / a.shape[-1],
    "the sum of the words, without their weights": lambda a, X: (a > 0).to(X) @ X,
    "all words count, not the one of the largest α alone": lambda a, X: take(X, a.argmax(-1)),
}, (proof.test_eq_2c_is_the_weighted_sum, proof.test_eq_2c_agrees_with_the_loop))  # fmt: skip

EXERCISES["leaky_weights"] = Exercise(leaky_weights, [(V, IN)], {
    "this is the right one: break its mask": spanrel.token_weights,
    "it must stay a distribution: the weights of a span sum to 1": lambda V, m: V.softmax(-1)[:, None] * m,
    "weights sum to 1 over the words, not over the spans": lambda V, m: V[:, None].expand(m.shape).softmax(1),
    "each span needs a row of its own: expand(inside.shape)": lambda V, m: V.softmax(-1)[:, None],
    "outside it is 0 still: nothing leaks": lambda V, m: m / m.sum(-1, keepdim=True),
}, (the_weights_of_each_span_sum_to_one_in_every_sentence, what_is_outside_of_a_span_has_a_share,
    a_broken_mask_is_caught_by_the_property_of_eq_2b), 2, many=True)  # fmt: skip

# -- §3.2  Relations -----------------------------------------------------------------------------------------

ONE, TWO = (X, batch([0, 1]), nn.Softplus()), (X, batch([2, 0], [0, 2]), nn.Softplus())
EXERCISES["relation_tuple"] = Exercise(spanrel.relation_tuple, [ONE, TWO], {
    "head first, then tail": lambda R, p, f: torch.cat([f(take(R, p[..., 1])), f(take(R, p[..., 0]))], -1),
    "the FFNN is forgotten": lambda R, p, f: torch.cat([take(R, p[..., 0]), take(R, p[..., 1])], -1),
    "[ ; ] is concatenation, not addition": lambda R, p, f: f(take(R, p[..., 0])) + f(take(R, p[..., 1])),
}, (proof.test_eq_6_reduces_both_arguments_by_one_ffnn_head_first,
    proof.test_eq_6_agrees_with_the_loop))  # fmt: skip

masks_are_right = proof.test_the_masks_say_which_wordpieces_are_in_a_span_and_between_two
SPANS, PAIRS = batch([1, 2], [4, 5], [3, 4]), batch([0, 1], [1, 0], [0, 2], [1, 2])
EXERCISES["mask_between"] = Exercise(spanrel.mask_between, [(SPANS, PAIRS[:, :1], 6), (SPANS, PAIRS, 6)], {
    "the tail may stand before the head": partial(mask_by, lambda a, b, c, d: (b, c)),
    "end is excluded: the word at end is between already": partial(mask_by, lambda a, b, c, d: (b + 1, c)),
    "start is included: the word at start is no longer between":
        partial(mask_by, lambda a, b, c, d: (b, c + 1)),
    "the spans themselves are not between them":
        partial(mask_by, lambda a, b, c, d: (a.minimum(c), b.maximum(d))),
    "a mask is boolean, as masked_fill and ~ want it": lambda s, p, n: spanrel.mask_between(s, p, n).float(),
}, (partial(masks_are_right, mask_inside=spanrel.mask_inside),), 2)  # fmt: skip

# -- §3.3  Attention -----------------------------------------------------------------------------------------

Q, VALUES = torch.tensor([[[4.0, 0.0], [1.0, 1.0]]]), batch([1.0, 0.0, 5.0], [0.0, 1.0, 6.0], [9.0, 9.0, 9.0])
EXERCISES["attend"] = Exercise(attend, [(Q, X, VALUES, PART[:, :1]), (Q, X, VALUES, PART)], {
    "the values are summed, not the keys": lambda Q, K, V, m: attend(Q, K, K, m),
    "no mask": lambda Q, K, V, m: scaled(Q, K).softmax(-1) @ V,
    "d is the width of queries and keys, not that of the values":
        lambda Q, K, V, m: masked_softmax(Q @ K.mT / V.shape[-1] ** 0.5, m) @ V,
    "√d is forgotten": lambda Q, K, V, m: masked_softmax(Q @ K.mT, m) @ V,
    "divided by d, not by √d": lambda Q, K, V, m: masked_softmax(Q @ K.mT / Q.shape[-1], m) @ V,
    "mask after softmax: what is masked has had its share of the 1":
        lambda Q, K, V, m: (scaled(Q, K).softmax(-1) * m) @ V,
    "softmax over the wrong axis: it runs over keys, not over queries":
        lambda Q, K, V, m: (scaled(Q, K).softmax(1) * m) @ V,
    "where nothing is there, this averages what is masked; it must be 0 [L5]":
        lambda Q, K, V, m: scaled(Q, K).masked_fill(~m, -1e9).softmax(-1) @ V,
    "where nothing is there, -inf everywhere gives NaN; it must be 0 [L5]":
        lambda Q, K, V, m: scaled(Q, K).masked_fill(~m, -math.inf).softmax(-1) @ V,
}, (one_attention_agrees_with_the_loop,), 3)  # fmt: skip

WEIGHED = [(weights, Q[:, :1], X, PART[:, :1]) for weights in (as_cited, as_printed, even)]
EXERCISES["ignores_query"] = Exercise(ignores_query, WEIGHED, {
    "always False: that is no experiment yet": lambda w, Q, K, m: False,
    "the same query twice tells nothing: take another one": lambda w, *x: torch.equal(w(*x), w(*x)),
    "True means that it ignores its query": lambda w, Q, K, m: not ignores_query(w, Q, K, m),
    "the query must change, not the context": lambda w, Q, K, m: torch.equal(w(Q, K, m), w(Q, 2 * K + 1, m)),
}, points=2)  # fmt: skip

# -- §3.4  Training, scores, and an ablation -----------------------------------------------------------------

LOSSES = [tuple(map(torch.tensor, pair)) for pair in ((1.0, 0.0), (0.0, 1.0), (3.0, 2.0))]
EXERCISES["joint_loss"] = Exercise(spanrel.joint_loss, LOSSES, {
    "0.4 and 0.6 are swapped: relations weigh more": lambda L_s, L_r: 0.6 * L_s + 0.4 * L_r,
    "the weights are forgotten": lambda L_s, L_r: L_s + L_r,
    "the mean would weigh both alike": lambda L_s, L_r: (L_s + L_r) / 2,
})  # fmt: skip

A, B, C = Entity("A", 0, 1), Entity("B", 1, 2), Entity("A", 2, 3)
FEW, MIRRORED = [Relation("R", A, B)], [Relation("R", A, B), Relation("R", B, A)]
THREE, BUSY = (Sentence("s", ["a", "b", "c"], [A, B, C], relations) for relations in (FEW, MIRRORED))
SEVERAL = [THREE, Sentence("t", ["a", "b"], [A, B], FEW), Sentence("u", ["a"])]
ASKED = [*(([THREE], rate) for rate in (2, 3, 5, 6, 7, 9)), ([BUSY], 3), (SEVERAL, 2)]
EXERCISES["idle_share"] = Exercise(idle_share, ASKED, {
    "`rate` negatives for each relation, not for each sentence": partial(idle_share, wanted=1),
    "pairs are ordered: ⟨a, b⟩ and ⟨b, a⟩ are two": partial(idle_share, orders=1),
    "a span makes no pair with itself": partial(idle_share, itself=0),
    "a related pair is no negative": partial(idle_share, related=0),
    "a sentence without relations asks for none: leave it out": partial(idle_share, least=0),
}, points=2)  # fmt: skip

MARKED = [([{1, 2}], [{1}]), ([{1, 2}, {3}], [{1}, {4}]), ([{1}, {1}], [{1}, set()]), ([set()], [set()])]
EXERCISES["micro_f1"] = Exercise(micro_f1, MARKED, {
    "the same item in two sentences is two items: count sentence by sentence":
        lambda gold, predicted: micro_f1([set().union(*gold)], [set().union(*predicted)]),
    "micro counts over all sentences; this is a mean of their F1":
        lambda gold, predicted: sum(micro_f1([a], [b]) for a, b in zip(gold, predicted)) / len(gold),
    "F1 is the harmonic mean of P and R, not the mean":
        lambda gold, predicted: (micro_f1(gold, predicted, "p") + micro_f1(gold, predicted, "r")) / 2,
    "that is P alone: what was missed counts, too": partial(micro_f1, rate="p"),
    "in percent, please": lambda gold, predicted: micro_f1(gold, predicted) / 100,
})  # fmt: skip

SMALL = Case([5], [[(1, 2)]], [[1]], [[]], seed=0).model()
SPAN = torch.ones(1, 6, D).double(), torch.ones(1, 6, dtype=torch.bool), batch([1, 3]), batch(2)
EXERCISES["without_width"] = Exercise(without_width, [(SMALL, *SPAN)], {
    "this is R_s as it was, with its width": lambda model, *rest: model.represent_spans(*rest),
    "the width alone is to go (model.config.width_dim numbers), not all of R_s":
        lambda model, *rest: 0 * model.represent_spans(*rest),
    "R_s is shorter now, and FFNN no longer fits: zeros, please":
        lambda model, *rest: model.represent_spans(*rest)[..., :-3],
    "the width stands last in eq. (4), not first":
        lambda model, *rest: model.represent_spans(*rest) * (torch.arange(4 * D + 3) >= 3),
}, points=3)  # fmt: skip

# -- The check -----------------------------------------------------------------------------------------------

STUB = (lambda: None).__code__.co_code  # what `def f(): ...` is compiled to


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
    smells = []
    for misconception, wrong in exercise.wrong.items():
        if all(agree(wrong, answer, inputs) for inputs in exercise.inputs):
            smells.append(misconception)
    print(f"{name}: {smells[0] if smells else 'not yet'}\n{fault}")
    return 0


def faults(name, answer):
    """In words, the inputs on which an answer is not ours, then the properties that do not hold of it."""
    exercise = EXERCISES[name]
    for inputs in [] if exercise.many else exercise.inputs:
        if not agree(exercise.ours, answer, inputs):
            yield difference(exercise.ours, answer, inputs)
    for test in exercise.properties:
        try:
            test(**{name: answer})
        except BaseException as error:  # an assertion's, or whatever the answer or hypothesis raises
            words = getattr(test, "func", test).__name__.removeprefix("test_").replace("_", " ")
            if not isinstance(error, AssertionError):
                words += f" ({type(error).__name__}: {''.join(str(error).splitlines()[:1])[:80]})"
            yield f"  does not hold:   {words}"


def agree(ours, answer, inputs):
    """Whether an answer makes of some inputs what ours does, numbers within rounding."""
    yours, expected = outcome(answer, inputs), outcome(ours, inputs)
    are_tensors = [isinstance(result, torch.Tensor) for result in (yours, expected)]
    if not any(are_tensors):
        return yours == (pytest.approx(expected) if isinstance(expected, float) else expected)
    if not all(are_tensors) or yours.shape != expected.shape:
        return False
    boolean = (yours.dtype == torch.bool) == (expected.dtype == torch.bool)
    return boolean and torch.allclose(yours.double(), expected.double(), equal_nan=True)


def outcome(function, inputs):
    """What a function makes of copies of inputs; in words, if it raises, returns nothing, or changes them."""
    copies = copy.deepcopy(inputs)
    try:
        result = function(*copies)
    except Exception as error:  # whatever a student's function does
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    if result is None:
        return "None: is a `return` missing?"
    unchanged = all(map(torch.equal, tensors_of(inputs), tensors_of(copies)))
    return result if unchanged else "it changes its arguments: work on copies"


def tensors_of(inputs):
    """The tensors among some inputs, those of models included."""
    tensors = []
    for value in inputs:
        tensors += value.state_dict().values() if isinstance(value, nn.Module) else [value]
    return [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]


def difference(ours, answer, inputs):
    """The inputs by name, what the answer makes of them, and what ours does."""
    yours, expected = outcome(answer, inputs), outcome(ours, inputs)
    named = zip(inspect.signature(inspect.unwrap(ours)).parameters, inputs)
    lines = ["  smallest input:  " + ", ".join(f"{name} = {short(value)}" for name, value in named)]
    for title, result in (("yours:   ", yours), ("expected:", expected)):
        kind = "" if type(yours) is type(expected) else f" ({type(result).__name__})"
        lines.append(f"  {title}        {short(result)}{kind}")
    return "\n".join(lines)


def short(value):
    """An input or a result in a line."""
    if isinstance(value, nn.Module):
        is_model = hasattr(value, "config")
        return f"a model with width_dim = {value.config.width_dim}" if is_model else str(value)
    if isinstance(value, list) and value and isinstance(value[0], Sentence):
        return str([f"{len(s.entities)} entities, {len(s.relations)} relations" for s in value])
    text = str(value.tolist() if isinstance(value, torch.Tensor) else getattr(value, "__name__", value))
    text = re.sub(r"\d+\.\d{4,}(?!\d*e)", lambda number: f"{float(number[0]):.4g}", text)
    return text if len(text) < 200 else f"{text[:200]} …"
