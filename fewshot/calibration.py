"""How far probabilities can be believed: a temperature that mends them, and the error that is left.

Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017, arXiv 1706.04599.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

TEMPERATURES = torch.logspace(-1.5, 1.5, 61)
"""Those that are tried, 1/32 to 32, each 12 % above the one before."""
N_BINS = 15
"""Of confidences (the paper's section 3)."""
UNIT = 2**20
"""Sums are kept as integers of this part of one, so that the order of queries, batches and ranks changes no digit."""


class CalibrationTemperature(Metric):
    """The temperature t for which softmax(logits / t) says the labels best (section 4.2): least cross-entropy.

    Sums over the queries are kept for every temperature of a fixed grid, so memory does not grow; the parabola
    through the best one and its neighbours, over log t, says where the least lies between them.
    """

    full_state_update = False
    cross_entropies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("cross_entropies", torch.zeros(len(TEMPERATURES), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch of queries.

        Args:
            logits: [..., N].
            labels: [...] int64.
        """
        logits, labels = logits.flatten(0, -2).float(), labels.flatten()
        for place, temperature in enumerate(TEMPERATURES.tolist()):
            each = F.cross_entropy(logits / temperature, labels, reduction="none")
            self.cross_entropies[place] += (each.clamp_max(1e4) * UNIT).round().long().sum()

    def compute(self) -> float:
        """The temperature; 1 where no query was counted."""
        sums = self.cross_entropies.cpu()
        if not bool(sums.any()):
            return 1.0
        best = int(sums.argmin())
        place = float(best)
        if 0 < best < len(sums) - 1:
            left, middle, right = (float(value) for value in sums[best - 1 : best + 2])
            curvature = left - 2 * middle + right
            place += 0.5 * (left - right) / curvature if curvature > 0 else 0.0
        first, last = math.log(TEMPERATURES[0]), math.log(TEMPERATURES[-1])
        return math.exp(first + (last - first) * place / (len(sums) - 1))


class CalibrationError(Metric):
    """Expected calibration error: mean distance of confidence from accuracy over 15 bins of confidence (eq. 3).

    The confidence of a query is its largest probability; bins count by how many queries they hold.
    """

    full_state_update = False
    counts: Tensor
    correct: Tensor
    confidence: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("counts", "correct", "confidence"):
            self.add_state(name, torch.zeros(N_BINS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Count a batch of queries.

        Args:
            probabilities: [..., N], rows sum to one.
            labels: [...] int64.
        """
        confidence, predicted = probabilities.flatten(0, -2).float().max(-1)
        bins = (confidence * N_BINS).ceil().long().sub_(1).clamp_(0, N_BINS - 1)
        right = (predicted == labels.flatten()).long()
        for state, values in (
            (self.counts, torch.ones_like(right)),
            (self.correct, right * UNIT),
            (self.confidence, (confidence * UNIT).round().long()),
        ):
            state.index_add_(0, bins, values)

    def compute(self) -> float:
        """The error as a fraction of one; not a number where no query was counted."""
        total = int(self.counts.sum()) * UNIT
        return int((self.correct - self.confidence).abs().sum()) / total if total else math.nan
