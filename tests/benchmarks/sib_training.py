"""SIB on stored features: the reference, our Method in a plain loop, and the Trainer; training and testing."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger

from fewshot import EpisodicDataModule, FewShotModule
from fewshot.commands.fit import run_checkpoints
from fewshot.commands.process import keep_freed_memory
from fewshot.runs.resumption import AtomicCheckpointIO, Resumption
from fewshot.training.threads import FewThreads
from tests.benchmarks import reference
from tests.benchmarks.measuring import Cost, Stopwatch, measured, medians, own_cache, quiet, table
from tests.benchmarks.synthetic import WIDTH, Clouds, module, prepared

TITLE = "SIB on stored features (5-way 1-shot, 15 queries, D = 640, K = 3)"


class EpisodeTimes(Callback):
    """Seconds of a whole fit and of a whole test, without setting up: batches, logging, checkpoints, progress."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.watch = Stopwatch()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.total = self.watch.stop()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.watch = Stopwatch()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.total = self.watch.stop()


def trainer(folder: Path, times: Callback, **options: Any) -> Trainer:
    """As the command line makes it: CSV log, checkpoint of the last epoch, progress bar."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    return Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=folder,
        logger=CSVLogger(folder, name="log"),
        callbacks=[run_checkpoints(folder)[-1], Resumption(folder / "last.ckpt"), times],
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,
        **options,
    )


def through_trainer(
    model: FewShotModule, data: EpisodicDataModule, folder: Path, *, test: bool, **options: Any
) -> Cost:
    """Cost of an episode by Trainer.fit (of one epoch, nothing validated) or Trainer.test."""
    times = EpisodeTimes()
    with quiet():
        if test:
            trainer(folder, times, **options).test(model, data, verbose=False)
        else:
            trainer(folder, times, limit_val_batches=0, **options).fit(model, data)
    episodes = data.test_episodes if test else data.train_episodes
    return Cost(times.total.wall / episodes, times.total.cpu / episodes)


def training_loop(model: FewShotModule, data: EpisodicDataModule) -> Cost:
    """Cost of an episode in a plain loop over the same loader, with our Method and the published optimiser."""
    method, loader = model.method.train(), data.train_dataloader()
    optimizer, threads = model.optimizer(method.parameters()), FewThreads()
    watch = Stopwatch()
    for episode in loader:
        threads.suit(episode)
        labels = episode.known_query_labels()
        refinement = method.refine(episode.support, episode.support_labels, episode.query, episode.n_way)
        optimizer.zero_grad()
        method.loss(refinement, labels)["cross_entropy"].backward()
        optimizer.step()
    threads.restore()
    return watch.stop(data.train_episodes)


@torch.inference_mode()
def test_loop(model: FewShotModule, data: EpisodicDataModule) -> Cost:
    """Cost of an episode in a plain loop over the test loader."""
    method, loader, correct, threads = model.method.eval(), data.test_dataloader(), 0, FewThreads()
    watch = Stopwatch()
    for episode in loader:
        threads.suit(episode)
        logits = method.classify(episode.support, episode.support_labels, episode.query, episode.n_way)
        correct += int((logits.argmax(-1) == episode.query_labels).sum())
    threads.restore()
    return watch.stop(data.test_episodes)


def reference_ways(n_features: int, episodes: int) -> dict[str, dict[str, Callable[[], Cost]]]:
    """Training and testing by the reference on features held in memory: 64 classes of 600, as the data modules have.

    "original" works as the original program does, "reference" leaves out what its answers do not need. Both have one
    thread, which suits them better than several: a single episode is too small to share.
    """
    features = torch.rand(64 * 600, n_features)
    tasks = reference.feature_tasks(features, [np.arange(600 * c, 600 * (c + 1)) for c in range(64)])
    plain, original = reference.ReferenceSIB(n_features), reference.OriginalSIB(n_features)
    optimizer, published = reference.reference_optimizer(plain), reference.reference_optimizer(original)

    def train() -> None:
        for task in itertools.islice(tasks, episodes):
            reference.train_episode(plain, optimizer, task)

    def test() -> None:
        for task in itertools.islice(tasks, episodes):
            reference.test_accuracy(plain, task)

    def train_original() -> None:
        kept: list[float] = []
        for task in itertools.islice(tasks, episodes):
            reference.train_original(original, published, task, kept)

    def test_original() -> None:
        kept: list[float] = []
        for task in itertools.islice(tasks, episodes):
            reference.test_original(original, task, kept)

    def alone(run: Callable[[], object]) -> Cost:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return measured(run, episodes)
        finally:
            torch.set_num_threads(threads)

    return {
        "train": {"original": lambda: alone(train_original), "reference": lambda: alone(train)},
        "test": {"original": lambda: alone(test_original), "reference": lambda: alone(test)},
    }


def run(*, quick: bool = False) -> str:
    """The tables of training and testing, with the allocator as the command line sets it up."""
    keep_freed_memory()
    return tables((1, 8), repeats=1, seconds=0.02) if quick else tables((1, 16, 64, 256), repeats=5, seconds=1.5)


def tables(sizes: tuple[int, ...], *, repeats: int, seconds: float) -> str:
    """The two tables for these tasks per batch, with about so many seconds for a measurement."""
    ways = reference_ways(WIDTH, max(10, int(200 * seconds)))
    with own_cache() as folder:
        dataset = Clouds(n_pictures=600 if seconds > 0.1 else 20)
        model = module()
        for tasks in sizes:
            batches = max(3, int(seconds * 1000 / (2 + 0.4 * tasks)))
            data = prepared(
                dataset,
                model,
                tasks_per_batch=tasks,
                train_episodes=tasks * batches,
                test_episodes=tasks * batches,
            )
            through = functools.partial(through_trainer, model, data, folder)
            ways["train"][f"loop, {tasks}"] = functools.partial(training_loop, model, data)
            ways["train"][f"Trainer.fit, {tasks}"] = functools.partial(through, test=False)
            ways["test"][f"loop, {tasks}"] = functools.partial(test_loop, model, data)
            ways["test"][f"Trainer.test, {tasks}"] = functools.partial(through, test=True)
        costs = {kind: medians(ways[kind], repeats) for kind in ways}
    return "\n\n".join(comparison(kind, costs[kind]) for kind in costs)


def comparison(kind: str, costs: dict[str, Cost]) -> str:
    """Episodes per second of each way, how many times the original's, and Lightning's share of its time."""
    rows = []
    for name, cost in costs.items():
        way, _, tasks = name.partition(", ")
        share = ""
        if way.startswith("Trainer"):
            share = f"{100 * max(0.0, 1 - costs[f'loop, {tasks}'].cpu / cost.cpu):.0f} %"
        times = costs["original"].wall / cost.wall, costs["reference"].wall / cost.wall
        rows.append([way, tasks or "1", cost.per_second, 1e6 * cost.cpu, *times, share])
    header = [
        f"{kind}: way",
        "tasks per batch",
        "episodes/s",
        "processor µs/episode",
        "times the original",
        "times the reference",
        "Lightning's share",
    ]
    return table(header, rows)
