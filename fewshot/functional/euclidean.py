"""Adam for the weights of many tasks at once, on gradients in closed form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def adam_descent(
    start: Tensor,
    gradient: Callable[[Tensor], Tensor],
    *,
    learning_rate: float,
    n_iterations: int,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> Tensor:
    """Where the weights are after so many steps of Adam, [T, ...], as torch.optim.Adam would leave them.

    Kingma, Ba: Adam, ICLR 2015, arXiv 1412.6980. Every entry moves by itself, so that the tasks of a batch do not touch
    each other. Nothing is recorded for autograd: the result is a constant.

    Args:
        start: [T, ...], left as it is.
        gradient: from weights [T, ...] to the gradient of their tasks' losses, [T, ...]; must not keep the weights.
        learning_rate: size of a step in the first iterations.
        n_iterations: how many.
        betas: decay of the averages of the gradient and of its square.
        eps: added to the root of the latter.
    """
    weights = start.detach().clone()
    mean, square = torch.zeros_like(weights), torch.zeros_like(weights)
    for step in range(1, n_iterations + 1):
        slope = gradient(weights)
        mean.lerp_(slope, 1 - betas[0])
        square.mul_(betas[1]).addcmul_(slope, slope, value=1 - betas[1])
        root = square.sqrt().div_((1 - betas[1] ** step) ** 0.5).add_(eps)
        weights.addcdiv_(mean, root, value=-learning_rate / (1 - betas[0] ** step))
    return weights


def euclidean_logits(features: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """-(temperature / 2) |z_i - w_c|^2 without its part that all classes share, [T, n, N].

    That is temperature (z_i . w_c - |w_c|^2 / 2): the same softmax.

    Args:
        features: z, [T, n, D].
        weights: w, [T, N, D].
        temperature: multiplies half the squared distance.
    """
    offsets = (-temperature / 2) * weights.square().sum(-1, keepdim=True)  # [T, N, 1]
    logits = torch.baddbmm(offsets, weights, features.transpose(1, 2), alpha=temperature)  # [T, N, n]
    return logits.transpose(1, 2)


def euclidean_weight_gradient(features: Tensor, weights: Tensor, logit_gradient: Tensor, temperature: float) -> Tensor:
    """Gradient with respect to the weights from that with respect to `euclidean_logits`, [T, N, D].

    It is temperature (sum_i g_ic z_i - w_c sum_i g_ic).

    Args:
        features: z, [T, n, D].
        weights: w, [T, N, D].
        logit_gradient: g, [T, n, N].
        temperature: of the logits.
    """
    pulled = weights * (-temperature * logit_gradient.sum(1)).unsqueeze(-1)
    return torch.baddbmm(pulled, logit_gradient.transpose(1, 2), features, alpha=temperature)
