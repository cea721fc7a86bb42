"""One optimiser step is the mean over accumulated batches, tasks per batch and ranks, however these divide."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer, seed_everything
from two_ranks import join, on_two_ranks

from fewshot import EpisodicDataModule, FewShotModule
from fewshot.backbones import BackboneConfig
from fewshot.data.datasets import FewShotDataset
from fewshot.data.images import Images
from fewshot.data.transforms import Preprocessing
from fewshot.methods import SIB, EquivariantGradient, MLPGradient, ProtoNet

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
]

METHODS = {
    "sib": lambda: SIB(gradient=MLPGradient(n_way=3), n_steps=2, step_size=0.05),
    "equivariant": lambda: SIB(gradient=EquivariantGradient(), n_steps=2, step_size=0.05, matching_weight=0.1),
    "protonet": lambda: ProtoNet(learn_temperature=True),
}


class Blobs(FewShotDataset):
    """Noise around a colour of each of 6 classes, 6 pictures of each, in memory."""

    name = "blobs"
    preprocessing = Preprocessing(16, 16, (0.5,) * 3, (0.5,) * 3)

    def images(self, split: Any, preprocessing: Preprocessing | None = None) -> Images:
        rng = np.random.default_rng(["train", "val", "test"].index(split))
        labels = np.repeat(np.arange(6), 6)
        pixels = rng.integers(60, 196, (6, 3, 1, 1))[labels] + rng.integers(-60, 60, (36, 3, 16, 16))
        names = [f"{split}{c}" for c in range(6)]
        return Images(pixels.astype(np.uint8), labels, names, [f"{names[label]}/{i}" for i, label in enumerate(labels)])


def trained(
    method: str = "sib", *, tasks: int, accumulated: int = 1, n_episodes: int = 16, strategy: str = "auto"
) -> list[np.ndarray]:
    """The method's parameters after an epoch of plain descent with rate 1, which shows every gradient."""
    seed_everything(0, verbose=False)
    module = FewShotModule(
        METHODS[method](),
        BackboneConfig("conv4_32", image_size=16),
        optimizer=functools.partial(torch.optim.SGD, lr=1.0),
    )
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = Trainer(
        accelerator="cpu",
        devices=1 if strategy == "auto" else 2,
        strategy=strategy,
        max_epochs=1,
        limit_val_batches=0,
        accumulate_grad_batches=accumulated,
        precision="64-true",  # so that nothing is left but the order of sums
        use_distributed_sampler=False,
        **dict.fromkeys(silent, False),  # type: ignore[arg-type]
    )
    feed = EpisodicDataModule(
        Blobs(), n_way=3, n_query=4, tasks_per_batch=tasks, train_episodes=n_episodes, store_features=True
    )
    trainer.fit(module, feed)
    return [parameter.detach().numpy().copy() for parameter in module.method.parameters()]


def on_rank(rank: int, cache: Path) -> dict[str, list[np.ndarray]]:
    """The parameters after training in one of two processes."""
    os.environ |= {"FEWSHOT_CACHE": str(cache), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    join(rank)
    found = {method: trained(method, tasks=4, strategy="ddp") for method in METHODS}
    return {**found, "not divisible": trained(tasks=4, n_episodes=11, strategy="ddp")}


def difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """The largest one between two lists of parameters."""
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of one test are not found by another."""
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[np.ndarray]]:
    """What two processes have trained, which is the same in both."""
    first, second = on_two_ranks(on_rank, tmp_path_factory.mktemp("cache"))
    assert all(difference(first[name], second[name]) == 0 for name in first)
    return first


@pytest.mark.parametrize("method", METHODS)
def test_eight_tasks_are_four_times_two(method: str) -> None:
    eight = trained(method, tasks=8)
    assert difference(eight, trained(method, tasks=4)) > 1e-4  # twice as many steps
    assert difference(eight, trained(method, tasks=2, accumulated=4)) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_eight_tasks_are_four_on_each_of_two_ranks(method: str, two_ranks: dict[str, list[np.ndarray]]) -> None:
    assert difference(trained(method, tasks=8), two_ranks[method]) < 1e-9


@pytest.mark.slow
def test_two_ranks_round_an_epoch_up(two_ranks: dict[str, list[np.ndarray]]) -> None:
    assert difference(trained(tasks=8, n_episodes=12), two_ranks["not divisible"]) < 1e-9


def test_the_last_step_of_an_epoch_takes_what_is_left() -> None:
    """Of 11 episodes, 3 are left after a step of 8."""
    left = trained(tasks=8, n_episodes=11)
    assert difference(left, trained(tasks=8, n_episodes=8)) > 1e-4
    # Three accumulated batches of one episode, divided by eight: three eighths of that step.
    before, after = trained(tasks=8, n_episodes=8), trained(tasks=1, accumulated=8, n_episodes=11)
    expected = [a + 3 / 8 * (b - a) for a, b in zip(before, left, strict=True)]
    assert difference(after, expected) < 1e-9
