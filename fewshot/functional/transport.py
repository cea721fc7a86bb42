"""Sinkhorn plans: soft assignments of rows to columns whose column masses are given."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.functional.information import class_softmax

SWEEPS = 10
"""Sweeps by multiplication between two returns to logarithms."""
LARGEST_FACTOR = 1e9
"""Bounds what those sweeps may multiply by, so that float32 holds every product; the next ten go on from there."""


def sinkhorn_plan(
    scores: Tensor,
    column_masses: Tensor,
    *,
    n_iterations: int = 1000,
    tolerance: float | None = 1e-6,
) -> Tensor:
    """The plan exp(scores_mn + f_m + g_n) whose rows sum to one and whose columns have the given masses, [T, M, N].

    Cuturi: Sinkhorn Distances, NeurIPS 2013, arXiv 1306.0895: it maximises <plan, scores> + entropy(plan) among all
    such plans, so that large scores approach the linear programme. Rows sum to one exactly, columns to the accuracy
    reached. The column potentials g are kept in logarithms and ten sweeps at a time are multiplications, so that no
    temperature overflows. A task that has reached the tolerance is left as it is while the others go on: the other
    tasks of the batch change nothing. Differentiable through all sweeps with respect to both arguments.

    Args:
        scores: [T, M, N], of any size; a cost times minus a temperature.
        column_masses: [N] or [T, N], 0 or more; only their proportions count, they are scaled to sum to M. A mass of 0
            leaves the column empty.
        n_iterations: the most sweeps over rows and columns; 0 gives the plain softmax of the rows.
        tolerance: largest error of a column's mass, as a share of M, at which a task stops; looked at every ten sweeps.
            None makes all sweeps.
    """
    n_tasks, n_rows, n_columns = scores.shape
    if n_iterations == 0 or n_rows == 0:
        return class_softmax(scores)
    masses = column_masses.to(scores.dtype).expand(n_tasks, n_columns)
    masses = masses * (n_rows / masses.sum(-1, keepdim=True))  # [T, N]
    # the first sweep in logarithms: from here on, no row's and no column's sum is far from its mass
    potentials = masses.log() - scores.log_softmax(-1).logsumexp(1)  # [T, N]
    running = torch.arange(n_tasks, device=scores.device)
    for first in range(1, n_iterations, SWEEPS):
        plan = class_softmax(scores[running] + potentials[running].unsqueeze(1))  # [R, M, N]
        if tolerance is not None:
            error = (plan.sum(1) - masses[running]).abs().amax(-1) / n_rows  # [R]
            unfinished = error > tolerance
            running, plan = running[unfinished], plan[unfinished]
            if not len(running):
                break
        factors = _column_factors(plan, masses[running], min(SWEEPS, n_iterations - first))
        potentials = potentials.index_add(0, running, factors.log())
    return class_softmax(scores + potentials.unsqueeze(1))


def _column_factors(plan: Tensor, masses: Tensor, n_sweeps: int) -> Tensor:
    """What so many sweeps multiply the columns of a plan [T, M, N] by, [T, N]."""
    plan = plan.transpose(1, 2).contiguous()  # [T, N, M]: the sums run along memory
    columns = torch.ones_like(masses).unsqueeze(-1)  # [T, N, 1]
    for _ in range(n_sweeps):
        rows = (plan * columns).sum(1, keepdim=True).clamp_min(1 / LARGEST_FACTOR).reciprocal()  # [T, 1, M]
        columns = masses.unsqueeze(-1) / (plan * rows).sum(2, keepdim=True).clamp_min(1 / LARGEST_FACTOR)
        columns = columns.clamp(1 / LARGEST_FACTOR, LARGEST_FACTOR)
    return columns.squeeze(-1)


def clamped_sinkhorn_plan(
    scores: Tensor,
    assigned: Tensor,
    column_masses: Tensor,
    *,
    n_iterations: int = 1000,
    tolerance: float | None = 1e-6,
) -> Tensor:
    """The plan of rows some of which are assigned beforehand, [T, S+M, N], the assigned ones first.

    Setting rows back to their assignment in every sweep, as several papers do for the support, ends where the other
    rows share what the assigned ones leave of every column. That plan is computed here, without the detour.

    Args:
        scores: [T, M, N], of the rows that are free.
        assigned: [T, S, N], the assigned rows, each summing to one.
        column_masses: [N] or [T, N]; scaled to sum to S + M. A column that the assigned rows fill beyond its mass gets
            none of the free rows, and the others share them in proportion to what they have left.
        n_iterations: as in `sinkhorn_plan`.
        tolerance: as in `sinkhorn_plan`.
    """
    n_rows = scores.shape[1] + assigned.shape[1]
    masses = column_masses.to(scores.dtype).expand(scores.shape[0], scores.shape[2])
    masses = masses * (n_rows / masses.sum(-1, keepdim=True))
    left = (masses - assigned.sum(1)).clamp_min(0)  # [T, N]
    free = sinkhorn_plan(scores, left, n_iterations=n_iterations, tolerance=tolerance)
    return torch.cat([assigned.to(free.dtype), free], dim=1)


def relaxed_sinkhorn_potentials(scores: Tensor, column_masses: Tensor, strictness: Tensor, n_sweeps: int) -> Tensor:
    """Column potentials g [T, N] of a plan that only tends to the given column masses, softmax(scores + g) by rows.

    Unbalanced transport (Chizat, Peyré, Schmitzer, Vialard: Scaling algorithms for unbalanced optimal transport
    problems, Mathematics of Computation 2018, arXiv 1607.05816): a column may depart from its mass at a cost, its
    Kullback-Leibler divergence times strictness / (1 - strictness). Every sweep is g <- strictness (log mass - log of
    what the column would hold without g). Differentiable in all tensors.

    Args:
        scores: [T, M, N].
        column_masses: [T, N] or [N], above 0; scaled to sum to M.
        strictness: [T, 1] or [1], in 0..1; 0 is the plain softmax of the rows, 1 tends to Sinkhorn's plan.
        n_sweeps: how many sweeps.
    """
    n_rows = scores.shape[1]
    masses = column_masses.expand(scores.shape[0], scores.shape[2])
    wanted = (masses * (n_rows / masses.sum(-1, keepdim=True))).log()  # [T, N]
    potentials = torch.zeros_like(wanted)
    for _ in range(n_sweeps):
        held = (scores + potentials.unsqueeze(1)).log_softmax(-1).logsumexp(1)  # [T, N]
        potentials = strictness * (wanted - held + potentials)
    return potentials
