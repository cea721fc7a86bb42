"""Transductive propagation network (TPN).

Liu, Lee, Park, Kim, Yang, Hwang, Yang: Learning to Propagate Labels: Transductive Propagation Network for Few-shot
Learning, ICLR 2019, arXiv 1805.10002.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.functional.features import normalized, squared_distances
from fewshot.functional.graph import nearest, propagated, symmetrically_normalized
from fewshot.methods.base import Method, Refinement

START = -1.05
"""Added before the softplus, so that length scales start near 0.3, a fraction of the distances between directions."""


class TPN(Method):
    """Labels propagated over a graph of support and queries, (I - alpha W)^-1 Y (section 3.2 of the paper).

    W_ij = exp(-d(z_i / s_i, z_j / s_j) / 2) with d the squared distance and s_i a learned length scale of each example;
    kept where i is among the nearest of j or j among those of i, then symmetrically normalised. The loss is the cross-
    entropy of the propagated labels, support and queries weighing alike. Transductive; it makes no assumption about how
    many queries a class has.

    Departures: s_i = |z_i| g(z_i / |z_i|), where the paper has g(z_i): otherwise examples with small features are near
    all others, and with alpha close to 1 the class of the best connected support picture takes all queries (measured on
    features that were not trained for this method: 24 % at 5 ways). g is a perceptron on feature vectors (the paper:
    two convolutional blocks with BatchNorm on maps, then layers of 8 and 1), for the reasons given for RelationNetwork;
    its output goes through a softplus, because a length scale that crosses zero turns all distances infinite.

    Args:
        n_neighbours: k, examples that each is connected to, itself among them; 20 in the published code.
        alpha: how far labels spread, in [0, 1); 0.99 in the published code.
        width: hidden units of g.
    """

    def __init__(self, n_neighbours: int = 20, alpha: float = 0.99, width: int = 64) -> None:
        super().__init__()
        if n_neighbours < 1 or width < 1 or not 0 <= alpha < 1:
            raise ValueError(
                f"n_neighbours={n_neighbours}, alpha={alpha}, width={width}; the first and the last are at least 1, "
                "alpha is in [0, 1)"
            )
        self.n_neighbours, self.alpha, self.width = n_neighbours, alpha, width
        self.length_scale: nn.Sequential | None = None

    def build(self, n_features: int) -> None:
        layers = [nn.Linear(n_features, self.width), nn.ReLU(), nn.Linear(self.width, 8), nn.ReLU(), nn.Linear(8, 1)]
        self.length_scale = nn.Sequential(*layers)

    def refine(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Refinement:
        n_support, n_query = support.shape[1], query.shape[1]
        affinities = self._affinities(torch.cat([support, query], dim=1))
        known = F.one_hot(support_labels, n_way).to(query.dtype)
        labels = torch.cat([known, known.new_zeros(len(known), n_query, n_way)], dim=1)
        spread = propagated(affinities, labels, self.alpha)  # [T, S+Q, N]
        of_support = F.cross_entropy(spread[:, :n_support].flatten(0, 1), support_labels.flatten())
        share = n_support / max(n_query, 1)  # the queries' term is a mean over Q
        return Refinement(spread[:, n_support:].unsqueeze(0), losses={"support": share * of_support})

    def _affinities(self, features: Tensor) -> Tensor:
        """W, [T, n, n], of the features [T, n, D] of support and queries."""
        assert self.length_scale is not None, "build comes first"
        directions = normalized(features)
        scaled = directions / (F.softplus(self.length_scale(directions) + START) + 1e-3)
        affinities = torch.exp(-squared_distances(scaled, scaled) / 2)
        mutual = nearest(affinities, self.n_neighbours)
        return symmetrically_normalized(affinities * (mutual | mutual.transpose(1, 2)))
