"""What FewShotModule counts over the episodes of a validation or a test, and what it makes of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import SumMetric

from fewshot.training.metrics import (
    CalibrationError,
    CalibrationTemperature,
    EpisodeAccuracy,
    EpisodeCounts,
    EpisodeLoss,
    correct_queries,
    is_defined,
    paired_difference,
)

COUNTED_TOGETHER = 2**18
"""Logits that wait to be counted: counting takes hardly longer for some hundred episodes than for one."""


class Waiting(NamedTuple):
    """Episodes that have not been counted yet."""

    logits: Tensor
    """[K+1, T, Q, N]"""
    labels: Tensor
    """[T, Q]"""
    nearest: Tensor | None
    """[T, Q, N]"""
    numbers: Tensor | None
    """[T]"""
    temperature: float | None

    def joins(self, other: Waiting) -> bool:
        """Whether both can be counted as one batch."""
        here = (self.logits.shape[2:], self.nearest is None, self.numbers is None, self.temperature)
        return here == (other.logits.shape[2:], other.nearest is None, other.numbers is None, other.temperature)


class Evaluation(nn.Module):
    """Accuracies of every step and of nearest class mean, the loss, and how far probabilities can be believed.

    Small batches are counted together, some hundred episodes at a time and before `results`.

    Args:
        n_steps: K of the method in evaluation mode.
        nearest_mean: whether nearest class mean is counted beside it, on the same features.
        fits_temperature: whether a temperature is fitted (validation), or the error measured that one leaves (test).
    """

    accuracies: Any

    def __init__(self, n_steps: int, *, nearest_mean: bool, fits_temperature: bool) -> None:
        super().__init__()
        self.n_steps, self.nearest_mean, self.fits_temperature = n_steps, nearest_mean, fits_temperature
        self.accuracies = self._accuracies()
        self.loss, self.counts = EpisodeLoss(), EpisodeCounts()
        self.temperature = CalibrationTemperature()
        self.ece, self.ece_uncalibrated = CalibrationError(), CalibrationError()
        self.undefined = SumMetric()
        self._waiting: list[Waiting] = []

    def _accuracies(self) -> nn.ModuleDict:
        names = [*(["nearest_mean"] if self.nearest_mean else []), *(f"step_{k}" for k in range(self.n_steps + 1))]
        return nn.ModuleDict({name: EpisodeAccuracy() for name in names})

    def reset(self, n_steps: int) -> None:
        """Forget what was counted, and count so many steps from here on."""
        self._waiting = []
        if n_steps != self.n_steps:
            self.n_steps = n_steps
            self.accuracies = self._accuracies().to(self.loss.device)
        metrics = (self.loss, self.counts, self.temperature, self.ece, self.ece_uncalibrated, self.undefined)
        for metric in (*metrics, *self.accuracies.values()):
            metric.reset()

    def update(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        nearest: Tensor | None,
        numbers: Tensor | None,
        temperature: float | None,
        counted: int,
    ) -> None:
        """Count a batch of T episodes.

        Args:
            logits: [K+1, T, Q, N].
            labels: [T, Q] int64.
            nearest: [T, Q, N] of nearest class mean, where it is counted.
            numbers: [T] of the episodes.
            temperature: of calibrated probabilities; None is 1.
            counted: how many of the episodes count; 0 for padding, of which a rank learns the sizes alone.
        """
        waiting = Waiting(
            logits[:, :counted],
            labels[:counted],
            None if nearest is None else nearest[:counted],
            None if numbers is None else numbers[:counted],
            temperature,
        )
        if self._waiting and not waiting.joins(self._waiting[-1]):
            self._count()
        self._waiting.append(waiting)
        if len(self._waiting) * logits.numel() >= COUNTED_TOGETHER:
            self._count()

    def _count(self) -> None:
        """Count the episodes that wait."""
        if not self._waiting:
            return
        parts, self._waiting = self._waiting, []
        logits = torch.cat([part.logits for part in parts], dim=1)  # [K+1, T, Q, N]
        labels = torch.cat([part.labels for part in parts])
        nearest = [part.nearest for part in parts if part.nearest is not None]
        numbers = [part.numbers for part in parts if part.numbers is not None]
        correct = {"nearest_mean": correct_queries(torch.cat(nearest), labels)} if nearest else {}
        correct |= {f"step_{step}": each for step, each in enumerate(correct_queries(logits, labels))}
        for name, each in correct.items():
            self.accuracies[name].update(each, labels)
        last = logits[-1]
        self.undefined.update((~is_defined(last)).any(-1).sum())
        if self.fits_temperature:
            self.temperature.update(last, labels)
        else:
            self.ece.update((last / (parts[0].temperature or 1.0)).softmax(-1), labels)
            self.ece_uncalibrated.update(last.softmax(-1), labels)
            if numbers:
                self.counts.update(torch.cat(numbers), list(correct.values()), labels)
        self.loss.update(F.cross_entropy(last.flatten(0, 1), labels.flatten()), len(labels))

    def results(self, temperature: float | None) -> dict[str, Any]:
        """What results.json says, by its keys.

        Args:
            temperature: what the calibration error was measured with, where none was fitted.
        """
        self._count()
        steps = [self.accuracies[f"step_{step}"].compute() for step in range(self.n_steps + 1)]
        found = {
            "accuracy": steps[-1].accuracy,
            "ci95": steps[-1].ci95,
            "n_episodes": steps[-1].n_episodes,
            "accuracy_per_step": [step.accuracy for step in steps],
            "ci95_per_step": [step.ci95 for step in steps],
        }
        if undefined := int(self.undefined.compute()):
            found["n_undefined"] = undefined
        if "nearest_mean" in self.accuracies:
            nearest = self.accuracies["nearest_mean"].compute()
            found |= {"accuracy_nearest_mean": nearest.accuracy, "ci95_nearest_mean": nearest.ci95}
        if self.fits_temperature:
            return {**found, "temperature": self.temperature.compute()}
        errors = {"ece": self.ece.compute(), "ece_uncalibrated": self.ece_uncalibrated.compute()}
        return {**found, "temperature": temperature, **errors, **self._paired()}

    def _paired(self) -> dict[str, Any]:
        """Correct queries of every episode, and what the last step gains over what it is compared with."""
        rows = self.counts.compute()  # [n, 1 + M]
        if not len(rows):
            return {}
        names, n_query = list(self.accuracies), int(self.accuracies["step_0"].n_query)
        gains = {}
        for column, name in enumerate(names[:-1], start=1):
            if name in ("nearest_mean", "step_0"):
                gain = paired_difference(rows[:, -1], rows[:, column], n_query)
                gains[name] = {"difference": gain.accuracy, "ci95": gain.ci95}
        return {"gain_over": gains, "episodes": {"columns": ["episode", *names], "rows": rows.tolist()}}


def warn_of_undefined(results: dict[str, Any], split: str, method: str) -> None:
    """Say how many episodes have queries whose logits are not numbers, where there are any."""
    if undefined := results.get("n_undefined"):
        rank_zero_warn(
            f"{split}: {undefined} of {results['n_episodes']} episodes have queries whose logits are NaN or infinite; "
            f"look at the options of {method}, at the features and at the precision"
        )
