"""The proof that `spanrel.py` computes what the paper says, in the paper's order.

Each equation is written a second time, with loops over one sentence, one span, one pair; both must agree
within 1e-10. A function under test is an argument of its test: pytest passes ours, and
`test_eq_1_agrees_with_the_loop(span_ends=mine)` tests another one.

    python -m pytest test_spanrel.py                the proof
    python -m pytest test_spanrel.py -k eq_         the tests of the equations
    python -m pytest --hypothesis-profile=deep      2,000 random inputs for each property instead of 25

Random inputs are made in `tests/inputs.py`. `tests/test_baselines.py` has what only the baselines have.
"""

import copy
import inspect
import itertools
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest.mock import Mock

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import data
import spanrel
from baselines import spert
from baselines.ablations import ABLATIONS
from baselines.readings import READINGS
from data import Entity, Relation, Sampling, Sentence
from spanrel import ATTENTION, EQUATIONS, FFNN, Config
from tests.inputs import CASE, TYPES, Case, D, cases, coded, each, joined, mask_of, sentences
from tests.inputs import annotated as annotated  # other tests import it from here

# -- The paper a second time, as loops -----------------------------------------------------------------------
# A vector is a list of numbers, so [a ; b] is a + b. A sentence x is X_0 … X_n, vectors of width D. A span is
# (start, end) in wordpieces, end excluded. The loops use the weights and settings of a model, and no more.


def dot(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True))


def softmax(scores):
    powers = [math.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def sigmoid(score):
    return 1 / (1 + math.exp(-score))


def mean(numbers):
    return sum(numbers) / len(numbers) if numbers else 0.0


def weighted_sum(weights, vectors):
    return [dot(weights, column) for column in zip(*vectors, strict=True)]


def apply(ffnn, x):
    """Linear, or Linear → ReLU → … → Linear."""
    layers = [module for module in ffnn.modules() if isinstance(module, nn.Linear)]
    for k, layer in enumerate(layers):
        if k > 0:
            x = [max(0.0, number) for number in x]
        bias = [0.0] * layer.out_features if layer.bias is None else layer.bias.tolist()
        x = [dot(row, x) + b for row, b in zip(layer.weight.tolist(), bias, strict=True)]
    return x


def loop_scores(attention, query, key):
    """§3.3: for each head, the score of a query with one vector of the context."""
    if isinstance(attention, spanrel.General):
        return [dot(apply(attention.W, query), key)]
    if isinstance(attention, spanrel.Additive):  # [L7]
        terms = zip(apply(attention.W_1, query), apply(attention.W_2, key), strict=True)
        return apply(attention.v, [math.tanh(q + k) for q, k in terms])
    Q, K = apply(attention.ffnn_Q, query), apply(attention.ffnn_K, key)
    if isinstance(attention, spanrel.DotProduct):  # [L9]
        return apply(attention.W, [q * k for q, k in zip(Q, K, strict=True)])
    d_K = len(Q) // attention.heads  # [L8]
    return [dot(Q[h : h + d_K], K[h : h + d_K]) / math.sqrt(d_K) for h in range(0, len(Q), d_K)]


def loop_attention(query, context, attention):
    """§3.3: Attention(query, context, context); zeros where the context is empty [L5]."""
    if not context:
        return [0.0] * D
    scores = [loop_scores(attention, query, key) for key in context]
    size = D // attention.heads
    result = []
    for head in range(attention.heads):  # each weighs its own slice of the context [L10]
        weights = softmax([score[head] for score in scores])
        result += weighted_sum(weights, [x[head * size : (head + 1) * size] for x in context])
    return result


loop_3 = loop_attention  # T_s = Attention(F_s, B_S, B_S)
loop_7 = loop_attention  # F_r = Attention(H_r, B_c, B_c)
loop_8 = loop_attention  # T_r = Attention(H_r, B_S, B_S)


def loop_1(x, span):
    return x[span[0]] + x[span[1] - 1]


def loop_2a(x, k, mlp):
    return apply(mlp, x[k])[0]


def loop_2b(V, span):
    total = sum(math.exp(V[m]) for m in range(*span))
    return [math.exp(V[k]) / total if k in range(*span) else 0.0 for k in range(len(V))]


def loop_2c(alpha, x, span):
    inside = slice(*span)
    return weighted_sum(alpha[inside], x[inside])


def loop_4(T_s, F_s, H_s, W):
    return T_s + F_s + H_s + W


def loop_5(R_s, ffnn):
    return softmax(apply(ffnn, R_s))


def loop_6(R_1, R_2, ffnn):
    return apply(ffnn, R_1) + apply(ffnn, R_2)


def loop_between(one, other):
    """B_c: the wordpieces between two spans, whichever comes first; none where they touch or overlap."""
    left, right = sorted([one, other])
    return range(left[1], right[0])


def loop_9(H_r, F_r, T_r, ffnn_F, ffnn_T):
    return H_r + apply(ffnn_F, F_r) + apply(ffnn_T, T_r)


def loop_10(R_r, ffnn):
    return softmax(apply(ffnn, R_r))


def loop_11(L_s, L_r):
    return 0.4 * L_s + 0.6 * L_r


def loop_span_loss(z_s, t_s):
    """L^s of some spans, each with its scores and its true type."""
    return mean([-math.log(softmax(z)[t]) for z, t in zip(z_s, t_s, strict=True)])


def loop_relation_loss(z_r, t_r, reading):
    """L^r of some pairs, each with its scores and, for each type, 1 or 0. There are three readings [L6]."""
    losses = []
    for z, t in zip(z_r, t_r, strict=True):
        y = softmax(z)
        if reading == "sigmoid-bce":  # without NoneRelation
            y, t = [sigmoid(score) for score in z], t[1:]
        if reading == "softmax-ce":
            terms = [-math.log(p) for p, is_true in zip(y, t, strict=True) if is_true]
        else:
            terms = [-math.log(p if is_true else 1 - p) for p, is_true in zip(y, t, strict=True)]
        losses.append(mean(terms))
    return mean(losses)


def loop_max(vectors):
    """Max pooling, of ablations and SpERT; zeros where there is nothing to pool [L5]."""
    return [max(column) for column in zip(*vectors)] if vectors else [0.0] * D


def loop_span(model, x, span, width):
    """R_s of one span, (1) to (4); or what SpERT or the ablations of Table 3 have for it."""
    W = model.width.weight[width - 1].tolist()  # row j belongs to the width j+1 [L1]
    pooled = loop_max(x[slice(*span)])
    ablate = getattr(model, "ablate", ())
    if isinstance(model, spert.SpERT) or ("span-specific" in ablate and "span-sentence" in ablate):
        return x[0] + pooled + W
    V = [loop_2a(x, k, model.mlp) for k in range(len(x))]
    F_s = loop_2c(loop_2b(V, span), x, span)
    T_s = x[0] if "span-sentence" in ablate else loop_3(F_s, x, model.attention_s)  # [L20] of F_s still
    if "span-specific" in ablate:
        return T_s + pooled + W
    return loop_4(T_s, F_s, loop_1(x, span), W)


def loop_pair(model, x, one, R_1, other, R_2):
    """R_r of two spans, (6) to (9); or what SpERT or the ablations of Table 4 have for it."""
    B_c = [x[k] for k in loop_between(one, other)]
    ablate = getattr(model, "ablate", ())
    if isinstance(model, spert.SpERT):
        return loop_max(B_c) + R_1[D:] + R_2[D:]  # each span without [CLS]
    H_r = loop_6(R_1, R_2, model.ffnn_pair)
    F_r = loop_max(B_c) if "local" in ablate else loop_7(H_r, B_c, model.attention_c)
    if "relation-sentence" in ablate:
        return H_r + apply(model.ffnn_F, F_r)
    T_r = loop_8(H_r, x, model.attention_S)
    return loop_9(H_r, F_r, T_r, model.ffnn_F, model.ffnn_T)


def loop_filter(y):
    """The highest class and its posterior, in a list; an empty list if that is class 0."""
    highest = y.index(max(y))
    return [(highest, y[highest])] if highest > 0 else []


def loop_relation_types(model, R_r):
    """The types that a pair holds, each with its posterior."""
    if model.config.relation_loss != "sigmoid-bce":
        return loop_filter(loop_10(R_r, model.ffnn_r))
    y_r = [sigmoid(z) for z in apply(model.ffnn_r, R_r)]
    return [(kind, y) for kind, y in enumerate(y_r, start=1) if y > model.config.threshold]


def loop_predict(model, x, spans, widths):
    """The entities (span, type, posterior) and relations (head, tail, type, posterior) of one sentence."""
    R_s = [loop_span(model, x, span, width) for span, width in zip(spans, widths, strict=True)]
    entities = []
    for s, vector in enumerate(R_s):
        for kind, y in loop_filter(loop_5(vector, model.ffnn_s)):
            entities.append((s, kind, y))
    relations = []
    for head, tail in itertools.permutations(range(len(entities)), 2):
        one, other = entities[head][0], entities[tail][0]
        R_r = loop_pair(model, x, spans[one], R_s[one], spans[other], R_s[other])
        for kind, y in loop_relation_types(model, R_r):
            relations.append((head, tail, kind, y))
    return entities, relations


# -- What many tests need ------------------------------------------------------------------------------------


def of(**functions):
    """The functions under test are arguments. pytest passes ours."""
    return pytest.mark.parametrize(list(functions), [tuple(functions.values())], ids=["-".join(functions)])


def same(actual, expected, tolerance=1e-10):
    """Asserts that both have the same shape and, within rounding, the same numbers."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    assert actual.shape == expected.shape
    assert torch.allclose(actual.double(), expected, rtol=0, atol=tolerance)


def same_prediction(actual, expected):
    """Asserts that a sentence has the same entities and relations, with the same posteriors."""
    for items, others in zip(actual, expected, strict=True):
        assert [item[:-1] for item in items] == [item[:-1] for item in others]
        assert [item[-1] for item in items] == pytest.approx([item[-1] for item in others], rel=0, abs=1e-10)


def only(X, b, mask):
    """X where the mask of sentence b is true, and 1e30 elsewhere: a weight there that is not 0 would show."""
    changed = torch.full_like(X, 1e30)
    changed[b, mask] = X[b, mask]
    return changed


def batch(*rows):
    """A batch of one sentence: the dimension B goes in front."""
    return torch.tensor([rows])


# -- §3.1  Span classification and filtration ----------------------------------------------------------------

X = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 1.0], [5.0, 5.0]]])  # [CLS] and three wordpieces, D = 2


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
    assert H_s.tolist() == [[[0, 2, 3, 1], [3, 1, 3, 1]]]  # a single wordpiece stands twice


@of(span_ends=EQUATIONS["1"])
@given(case=cases())
def test_eq_1_agrees_with_the_loop(case, span_ends):
    H_s = span_ends(case.X, case.padded_spans)
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
    alpha = case.numbers(case.S, case.N).masked_fill(~case.inside, 0.0)
    F_s = span_specific(alpha, case.X)
    for b, s, span in each(case.spans):
        same(F_s[b, s], loop_2c(alpha[b, s].tolist(), case.sentence(b), span))


@of(token_scores=EQUATIONS["2a"], token_weights=EQUATIONS["2b"], span_specific=EQUATIONS["2c"])
@given(case=cases())
def test_eq_2_agrees_with_the_loops_and_reads_nothing_else(case, token_scores, token_weights, span_specific):
    mlp = case.seeded(FFNN, D, 1, 2)
    for b, s, span in each(case.spans):
        X = only(case.X, b, case.inside[b, s])
        F_s = span_specific(token_weights(token_scores(X, mlp), case.inside), X)
        x = case.sentence(b)
        V = [loop_2a(x, k, mlp) for k in range(len(x))]
        same(F_s[b, s], loop_2c(loop_2b(V, span), x, span))


class Uniform(nn.Module):
    """An attention that gives equal weight to all that the mask allows."""

    def forward(self, query, context, mask):
        mask = mask.expand(-1, query.shape[1], -1).float()
        return mask / mask.sum(-1, keepdim=True).clamp(min=1) @ context


each_attention = pytest.mark.parametrize("name", ATTENTION)


@of(span_context=EQUATIONS["3"])
def test_eq_3_attends_over_cls_and_the_sentence_but_not_sep(span_context):
    T_s = span_context(batch([0.0, 0.0]), X, batch(True, True, True, False), Uniform())
    assert torch.allclose(T_s, batch([4 / 3, 1.0]))


@of(span_context=EQUATIONS["3"])
@each_attention
@given(case=cases())
def test_eq_3_agrees_with_the_loop_and_reads_nothing_else(name, case, span_context):
    F_s = case.numbers(case.S, D)
    attention = case.seeded(ATTENTION[name], D, D)
    for b, s, _ in each(case.spans):
        T_s = span_context(F_s, only(case.X, b, case.is_token[b]), case.is_token, attention)
        same(T_s[b, s], loop_3(F_s[b, s].tolist(), case.sentence(b), attention))


@of(span_representation=EQUATIONS["4"])
def test_eq_4_concatenates_in_the_papers_order(span_representation):
    R_s = span_representation(batch([1.0]), batch([2.0]), batch([3.0, 4.0]), batch([5.0]))
    assert R_s.tolist() == [[[1, 2, 3, 4, 5]]]


@of(span_representation=EQUATIONS["4"])
@given(case=cases())
def test_eq_4_agrees_with_the_loop(case, span_representation):
    parts = [case.numbers(case.S, width) for width in (D, D, 2 * D, 3)]
    R_s = span_representation(*parts)
    for b, s, _ in each(case.spans):
        same(R_s[b, s], loop_4(*[part[b, s].tolist() for part in parts]))


@of(classify_spans=EQUATIONS["5"])
def test_eq_5_is_the_softmax_of_the_scores(classify_spans):
    y_s = classify_spans(batch([0.0, math.log(3.0)]), nn.Identity())
    assert torch.allclose(y_s, batch([0.25, 0.75]))
    assert classify_spans(X.bfloat16(), nn.Identity()).dtype == torch.float32


@of(classify_spans=EQUATIONS["5"], span_scores=spanrel.span_scores)
@given(case=cases())
def test_eq_5_agrees_with_the_loop(case, classify_spans, span_scores):
    R_s = case.numbers(case.S, 5)
    ffnn = case.seeded(FFNN, 5, 3, 2)
    y_s, z_s = classify_spans(R_s, ffnn), span_scores(R_s, ffnn)
    for b, s, _ in each(case.spans):
        same(y_s[b, s], loop_5(R_s[b, s].tolist(), ffnn))
        same(z_s[b, s], apply(ffnn, R_s[b, s].tolist()))


@of(filter_spans=spanrel.filter_spans)
@given(case=cases())
def test_span_filtration_keeps_what_is_not_none_entity(case, filter_spans):
    y_s = case.numbers(case.S, 3).softmax(-1)
    kept, is_entity = filter_spans(y_s, case.is_span)
    for b, spans in enumerate(case.spans):
        expected = [s for s in range(len(spans)) if loop_filter(y_s[b, s].tolist())]
        assert kept[b][is_entity[b]].tolist() == expected
    assert kept.shape[1] == is_entity.sum(-1).max()
    many = batch(*[[1.0, 0.0], [0.0, 1.0]] * 99)  # their order stays, also of so many
    assert filter_spans(many, torch.ones(1, 198).bool())[0].tolist() == [list(range(1, 198, 2))]


# -- §3.2  Relation classification and filtration ------------------------------------------------------------


@of(all_pairs=spanrel.all_pairs)
@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=3))
def test_relation_tuples_are_every_ordered_pair_of_two_entities(counts, all_pairs):
    pairs, is_pair = all_pairs(mask_of([range(count) for count in counts]))
    for b, count in enumerate(counts):
        expected = itertools.permutations(range(count), 2)
        assert pairs[b][is_pair[b]].tolist() == list(map(list, expected))


@of(mask_inside=spanrel.mask_inside, mask_between=spanrel.mask_between)
@given(case=cases())
def test_the_masks_say_which_wordpieces_are_in_a_span_and_between_two(case, mask_inside, mask_between):
    inside = mask_inside(case.padded_spans, case.N)
    assert torch.equal(inside[case.is_span], case.inside[case.is_span])
    between = mask_between(case.padded_spans, case.padded_pairs, case.N)
    assert torch.equal(between[case.is_pair], case.between[case.is_pair])


@of(relation_tuple=EQUATIONS["6"])
def test_eq_6_reduces_both_arguments_by_one_ffnn_head_first(relation_tuple):
    double = nn.Linear(1, 1, bias=False)
    double.weight.data = torch.tensor([[2.0]])
    H_r = relation_tuple(batch([1.0], [2.0], [3.0]), batch([2, 0], [0, 2]), double)
    assert H_r.tolist() == [[[6, 2], [2, 6]]]


@of(relation_tuple=EQUATIONS["6"])
@given(case=cases())
def test_eq_6_agrees_with_the_loop(case, relation_tuple):
    R_s = case.numbers(case.S, 5)
    ffnn = case.seeded(FFNN, 5, 3, 2)
    H_r = relation_tuple(R_s, case.padded_pairs, ffnn)
    for b, p, (one, other) in each(case.pairs):
        same(H_r[b, p], loop_6(R_s[b, one].tolist(), R_s[b, other].tolist(), ffnn))


@of(local_context=EQUATIONS["7"], mask_between=spanrel.mask_between)
def test_eq_7_attends_over_the_words_between_and_is_zero_where_there_are_none(local_context, mask_between):
    spans = batch([1, 2], [3, 4], [2, 3], [1, 3], [2, 4])
    pairs = batch([0, 1], [1, 0], [0, 2], [0, 3], [3, 4])  # a gap, twice; adjacent; nested; overlapping
    between = mask_between(spans, pairs, 4)
    assert between[0].sum(-1).tolist() == [1, 1, 0, 0, 0]
    F_r = local_context(torch.zeros(1, 5, 3), X, between, Uniform())
    assert F_r.tolist() == [[[3, 1], [3, 1], [0, 0], [0, 0], [0, 0]]]


@of(local_context=EQUATIONS["7"])
@each_attention
@given(case=cases())
def test_eq_7_agrees_with_the_loop_and_reads_nothing_else(name, case, local_context):
    H_r = case.numbers(case.P, 7)
    attention = case.seeded(ATTENTION[name], 7, D)
    for b, p, (one, other) in joined(case):
        F_r = local_context(H_r, only(case.X, b, case.between[b, p]), case.between, attention)
        B_c = [case.sentence(b)[k] for k in loop_between(one, other)]
        same(F_r[b, p], loop_7(H_r[b, p].tolist(), B_c, attention))


@of(sentence_context=EQUATIONS["8"])
def test_eq_8_attends_over_the_sentence(sentence_context):
    T_r = sentence_context(torch.zeros(1, 1, 3), X, batch(True, True, True, False), Uniform())
    assert torch.allclose(T_r, batch([4 / 3, 1.0]))


@of(sentence_context=EQUATIONS["8"])
@each_attention
@given(case=cases())
def test_eq_8_agrees_with_the_loop_and_reads_nothing_else(name, case, sentence_context):
    H_r = case.numbers(case.P, 7)
    attention = case.seeded(ATTENTION[name], 7, D)
    for b, p, _ in each(case.pairs):
        T_r = sentence_context(H_r, only(case.X, b, case.is_token[b]), case.is_token, attention)
        same(T_r[b, p], loop_8(H_r[b, p].tolist(), case.sentence(b), attention))


@of(relation_representation=EQUATIONS["9"])
def test_eq_9_reduces_the_contexts_by_two_ffnns(relation_representation):
    double, negate = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    double.weight.data, negate.weight.data = torch.tensor([[2.0]]), torch.tensor([[-1.0]])
    R_r = relation_representation(batch([1.0]), batch([3.0]), batch([4.0]), double, negate)
    assert R_r.tolist() == [[[1, 6, -4]]]


@of(relation_representation=EQUATIONS["9"])
@given(case=cases())
def test_eq_9_agrees_with_the_loop(case, relation_representation):
    parts = [case.numbers(case.P, width) for width in (7, D, D)]
    ffnns = [case.seeded(FFNN, D, width, 3) for width in (5, 6)]
    R_r = relation_representation(*parts, *ffnns)
    for b, p, _ in each(case.pairs):
        same(R_r[b, p], loop_9(*[part[b, p].tolist() for part in parts], *ffnns))


@of(classify_relations=EQUATIONS["10"])
def test_eq_10_is_the_softmax_of_the_scores(classify_relations):
    y_r = classify_relations(batch([0.0, math.log(3.0)]), nn.Identity())
    assert torch.allclose(y_r, batch([0.25, 0.75]))
    assert classify_relations(X.bfloat16(), nn.Identity()).dtype == torch.float32


@of(classify_relations=EQUATIONS["10"], relation_scores=spanrel.relation_scores)
@given(case=cases())
def test_eq_10_agrees_with_the_loop(case, classify_relations, relation_scores):
    R_r = case.numbers(case.P, 5)
    ffnn = case.seeded(FFNN, 5, 3, 2)
    y_r, z_r = classify_relations(R_r, ffnn), relation_scores(R_r, ffnn)
    for b, p, _ in each(case.pairs):
        same(y_r[b, p], loop_10(R_r[b, p].tolist(), ffnn))
        same(z_r[b, p], apply(ffnn, R_r[b, p].tolist()))


@of(filter_relations=spanrel.filter_relations)
@given(case=cases())
def test_relation_filtration_keeps_the_highest_type_unless_it_is_none_relation(case, filter_relations):
    y_r = case.numbers(case.P, 4).softmax(-1)
    holds = filter_relations(y_r, case.is_pair)
    for b, p in itertools.product(range(len(case.lengths)), range(case.P)):
        expected = [kind for kind, _ in loop_filter(y_r[b, p].tolist())] if case.is_pair[b, p] else []
        assert holds[b, p].nonzero().flatten().tolist() == expected


# -- §3.3  Attention variants --------------------------------------------------------------------------------


@pytest.mark.parametrize("d_in, d_out, layers", [(4, 1, 1), (4, 3, 2), (2, 5, 3)])
def test_an_ffnn_is_linear_relu_dropout_and_a_last_linear(d_in, d_out, layers):  # [L11]
    ffnn = list(FFNN(d_in, d_out, layers, Config(hidden=6, dropout=0.3)))
    assert list(map(type, ffnn)) == [nn.Linear, nn.ReLU, nn.Dropout] * (layers - 1) + [nn.Linear]
    widths = [d_in] + [6] * (layers - 1) + [d_out]
    assert [(layer.in_features, layer.out_features) for layer in ffnn[::3]] == list(zip(widths, widths[1:]))
    assert all(dropout.p == 0.3 for dropout in ffnn[2::3])


WEIGHTS = ["ffnn_Q ffnn_K", "ffnn_Q ffnn_K W", "W", "W_1 W_2 v"]


@pytest.mark.parametrize("name, weights", list(zip(ATTENTION, WEIGHTS)), ids=ATTENTION)
def test_query_and_key_have_weights_of_their_own_and_the_value_none(name, weights):  # [L10]
    attention = CASE.seeded(ATTENTION[name], D, D)
    assert {name.split(".")[0] for name, _ in attention.named_parameters()} == set(weights.split())


@each_attention
@given(case=cases(), scale=st.sampled_from([1.0, 1e3]))
def test_attention_weights_are_a_distribution_over_what_is_there(name, case, scale):
    query = case.numbers(case.P, 7) * scale
    attention = case.seeded(ATTENTION[name], 7, D)
    weights, mask = attention.weights(query, case.X, case.between), case.between[:, None]
    assert weights.shape[1] == attention.heads and (weights >= 0).all()
    assert (weights.masked_fill(mask, 0.0) == 0).all()  # exactly
    same(weights.sum(-1), mask.any(-1).double().expand(weights.shape[:-1]))


@each_attention
@given(case=cases())
def test_attention_over_nothing_is_zero_with_finite_gradients(name, case):
    attention = case.seeded(ATTENTION[name], 7, D)
    query, context = case.numbers(2, 7).requires_grad_(), case.X.clone().requires_grad_()
    result = attention(query, context, torch.zeros(len(context), 1, case.N, dtype=torch.bool))
    assert (result == 0).all()
    result.sum().backward()
    for tensor in (query, context, *attention.parameters()):
        assert tensor.grad is None or tensor.grad.isfinite().all()


def test_multihead_score_is_the_scaled_dot_product_of_each_head():
    attention = ATTENTION["multihead"](4, 4, Config(hidden=4, heads=2))
    attention.ffnn_Q = attention.ffnn_K = nn.Identity()
    score = attention.score(batch([1.0, 2.0, 3.0, 4.0]), batch([1.0, 1.0, 0.0, 2.0]))
    assert torch.allclose(score.flatten(), torch.tensor([3.0, 8.0]) / math.sqrt(2))


def test_dot_general_and_additive_scores_by_hand():
    query, context = batch([1.0, 2.0]), batch([3.0, 4.0])
    product, general, additive = [ATTENTION[name](2, 2, Config(hidden=2)) for name in list(ATTENTION)[1:]]
    product.ffnn_Q = product.ffnn_K = nn.Identity()
    assert product.W.weight.shape == (1, 2)  # [L9]
    product.W.weight.data = torch.tensor([[10.0, 1.0]])
    assert product.score(query, context).item() == 10 * 1 * 3 + 1 * 2 * 4
    general.W.weight.data = torch.tensor([[0.0, 0.0], [5.0, 0.0]])  # from query 1 to key 2
    assert general.score(query, context).item() == 1 * 5 * 4
    additive.W_1.weight.data = additive.W_2.weight.data = torch.eye(2)
    additive.W_1.bias.data.zero_()
    additive.v.weight.data = torch.tensor([[1.0, -1.0]])
    assert additive.score(query, context).item() == pytest.approx(math.tanh(4) - math.tanh(6), abs=1e-6)


@of(additive=ATTENTION["additive"])
@given(case=cases())
def test_additive_attention_as_printed_ignores_its_query_and_ours_does_not(case, additive):  # [L7]
    one, other, mask = case.numbers(1, 7), case.numbers(1, 7), case.is_token[:, None]
    W_1, W_2 = case.numbers(7)[0], case.numbers(D)[0]

    def weights_as_printed(query):
        return ((query @ W_1)[..., None] + (case.X @ W_2)[:, None]).softmax(-1)

    same(weights_as_printed(one), weights_as_printed(other))
    ours = case.seeded(additive, 7, D)
    assert not torch.allclose(ours.weights(one, case.X, mask), ours.weights(other, case.X, mask))


# -- §3.4  Model training: the loss --------------------------------------------------------------------------

every_reading = pytest.mark.parametrize("reading", READINGS)
scalars = st.floats(-100, 100).map(lambda value: torch.tensor(value, dtype=torch.float64))


@of(joint_loss=EQUATIONS["11"])
def test_eq_11_weighs_the_parts_by_four_and_six_tenths(joint_loss):
    one, zero = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert joint_loss(one, zero).item() == 0.4 and joint_loss(zero, one).item() == 0.6
    assert joint_loss(one, 10 * one, 1.0, 1.0).item() == 11.0  # SpERT's weights


@of(joint_loss=EQUATIONS["11"])
@given(a=scalars, b=scalars, c=scalars)
def test_eq_11_is_linear_in_each_part(a, b, c, joint_loss):
    L, zero = joint_loss, torch.zeros_like(a)
    same(L(a, b), loop_11(a.item(), b.item()))
    same(L(a + c, b), L(a, b) + L(c, zero))
    same(L(a, b + c), L(a, b) + L(zero, c))


@of(span_loss=spanrel.span_loss)
@given(case=cases())
def test_span_loss_agrees_with_the_loop(case, span_loss):
    z_s, t_s = case.numbers(case.S, 3), case.numbers(case.S, 3).argmax(-1)
    expected = loop_span_loss(z_s[case.is_span].tolist(), t_s[case.is_span].tolist())
    same(span_loss(z_s, t_s, case.is_span), expected)


@of(relation_loss=spanrel.relation_loss)
@every_reading
@given(case=cases(), C=st.integers(1, 4))
def test_relation_loss_agrees_with_the_loop(reading, case, C, relation_loss):
    z_r = case.numbers(case.P, C - 1 if reading == "sigmoid-bce" else C)
    t_r = (case.numbers(case.P, C) > 0).double()  # one type, several
    t_r[..., 0] = (t_r[..., 1:].sum(-1) == 0).double()  # or NoneRelation
    expected = loop_relation_loss(z_r[case.is_pair].tolist(), t_r[case.is_pair].tolist(), reading)
    same(relation_loss(z_r, t_r, case.is_pair, READINGS[reading]), expected)


def padding_weighs_nothing(loss, z, is_there):
    """Asserts that a loss and its gradient ignore the scores of what is not there."""
    changed = z.masked_fill(~is_there[..., None], 1e30).requires_grad_()
    same(loss(changed), loss(z).item())
    loss(changed).backward()
    assert (changed.grad[~is_there] == 0).all()


@of(span_loss=spanrel.span_loss)
@given(case=cases())
def test_padded_spans_weigh_nothing(case, span_loss):
    z_s = case.numbers(case.S, 3)
    padding_weighs_nothing(lambda z: span_loss(z, case.t_s, case.is_span), z_s, case.is_span)


@of(relation_loss=spanrel.relation_loss)
@every_reading
@given(case=cases())
def test_padded_pairs_weigh_nothing(reading, case, relation_loss):
    z_r, function = case.numbers(case.P, 3 if reading == "sigmoid-bce" else 4), READINGS[reading]
    padding_weighs_nothing(lambda z: relation_loss(z, case.t_r, case.is_pair, function), z_r, case.is_pair)


@of(relation_loss=spanrel.relation_loss)
def test_softmax_bce_is_exact_where_the_softmax_rounds_to_one(relation_loss):
    z_r = torch.tensor([[[17.0, 0.0, 0.0]]], requires_grad=True)  # in float32 the first posterior is 1
    L_r = relation_loss(z_r, batch([0.0, 1.0, 0.0]), batch(True))
    L_r.backward()
    terms = [17 - math.log(2), 17, 0]  # -log(1 - y_0), -log y_1, -log(1 - y_2)
    assert L_r.item() == pytest.approx(mean(terms), rel=1e-3)
    assert torch.allclose(z_r.grad[0, 0], torch.tensor([2 / 3, -0.5, -1 / 6]), atol=1e-3)


# -- §3.4  Model training: negative samples ------------------------------------------------------------------


@of(draw=Sampling.draw)
@given(st.integers(0, 400), st.integers(0, 9), st.integers(1, 40), st.sampled_from([None, 5]))
def test_sampling_draws_as_many_as_the_rate_says_and_none_twice(draw, available, gold, rate, count):
    drawn = draw(Sampling(rate=rate, count=count), list(range(available)), gold, "s", "spans")
    wanted = rate * max(1, gold) if count is None else count
    assert len(drawn) == min(available, wanted)
    assert len(set(drawn)) == len(drawn) and set(drawn) <= set(range(available))


@of(draw=Sampling.draw)
def test_sampling_is_thirtyfold_as_the_paper_says(draw):
    for gold, negatives in ((0, 30), (1, 30), (2, 60), (20, 400)):
        assert len(draw(Sampling(), list(range(400)), gold, "s", "spans")) == negatives


@of(draw=Sampling.draw)
def test_sampling_is_a_function_of_seed_epoch_and_sentence(draw):
    def drawn(seed, epoch, sentence, stream):
        return tuple(draw(Sampling(seed=seed, epoch=epoch), list(range(99)), 1, sentence, stream))

    ways = list(itertools.product((0, 1), (1, 2), ("s", "t"), ("spans", "pairs")))
    assert [drawn(*way) for way in ways] == [drawn(*way) for way in ways]
    assert len({drawn(*way) for way in ways}) == len(ways)


@of(draw=Sampling.draw)
def test_sampling_is_uniform(draw):
    drawn = Counter()
    for epoch in range(3000):  # three of twelve: each 750 times, with a standard deviation of 24
        drawn.update(draw(Sampling(rate=3, epoch=epoch), list(range(12)), 1, "s", "spans"))
    assert drawn.total() == 9000 and all(abs(drawn[k] - 750) < 4.5 * 24 for k in range(12))


def reachable(sentence, width):
    """The gold spans that training can reach, each with its first type."""
    narrow = [e for e in sentence.entities if e.end - e.start <= width]
    return {(e.start, e.end): 1 + TYPES[0].index(e.type) for e in reversed(narrow)}


widths, rates, pools = st.integers(1, 6), st.sampled_from([1, 2, 30]), st.sampled_from(["gold", "both"])
samplings = st.builds(Sampling, max_width=widths, rate=rates, among=pools)


@of(make=data.training_example)
@given(sentence=sentences(), sampling=samplings)
def test_training_spans_are_the_gold_ones_and_others_never_gold_never_twice(sentence, sampling, make):
    example = make(coded(sentence), *TYPES, sampling)
    gold = reachable(sentence, sampling.max_width)
    spans, types = example.spans, example.span_types
    assert dict(zip(spans[: len(gold)], types)) == gold
    assert len(types) == len(spans) == len(set(spans)) and not any(types[len(gold) :])
    assert all(0 <= start < end <= len(sentence.words) for start, end in spans)
    assert all(end - start <= sampling.max_width for start, end in spans)
    available = len(data.enumerate_spans(len(sentence.words), sampling.max_width)) - len(gold)
    assert len(spans) - len(gold) == min(available, sampling.rate * max(1, len(gold)))


@of(make=data.training_example)
@given(sentence=sentences(), sampling=samplings)
def test_training_pairs_are_the_related_ones_and_others_never_related_never_twice(sentence, sampling, make):
    example = make(coded(sentence), *TYPES, sampling)
    gold, related = reachable(sentence, sampling.max_width), {}
    for r in sentence.relations:
        head, tail = (r.head.start, r.head.end), (r.tail.start, r.tail.end)
        if head in gold and tail in gold and head != tail:
            related.setdefault((head, tail), set()).add(1 + TYPES[1].index(r.type))
    pairs, types = [(example.spans[a], example.spans[b]) for a, b in example.pairs], example.pair_types
    assert len(types) == len(pairs) == len(set(pairs))
    assert dict(zip(pairs, types)) == related | dict.fromkeys(pairs[len(related) :], {0})
    assert all(a != b and min(a, b) < len(gold) for a, b in example.pairs)  # at most one argument is wrong
    right = math.perm(len(gold), 2)
    wrong = len(example.spans) - len(gold) if sampling.among == "both" else 0
    assert example.arguments == len(gold) + wrong
    wanted = len(related) + sampling.rate * max(1, len(related))
    assert len(pairs) == min(right + 2 * len(gold) * wrong, wanted)
    assert sum(max(a, b) < len(gold) for a, b in example.pairs) == min(right, len(pairs))


@of(make=data.training_example)
def test_every_pair_is_a_negative_where_there_are_few_a_related_ones_mirror_too(make):
    entities = [Entity("A", k, k + 1) for k in range(3)]
    sentence = Sentence("s", ["w"] * 4, entities, [Relation("S", entities[0], entities[1])])
    example = make(coded(sentence), *TYPES, Sampling())
    negatives = dict.fromkeys([(0, 2), (1, 0), (1, 2), (2, 0), (2, 1)], {0})
    assert dict(zip(example.pairs, example.pair_types)) == {(0, 1): {2}} | negatives


@of(make=data.training_example)
def test_negatives_are_drawn_anew_in_each_epoch_and_each_sentence(make):
    entities = [Entity("A", k, k + 1) for k in range(10)]

    def drawn(id, epoch):
        example = make(coded(Sentence(id, ["w"] * 40, entities)), *TYPES, Sampling(epoch=epoch))
        return tuple(example.spans), tuple(example.pairs)

    spans, pairs = zip(drawn("s", 1), drawn("s", 2), drawn("t", 1))
    assert len(set(spans)) == len(set(pairs)) == 3
    assert drawn("s", 1) == (spans[0], pairs[0])


@given(sentence=sentences(), width=widths)
def test_a_prediction_example_is_every_span(sentence, width):
    encoded, spans = coded(sentence), data.enumerate_spans(len(sentence.words), width)
    assert data.prediction_example(encoded, width) == data.Example(encoded, spans, [0] * len(spans))


# -- The whole model -----------------------------------------------------------------------------------------

SPERT = {**spert.CONFIG, "model": "spert"}
ALL_ABLATIONS = []
for count in range(1, 5):
    ALL_ABLATIONS += itertools.combinations(ABLATIONS, count)
SETTINGS = [dict(attention=name) for name in ATTENTION] + [dict(ablate=parts) for parts in ALL_ABLATIONS]
SETTINGS += [dict(relation_loss="softmax-ce"), dict(relation_loss="sigmoid-bce", threshold=0.6), SPERT]
NAMES = [*ATTENTION, *map("+".join, ALL_ABLATIONS), "softmax-ce", "sigmoid-bce", "spert"]
every_setting = pytest.mark.parametrize("setting", SETTINGS, ids=NAMES)
WIRINGS = [dict(attention=name) for name in ATTENTION] + [dict(ablate=ABLATIONS), SPERT]
wirings = st.sampled_from(WIRINGS)


@every_setting
@given(case=cases())
def test_the_model_agrees_with_the_loops(setting, case):
    model = case.model(**setting)
    z_s, z_r = case.scores(model)
    for b, spans in enumerate(case.spans):
        x = case.sentence(b)
        R_s = [loop_span(model, x, span, width) for span, width in zip(spans, case.widths[b], strict=True)]
        for s in range(len(spans)):
            same(z_s[b, s], apply(model.ffnn_s, R_s[s]))
        for p, (one, other) in enumerate(case.pairs[b]):
            R_r = loop_pair(model, x, spans[one], R_s[one], spans[other], R_s[other])
            same(z_r[b, p], apply(model.ffnn_r, R_r))


@every_setting
@given(case=cases())
def test_prediction_agrees_with_the_loops(setting, case):
    model = case.model(**setting)
    for b, sentence in enumerate(case.predicted(model)):
        same_prediction(sentence, loop_predict(model, case.sentence(b), case.spans[b], case.widths[b]))


@given(case=cases(), setting=wirings, padding=st.sampled_from([0.0, 1e30, math.inf]))
def test_what_the_encoder_says_of_padding_changes_nothing(case, setting, padding):
    usual, changed = case.scores(case.model(math.nan, **setting)), case.scores(case.model(padding, **setting))
    for z, other in zip(usual, changed, strict=True):
        same(other, z)


@given(case=cases(), setting=wirings, rng=st.randoms())
def test_the_order_of_sentences_spans_and_pairs_is_carried_through(case, setting, rng):
    z_s, z_r = case.scores(case.model(**setting))
    b, s, p = [torch.tensor(rng.sample(range(n), n), dtype=torch.long) for n in (len(case.X), case.S, case.P)]
    other = copy.copy(case)
    other.X, other.is_token, other.attention_mask = case.X[b], case.is_token[b], case.attention_mask[b]
    other.padded_spans, other.padded_widths = case.padded_spans[b][:, s], case.padded_widths[b][:, s]
    other.padded_pairs = case.padded_pairs[b][:, p]
    if case.S:
        other.padded_pairs = s.argsort()[other.padded_pairs]  # where each span is now
    other_s, other_r = other.scores(other.model(**setting))
    same(other_s, z_s[b][:, s])
    same(other_r, z_r[b][:, p])


@given(case=cases(), setting=wirings)
def test_a_sentence_alone_and_among_others_is_the_same(case, setting):
    z_s, z_r = case.scores(case.model(**setting))
    for b, n in enumerate(case.lengths):
        one = Case([n], [case.spans[b]], [case.widths[b]], [case.pairs[b]], case.seed)
        one.X = case.X[b : b + 1, : n + 1]
        alone_s, alone_r = one.scores(one.model(**setting))
        same(alone_s[0], z_s[b, : len(case.spans[b])])
        same(alone_r[0], z_r[b, : len(case.pairs[b])])


@given(case=cases(), setting=wirings, chunk=st.sampled_from([1, 100, 1000]))
def test_chunks_of_any_size_predict_the_same(case, setting, chunk):
    whole, parts = case.predicted(case.model(**setting)), case.predicted(case.model(chunk=chunk, **setting))
    for sentence, other in zip(whole, parts, strict=True):
        same_prediction(other, sentence)


@pytest.mark.parametrize("chunk, sizes", [(0, [1, 1, 1]), (84, [1, 1, 1]), (168, [2, 1]), (251, [2, 1])])
def test_a_chunk_holds_at_most_so_many_numbers(chunk, sizes):
    model = CASE.model(chunk=chunk)  # 84 = two sentences · seven wordpieces · six numbers
    model.represent_spans = Mock(wraps=model.represent_spans)
    CASE.predicted(model)
    assert [call.args[2].shape[1] for call in model.represent_spans.call_args_list] == sizes


def test_a_single_chunk_is_not_copied():
    rows = torch.ones(1, 3, 2)
    assert spanrel.in_chunks(lambda chunk: rows, 9, rows) is rows


@every_setting
@pytest.mark.parametrize("part", [1, 2], ids=["L_s", "L_r"])
def test_the_gradient_of_each_loss_is_its_slope(setting, part):
    model = CASE.model(padding=0.0, **setting)
    weights = [model.encoder.X.requires_grad_(), *model.parameters()]
    gradients = torch.autograd.grad(CASE.losses(model)[part], weights, materialize_grads=True)
    torch.manual_seed(0)
    direction = [torch.randn_like(weight) for weight in weights]
    slope = sum((gradient * along).sum().item() for gradient, along in zip(gradients, direction))
    ends = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):  # forth, and back beyond where it began
            for weight, along in zip(weights, direction):
                weight += step * along
            ends.append(CASE.losses(model)[part].item())
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, rel=1e-6)


@every_setting
def test_dropout_is_the_settings_everywhere_and_nothing_else_differs_in_training(setting):
    modules = CASE.model(**setting | {"dropout": 0.3}).modules()
    assert {layer.p for layer in modules if isinstance(layer, nn.Dropout)} == {0.3}
    model = CASE.model(**setting | {"dropout": 0.0})
    for z, in_training in zip(CASE.scores(model), CASE.scores(model.train()), strict=True):
        assert torch.equal(z, in_training)


def test_the_ffnns_of_eq_9_have_three_layers_and_all_others_two():  # [L12]
    depth = {}
    for name, module in CASE.model().named_modules():
        if isinstance(module, FFNN):
            depth[name] = sum(isinstance(layer, nn.Linear) for layer in module)
    assert depth.pop("ffnn_F") == depth.pop("ffnn_T") == 3
    assert set(depth.values()) == {2} and len(depth) == 4 + 2 * 3


@pytest.mark.parametrize("heads, hidden", [(3, 6), (4, 6)])  # neither divides both 4 and 6
def test_heads_divide_both_widths(heads, hidden):
    message = f"^--heads {heads} must divide the encoder's width 4 and --hidden {hidden}$"
    with pytest.raises(ValueError, match=message):
        CASE.model(heads=heads, hidden=hidden)
    CASE.model(heads=heads, hidden=hidden, attention="dot")  # whose score has one head


# -- Shapes and traces ---------------------------------------------------------------------------------------

INDEXES = torch.zeros(2, 5, 3, dtype=torch.long)
FEW_WIDTHS = (CASE.X, CASE.is_token, CASE.padded_spans, CASE.padded_widths[:, 1:])
MISSHAPEN = [  # the message names function, argument, its shape, and what does not fit
    ("1", EQUATIONS["1"], (X, INDEXES[:1]), "span_ends 'spans' i64[1,5,3] B S 2"),
    ("2c", EQUATIONS["2c"], (X, X[:, 1:]), "span_specific 'X' f32[1,3,2] B N D N=2"),
    ("6", EQUATIONS["6"], (X, INDEXES[..., 1:], nn.ReLU()), "relation_tuple 'pairs' i64[2,5,2] B P 2 B=1"),
    ("model", CASE.model().represent_spans, FEW_WIDTHS, "represent_spans 'widths' i64[2,2] B S S=3"),
]


@pytest.mark.parametrize("name, function, arguments, parts", MISSHAPEN, ids=[row[0] for row in MISSHAPEN])
def test_a_wrong_shape_is_named_by_argument_and_dimension(name, function, arguments, parts):
    with pytest.raises(jaxtyping.TypeCheckError) as error:
        function(*arguments)
    assert re.search(".*".join(map(re.escape, parts.split())), str(error.value), re.DOTALL)


def test_shape_checks_can_be_switched_off():
    code = "import spanrel, torch; spans = torch.ones(2, 5, 3, dtype=torch.long); "
    code += "print(spanrel.span_ends(torch.rand(2, 3, 4), spans).shape)"
    environment = {**os.environ, "SPANREL_SHAPES": "off"}
    command, folder = [sys.executable, "-c", code], Path(__file__).parent
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True)
    assert b"[2, 5, 8]" in done.stdout, done.stderr


def test_every_equation_has_one_function_and_tests_of_its_name():
    assert list(EQUATIONS) == ["1", "2a", "2b", "2c", *map(str, range(3, 12))]
    numbered = []
    for name, function in vars(spanrel).items():
        number = re.match(r"Eq\. \((\w+)\)\.  \S", function.__doc__ or "")
        if number and inspect.isfunction(function) and "__mutmut" not in name:
            numbered.append((number[1], function))
    assert numbered == list(EQUATIONS.items())  # the docstrings open with the numbers, in this order
    for number in EQUATIONS:
        assert f"loop_{number}" in globals()
        assert any(name.startswith(f"test_eq_{number}_") for name in globals())
