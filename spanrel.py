"""The model of Ji et al. (COLING 2020), equation by equation, in the paper's order.
*Span-based Joint Entity and Relation Extraction with Attention-based Span-specific and Contextual Semantic
Representations.* Each equation is one function. Its docstring opens with the equation's number and the
formula as the paper prints it. The signature gives the shapes, and each call checks them. A mark such as
`[L5]` stands where the paper is silent or wrong: row L5 of `docs/ledger.md` tells the choice. This file
does not read text, draw samples, train or score: `data.py` and `train.py` do. Shapes:

    B  sentences of the batch         E  entity types and NoneEntity       C  relation types and NoneRelation
    N  wordpieces; [CLS] is number 0  S  spans of a sentence               P  pairs of spans (relation tuples)
    D  width of the encoder           M  spans that are kept as entities   Q  queries of an attention
    w  width of W_{j+1}               r  width of R_s                      h, q  widths of H_r and R_r
    H  heads of an attention          c  C, or C - 1 (sigmoid-bce)         K, d, d_head  any number
Masks are True where something is; padding may hold any valid index. Class 0 is NoneEntity or NoneRelation.
"""

import os
import sys
from dataclasses import dataclass
from types import FunctionType
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Num, jaxtyped
from torch import Tensor, nn

# -- Config --------------------------------------------------------------------------------------------------


@dataclass
class Config:
    """All that shapes the model. Each field's comment is also its flag's help."""

    attention: Literal["multihead", "dot", "general", "additive"] = "multihead"  # contextual attention (§3.3)
    heads: int = 8  # heads of multihead attention (§4.2)
    hidden: int = 192  # width of hidden layers and of reduced representations [L11]
    layers: int = 2  # layers of an FFNN (§4.2)
    context_layers: int = 3  # layers of FFNN_F and FFNN_T of eq. (9) (§4.2) [L12]
    dropout: float = 0.2  # dropout after each hidden layer (§4.2) [L11]
    width_dim: int = 50  # size of a span width embedding (§4.2)
    max_width: int = 10  # widest span, in words (§4.2) [L18]
    relation_loss: Literal["softmax-bce", "softmax-ce", "sigmoid-bce"] = "softmax-bce"  # form of L^r [L6]
    threshold: float = 0.4  # sigmoid-bce: keep the types with a posterior above this [L6]
    span_weight: float = 0.4  # weight of the span loss in eq. (11)
    relation_weight: float = 0.6  # weight of the relation loss in eq. (11)
    chunk: int = 2**26  # prediction: most sentences × wordpieces × spans or pairs × encoder width at once
    most_entities: int = 256  # prediction: no relations in a sentence with more entities than this [L26]


# -- Pieces that several equations share ---------------------------------------------------------------------


class FFNN(nn.Sequential):
    """`layers` linear layers, the output layer counted [L11]: Linear → ReLU → Dropout → … → Linear."""

    def __init__(self, d_in: int, d_out: int, layers: int, config: Config):
        widths = [d_in] + [config.hidden] * (layers - 1)
        stack = []
        for before, after in zip(widths, widths[1:]):
            stack += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(config.dropout)]
        super().__init__(*stack, nn.Linear(widths[-1], d_out))


def take(rows: Num[Tensor, "B M d"], index: Int[Tensor, "B K"]) -> Num[Tensor, "B K d"]:
    """rows[b, index[b, k]]: in each sentence, the rows that `index` names."""
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))


def masked_softmax(score: Float[Tensor, "*#B N"], mask: Bool[Tensor, "*#B N"]) -> Float[Tensor, "*B N"]:
    """exp(score) / Σ exp(score) where `mask` is True, else 0. A mask that is False everywhere gives zeros."""
    lowest = torch.finfo(score.dtype).min  # not -inf: the softmax of an empty context would be NaN [L5]
    return score.masked_fill(~mask, lowest).softmax(-1).masked_fill(~mask, 0.0)


def posterior(z: Float[Tensor, "*B K"]) -> Float[Tensor, "*B K"]:
    """The Softmax of eq. (5) and (10), at least in float32: bfloat16 is too coarse to rank the classes."""
    return z.softmax(-1, dtype=torch.promote_types(z.dtype, torch.float32))


def mask_inside(spans: Int[Tensor, "B S 2"], N: int) -> Bool[Tensor, "B S N"]:
    """Which of the N wordpieces belong to B_s = [X_i … X_{i+j}] (misprinted in the paper [L2])."""
    position = torch.arange(N, device=spans.device)
    return (spans[..., :1] <= position) & (position < spans[..., 1:])


# -- §3.1  Span classification and filtration ----------------------------------------------------------------


def span_ends(X: Float[Tensor, "B N D"], spans: Int[Tensor, "B S 2"]) -> Float[Tensor, "B S 2*D"]:
    """Eq. (1).  H_s = [X_i ; X_{i+j}]
    The first and the last wordpiece of each span [start, end) [L25]; a single one is used twice."""
    return torch.cat([take(X, spans[..., 0]), take(X, spans[..., 1] - 1)], -1)


def token_scores(X: Float[Tensor, "B N D"], mlp: nn.Module) -> Float[Tensor, "B N"]:
    """Eq. (2a).  V_k = MLP_k(X_k)   s.t. k ∈ [i, i+j]
    `mlp` has one output. Each token is scored once, for all spans that contain it."""
    return mlp(X).squeeze(-1)  # [L3] one MLP for all k


def token_weights(V: Float[Tensor, "B N"], inside: Bool[Tensor, "B S N"]) -> Float[Tensor, "B S N"]:
    """Eq. (2b).  α_k = exp(V_k) / Σ_{m=i}^{i+j} exp(V_m)
    `inside` says which tokens belong to the span. Outside of it α is 0."""
    return masked_softmax(V[:, None].expand(inside.shape), inside)


def span_specific(alpha: Float[Tensor, "B S N"], X: Float[Tensor, "B N D"]) -> Float[Tensor, "B S D"]:
    """Eq. (2c).  F_s = Σ_{m=i}^{i+j} α_m X_m
    `alpha` is 0 outside of the span, so the sum can run over the whole sentence."""
    return torch.bmm(alpha, X)


def span_context(
    F_s: Float[Tensor, "B S D"], X: Float[Tensor, "B N D"], is_token: Bool[Tensor, "B N"], attend: nn.Module
) -> Float[Tensor, "B S D"]:
    """Eq. (3).  T_s = Attention(F_s, B_S, B_S)
    `attend` is one of `ATTENTION`. `is_token` says which wordpieces belong to B_S."""
    return attend(F_s, X, is_token[:, None])  # [L4] [CLS] belongs to B_S, [SEP] does not


def span_representation(
    T_s: Float[Tensor, "B S D"], F_s: Float[Tensor, "B S D"],
    H_s: Float[Tensor, "B S 2*D"], W: Float[Tensor, "B S w"],
) -> Float[Tensor, "B S r"]:
    """Eq. (4).  R_s = [T_s ; F_s ; H_s ; W_{j+1}]
    `W` embeds the width j+1 of each span, in words."""
    return torch.cat([T_s, F_s, H_s, W], -1)


def span_scores(R_s: Float[Tensor, "B S r"], ffnn: nn.Module) -> Float[Tensor, "B S E"]:
    """z_s = FFNN(R_s): the scores (logits) of eq. (5), before its Softmax. The loss is computed from them."""
    return ffnn(R_s)


def classify_spans(R_s: Float[Tensor, "B S r"], ffnn: nn.Module) -> Float[Tensor, "B S E"]:
    """Eq. (5).  y_s = Softmax(FFNN(R_s))
    The posterior of each entity type, NoneEntity included."""
    return posterior(span_scores(R_s, ffnn))


def filter_spans(
    y_s: Float[Tensor, "B S E"], is_span: Bool[Tensor, "B S"]
) -> tuple[Int[Tensor, "B M"], Bool[Tensor, "B M"]]:
    """Span filtration: the indexes of the spans not classified NoneEntity, and a mask, False at padding.
    M is the largest number of such spans in one sentence; shorter rows are padded."""
    keep = (y_s.argmax(-1) > 0) & is_span
    kept = keep.int().argsort(dim=-1, descending=True, stable=True)[:, : int(keep.sum(-1).amax())]
    return kept, keep.gather(1, kept)


# -- §3.2  Relation classification and filtration ------------------------------------------------------------


def all_pairs(is_entity: Bool[Tensor, "B M"]) -> tuple[Int[Tensor, "B P 2"], Bool[Tensor, "B P"]]:
    """⟨s_1, s_2⟩ ∈ {E ⊗ E}, E the entities kept, s_1 ≠ s_2: ordered pairs [L19], a mask, False at padding."""
    B, M = is_entity.shape
    pairs = (~torch.eye(M, dtype=torch.bool, device=is_entity.device)).nonzero().expand(B, -1, 2)
    return pairs, is_entity.gather(1, pairs[..., 0]) & is_entity.gather(1, pairs[..., 1])


def mask_between(spans: Int[Tensor, "B S 2"], pairs: Int[Tensor, "B P 2"], N: int) -> Bool[Tensor, "B P N"]:
    """B_c = (X_m … X_{m+n}) [L33]: the wordpieces between two spans; none where these touch or overlap."""
    s_1, s_2 = take(spans, pairs[..., 0]), take(spans, pairs[..., 1])
    earlier_end = torch.minimum(s_1[..., 1], s_2[..., 1])
    later_start = torch.maximum(s_1[..., 0], s_2[..., 0])
    return mask_inside(torch.stack([earlier_end, later_start], -1), N)


def relation_tuple(
    R_s: Float[Tensor, "B S r"], pairs: Int[Tensor, "B P 2"], ffnn: nn.Module
) -> Float[Tensor, "B P h"]:
    """Eq. (6).  H_r = [FFNN(R_{s_1}) ; FFNN(R_{s_2})]
    `pairs` holds indexes of spans, so each span is reduced once, however many pairs contain it."""
    reduced = ffnn(R_s)  # [L27] one FFNN for both arguments
    return torch.cat([take(reduced, pairs[..., 0]), take(reduced, pairs[..., 1])], -1)


def local_context(
    H_r: Float[Tensor, "B P h"], X: Float[Tensor, "B N D"], between: Bool[Tensor, "B P N"], attend: nn.Module
) -> Float[Tensor, "B P D"]:
    """Eq. (7).  F_r = Attention(H_r, B_c, B_c)
    `between` says which wordpieces belong to B_c: those between the two spans of the pair."""
    return attend(H_r, X, between)  # [L5] zero where nothing is between


def sentence_context(
    H_r: Float[Tensor, "B P h"], X: Float[Tensor, "B N D"], is_token: Bool[Tensor, "B N"], attend: nn.Module
) -> Float[Tensor, "B P D"]:
    """Eq. (8).  T_r = Attention(H_r, B_S, B_S)
    B_S is the same as in eq. (3). The attention has weights of its own."""
    return attend(H_r, X, is_token[:, None])  # [L4]


def relation_representation(
    H_r: Float[Tensor, "B P h"], F_r: Float[Tensor, "B P D"], T_r: Float[Tensor, "B P D"],
    ffnn_F: nn.Module, ffnn_T: nn.Module,
) -> Float[Tensor, "B P q"]:
    """Eq. (9).  R_r = [H_r ; FFNN_F(F_r) ; FFNN_T(T_r)]
    Two different FFNNs reduce the contexts, to keep them in proportion to H_r."""
    return torch.cat([H_r, ffnn_F(F_r), ffnn_T(T_r)], -1)


def relation_scores(R_r: Float[Tensor, "B P q"], ffnn: nn.Module) -> Float[Tensor, "B P C"]:
    """z_r = FFNN(R_r): the scores (logits) of eq. (10), before its Softmax."""
    return ffnn(R_r)


def classify_relations(R_r: Float[Tensor, "B P q"], ffnn: nn.Module) -> Float[Tensor, "B P C"]:
    """Eq. (10).  y_r = Softmax(FFNN(R_r))
    The posterior of each relation type, NoneRelation included."""
    return posterior(relation_scores(R_r, ffnn))


def filter_relations(y_r: Float[Tensor, "B P C"], is_pair: Bool[Tensor, "B P"]) -> Bool[Tensor, "B P C"]:
    """Relation filtration: each pair holds the type of its highest class, unless that is NoneRelation."""
    highest = y_r.argmax(-1, keepdim=True)
    return (torch.arange(y_r.shape[-1], device=y_r.device) == highest) & (highest > 0) & is_pair[..., None]


# -- §3.3  Attention variants --------------------------------------------------------------------------------

Query, Context, Mask = Float[Tensor, "B Q d"], Float[Tensor, "B N D"], Bool[Tensor, "B #Q N"]
Scalar = Float[Tensor, ""]


class Attention(nn.Module):
    """Attention(Q, K, V) of §3.3 with K = V = `context`: the Softmax of a score, then a weighted sum of V.
    A subclass gives the score. V goes through no layer, and there is no output layer: each head gives a
    weighted mean of its slice of X, as in eq. (2c) [L10]. A query whose context is empty gets zeros [L5]."""
    heads = 1

    def weights(self, query: Query, context: Context, mask: Mask) -> Float[Tensor, "B H Q N"]:
        """Softmax(score(Q, K)): one distribution over the context for each head and query."""
        return masked_softmax(self.score(query, context), mask[:, None])

    def forward(self, query: Query, context: Context, mask: Mask) -> Float[Tensor, "B Q D"]:
        """Attention(query, context, context) over what `mask` says is there for each query."""
        mixed = self.weights(query, context, mask) @ split_heads(context, self.heads)
        return mixed.transpose(1, 2).flatten(2)


def split_heads(rows: Float[Tensor, "B K d"], heads: int) -> Float[Tensor, "B H K d_head"]:
    """Cuts the d = H · d_head columns into one slice for each head."""
    return rows.unflatten(-1, (heads, -1)).transpose(1, 2)


class MultiHead(Attention):
    """score = Q ⊙ K / √d_K, where Q and K go through FFNNs first (Vaswani et al. 2017)."""

    def __init__(self, d_query: int, d_context: int, config: Config):
        super().__init__()
        self.heads, hidden = config.heads, config.hidden
        if d_context % self.heads or hidden % self.heads:
            widths = f"the encoder's width {d_context} and --hidden {hidden}"
            raise ValueError(f"--heads {self.heads} must divide {widths}")
        self.ffnn_Q = FFNN(d_query, hidden, config.layers, config)
        self.ffnn_K = FFNN(d_context, hidden, config.layers, config)

    def score(self, query: Query, context: Context) -> Float[Tensor, "B H Q N"]:
        Q, K = split_heads(self.ffnn_Q(query), self.heads), split_heads(self.ffnn_K(context), self.heads)
        return Q @ K.mT / Q.shape[-1] ** 0.5  # [L8] a scalar for each key; d_K is the width of a head


class DotProduct(Attention):
    """score = W · (Q ⊙ K), where Q and K go through FFNNs first (as Luong et al. 2015, plus W)."""

    def __init__(self, d_query: int, d_context: int, config: Config):
        super().__init__()
        self.ffnn_Q = FFNN(d_query, config.hidden, config.layers, config)
        self.ffnn_K = FFNN(d_context, config.hidden, config.layers, config)
        self.W = nn.Linear(config.hidden, 1, bias=False)  # [L9] a vector, so that the score is one number

    def score(self, query: Query, context: Context) -> Float[Tensor, "B 1 Q N"]:
        weighted = self.ffnn_Q(query) * self.W.weight[0]  # so that Q ⊙ K (B Q N d) is never stored
        return (weighted @ self.ffnn_K(context).mT)[:, None]


class General(Attention):
    """score = Q · W · K (Luong et al. 2015): W alone joins query and key, so neither has an FFNN."""

    def __init__(self, d_query: int, d_context: int, config: Config):
        super().__init__()
        self.W = nn.Linear(d_query, d_context, bias=False)

    def score(self, query: Query, context: Context) -> Float[Tensor, "B 1 Q N"]:
        return (self.W(query) @ context.mT)[:, None]


class Additive(Attention):
    """score = W_1 · Q + W_2 · K as printed; here vᵀ tanh(W_1 Q + W_2 K), as in Bahdanau et al. (2015).
    As printed, W_1 · Q is the same for every key, so the Softmax cancels it [L7]."""

    def __init__(self, d_query: int, d_context: int, config: Config):
        super().__init__()
        self.W_1 = nn.Linear(d_query, config.hidden)
        self.W_2 = nn.Linear(d_context, config.hidden, bias=False)
        self.v = nn.Linear(config.hidden, 1, bias=False)

    def score(self, query: Query, context: Context) -> Float[Tensor, "B 1 Q N"]:
        mixed = self.W_1(query)[:, :, None] + self.W_2(context)[:, None]  # B Q N hidden
        return self.v(mixed.tanh()).squeeze(-1)[:, None]


ATTENTION = {"multihead": MultiHead, "dot": DotProduct, "general": General, "additive": Additive}

# -- §3.4  Model training ------------------------------------------------------------------------------------


def mean_over(loss: Float[Tensor, "B K"], is_there: Bool[Tensor, "B K"]) -> Scalar:
    """The mean over the batch without its padding [L28]; 0 if nothing is left."""
    return loss.masked_fill(~is_there, 0.0).sum() / is_there.sum().clamp(min=1)


def span_loss(z_s: Float[Tensor, "B S E"], t_s: Int[Tensor, "B S"], is_span: Bool[Tensor, "B S"]) -> Scalar:
    """L^s = mean of -log y_s[t_s]: the cross-entropy of the span classification.
    `t_s` is the true type of each span, 0 for NoneEntity. `z_s` are the scores of `span_scores`."""
    return mean_over(nn.functional.cross_entropy(z_s.mT, t_s, reduction="none"), is_span)


def softmax_bce(z_r: Float[Tensor, "B P C"], t_r: Float[Tensor, "B P C"]) -> Float[Tensor, "B P"]:
    """-(1/C) Σ_c [t_c log y_c + (1 - t_c) log(1 - y_c)] with y = Softmax(z): the paper read literally [L6].
    For the highest y_c, 1 - y_c may round to 0, so the other y are summed. Each of them is at most 1/2."""
    log_y = z_r.log_softmax(-1)
    highest = log_y.argmax(-1, keepdim=True)
    others = log_y.scatter(-1, highest, torch.finfo(log_y.dtype).min)
    log_not_y = (-others.exp()).log1p().scatter(-1, highest, others.logsumexp(-1, keepdim=True))
    return -(t_r * log_y + (1 - t_r) * log_not_y).mean(-1)


def relation_loss(
    z_r: Float[Tensor, "B P c"], t_r: Float[Tensor, "B P C"], is_pair: Bool[Tensor, "B P"], loss=softmax_bce
) -> Scalar:
    """L^r = mean of `loss` over the pairs: the "binary cross-entropy loss of relation classification".
    `t_r` is 1 at each type that a pair holds, or at NoneRelation. More readings: `baselines/readings.py`."""
    return mean_over(loss(z_r, t_r), is_pair)


def joint_loss(L_s: Scalar, L_r: Scalar, span_weight: float = 0.4, relation_weight: float = 0.6) -> Scalar:
    """Eq. (11).  L = 0.4 L^s + 0.6 L^r
    SpERT gives both a weight of 1."""
    return span_weight * L_s + relation_weight * L_r


# -- The model -----------------------------------------------------------------------------------------------

Ids, Tokens, Embeddings = Int[Tensor, "B N"], Bool[Tensor, "B N"], Float[Tensor, "B N D"]
Spans, Widths, SpanVectors = Int[Tensor, "B S 2"], Int[Tensor, "B S"], Float[Tensor, "B S r"]
Pairs = Int[Tensor, "B P 2"]


@dataclass
class Prediction:
    """What `SpanRel.predict` finds in each sentence. `pairs` holds indexes of the M entities."""

    kept: Int[Tensor, "B M"]  # the entities, as indexes of the spans given
    is_entity: Bool[Tensor, "B M"]
    y_s: Float[Tensor, "B M E"]
    pairs: Int[Tensor, "B P 2"]
    y_r: Float[Tensor, "B P C"]
    holds: Bool[Tensor, "B P C"]  # the relations: which type each pair holds


class SpanRel(nn.Module):
    """The whole model of Figure 2, made of the functions above. `baselines/` overrides some of its methods.
    `E` and `C` count the entity and relation types, NoneEntity and NoneRelation included."""

    def __init__(self, config: Config, encoder: nn.Module, E: int, C: int):
        super().__init__()
        self.config, self.encoder = config, encoder
        self.D = encoder.config.hidden_size
        self.width = nn.Embedding(config.max_width, config.width_dim)  # W of (4); a row for each width [L18]
        self.build_layers(E, C)

    def build_layers(self, E: int, C: int):
        """Layers above X and W, as torch starts them [L32]. (3), (7), (8) have separate attentions [L10]."""
        config, hidden, D = self.config, self.config.hidden, self.D
        Attend = ATTENTION[config.attention]
        r, h, q = 4 * D + config.width_dim, 2 * hidden, 4 * hidden
        self.mlp = FFNN(D, 1, config.layers, config)  # (2a)
        self.attention_s = Attend(D, D, config)  # (3)
        self.ffnn_s = FFNN(r, E, config.layers, config)  # (5)
        self.ffnn_pair = FFNN(r, hidden, config.layers, config)  # (6)
        self.attention_c = Attend(h, D, config)  # (7)
        self.ffnn_F = FFNN(D, hidden, config.context_layers, config)  # (9)
        self.attention_S = Attend(h, D, config)  # (8)
        self.ffnn_T = FFNN(D, hidden, config.context_layers, config)  # (9) [L38] as wide as FFNN_F
        self.ffnn_r = FFNN(q, C, config.layers, config)  # (10)

    def embed(self, input_ids: Ids, attention_mask: Ids, is_token: Tokens) -> Embeddings:
        """B_S = [X_0 … X_n]: the encoder's output. [SEP] and padding become 0: no weight cancels a NaN."""
        X = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return X.masked_fill(~is_token[..., None], 0.0)

    def represent_spans(self, X: Embeddings, is_token: Tokens, spans: Spans, widths: Widths) -> SpanVectors:
        """R_s of each span, §3.1. `widths` are in words."""
        H_s = span_ends(X, spans)  # (1)
        V = token_scores(X, self.mlp)  # (2a)
        alpha = token_weights(V, mask_inside(spans, X.shape[1]))  # (2b)
        F_s = span_specific(alpha, X)  # (2c)
        T_s = span_context(F_s, X, is_token, self.attention_s)  # (3)
        W = self.width(widths - 1)  # [L1] row j belongs to the width j+1
        return span_representation(T_s, F_s, H_s, W)  # (4)

    def represent_pairs(
        self, X: Embeddings, is_token: Tokens, spans: Spans, R_s: SpanVectors, pairs: Pairs
    ) -> Float[Tensor, "B P q"]:
        """R_r of each pair, §3.2."""
        H_r = relation_tuple(R_s, pairs, self.ffnn_pair)  # (6)
        F_r = local_context(H_r, X, mask_between(spans, pairs, X.shape[1]), self.attention_c)  # (7)
        T_r = sentence_context(H_r, X, is_token, self.attention_S)  # (8)
        return relation_representation(H_r, F_r, T_r, self.ffnn_F, self.ffnn_T)  # (9)

    def forward(
        self, input_ids: Ids, attention_mask: Ids, is_token: Tokens, spans: Spans, widths: Widths,
        pairs: Pairs, arguments: int,
    ) -> tuple[Float[Tensor, "B S E"], Float[Tensor, "B P c"]]:
        """z_s and z_r of given spans and pairs, for training.
        Pairs are made of the first `arguments` spans, so eq. (6) need not reduce the others [L26]."""
        X = self.embed(input_ids, attention_mask, is_token)
        R_s = self.represent_spans(X, is_token, spans, widths)
        z_s = span_scores(R_s, self.ffnn_s)
        R_r = self.represent_pairs(X, is_token, spans[:, :arguments], R_s[:, :arguments], pairs)
        return z_s, relation_scores(R_r, self.ffnn_r)

    @torch.no_grad()
    def predict(
        self, input_ids: Ids, attention_mask: Ids, is_token: Tokens, spans: Spans, widths: Widths,
        is_span: Bool[Tensor, "B S"], given_entities: bool = False,
    ) -> Prediction:
        """Classifies and filters all spans, then all pairs of those kept [L26]. Call `eval()` first.
        With `given_entities`, all spans are kept; padding comes last."""
        X = self.embed(input_ids, attention_mask, is_token)
        rows = self.config.chunk // (X.shape[0] * X.shape[1] * max(self.D, self.config.hidden))
        R_s = in_chunks(lambda s, w: self.represent_spans(X, is_token, s, w), rows, spans, widths)
        y_s = classify_spans(R_s, self.ffnn_s)  # (5)
        kept, is_entity = filter_spans(y_s, is_span)
        if given_entities:
            kept, is_entity = torch.arange(is_span.shape[1], device=X.device).expand(is_span.shape), is_span
        y_s, R_s, spans = take(y_s, kept), take(R_s, kept), take(spans, kept)
        is_paired = is_entity & (is_entity.sum(-1, keepdim=True) <= self.config.most_entities)
        pairs, is_pair = all_pairs(is_paired[:, : int(is_paired.sum(-1).amax())])
        y_r = in_chunks(lambda p: self.classify_pairs(X, is_token, spans, R_s, p), rows, pairs)
        return Prediction(kept, is_entity, y_s, pairs, y_r, self.filter_pairs(y_r, is_pair))

    def classify_pairs(self, X: Embeddings, is_token: Tokens, spans: Spans, R_s: SpanVectors, pairs: Pairs):
        """y_r of each pair."""
        return classify_relations(self.represent_pairs(X, is_token, spans, R_s, pairs), self.ffnn_r)  # (10)

    def filter_pairs(self, y_r: Float[Tensor, "B P C"], is_pair: Bool[Tensor, "B P"]):
        """The relation types that each pair holds."""
        return filter_relations(y_r, is_pair)


def in_chunks(function, rows: int, *tensors):
    """Applies `function` to at most `rows` spans or pairs at a time, and joins the results: less memory."""
    size, rows = tensors[0].shape[1], max(1, rows)
    if size <= rows:
        return function(*tensors)
    for start in range(0, size, rows):
        part = function(*(tensor[:, start : start + rows] for tensor in tensors))
        if not start:  # allocated once: many parts kept until the end would fragment the memory
            whole = part.new_empty(part.shape[0], size, *part.shape[2:])
        whole[:, start : start + rows] = part
    return whole


# -- Shape checks, and the index of the equations ------------------------------------------------------------

if os.environ.get("SPANREL_SHAPES", "on") != "off":  # off: the checks take time
    from beartype import beartype

    for _owner in (sys.modules[__name__], Attention, *ATTENTION.values(), SpanRel):
        for _name, _function in list(vars(_owner).items()):
            if isinstance(_function, FunctionType) and _function.__module__ == __name__:
                setattr(_owner, _name, jaxtyped(_function, typechecker=beartype))

EQUATIONS = {  # in the paper's order
    "1": span_ends, "2a": token_scores, "2b": token_weights, "2c": span_specific, "3": span_context,
    "4": span_representation, "5": classify_spans, "6": relation_tuple, "7": local_context,
    "8": sentence_context, "9": relation_representation, "10": classify_relations, "11": joint_loss,
}
