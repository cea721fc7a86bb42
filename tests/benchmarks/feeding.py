"""Pictures of 84 px to episodes: ours from JPEG files and from the array, and a DataLoader over an ImageFolder."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from fewshot import EpisodicDataModule
from fewshot.commands.process import keep_freed_memory
from fewshot.data.datasets import ImageFolderSplits
from fewshot.data.datasets.folder import IMAGENET_MEAN, IMAGENET_STD
from tests.benchmarks import reference
from tests.benchmarks.measuring import Cost, Stopwatch, medians, own_cache, quiet, table
from tests.benchmarks.pictures import listed, written

TITLE = "Feeding pictures (84 px, 5-way 1-shot, 15 queries, crop, flip and colour jitter)"


class EpisodeBatches:
    """A batch sampler: the pictures of one episode a batch."""

    def __init__(self, folder: Path, episodes: int) -> None:
        self.by_class, self.episodes = listed(folder)[1], episodes

    def __iter__(self) -> Iterator[list[int]]:
        for support, query in itertools.islice(reference.drawn_episodes(self.by_class), self.episodes):
            yield [*support.reshape(-1).tolist(), *query.reshape(-1).tolist()]


def image_folder(root: Path, *, workers: int, episodes: int) -> Cost:
    """Cost of an episode by torchvision and torch alone."""
    pictures = ImageFolder(str(root / "train"), reference.training_pipeline(84, 8, IMAGENET_MEAN, IMAGENET_STD))
    sampler = EpisodeBatches(root / "train", episodes + 2)
    return drained(DataLoader(pictures, batch_sampler=sampler, num_workers=workers), episodes)


def ours(root: Path, *, decoded: bool, tasks: int, workers: int, episodes: int) -> Cost:
    """Cost of an episode by EpisodicDataModule, from JPEG files or from the array of decoded pictures."""
    dataset = ImageFolderSplits(str(root), max_cached_bytes=2**31 if decoded else 0)
    data = EpisodicDataModule(
        dataset, tasks_per_batch=tasks, num_workers=workers, train_episodes=episodes + 2 * tasks, store_features=False
    )
    with quiet():
        loader = data.train_dataloader()
    return drained(loader, episodes)


def drained(loader: DataLoader, episodes: int) -> Cost:
    """Cost of an episode after the first batch: workers have been started by then."""
    batches = iter(loader)
    next(batches)
    watch = Stopwatch()
    rest = sum(1 for _ in batches)
    total = watch.stop()
    per_batch = episodes / rest if rest else 1.0
    return Cost(total.wall / (rest * per_batch), total.cpu / (rest * per_batch))


def run(*, quick: bool = False) -> str:
    """The table, with the allocator as the command line sets it up; processor time would lack that of the workers."""
    keep_freed_memory()
    episodes, repeats = (2, 1) if quick else (64, 3)
    sizes, worker_numbers = ((2,), (0,)) if quick else ((1, 8, 64), (0, 2))
    with own_cache() as folder:
        root = written(folder / "pictures", side=84, classes=5 if quick else 20, per_class=17 if quick else 60)
        ways: dict[str, Callable[[], Cost]] = {}
        for workers in worker_numbers:
            ways[f"ImageFolder, 1, {workers}"] = functools.partial(
                image_folder, root, workers=workers, episodes=episodes
            )
            ways[f"ours, JPEG files, {sizes[0]}, {workers}"] = functools.partial(
                ours, root, decoded=False, tasks=sizes[0], workers=workers, episodes=episodes
            )
        for tasks in sizes:
            many = episodes * (1 if quick else 4)
            ways[f"ours, array, {tasks}, 0"] = functools.partial(
                ours, root, decoded=True, tasks=tasks, workers=0, episodes=many
            )
        costs = medians(ways, repeats)
    rows = []
    for name, cost in costs.items():
        way, tasks, workers = name.rsplit(", ", 2)
        rival = costs[f"ImageFolder, 1, {workers}"]
        rows.append([way, tasks, workers, cost.per_second, rival.wall / cost.wall])
    return table(["way", "tasks per batch", "workers", "episodes/s", "times ImageFolder with as many workers"], rows)
