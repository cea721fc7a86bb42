"""Label propagation over prototypes (protoLP).

Zhu, Koniusz: Transductive Few-Shot Learning with Prototype-Based Label Propagation by Iterative Graph Refinement,
CVPR 2023, arXiv 2304.11598.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.functional.features import centred, class_means, member_means, normalized, signed_power, squared_distances
from fewshot.functional.graph import principal_coordinates
from fewshot.functional.transport import clamped_sinkhorn_plan, sinkhorn_plan
from fewshot.methods.base import Method
from fewshot.methods.class_prior import ClassPrior, Prior
from fewshot.methods.options import check_above, check_at_least


class ProtoLP(Method):
    """Log-assignment of the queries to prototypes, refined together with a graph that runs through the prototypes.

    A round: P assigns support (its labels) and queries (a Sinkhorn plan) to the prototypes; labels are propagated over
    the graph that P spans, L = I - P^T P diag(1^T P)^-1 and A = (P_S^T P_S + L)^-1 P_S^T Y; the plan F of P A, the
    support clamped, is mixed with P; prototypes move towards the means so weighted. A last plan predicts. Transductive.
    It assumes that queries are balanced (`prior` says otherwise). Nothing is trained.

    Departures: A comes from a general solve, as L is symmetric with a uniform prior alone, where the published code
    takes its lower triangle by Cholesky; negative features keep their sign under the power transform.

    Args:
        power: exponent of the signed power transform; None leaves it out.
        n_dimensions: leading singular vectors kept, 40 in the published code.
        temperature: multiplies the negative squared distances, 10 in the published code.
        n_rounds: 100 in the published code.
        momentum: share of the way to the new mean that a prototype moves, 0.2 in the published code.
        mixing: share of the propagated assignment, 0.6 in the published code.
        prior: what share of the queries each class has; see ClassPrior.
        prior_strength: of prior="queries"; see ClassPrior.
        tolerance: largest error of a class's mass in the assignments, as a share of the queries.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        power: float | None = 0.5,
        n_dimensions: int = 40,
        temperature: float = 10.0,
        n_rounds: int = 100,
        momentum: float = 0.2,
        mixing: float = 0.6,
        prior: Prior = "uniform",
        prior_strength: float = 5.0,
        tolerance: float = 1e-4,
    ) -> None:
        super().__init__()
        check_at_least(1, n_dimensions=n_dimensions)
        check_at_least(0, n_rounds=n_rounds, momentum=momentum, mixing=mixing, tolerance=tolerance)
        check_above(0, power=power, temperature=temperature)
        self.power, self.n_dimensions, self.temperature = power, n_dimensions, temperature
        self.n_rounds, self.momentum, self.mixing = n_rounds, momentum, mixing
        self.prior, self.tolerance = ClassPrior(prior, prior_strength), tolerance
        self.relabels = self.prior.relabels

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        n_support = support.shape[1]
        features = normalized(signed_power(torch.cat([support, query], dim=1), self.power))
        features = normalized(centred(principal_coordinates(features, self.n_dimensions)))  # [T, S+Q, d]
        known = F.one_hot(support_labels, n_way).to(features.dtype)  # [T, S, N]
        prototypes = normalized(class_means(features[:, :n_support], support_labels, n_way))
        for _ in range(self.n_rounds):
            plan, masses = self._plan(features[:, n_support:], prototypes, support_labels)
            weights = self._propagated(torch.cat([known, plan], dim=1), known, masses)  # [T, S+Q, N]
            prototypes = prototypes + self.momentum * (member_means(weights, features) - prototypes)
        plan, _ = self._plan(features[:, n_support:], prototypes, support_labels)
        return plan.clamp_min(torch.finfo(plan.dtype).tiny).log()

    def _plan(self, query: Tensor, prototypes: Tensor, support_labels: Tensor) -> tuple[Tensor, Tensor]:
        """Assignment of the queries [T, Q, N], and how many each class is to get [T, N]."""
        scores = -self.temperature * squared_distances(query, prototypes)
        masses = self.prior.proportions(scores, support_labels) * query.shape[1]
        return sinkhorn_plan(scores, masses, tolerance=self.tolerance), masses

    def _propagated(self, assignment: Tensor, known: Tensor, masses: Tensor) -> Tensor:
        """What share of each example a prototype is averaged from, [T, S+Q, N], from the assignment P, as large."""
        n_support = known.shape[1]
        joint = torch.bmm(assignment.transpose(1, 2), assignment / assignment.sum(1, keepdim=True))  # [T, N, N]
        laplacian = torch.eye(joint.shape[-1], dtype=joint.dtype, device=joint.device) - joint
        of_support = torch.bmm(known.transpose(1, 2), known)  # both P_S^T P_S and P_S^T Y
        spread = torch.bmm(assignment, torch.linalg.solve(of_support + laplacian, of_support))
        scores = spread[:, n_support:].clamp_min(torch.finfo(spread.dtype).tiny).log()
        plan = clamped_sinkhorn_plan(scores, known, masses + known.sum(1), tolerance=self.tolerance)
        return (self.mixing * plan + (1 - self.mixing) * assignment).clamp(0, 1)
