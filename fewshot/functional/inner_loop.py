"""Gradient descent within a task, as something that can itself be differentiated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.func import grad


def gradient_steps(
    loss: Callable[[dict[str, Tensor]], Tensor],
    start: Mapping[str, Tensor],
    *,
    n_steps: int,
    step_size: float,
    first_order: bool,
) -> Iterator[dict[str, Tensor]]:
    """Parameters before the first step of gradient descent and after each, n_steps + 1 in all, one at a time.

    For one task; torch.func.vmap makes it many. What comes back can be differentiated with respect to `start` and to
    whatever else `loss` depends on. Steps are computed in the parameters' own precision, also under autocast: there a
    gradient in half precision would lose what is small, and float16 has no loss scale here.

    Args:
        loss: parameters by name to one number.
        start: parameters by name, of any shapes.
        n_steps: 0 or more.
        step_size: of the gradient of what `loss` returns.
        first_order: take the gradients for constants, so that the derivative of the result is that of `start` alone.
    """
    parameters = dict(start)
    yield parameters
    device_type = next(iter(parameters.values())).device.type
    for _ in range(n_steps):
        # torch.func.grad differentiates whether or not gradients are enabled outside; these are about its result
        recorded = torch.is_grad_enabled() and not first_order
        with torch.set_grad_enabled(recorded), torch.autocast(device_type, enabled=False):
            gradient = grad(loss)(parameters)
        parameters = {name: value - step_size * gradient[name] for name, value in parameters.items()}
        yield parameters
