"""Other readings of the paper's "binary cross-entropy loss of relation classification" [L6].

The paper says Softmax and binary cross-entropy. `spanrel.softmax_bce` takes it to the letter."""

import torch
from torch import nn

from spanrel import SpanRel, relation_scores, softmax_bce


def softmax_ce(z_r, t_r):
    """-Σ_c t_c log y_c / Σ_c t_c with y = Softmax(z): plain cross-entropy."""
    return -(t_r * z_r.log_softmax(-1)).sum(-1) / t_r.sum(-1).clamp(min=1)


def sigmoid_bce(z_r, t_r):
    """Binary cross-entropy of y = Sigmoid(z), the mean over all types but NoneRelation: SpERT's reading."""
    loss = nn.functional.binary_cross_entropy_with_logits(z_r, t_r[..., 1:], reduction="none")
    return loss.sum(-1) / max(1, loss.shape[-1])  # 0 where a corpus has no relation type


READINGS = {"softmax-bce": softmax_bce, "softmax-ce": softmax_ce, "sigmoid-bce": sigmoid_bce}


class WithReading(SpanRel):
    """The model under any reading. With "sigmoid-bce" NoneRelation has no score, and there is no arg max."""

    def __init__(self, config, encoder, E: int, C: int):
        self.sigmoid = config.relation_loss == "sigmoid-bce"
        super().__init__(config, encoder, E, C - 1 if self.sigmoid else C)

    def classify_pairs(self, X, is_token, spans, R_s, pairs):
        """y_r of each pair: Sigmoid(z_r) for each type, and 0 for NoneRelation."""
        if not self.sigmoid:
            return super().classify_pairs(X, is_token, spans, R_s, pairs)
        z_r = relation_scores(self.represent_pairs(X, is_token, spans, R_s, pairs), self.ffnn_r)
        return nn.functional.pad(z_r.to(torch.promote_types(z_r.dtype, torch.float32)).sigmoid(), (1, 0))

    def filter_pairs(self, y_r, is_pair):
        """A pair holds each type whose posterior is above the threshold, so it can hold several."""
        if not self.sigmoid:
            return super().filter_pairs(y_r, is_pair)
        return (y_r > self.config.threshold) & is_pair[..., None]
