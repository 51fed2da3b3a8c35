"""The ablations of Tables 3 and 4 (§5): what each takes away from `SpanRel`, and nothing else."""

from typing import Literal, get_args

import torch

import spanrel
from baselines.readings import WithReading
from baselines.spert import masked_max
from spanrel import ATTENTION, FFNN

Part = Literal["span-specific", "span-sentence", "local", "relation-sentence"]  # the first two of Table 3
ABLATIONS = get_args(Part)


class Ablated(WithReading):
    """`SpanRel` without some of its parts. Layers that the rest does not use are not there."""

    def __init__(self, config, encoder, E: int, C: int, ablate: tuple[str, ...]):
        self.ablate = ablate
        super().__init__(config, encoder, E, C)

    def build_layers(self, E: int, C: int):
        """The layers of `SpanRel` that are left."""
        config, hidden, D, off = self.config, self.config.hidden, self.D, self.ablate
        Attend = ATTENTION[config.attention]
        r = (2 if "span-specific" in off else 4) * D + config.width_dim
        q = (3 if "relation-sentence" in off else 4) * hidden
        if "span-specific" not in off or "span-sentence" not in off:  # else F_s has no use
            self.mlp = FFNN(D, 1, config.layers, config)
        if "span-sentence" not in off:
            self.attention_s = Attend(D, D, config)
        self.ffnn_s = FFNN(r, E, config.layers, config)
        self.ffnn_pair = FFNN(r, hidden, config.layers, config)
        if "local" not in off:
            self.attention_c = Attend(2 * hidden, D, config)
        self.ffnn_F = FFNN(D, hidden, config.context_layers, config)
        if "relation-sentence" not in off:
            self.attention_S = Attend(2 * hidden, D, config)
            self.ffnn_T = FFNN(D, hidden, config.context_layers, config)
        self.ffnn_r = FFNN(q, C, config.layers, config)

    def represent_spans(self, X, is_token, spans, widths):
        """R_s. −SpanSpecific: pooling replaces [F_s ; H_s]. −SentenceLevel: [CLS] replaces T_s (Table 3)."""
        inside = spanrel.mask_inside(spans, X.shape[1])
        W = self.width(widths - 1)
        if hasattr(self, "mlp"):
            alpha = spanrel.token_weights(spanrel.token_scores(X, self.mlp), inside)
            F_s = spanrel.span_specific(alpha, X)
        if "span-sentence" in self.ablate:
            T_s = X[:, :1].expand(-1, spans.shape[1], -1)
        else:
            T_s = spanrel.span_context(F_s, X, is_token, self.attention_s)  # [L20] F_s stays the query
        if "span-specific" in self.ablate:
            return torch.cat([T_s, masked_max(X, inside), W], -1)
        return spanrel.span_representation(T_s, F_s, spanrel.span_ends(X, spans), W)

    def represent_pairs(self, X, is_token, spans, R_s, pairs):
        """R_r. −local: max pooling of B_c replaces F_r. −SentenceLevel: R_r without FFNN_T(T_r) (Table 4)."""
        H_r = spanrel.relation_tuple(R_s, pairs, self.ffnn_pair)
        between = spanrel.mask_between(spans, pairs, X.shape[1])
        if "local" in self.ablate:
            F_r = masked_max(X, between)
        else:
            F_r = spanrel.local_context(H_r, X, between, self.attention_c)
        if "relation-sentence" in self.ablate:
            return torch.cat([H_r, self.ffnn_F(F_r)], -1)
        T_r = spanrel.sentence_context(H_r, X, is_token, self.attention_S)
        return spanrel.relation_representation(H_r, F_r, T_r, self.ffnn_F, self.ffnn_T)
