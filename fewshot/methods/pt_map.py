"""PT-MAP: power transform, and class means that move with an optimal transport of the queries.

Hu, Gripon, Pateux: Leveraging the Feature Distribution in Transfer-based Few-Shot Learning, ICANN 2021,
arXiv 2006.03806.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.functional.features import centred, class_means, in_own_span, normalized, signed_power, squared_distances
from fewshot.functional.transport import sinkhorn_plan
from fewshot.methods.base import Method, Refinement
from fewshot.methods.class_prior import ClassPrior, Prior
from fewshot.methods.options import check_above, check_at_least


class PTMAP(Method):
    """Queries assigned by a Sinkhorn plan (eq. 3), class means moved towards the assigned features (eq. 6).

    Features go through a power transform (eq. 1), are L2-normalised, centred (support and queries each by its own
    mean) and normalised again. Then, so many rounds, mu_c <- mu_c + rate (mean of support and plan-weighted queries of
    class c - mu_c) with plan = Sinkhorn(exp(-temperature |z - mu|^2)); a last plan predicts.

    Assumes of the queries: in the paper that every class has the same number of them, which the plan enforces and the
    centring supposes. `prior` says otherwise; where queries are unbalanced, the default costs accuracy.

    Departures: a power transform that keeps the sign, equal on features of a ReLU; the QR decomposition, which turns
    the features of a task and changes no distance, is left out where it saves nothing; the plan's rows, not its
    columns, sum exactly as they should, and it stops by the columns' error.

    Args:
        n_rounds: of assignment and movement (published: 20).
        temperature: of the plan; multiplies squared distances (published: 10).
        rate: what share of the way to their weighted mean class means move in a round (published: 0.2).
        power: exponent of the transform (published: 0.5).
        prior: the queries' assumed class proportions: "uniform" (published), N numbers, "support" or "queries", which
            estimates them in every round; see `ClassPrior`.
        prior_strength: of the estimate from queries, in queries of every class.
        tolerance: of the plans, largest error of a column as a share of all queries.
        max_sweeps: of a plan.

    Raises:
        ValueError: an option out of its range.
    """

    n_steps = 1
    """The means before and after all rounds."""

    def __init__(
        self,
        n_rounds: int = 20,
        temperature: float = 10.0,
        rate: float = 0.2,
        power: float = 0.5,
        prior: Prior = "uniform",
        prior_strength: float = 2.0,
        tolerance: float = 1e-6,
        max_sweeps: int = 1000,
    ) -> None:
        super().__init__()
        check_at_least(1, max_sweeps=max_sweeps)
        check_at_least(0, n_rounds=n_rounds, tolerance=tolerance)
        check_above(0, temperature=temperature, rate=rate, power=power)
        self.prior = ClassPrior(prior, prior_strength)
        self.n_rounds, self.temperature, self.rate, self.power = n_rounds, temperature, rate, power
        self.tolerance, self.max_sweeps = tolerance, max_sweeps
        self.relabels = self.prior.relabels

    def refine(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Refinement:
        """Before: minus the distances to the support's means; after: the logarithm of the last plan."""
        support, query = in_own_span(*(self._transformed(z) for z in (support, query)))
        means = class_means(support, support_labels, n_way)  # [T, N, D]
        before = self._scores(query, means)
        members = F.one_hot(support_labels, n_way).to(support.dtype)  # [T, S, N]
        sums, counts = torch.bmm(members.transpose(1, 2), support), members.sum(1)  # [T, N, D], [T, N]
        scores = before
        for _ in range(self.n_rounds):
            plan = self._plan(scores, support_labels)  # [T, Q, N]
            total = sums + torch.bmm(plan.transpose(1, 2), query)
            target = total / (counts + plan.sum(1)).unsqueeze(-1)
            means = means + self.rate * (target - means)
            scores = self._scores(query, means)
        plan = self._plan(scores, support_labels)
        after = plan.clamp_min(torch.finfo(plan.dtype).tiny).log()
        return Refinement(torch.stack([before, after]))

    def _transformed(self, features: Tensor) -> Tensor:
        return normalized(centred(normalized(signed_power(features, self.power))))

    def _scores(self, query: Tensor, means: Tensor) -> Tensor:
        return -self.temperature * squared_distances(query, means)

    def _plan(self, scores: Tensor, support_labels: Tensor) -> Tensor:
        proportions = self.prior.proportions(scores, support_labels)
        return sinkhorn_plan(scores, proportions, n_iterations=self.max_sweeps, tolerance=self.tolerance)
