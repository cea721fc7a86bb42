"""Methods that other packages have too, on the same features: 5-way 1-shot, 15 queries, D = 640, no training.

Predictions need not be the same: easyfsl centres nothing unless told to, TIM's logits there are cosines, and its
BD-CSPN weighs by another softmax. The other package is an optional dependency, `pip install -e .[bench]`. To compare
one more method, add it to METHODS.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fewshot.commands.process import keep_freed_memory
from fewshot.functional.features import class_means
from fewshot.methods import BDCSPN, PTMAP, TIM, BaseClasses, LaplacianShot, Method, ProtoNet, SimpleShot
from tests.benchmarks.measuring import Cost, measured, medians, table

TITLE = "The same methods in easyfsl (features, 5-way 1-shot, 15 queries, D = 640)"

# Ours, and the name of theirs in easyfsl.methods with its arguments; the same number of iterations for both.
METHODS: dict[str, tuple[Callable[[], Method], str, dict[str, object]]] = {
    "prototypical networks": (ProtoNet, "PrototypicalNetworks", {}),
    "SimpleShot": (SimpleShot, "SimpleShot", {}),
    "BD-CSPN": (BDCSPN, "BDCSPN", {}),
    "LaplacianShot": (LaplacianShot, "LaplacianShot", {}),
    "PT-MAP, 20 rounds": (PTMAP, "PTMAP", {"fine_tuning_steps": 20}),
    "TIM-GD, 50 iterations": (lambda: TIM(n_iterations=50), "TIM", {"fine_tuning_steps": 50}),
}
SLOW = {"PTMAP", "TIM"}
"""Those of easyfsl that take a tenth of a second for an episode, and more: measured on few."""


def tasks_of(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Support [T, 5, 640], labels [T, 5] and queries [T, 75, 640]: clouds around class centres, cut off at zero."""
    generator = torch.Generator().manual_seed(0)
    centres = 0.35 * torch.randn(count, 5, 640, generator=generator)
    features = (centres.repeat(1, 16, 1) + torch.randn(count, 80, 640, generator=generator)).relu()
    return features[:, :5], torch.arange(5).expand(count, -1), features[:, 5:]


def prepared(method: Method, support: Tensor, labels: Tensor) -> Method:
    """The method, told of training classes that are those of the tasks."""
    means = class_means(support, labels, 5).flatten(0, 1)
    method.prepare(BaseClasses(means.mean(0), means))
    return method.eval()


@torch.inference_mode()
def by_us(method: Method, tasks: tuple[Tensor, Tensor, Tensor], batch: int) -> Tensor:
    """Predicted classes [T, Q], so many tasks at once."""
    parts = zip(*(part.split(batch) for part in tasks), strict=True)
    return torch.cat([method.classify(*part, 5).argmax(-1) for part in parts])


@torch.no_grad()  # some of them differentiate, which inference_mode does not allow
def by_them(method: nn.Module, tasks: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Predicted classes [T, Q], one task at a time, as their interface has it."""
    predicted = []
    for support, labels, query in zip(*tasks, strict=True):
        method.process_support_set(support, labels)  # type: ignore[operator]
        predicted.append(method(query).argmax(-1))
    return torch.stack(predicted)


def run(*, quick: bool = False) -> str:
    """The table, with the allocator as the command line sets it up; says so where easyfsl is not installed."""
    keep_freed_memory()
    try:
        import easyfsl.methods
    except ImportError:
        return "easyfsl is not installed: pip install -e '.[bench]'"
    count, repeats = (4, 1) if quick else (512, 5)
    rows = []
    for name, (ours, theirs, arguments) in METHODS.items():
        tasks = tasks_of(count)
        few = tasks_of((1 if quick else 4) if theirs in SLOW else count)
        method = prepared(ours(), *tasks[:2])
        other = getattr(easyfsl.methods, theirs)(backbone=nn.Identity(), **arguments).eval()
        ways: dict[str, Callable[[], Cost]] = {
            "easyfsl, 1": functools.partial(measured, functools.partial(by_them, other, few), len(few[0]))
        }
        for batch in (1, 8, 64):
            ways[f"ours, {batch}"] = functools.partial(measured, functools.partial(by_us, method, tasks, batch), count)
        same = (by_us(method, few, 64) == by_them(other, few)).float().mean()
        costs = medians(ways, repeats)
        for way, cost in costs.items():
            rows.append(
                [name, *way.split(", "), cost.per_second, costs["easyfsl, 1"].cpu / cost.cpu, f"{100 * same:.2f} %"]
            )
    return table(
        ["method", "way", "tasks per batch", "episodes/s", "times easyfsl (processor time)", "same predictions"], rows
    )
