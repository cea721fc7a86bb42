"""Graph neural networks.

Garcia, Bruna: Few-Shot Learning with Graph Neural Networks, ICLR 2018, arXiv 1711.04043.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.methods.base import Method


class GNN(Method):
    """Messages between a query and the support over a graph whose edges are learned (sections 4.1 and 4.2).

    Every query has a graph of its own, of the S support examples and itself: inductive. A node starts as its embedding
    beside its label, one-hot for the support and uniform for the query. Each layer computes its edges anew, a
    perceptron of |x_i - x_j| with a softmax over the other nodes; a node's new features come from its own
    and the weighted mean of the others' and are appended to the old ones, as in a dense network. A last layer
    reads the query's logits. What does not depend on the query is computed once a task, and of the last layer only the
    query's row. The label part of a node makes it serve one number of ways, and renumbering the classes changes more
    than the order of the logits.

    Departures: LayerNorm, which looks at one pair or node alone, where the published code has BatchNorm over all pairs
    of a batch: its statistics would tie tasks and queries together. The embedding is a linear layer on the backbone's
    features, the last one of the paper's embedding network.

    Args:
        n_way: N, the only number of ways it serves.
        n_layers: graph convolutions before the one that reads the logits; 2 in the published code.
        width: hidden units of the edge perceptrons, twice as many in their first two of four layers, and half as many
            features that a layer appends; 96 in the published code.
        embedding: size of the embedding; 128 in the published code.
        dropout: of the backbone's features, in training; the published embedding network has dropout.
    """

    transductive = False
    relabels = False

    def __init__(
        self, n_way: int = 5, n_layers: int = 2, width: int = 96, embedding: int = 128, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if n_way < 2 or n_layers < 1 or width < 2 or embedding < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"n_way={n_way}, n_layers={n_layers}, width={width}, embedding={embedding}, dropout={dropout}; ways "
                "and width are at least 2, layers and embedding at least 1, dropout is in [0, 1)"
            )
        self.n_way: int = n_way
        self.embedding, self.dropout = embedding, dropout
        self.embed: nn.Sequential | None = None
        sizes = [embedding + n_way + layer * (width // 2) for layer in range(n_layers + 1)]
        self.edges = nn.ModuleList(edge_scores(size, width) for size in sizes)
        self.convolutions = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * size, width // 2), nn.LayerNorm(width // 2), nn.LeakyReLU())
            for size in sizes[:-1]
        )
        self.readout = nn.Linear(2 * sizes[-1], n_way)

    def build(self, n_features: int) -> None:
        self.embed = nn.Sequential(
            nn.Dropout(self.dropout), nn.Linear(n_features, self.embedding), nn.LayerNorm(self.embedding)
        )

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        self.check_ways(n_way)
        assert self.embed is not None, "build comes first"
        support, query = self.embed(support), self.embed(query)
        known = F.one_hot(support_labels, n_way).to(support.dtype)
        unknown = query.new_full((*query.shape[:2], n_way), 1 / n_way)
        support = torch.cat([support, known], dim=-1).unsqueeze(1)  # [T, 1, S, C], or [T, Q, S, C] after a layer
        query = torch.cat([query, unknown], dim=-1).unsqueeze(2)  # [T, Q, 1, C]
        n_support = support.shape[2]
        for score, convolve in zip(self.edges[:-1], self.convolutions, strict=True):
            nodes = torch.cat([support.expand(-1, query.shape[1], -1, -1), query], dim=2)  # [T, Q, S+1, C]
            messages = adjacency(score, support, query) @ nodes
            nodes = torch.cat([nodes, convolve(torch.cat([nodes, messages], dim=-1))], dim=-1)
            support, query = nodes[:, :, :n_support], nodes[:, :, n_support:]
        weights = self.edges[-1]((support - query).abs()).transpose(2, 3).softmax(-1)  # [T, Q, 1, S]
        return self.readout(torch.cat([query, weights @ support], dim=-1)).squeeze(2)


def edge_scores(size: int, width: int) -> nn.Sequential:
    """The perceptron of |x_i - x_j|, [..., size] to [..., 1]; without a last bias, which the softmax would not see."""
    layers: list[nn.Module] = []
    for hidden in (2 * width, 2 * width, width, width):
        layers += [nn.Linear(size, hidden), nn.LayerNorm(hidden), nn.LeakyReLU()]
        size = hidden
    return nn.Sequential(*layers, nn.Linear(size, 1, bias=False))


def adjacency(score: nn.Module, support: Tensor, query: Tensor) -> Tensor:
    """Weights of the edges from every node to the others, [T, Q, S+1, S+1]; rows sum to one, the diagonal is zero.

    Args:
        score: |x_i - x_j| to the weight before the softmax.
        support: [T, 1, S, C] where all queries of a task see the same, otherwise [T, Q, S, C].
        query: [T, Q, 1, C], the last node.
    """
    n_support = support.shape[2]
    first, second = torch.triu_indices(n_support, n_support, offset=1, device=support.device)
    among_support = score((support[:, :, first] - support[:, :, second]).abs()).squeeze(-1)  # [T, 1 or Q, S (S-1) / 2]
    with_query = score((support - query).abs()).squeeze(-1)  # [T, Q, S]
    scores = with_query.new_full((*with_query.shape[:2], n_support + 1, n_support + 1), -torch.inf)
    scores[:, :, first, second] = scores[:, :, second, first] = among_support
    scores[:, :, n_support, :-1] = scores[:, :, :-1, n_support] = with_query
    return scores.softmax(-1)
