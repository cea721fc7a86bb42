"""Relation networks.

Sung, Yang, Zhang, Xiang, Torr, Hospedales: Learning to Compare: Relation Network for Few-Shot Learning, CVPR 2018,
arXiv 1711.06025.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.functional.features import class_means
from fewshot.methods.base import Method, Refinement
from fewshot.methods.options import check_at_least


class RelationNetwork(Method):
    """A learned comparison of a query with each class, trained to be 1 for its own and 0 for the others (section 3.2).

    The comparator sees the mean of a class's support features beside the query's features and gives a relation score in
    0..1; the loss is the squared error. The logits are the scores before their sigmoid. Inductive: every query is
    classified alone.

    Departures: the comparator is a perceptron of three layers on feature vectors, where the paper has two convolutional
    blocks with BatchNorm on maps and two layers of 8 and 1: what is stored of a frozen backbone are vectors, and
    statistics over pairs of several tasks would tie the tasks together. The class is the mean of its examples rather
    than their sum, so that one comparator serves any number of shots.

    Args:
        width: hidden units of the comparator.
    """

    transductive = False
    of_class: nn.Linear
    of_query: nn.Linear

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        check_at_least(1, width=width)
        self.width = width
        self.comparison = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def build(self, n_features: int) -> None:
        # one layer on the pair, in its two halves: every class and every query is multiplied once, not once a pair
        self.of_class = nn.Linear(n_features, self.width)
        self.of_query = nn.Linear(n_features, self.width, bias=False)

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        classes = self.of_class(class_means(support, support_labels, n_way))  # [T, N, H]
        pairs = classes.unsqueeze(1) + self.of_query(query).unsqueeze(2)  # [T, Q, N, H]
        return self.comparison(pairs).squeeze(-1)

    def loss(self, refinement: Refinement, query_labels: Tensor) -> dict[str, Tensor]:
        """The squared error of the relation scores, averaged over all pairs, in place of the cross-entropy."""
        scores = refinement.logits[-1].sigmoid()
        target = (query_labels.unsqueeze(-1) == torch.arange(scores.shape[-1], device=scores.device)).to(scores.dtype)
        return {"squared_error": F.mse_loss(scores, target)}
