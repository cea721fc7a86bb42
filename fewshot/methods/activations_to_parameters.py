"""Parameters predicted from activations.

Qiao, Liu, Shen, Yuille: Few-Shot Image Recognition by Predicting Parameters from Activations, CVPR 2018,
arXiv 1706.03466.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewshot.functional.cosine import cosine_logits
from fewshot.functional.features import class_means, normalized
from fewshot.methods.base import Method
from fewshot.methods.options import check_above, check_at_least


class ActivationsToParameters(Method):
    """Class weights that a network phi, the same for all classes, makes of mean activations (section 3 of the paper).

    As in the published code phi normalises its input, has two linear layers of the feature size that start as the
    identity, with a ReLU between them, and normalises its output: with features that are nowhere negative it starts as
    the nearest class mean by cosine. Inductive: every query is classified alone. On features, as published; the paper
    trains phi to tell all training classes apart at once, which episodes of as many ways do (data.train_n_way).

    Departures: logits are cosines times a learned scale, where the paper takes inner products with activations of
    whatever length. The paper classifies novel classes beside the training classes, and trains on means of a class's
    pictures now and then in place of single ones; here the statistic is the mean of the support.

    Args:
        n_layers: linear layers of phi: 2, or 1 for the paper's linear mapping; ImprintedWeights has none.
        scale: what the learned factor of the cosine starts at.

    Raises:
        ValueError: an option out of its range.
    """

    transductive = False
    phi: nn.Sequential

    def __init__(self, n_layers: int = 2, scale: float = 10.0) -> None:
        super().__init__()
        check_at_least(1, n_layers=n_layers)
        check_above(0, scale=scale)
        self.n_layers = n_layers
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def build(self, n_features: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(self.n_layers):
            linear = nn.Linear(n_features, n_features)
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [nn.ReLU(), linear] if layers else [linear]
        self.phi = nn.Sequential(*layers)

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        weights = self.phi(normalized(class_means(support, support_labels, n_way)))  # [T, N, D]
        return cosine_logits(normalized(query), weights, self.scale, 0.0)
