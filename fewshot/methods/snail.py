"""Simple neural attentive learner (SNAIL).

Mishra, Rohaninejad, Chen, Abbeel: A Simple Neural Attentive Meta-Learner, ICLR 2018, arXiv 1707.03141.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.methods.base import Method


class Sequences(NamedTuple):
    """For every query the sequence of the S support examples and itself; they differ in their last place alone."""

    support: Tensor
    """[T, S, C]; nothing that comes before the query depends on it, so that this is the same for all queries."""
    query: Tensor
    """[T, Q, C], the last places."""

    def append(self, support: Tensor, query: Tensor) -> Sequences:
        """The same with further features, [T, S, *] and [T, Q, *], beside those there are."""
        return Sequences(torch.cat([self.support, support], dim=-1), torch.cat([self.query, query], dim=-1))


class DenseBlock(nn.Module):
    """Appends tanh(a) * sigmoid(b), with a and b from a causal convolution of length two (section 3).

    Args:
        size: C, features of every place.
        n_filters: features that are appended.
        dilation: how many places back the convolution sees beside the place itself; zeros where that is before the
            first.
    """

    def __init__(self, size: int, n_filters: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.here = nn.Linear(size, 2 * n_filters)
        self.back = nn.Linear(size, 2 * n_filters, bias=False)

    def forward(self, sequences: Sequences) -> Sequences:
        support, query = sequences
        n_support = support.shape[1]
        back = self.back(F.pad(support, (0, 0, self.dilation, 0))[:, : n_support + 1])  # [T, S+1, 2F]
        return sequences.append(
            gated(self.here(support) + back[:, :n_support]), gated(self.here(query) + back[:, n_support:])
        )


class AttentionBlock(nn.Module):
    """Appends what every place reads from itself and those before it, by scaled inner products (section 3).

    Args:
        size: C, features of every place.
        key_size: of keys and queries.
        value_size: features that are appended.
    """

    def __init__(self, size: int, key_size: int, value_size: int) -> None:
        super().__init__()
        self.keys = nn.Linear(size, key_size)
        self.queries = nn.Linear(size, key_size)
        self.values = nn.Linear(size, value_size)

    def forward(self, sequences: Sequences) -> Sequences:
        support, query = sequences
        keys, values, own_values = self.keys(support), self.values(support), self.values(query)
        asked = self.queries(query) / math.sqrt(keys.shape[-1])
        own = (asked * self.keys(query)).sum(-1, keepdim=True)  # [T, Q, 1]
        attention = torch.cat([asked @ keys.transpose(1, 2), own], dim=-1).softmax(-1)  # [T, Q, S+1]
        read = attention[..., :-1] @ values + attention[..., -1:] * own_values
        return sequences.append(
            F.scaled_dot_product_attention(self.queries(support), keys, values, is_causal=True), read
        )


class SNAIL(Method):
    """Logits at the end of a sequence of labelled support examples and a query without label (sections 3 and 5.1).

    Three layers of causal attention with two stacks of dilated causal convolutions between them see one-hot labels
    beside the embeddings, zeros for the query. Every query ends a sequence of its own: inductive. As the layers are
    causal, the support is computed once a task, and of the queries their own places alone. The labels make it serve one
    number of ways, and renumbering the classes changes more than the order of the logits.

    Departures: the support is ordered by label, and by the sum of the features within a class, where the paper leaves
    the order to chance: otherwise the order in which a task arrives would change its predictions. The embedding is a
    linear layer on the backbone's features with LayerNorm. Dilations are 1, 2, 4, ..., which reach every place before;
    the paper's listing begins at 2.

    Args:
        n_way: N, the only number of ways it serves.
        n_shot: K of the support that the convolutions are made to reach back over; other shots are served too.
        n_filters: of the convolutions; 128 in the paper. Keys have a half, two and four times as many features in the
            three attention layers, values half as many as keys, as in the paper.
        embedding: size of the embedding; 64 in the paper for Omniglot.
        dropout: of the backbone's features, in training; the paper has dropout in its embedding network.
    """

    transductive = False
    relabels = False

    def __init__(
        self, n_way: int = 5, n_shot: int = 1, n_filters: int = 128, embedding: int = 64, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if n_way < 2 or n_shot < 1 or n_filters < 4 or embedding < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"n_way={n_way}, n_shot={n_shot}, n_filters={n_filters}, embedding={embedding}, dropout={dropout}; "
                "ways are at least 2, filters at least 4, shots and embedding at least 1, dropout is in [0, 1)"
            )
        self.n_way: int = n_way
        self.embedding, self.dropout = embedding, dropout
        self.embed: nn.Sequential | None = None
        dilations = [2**i for i in range(math.ceil(math.log2(n_way * n_shot + 1)))]
        blocks: list[nn.Module] = []
        size = embedding + n_way
        for key_size in (n_filters // 2, 2 * n_filters, 4 * n_filters):
            for dilation in dilations if blocks else []:
                blocks.append(DenseBlock(size, n_filters, dilation))
                size += n_filters
            blocks.append(AttentionBlock(size, key_size, key_size // 2))
            size += key_size // 2
        self.blocks = nn.ModuleList(blocks)
        self.readout = nn.Linear(size, n_way)

    def build(self, n_features: int) -> None:
        self.embed = nn.Sequential(
            nn.Dropout(self.dropout), nn.Linear(n_features, self.embedding), nn.LayerNorm(self.embedding)
        )

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        self.check_ways(n_way)
        assert self.embed is not None, "build comes first"
        support, support_labels = in_order(support, support_labels)
        known = F.one_hot(support_labels, n_way).to(support.dtype)
        unknown = query.new_zeros(*query.shape[:2], n_way)
        sequences = Sequences(self.embed(support), self.embed(query)).append(known, unknown)
        for block in self.blocks:
            sequences = block(sequences)
        return self.readout(sequences.query)


def gated(features: Tensor) -> Tensor:
    """The first half of the features by tanh times the second by a sigmoid, [..., 2F] to [..., F]."""
    signal, gate = features.chunk(2, dim=-1)
    return signal.tanh() * gate.sigmoid()


def in_order(support: Tensor, support_labels: Tensor) -> tuple[Tensor, Tensor]:
    """Support [T, S, D] and labels [T, S] by label, and by the sum of the features within a class."""
    order = support.sum(-1).argsort(-1)  # [T, S]
    order = order.gather(1, support_labels.gather(1, order).argsort(dim=-1, stable=True))
    return support.gather(1, order.unsqueeze(-1).expand_as(support)), support_labels.gather(1, order)
