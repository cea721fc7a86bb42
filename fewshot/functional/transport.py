"""Sinkhorn plans: soft assignments of rows to columns whose column masses are given."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.functional.information import class_softmax

SWEEPS = 10
"""Sweeps by multiplication between two returns to logarithms."""
LARGEST_FACTOR = 1e9
"""Bounds what those sweeps may multiply by, so that float32 holds every product; the next ten go on from there."""
NEWTON_COLUMNS = 256
"""Up to so many columns Newton's steps are tried: each solves for the columns' potentials, which sweeps do not."""
LONGEST_STEP = 4.0
"""Of a potential, by one step of Newton's."""


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
    temperature overflows. With a tolerance, Newton's steps on the N potentials come between sweeps, wherever one more
    than halves a task's error (as Brauer, Clason, Lorenz, Wirth: A Sinkhorn-Newton method for entropic optimal
    transport, 2017, arXiv 1710.06635); a handful then does what takes hundreds of sweeps. A task that has reached the
    tolerance is left as it is while the others go on: the other tasks of the batch change nothing. Differentiable with
    respect to both arguments: without a tolerance through all sweeps, with one by the implicit function theorem, where
    potentials of a task that did not reach it are constants.

    Args:
        scores: [T, M, N], of any size; a cost times minus a temperature.
        column_masses: [N] or [T, N], 0 or more; only their proportions count, they are scaled to sum to M. A mass of 0
            leaves the column empty.
        n_iterations: the most sweeps over rows and columns, where a step of Newton's counts as ten; 0 gives the plain
            softmax of the rows.
        tolerance: largest error of a column's mass, as a share of M, at which a task stops. None makes all sweeps, and
            no other steps.
    """
    n_tasks, n_rows, n_columns = scores.shape
    if n_iterations == 0 or n_rows == 0:
        return class_softmax(scores)
    masses = column_masses.to(scores.dtype).expand(n_tasks, n_columns)
    masses = masses * (n_rows / masses.sum(-1, keepdim=True))  # [T, N]
    if tolerance is None:
        potentials = _first_sweep(scores, masses)
        for first in range(1, n_iterations, SWEEPS):
            plan = class_softmax(scores + potentials.unsqueeze(1))
            potentials = potentials + _column_factors(plan, masses, min(SWEEPS, n_iterations - first)).log()
        return class_softmax(scores + potentials.unsqueeze(1))
    with torch.no_grad():
        potentials, reached = _potentials(scores, masses, n_iterations, tolerance)
    if torch.is_grad_enabled() and (scores.requires_grad or masses.requires_grad):
        plan = class_softmax(scores + potentials.unsqueeze(1))
        missing = masses - plan.sum(1)
        step = torch.linalg.solve_ex(_curvature(plan.detach()), missing.unsqueeze(-1)).result.squeeze(-1)
        potentials = potentials + torch.where(reached.unsqueeze(-1) & masses.detach().gt(0), step, 0.0)
    return class_softmax(scores + potentials.unsqueeze(1))


def _first_sweep(scores: Tensor, masses: Tensor) -> Tensor:
    """Column potentials [T, N] after one sweep, in logarithms: no sum is far from its mass from here on."""
    return masses.log() - log_held(scores)


def log_held(scores: Tensor, log_rows: Tensor | None = None) -> Tensor:
    """Logarithm of what every column holds where rows are softmax(scores), [T, N] from [T, M, N].

    Args:
        scores: [T, M, N].
        log_rows: [T, M], logarithms of the rows' masses; None counts each as one.
    """
    plan = scores.transpose(1, 2).log_softmax(1)  # as class_softmax, with a column's entries side by side
    return (plan if log_rows is None else plan + log_rows.unsqueeze(1)).logsumexp(2)


def _potentials(scores: Tensor, masses: Tensor, n_iterations: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """Column potentials g [T, N] to that tolerance, and which tasks have reached it [T]."""
    n_tasks, n_rows, n_columns = scores.shape
    found = _first_sweep(scores, masses)
    reached = torch.zeros(n_tasks, dtype=torch.bool, device=scores.device)
    running = torch.arange(n_tasks, device=scores.device)
    potentials, sweeps = found.clone(), 1
    plan = class_softmax(scores + potentials.unsqueeze(1))
    while True:
        missing = masses - plan.sum(1)  # [R, N]
        error = missing.abs().amax(-1) / n_rows  # [R]
        if not bool((unfinished := error > tolerance).all()):
            reached[running[~unfinished]] = True
            found[running] = potentials
            running, scores, masses = running[unfinished], scores[unfinished], masses[unfinished]
            plan, potentials, missing, error = (x[unfinished] for x in (plan, potentials, missing, error))
        if not len(running) or sweeps >= n_iterations:
            break
        worse = torch.ones_like(error, dtype=torch.bool)
        if n_columns <= NEWTON_COLUMNS:
            step = torch.linalg.solve_ex(_curvature(plan), missing.unsqueeze(-1)).result.squeeze(-1)
            step = step / (step.abs().amax(-1, keepdim=True) / LONGEST_STEP).clamp_min(1)
            tried = potentials + torch.where(masses > 0, step, 0.0)
            plan_there = class_softmax(scores + tried.unsqueeze(1))
            there = (masses - plan_there.sum(1)).abs().amax(-1) / n_rows
            worse = ~(there < error / 2)  # or not a number
            potentials = torch.where(worse.unsqueeze(-1), potentials, tried)
            plan = torch.where(worse.view(-1, 1, 1), plan, plan_there)
        if bool(worse.any()):
            factors = _column_factors(plan[worse], masses[worse], min(SWEEPS, n_iterations - sweeps))
            potentials[worse] += factors.log()
            plan[worse] = class_softmax(scores[worse] + potentials[worse].unsqueeze(1))
        sweeps += SWEEPS
    found[running] = potentials
    return found, reached


def _curvature(plan: Tensor) -> Tensor:
    """How the columns' sums of a plan [T, M, N] follow the potentials, [T, N, N].

    All potentials may grow alike, which changes no plan: what is added for that direction makes the matrix regular, and
    so does a little for columns that nothing moves.
    """
    n_rows, n_columns = plan.shape[1:]
    columns = plan.sum(1)  # [T, N]
    little = 1e-6 if plan.dtype == torch.float32 else 1e-13
    curvature = torch.diag_embed(columns + little * n_rows) - torch.bmm(plan.transpose(1, 2), plan)
    return curvature + n_rows / n_columns**2


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


def relaxed_sinkhorn_potentials(
    scores: Tensor, column_masses: Tensor, strictness: Tensor, n_sweeps: int, *, row_masses: Tensor | None = None
) -> Tensor:
    """Column potentials g [T, N] of a plan that only tends to the given column masses, softmax(scores + g) by rows.

    Unbalanced transport (Chizat, Peyré, Schmitzer, Vialard: Scaling algorithms for unbalanced optimal transport
    problems, Mathematics of Computation 2018, arXiv 1607.05816): a column may depart from its mass at a cost, its
    Kullback-Leibler divergence times strictness / (1 - strictness). Every sweep is g <- strictness (log mass - log of
    what the column would hold without g). Differentiable in all tensors.

    Args:
        scores: [T, M, N].
        column_masses: [T, N] or [N], above 0; scaled to the sum of the rows' masses.
        strictness: [T, 1] or [1], in 0..1; 0 is the plain softmax of the rows, 1 tends to Sinkhorn's plan.
        n_sweeps: how many sweeps.
        row_masses: [T, M], how much each row counts; None counts each as one.
    """
    masses = column_masses.expand(scores.shape[0], scores.shape[2])
    log_rows, total = None, torch.full_like(masses[:, :1], scores.shape[1])
    if row_masses is not None:
        log_rows = row_masses.clamp_min(torch.finfo(row_masses.dtype).tiny).log()
        total = log_rows.exp().sum(1, keepdim=True)  # [T, 1]
    wanted = (masses * (total / masses.sum(-1, keepdim=True))).log()  # [T, N]
    potentials = torch.zeros_like(wanted)
    for _ in range(n_sweeps):
        held = log_held(scores + potentials.unsqueeze(1), log_rows)
        potentials = strictness * (wanted - held + potentials)
    return potentials
