"""Right answers to the exercises in other styles than `tools/answers.py`, and wrong ones in other forms than
those of `tools/exercises.py`. A check passes all of the former, and gives each of the latter its name."""

import copy
import itertools
import math

import numpy
import torch
from torch import nn

import spanrel
from spanrel import take

RIGHT = []  # (exercise, answer)
WRONG = []  # (exercise, answer, how the name of the misconception begins)


def right(name):
    """Lists a right answer to an exercise."""

    def listed(answer):
        RIGHT.append((name, answer))
        return answer

    return listed


def wrong(name, misconception):
    """Lists a wrong answer to an exercise."""

    def listed(answer):
        WRONG.append((name, answer, misconception))
        return answer

    return listed


def rows_of(index):
    """The number of the sentence for each place of an index."""
    return torch.arange(index.shape[0])[:, None].expand_as(index)


# -- §3.1  Spans ---------------------------------------------------------------------------------------------


@right("enumerate_spans")
def spans_by_loops(n, max_width):
    spans = []
    for start in range(n):
        for width in range(1, max_width + 1):
            if start + width <= n:
                spans.append((start, start + width))
    return spans


@right("enumerate_spans")
def spans_by_combinations(n, max_width):
    return [(a, b) for a, b in itertools.combinations(range(n + 1), 2) if b - a <= max_width]


@right("enumerate_spans")
def spans_by_width_sorted(n, max_width):
    spans = set()
    for width in range(1, max_width + 1):
        spans.update(zip(range(n), range(width, n + 1)))
    return sorted(spans)


@right("enumerate_spans")
def spans_by_a_triangle(n, max_width):
    band = torch.ones(n, n + 1).triu(1).tril(max_width)
    return list(map(tuple, band.nonzero().tolist()))


@right("span_ends")
def ends_by_indexing(X, spans):
    rows = rows_of(spans[..., 0])
    return torch.cat([X[rows, spans[..., 0]], X[rows, spans[..., 1] - 1]], -1)


@right("span_ends")
def ends_by_loops(X, spans):
    B, S, _ = spans.shape
    H_s = torch.zeros(B, S, 2 * X.shape[-1])
    for b in range(B):
        for s in range(S):
            start, end = spans[b, s]
            H_s[b, s] = torch.cat([X[b, start], X[b, end - 1]])
    return H_s


@right("span_ends")
def ends_by_one_hot(X, spans):
    N = X.shape[1]
    first = nn.functional.one_hot(spans[..., 0], N).to(X.dtype)
    last = nn.functional.one_hot(spans[..., 1] - 1, N).to(X.dtype)
    return torch.cat((first @ X, last @ X), dim=2)


@right("span_ends")
def ends_by_gather(X, spans):
    first = X.gather(1, spans[..., :1].expand(-1, -1, X.shape[-1]))
    last = X.gather(1, (spans[..., 1:] - 1).expand(-1, -1, X.shape[-1]))
    return torch.cat([first, last], -1)


@right("span_ends")
def ends_by_reshape(X, spans):
    index = torch.stack([spans[..., 0], spans[..., 1] - 1], -1)
    return take(X, index.flatten(1)).reshape(X.shape[0], -1, 2 * X.shape[-1])


@right("token_weights")
def weights_by_masked_softmax(V, inside):
    return spanrel.masked_softmax(V[:, None], inside)


@right("token_weights")
def weights_by_infinity(V, inside):
    alpha = V[:, None].masked_fill(~inside, -math.inf).softmax(-1)
    return alpha.masked_fill(~inside, 0.0)


@right("token_weights")
def weights_by_infinity_whose_gradient_is_finite(V, inside):
    return V[:, None].masked_fill(~inside, -math.inf).softmax(-1).nan_to_num()


@right("token_weights")
def weights_by_where(V, inside):
    scores = torch.where(inside, V.unsqueeze(1), torch.tensor(-1e9))
    return torch.where(inside, torch.softmax(scores, dim=-1), torch.tensor(0.0))


@right("token_weights")
def weights_by_hand(V, inside):
    V = V[:, None].expand(inside.shape)
    largest = V.masked_fill(~inside, -1e30).amax(-1, keepdim=True)
    powers = torch.where(inside, V - largest, -1e30).exp() * inside
    return powers / powers.sum(-1, keepdim=True).clamp(min=1e-9)


@right("token_weights")
def weights_by_loops(V, inside):
    alpha = torch.zeros(inside.shape)
    for b, s in itertools.product(range(inside.shape[0]), range(inside.shape[1])):
        words = inside[b, s].nonzero().flatten()
        if len(words):
            alpha[b, s, words] = V[b, words].softmax(0)
    return alpha


@right("token_weights")
def weights_in_place(V, inside):
    scores = V[:, None].repeat(1, inside.shape[1], 1)
    scores[~inside] = -1e9
    return scores.softmax(-1) * inside


@right("token_weights")
def weights_by_a_sum_of_masks(V, inside):
    return (V[:, None] + (inside.float() - 1) * 1e9).softmax(2) * inside.float()


@right("span_specific")
def sum_by_einsum(alpha, X):
    return torch.einsum("bsn,bnd->bsd", alpha, X)


@right("span_specific")
def sum_by_broadcasting(alpha, X):
    return (alpha[..., None] * X[:, None]).sum(2)


@right("span_specific")
def sum_by_loops(alpha, X):
    F_s = torch.zeros(alpha.shape[0], alpha.shape[1], X.shape[2])
    for b in range(alpha.shape[0]):
        for s in range(alpha.shape[1]):
            for n in range(alpha.shape[2]):
                F_s[b, s] += alpha[b, s, n] * X[b, n]
    return F_s


@right("span_specific")
def sum_sentence_by_sentence(alpha, X):
    return torch.stack([weights.matmul(words) for weights, words in zip(alpha, X)])


@right("leaky_weights")
def leaky_by_a_constant(V, inside):
    return torch.ones(inside.shape) / inside.shape[-1]


@right("leaky_weights")
def leaky_by_a_score_of_zero(V, inside):
    return (V[:, None] * inside).softmax(-1)


# -- §3.2  Relations -----------------------------------------------------------------------------------------


@right("relation_tuple")
def pairs_reduced_after_they_are_taken(R_s, pairs, ffnn):
    return torch.cat([ffnn(take(R_s, pairs[..., 0])), ffnn(take(R_s, pairs[..., 1]))], -1)


@right("relation_tuple")
def pairs_by_reshape(R_s, pairs, ffnn):
    B, P, _ = pairs.shape
    return take(ffnn(R_s), pairs.reshape(B, 2 * P)).reshape(B, P, -1)


@right("relation_tuple")
def pairs_by_indexing(R_s, pairs, ffnn):
    reduced = ffnn(R_s)
    sentence = torch.arange(len(pairs))[:, None, None]
    return reduced[sentence, pairs].flatten(2)


@right("relation_tuple")
def pairs_by_loops(R_s, pairs, ffnn):
    rows = []
    for b in range(pairs.shape[0]):
        row = [torch.cat([ffnn(R_s[b, head]), ffnn(R_s[b, tail])]) for head, tail in pairs[b]]
        rows.append(torch.stack(row))
    return torch.stack(rows)


@right("relation_tuple")
def pairs_by_one_hot(R_s, pairs, ffnn):
    chosen = nn.functional.one_hot(pairs, R_s.shape[1]).float()
    return torch.einsum("bpks,bsh->bpkh", chosen, ffnn(R_s)).flatten(2)


@right("mask_between")
def between_by_comparison(spans, pairs, n):
    rows, words = rows_of(pairs[..., 0]), torch.arange(n)
    head, tail = spans[rows, pairs[..., 0]], spans[rows, pairs[..., 1]]
    start = torch.minimum(head[..., 1], tail[..., 1])[..., None]
    end = torch.maximum(head[..., 0], tail[..., 0])[..., None]
    return (words >= start) & (words < end)


@right("mask_between")
def between_by_loops(spans, pairs, n):
    mask = torch.zeros(*pairs.shape[:2], n, dtype=torch.bool)
    for b in range(pairs.shape[0]):
        for p in range(pairs.shape[1]):
            (_, first_end), (second_start, _) = sorted(spans[b, pairs[b, p]].tolist())
            mask[b, p, first_end:second_start] = True
    return mask


@right("mask_between")
def between_by_either_order(spans, pairs, n):
    head, tail = take(spans, pairs[..., 0]), take(spans, pairs[..., 1])
    one = spanrel.mask_inside(torch.stack([head[..., 1], tail[..., 0]], -1), n)
    other = spanrel.mask_inside(torch.stack([tail[..., 1], head[..., 0]], -1), n)
    return one | other


@right("mask_between")
def between_by_what_is_behind_one_and_before_the_other(spans, pairs, n):
    ends = spans[torch.arange(len(spans))[:, None, None], pairs]
    return spanrel.mask_inside(torch.stack([ends[..., 1].amin(-1), ends[..., 0].amax(-1)], -1), n)


# -- §3.3  Attention -----------------------------------------------------------------------------------------


@right("attend")
def attend_by_masked_softmax(Q, K, V, mask):
    return spanrel.masked_softmax(Q @ K.mT / math.sqrt(Q.shape[-1]), mask) @ V


@right("attend")
def attend_by_filling_in_place(Q, K, V, mask):
    s = Q @ K.transpose(1, 2) / K.shape[-1] ** 0.5
    s[~mask] = -1e9
    return (s.softmax(-1) * mask) @ V


@right("attend")
def attend_by_loops(Q, K, V, mask):
    out = torch.zeros(Q.shape[0], Q.shape[1], V.shape[2])
    for b in range(Q.shape[0]):
        for q in range(Q.shape[1]):
            if mask[b, q].any():
                keys, values = K[b][mask[b, q]], V[b][mask[b, q]]
                out[b, q] = (keys @ Q[b, q] / Q.shape[-1] ** 0.5).softmax(0) @ values
    return out


@right("attend")
def attend_by_torch(Q, K, V, mask):
    mixed = nn.functional.scaled_dot_product_attention(Q, K, V, attn_mask=mask)
    return mixed.masked_fill(~mask.any(-1, keepdim=True), 0.0)


@right("attend")
def attend_by_einsum(Q, K, V, mask):
    scores = torch.einsum("bqd,bnd->bqn", Q, K) / Q.shape[-1] ** 0.5
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
    return torch.einsum("bqn,bnd->bqd", weights * mask, V)


@right("attend")
def attend_by_infinity(Q, K, V, mask):
    weights = (Q @ K.mT * Q.shape[-1] ** -0.5).masked_fill(~mask, -math.inf).softmax(-1)
    return weights.masked_fill(~mask, 0.0).bmm(V)


@right("attend")
def attend_and_zero_where_nothing_is_there(Q, K, V, mask):
    weights = (Q @ K.mT / Q.shape[-1] ** 0.5).masked_fill(~mask, -1e9).softmax(-1)
    return torch.where(mask.any(-1, keepdim=True), weights @ V, torch.zeros(()))


@right("attend")
def attend_with_scaled_queries(Q, K, V, mask):
    scores = ((Q / Q.shape[-1] ** 0.5)[:, :, None] * K[:, None]).sum(-1)
    largest = scores.masked_fill(~mask, -1e30).amax(-1, keepdim=True).detach()
    powers = (scores - largest).masked_fill(~mask, -1e30).exp() * mask
    return powers / powers.sum(-1, keepdim=True).clamp(min=1e-9) @ V


@right("ignores_query")
def ignores_a_shifted_query(weights, Q, K, mask):
    return torch.allclose(weights(Q, K, mask), weights(Q + 1, K, mask), atol=1e-6)


@right("ignores_query")
def ignores_a_random_query(weights, Q, K, mask):
    return torch.allclose(weights(Q, K, mask), weights(torch.randn_like(Q), K, mask), atol=1e-6)


@right("ignores_query")
def ignores_no_query_at_all(weights, Q, K, mask):
    return ((weights(Q, K, mask) - weights(torch.zeros_like(Q), K, mask)).abs() < 1e-5).all()


@right("ignores_query")
def has_no_gradient_by_its_query(weights, Q, K, mask):
    Q = Q.clone().requires_grad_()
    alpha = weights(Q, K, mask)
    (alpha * torch.arange(1.0, 1 + alpha.numel()).reshape(alpha.shape)).sum().backward()
    return bool((Q.grad.abs() < 1e-4).all())


# -- §3.4  Training, scores, and an ablation -----------------------------------------------------------------


@right("mask_inside")
def inside_by_loops(spans, n):
    mask = torch.zeros(*spans.shape[:2], n, dtype=torch.bool)
    for b, sentence in enumerate(spans.tolist()):
        for s, (start, end) in enumerate(sentence):
            mask[b, s, start:end] = True
    return mask


@right("mask_inside")
def inside_by_cumulative_sums(spans, n):
    steps = torch.zeros(*spans.shape[:2], n + 1, dtype=torch.long)
    steps.scatter_add_(-1, spans[..., :1], torch.ones_like(spans[..., :1]))
    steps.scatter_add_(-1, spans[..., 1:], -torch.ones_like(spans[..., 1:]))
    return steps.cumsum(-1)[..., :n] > 0


@right("token_scores")
def scores_by_index(X, mlp):
    return mlp(X)[..., 0]


@right("token_scores")
def scores_by_sentence(X, mlp):
    return torch.stack([mlp(sentence).reshape(-1) for sentence in X])


@right("span_context")
def context_by_expand(F_s, X, is_token, attend):
    return attend(query=F_s, context=X, mask=is_token.unsqueeze(1).expand(-1, F_s.shape[1], -1))


@right("span_representation")
def representation_by_parts(T_s, F_s, H_s, W):
    return torch.cat((torch.cat((T_s, F_s), dim=2), torch.cat((H_s, W), dim=2)), dim=2)


@right("first_layer")
def layer_by_einsum(T_s, F_s, X, W, spans, linear):
    D, out = X.shape[-1], linear.bias
    for k, part in enumerate((T_s, F_s)):
        out = out + torch.einsum("bsd,hd->bsh", part, linear.weight[:, k * D : (k + 1) * D])
    for end, k in ((spans[..., 0], 2), (spans[..., 1] - 1, 3)):
        once = nn.functional.linear(X, linear.weight[:, k * D : (k + 1) * D])
        out = out + once[rows_of(end), end]
    return out + nn.functional.linear(W, linear.weight[:, 4 * D :])


@right("classify_spans")
@right("classify_relations")
def posterior_by_torch(R_s, ffnn):
    return torch.softmax(ffnn(R_s), dim=-1)


@right("classify_spans")
@right("classify_relations")
def posterior_by_logsumexp(R_s, ffnn):
    z = ffnn(R_s)
    return (z - z.logsumexp(-1, keepdim=True)).exp()


@right("filter_spans")
def filtration_by_loops(y_s, is_span):
    rows = []
    for y, there in zip(y_s, is_span):
        rows.append([s for s in range(len(y)) if there[s] and y[s].argmax() != 0])
    most = max(map(len, rows))
    kept = torch.tensor([row + [0] * (most - len(row)) for row in rows], dtype=torch.long)
    mask = torch.tensor([[True] * len(row) + [False] * (most - len(row)) for row in rows], dtype=torch.bool)
    return kept.reshape(len(rows), most), mask.reshape(len(rows), most)


@right("filter_spans")
def filtration_by_padding(y_s, is_span):
    keep = is_span & (y_s.max(-1).indices != 0)
    rows = [row.nonzero()[:, 0] for row in keep]
    kept = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
    return [kept, torch.arange(kept.shape[1]) < keep.sum(-1, keepdim=True)]


@right("local_context")
def local_context_by_name(H_r, X, between, attend):
    return attend(mask=between, context=X, query=H_r)


@right("relation_representation")
def pair_by_hstack(H_r, F_r, T_r, ffnn_F, ffnn_T):
    return torch.concat((H_r, ffnn_F(F_r), ffnn_T(T_r)), dim=-1)


@right("multi_head")
def heads_by_loops(Q, K, V, mask, heads):
    slices = [rows.chunk(heads, -1) for rows in (Q, K, V)]
    mixed = []
    for q, k, v in zip(*slices):
        mixed.append(spanrel.masked_softmax(q @ k.mT / math.sqrt(q.shape[-1]), mask) @ v)
    return torch.cat(mixed, -1)


@right("multi_head")
def heads_by_einsum(Q, K, V, mask, heads):
    q, k, v = (rows.reshape(*rows.shape[:2], heads, -1) for rows in (Q, K, V))
    scores = torch.einsum("bqhd,bnhd->bhqn", q, k) / (Q.shape[-1] / heads) ** 0.5
    weights = scores.masked_fill(~mask[:, None], -1e30).softmax(-1) * mask[:, None]
    return torch.einsum("bhqn,bnhd->bqhd", weights, v).reshape(*Q.shape[:2], -1)


@right("reading_of")
def reading_by_autograd(z, t, gradient):
    z = z.clone().requires_grad_()
    spanrel.softmax_bce(z[None, None], t[None, None]).sum().backward()
    return "softmax-bce" if torch.allclose(z.grad, gradient, atol=1e-5) else "softmax-ce"


@right("reading_of")
def reading_by_cross_entropy(z, t, gradient):
    z = z.clone().requires_grad_()
    nn.functional.cross_entropy(z, t.argmax()).backward()
    return "softmax-ce" if (z.grad - gradient).abs().max() < 1e-5 else "softmax-bce"


@right("joint_loss")
def loss_by_dot_product(L_s, L_r, *weights):
    return torch.stack([L_s, L_r]) @ torch.tensor(weights or [0.4, 0.6], dtype=L_s.dtype)


@right("joint_loss")
def loss_by_add(L_s, L_r, span_weight=0.4, relation_weight=0.6):
    return torch.add(span_weight * L_s, L_r, alpha=relation_weight)


@right("idle_share")
def idle_by_loops(sentences, rate):
    idle = total = 0
    for sentence in sentences:
        if sentence.relations:
            spans = set()
            for entity in sentence.entities:
                spans.add((entity.start, entity.end))
            negatives = len(list(itertools.permutations(spans, 2))) - len(sentence.relations)
            idle += rate * len(sentence.relations) > negatives
            total += 1
    return idle / total


@right("idle_share")
def idle_by_a_mean(sentences, rate):
    flags = []
    for s in filter(lambda s: s.relations, sentences):
        n = len({(e.start, e.end) for e in s.entities})
        flags.append(n * (n - 1) - len(s.relations) < rate * len(s.relations))
    return torch.tensor(flags).float().mean().item()


@right("idle_share")
def idle_by_the_related_pairs(sentences, rate):
    flags = []
    for s in sentences:
        spans = {(e.start, e.end) for e in s.entities}
        related = {((r.head.start, r.head.end), (r.tail.start, r.tail.end)) for r in s.relations}
        negatives = [pair for pair in itertools.permutations(spans, 2) if pair not in related]
        if related:
            flags.append(len(negatives) < rate * len(related))
    return sum(flags) / len(flags)


@right("micro_f1")
def f1_by_the_hint(gold, predicted):
    correct = sum(len(g & p) for g, p in zip(gold, predicted))
    return 100 * 2 * correct / max(1, sum(map(len, gold)) + sum(map(len, predicted)))


@right("micro_f1")
def f1_by_precision_and_recall(gold, predicted):
    correct = wanted = given = 0
    for g, p in zip(gold, predicted):
        correct, wanted, given = correct + len(g.intersection(p)), wanted + len(g), given + len(p)
    if correct == 0:
        return 0
    precision, recall = correct / given, correct / wanted
    return 100 * 2 * precision * recall / (precision + recall)


@right("micro_f1")
def f1_of_numbered_items(gold, predicted):
    g, p = set(), set()
    for k in range(len(gold)):
        g.update((k, item) for item in gold[k])
        p.update((k, item) for item in predicted[k])
    return 200 * len(g & p) / (len(g) + len(p)) if g or p else 0.0


@right("without_width")
def zeros_in_place(model, X, is_token, spans, widths):
    R_s = model.represent_spans(X, is_token, spans, widths)
    R_s[..., -model.config.width_dim :] = 0
    return R_s


@right("without_width")
def zeros_by_concatenation(model, X, is_token, spans, widths):
    R_s = model.represent_spans(X, is_token, spans, widths)
    w = model.config.width_dim
    return torch.cat([R_s[..., :-w], torch.zeros(*R_s.shape[:2], w)], -1)


@right("without_width")
def zeros_by_split(model, X, is_token, spans, widths):
    R_s = model.represent_spans(X, is_token, spans, widths)
    kept, W = R_s.split([4 * X.shape[-1], model.config.width_dim], -1)
    return torch.cat([kept, 0 * W], -1)


@right("without_width")
def zeros_by_a_model_without_widths(model, X, is_token, spans, widths):
    model = copy.deepcopy(model)
    nn.init.zeros_(model.width.weight)
    return model.represent_spans(X, is_token, spans, widths)


@right("without_width")
@torch.no_grad()
def zeros_without_a_gradient(model, X, is_token, spans, widths):
    R_s = model.represent_spans(X, is_token, spans, widths).clone()
    return nn.functional.pad(R_s[..., : -model.config.width_dim], (0, model.config.width_dim))


# -- Wrong answers in other forms ----------------------------------------------------------------------------

LOST = "the numbers are right, but the gradient is lost"
NAN = "the numbers are right, but the gradient is NaN"


@wrong("span_ends", LOST)
def ends_of_lists(X, spans):
    rows = []
    for words, places in zip(X.tolist(), spans.tolist()):
        rows.append([words[start] + words[end - 1] for start, end in places])
    return torch.tensor(rows)


@wrong("span_ends", LOST)
@torch.no_grad()
def ends_without_a_gradient(X, spans):
    return spanrel.span_ends(X, spans)


@wrong("span_ends", "a tensor, please")
def ends_of_an_array(X, spans):
    X, spans = X.numpy(), spans.numpy()
    rows = numpy.arange(len(X))[:, None]
    return numpy.concatenate([X[rows, spans[..., 0]], X[rows, spans[..., 1] - 1]], -1)


@wrong("span_ends", "off by one: spans are [start, end)")
def ends_one_too_far(X, spans):
    rows = rows_of(spans[..., 0])
    return torch.cat([X[rows, spans[..., 0]], X[rows, spans[..., 1]]], -1)


@wrong("span_ends", "each sentence has its own numbers")
def ends_of_the_first_sentence(X, spans):
    H_s = torch.cat([X[0, spans[0, :, 0]], X[0, spans[0, :, 1] - 1]], -1)
    return H_s.expand(len(X), -1, -1)


@wrong("token_weights", LOST)
def weights_of_items(V, inside):
    alpha = torch.zeros(inside.shape)
    for b, s, n in inside.nonzero().tolist():
        words = inside[b, s].nonzero().flatten()
        largest = V[b, words].max().item()
        total = sum(math.exp(V[b, m].item() - largest) for m in words)
        alpha[b, s, n] = math.exp(V[b, n].item() - largest) / total
    return alpha


@wrong("token_weights", LOST)
def weights_through_numpy(V, inside):
    scores = numpy.where(inside.numpy(), V[:, None].numpy(), -1e9)
    powers = numpy.exp(scores - scores.max(-1, keepdims=True)) * inside.numpy()
    return torch.from_numpy(powers / powers.sum(-1, keepdims=True).clip(1e-9)).float()


@wrong("token_weights", "[:, None] is forgotten")
def weights_without_a_place_for_spans(V, inside):
    return V.masked_fill(~inside, -1e9).softmax(-1) * inside


@wrong("token_weights", "[:, None] is forgotten")
def weights_of_scores_that_are_expanded(V, inside):
    return V.expand(inside.shape).masked_fill(~inside, -math.inf).softmax(-1).masked_fill(~inside, 0)


@wrong("token_weights", "what is filled in is not low enough")
def weights_with_a_fill_of_a_thousand(V, inside):
    return torch.where(inside, V[:, None], torch.tensor(-1000.0)).softmax(-1) * inside


@wrong("token_weights", "exp(100) is beyond float32")
def weights_by_plain_powers(V, inside):
    powers = V.exp()[:, None].masked_fill(~inside, 0.0)
    return powers / (powers.sum(-1, keepdim=True) + 1e-10)


@wrong("token_weights", "the mask is inverted")
def weights_of_what_is_outside(V, inside):
    return V[:, None].masked_fill(inside, -1e9).softmax(-1).masked_fill(inside, 0.0)


@wrong("token_weights", NAN)
def weights_by_the_logarithm_of_the_mask(V, inside):
    return (V[:, None] + inside.float().log()).softmax(-1).nan_to_num(0.0)


@wrong("span_specific", "the sum runs over the words of its sentence")
def sum_of_all_sentences(alpha, X):
    return alpha @ X.sum(0)


@wrong("span_specific", LOST)
def sum_in_new_tensors(alpha, X):
    F_s = torch.zeros(*alpha.shape[:2], X.shape[2])
    for b, s in itertools.product(range(alpha.shape[0]), range(alpha.shape[1])):
        for n, weight in enumerate(alpha[b, s].tolist()):
            F_s[b, s] += weight * torch.tensor(X[b, n].tolist())
    return F_s


@wrong("relation_tuple", LOST)
def pairs_without_a_gradient(R_s, pairs, ffnn):
    with torch.no_grad():
        reduced = ffnn(R_s)
    return torch.cat([take(reduced, pairs[..., 0]), take(reduced, pairs[..., 1])], -1)


@wrong("relation_tuple", "the FFNN reduces one span at a time")
def pairs_concatenated_first(R_s, pairs, ffnn):
    return ffnn(take(R_s, pairs.flatten(1)).unflatten(1, (-1, 2)).flatten(2))


@wrong("relation_tuple", "head first")
def pairs_with_the_tail_first(R_s, pairs, ffnn):
    return spanrel.relation_tuple(R_s, pairs.flip(-1), ffnn)


@wrong("mask_between", "the tail may stand before the head")
def between_head_and_tail(spans, pairs, n):
    head, tail = take(spans, pairs[..., 0]), take(spans, pairs[..., 1])
    words = torch.arange(n)
    return (words >= head[..., 1:]) & (words < tail[..., :1])


@wrong("mask_between", "start is included")
def between_up_to_the_start(spans, pairs, n):
    ends, words = spans[torch.arange(len(spans))[:, None, None], pairs], torch.arange(n)
    return (words >= ends[..., 1].amin(-1, True)) & (words <= ends[..., 0].amax(-1, True))


@wrong("mask_between", "end is excluded: the word at end is between already")
def between_behind_the_end(spans, pairs, n):
    ends, words = spans[torch.arange(len(spans))[:, None, None], pairs], torch.arange(n)
    return (words > ends[..., 1].amin(-1, True)) & (words < ends[..., 0].amax(-1, True))


@wrong("attend", "mask[..., :1] asks for the first key alone")
def attend_by_the_first_mask(Q, K, V, mask):
    s = (Q @ K.mT / Q.shape[-1] ** 0.5).masked_fill(~mask, -1e9)
    return s.softmax(-1) @ V * mask[..., :1]


@wrong("attend", "what is filled in is not low enough")
def attend_with_a_fill_of_ten_thousand(Q, K, V, mask):
    return ((Q @ K.mT / Q.shape[-1] ** 0.5).masked_fill(~mask, -1e4).softmax(-1) * mask) @ V


@wrong("attend", "exp(100) is beyond float32")
def attend_by_plain_powers(Q, K, V, mask):
    powers = (Q @ K.mT / Q.shape[-1] ** 0.5).exp() * mask
    return powers @ V / powers.sum(-1, keepdim=True).clamp(min=1e-9)


@wrong("attend", LOST)
def attend_with_new_weights(Q, K, V, mask):
    weights = torch.tensor(spanrel.masked_softmax(Q @ K.mT / Q.shape[-1] ** 0.5, mask).tolist())
    return weights @ V.detach()


@wrong("attend", LOST)
def attend_with_weights_that_learn_nothing(Q, K, V, mask):
    return spanrel.masked_softmax(Q @ K.mT / Q.shape[-1] ** 0.5, mask).detach() @ V


@wrong("attend", NAN)
def attend_by_the_logarithm_of_the_mask(Q, K, V, mask):
    weights = (Q @ K.mT / Q.shape[-1] ** 0.5 + mask.float().log()).softmax(-1)
    return weights.nan_to_num(0.0) @ V


@wrong("attend", "√N for √d")
def attend_with_the_number_of_keys(Q, K, V, mask):
    scores = Q @ K.mT
    return spanrel.masked_softmax(scores / scores.shape[-1] ** 0.5, mask) @ V


@wrong("attend", "the mask is inverted")
def attend_to_what_is_not_there(Q, K, V, mask):
    return ((Q @ K.mT / Q.shape[-1] ** 0.5).masked_fill(mask, -1e9).softmax(-1) * ~mask) @ V


@wrong("ignores_query", "compare all weights")
def ignores_by_the_largest(weights, Q, K, mask):
    return bool((weights(Q, K, mask).argmax(-1) == weights(Q + 1, K, mask).argmax(-1)).all())


@wrong("ignores_query", "compare all weights")
def ignores_by_the_largest_of_no_query(weights, Q, K, mask):
    return torch.equal(weights(Q, K, mask).argmax(-1), weights(torch.zeros_like(Q), K, mask).argmax(-1))


@wrong("joint_loss", LOST)
def loss_of_items(L_s, L_r, span_weight=0.4, relation_weight=0.6):
    return span_weight * L_s.item() + relation_weight * L_r.item()


@wrong("joint_loss", LOST)
def loss_in_a_new_tensor(L_s, L_r, span_weight=0.4, relation_weight=0.6):
    return torch.tensor(span_weight * float(L_s) + relation_weight * float(L_r))


@wrong("idle_share", "count spans, not entities")
def idle_by_entities(sentences, rate):
    flags = []
    for s in sentences:
        if s.relations:
            n, k = len(s.entities), len(s.relations)
            flags.append(n * (n - 1) - k < rate * k)
    return sum(flags) / len(flags)


@wrong("multi_head", "√d of a slice")
def heads_with_the_root_of_the_whole(Q, K, V, mask, heads):
    q, k, v = (spanrel.split_heads(rows, heads) for rows in (Q, K, V))
    weights = (q @ k.mT / math.sqrt(Q.shape[-1])).masked_fill(~mask[:, None], -1e9).softmax(-1)
    return (weights * mask[:, None] @ v).transpose(1, 2).flatten(2)


@wrong("first_layer", "the bias is forgotten")
def layer_without_bias(T_s, F_s, X, W, spans, linear):
    return torch.cat([T_s, F_s, spanrel.span_ends(X, spans), W], -1) @ linear.weight.T


@wrong("filter_spans", "class 0 is NoneEntity")
def filtration_of_padding_alone(y_s, is_span):
    kept = is_span.int().argsort(dim=-1, descending=True, stable=True)[:, : int(is_span.sum(-1).max())]
    return kept, is_span.gather(1, kept)


@wrong("reading_of", "it says")
def reading_by_the_sum(z, t, gradient):
    return "softmax-ce" if gradient.sum().abs() < 1e-4 else "softmax-bce"
