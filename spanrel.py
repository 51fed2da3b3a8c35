"""The model of Ji et al. (COLING 2020), equation by equation, in the paper's order.

*Span-based Joint Entity and Relation Extraction with Attention-based Span-specific and Contextual Semantic Representations.*

Every equation is one function whose docstring opens with its number and the formula as the paper prints it; its shapes stand
in the signature and are checked at run time. `[L5]` marks a line that decides something the paper leaves open: see row L5 of
the README's ledger. This file does not read text, sample, train or score: `data.py` and `train.py` do.

Shapes are written with these letters; a letter that is not here, as in "B M d", stands for any number:

    B  sentences in the batch           S  spans of a sentence            P  pairs of spans (relation tuples)
    N  wordpieces; X_0 is [CLS]         E  entity types + NoneEntity      C  relation types + NoneRelation
    D  width of the encoder             w, r  widths of W and R_s         h, q  widths of H_r and R_r

Masks are boolean and say what *is* there. Class 0 is NoneEntity, NoneRelation.
"""

import os
import sys
from dataclasses import dataclass, field, fields
from types import FunctionType

import torch
from jaxtyping import Bool, Float, Int, Num, jaxtyped
from torch import Tensor, nn

# -- Config ---------------------------------------------------------------------------------------------------------------

ABLATIONS = ("span-specific", "span-sentence", "local", "relation-sentence")  # two of Table 3, two of Table 4
READINGS = ("softmax-bce", "softmax-ce", "sigmoid-bce")  # of the relation loss; see `relation_loss` [L6]


def setting(default, help, choices=None):
    """A dataclass field that also is a command-line flag: its default, one line of help and, where closed, its choices."""
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass
class Config:
    """All that shapes the model. Where the paper prints a value it is the default; the others have a row in the ledger."""

    model: str = setting("span", "the paper's model, or its baseline SpERT (§4.3)", ("span", "spert"))
    attention: str = setting("multihead", "contextual attention (§3.3)", ("multihead", "dot", "general", "additive"))
    ablate: tuple[str, ...] = setting((), "parts to take away (Tables 3 and 4)", ABLATIONS)
    heads: int = setting(8, "heads of multihead attention (§4.2)")
    project: bool = setting(False, "attention: project values and output, as Vaswani et al. do [L10]")
    hidden: int = setting(192, "width of hidden and reduced representations [L11]")
    layers: int = setting(2, "layers of an FFNN (§4.2)")
    context_layers: int = setting(3, "layers of FFNN_F and FFNN_T of eq. (9) (§4.2) [L12]")
    dropout: float = setting(0.2, "dropout behind each hidden layer (§4.2) [L11]")
    width_dim: int = setting(50, "size of a span width embedding (§4.2)")
    max_width: int = setting(10, "widest span, in words (§4.2) [L18]")
    relation_loss: str = setting("softmax-bce", "reading of the relation loss (§3.4) [L6]", READINGS)
    threshold: float = setting(0.4, "sigmoid-bce: a type holds above this posterior [L6]")
    span_weight: float = setting(0.4, "weight of the span loss in eq. (11)")
    relation_weight: float = setting(0.6, "weight of the relation loss in eq. (11)")
    chunk: int = setting(2**26, "most numbers one chunk of spans or pairs may hold, in prediction")

    def __post_init__(self):
        self.ablate = tuple(self.ablate)  # a list, from JSON or a command line
        for f in fields(self):
            for value in [getattr(self, f.name)] if f.name != "ablate" else self.ablate:
                if f.metadata["choices"] and value not in f.metadata["choices"]:
                    raise ValueError(f"{f.name} {value!r}: choose from {', '.join(f.metadata['choices'])}")


# What SpERT's authors published, where it differs from the defaults above (Eberts and Ulges 2019).
SPERT = dict(model="spert", dropout=0.1, width_dim=25, relation_loss="sigmoid-bce", span_weight=1.0, relation_weight=1.0)

# -- Pieces that several equations share ----------------------------------------------------------------------------------


class FFNN(nn.Sequential):
    """Fully connected layers, the output layer counted [L11]: Linear → ReLU → Dropout → … → Linear."""

    def __init__(self, d_in: int, d_out: int, layers: int, config: Config):
        widths = [d_in] + [config.hidden] * (layers - 1)
        stack = []
        for before, after in zip(widths, widths[1:]):
            stack += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(config.dropout)]
        super().__init__(*stack, nn.Linear(widths[-1], d_out))


def take(rows: Num[Tensor, "B M d"], index: Int[Tensor, "B K"]) -> Num[Tensor, "B K d"]:
    """rows[b, index[b, k]]: in each sentence, the rows that `index` names."""
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))


def masked_softmax(score: Float[Tensor, "*B N"], mask: Bool[Tensor, "*#B N"]) -> Float[Tensor, "*B N"]:
    """exp(score) / Σ exp(score) over what is there; exactly 0 elsewhere, and everywhere where nothing is there."""
    lowest = torch.finfo(score.dtype).min  # not -inf, whose softmax over an empty context is NaN [L5]
    return score.masked_fill(~mask, lowest).softmax(-1).masked_fill(~mask, 0.0)


def masked_max(X: Float[Tensor, "B N D"], mask: Bool[Tensor, "B K N"]) -> Float[Tensor, "B K D"]:
    """Max pooling over what is there; zeros where nothing is. SpERT's pooling, and that of two ablations."""
    with torch.no_grad():  # the gradient is the largest's alone: a detour over all B K N D numbers takes four times as long
        top = X[:, None].masked_fill(~mask[..., None], float("-inf")).max(2).indices
    return X.gather(1, top).masked_fill(~mask.any(-1, keepdim=True), 0.0)  # [L5]


def mask_inside(spans: Int[Tensor, "B S 2"], n: int) -> Bool[Tensor, "B S n"]:
    """B_s = [X_i … X_{i+j}] [L2]: which of the n wordpieces are the span's, [start, end)."""
    position = torch.arange(n, device=spans.device)
    return (spans[..., :1] <= position) & (position < spans[..., 1:])


def mask_between(spans: Int[Tensor, "B S 2"], pairs: Int[Tensor, "B P 2"], n: int) -> Bool[Tensor, "B P n"]:
    """B_c = (X_m … X_{m+n}) [L33]: which of the n wordpieces lie between the pair's spans; none if they touch or overlap."""
    (a, b), (c, d) = (take(spans, pairs[..., k]).unbind(-1) for k in (0, 1))  # the two spans, [a, b) and [c, d)
    return mask_inside(torch.stack([torch.minimum(b, d), torch.maximum(a, c)], -1), n)


def in_chunks(function, rows: int, *tensors):
    """`function` over at most `rows` of dim 1 of the tensors at a time, so that memory stays bounded."""
    parts = [function(*part) for part in zip(*(t.split(max(1, rows), 1) for t in tensors))]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)  # the only part needs no copy


# -- §3.3  Attention variants ---------------------------------------------------------------------------------------------

Query, Context, Mask = Float[Tensor, "B Q d"], Float[Tensor, "B N D"], Bool[Tensor, "B #Q N"]


class Attention(nn.Module):
    """Attention(Q, K, V) of §3.3 with K = V = `context`: the softmax of a score, then a weighted sum.

    A subclass gives the `score`, of shape B H Q N. With several heads (H), each weighs its own slice of the values. A query
    whose context is empty gets zeros [L5]. What is masked must be finite, since it is multiplied by a weight of 0."""

    heads = 1

    def __init__(self, d_query: int, d_context: int, config: Config):
        super().__init__()
        # [L10] As printed, V is the context as it is, so that the result is a weighted mean of X, as eq. (2c) is.
        self.value = nn.Linear(d_context, d_context, bias=False) if config.project else nn.Identity()
        self.output = nn.Linear(d_context, d_context, bias=False) if config.project else nn.Identity()

    def weights(self, query: Query, context: Context, mask: Mask) -> Float[Tensor, "B H Q N"]:
        """Softmax(score(Q, K)): one distribution a head."""
        return masked_softmax(self.score(query, context), mask[:, None])

    def forward(self, query: Query, context: Context, mask: Mask) -> Float[Tensor, "B Q D"]:
        """Attention(query, context, context), over what `mask` says is there for each query."""
        mixed = self.weights(query, context, mask) @ split_heads(self.value(context), self.heads)
        return self.output(mixed.transpose(1, 2).flatten(2))


def split_heads(Y: Float[Tensor, "B K d"], heads: int) -> Float[Tensor, "B H K d_head"]:
    """d = H · d_head: the columns of Y, dealt to the heads in turn."""
    return Y.unflatten(-1, (heads, -1)).transpose(1, 2)


class MultiHead(Attention):
    """score = Q ⊙ K / √d_K, with Q and K through FFNNs first (Vaswani et al. 2017)."""

    def __init__(self, d_query: int, d_context: int, config: Config):
        super().__init__(d_query, d_context, config)
        self.heads = config.heads
        self.ffnn_Q = FFNN(d_query, config.hidden, config.layers, config)
        self.ffnn_K = FFNN(d_context, config.hidden, config.layers, config)

    def score(self, query: Query, context: Context) -> Float[Tensor, "B H Q N"]:
        Q, K = split_heads(self.ffnn_Q(query), self.heads), split_heads(self.ffnn_K(context), self.heads)
        return Q @ K.mT / Q.shape[-1] ** 0.5  # [L8] a scalar for each query and key; d_K is the width of one head


class DotProduct(Attention):
    """score = W · (Q ⊙ K), with Q and K through FFNNs first (Luong et al. 2015, whose "dot" has no W)."""

    def __init__(self, d_query: int, d_context: int, config: Config):
        super().__init__(d_query, d_context, config)
        self.ffnn_Q = FFNN(d_query, config.hidden, config.layers, config)
        self.ffnn_K = FFNN(d_context, config.hidden, config.layers, config)
        self.W = nn.Linear(config.hidden, 1, bias=False)  # [L9] a vector, so that the score is a scalar

    def score(self, query: Query, context: Context) -> Float[Tensor, "B 1 Q N"]:
        Q, K = self.ffnn_Q(query), self.ffnn_K(context)
        return ((Q * self.W.weight[0]) @ K.mT)[:, None]  # Σ_d W_d Q_d K_d, without the B Q N d of Q ⊙ K


class General(Attention):
    """score = Q · W · K (Luong et al. 2015): W alone brings query and key together, so neither has an FFNN."""

    def __init__(self, d_query: int, d_context: int, config: Config):
        super().__init__(d_query, d_context, config)
        self.W = nn.Linear(d_query, d_context, bias=False)

    def score(self, query: Query, context: Context) -> Float[Tensor, "B 1 Q N"]:
        return (self.W(query) @ context.mT)[:, None]


class Additive(Attention):
    """score = W_1 · Q + W_2 · K as printed; here vᵀ tanh(W_1 Q + W_2 K), as Bahdanau et al. (2015), whom the paper cites."""

    def __init__(self, d_query: int, d_context: int, config: Config):
        super().__init__(d_query, d_context, config)
        self.W_1 = nn.Linear(d_query, config.hidden)
        self.W_2 = nn.Linear(d_context, config.hidden, bias=False)
        self.v = nn.Linear(config.hidden, 1, bias=False)

    def score(self, query: Query, context: Context) -> Float[Tensor, "B 1 Q N"]:
        # [L7] As printed, the query adds the same to every key of its row, and the softmax cancels it.
        mixed = self.W_1(query)[:, :, None] + self.W_2(context)[:, None]  # B Q N hidden
        return self.v(mixed.tanh()).squeeze(-1)[:, None]


ATTENTION = {"multihead": MultiHead, "dot": DotProduct, "general": General, "additive": Additive}

# -- §3.1  Span classification and filtration -----------------------------------------------------------------------------


def span_ends(X: Float[Tensor, "B N D"], spans: Int[Tensor, "B S 2"]) -> Float[Tensor, "B S 2*D"]:
    """Eq. (1).  H_s = [X_i ; X_{i+j}]

    The first and the last wordpiece of each span [L25]. `spans` are [start, end); a single wordpiece stands twice."""
    return torch.cat([take(X, spans[..., 0]), take(X, spans[..., 1] - 1)], -1)


def token_scores(X: Float[Tensor, "B N D"], mlp: nn.Module) -> Float[Tensor, "B N"]:
    """Eq. (2a).  V_k = MLP_k(X_k)   s.t. k ∈ [i, i+j]

    `mlp` has a scalar output. A token is scored once, for all spans that it is in."""
    return mlp(X).squeeze(-1)  # [L3] one MLP for all k


def token_weights(V: Float[Tensor, "B N"], inside: Bool[Tensor, "B S N"]) -> Float[Tensor, "B S N"]:
    """Eq. (2b).  α_k = exp(V_k) / Σ_{m=i}^{i+j} exp(V_m)

    `inside` says which tokens are the span's; α is 0 outside of it."""
    return masked_softmax(V[:, None].expand(inside.shape), inside)


def span_specific(alpha: Float[Tensor, "B S N"], X: Float[Tensor, "B N D"]) -> Float[Tensor, "B S D"]:
    """Eq. (2c).  F_s = Σ_{m=i}^{i+j} α_m X_m

    `alpha` is 0 outside of the span, so the sum can run over the sentence."""
    return torch.bmm(alpha, X)


def span_context(
    F_s: Float[Tensor, "B S D"], X: Float[Tensor, "B N D"], is_token: Bool[Tensor, "B N"], attention: nn.Module
) -> Float[Tensor, "B S D"]:
    """Eq. (3).  T_s = Attention(F_s, B_S, B_S)

    `attention` is one of `ATTENTION`; `is_token` says which wordpieces are B_S."""
    return attention(F_s, X, is_token[:, None])  # [L4] [CLS] is one of them, [SEP] is not


def span_representation(
    T_s: Float[Tensor, "B S D"], F_s: Float[Tensor, "B S D"], H_s: Float[Tensor, "B S 2*D"], W: Float[Tensor, "B S w"]
) -> Float[Tensor, "B S r"]:
    """Eq. (4).  R_s = [T_s ; F_s ; H_s ; W_{j+1}]

    `W` embeds the width j+1 of each span, in words."""
    return torch.cat([T_s, F_s, H_s, W], -1)


def classify_spans(R_s: Float[Tensor, "B S r"], ffnn: nn.Module) -> Float[Tensor, "B S E"]:
    """Eq. (5).  y_s = Softmax(FFNN(R_s))

    The scores before the Softmax (logits), as a stable cross-entropy needs them; `span_posterior` applies it."""
    return ffnn(R_s)


def span_posterior(y_s: Float[Tensor, "B S E"]) -> Float[Tensor, "B S E"]:
    """The Softmax of eq. (5): the posterior of each entity type, NoneEntity included."""
    return y_s.softmax(-1)


def filter_spans(y_s: Float[Tensor, "B S E"], is_span: Bool[Tensor, "B S"]) -> tuple[Int[Tensor, "B M"], Bool[Tensor, "B M"]]:
    """Span filtration: the predicted entities, as indexes of the spans whose highest class is not NoneEntity.

    M is the largest number of them in a sentence; the second result says which of the M are there."""
    is_entity = (y_s.argmax(-1) > 0) & is_span
    count = is_entity.sum(-1)
    kept = is_entity.int().argsort(dim=-1, descending=True, stable=True)[:, : int(count.amax())]
    return kept, torch.arange(kept.shape[1], device=y_s.device) < count[:, None]


# -- §3.2  Relation classification and filtration -------------------------------------------------------------------------


def all_pairs(is_entity: Bool[Tensor, "B M"]) -> tuple[Int[Tensor, "B P 2"], Bool[Tensor, "B P"]]:
    """⟨s_1, s_2⟩ ∈ {E ⊗ E}, s.t. s_1 ≠ s_2: every ordered pair of two of the M entities, and whether both are there."""
    B, M = is_entity.shape
    pairs = (~torch.eye(M, dtype=torch.bool, device=is_entity.device)).nonzero().expand(B, -1, 2)  # [L19] (1, 2) and (2, 1)
    return pairs, is_entity.gather(1, pairs[..., 0]) & is_entity.gather(1, pairs[..., 1])


def relation_tuple(R_s: Float[Tensor, "B S r"], pairs: Int[Tensor, "B P 2"], ffnn: nn.Module) -> Float[Tensor, "B P h"]:
    """Eq. (6).  H_r = [FFNN(R_{s_1}) ; FFNN(R_{s_2})]

    `pairs` are indexes of spans, so each span is reduced once, however many pairs it is in."""
    reduced = ffnn(R_s)  # [L27] one FFNN for both arguments
    return torch.cat([take(reduced, pairs[..., 0]), take(reduced, pairs[..., 1])], -1)


def local_context(
    H_r: Float[Tensor, "B P h"], X: Float[Tensor, "B N D"], between: Bool[Tensor, "B P N"], attention: nn.Module
) -> Float[Tensor, "B P D"]:
    """Eq. (7).  F_r = Attention(H_r, B_c, B_c)

    `between` says which wordpieces are B_c, those between the pair's two spans."""
    return attention(H_r, X, between)  # [L5] zero where nothing is between


def sentence_context(
    H_r: Float[Tensor, "B P h"], X: Float[Tensor, "B N D"], is_token: Bool[Tensor, "B N"], attention: nn.Module
) -> Float[Tensor, "B P D"]:
    """Eq. (8).  T_r = Attention(H_r, B_S, B_S)

    B_S as in eq. (3), by an attention of its own."""
    return attention(H_r, X, is_token[:, None])  # [L4]


def relation_representation(
    H_r: Float[Tensor, "B P h"], F_r: Float[Tensor, "B P D"], T_r: Float[Tensor, "B P D"], ffnn_F: nn.Module, ffnn_T: nn.Module
) -> Float[Tensor, "B P q"]:
    """Eq. (9).  R_r = [H_r ; FFNN_F(F_r) ; FFNN_T(T_r)]

    Two different FFNNs, which keep the contexts in proportion to H_r."""
    return torch.cat([H_r, ffnn_F(F_r), ffnn_T(T_r)], -1)


def classify_relations(R_r: Float[Tensor, "B P q"], ffnn: nn.Module) -> Float[Tensor, "B P c"]:
    """Eq. (10).  y_r = Softmax(FFNN(R_r))

    The scores before the Softmax (logits); `relation_posterior` applies it. c is C, but C-1 under sigmoid-bce."""
    return ffnn(R_r)


def relation_posterior(y_r: Float[Tensor, "B P c"], reading: str) -> Float[Tensor, "B P C"]:
    """The Softmax of eq. (10): the posterior of each relation type, NoneRelation included.

    Under sigmoid-bce each type has a posterior of its own, and NoneRelation none: its column is 0 [L6]."""
    return nn.functional.pad(y_r.sigmoid(), (1, 0)) if reading == "sigmoid-bce" else y_r.softmax(-1)


def filter_relations(
    posterior: Float[Tensor, "B P C"], is_pair: Bool[Tensor, "B P"], reading: str, threshold: float
) -> Bool[Tensor, "B P C"]:
    """Relation filtration: which type each pair holds, the highest-scored one unless that is NoneRelation.

    Under sigmoid-bce all above the `threshold`, so a pair can hold several [L6]."""
    holds = posterior > threshold
    if reading != "sigmoid-bce":
        holds = nn.functional.one_hot(posterior.argmax(-1), posterior.shape[-1]).bool()
    holds[..., 0] = False
    return holds & is_pair[..., None]


# -- §3.4  Model training -------------------------------------------------------------------------------------------------


def mean_over(loss: Float[Tensor, "B K"], there: Bool[Tensor, "B K"]) -> Float[Tensor, ""]:
    """The mean over the samples that are there, of whatever sentence; 0 if there is none."""
    return loss.masked_fill(~there, 0.0).sum() / there.sum().clamp(min=1)  # [L28]


def span_loss(y_s: Float[Tensor, "B S E"], t_s: Int[Tensor, "B S"], is_span: Bool[Tensor, "B S"]) -> Float[Tensor, ""]:
    """L^s: the cross-entropy of the span classification; `t_s` is each span's true type, 0 for NoneEntity."""
    return mean_over(nn.functional.cross_entropy(y_s.mT, t_s, reduction="none"), is_span)


def relation_loss(
    y_r: Float[Tensor, "B P c"], t_r: Float[Tensor, "B P C"], is_pair: Bool[Tensor, "B P"], reading: str
) -> Float[Tensor, ""]:
    """L^r: the "binary cross-entropy loss of relation classification", in one of three readings [L6].

    `t_r` is 1 at each type a pair truly holds, or at NoneRelation. "softmax-bce", to the letter: binary cross-entropy of
    the Softmax; "softmax-ce": cross-entropy; "sigmoid-bce", SpERT's: a sigmoid for each type, without NoneRelation."""
    if reading == "softmax-bce":
        log_p, itself = y_r.log_softmax(-1), torch.eye(y_r.shape[-1], dtype=torch.bool, device=y_r.device)
        others = log_p[..., None, :].masked_fill(itself, torch.finfo(log_p.dtype).min)
        log_not = others.logsumexp(-1)  # log(1 - p) from the other types: exact where p rounds to 1
        loss = -(t_r * log_p + (1 - t_r) * log_not).mean(-1)
    elif reading == "softmax-ce":
        loss = -(t_r * y_r.log_softmax(-1)).sum(-1) / t_r.sum(-1).clamp(min=1)
    else:
        loss = nn.functional.binary_cross_entropy_with_logits(y_r, t_r[..., 1:], reduction="none")
        loss = loss.sum(-1) / max(1, loss.shape[-1])  # the mean, but 0 where there is no type
    return mean_over(loss, is_pair)


def joint_loss(
    L_s: Float[Tensor, ""], L_r: Float[Tensor, ""], span_weight: float = 0.4, relation_weight: float = 0.6
) -> Float[Tensor, ""]:
    """Eq. (11).  L = 0.4 L^s + 0.6 L^r

    SpERT weighs both by 1."""
    return span_weight * L_s + relation_weight * L_r


# -- The model ------------------------------------------------------------------------------------------------------------


TINY = dict(hidden_size=64, num_attention_heads=4, intermediate_size=128)
# BERT with random weights, by name. base: BERT-base's architecture, for measuring. tiny has no layers, so that what the toy
# corpus needs has to come from the paper's equations.
RANDOM = {"base": {}} | {name: {**TINY, "num_hidden_layers": k} for k, name in enumerate(("tiny", "tiny-1", "tiny-2"))}


def build_encoder(source, vocabulary: int) -> nn.Module:
    """The encoder (§3): one of `RANDOM`; the folder or hub name of any `AutoModel`; or, from a saved run, the description of
    one whose weights come later."""
    from transformers import AutoConfig, AutoModel

    if isinstance(source, str) and source in RANDOM:
        source = {"model_type": "bert", "vocab_size": vocabulary, **RANDOM[source]}
    if isinstance(source, dict):
        encoder = AutoModel.from_config(AutoConfig.for_model(**source), dtype=torch.float32)
    else:
        # float32, else one stored in half precision stays so
        encoder, found = AutoModel.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
        if lost := sorted(name for name in found["missing_keys"] if "pooler" not in name):
            raise ValueError(f"the weights there lack {lost[0]} and {len(lost) - 1} more")
    if encoder.config.is_encoder_decoder:
        raise ValueError("it has a decoder, too; it must be an encoder alone, as BERT is")
    if hasattr(encoder, "pooler"):
        encoder.pooler = None  # reads [CLS] only, and nothing here reads it
    return encoder


class SpanRel(nn.Module):
    """The whole model of Figure 2. It only calls the functions above, in the paper's order.

    `E` and `C` count the entity and relation types, NoneEntity and NoneRelation included."""

    def __init__(self, config: Config, encoder: nn.Module, E: int, C: int):
        super().__init__()
        self.config, self.encoder, self.D = config, encoder, encoder.config.hidden_size
        self.width = nn.Embedding(config.max_width, config.width_dim)  # [L18] as many rows as widths can occur
        self.build_heads(E, C - 1 if config.relation_loss == "sigmoid-bce" else C)

    def build_heads(self, E: int, c: int):
        """The parameters above the encoder [L32]: those that the setting uses, and no others."""
        D, config, off, hidden = self.D, self.config, self.config.ablate, self.config.hidden
        if config.attention == "multihead" and (D % config.heads or hidden % config.heads):
            raise ValueError(f"--heads {config.heads} must divide the encoder's width {D} and --hidden {hidden}")
        Attend, layers = ATTENTION[config.attention], config.layers
        if "span-specific" not in off or "span-sentence" not in off:  # else F_s has no use
            self.mlp = FFNN(D, 1, layers, config)
        if "span-sentence" not in off:
            self.attention_s = Attend(D, D, config)  # [L10] each of (3), (7), (8) has an attention of its own
        r = (2 if "span-specific" in off else 4) * D + config.width_dim
        self.ffnn_s, self.ffnn_pair = FFNN(r, E, layers, config), FFNN(r, hidden, layers, config)
        if "local" not in off:
            self.attention_c = Attend(2 * hidden, D, config)
        self.ffnn_F = FFNN(D, hidden, config.context_layers, config)
        if "relation-sentence" not in off:
            self.attention_S = Attend(2 * hidden, D, config)
            self.ffnn_T = FFNN(D, hidden, config.context_layers, config)
        self.ffnn_r = FFNN((3 if "relation-sentence" in off else 4) * hidden, c, layers, config)

    def embed(self, input_ids, attention_mask, is_token) -> Tensor:
        """B_S = [X_0 … X_n]: the encoder's embeddings, and zero where no token of B_S is, so that 0 · X is 0."""
        X = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return X.masked_fill(~is_token[..., None], 0.0)

    def represent_spans(self, X, is_token, spans, widths) -> Tensor:
        """R_s: eq. (1)–(4), with the ablations of Table 3."""
        off, inside, W = self.config.ablate, mask_inside(spans, X.shape[1]), self.width(widths - 1)  # [L1] row j is width j+1
        if "span-specific" not in off or "span-sentence" not in off:
            F_s = span_specific(token_weights(token_scores(X, self.mlp), inside), X)
        if "span-sentence" in off:
            T_s = X[:, :1].expand(-1, spans.shape[1], -1)  # [CLS] instead
        else:
            T_s = span_context(F_s, X, is_token, self.attention_s)  # [L20] F_s stays the query, even without span-specific
        if "span-specific" in off:
            return torch.cat([T_s, masked_max(X, inside), W], -1)  # max pooling instead of [F_s; H_s]
        return span_representation(T_s, F_s, span_ends(X, spans), W)

    def represent_pairs(self, X, is_token, spans, R_s, pairs) -> Tensor:
        """R_r: eq. (6)–(9), with the ablations of Table 4."""
        off, between = self.config.ablate, mask_between(spans, pairs, X.shape[1])
        H_r = relation_tuple(R_s, pairs, self.ffnn_pair)
        F_r = masked_max(X, between) if "local" in off else local_context(H_r, X, between, self.attention_c)
        if "relation-sentence" in off:
            return torch.cat([H_r, self.ffnn_F(F_r)], -1)  # without FFNN_T(T_r)
        T_r = sentence_context(H_r, X, is_token, self.attention_S)
        return relation_representation(H_r, F_r, T_r, self.ffnn_F, self.ffnn_T)

    def score_pairs(self, X, is_token, spans, R_s, pairs) -> Tensor:
        """y_r: eq. (6)–(10)."""
        return classify_relations(self.represent_pairs(X, is_token, spans, R_s, pairs), self.ffnn_r)

    def forward(self, input_ids, attention_mask, is_token, spans, widths, pairs, arguments: int) -> tuple[Tensor, Tensor]:
        """y_s and y_r of given spans and pairs, for training. Pairs are made of the first `arguments` spans, the gold ones
        [L26], so that eq. (6) need not reduce the others."""
        X = self.embed(input_ids, attention_mask, is_token)
        R_s = self.represent_spans(X, is_token, spans, widths)
        y_s = classify_spans(R_s, self.ffnn_s)
        return y_s, self.score_pairs(X, is_token, spans[:, :arguments], R_s[:, :arguments], pairs)

    def loss(self, y_s, t_s, is_span, y_r, t_r, is_pair, shares=(1.0, 1.0)) -> tuple[Tensor, Tensor, Tensor]:
        """L of eq. (11) and its parts L^s and L^r; of several processes each gives its share of the means."""
        L_s = shares[0] * span_loss(y_s, t_s, is_span)
        L_r = shares[1] * relation_loss(y_r, t_r, is_pair, self.config.relation_loss)
        return joint_loss(L_s, L_r, self.config.span_weight, self.config.relation_weight), L_s, L_r

    def predict(self, input_ids, attention_mask, is_token, spans, widths, is_span) -> list[tuple[list, list]]:
        """Classification and filtration of all given spans, then of the pairs of those kept [L26]; call `eval()` first.

        For each sentence, its entities [(span, type, posterior)] and its relations [(head, tail, type, posterior)]: `span`
        counts the spans given, `head` and `tail` count the entities returned."""
        with torch.no_grad():
            X = self.embed(input_ids, attention_mask, is_token)
            rows = self.config.chunk // (X.shape[0] * X.shape[1] * max(self.D, self.config.hidden))
            R_s = in_chunks(lambda s, w: self.represent_spans(X, is_token, s, w), rows, spans, widths)
            y_s = classify_spans(R_s, self.ffnn_s).float()
            kept, is_entity = filter_spans(y_s, is_span)
            pairs, is_pair = all_pairs(is_entity)
            y_s, R_s, spans = take(y_s, kept), take(R_s, kept), take(spans, kept)
            y_r = in_chunks(lambda p: self.score_pairs(X, is_token, spans, R_s, p), rows, pairs).float()
        return self.collect(y_s.cpu(), kept.cpu(), is_entity.cpu(), y_r.cpu(), pairs.cpu(), is_pair.cpu())

    def collect(self, y_s, kept, is_entity, y_r, pairs, is_pair) -> list[tuple[list, list]]:
        """The lists that `predict` returns, from its tensors."""
        found = [([], []) for _ in kept]
        kind, posterior = y_s.argmax(-1), span_posterior(y_s)
        for b, m in is_entity.nonzero().tolist():
            found[b][0].append((int(kept[b, m]), int(kind[b, m]), float(posterior[b, m, kind[b, m]])))
        posterior = relation_posterior(y_r, self.config.relation_loss)
        holds = filter_relations(posterior, is_pair, self.config.relation_loss, self.config.threshold)
        for b, p, c in holds.nonzero().tolist():
            found[b][1].append((*pairs[b, p].tolist(), c, float(posterior[b, p, c])))
        return found


# -- The baseline ---------------------------------------------------------------------------------------------------------


class SpERT(SpanRel):
    """SpERT (Eberts and Ulges 2019) as its authors published it, which is not the paper's "base" of Tables 3 and 4 [L30].

    span = [CLS ; max pooling of B_s ; width] and pair = [max pooling of B_c ; both spans' pooling and widths], each through
    dropout and one linear layer. Its other settings are `SPERT`, above."""

    def build_heads(self, E: int, c: int):
        """Two linear layers, each behind a dropout."""
        D, w = self.D, self.config.width_dim
        widths = (2 * D + w, E), (3 * D + 2 * w, c)
        self.ffnn_s, self.ffnn_r = (nn.Sequential(nn.Dropout(self.config.dropout), nn.Linear(*width)) for width in widths)
        for layer in (self.width, self.ffnn_s[1], self.ffnn_r[1]):
            nn.init.normal_(layer.weight, std=0.02)  # [L32] as BERT's own layers
        for layer in (self.ffnn_s[1], self.ffnn_r[1]):
            nn.init.zeros_(layer.bias)

    def represent_spans(self, X, is_token, spans, widths) -> Tensor:
        """[X_0 ; max pooling of B_s ; W]"""
        pooled = masked_max(X, mask_inside(spans, X.shape[1]))
        return torch.cat([X[:, :1].expand(pooled.shape), pooled, self.width(widths - 1)], -1)

    def represent_pairs(self, X, is_token, spans, R_s, pairs) -> Tensor:
        """[max pooling of B_c ; max pooling and W of s_1 ; the same of s_2]"""
        F_r, R_s = masked_max(X, mask_between(spans, pairs, X.shape[1])), R_s[..., self.D :]  # without [CLS]
        return torch.cat([F_r, take(R_s, pairs[..., 0]), take(R_s, pairs[..., 1])], -1)


# -- Shape checks, and the index of the equations -------------------------------------------------------------------------

if os.environ.get("SPANREL_SHAPES", "on") != "off":  # off: for long runs
    from beartype import beartype

    for _owner in (sys.modules[__name__], Attention, *ATTENTION.values()):
        for _name, _thing in list(vars(_owner).items()):
            if isinstance(_thing, FunctionType) and _thing.__module__ == __name__:
                setattr(_owner, _name, jaxtyped(_thing, typechecker=beartype))

EQUATIONS = {  # in the paper's order
    "1": span_ends, "2a": token_scores, "2b": token_weights, "2c": span_specific, "3": span_context,
    "4": span_representation, "5": classify_spans, "6": relation_tuple, "7": local_context, "8": sentence_context,
    "9": relation_representation, "10": classify_relations, "11": joint_loss,
}  # fmt: skip
