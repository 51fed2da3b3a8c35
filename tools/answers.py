"""Our answers to the exercises of `tutorial.ipynb`, as a student may write them.
`python -m tools.lesson --solutions FILE` puts them into the notebook."""

import torch

import spanrel

# -- §3.1  Spans ---------------------------------------------------------------------------------------------


def enumerate_spans(n, max_width):
    spans = []
    for start in range(n):
        spans += [(start, end) for end in range(start + 1, min(start + max_width, n) + 1)]
    return spans


def mask_inside(spans, N):
    position = torch.arange(N)
    return (spans[..., :1] <= position) & (position < spans[..., 1:])


def span_ends(X, spans):
    return torch.cat([spanrel.take(X, spans[..., 0]), spanrel.take(X, spans[..., 1] - 1)], -1)


def token_scores(X, mlp):
    return mlp(X).squeeze(-1)


def token_weights(V, inside):
    alpha = V[:, None].masked_fill(~inside, torch.finfo(V.dtype).min).softmax(-1)
    return alpha.masked_fill(~inside, 0.0)


def span_specific(alpha, X):
    return alpha @ X


def leaky_weights(V, inside):
    return V.softmax(-1)[:, None].expand(inside.shape)


def span_context(F_s, X, is_token, attend):
    return attend(F_s, X, is_token[:, None])


def span_representation(T_s, F_s, H_s, W):
    return torch.cat([T_s, F_s, H_s, W], -1)


def first_layer(T_s, F_s, X, W, spans, linear):
    D = X.shape[-1]
    of_T, of_F, of_first, of_last, of_W = linear.weight.split([D, D, D, D, W.shape[-1]], -1)
    first = spanrel.take(X @ of_first.T, spans[..., 0])
    last = spanrel.take(X @ of_last.T, spans[..., 1] - 1)
    return T_s @ of_T.T + F_s @ of_F.T + first + last + W @ of_W.T + linear.bias


def classify_spans(R_s, ffnn):
    return ffnn(R_s).softmax(-1)


def filter_spans(y_s, is_span):
    keep = (y_s.argmax(-1) > 0) & is_span
    most = int(keep.sum(-1).max())
    kept = keep.int().argsort(dim=-1, descending=True, stable=True)[:, :most]
    return kept, keep.gather(1, kept)


# -- §3.2  Relations -----------------------------------------------------------------------------------------


def relation_tuple(R_s, pairs, ffnn):
    reduced = ffnn(R_s)
    return torch.cat([spanrel.take(reduced, pairs[..., 0]), spanrel.take(reduced, pairs[..., 1])], -1)


def mask_between(spans, pairs, N):
    head, tail = spanrel.take(spans, pairs[..., 0]), spanrel.take(spans, pairs[..., 1])
    start = torch.minimum(head[..., 1], tail[..., 1])
    end = torch.maximum(head[..., 0], tail[..., 0])
    return spanrel.mask_inside(torch.stack([start, end], -1), N)


def local_context(H_r, X, between, attend):
    return attend(H_r, X, between)


def relation_representation(H_r, F_r, T_r, ffnn_F, ffnn_T):
    return torch.cat([H_r, ffnn_F(F_r), ffnn_T(T_r)], -1)


def classify_relations(R_r, ffnn):
    return ffnn(R_r).softmax(-1)


# -- §3.3  Attention -----------------------------------------------------------------------------------------


def attend(Q, K, V, mask):
    score = Q @ K.mT / Q.shape[-1] ** 0.5
    weights = score.masked_fill(~mask, torch.finfo(score.dtype).min).softmax(-1)
    return weights.masked_fill(~mask, 0.0) @ V


def multi_head(Q, K, V, mask, heads):
    Q, K, V = (spanrel.split_heads(rows, heads) for rows in (Q, K, V))
    mixed = spanrel.masked_softmax(Q @ K.mT / Q.shape[-1] ** 0.5, mask[:, None]) @ V
    return mixed.transpose(1, 2).flatten(2)


def ignores_query(weights, Q, K, mask):
    return torch.allclose(weights(Q, K, mask), weights(2 * Q.flip(-1) + 1, K, mask))


# -- §3.4  Training, scores, and an ablation -----------------------------------------------------------------


def joint_loss(L_s, L_r, span_weight=0.4, relation_weight=0.6):
    return span_weight * L_s + relation_weight * L_r


def reading_of(z, t, gradient):
    of_cross_entropy = z.softmax(-1) - t
    return "softmax-ce" if torch.allclose(gradient, of_cross_entropy, atol=1e-5) else "softmax-bce"


def idle_share(sentences, rate):
    idle = []
    for s in sentences:
        if s.relations:
            n = len({(entity.start, entity.end) for entity in s.entities})
            idle.append(n * (n - 1) - len(s.relations) < rate * len(s.relations))
    return sum(idle) / len(idle)


def micro_f1(gold, predicted):
    correct = sum(len(a & b) for a, b in zip(gold, predicted))
    marked = sum(map(len, gold)) + sum(map(len, predicted))
    return 200 * correct / marked if marked else 0.0


def without_width(model, X, is_token, spans, widths):
    R_s = model.represent_spans(X, is_token, spans, widths).clone()
    R_s[..., -model.config.width_dim :] = 0.0
    return R_s
