"""Initialisers: what SIB and its kin make class weights of, before the queries are looked at."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from fewshot.functional.features import class_means
from fewshot.methods.construction import Recorded
from fewshot.methods.options import check_at_least, check_width


class Initializer(Recorded, nn.Module, ABC):
    """lambda: turns a support set into the class weights that refinement starts from."""

    def build(self, n_features: int) -> None:
        """Make the parameters whose shape depends on the feature size D = n_features."""

    @abstractmethod
    def forward(self, support: Tensor, support_labels: Tensor, n_way: int) -> Tensor:
        """theta0 [T, N, D] from features [T, S, D] of length one and labels [T, S]."""


class ScaledClassMeans(Initializer):
    """The published initialiser: class means of the normalised support features times a learned vector (section 4.1).

    Args:
        n_features: D; None leaves it to `build`. The learned vector starts at one.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(self, n_features: int | None = None) -> None:
        super().__init__()
        check_at_least(1, n_features=n_features)
        self.weight: nn.Parameter | nn.UninitializedParameter = nn.UninitializedParameter()
        if n_features is not None:
            self.build(n_features)

    def build(self, n_features: int) -> None:
        if not isinstance(self.weight, nn.UninitializedParameter):
            check_width("initialiser", self.weight, n_features)
            return
        self.weight = nn.Parameter(torch.ones(n_features))

    def forward(self, support: Tensor, support_labels: Tensor, n_way: int) -> Tensor:
        return class_means(support, support_labels, n_way) * self.weight
