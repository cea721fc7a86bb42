"""Rotation: telling apart how far pictures were turned, an auxiliary task of pre-training.

Gidaris, Bursuc, Komodakis, Pérez, Cord: Boosting Few-Shot Visual Learning with Self-Supervision, ICCV 2019,
arXiv 1906.05186. Mangla, Singh, Sinha, Kumari, Balasubramanian, Krishnamurthy: Charting the Right Manifold: Manifold
Mixup for Few-shot Learning, WACV 2020, arXiv 1907.12087 (S2M2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

N_TURNS = 4
"""By 0, 90, 180 and 270 degrees."""
IGNORED = -100
"""The label of what a task leaves out, which torch's cross-entropy passes over."""


@dataclass(frozen=True)
class Rotation:
    """The four-way task beside the classes, and what part it has in the loss.

    Every chosen picture is encoded upright and turned by 90, 180 and 270 degrees, and a classifier of its own on the
    backbone's features tells the four apart.

    Departure: the paper's rotation classifier has convolutions of its own, which work on the backbone's last map; here,
    as in S2M2, it works on the features, which every backbone has. It is a cosine classifier, like the paper's.

    Attributes:
        weight: of the rotation loss beside the cross-entropy of the classes (published: 1).
        share: part of a batch's pictures that are turned, above 0 up to 1: a step does 1 + 3 share times the work, with
            mixup 1 + 4 share. Published: 1; S2M2 turns a quarter of the batch where it mixes too.
        classify_turned: whether the turned pictures count in the classes' cross-entropy as well, as they do in the
            programs of both papers; what the features tell of a class is then to be the same for every turn.

    Raises:
        ValueError: a weight or a share out of range.
    """

    weight: float = 1.0
    share: float = 1.0
    classify_turned: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.weight < math.inf:
            raise ValueError(f"rotation.weight={self.weight}; give a number above 0, or leave rotation out")
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"rotation.share={self.share}; give a number above 0 and at most 1, or leave rotation out")

    def extended(self, pictures: Tensor, labels: Tensor, *, upright: bool) -> tuple[Tensor, Tensor, Tensor]:
        """A batch with the turned copies of its first pictures behind it, class labels, and turns as labels.

        R is how many pictures the share comes to, at least one; batches come shuffled, so that the first are any.
        Copies are ordered by turn; IGNORED labels what does not count in one of the two tasks.

        Args:
            pictures: [B, C, H, H].
            labels: [B] int64, the classes.
            upright: whether the pictures of the batch stand for their own upright copies, which are added otherwise.

        Returns:
            Pictures [B + 3R, C, H, H], or [B + 4R, C, H, H] with upright copies; class labels and turns, [B + 3R] or
            [B + 4R] int64, turns as counterclockwise quarter turns 0..3.
        """
        n_turned = max(1, round(self.share * len(pictures)))
        turns = range(1 if upright else 0, N_TURNS)
        copies = [torch.rot90(pictures[:n_turned], turn, dims=(2, 3)) for turn in turns]
        of_copies = torch.tensor(turns, device=labels.device).repeat_interleave(n_turned)
        of_batch = torch.full_like(labels, IGNORED)
        if upright:
            of_batch[:n_turned] = 0
        classes = labels[:n_turned].repeat(len(turns))
        if not self.classify_turned:
            classes = torch.full_like(classes, IGNORED)
        return torch.cat([pictures, *copies]), torch.cat([labels, classes]), torch.cat([of_batch, of_copies])


def counted_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of right predictions, 0-dimensional, among the rows whose label is not IGNORED.

    Args:
        logits: [B, C].
        labels: [B] int64.
    """
    return (logits.argmax(-1) == labels).sum() / (labels != IGNORED).sum()
