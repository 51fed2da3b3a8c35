"""What the model is compared with: SpERT, ablations, other readings of the loss, the printed figures."""

from torch import nn

from baselines.ablations import ABLATIONS, Ablated
from baselines.readings import WithReading
from baselines.spert import SpERT
from spanrel import SpanRel
from support.errors import InputError


def idle_flags(settings) -> dict[str, str]:
    """The flags that would change nothing in a run of these settings, each with the reason."""
    reasons = {}
    if settings.negative_count:
        reasons["negative_rate"] = "--negative-count replaces it"
    if settings.relation_loss != "sigmoid-bce":
        reasons["threshold"] = "only --relation-loss sigmoid-bce has one; any run has --least-relation-score"
    if settings.attention != "multihead":
        reasons["heads"] = "only --attention multihead has heads"
    if set(ABLATIONS) - {"span-specific"} <= set(settings.ablate):
        reasons |= dict.fromkeys(("attention", "heads"), "--ablate leaves no attention")
    if settings.model == "spert":
        parts = ("ablate", "attention", "heads", "hidden", "layers", "context_layers")
        reasons |= dict.fromkeys(parts, "SpERT has no such part")
    return reasons


def make_model(settings, encoder: nn.Module, entity_types: list[str], relation_types: list[str]) -> SpanRel:
    """The model that the settings name, around an encoder, without the parts that are ablated."""
    parts = (settings, encoder, len(entity_types) + 1, len(relation_types) + 1)
    try:
        if settings.model == "spert":
            return SpERT(*parts)
        if settings.ablate:
            return Ablated(*parts, settings.ablate)
        if settings.relation_loss != "softmax-bce":
            return WithReading(*parts)
        return SpanRel(*parts)
    except ValueError as error:  # sizes that do not fit
        raise InputError(str(error)) from None
