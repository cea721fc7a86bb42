"""Gradient descent within a task, as something that can itself be differentiated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad
from torch.overrides import TorchFunctionMode


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
        # in inference mode it would be wrong under vmap, without an error, before torch 2.12
        with torch.inference_mode(False), torch.set_grad_enabled(recorded), torch.autocast(device_type, enabled=False):
            gradient = grad(loss)(parameters)
        parameters = {name: value - step_size * gradient[name] for name, value in parameters.items()}
        yield parameters


class Statistics(NamedTuple):
    """What one layer normalises by."""

    mean: Tensor
    """[C]."""
    variance: Tensor
    """[C], biased."""


class _Normalization(TorchFunctionMode, ABC):
    """Every batch normalisation by what `statistics` says.

    Written out, not F.batch_norm: where torch.func.vmap maps over weights too, the derivative of that one's gradient
    takes the statistics for constants and is wrong, without an error (torch 2.15; the like of it is
    github.com/pytorch/pytorch/issues/186256).
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return (self._normalized if func is F.batch_norm else func)(*args, **(kwargs or {}))

    def _normalized(
        self,
        batch: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """What F.batch_norm computes, whose arguments these are, differentiable in the statistics too.

        The result has the batch's own precision, statistics that are taken of it the weight's where that is wider.
        """
        stored = None if running_mean is None or running_var is None else Statistics(running_mean, running_var)
        wide = batch.dtype if weight is None else torch.promote_types(batch.dtype, weight.dtype)
        by = self.statistics(batch, stored, wide)
        factor = (by.variance + eps).rsqrt() if weight is None else weight * (by.variance + eps).rsqrt()
        offset = -by.mean * factor if bias is None else bias - by.mean * factor
        shape = (-1, *[1] * (batch.ndim - 2))  # [C, 1, ...]
        return (batch * factor.view(shape) + offset.view(shape)).to(batch.dtype)

    @abstractmethod
    def statistics(self, batch: Tensor, stored: Statistics | None, wide: torch.dtype) -> Statistics:
        """What the next layer normalises by.

        Args:
            batch: [B, C, *].
            stored: the layer's running statistics, None where it keeps none.
            wide: the precision for statistics of the batch.
        """


class OwnStatistics(_Normalization):
    """Every batch by its own statistics, which are kept in `seen`, one layer's after the other's."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Statistics] = []

    def statistics(self, batch: Tensor, stored: Statistics | None, wide: torch.dtype) -> Statistics:
        variance, mean = torch.var_mean(batch.to(wide), [0, *range(2, batch.ndim)], correction=0)
        self.seen.append(Statistics(mean, variance))
        return self.seen[-1]


class StoredStatistics(OwnStatistics):
    """Every batch by the running statistics of the layer, or by its own where the layer keeps none."""

    def statistics(self, batch: Tensor, stored: Statistics | None, wide: torch.dtype) -> Statistics:
        return super().statistics(batch, stored, wide) if stored is None else stored


class GivenStatistics(_Normalization):
    """Every batch by the statistics that another batch had in the same layers of the same network.

    Gradients reach them, and so the pictures and parameters they came from.

    Args:
        given: what OwnStatistics saw; to be entered once.
    """

    def __init__(self, given: Sequence[Statistics]) -> None:
        super().__init__()
        self._left = iter(given)

    def statistics(self, batch: Tensor, stored: Statistics | None, wide: torch.dtype) -> Statistics:
        return next(self._left)
