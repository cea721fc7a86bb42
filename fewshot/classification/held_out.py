"""Labelled rows held out in turn: how far probabilities can be believed, and whether looking at all rows helps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from fewshot.classification.refinement import chunks, refined
from fewshot.methods.base import Method
from fewshot.training.metrics import BOUND, CalibrationTemperature, is_bound

EmbeddingsWithout: TypeAlias = Callable[[Tensor], Tensor]
MAX_FOLDS = 5
"""Times that a row of every class is taken out of the labelled ones, at most."""
ENOUGH = 1000
"""Rows held out after which no more are: what is read from them is then known to a percent and a half."""
CHANCE = 0.05
"""Looking at the unlabelled rows is said to hurt where chance alone would do as much harm less often than this."""


class HeldOut(NamedTuple):
    """How many of the labelled rows that were held out got their own label, before and after refinement."""

    rows: int
    """How many were held out; 0 where none could be, as with one labelled row in every class."""
    right_before: int = 0
    right_after: int = 0
    lost: int = 0
    """Right before and wrong after."""

    @property
    def chance(self) -> float:
        """How often as many or more would be lost, if each one whose answer turned was as likely lost as won.

        The exact one-sided sign test on pairs (McNemar, Psychometrika 1947).
        """
        won = self.right_after - self.right_before + self.lost
        turned = self.lost + won
        return sum(math.comb(turned, k) for k in range(self.lost, turned + 1)) / 2**turned

    @property
    def hurts(self) -> bool:
        """Whether after is worse than before by more than chance."""
        return self.right_after < self.right_before and self.chance < CHANCE

    def __str__(self) -> str:
        if not self.rows:
            return "cannot be checked: no two classes have two labelled ones, of which one could be held out"
        before, after = (100 * right / self.rows for right in (self.right_before, self.right_after))
        return f"{before:.0f} % of {self.rows} labelled ones held out are right before, {after:.0f} % after"


class HeldOutLogits(NamedTuple):
    """What a method says of labelled rows that it is not told the labels of. Letters: H rows held out, N classes."""

    before: Tensor
    """[H, N]."""
    after: Tensor
    """[H, N]."""
    labels: Tensor
    """[H] int64."""

    def counted(self) -> HeldOut:
        """How many are right."""
        before, after = (logits.argmax(1) == self.labels for logits in (self.before, self.after))
        return HeldOut(len(self.labels), int(before.sum()), int(after.sum()), int((before & ~after).sum()))

    def temperature(self, *, before: bool = False) -> float:
        """With which probabilities say the labels; 1 where none is held out. One at a bound is warned of."""
        if not len(self.labels):
            return 1.0
        metric = CalibrationTemperature().to(self.labels.device)
        metric.update(self.before if before else self.after, self.labels)
        temperature = metric.compute()
        if is_bound(temperature):
            warnings.warn(f"temperature {temperature:.3g}, {BOUND}", stacklevel=5)
        return temperature


def held_out_logits(
    method: Method,
    support: Tensor,
    support_labels: Tensor,
    unlabelled: Tensor,
    n_way: int,
    *,
    chunk_size: int | None = None,
    n_embeddings: int = 0,
    embeddings_without: EmbeddingsWithout | None = None,
) -> HeldOutLogits:
    """Logits of labelled rows held out, one a class and fold, which are classified jointly with the unlabelled.

    Embeddings of classes and the only one of a class are not held out, nor a single one by itself.

    Args: as of `fewshot.classification.adaptation.adapt`.
    """
    places = [(support_labels == c).nonzero().flatten() for c in range(n_way)]
    n_rows = len(support) - n_embeddings
    parts = [(support.new_zeros(0, n_way),) * 2]
    taken: list[int] = []
    for fold in range(min(MAX_FOLDS, max(len(one) for one in places))):
        if len(taken) >= ENOUGH:
            break
        out = [int(one[fold]) for one in places if len(one) >= 2 and fold < len(one) and int(one[fold]) < n_rows]
        if len(out) < 2:
            continue
        held = torch.tensor(out, device=support.device)
        stays = torch.ones(len(support), dtype=torch.bool, device=support.device)
        stays[held] = False
        if embeddings_without is not None:
            support = torch.cat([support[:n_rows], embeddings_without(held)])
        before, after, _ = refined(
            method,
            support[stays].unsqueeze(0),
            support_labels[stays].unsqueeze(0),
            torch.cat([support[held], unlabelled[chunks(len(unlabelled), chunk_size)[0]]]),
            n_way,
            method.most_together,
        )
        parts.append((before[: len(held)], after[: len(held)]))
        taken += out
    before, after = (torch.cat([part[side] for part in parts]) for side in (0, 1))
    return HeldOutLogits(before, after, support_labels[taken])
