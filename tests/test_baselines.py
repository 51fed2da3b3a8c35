"""What only the baselines have, and every setting in training. The proof has their loops."""

import itertools
import math
from unittest.mock import Mock

import pytest
import torch
from helpers import some_batch, toy_run
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import train
from baselines.readings import READINGS
from baselines.spert import masked_max
from test_spanrel import (
    ALL_ABLATIONS,
    CASE,
    SPERT,
    D,
    batch,
    cases,
    every_setting,
    loop_max,
    loop_relation_loss,
    loop_span_loss,
    same,
)

# -- Max pooling ---------------------------------------------------------------------------------------------


@given(case=cases())
def test_max_pooling_agrees_with_the_loop_and_its_gradient_goes_to_the_largest_alone(case):
    for mask in (case.inside, case.between):
        X = case.X.masked_fill(~case.is_token[..., None], math.nan).requires_grad_()
        pooled = masked_max(X, mask)
        pooled.sum().backward()
        gradient = torch.zeros_like(X)
        for b, k in itertools.product(range(len(mask)), range(mask.shape[1])):
            places = mask[b, k].nonzero().flatten()
            rows = case.X[b, places]
            same(pooled[b, k], loop_max(rows.tolist()))
            if len(places):
                gradient[b, places[rows.argmax(0)], range(D)] += 1
        same(X.grad, gradient)


# -- The relation loss, and its other readings ---------------------------------------------------------------


def softmax_bce_of_all_types(z_r, t_r):
    """The literal loss of one pair with log(1 - y_c) from the scores of the other types, for each type."""
    log_y = z_r.log_softmax(-1)
    terms = []
    for c in range(len(z_r)):
        others = log_y[torch.arange(len(z_r)) != c]
        terms.append(t_r[c] * log_y[c] + (1 - t_r[c]) * others.logsumexp(-1))
    return -torch.stack(terms).mean()


EXTREME = st.integers(-3, 3) | st.floats(-50, 50, width=16) | st.sampled_from([-1e4, 1e4])


@pytest.mark.parametrize("dtype, accuracy", [(torch.float64, 1e-12), (torch.float32, 1e-3)])
@given(scores=st.lists(EXTREME, min_size=2, max_size=6), index=st.integers(0, 5))
def test_softmax_bce_is_exact_for_any_scores_and_so_is_its_gradient(dtype, accuracy, scores, index):
    z_r = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
    t_r = nn.functional.one_hot(torch.tensor(index % len(scores)), len(scores))
    expected = softmax_bce_of_all_types(z_r, t_r)
    (gradient,) = torch.autograd.grad(expected, z_r)
    z_r = batch(scores).to(dtype).requires_grad_()
    L_r = READINGS["softmax-bce"](z_r, t_r.to(dtype)[None, None])
    L_r.sum().backward()
    assert L_r.item() == pytest.approx(expected.item(), rel=accuracy, abs=accuracy)
    same(z_r.grad[0, 0].double(), gradient, accuracy)


class LargestTensor(TorchDispatchMode):
    """Counts the numbers of the largest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.numbers = max(self.numbers, result.numel() if isinstance(result, torch.Tensor) else 0)
        return result


@pytest.mark.parametrize("reading", READINGS)
def test_no_loss_makes_a_tensor_larger_than_its_scores(reading):
    z_r, t_r = torch.zeros(2, 3, 40, requires_grad=True), torch.zeros(2, 3, 40)
    if reading == "sigmoid-bce":
        t_r = torch.zeros(2, 3, 41)
    with LargestTensor() as largest:
        READINGS[reading](z_r, t_r).sum().backward()
    assert 0 < largest.numbers <= t_r.numel()


POSTERIORS = {"softmax-bce": [0.25, 0.75], "softmax-ce": [0.25, 0.75], "sigmoid-bce": [0, 0.5, 0.75]}


@pytest.mark.parametrize("reading", READINGS)
def test_a_posterior_is_a_softmax_or_for_each_type_but_none_relation_a_sigmoid(reading):
    model = CASE.model(relation_loss=reading)
    z_r = batch([0.0, math.log(3.0)])
    model.represent_pairs = Mock(return_value=z_r)
    model.ffnn_r = nn.Identity()
    inputs = (CASE.X, CASE.is_token, CASE.padded_spans, CASE.numbers(CASE.S, 5), CASE.padded_pairs)
    assert torch.allclose(model.classify_pairs(*inputs), batch(POSTERIORS[reading]))
    model.represent_pairs = Mock(return_value=z_r.bfloat16())
    assert model.classify_pairs(*inputs).dtype == torch.float32


@given(case=cases(), threshold=st.sampled_from([0.2, 0.4, 0.6]))
def test_under_sigmoid_a_pair_holds_every_type_above_the_threshold(case, threshold):
    model = case.model(relation_loss="sigmoid-bce", threshold=threshold)
    y_r = (5 * case.numbers(case.P, 4).softmax(-1)).round() / 5  # so that some are at the threshold
    y_r[..., 0] = 0.0
    holds = model.filter_pairs(y_r, case.is_pair)
    for b, p in itertools.product(range(len(case.lengths)), range(case.P)):
        above = [kind for kind, y in enumerate(y_r[b, p].tolist()) if y > threshold]
        assert holds[b, p].nonzero().flatten().tolist() == (above if case.is_pair[b, p] else [])


# -- The layers of a setting ---------------------------------------------------------------------------------

LAYERS = {
    "mlp",
    "attention_s",
    "ffnn_s",
    "ffnn_pair",
    "attention_c",
    "ffnn_F",
    "attention_S",
    "ffnn_T",
    "ffnn_r",
}
USED_BY = {
    "span-specific": set(),
    "span-sentence": {"attention_s"},
    "local": {"attention_c"},
    "relation-sentence": {"attention_S", "ffnn_T"},
}


@pytest.mark.parametrize("ablate", [(), *ALL_ABLATIONS], ids="+".join)
def test_a_setting_has_the_modules_that_it_uses_each_its_own_and_no_others(ablate):
    expected = LAYERS | {"width"}
    for part in ablate:
        expected -= USED_BY[part]
    if "span-specific" in ablate and "span-sentence" in ablate:
        expected -= {"mlp"}
    assert {name.split(".")[0] for name, _ in CASE.model(ablate=ablate).named_parameters()} == expected


def test_spert_begins_as_its_authors_layers_do():  # [L32]
    model = toy_run(**SPERT).model
    for layer in (model.width, model.ffnn_s[1], model.ffnn_r[1]):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.2)
        assert layer.weight.mean().item() == pytest.approx(0, abs=0.005)
    assert not model.ffnn_s[1].bias.any() and not model.ffnn_r[1].bias.any()


@every_setting
def test_the_proof_and_a_run_make_the_same_model_of_a_setting(setting):
    proven, trained = CASE.model(**setting), toy_run(**setting).model
    assert type(proven) is type(trained)
    for name, value in setting.items():
        if name not in ("model", "ablate"):
            assert getattr(proven.config, name) == getattr(trained.config, name) == value
    assert getattr(trained, "ablate", ()) == getattr(proven, "ablate", ()) == setting.get("ablate", ())


# -- Every setting in training -------------------------------------------------------------------------------


@every_setting
def test_every_tensor_is_made_on_the_device_of_its_inputs(setting):
    model = CASE.model(**setting)
    losses, predicted = CASE.losses(model), CASE.predicted(model)
    with torch.device("meta"):  # where a tensor lands whose device is not named
        assert CASE.losses(model) == losses and CASE.predicted(model) == predicted


@every_setting
def test_gradients_reach_every_parameter_of_every_setting(setting):
    run = toy_run(**setting)
    loss, L_s, L_r = train.train_step(run, some_batch(run))
    assert L_s > 0 and L_r > 0
    loss.backward()
    unused = [n for n, p in run.model.named_parameters() if p.grad is None or not p.grad.any()]
    # a bias that is the same for all keys of a softmax changes nothing: its gradient is rounding, or zero
    assert all(name.endswith(("mlp.3.bias", "ffnn_K.3.bias", "key.bias")) for name in unused), unused


OWN = dict(relation_loss="softmax-ce", span_weight=0.1, relation_weight=2.0)


@pytest.mark.parametrize(
    "setting, weights",
    [({}, (0.4, 0.6)), (SPERT, (1.0, 1.0)), (OWN, (0.1, 2.0))],
    ids=["span", "spert", "own"],
)
def test_the_loss_of_a_setting_is_eq_11_with_its_weights(setting, weights, monkeypatch):
    run = toy_run(**setting)
    run.model.eval()  # so that dropout is the same in each step
    batch = some_batch(run)
    L, L_s, L_r = train.train_step(run, batch)
    z_s, z_r = run.model(*batch.inputs, batch.pairs, batch.arguments)
    is_span, is_pair = batch.is_span, batch.is_pair
    same(L_s, loop_span_loss(z_s[is_span].tolist(), batch.t_s[is_span].tolist()), 1e-5)
    reading = run.settings.relation_loss
    same(L_r, loop_relation_loss(z_r[is_pair].tolist(), batch.t_r[is_pair].tolist(), reading), 1e-5)
    same(L, weights[0] * L_s.item() + weights[1] * L_r.item(), 1e-6)

    # of several processes, this one has half of the spans and a quarter of the pairs
    monkeypatch.setattr(train, "sum_over_processes", lambda samples: samples * torch.tensor([2, 4]))
    part, part_s, part_r = train.train_step(run, batch)
    same(part_s, 0.5 * L_s.item(), 1e-6)
    same(part_r, 0.25 * L_r.item(), 1e-6)
    same(part, weights[0] * part_s.item() + weights[1] * part_r.item(), 1e-6)
