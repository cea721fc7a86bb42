"""The one type that every stage shares: a batch of few-shot episodes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

PADDING = -1
"""Number of an episode that only keeps a device busy while others have one left; it counts in no result."""
STRANGER = -1
"""Label of a query that is of none of the episode's classes; training of UniversalSIB has them."""


class Episode(NamedTuple):
    """A batch of T few-shot episodes (tasks) of the same size.

    Letters: T episodes, N ways, S support pictures of an episode (N*K when balanced), Q query pictures of an episode
    in all, and ``*`` the shape of one input: ``[C, H, W]`` for a picture, ``[D]`` for a feature vector.

    A NamedTuple, because Lightning moves those between devices as they are and leaves the plain int alone.
    """

    support: Tensor
    """[T, S, *] labelled inputs."""
    support_labels: Tensor
    """[T, S] int64 in 0..N-1, numbered inside the episode."""
    query: Tensor
    """[T, Q, *] unlabelled inputs."""
    query_labels: Tensor | None
    """[T, Q] int64 in 0..N-1 or STRANGER, or None where they are not known (prediction)."""
    n_way: int
    """N, the number of classes of every episode of the batch."""
    numbers: Tensor | None = None
    """[T] int64, which episodes of the split these are; PADDING throughout in a batch that is not to be counted."""
    support_index: Tensor | None = None
    """[T, S] int64, which pictures of the split the support holds."""
    query_index: Tensor | None = None
    """[T, Q] int64, which pictures of the split the query holds."""

    @property
    def n_tasks(self) -> int:
        """T, the number of episodes in the batch."""
        return self.support.shape[0]

    @property
    def holds_features(self) -> bool:
        """Whether the inputs are feature vectors [T, *, D] rather than pictures [T, *, C, H, W]."""
        return self.support.ndim == 3

    @property
    def is_padding(self) -> bool:
        """Whether no result is to count this batch. Reads a number, which waits for the device."""
        return self.numbers is not None and int(self.numbers[0]) == PADDING

    def known_query_labels(self) -> Tensor:
        """Query labels [T, Q]; ValueError where they are not known."""
        if self.query_labels is None:
            raise ValueError("these episodes have no query labels; they can be predicted, not trained on or tested")
        return self.query_labels

    def check(self) -> Episode:
        """Return the episode itself; raise ValueError where shapes or labels do not fit together."""
        tasks, size = self.support_labels.shape
        if self.support.shape[:2] != (tasks, size):
            raise ValueError(
                f"support is {list(self.support.shape)} but support_labels is {list(self.support_labels.shape)}; "
                "both start with [T, S]"
            )
        if self.query.shape[0] != tasks or self.query.shape[2:] != self.support.shape[2:]:
            raise ValueError(
                f"query is {list(self.query.shape)} but support is {list(self.support.shape)}; "
                "they differ in their second dimension only"
            )
        if self.query_labels is not None and self.query_labels.shape != self.query.shape[:2]:
            raise ValueError(
                f"query_labels is {list(self.query_labels.shape)} but query is {list(self.query.shape)}; "
                "both start with [T, Q]"
            )
        present = torch.zeros(tasks, self.n_way, dtype=torch.bool, device=self.support_labels.device)
        if size and (int(self.support_labels.min()) < 0 or int(self.support_labels.max()) >= self.n_way):
            raise ValueError(
                f"support_labels run from {int(self.support_labels.min())} to {int(self.support_labels.max())}; "
                f"with n_way={self.n_way} they lie in 0..{self.n_way - 1}"
            )
        present.scatter_(1, self.support_labels, True)
        if not bool(present.all()):
            task, label = (~present).nonzero()[0].tolist()
            raise ValueError(
                f"episode {task} of the batch has no support picture of class {label} (n_way={self.n_way})"
            )
        return self
