"""What a method may know of the training classes, and how it keeps that in its state dict."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fewshot.functional.features import in_full_precision


class BaseClasses(NamedTuple):
    """What a method may learn from the training classes, by the frozen backbone's features of the pictures as they are.

    Letters: C training classes.
    """

    mean: Tensor
    """[D], the mean feature of all training pictures."""
    class_means: Tensor
    """[C, D], the mean feature of each class; C is 0 where the training classes are not known."""
    weights: Tensor | None = None
    """[C, D], the weights of the classifier that the backbone was pre-trained with; None where it is not known."""
    scale: Tensor | None = None
    """[], the factor between that classifier's cosines and its logits."""


def of_own_pictures(features: Tensor) -> BaseClasses:
    """What stands in for the training classes where they are not known: the mean of a task's own pictures [n, D]."""
    return BaseClasses(features.mean(0), features[:0])


class StoredBaseClasses(nn.Module):
    """Buffers for BaseClasses: part of the state dict, empty until filled, of whatever size a state dict has."""

    def __init__(self) -> None:
        super().__init__()
        for name in BaseClasses._fields:
            self.register_buffer(name, torch.empty(0))

    def fill(self, base: BaseClasses) -> None:
        """Keep copies, in float32 or wider."""
        for name, value in base._asdict().items():
            setattr(self, name, torch.empty(0) if value is None else in_full_precision(value.detach().clone()))

    def read(self) -> BaseClasses | None:
        """What was filled in; None before."""
        mean, class_means, *classifier = (getattr(self, name) for name in BaseClasses._fields)
        if not mean.numel():
            return None
        return BaseClasses(mean, class_means, *(value if value.numel() else None for value in classifier))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in BaseClasses._fields:
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *rest)
