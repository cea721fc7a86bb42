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
