"""Prototypical networks.

Snell, Swersky, Zemel: Prototypical Networks for Few-shot Learning, NeurIPS 2017, arXiv 1703.05175.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewshot.functional.features import class_means, squared_distances
from fewshot.methods.base import Method
from fewshot.methods.options import check_above


class ProtoNet(Method):
    """Each query's squared Euclidean distance to the class means of the support (eq. 1 and 2 of the paper).

    Args:
        temperature: multiplies the negative squared distances; 1 as in the paper.
        learn_temperature: whether the temperature is trained, from the value given (not in the paper).

    Raises:
        ValueError: an option out of its range.
    """

    transductive = False

    def __init__(self, temperature: float = 1.0, learn_temperature: bool = False) -> None:
        super().__init__()
        check_above(0, temperature=temperature)
        self.temperature = nn.Parameter(torch.tensor(float(temperature))) if learn_temperature else float(temperature)

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        return -self.temperature * squared_distances(query, class_means(support, support_labels, n_way))
