"""The proof, in the paper's order: equations on numbers worked by hand, properties on random inputs, readers, scores, one run.

    python -m pytest                    all of it
    python -m pytest -m "not slow"      without the training runs
"""

import hashlib
import http.server
import json
import math
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import data
import spanrel
import train
from data import DataError, Entity, Relation, Sentence
from spanrel import ABLATIONS, ATTENTION, EQUATIONS, SPERT, Config, SpanRel

HERE = Path(__file__).parent
REAL = next((path for path in (HERE / "data", HERE.parent / "shared/data") if all((path / name).is_file() for name in data.SOURCES)), None)
needs_corpora = pytest.mark.skipif(REAL is None, reason="put the published corpora in data/: python data.py --dataset ade (conll04)")
small = Config(hidden=8, heads=2, width_dim=3, dropout=0.0)


def tensor(*rows):
    """One sentence: the batch dimension goes in front."""
    return torch.tensor([rows])


def random_sentence(n=7, d=8, seed=0):
    torch.manual_seed(seed)
    return torch.randn(1, n, d), torch.tensor([[True] * (n - 1) + [False]])


# -- §3.1  Spans ----------------------------------------------------------------------------------------------------------

X = tensor([1.0, 0.0], [0.0, 2.0], [3.0, 1.0], [5.0, 5.0])  # four wordpieces, D = 2; number 0 is [CLS]


def test_eq_1_is_the_first_and_the_last_wordpiece():
    H_s = spanrel.span_ends(X, tensor([1, 3], [2, 3]))
    assert H_s.tolist() == [[[0, 2, 3, 1], [3, 1, 3, 1]]]  # a span of one stands twice


def test_eq_2a_scores_each_token_by_one_shared_mlp():
    mlp = nn.Linear(2, 1)
    V = spanrel.token_scores(X, mlp)
    for k in range(4):
        assert torch.equal(V[0, k], mlp(X[0, k])[0])


def test_eq_2b_is_a_softmax_over_the_span_alone():
    inside = tensor([False, True, True, False], [False, False, False, False])
    alpha = spanrel.token_weights(torch.tensor([[9.0, 0.0, math.log(3.0), 9.0]]), inside)
    assert torch.allclose(alpha, tensor([0, 0.25, 0.75, 0], [0.0, 0, 0, 0]))
    assert (alpha[~inside] == 0).all()  # exactly


def test_eq_2c_is_the_weighted_sum():
    F_s = spanrel.span_specific(tensor([0, 0.25, 0.75, 0]), X)
    assert torch.allclose(F_s, tensor([2.25, 1.25]))


class Uniform(nn.Module):
    """An attention that weighs all that is there the same."""

    def forward(self, query, context, mask):
        mask = mask.expand(-1, query.shape[1], -1).float()
        return mask / mask.sum(-1, keepdim=True).clamp(min=1) @ context


def test_eq_3_attends_over_cls_and_the_sentence_but_not_sep():
    T_s = spanrel.span_context(tensor([0.0, 0.0]), X, tensor(True, True, True, False), Uniform())
    assert torch.allclose(T_s, tensor([4 / 3, 1.0]))


def test_eq_4_concatenates_in_the_papers_order():
    R_s = spanrel.span_representation(tensor([1.0]), tensor([2.0]), tensor([3.0, 4.0]), tensor([5.0]))
    assert R_s.tolist() == [[[1, 2, 3, 4, 5]]]


def test_eq_5_gives_the_scores_whose_softmax_is_the_posterior():
    y_s = spanrel.classify_spans(tensor([0.0, math.log(3.0)]), nn.Identity())
    assert torch.allclose(spanrel.span_posterior(y_s), tensor([0.25, 0.75]))


def test_span_filtration_keeps_what_is_not_none_entity():
    y_s = torch.tensor([[[1.0, 0], [0, 1], [0, 1]], [[0, 1.0], [1, 0], [0, 1]]])
    E, is_entity = spanrel.filter_spans(y_s, torch.tensor([[True, True, True], [True, True, False]]))
    assert is_entity.tolist() == [[True, True], [True, False]]
    assert E[is_entity].tolist() == [1, 2, 0]


# -- §3.2  Relations ------------------------------------------------------------------------------------------------------


def test_relation_tuples_are_all_ordered_pairs_of_two():
    pairs, is_pair = spanrel.all_pairs(torch.tensor([[True, True, True], [True, True, False]]))
    assert pairs[0][is_pair[0]].tolist() == [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
    assert pairs[1][is_pair[1]].tolist() == [[0, 1], [1, 0]]


def test_eq_6_reduces_both_arguments_by_one_ffnn_head_first():
    H_r = spanrel.relation_tuple(tensor([1.0], [2.0], [3.0]), tensor([2, 0], [0, 2]), nn.Identity())
    assert H_r.tolist() == [[[3, 1], [1, 3]]]


def test_eq_7_attends_over_the_words_between_and_is_zero_where_there_are_none():
    spans, pairs = tensor([1, 2], [3, 4], [2, 3], [1, 3]), tensor([0, 1], [1, 0], [0, 2], [0, 3])
    between = spanrel.mask_between(spans, pairs, 4)
    assert between[0].sum(-1).tolist() == [1, 1, 0, 0]  # a gap, seen from both sides; adjacent; nested
    F_r = spanrel.local_context(torch.zeros(1, 4, 3), X, between, Uniform())
    assert F_r.tolist() == [[[3, 1], [3, 1], [0, 0], [0, 0]]]


def test_eq_8_attends_over_the_sentence():
    T_r = spanrel.sentence_context(torch.zeros(1, 1, 3), X, tensor(True, True, True, False), Uniform())
    assert torch.allclose(T_r, tensor([4 / 3, 1.0]))


def test_eq_9_reduces_the_contexts_by_two_ffnns():
    double, negate = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    double.weight.data, negate.weight.data = torch.tensor([[2.0]]), torch.tensor([[-1.0]])
    R_r = spanrel.relation_representation(tensor([1.0]), tensor([3.0]), tensor([4.0]), double, negate)
    assert R_r.tolist() == [[[1, 6, -4]]]


def test_eq_10_gives_the_scores_whose_softmax_is_the_posterior():
    y_r = spanrel.classify_relations(tensor([0.0, math.log(3.0)]), nn.Identity())
    for reading in ("softmax-bce", "softmax-ce"):
        assert torch.allclose(spanrel.relation_posterior(y_r, reading), tensor([0.25, 0.75]))
    assert torch.allclose(spanrel.relation_posterior(y_r, "sigmoid-bce"), tensor([0, 0.5, 0.75]))  # no NoneRelation


def test_relation_filtration_in_its_three_readings():
    posterior, there = tensor([0.5, 0.3, 0.2], [0.1, 0.4, 0.5], [0.1, 0.4, 0.5]), tensor(True, True, False)
    highest = spanrel.filter_relations(posterior, there, "softmax-ce", 0.4)
    assert highest.nonzero().tolist() == [[0, 1, 2]]
    several = spanrel.filter_relations(posterior, there, "sigmoid-bce", 0.35)
    assert several.nonzero().tolist() == [[0, 1, 1], [0, 1, 2]]


# -- §3.3  Attention ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("project", [False, True])
def test_attention_weighs_what_is_there_and_only_that(name, project):
    torch.manual_seed(0)
    attention = ATTENTION[name](6, 8, Config(hidden=4, heads=2, project=project, dropout=0.0))
    query, context, mask = torch.randn(2, 3, 6), torch.randn(2, 5, 8), torch.rand(2, 3, 5) > 0.4
    mask[:, 0], mask[:, 1] = False, True
    weights = attention.weights(query, context, mask)
    heads = weights.shape[1]
    assert (weights >= 0).all() and (weights[~mask[:, None].expand(-1, heads, -1, -1)] == 0).all()
    assert torch.allclose(weights.sum(-1), mask.any(-1)[:, None].expand(-1, heads, -1).float())
    result = attention(query, context, mask)
    assert result.shape == (2, 3, 8)
    assert torch.equal(result[:, 0], torch.zeros(2, 8))  # an empty context
    context.masked_fill_(~mask[:, 2, :, None], 1e30)  # what is masked does not matter, whatever it is
    assert torch.allclose(attention(query, context, mask)[:, 2], result[:, 2])


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_over_nothing_has_finite_gradients(name):
    attention = ATTENTION[name](6, 8, small)
    attention(torch.randn(1, 2, 6), torch.randn(1, 5, 8), torch.zeros(1, 2, 5, dtype=torch.bool)).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in attention.parameters())


def test_multihead_score_is_the_scaled_dot_product_of_each_head():
    attention = ATTENTION["multihead"](4, 4, Config(hidden=4, heads=2))
    attention.ffnn_Q = attention.ffnn_K = nn.Identity()
    score = attention.score(tensor([1.0, 2.0, 3.0, 4.0]), tensor([1.0, 1.0, 0.0, 2.0]))
    assert torch.allclose(score.flatten(), torch.tensor([3.0, 8.0]) / math.sqrt(2))


def test_dot_general_and_additive_scores_by_hand():
    query, context, config = tensor([1.0, 2.0]), tensor([3.0, 4.0]), Config(hidden=2)
    dot, general, additive = (ATTENTION[name](2, 2, config) for name in ("dot", "general", "additive"))
    dot.ffnn_Q = dot.ffnn_K = nn.Identity()
    dot.W.weight.data = torch.tensor([[10.0, 1.0]])
    assert dot.score(query, context).item() == 10 * 3 + 1 * 8
    general.W.weight.data = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert general.score(query, context).item() == 3 + 16
    for layer in (additive.W_1, additive.W_2):
        layer.weight.data = torch.eye(2)
    additive.W_1.bias.data.zero_()
    additive.v.weight.data = torch.tensor([[1.0, -1.0]])
    assert additive.score(query, context).item() == pytest.approx(math.tanh(4) - math.tanh(6), abs=1e-6)


def test_additive_attention_as_printed_ignores_its_query_and_ours_does_not():
    torch.manual_seed(0)
    context, mask = torch.randn(1, 5, 4), torch.ones(1, 1, 5, dtype=torch.bool)
    W_1, W_2 = torch.randn(4), torch.randn(4)
    printed = lambda query: ((query @ W_1)[:, :, None] + (context @ W_2)[:, None]).softmax(-1)  # noqa: E731
    one, other = torch.randn(1, 1, 4), torch.randn(1, 1, 4)
    assert torch.allclose(printed(one), printed(other))  # [L7]
    ours = ATTENTION["additive"](4, 4, Config(hidden=8))
    assert not torch.allclose(ours.weights(one, context, mask), ours.weights(other, context, mask))


# -- §3.4  Loss -----------------------------------------------------------------------------------------------------------


def test_eq_11_weighs_the_parts_by_four_and_six_tenths():
    L_s, L_r = torch.tensor(1.0, dtype=torch.float64), torch.tensor(10.0, dtype=torch.float64)
    assert spanrel.joint_loss(L_s, L_r).item() == 0.4 + 6.0
    assert spanrel.joint_loss(L_s, L_r, 1.0, 1.0).item() == 11.0


def test_span_loss_is_the_mean_over_the_samples_that_are_there():
    y_s = tensor([0.0, math.log(3.0)], [0.0, 0.0], [100.0, -100.0])
    loss = spanrel.span_loss(y_s, tensor(1, 0, 1), tensor(True, True, False))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert spanrel.span_loss(y_s, tensor(1, 0, 1), tensor(False, False, False)).item() == 0.0


def test_relation_loss_in_its_three_readings():
    y_r, there = tensor([0.0, math.log(3.0)], [50.0, -50.0]), tensor(True, False)
    loss = lambda y, t, reading: spanrel.relation_loss(y, t, there, reading).item()  # noqa: E731
    holds = tensor([0.0, 1.0], [0.0, 1.0])
    assert loss(y_r, holds, "softmax-ce") == pytest.approx(-math.log(0.75))
    assert loss(y_r, holds, "softmax-bce") == pytest.approx(-math.log(0.75))  # with two classes the two coincide
    three, none = tensor([0.0, 0.0, math.log(2.0)], [0.0, 0.0, 0.0]), tensor([1.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    assert loss(three, none, "softmax-bce") == pytest.approx(-(math.log(1 / 4) + math.log(3 / 4) + math.log(1 / 2)) / 3)
    sure = torch.tensor([[[17.0, 0.0, 0.0], [0.0, 0.0, 0.0]]], requires_grad=True)  # where float32's softmax rounds to 1
    wrong = spanrel.relation_loss(sure, tensor([0.0, 1.0, 0.0], [0.0, 0.0, 0.0]), there, "softmax-bce")
    wrong.backward()
    assert wrong.item() == pytest.approx((17 + 17 - math.log(2) + 4e-8) / 3, rel=1e-3)
    assert torch.allclose(sure.grad[0, 0], torch.tensor([2 / 3, -0.5, -1 / 6]), atol=1e-3)
    assert loss(y_r, none, "sigmoid-bce") == pytest.approx(-(math.log(1 / 2) + math.log(1 / 4)) / 2)


# -- The whole model ------------------------------------------------------------------------------------------------------


def attend(attention, query, context, there):
    """One query over a list of vectors, with loops; `there` are the indexes of those it may see."""
    heads, D = attention.heads, len(context[0])
    parts = []
    for h in range(heads):
        score = []
        for k in there:
            key = context[k]
            if isinstance(attention, spanrel.MultiHead):
                Q, K = attention.ffnn_Q(query).chunk(heads)[h], attention.ffnn_K(key).chunk(heads)[h]
                score.append(sum(q * k for q, k in zip(Q, K)) / math.sqrt(len(Q)))
            elif isinstance(attention, spanrel.DotProduct):
                products = zip(attention.W.weight[0], attention.ffnn_Q(query), attention.ffnn_K(key))
                score.append(sum(w * q * k for w, q, k in products))
            elif isinstance(attention, spanrel.General):
                score.append(key @ attention.W.weight @ query)
            else:
                score.append(attention.v.weight[0] @ torch.tanh(attention.W_1(query) + attention.W_2(key)))
        total = sum(math.exp(s) for s in score)
        part = slice(h * D // heads, (h + 1) * D // heads)
        parts.append(sum((math.exp(s) / total * context[k][part] for s, k in zip(score, there)), torch.zeros(D // heads).double()))
    return torch.cat(parts)


def oracle(model, X, tokens, spans, widths, pairs):
    """y_s and y_r of one sentence, straight from the paper: one span, one pair at a time, ablations included."""
    R, y_s, y_r, off = [], [], [], model.config.ablate
    pooled = lambda rows: torch.stack(rows).amax(0) if rows else torch.zeros(len(X[0])).double()  # noqa: E731
    for (start, end), width in zip(spans, widths):
        F_s = torch.zeros(0).double()
        if hasattr(model, "mlp"):
            V = [math.exp(model.mlp(X[k])) for k in range(start, end)]
            F_s = sum(v / sum(V) * X[k] for v, k in zip(V, range(start, end)))
        T_s = X[0] if "span-sentence" in off else attend(model.attention_s, F_s, X, range(tokens))
        H_s = torch.cat([X[start], X[end - 1]])
        middle = [pooled([X[k] for k in range(start, end)])] if "span-specific" in off else [F_s, H_s]
        R.append(torch.cat([T_s, *middle, model.width.weight[width - 1]]))
        y_s.append(model.ffnn_s(R[-1]))
    for a, b in pairs:
        H_r = torch.cat([model.ffnn_pair(R[a]), model.ffnn_pair(R[b])])
        left, right = sorted([spans[a], spans[b]])
        between = range(min(left[1], right[1]), right[0])
        F_r = pooled([X[k] for k in between]) if "local" in off else attend(model.attention_c, H_r, X, between)
        T_r = [] if "relation-sentence" in off else [model.ffnn_T(attend(model.attention_S, H_r, X, range(tokens)))]
        y_r.append(model.ffnn_r(torch.cat([H_r, model.ffnn_F(F_r), *T_r])))
    return torch.stack(y_s), torch.stack(y_r)


WIRINGS = [dict(attention=name) for name in ATTENTION]
WIRINGS += [dict(ablate=tuple(a for k, a in enumerate(ABLATIONS) if bits >> k & 1)) for bits in range(1, 16)]


@pytest.mark.parametrize("shape", WIRINGS, ids=lambda s: "+".join(s.get("ablate", ())) or s["attention"])
def test_the_model_agrees_with_loops_over_one_span_and_one_pair(shape):
    torch.manual_seed(1)
    encoder = nn.Module()
    encoder.config = nn.Module()
    encoder.config.hidden_size = 8
    model = SpanRel(Config(hidden=8, heads=2, width_dim=3, **shape), encoder, 3, 4).double().eval()
    X = torch.randn(1, 9, 8).double()
    is_token = torch.tensor([[True] * 7 + [False] * 2])  # then [SEP] and padding
    X = X.masked_fill(~is_token[..., None], 0.0)
    spans, widths = [(1, 3), (5, 7), (2, 6), (3, 4)], [2, 1, 4, 1]
    pairs = [(0, 1), (1, 0), (0, 2), (0, 3), (3, 2), (1, 3)]  # a gap from both sides, an overlap, a touch, one in another, a gap
    R_s = model.represent_spans(X, is_token, torch.tensor([spans]), torch.tensor([widths]))
    y_s = spanrel.classify_spans(R_s, model.ffnn_s)
    y_r = model.score_pairs(X, is_token, torch.tensor([spans]), R_s, torch.tensor([pairs]))
    with torch.no_grad():
        expected_s, expected_r = oracle(model, X[0], 7, spans, widths, pairs)
    assert torch.allclose(y_s[0], expected_s, atol=1e-10, rtol=0) and torch.allclose(y_r[0], expected_r, atol=1e-10, rtol=0)


SETTINGS = [dict(attention=name) for name in ATTENTION]
SETTINGS += [dict(ablate=tuple(a for k, a in enumerate(ABLATIONS) if bits >> k & 1)) for bits in range(1, 16)]
SETTINGS += [dict(relation_loss=reading) for reading in ("softmax-ce", "sigmoid-bce")] + [dict(project=True), SPERT]


MINILM = HERE.parent / "shared/encoder/minilm-l6"


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


def toy_run(epochs=1, **shape):
    chosen = dict(hidden=16, heads=2) | shape
    return train.new_run(train.settings_of(dataset="toy", epochs=epochs, **chosen), data.toy(sizes=(40, 10, 10)))


def eager(**shape):
    """A model that calls much an entity and most pairs related, so that its predictions are not empty."""
    run = toy_run(**shape)
    for ffnn in (run.model.ffnn_s, run.model.ffnn_r):
        ffnn[-1].bias.data[0] = -0.2
    return run


def some_batch(run, k=6):
    return run.training_batch(run.encode(data.toy(sizes=(40, 10, 10)).train[:k]), data.Sampling())


@pytest.mark.parametrize("shape", SETTINGS, ids=lambda s: "+".join(s.get("ablate", ())) or "-".join(map(str, s.values()))[:16])
def test_gradients_reach_every_parameter_of_every_setting(shape):
    run = toy_run(**shape)
    loss, L_s, L_r = train.train_step(run, some_batch(run))
    assert L_s > 0 and L_r > 0
    loss.backward()
    unused = {n for n, p in run.model.named_parameters() if p.grad is None or not p.grad.any()}
    # a bias that is the same for all keys of a softmax changes nothing, so its gradient is only rounding, or zero
    assert all(n.endswith(("mlp.3.bias", "ffnn_K.3.bias", "key.bias")) for n in unused), unused


def test_chunks_of_any_size_predict_the_same():
    run = eager()
    encoded = run.encode(data.toy(sizes=(40, 10, 10)).test[:2])
    whole = run.annotate(encoded)
    assert all(sentence.relations for sentence in whole)
    for run.model.config.chunk in (1, 10**5):  # a span, a pair at a time; some
        for a, b in zip(whole, run.annotate(encoded)):
            assert a.entities == b.entities and a.relations == b.relations


def test_a_sentence_alone_and_among_others_is_predicted_the_same():
    run = eager()
    encoded = run.encode(data.toy(sizes=(40, 10, 10)).test)
    together = run.annotate(encoded)
    for coded, expected in zip(encoded, together):
        (alone,) = run.annotate([coded])
        assert alone.entities == expected.entities and alone.relations == expected.relations
        assert [e.score for e in alone.entities] == pytest.approx([e.score for e in expected.entities], abs=1e-5)


def test_padding_changes_nothing():
    run = toy_run()
    run.model.eval()
    batch, examples = some_batch(run), some_batch(run).examples
    inputs = lambda b: (b.input_ids, b.attention_mask, b.is_token, b.spans, b.widths, b.pairs, b.arguments)  # noqa: E731
    y_s, y_r = run.model(*inputs(batch))
    for k, example in enumerate(examples):
        one_s, one_r = run.model(*inputs(run.batch([example])))
        assert torch.allclose(y_s[k, : len(example.spans)], one_s[0], atol=1e-5)
        assert torch.allclose(y_r[k, : len(example.pairs)], one_r[0], atol=1e-5)


def test_spert_is_two_linear_layers_over_max_pooling():
    run = toy_run(**SPERT)
    run.model.eval()
    X, is_token = random_sentence(d=64)
    R_s = run.model.represent_spans(X, is_token, tensor([1, 3], [4, 5]), tensor(2, 1))
    W = run.model.width.weight
    assert torch.equal(R_s[0, 0], torch.cat([X[0, 0], torch.maximum(X[0, 1], X[0, 2]), W[1]]))
    y_r = run.model.score_pairs(X, is_token, tensor([1, 3], [4, 5]), R_s, tensor([1, 0]))
    pair = torch.cat([X[0, 3], X[0, 4], W[0], torch.maximum(X[0, 1], X[0, 2]), W[1]])
    assert torch.allclose(y_r[0, 0], run.model.ffnn_r(pair), atol=1e-6)


def test_ablations_replace_what_the_paper_says():
    X, is_token = random_sentence(d=64)
    spans, widths, pairs = tensor([1, 3], [5, 6]), tensor(2, 1), tensor([0, 1])
    parts = lambda *ablate: toy_run(ablate=ablate).model.eval().represent_spans(X, is_token, spans, widths)[0, 0]  # noqa: E731
    pooled = torch.maximum(X[0, 1], X[0, 2])
    full, specific, sentence, both = parts(), parts("span-specific"), parts("span-sentence"), parts("span-specific", "span-sentence")
    assert torch.equal(full[128:256], torch.cat([X[0, 1], X[0, 2]]))  # H_s stands behind T_s and F_s
    assert torch.equal(specific[64:128], pooled) and len(specific) == 2 * 64 + 50  # instead of [F_s; H_s]
    assert torch.equal(sentence[:64], X[0, 0]) and len(sentence) == len(full)  # instead of T_s
    assert torch.equal(both[:128], torch.cat([X[0, 0], pooled]))
    model = toy_run(ablate=("local", "relation-sentence")).model
    assert not hasattr(model, "attention_c") and not hasattr(model, "attention_S") and not hasattr(model, "ffnn_T")
    assert model.ffnn_r[0].in_features == 3 * 16
    assert model.score_pairs(X, is_token, spans, model.represent_spans(X, is_token, spans, widths), pairs).shape == (1, 1, 2)


# -- Shapes and traces ----------------------------------------------------------------------------------------------------


def test_a_wrong_shape_is_named():
    with pytest.raises(jaxtyping.TypeCheckError, match=r"(?s)span_specific.*parameter 'X'.*B N D.*N=4"):
        spanrel.span_specific(torch.rand(2, 3, 4), torch.rand(2, 5, 6))
    with pytest.raises(jaxtyping.TypeCheckError, match=r"(?s)span_ends.*parameter 'spans'"):
        spanrel.span_ends(torch.rand(2, 3, 4), torch.rand(2, 3, 2))


def test_shape_checks_can_be_switched_off():
    code = "import spanrel, torch; print(spanrel.span_specific(torch.rand(2, 3, 4), torch.rand(1, 4, 6)).shape)"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, env={**os.environ, "SPANREL_SHAPES": "off"}, capture_output=True)
    assert b"[2, 3, 6]" in done.stdout, done.stderr


def test_every_equation_has_its_function_its_docstring_and_its_test():
    assert list(EQUATIONS) == ["1", "2a", "2b", "2c", *map(str, range(3, 12))]
    tests = {name for name in globals() if name.startswith("test_eq_")}
    for number, function in EQUATIONS.items():
        assert function.__doc__.startswith(f"Eq. ({number}).")
        assert any(name.startswith(f"test_eq_{number}_") for name in tests)
    source = (HERE / "spanrel.py").read_text(encoding="utf-8")
    assert re.findall(r'"""Eq\. \((\w+)\)\.', source) == list(EQUATIONS)


def test_every_ledger_number_in_the_code_has_its_row():
    code = "".join((HERE / name).read_text(encoding="utf-8") for name in ("spanrel.py", "data.py", "train.py"))
    rows = set(re.findall(r"^\| (L\d+) \|", (HERE / "README.md").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"\[(L\d+)\]", code)) <= rows
    assert rows >= {f"L{k}" for k in range(1, 32)}


def test_ci_runs_the_two_commands_of_the_readme():
    commands = re.search(r"```sh\n(.+?)\n(.+?)\n```", (HERE / "README.md").read_text(encoding="utf-8")).groups()
    script = (HERE / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert [line for line in script if line in commands] == list(commands)


# -- Spans and negatives --------------------------------------------------------------------------------------------------


@given(st.integers(0, 40), st.integers(1, 12))
def test_enumeration_is_complete_and_repeats_nothing(n, width):
    spans = data.enumerate_spans(n, width)
    assert len(spans) == len(set(spans)) == sum(max(0, n - w + 1) for w in range(1, width + 1))
    assert all(0 <= i < j <= n and j - i <= width for i, j in spans)


@st.composite
def sentences(drawn, most=12):
    """A sentence with overlapping, nested and adjacent entities, some wider than the threshold."""
    words = drawn(st.lists(st.text("abcß-é😀", min_size=1, max_size=4), min_size=1, max_size=most))
    spans = st.tuples(st.integers(0, len(words) - 1), st.integers(1, len(words))).filter(lambda s: s[0] < s[1])
    found = drawn(st.lists(st.builds(lambda k, s: Entity(k, *s), st.sampled_from(["A", "B"]), spans), max_size=5, unique=True))
    pairs = [(a, b) for a in found for b in found if a != b]
    related = drawn(st.lists(st.builds(lambda k, p: Relation(k, *p), st.sampled_from(["R", "S"]), st.sampled_from(pairs)),
                             max_size=4, unique=True)) if pairs else []
    return Sentence("s", words, found, related)


TYPES = ["A", "B"], ["R", "S"]


@given(sentences(), st.integers(0, 5), st.integers(0, 3), st.integers(1, 6), st.integers(1, 4))
def test_negatives_are_never_gold_never_twice_and_as_many_as_the_rate_says(sentence, seed, epoch, width, rate):
    n = len(sentence.words)
    coded = data.Encoded(sentence, [0] * (n + 2), [True] * (n + 1) + [False], list(range(1, n + 1)), list(range(2, n + 2)))
    sampling = data.Sampling(width, rate, seed=seed, epoch=epoch)
    example = data.training_example(coded, *TYPES, sampling)
    gold = {(e.start, e.end) for e in sentence.entities if e.end - e.start <= width}
    assert set(example.spans[: len(gold)]) == gold and all(example.span_types[: len(gold)])
    negative = example.spans[len(gold) :]
    assert len(set(example.spans)) == len(example.spans) and not any(example.span_types[len(gold) :])
    available = len(data.enumerate_spans(n, width)) - len(gold)
    assert len(negative) == min(available, rate * max(1, len(gold)))
    related = [k for k, kinds in enumerate(example.pair_types) if kinds != {0}]
    assert len(set(example.pairs)) == len(example.pairs) and all(a != b and max(a, b) < len(gold) for a, b in example.pairs)
    assert len(example.pairs) - len(related) == min(len(gold) * (len(gold) - 1) - len(related), rate * max(1, len(related)))
    assert data.training_example(coded, *TYPES, sampling) == example


def test_negatives_are_drawn_anew_each_epoch_and_a_fixed_number_where_asked():
    coded = data.Encoded(Sentence("s", ["w"] * 30), [0] * 32, [True] * 32, list(range(1, 31)), list(range(2, 32)))
    one, two = (data.training_example(coded, *TYPES, data.Sampling(epoch=k)).spans for k in (1, 2))
    assert len(one) == 30 and one != two
    assert len(data.training_example(coded, *TYPES, data.Sampling(count=100)).spans) == 100


def test_pairs_among_all_sampled_spans_where_asked():
    sentence = Sentence("s", ["w"] * 9, [Entity("A", 0, 1), Entity("B", 3, 4)])
    coded = data.Encoded(sentence, [0] * 11, [True] * 11, list(range(1, 10)), list(range(2, 11)))
    example = data.training_example(coded, *TYPES, data.Sampling(rate=5, among="sampled"))
    assert len(example.spans) == 12 and len(example.pairs) == 5 and example.arguments == 12
    assert {0, 1} != {k for pair in example.pairs for k in pair}


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
    with pytest.raises(DataError, match=r"mine, train, s7: 12 wordpieces, and the encoder takes 10.*a a a"):
        data.encode([Sentence("s7", ["a"] * 10)], tokenizer, 10, "mine, train, ")


def test_spans_of_words_become_spans_of_wordpieces():
    coded = data.Encoded(Sentence("s", ["a", "bcd", "e"]), [0] * 7, [True] * 6 + [False], [1, 2, 5], [2, 5, 6])
    batch = data.make_batch([data.prediction_example(coded, 2)], 2)
    assert batch.spans[0].tolist() == [[1, 2], [1, 5], [2, 5], [2, 6], [5, 6]]
    assert batch.widths[0].tolist() == [1, 2, 1, 2, 1] and batch.pairs.shape == (1, 0, 2) and batch.t_r.shape == (1, 0, 2)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 9), st.booleans())
def test_batches_hold_every_sentence_once(lengths, size, shuffled):
    coded = [data.Encoded(Sentence(str(k), ["w"]), [0] * n, [], [], []) for k, n in enumerate(lengths)]
    batches = data.batches_of(coded, size, random.Random(0) if shuffled else None)
    assert sorted(c.sentence.id for part in batches for c in part) == sorted(c.sentence.id for c in coded)
    assert all(1 <= len(part) <= size for part in batches)


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
    assert second.entities[0].head == (2, 3) and second.relations == [Relation("PHYS", *second.entities)]
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


@given(st.lists(sentences(), min_size=1, max_size=4))
@settings(max_examples=50)
def test_what_is_written_in_sperts_json_is_read_back(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("json") / "train.json"
    path.write_text(json.dumps([s.to_json() for s in written]), encoding="utf-8")
    assert data.read_json(path) == written


RECORD = {"tokens": ["a", "b"], "entities": [{"type": "A", "start": 0, "end": 1}, {"type": "A", "start": 1, "end": 2}],
          "relations": [{"type": "R", "head": 0, "tail": 1}]}  # fmt: skip
WRONG = [
    ({"tokens": []}, "must be strings"), ({"tokens": "ab"}, "must be strings"), ({"tokens": ["a", ""]}, "must be strings"),
    ({"tokens": None}, "must be strings"), ({"tokens": ["a", "\ud800"]}, "surrogates not allowed"),
    ({"entities": [{"type": "A", "start": 0, "end": 3}], "relations": []}, "that has 2"),
    ({"entities": [{"type": "A", "start": 1, "end": 1}], "relations": []}, "that has 2"),
    ({"entities": [{"type": "A", "start": -1, "end": 1}], "relations": []}, "that has 2"),
    ({"entities": [{"type": "A", "start": 0.0, "end": 1}], "relations": []}, "that has 2"),
    ({"entities": [{"type": "", "start": 0, "end": 1}], "relations": []}, "must be a name"),
    ({"entities": [{"start": 0, "end": 1}]}, "KeyError 'type'"), ({"entities": {}}, "two of its 0 entities"), ({"entities": [3]}, "it must be"),
    ({"relations": [{"type": "R", "head": 0, "tail": 2}]}, "two of its 2 entities"),
    ({"relations": [{"type": "R", "head": True, "tail": 1}]}, "two of its 2 entities"),
    ({"relations": [{"type": "R", "head": 1, "tail": 1}]}, "joins an entity with itself"),
    ({"relations": [{"type": None, "head": 0, "tail": 1}]}, "must be a name"), ({"relations": None}, "it must be"),
]  # fmt: skip


@pytest.mark.parametrize("change, says", WRONG, ids=range(len(WRONG)))
def test_a_wrong_record_is_named_and_all_of_them_are(tmp_path, change, says):
    path = tmp_path / "train.json"
    path.write_text(json.dumps([RECORD | change, RECORD, RECORD | change]))
    with pytest.raises(DataError) as error:
        data.read_json(path)
    first, second = str(error.value).splitlines()
    assert first.startswith(f"{path}, record 0: ") and second.startswith(f"{path}, record 2: ") and says in first


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


def test_raw_text_keeps_its_offsets():
    text = "Gemcitabine-induced pulmonary toxicity, 😀 é!"
    sentence = Sentence.from_text(text)
    assert [text[a:b] for a, b in sentence.offsets] == sentence.words
    assert sentence.words[:4] == ["Gemcitabine", "-", "induced", "pulmonary"] and "😀" in sentence.words
    assert text[slice(*sentence.chars(Entity("Adverse-Effect", 3, 5)))] == "pulmonary toxicity"


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


def cli(*arguments, **env):
    return subprocess.run([sys.executable, "train.py", *map(str, arguments)], cwd=HERE, env={**os.environ, **env}, text=True, capture_output=True)


def test_no_network_for_the_encoder_is_one_line_within_seconds(tmp_path):
    begun = time.time()
    done = cli("--encoder", "bert-base-cased", "--output", tmp_path / "run", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and time.time() - begun < 15 + 10  # starting Python included
    assert "--encoder bert-base-cased is not here" in done.stderr and "python train.py" in done.stderr


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


@given(st.lists(sentences(), max_size=4))
def test_perfect_and_empty_predictions(gold):
    perfect, none = train.scores(gold, gold), train.scores(gold, [Sentence("s", s.words) for s in gold])
    for table in (perfect["entity"], *perfect["relation"].values()):
        assert table["micro"]["f1"] == (100 if table["micro"]["gold"] else 0) and table["micro"]["correct"] == table["micro"]["gold"]
    assert none["entity"]["micro"]["f1"] == none["relation"]["strict"]["micro"]["f1"] == none["entity"]["macro"]["f1"] == 0


# -- Runs -----------------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_and_numbers(tmp_path):
    runs = [train.train(train.settings_of(epochs=1, seed=seed, device="cpu", output=str(tmp_path / name))) for seed, name in ((3, "a"), (3, "b"), (4, "c"))]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    assert runs[0]["entity"] == runs[1]["entity"] and runs[0]["relation"] == runs[1]["relation"]


def test_the_best_epoch_on_dev_is_kept(tmp_path, monkeypatch):
    curve, weights = iter([30, 80, 60, 99]), []  # the last is test's

    def measured(run, encoded):
        weights.append(run.model.ffnn_s[0].weight.clone())
        score = {"f1": next(curve)}
        return {"entity": {"micro": score, "macro": {"f1": 0}}, "relation": {"strict": {"micro": score, "macro": {"f1": 0}}}}, []

    monkeypatch.setattr(train, "measure", measured)
    monkeypatch.setattr(train, "final_table", lambda *_: "")
    result = train.train(train.settings_of(epochs=3, output=str(tmp_path / "run")))
    assert result["best_epoch"] == 2 and torch.equal(weights[3], weights[1]) and not torch.equal(weights[3], weights[2])


def test_ade_is_reported_by_macro_average_and_the_others_by_micro():
    table = {"micro": {"f1": 1}, "macro": {"f1": 2}}
    assert [train.average(train.Settings(dataset=name), table) for name in ("ade", "conll04", "ace05", "toy")] == [2, 1, 1, 1]


def test_optimizer_has_two_rates_no_decay_for_biases_and_a_linear_schedule():
    run = toy_run(lr=1e-3, head_lr=5e-3, warmup=0.25)
    optimizer, schedule = train.optimizer_of(run, 8)
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


def test_spert_has_one_learning_rate():
    assert [train.settings_of(dataset="ade", model="spert", **given).head_lr for given in ({}, {"lr": 1e-4}, {"head_lr": 1.0})] == [5e-5, 1e-4, 1.0]


def read_back(command):
    """The settings that a recorded command line makes."""
    words = shlex.split(command)
    assert words[:2] == ["python", "train.py"]
    flags = vars(train.parser_of().parse_args(words[2:]))
    return train.settings_of(**{name: tuple(v) if isinstance(v, list) else v for name, v in flags.items() if v})


def test_the_recorded_command_makes_the_same_run():
    for flags in (
        {}, {"dataset": "ade", "fold": 3}, {"model": "spert"}, {"dataset": "conll04", "model": "spert", "lr": 1e-4}, {"encoder": "my encoder"},
        {"ablate": ("local", "span-specific"), "project": True, "attention": "dot", "seed": 4, "hidden": 96, "head_lr": 1e-4},
    ):  # fmt: skip
        settings = train.settings_of(**flags)
        assert read_back(train.command_of(settings)) == settings


def test_every_command_in_results_json_is_one_of_today():
    for run in json.loads((HERE / "results.json").read_text(encoding="utf-8")):
        settings = read_back(run["command"])
        assert train.command_of(settings) == run["command"] and settings.seed == run["seed"]
        assert run["split"] == f"{settings.dataset}, {settings.eval_split}" and run["seconds"] > 0 and run["hardware"]


def test_dev_is_scored_where_settings_are_chosen_and_not_once_trained_on(tmp_path):
    result = train.train(train.settings_of(epochs=1, eval_split="dev", output=str(tmp_path / "run")))
    assert result["entity"]["micro"]["gold"] == sum(len(s.entities) for s in data.toy().dev)
    with pytest.raises(DataError, match="--eval-split dev and --train-on-dev"):
        train.settings_of(eval_split="dev", train_on_dev=True)


def test_benchmark_times_the_model_and_its_encoder(capsys):
    assert train.main(["--benchmark", "--encoder", "tiny-1"]) == 0
    lines = dict(re.match(r"(.*?) +([\d.]+)", line).groups() for line in capsys.readouterr().out.splitlines())
    assert list(lines)[1:3] == ["training step", "encoder alone"] and all(float(value) > 0 for value in lines.values())
    assert float(lines["training step / encoder alone"]) > 1


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
    with pytest.raises(DataError, match="--encoder .*decoder"):
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
