"""Methods that other packages have too, on the same features: 5-way 1-shot, 15 queries, D = 640, no training.

The other package is an optional dependency, `pip install -e .[bench]`. To compare one more method, add it to METHODS.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fewshot.methods import Method, ProtoNet
from tests.benchmarks.measuring import Cost, measured, medians, table

TITLE = "The same methods in easyfsl (features, 5-way 1-shot, 15 queries, D = 640)"

# Ours, and the name of theirs in easyfsl.methods with its arguments.
METHODS: dict[str, tuple[Callable[[], Method], str, dict[str, object]]] = {
    "prototypical networks": (ProtoNet, "PrototypicalNetworks", {}),
}


def tasks_of(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Support [T, 5, 640], labels [T, 5] and queries [T, 75, 640]."""
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.rand(count, size, 640, generator=generator) for size in (5, 75))
    return support, torch.arange(5).expand(count, -1), query


@torch.inference_mode()
def by_us(method: Method, tasks: tuple[Tensor, Tensor, Tensor], batch: int) -> Tensor:
    """Predicted classes [T, Q], so many tasks at once."""
    parts = zip(*(part.split(batch) for part in tasks), strict=True)
    return torch.cat([method.classify(*part, 5).argmax(-1) for part in parts])


@torch.inference_mode()
def by_them(method: nn.Module, tasks: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Predicted classes [T, Q], one task at a time, as their interface has it."""
    predicted = []
    for support, labels, query in zip(*tasks, strict=True):
        method.process_support_set(support, labels)  # type: ignore[operator]
        predicted.append(method(query).argmax(-1))
    return torch.stack(predicted)


def run(*, quick: bool = False) -> str:
    """The table; says so where easyfsl is not installed."""
    try:
        import easyfsl.methods
    except ImportError:
        return "easyfsl is not installed: pip install -e '.[bench]'"
    count, repeats = (4, 1) if quick else (512, 5)
    rows = []
    for name, (ours, theirs, arguments) in METHODS.items():
        tasks, method = tasks_of(count), ours().eval()
        other = getattr(easyfsl.methods, theirs)(backbone=nn.Identity(), **arguments).eval()
        ways: dict[str, Callable[[], Cost]] = {
            "easyfsl, 1": functools.partial(measured, functools.partial(by_them, other, tasks), count)
        }
        for batch in (1, 8, 64):
            ways[f"ours, {batch}"] = functools.partial(measured, functools.partial(by_us, method, tasks, batch), count)
        same = (by_us(method, tasks, 64) == by_them(other, tasks)).float().mean()
        costs = medians(ways, repeats)
        for way, cost in costs.items():
            rows.append(
                [name, *way.split(", "), cost.per_second, costs["easyfsl, 1"].cpu / cost.cpu, f"{100 * same:.2f} %"]
            )
    return table(
        ["method", "way", "tasks per batch", "episodes/s", "times easyfsl (processor time)", "same predictions"], rows
    )
