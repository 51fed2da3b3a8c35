"""SpERT (Eberts and Ulges 2019) as its authors published it. It is not the "base" of Tables 3 and 4 [L30]."""

import torch
from torch import nn

from baselines.readings import WithReading
from spanrel import mask_between, mask_inside, take

# What its authors published, where it differs from the defaults of `Config` and of `Settings`.
CONFIG = dict(dropout=0.1, width_dim=25, relation_loss="sigmoid-bce", span_weight=1.0, relation_weight=1.0)
SETTINGS = dict(batch_size=2, lr=5e-5, head_lr=5e-5, negative_count=100)


def masked_max(X, mask):
    """Max pooling of X (B N D) over what each mask (B K N) says is there; zeros where nothing is [L5]."""
    with torch.no_grad():  # a gradient through all B K N D numbers takes four times as long
        top = X[:, None].masked_fill(~mask[..., None], float("-inf")).max(2).indices
    return X.gather(1, top).masked_fill(~mask.any(-1, keepdim=True), 0.0)


class SpERT(WithReading):
    """span = [CLS ; max pooling of B_s ; W], pair = [max pooling of B_c ; pooling and W of both spans].
    Each goes through a dropout and one linear layer."""

    def build_layers(self, E: int, C: int):
        """Two linear layers, each behind a dropout, with BERT's own initial weights [L32]."""
        D, w = self.D, self.config.width_dim
        self.ffnn_s = nn.Sequential(nn.Dropout(self.config.dropout), nn.Linear(2 * D + w, E))
        self.ffnn_r = nn.Sequential(nn.Dropout(self.config.dropout), nn.Linear(3 * D + 2 * w, C))
        for layer in (self.width, self.ffnn_s[1], self.ffnn_r[1]):
            nn.init.normal_(layer.weight, std=0.02)
        for layer in (self.ffnn_s[1], self.ffnn_r[1]):
            nn.init.zeros_(layer.bias)

    def represent_spans(self, X, is_token, spans, widths):
        """[X_0 ; max pooling of B_s ; W]"""
        pooled = masked_max(X, mask_inside(spans, X.shape[1]))
        return torch.cat([X[:, :1].expand(pooled.shape), pooled, self.width(widths - 1)], -1)

    def represent_pairs(self, X, is_token, spans, R_s, pairs):
        """[max pooling of B_c ; max pooling and W of s_1 ; max pooling and W of s_2]"""
        F_r = masked_max(X, mask_between(spans, pairs, X.shape[1]))
        without_cls = R_s[..., self.D :]
        return torch.cat([F_r, take(without_cls, pairs[..., 0]), take(without_cls, pairs[..., 1])], -1)
