"""Accuracy over episodes with its 95 % interval."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric


class AccuracyInterval(NamedTuple):
    """Mean accuracy over episodes, as a fraction of one, and the half-width of its 95 % interval."""

    accuracy: float
    ci95: float
    n_episodes: int

    def __str__(self) -> str:
        return f"{100 * self.accuracy:.2f} +- {100 * self.ci95:.2f} %"


class EpisodeAccuracy(Metric):
    """Mean accuracy over episodes and its 95 % interval, 1.96 std / sqrt(n), std with n - 1 in the denominator.

    Integers are accumulated, the number of correct queries of each episode and its square, so the order of episodes,
    the batch size and the number of ranks cannot change a digit. All episodes must have the same number of queries.
    The interval of fewer than two episodes is not a number.
    """

    full_state_update = False
    n_episodes: Tensor
    n_query: Tensor
    correct: Tensor
    correct_squared: Tensor

    def __init__(self) -> None:
        super().__init__()
        zero = torch.zeros((), dtype=torch.int64)
        self.add_state("n_episodes", zero.clone(), dist_reduce_fx="sum")
        self.add_state("correct", zero.clone(), dist_reduce_fx="sum")
        self.add_state("correct_squared", zero.clone(), dist_reduce_fx="sum")
        self.add_state("n_query", zero.clone(), dist_reduce_fx="max")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count the correct queries of a batch of episodes.

        Args:
            logits: [T, Q, N], or any scores whose largest entry is the prediction.
            labels: [T, Q] int64.
        """
        tasks, n_query = labels.shape
        if self.n_episodes > 0 and self.n_query != n_query:
            raise ValueError(
                f"episodes with {n_query} queries after episodes with {int(self.n_query)}; "
                "measure each size with an EpisodeAccuracy of its own"
            )
        correct = (logits.argmax(-1) == labels).sum(-1)  # [T]
        self.n_episodes += tasks
        self.n_query = torch.full_like(self.n_query, n_query)
        self.correct += correct.sum()
        self.correct_squared += correct.square().sum()

    def compute(self) -> AccuracyInterval:
        """The accuracy of all episodes of all ranks so far."""
        n, queries = int(self.n_episodes), int(self.n_query)
        total, squared = int(self.correct), int(self.correct_squared)
        if n == 0 or queries == 0:
            return AccuracyInterval(math.nan, math.nan, n)
        accuracy = total / (n * queries)
        if n == 1:
            return AccuracyInterval(accuracy, math.nan, n)
        # n * sum of squares - square of sum, exact in integers
        variance = (n * squared - total * total) / (n * (n - 1)) / queries**2
        return AccuracyInterval(accuracy, 1.96 * math.sqrt(variance / n), n)
