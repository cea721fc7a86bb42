"""Task-dependent adaptive metric (TADAM).

Oreshkin, Rodriguez, Lacoste: TADAM: Task Dependent Adaptive Metric for Improved Few-shot Learning, NeurIPS 2018,
arXiv 1805.10123.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.profiler import record_function

from fewshot.episode import Episode
from fewshot.functional.features import class_means, in_full_precision, squared_distances
from fewshot.methods.base import Method, Refinement, encoded
from fewshot.methods.options import check_above, check_at_least


class TaskEmbedding(nn.Module):
    """What one task makes of the channels of one layer, times a learned factor that starts at zero.

    Args:
        n_features: D, the width of a task's representation.
        n_channels: C.
        depth: linear layers, all but the first with a connection around them.
    """

    def __init__(self, n_features: int, n_channels: int, depth: int) -> None:
        super().__init__()
        self.project = nn.Linear(n_features, n_channels)
        self.residual = nn.ModuleList(nn.Linear(n_channels, n_channels) for _ in range(depth - 1))
        self.post_multiplier = nn.Parameter(torch.zeros(()))

    def forward(self, tasks: Tensor) -> Tensor:
        """[T, D] to [T, C]."""
        hidden = self.project(tasks)
        for layer in self.residual:
            hidden = hidden + layer(hidden.relu())
        return self.post_multiplier * hidden


class Modulation(nn.Module):
    """Scale 1 + gamma0 g(task) and shift beta0 h(task) of one layer's channels; arguments as of TaskEmbedding."""

    def __init__(self, n_features: int, n_channels: int, depth: int) -> None:
        super().__init__()
        self.gamma = TaskEmbedding(n_features, n_channels, depth)
        self.beta = TaskEmbedding(n_features, n_channels, depth)

    def forward(self, tasks: Tensor) -> tuple[Tensor, Tensor]:
        """[T, D] to scales and shifts, [T, C] each."""
        return 1 + self.gamma(tasks), self.beta(tasks)


class TADAM(Method):
    """Prototypical networks with a learned temperature, on a backbone that adapts to the task.

    The support is encoded twice. The first time, by the backbone as it is, the mean of the class means represents the
    task; from it, networks of their own give a scale and a shift for every channel of what each BatchNorm layer gives,
    and the backbone with these encodes support and queries for the prototypes. At the start all scales are one and all
    shifts zero: a prototypical network. Inductive: every query is classified alone. On features, where there is no
    backbone to adapt, only the temperature is left.

    Departures: the auxiliary co-training by classes of the training set is left out; start from a backbone of
    PretrainModule instead, frozen or not. Every BatchNorm layer is adapted, those on the shortcuts of a residual
    network too; where timm joins a BatchNorm layer with its activation, what comes after the activation is.

    Args:
        temperature: multiplies the negative squared distances; what it starts at.
        depth: linear layers of each of the networks.
        penalty: weight of the sum of squares of all gamma0 and beta0 in the loss.

    Raises:
        ValueError: a depth below 1 or a negative penalty.
    """

    transductive = False
    on_features = False

    def __init__(self, temperature: float = 1.0, depth: int = 3, penalty: float = 0.01) -> None:
        super().__init__()
        check_at_least(1, depth=depth)
        check_at_least(0, penalty=penalty)
        check_above(0, temperature=temperature)
        self.temperature = nn.Parameter(torch.tensor(float(temperature)))
        self.depth, self.penalty = depth, penalty
        self.modulations = nn.ModuleList()

    def build_on(self, backbone: nn.Module) -> None:
        if getattr(backbone, "_compiled_call_impl", None) is not None:
            raise ValueError(
                "TADAM changes what the backbone's BatchNorm layers give, which torch.compile would pass over; set "
                "model.backbone.compile=false"
            )
        layers = batchnorm_layers(backbone)
        if not layers:
            raise ValueError(
                f"TADAM adapts BatchNorm layers, but {type(backbone).__name__} has none; choose a backbone that does, "
                "such as conv4 or resnet12"
            )
        n_features: Any = backbone.num_features
        self.modulations.extend(Modulation(n_features, layer.num_features, self.depth) for layer in layers)

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        return -self.temperature * squared_distances(query, class_means(support, support_labels, n_way))

    def forward(self, backbone: nn.Module, episode: Episode) -> Refinement:
        """Encode the support, then support and queries by the adapted backbone, and compare."""
        if episode.holds_features:
            return super().forward(backbone, episode)
        before, _ = encoded(backbone, episode._replace(query=episode.query[:, :0]))  # [T, S, D]
        with record_function("method"), torch.autocast(device_type=before.device.type, enabled=False):
            means = class_means(in_full_precision(before), episode.support_labels, episode.n_way)  # [T, N, D]
            modulated = [modulation(means.mean(1)) for modulation in self.modulations]
        with modulating(batchnorm_layers(backbone), modulated):
            support, query = encoded(backbone, episode)
        with record_function("method"):
            refinement = self.refine(support, episode.support_labels, query, episode.n_way)
        return refinement._replace(losses={"penalty": self.penalty * self.squared_post_multipliers()})

    def squared_post_multipliers(self) -> Tensor:
        """The sum of squares of all gamma0 and beta0, 0-dimensional."""
        found: list[Tensor] = [p for name, p in self.modulations.named_parameters() if name.endswith("post_multiplier")]
        return torch.stack(found).square().sum()


def batchnorm_layers(backbone: nn.Module) -> list[Any]:
    """The backbone's BatchNorm layers, in the order of its modules."""
    return [module for module in backbone.modules() if isinstance(module, _BatchNorm)]


@contextmanager
def modulating(layers: list[Any], modulated: list[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Within it, what each layer gives is scaled and shifted by channel, the rows of a task by what is the task's.

    Args:
        layers: whose output is [T * n, C, ...], task by task.
        modulated: scales and shifts [T, C] of each layer.
    """

    def modulate(_: nn.Module, __: Any, output: Tensor, *, scale: Tensor, shift: Tensor) -> Tensor:
        shape = (*scale.shape[:1], 1, *scale.shape[1:], *[1] * (output.ndim - 2))  # [T, 1, C, 1, 1]
        of_tasks = output.unflatten(0, (len(scale), -1))  # [T, n, C, H, W]
        return (of_tasks * scale.to(output.dtype).view(shape) + shift.to(output.dtype).view(shape)).flatten(0, 1)

    handles = [
        layer.register_forward_hook(partial(modulate, scale=scale, shift=shift))
        for layer, (scale, shift) in zip(layers, modulated, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
