"""Nearest class mean on the features: the yardstick that needs no training."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.functional.features import class_means, normalized
from fewshot.methods.base import Method
from fewshot.methods.options import check_above


class NearestClassMean(Method):
    """Cosine between a query and the mean of each class's L2-normalised support features.

    The nearest-mean classifier of Mensink, Verbeek, Perronnin, Csurka (Distance-based image classification, PAMI 2013)
    with cosine in place of a learned metric, which is how features of a cosine classifier are used without training.

    Args:
        scale: multiplies the cosine; it changes the probabilities, not the predicted class.

    Raises:
        ValueError: an option out of its range.
    """

    transductive = False

    def __init__(self, scale: float = 10.0) -> None:
        super().__init__()
        check_above(0, scale=scale)
        self.scale = scale

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        support, query = normalized(support), query
        means = normalized(class_means(support, support_labels, n_way))  # [T, N, D]
        length = torch.linalg.vector_norm(query, dim=-1, keepdim=True).clamp_min(1e-12)  # [T, Q, 1]
        # classes times queries is twice as fast as queries times classes
        return torch.bmm(means, query.transpose(1, 2)).transpose(1, 2) * (self.scale / length)
