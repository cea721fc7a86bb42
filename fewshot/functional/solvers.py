"""Linear systems and margins in closed form, one for every task of a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def ridge_weights(features: Tensor, targets: Tensor, regularizer: Tensor | float) -> Tensor:
    """The minimiser W of |X W - Y|^2 + lambda |W|^2, [T, D, N], differentiable in all three.

    W = (X^T X + lambda I)^-1 X^T Y, a D x D system; where a task has no more examples than features, the Woodbury
    identity gives the same from an S x S system, W = X^T (X X^T + lambda I)^-1 Y.

    Args:
        features: X, [T, S, D].
        targets: Y, [T, S, N].
        regularizer: lambda, above 0; one number for all tasks, or [T, 1, 1].
    """
    transposed = features.transpose(1, 2)  # [T, D, S]
    if features.shape[1] <= features.shape[2]:
        return torch.bmm(transposed, _solved(torch.bmm(features, transposed), targets, regularizer))
    return _solved(torch.bmm(transposed, features), torch.bmm(transposed, targets), regularizer)


def with_ones(features: Tensor) -> Tensor:
    """The features with a last column of ones, [T, S, D+1]: a regression on them has an offset, the last weight."""
    return torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)


def _solved(gram: Tensor, right: Tensor, regularizer: Tensor | float) -> Tensor:
    """(gram + lambda I)^-1 right by Cholesky; gram [T, n, n] has no negative eigenvalue, right is [T, n, N]."""
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return torch.cholesky_solve(right, _factor(gram + regularizer * identity))


def _factor(matrices: Tensor) -> Tensor:
    """Cholesky factors of symmetric matrices that have no negative eigenvalue but for rounding, [..., n, n].

    Of large features rounding may leave one beside which the penalty is small: twice what it could be is added there.
    """
    factor, failed = torch.linalg.cholesky_ex(matrices)
    if not bool(failed.any()):
        return factor
    size = matrices.shape[-1]
    rounding = 2 * size * torch.finfo(matrices.dtype).eps * matrices.diagonal(dim1=-2, dim2=-1).amax(-1)  # [...]
    lift = torch.diag_embed((rounding * failed.gt(0)).unsqueeze(-1).expand(*rounding.shape, size))
    return torch.linalg.cholesky(matrices + lift)


NEWTON_STEPS = 24
"""Of an inverse by products alone: enough for a condition of 1e4."""


def inverse(matrices: Tensor) -> Tensor:
    """The inverses of symmetric matrices with positive eigenvalues, [T, n, n].

    Where a graph is exported, by Newton's iteration X <- X (2 I - A X), in products alone (Schulz 1933): ONNX has no
    operator for it.

    Args:
        matrices: A, [T, n, n].
    """
    if not torch.compiler.is_exporting():
        return torch.linalg.inv(matrices)
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    found = identity / matrices.abs().sum(-1, keepdim=True).amax(1, keepdim=True)
    for _ in range(NEWTON_STEPS):
        found = torch.bmm(found, 2 * identity - torch.bmm(matrices, found))
    return found


BARRIER = 1e-10
"""Where the complementarity of slacks and multipliers stops to shrink; keeps further iterations well defined."""


def crammer_singer_dual(gram: Tensor, one_hot: Tensor, *, cost: float, n_iterations: int) -> Tensor:
    """Dual variables a of Crammer and Singer's multi-class machine, [T, S, N]; class c has the weights sum_i a_ic x_i.

    They minimise 1/2 sum_c a_c^T K a_c - sum_i a_i,y(i) subject to a_ic <= C [c = y(i)] and sum_c a_ic = 0 (Crammer
    and Singer, JMLR 2001; the sign is that of MetaOptNet). A primal-dual interior-point method in
    float64 with a fixed number of iterations, all tasks at once; some ten reach rounding. The result is differentiable
    in K by the implicit function theorem at the solution, once; the iterations are not recorded.

    Args:
        gram: K, [T, S, S], inner products of the support.
        one_hot: [T, S, N], of the support's labels; N is at least 2.
        cost: C, above 0.
        n_iterations: Newton steps.
    """
    dtype, gram, one_hot = gram.dtype, gram.double(), one_hot.double()
    with torch.no_grad():
        dual, multipliers, slack = _interior_point(gram, one_hot, cost, n_iterations)
        factor = _factorized(gram, multipliers / slack)
        pressure = multipliers - one_hot
    # One more Newton step whose matrix is held fixed: it moves nothing at the solution, and its derivative with respect
    # to K is that of the solution.
    return (dual - _projected(factor, torch.bmm(gram, dual) + pressure)).to(dtype)


def _interior_point(gram: Tensor, one_hot: Tensor, cost: float, n_iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """Dual variables, multipliers of their bounds and slacks towards them, each [T, S, N].

    Mehrotra's predictor and corrector. The start fulfils both constraints and every step keeps sum_c a_ic = 0.
    """
    n_way = one_hot.shape[-1]
    dual = cost / 2 * (one_hot - (1 - one_hot) / (n_way - 1))
    multipliers = torch.ones_like(dual)
    for _ in range(n_iterations):
        slack = cost * one_hot - dual
        residual = torch.bmm(gram, dual) - one_hot + multipliers
        gap = _mean(slack * multipliers)
        factor = _factorized(gram, multipliers / slack)
        # slack and multiplier move so that their product becomes the target: first zero, then what is achievable
        step, multiplier_step = _newton(factor, residual, slack, multipliers, target=torch.zeros_like(slack))
        length = _step_length(slack, multipliers, step, multiplier_step)
        predicted = _mean((slack - length * step) * (multipliers + length * multiplier_step))
        centred = (gap * (predicted / gap) ** 3).clamp_min(BARRIER)
        target = centred + step * multiplier_step
        step, multiplier_step = _newton(factor, residual, slack, multipliers, target=target)
        length = 0.99 * _step_length(slack, multipliers, step, multiplier_step)
        dual, multipliers = dual + length * step, multipliers + length * multiplier_step
    return dual, multipliers, cost * one_hot - dual


def _newton(
    factor: tuple[Tensor, Tensor], residual: Tensor, slack: Tensor, multipliers: Tensor, *, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Steps of dual variables and multipliers; the slacks move against the dual variables."""
    wanted = target / slack - multipliers
    step = -_projected(factor, residual + wanted)
    return step, wanted + multipliers / slack * step


def _factorized(gram: Tensor, barrier: Tensor) -> tuple[Tensor, Tensor]:
    """What `_projected` needs: the inverse of K + diag(barrier_c) for every class, [T, N, S, S], and its sum's factor.

    The system falls apart into one of size S for every class, tied together by the S constraints alone.
    """
    blocks = gram.unsqueeze(1) + torch.diag_embed(barrier.transpose(1, 2))  # [T, N, S, S]
    inverses = torch.cholesky_inverse(_factor(blocks))
    return inverses, _factor(inverses.sum(1))


def _projected(factor: tuple[Tensor, Tensor], right: Tensor) -> Tensor:
    """The x of (K + diag) x + nu = right with sum_c x_ic = 0, [T, S, N]."""
    inverses, schur = factor
    free = torch.einsum("tcij,tjc->tic", inverses, right)
    nu = torch.cholesky_solve(free.sum(-1, keepdim=True), schur)  # [T, S, 1]
    return free - torch.einsum("tcij,tj->tic", inverses, nu.squeeze(-1))


def _step_length(slack: Tensor, multipliers: Tensor, step: Tensor, multiplier_step: Tensor) -> Tensor:
    """The longest step up to 1 that leaves slacks and multipliers of a task above zero, [T, 1, 1]."""
    ratios = torch.maximum(step / slack, -multiplier_step / multipliers)  # what share of each a full step uses up
    return 1 / ratios.amax((1, 2), keepdim=True).clamp_min(1)


def _mean(values: Tensor) -> Tensor:
    """Mean over the examples and classes of each task, [T, 1, 1]."""
    return values.mean((1, 2), keepdim=True)
