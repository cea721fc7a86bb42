"""Diagonal Gaussians: divergence from a prior and its gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewshot.methods.construction import Recorded
from fewshot.methods.options import check_above, check_at_least, check_width


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


class GaussianPosterior(Recorded, nn.Module):
    """A diagonal Gaussian over the class weights with a learned Gaussian prior (section 3 of the paper).

    The mean starts where the initialiser puts it, the standard deviation at a learned value per feature; the prior is
    one learned Gaussian for all classes. Refinement and training descend the same bound, per task

        sum_i cross-entropy_i + kl_weight * KL(q || prior),

    divided by the number of queries in the training loss. Training draws one weight sample per step and task (the
    reparametrised estimate, eq. 9); evaluation uses the mean, so that it is deterministic.

    Args:
        n_features: D; None leaves it to `build`.
        kl_weight: factor of the KL term, in 0..; 1 is the paper's bound, less than 1 a tempered one.
        initial_std: standard deviation q starts with; the class weights themselves have length about one.
        prior_std: standard deviation the prior starts with; None takes 1/sqrt(D), that of an entry of a unit vector.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        n_features: int | None = None,
        kl_weight: float = 1.0,
        initial_std: float = 0.01,
        prior_std: float | None = None,
    ) -> None:
        super().__init__()
        check_at_least(1, n_features=n_features)
        check_at_least(0, kl_weight=kl_weight)
        check_above(0, initial_std=initial_std, prior_std=prior_std)
        self.kl_weight = kl_weight
        self.initial_std = initial_std
        self.prior_std = prior_std
        self.log_std: nn.Parameter | nn.UninitializedParameter = nn.UninitializedParameter()
        self.prior_mean: nn.Parameter | nn.UninitializedParameter = nn.UninitializedParameter()
        self.prior_log_std: nn.Parameter | nn.UninitializedParameter = nn.UninitializedParameter()
        if n_features is not None:
            self.build(n_features)

    def build(self, n_features: int) -> None:
        """Make the learned standard deviation and prior, D = n_features values each."""
        if not isinstance(self.log_std, nn.UninitializedParameter):
            check_width("posterior", self.log_std, n_features)
            return
        prior_std = n_features**-0.5 if self.prior_std is None else self.prior_std
        self.log_std = nn.Parameter(torch.full((n_features,), self.initial_std).log())
        self.prior_mean = nn.Parameter(torch.zeros(n_features))
        self.prior_log_std = nn.Parameter(torch.full((n_features,), prior_std).log())

    def noise(self, mean: Tensor) -> Tensor:
        """Standard normal noise shaped like the mean [T, N, D] in training, zeros in evaluation mode."""
        return torch.randn_like(mean) if self.training else torch.zeros_like(mean)

    def step(
        self, mean: Tensor, log_std: Tensor, noise: Tensor, *, weight_gradient: Tensor, step_size: float
    ) -> tuple[Tensor, Tensor]:
        """Mean and log_std [T, N, D] moved down the gradient of the bound.

        Args:
            mean: where it is now, [T, N, D].
            log_std: where it is now, [T, N, D].
            noise: the noise behind the sampled weights mean + exp(log_std) noise, [T, N, D].
            weight_gradient: gradient of the summed loss at those weights, [T, N, D].
            step_size: eta.
        """
        kl_mean, kl_log_std = gaussian_kl_gradient(mean, log_std, self.prior_mean, self.prior_log_std)
        mean_gradient = weight_gradient + self.kl_weight * kl_mean
        log_std_gradient = weight_gradient * noise * log_std.exp() + self.kl_weight * kl_log_std
        return mean - step_size * mean_gradient, log_std - step_size * log_std_gradient

    def divergence(self, mean: Tensor, log_std: Tensor) -> Tensor:
        """KL of q from the prior per task, [T], in nats, not weighted."""
        return gaussian_kl(mean, log_std, self.prior_mean, self.prior_log_std)
