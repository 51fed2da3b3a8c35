"""What the model is compared with: SpERT, ablations, other readings of the loss, the printed figures."""

from torch import nn

from baselines.ablations import Ablated
from baselines.readings import WithReading
from baselines.spert import SpERT
from spanrel import Config, SpanRel
from support.errors import InputError


def make_model(
    model: str, ablate: tuple[str, ...], config: Config, encoder: nn.Module, E: int, C: int
) -> SpanRel:
    """The model of that name, "span" or "spert", without the parts that are ablated."""
    try:
        if model == "spert":
            return SpERT(config, encoder, E, C)
        if ablate:
            return Ablated(config, encoder, E, C, ablate)
        if config.relation_loss != "softmax-bce":
            return WithReading(config, encoder, E, C)
        return SpanRel(config, encoder, E, C)
    except ValueError as error:  # sizes that do not fit
        raise InputError(str(error)) from None
