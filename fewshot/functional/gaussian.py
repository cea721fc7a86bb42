"""Diagonal Gaussians: divergence from a prior and its gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_kl(mean: Tensor, log_std: Tensor, prior_mean: Tensor, prior_log_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(prior_mean, prior_std^2)) summed over the dimensions of a task, [T], in nats.

    Args:
        mean: [T, N, D].
        log_std: [T, N, D], natural logarithm of the standard deviations.
        prior_mean: broadcastable to [T, N, D].
        prior_log_std: broadcastable to [T, N, D].
    """
    ratio = 2 * (log_std - prior_log_std)
    shift = (mean - prior_mean) * torch.exp(-prior_log_std)
    return 0.5 * (ratio.exp() + shift.square() - 1 - ratio).sum(dim=(-2, -1))


def gaussian_kl_gradient(
    mean: Tensor, log_std: Tensor, prior_mean: Tensor, prior_log_std: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of `gaussian_kl` with respect to mean and log_std, both [T, N, D]."""
    with_mean = (mean - prior_mean) * torch.exp(-2 * prior_log_std)
    with_log_std = torch.exp(2 * (log_std - prior_log_std)) - 1
    return with_mean, with_log_std.expand_as(log_std)
