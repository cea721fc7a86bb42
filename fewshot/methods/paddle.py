"""PADDLE: clustering that pays for every class it uses.

Martin, Boudiaf, Chouzenoux, Pesquet, Ben Ayed: Towards Practical Few-Shot Query Sets: Transductive Minimum Description
Length Inference, NeurIPS 2022, arXiv 2210.14545.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.functional.features import (
    class_means,
    in_own_span,
    normalized,
    signed_power,
    squared_distances,
    squared_lengths,
)
from fewshot.functional.information import class_softmax
from fewshot.methods.base import Method, Refinement
from fewshot.methods.options import check_above, check_at_least


class PADDLE(Method):
    """Soft k-means of the queries around the support, with a penalty on the number of classes in use (algorithm 1).

    Every feature dimension is divided by the queries' range in it. Then, so many times,

        u_i = softmax(-|z_i - w|^2 / 2 + (penalty / Q) v),  v = log(mean_i u_i) + 1,
        w_c = (sum_i u_ic z_i + sum of the support of class c) / (sum_i u_ic + number of the support of class c).

    Assumes of the queries: that they belong to few of the classes: proportions far from uniform are favoured, the
    opposite of what TIM and PT-MAP favour, so that balanced queries cost accuracy.

    Departures: `power`, for features with a long tail such as Conv-4's, of which single entries otherwise decide all
    distances. The published program adds 1e-6 to the mean before the logarithm; here it is bounded from below by the
    smallest number.

    Args:
        n_iterations: assignments made, the first from the support's means alone (published: 100).
        penalty: on the classes' entropy, the paper's lambda; None is the number of queries (published).
        power: exponent of a power transform that comes first, followed by L2 normalisation; None takes neither
            (published).

    Raises:
        ValueError: an option out of its range.
    """

    n_steps = 1

    def __init__(self, n_iterations: int = 100, penalty: float | None = None, power: float | None = None) -> None:
        super().__init__()
        check_at_least(0, n_iterations=n_iterations, penalty=penalty)
        check_above(0, power=power)
        self.n_iterations, self.penalty, self.power = n_iterations, penalty, power

    def refine(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Refinement:
        """Before: minus half the squared distances to the support's means; after: the last assignment's logits."""
        if self.power is not None:
            support, query = (normalized(signed_power(z, self.power)) for z in (support, query))
        width = query.amax(1, keepdim=True) - query.amin(1, keepdim=True)  # [T, 1, D]
        width = torch.where(width > 0, width, 1.0)
        support, query = in_own_span(support / width, query / width)
        members = F.one_hot(support_labels, n_way).to(support.dtype)  # [T, S, N]
        sums, counts = torch.bmm(members.transpose(1, 2), support), members.sum(1)  # [T, N, D], [T, N]
        weights, squares = class_means(support, support_labels, n_way), squared_lengths(query)
        before = logits = -0.5 * squared_distances(query, weights, squares)  # [T, Q, N]
        share = 1.0 if self.penalty is None else self.penalty / query.shape[1]
        for _ in range(self.n_iterations - 1):
            assignments = class_softmax(logits)
            total = sums + torch.bmm(assignments.transpose(1, 2), query)
            weights = total / (counts + assignments.sum(1)).unsqueeze(-1)
            used = assignments.mean(1, keepdim=True).clamp_min(torch.finfo(assignments.dtype).tiny).log()
            logits = -0.5 * squared_distances(query, weights, squares) + share * (used + 1)
        return Refinement(torch.stack([before, logits]))
