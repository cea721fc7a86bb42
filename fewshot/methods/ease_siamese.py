"""Discriminative subspace of a task and balanced assignment in it (EASE + SIAMESE).

Zhu, Koniusz: EASE: Unsupervised Discriminant Subspace Learning for Transductive Few-Shot Learning, CVPR 2022.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.functional.features import class_means, member_means, normalized, signed_power, squared_distances
from fewshot.functional.graph import ease_coordinates
from fewshot.functional.transport import clamped_sinkhorn_plan
from fewshot.methods.base import Method
from fewshot.methods.class_prior import ClassPrior, Prior
from fewshot.methods.options import check_above, check_at_least


class EaseSiamese(Method):
    """Log-assignment of the queries to class centres in the subspace that EASE finds for support and queries together.

    EASE projects on directions in which examples that represent each other agree and the whole task does not; SIAMESE
    alternates a Sinkhorn assignment, the support clamped to its labels, with a move of the centres towards the mean of
    what they are assigned. Transductive. It assumes that queries are balanced (`prior` says otherwise). Nothing is
    trained; accuracy depends on support and queries of one task alone.

    Departures: a class's mean is divided by the mass assigned to it, which is the paper's constant where classes are
    balanced; the subspace is computed from eigenvectors of the inner products, which gives the paper's but for
    rotations that no distance sees; negative features keep their sign under the power transform.

    Args:
        power: exponent of the signed power transform; None leaves it out. The published code takes 0.5 for wide ResNets
            alone.
        n_dimensions: of the subspace, 40 in the published code.
        rank: left singular vectors that say which examples are alike; None takes one for each class, which gives the
            published code's 5 for 5 ways.
        contrast: weight of the all-pairs graph, 100 in the published code.
        temperature: multiplies the negative squared distances, 10 in the published code.
        n_rounds: assignments and moves, 40 in the published code.
        momentum: share of the way to the new mean that a centre moves, 0.2 in the published code.
        prior: what share of the queries each class has; see ClassPrior.
        prior_strength: of prior="queries"; see ClassPrior.
        tolerance: largest error of a class's mass in the assignments, as a share of the queries.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        power: float | None = None,
        n_dimensions: int = 40,
        rank: int | None = None,
        contrast: float = 100.0,
        temperature: float = 10.0,
        n_rounds: int = 40,
        momentum: float = 0.2,
        prior: Prior = "uniform",
        prior_strength: float = 5.0,
        tolerance: float = 1e-4,
    ) -> None:
        super().__init__()
        check_at_least(1, n_dimensions=n_dimensions, rank=rank)
        check_at_least(0, n_rounds=n_rounds, momentum=momentum, tolerance=tolerance)
        check_above(0, power=power, contrast=contrast, temperature=temperature)
        self.power, self.n_dimensions, self.rank, self.contrast = power, n_dimensions, rank, contrast
        self.temperature, self.n_rounds, self.momentum = temperature, n_rounds, momentum
        self.prior, self.tolerance = ClassPrior(prior, prior_strength), tolerance
        self.relabels = self.prior.relabels

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        n_support = support.shape[1]
        features = self._projected(torch.cat([support, query], dim=1), n_way)  # [T, S+Q, d]
        known = F.one_hot(support_labels, n_way).to(features.dtype)  # [T, S, N]
        centres = class_means(features[:, :n_support], support_labels, n_way)
        for _ in range(self.n_rounds):
            plan = self._plan(features[:, n_support:], centres, known, support_labels)
            centres = centres + self.momentum * (member_means(plan, features) - centres)
        plan = self._plan(features[:, n_support:], centres, known, support_labels)[:, n_support:]
        return plan.clamp_min(torch.finfo(plan.dtype).tiny).log()

    def _projected(self, features: Tensor, n_way: int) -> Tensor:
        features = normalized(signed_power(features, self.power))
        rank = n_way if self.rank is None else self.rank
        return normalized(ease_coordinates(features, n_kept=self.n_dimensions, rank=rank, contrast=self.contrast))

    def _plan(self, query: Tensor, centres: Tensor, known: Tensor, support_labels: Tensor) -> Tensor:
        """Assignment of support and queries, [T, S+Q, N]."""
        scores = -self.temperature * squared_distances(query, centres)
        masses = self.prior.proportions(scores, support_labels) * query.shape[1] + known.sum(1)  # [T, N]
        return clamped_sinkhorn_plan(scores, known, masses, tolerance=self.tolerance)
