"""Ridge regression in closed form, one regression for every task of a batch."""

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
        regularizer: lambda, above 0, one number for all tasks.
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
    return torch.cholesky_solve(right, torch.linalg.cholesky(gram + regularizer * identity))
