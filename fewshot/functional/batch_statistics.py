"""Which statistics the batch normalisation layers of a network normalise by, decided from outside of the network.

Each class is a context: while it is entered, torch.nn.functional.batch_norm, which every BatchNorm layer of torch and
timm calls, normalises by the statistics it says, whether the layer is in training or in evaluation mode. The network
is left as it is, running statistics included, so it may be called within torch.func's transforms.

Letters: B pictures, C channels, ``*`` any further dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Statistics(NamedTuple):
    """What one layer normalises by."""

    mean: Tensor
    """[C]."""
    variance: Tensor
    """[C], biased."""


class _Normalization(TorchFunctionMode, ABC):
    """Hands every batch normalisation to `normalize`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.batch_norm:
            return self._called(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _called(
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
        # the arguments of F.batch_norm, whose names these are
        stored = None if running_mean is None or running_var is None else Statistics(running_mean, running_var)
        return self.normalize(batch, stored, weight, bias, eps)

    @abstractmethod
    def normalize(
        self, batch: Tensor, stored: Statistics | None, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        """[B, C, *] normalised, times weight [C], plus bias [C].

        Args:
            batch: [B, C, *].
            stored: the layer's running statistics, None where it keeps none.
            weight: [C], or None for ones.
            bias: [C], or None for zeros.
            eps: added to the variance.
        """


class OwnStatistics(_Normalization):
    """Every batch by its own statistics, which are kept in `seen`, one layer's after the other's.

    Written out, not F.batch_norm: where torch.func.vmap maps over weights too, the derivative of that one's gradient
    takes the statistics for constants and is wrong, without an error (torch 2.15; the like of it is
    github.com/pytorch/pytorch/issues/186256).
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Statistics] = []

    def normalize(
        self, batch: Tensor, stored: Statistics | None, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        wide = batch if weight is None else batch.to(torch.promote_types(batch.dtype, weight.dtype))
        variance, mean = torch.var_mean(wide, [0, *range(2, batch.ndim)], correction=0)
        self.seen.append(Statistics(mean, variance))
        return _normalized(batch, self.seen[-1], weight, bias, eps)


class StoredStatistics(OwnStatistics):
    """Every batch by the running statistics of the layer, or by its own where the layer keeps none."""

    def normalize(
        self, batch: Tensor, stored: Statistics | None, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        if stored is None:
            return super().normalize(batch, stored, weight, bias, eps)
        return _normalized(batch, stored, weight, bias, eps)


class GivenStatistics(_Normalization):
    """Every batch by the statistics that another batch had in the same layers of the same network.

    Gradients reach them, and so the pictures and parameters they came from.

    Args:
        given: what OwnStatistics saw; to be entered once.
    """

    def __init__(self, given: Sequence[Statistics]) -> None:
        super().__init__()
        self._left = iter(given)

    def normalize(
        self, batch: Tensor, stored: Statistics | None, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        return _normalized(batch, next(self._left), weight, bias, eps)


def _normalized(batch: Tensor, by: Statistics, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """What F.batch_norm computes, differentiable in the statistics too; in the batch's own precision."""
    factor = (by.variance + eps).rsqrt() if weight is None else weight * (by.variance + eps).rsqrt()
    offset = -by.mean * factor if bias is None else bias - by.mean * factor
    shape = (-1, *[1] * (batch.ndim - 2))  # [C, 1, ...]
    return (batch * factor.view(shape) + offset.view(shape)).to(batch.dtype)
