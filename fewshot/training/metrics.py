"""Accuracy over episodes with its 95 % interval."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class AccuracyInterval(NamedTuple):
    """Mean accuracy over episodes, as a fraction of one, and the half-width of its 95 % interval."""

    accuracy: float
    ci95: float
    n_episodes: int

    def __str__(self) -> str:
        return f"{100 * self.accuracy:.2f}" + (f" +- {100 * self.ci95:.2f} %" if math.isfinite(self.ci95) else " %")


def correct_queries(scores: Tensor, labels: Tensor) -> Tensor:
    """How many queries of each episode have their largest score at their label, [..., T] int64.

    Of equal scores the first counts as the largest, as in argmax, which is several times slower on so few classes. A
    query with a score that is not a number is not correct.

    Args:
        scores: [..., T, Q, N]; leading dimensions are predictors.
        labels: [T, Q] int64.
    """
    labels = labels.unsqueeze(-1)  # [T, Q, 1]
    own = scores.gather(-1, labels.expand(*scores.shape[:-1], 1))  # [..., T, Q, 1]
    not_before = torch.arange(scores.shape[-1], device=scores.device) >= labels  # [T, Q, N]
    return ((scores < own) | ((scores == own) & not_before)).all(-1).sum(-1)


def is_defined(logits: Tensor) -> Tensor:
    """Which queries of logits [..., N] have probabilities, [...] bool: none is NaN or +inf, nor are all -inf."""
    return logits.logsumexp(-1).isfinite()


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
        self._size = 0  # n_query once more, so that checking it waits for no device

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count the correct queries of a batch of episodes.

        Args:
            logits: [T, Q, N], or any scores whose largest entry is the prediction; or [T], from correct_queries.
            labels: [T, Q] int64.
        """
        tasks, n_query = labels.shape
        if self._size not in (0, n_query):
            raise ValueError(
                f"episodes with {n_query} queries after episodes with {self._size}; "
                "measure each size with an EpisodeAccuracy of its own"
            )
        if not self._size:
            self._size, self.n_query = n_query, torch.full_like(self.n_query, n_query)
        correct = logits if logits.ndim == 1 else correct_queries(logits, labels)  # [T]
        self.n_episodes += tasks
        self.correct += correct.sum()
        self.correct_squared += correct.square().sum()

    def reset(self) -> None:
        """Forget all episodes."""
        super().reset()
        self._size = 0

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


class EpisodeLoss(Metric):
    """Mean loss over episodes, each counted once on whichever rank and in however large a batch it comes.

    Lightning's own average over ranks divides by their rounded mean number of episodes (2.6), which is wrong where they
    do not divide evenly and infinite where a rank has none.
    """

    full_state_update = False
    total: Tensor
    n_episodes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("n_episodes", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, loss: Tensor, n_episodes: int) -> None:
        """Add the mean loss, one number, of so many episodes."""
        if n_episodes:
            self.total += loss.detach() * n_episodes
            self.n_episodes += n_episodes

    def compute(self) -> Tensor:
        """The mean loss, one number; not a number without any episode."""
        return self.total / self.n_episodes


class EpisodeCounts(Metric):
    """Correct queries of every single episode under several predictors, for paired comparisons; [n, 1 + M] int64.

    Rows are sorted by episode number, their first column; the others are in the order of the predictors given.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", [], dist_reduce_fx="cat")

    def update(self, numbers: Tensor, logits: list[Tensor], labels: Tensor) -> None:
        """Count the correct queries of a batch of episodes.

        Args:
            numbers: [T] int64, which episodes these are.
            logits: M predictors' logits, each [T, Q, N]; or each [T], what correct_queries counted.
            labels: [T, Q] int64.
        """
        counts = [scores if scores.ndim == 1 else correct_queries(scores, labels) for scores in logits]
        correct = torch.stack(counts, dim=1)  # [T, M]
        self.rows.append(torch.cat([numbers.to(correct.device)[:, None], correct], dim=1))

    def compute(self) -> Tensor:
        """The rows of all episodes of all ranks so far."""
        if isinstance(self.rows, list) and not self.rows:
            return torch.zeros(0, 1, dtype=torch.int64)
        rows = dim_zero_cat(self.rows).cpu()  # a list here, one tensor where ranks have been gathered
        return rows[rows[:, 0].argsort()]


def paired_difference(correct: Tensor, reference: Tensor, n_query: int) -> AccuracyInterval:
    """Mean difference in accuracy on the same episodes, with its 95 % interval; far tighter than two intervals.

    Args:
        correct: [n] int64, correct queries of each episode.
        reference: [n] int64, the same of what it is compared with.
        n_query: queries of an episode in all.
    """
    difference = (correct - reference).double() / n_query
    n = len(difference)
    interval = 1.96 * float(difference.std()) / math.sqrt(n) if n > 1 else math.nan
    return AccuracyInterval(float(difference.mean()), interval, n)


LEAST_TEMPERATURE, MOST_TEMPERATURE = 1e-4, 1e4
"""Beyond these, probabilities are 0 and 1, or all the same."""
TEMPERATURES = torch.logspace(math.log10(LEAST_TEMPERATURE), math.log10(MOST_TEMPERATURE), 81, dtype=torch.float64)
"""Those that are tried, each 26 % above the one before."""
UNKNOWN = 0.1
"""Queries of unknown class, chosen among 0, 0.1, 0.3 and 1: least calibration error of nearest class mean, PTMAP and
TIM together on tasks of CIFAR-FS (ImageNet features, 5 ways, 2 and 5 shots). Thousands of known ones outweigh it."""
N_BINS = 15
"""Of confidences (the paper's section 3)."""
UNIT = 2**20
"""Sums are kept as integers of this part of one, so that the order of queries, batches and ranks changes no digit."""


BOUND = "the bound of what is tried: no temperature makes these probabilities calibrated"


def is_bound(temperature: float) -> bool:
    """Whether it is the smallest or the largest that CalibrationTemperature gives: a better one lies beyond it."""
    return not LEAST_TEMPERATURE * 1.001 < temperature < MOST_TEMPERATURE * 0.999


class CalibrationTemperature(Metric):
    """The temperature t for which softmax(logits / t) says the labels best (section 4.2): least cross-entropy.

    A tenth of a query of unknown class (UNKNOWN) is counted beside them, with the mean cross-entropy that they have to
    all classes alike. Otherwise a few queries that are all classified right would ask for t = 0, and so for
    probabilities of one; Platt (1999) smooths the labels of two classes for the same reason.

    Sums over the queries are kept for every temperature of a fixed grid, so memory does not grow and their order
    changes no digit; one step of parabolic interpolation over log t minimises between the best one and its neighbours.
    """

    full_state_update = False
    known: Tensor
    unknown: Tensor
    n_queries: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("known", "unknown"):
            self.add_state(name, torch.zeros(len(TEMPERATURES), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("n_queries", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch of queries, those that have probabilities.

        Args:
            logits: [..., N].
            labels: [...] int64.
        """
        logits, labels = logits.flatten(0, -2).float(), labels.flatten()
        counted = is_defined(logits)
        logits, labels = logits[counted], labels[counted]
        below = logits - logits.amax(-1, keepdim=True)  # [n, N], 0 and less
        said = torch.stack([below.gather(-1, labels.unsqueeze(-1)).squeeze(-1), below.mean(-1)])  # [2, n]
        for place, temperature in enumerate(TEMPERATURES.tolist()):
            costs = (below / temperature).exp_().sum(-1).log_() - said / temperature
            sums = (costs.clamp_max_(1e4).double() * UNIT).round_().sum(-1).long()
            self.known[place] += sums[0]
            self.unknown[place] += sums[1]
        self.n_queries += len(labels)

    def compute(self) -> float:
        """The temperature; 1 where no query was counted, or where every temperature does alike."""
        sums = self.known.cpu().double() + UNKNOWN * self.unknown.cpu().double() / max(1, int(self.n_queries))
        if bool((sums == sums[0]).all()):
            return 1.0
        best = int(sums.argmin())
        place = float(best)
        if 0 < best < len(sums) - 1:
            left, middle, right = (float(value) for value in sums[best - 1 : best + 2])
            curvature = left - 2 * middle + right
            place += 0.5 * (left - right) / curvature if curvature > 0 else 0.0
        first, last = math.log(LEAST_TEMPERATURE), math.log(MOST_TEMPERATURE)
        found = math.exp(first + (last - first) * place / (len(sums) - 1))
        return min(max(found, LEAST_TEMPERATURE), MOST_TEMPERATURE)


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
        """Count a batch of queries, those whose probabilities are numbers.

        Args:
            probabilities: [..., N], rows sum to one.
            labels: [...] int64.
        """
        confidence, predicted = probabilities.flatten(0, -2).float().max(-1)
        counted = ~confidence.isnan()
        confidence, right = confidence[counted], (predicted == labels.flatten())[counted].long()
        bins = (confidence * N_BINS).ceil().long().sub_(1).clamp_(0, N_BINS - 1)
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
