"""Training tasks from several feature spaces at once: data sets times backbones, each encoded once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from fewshot.backbones import BackboneConfig
from fewshot.data.batches import batch_loader
from fewshot.data.datasets.base import FewShotDataset, Split
from fewshot.data.episodic_datamodule import EpisodicDataModule
from fewshot.data.feature_file import Features
from fewshot.data.keys import EpisodeKey, EpisodeKeys
from fewshot.data.ranks import rank_and_world_size
from fewshot.data.sampler import EpisodeIndex
from fewshot.data.task_mixture import TaskMixture
from fewshot.episode import Episode
from fewshot.training.encoding import FrozenBackbone
from fewshot.training.feature_augmentation import augmented


@dataclass
class FeatureSpace:
    """The training classes of a data set as a frozen backbone sees them.

    Args:
        dataset: the pictures.
        backbone: what encodes them, once; its image_size is the pictures'.
    """

    dataset: FewShotDataset
    backbone: BackboneConfig


class FeatureSpacesDataModule(EpisodicDataModule):
    """Training tasks of every kind from several feature spaces; validation and test episodes of one more data set.

    A training batch comes from one space, has one size, and its features are augmented together: a random subset of
    the dimensions, other lengths along them, noise, an offset. Batch b of an epoch is a function of (train_seed, epoch,
    b); spaces may have any widths. Validation and test are EpisodicDataModule's, of `dataset`, by the backbone of the
    module that is trained: let them be a data set and a backbone that no space has.

    Args:
        dataset: of validation and test episodes.
        spaces: what training tasks come from; each is encoded when the first training batch is asked for.
        tasks: what training tasks are like.
        augment: whether the features of training tasks are augmented.
        tasks_per_batch: T, as of EpisodicDataModule; it has to divide train_episodes over all devices.
        train_episodes: as of EpisodicDataModule.
        train_seed: as of EpisodicDataModule.
        n_way: of validation and test episodes.
        n_shot: the same.
        n_query: the same.
        dirichlet: the same.
        long_tail: the same.
        val_episodes: the same.
        test_episodes: the same.
        seed: the same.
        image_size: the same.

    Raises:
        ValueError: no spaces, a space of fewer than two classes or of a class with fewer than four pictures, and what
            EpisodicDataModule raises.
    """

    trains_on_dataset = False

    def __init__(
        self,
        dataset: FewShotDataset,
        spaces: list[FeatureSpace],
        tasks: TaskMixture = TaskMixture(),  # noqa: B008  (frozen)
        augment: bool = True,
        tasks_per_batch: int = 8,
        train_episodes: int = 8000,
        train_seed: int | None = None,
        n_way: int = 5,
        n_shot: int = 1,
        n_query: int = 15,
        dirichlet: float | None = None,
        long_tail: float | None = None,
        val_episodes: int = 600,
        test_episodes: int = 2000,
        seed: int = 0,
        image_size: int | None = None,
    ) -> None:
        super().__init__(
            dataset,
            n_way=n_way,
            n_shot=n_shot,
            n_query=n_query,
            tasks_per_batch=tasks_per_batch,
            train_episodes=train_episodes,
            val_episodes=val_episodes,
            test_episodes=test_episodes,
            seed=seed,
            dirichlet=dirichlet,
            long_tail=long_tail,
            image_size=image_size,
            train_seed=train_seed,
        )
        if not spaces:
            raise ValueError("spaces=[]; name at least one data set with its backbone")
        self.spaces, self.tasks, self.augment = spaces, tasks, augment

    def describe(self, split: Split) -> dict[str, Any]:
        """As of EpisodicDataModule; training tasks have bounds for their sizes, and the spaces' names for data."""
        if split != "train":
            return super().describe(split)
        return {
            "data": [f"{space.dataset.name} by {space.backbone.name}" for space in self.spaces],
            "split": split,
            "n_way": list(self.tasks.ways),
            "n_shot": list(self.tasks.shots),
            "n_query": list(self.tasks.queries),
            "seed": self.train_seed,
            "n_episodes": self.train_episodes,
            "episodes_sha256": self.episodes_sha256(split),
        }

    def episodes_sha256(self, split: Split, n_episodes: int | None = None) -> str:
        """As of EpisodicDataModule; of training, a hash of all that the tasks are drawn from."""
        if split != "train":
            return super().episodes_sha256(split, n_episodes)
        options = [asdict(self.tasks), self.augment, self.tasks_per_batch, self.train_seed]
        digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
        for space in self.spaces:
            digest.update(json.dumps(asdict(space.backbone), sort_keys=True).encode())
            digest.update("\0".join(space.dataset.images("train").names).encode())
        return digest.hexdigest()

    def train_dataloader(self) -> DataLoader[Episode]:
        """This epoch's tasks; encodes what is not in the cache."""
        world = rank_and_world_size()[1]
        if self.train_episodes % (self.tasks_per_batch * world):
            raise ValueError(
                f"train_episodes={self.train_episodes} is no multiple of tasks_per_batch={self.tasks_per_batch} on "
                f"{world} device(s); a batch comes from one space and has one size, so that none may be smaller"
            )
        encoded = [encoded_space(space, "train") for space in self.spaces]
        tasks = SpaceTasks(encoded, self.tasks, seed=self.train_seed, batch=self.tasks_per_batch, augment=self.augment)
        keys = EpisodeKeys(self.train_episodes, training=True)
        return batch_loader(tasks, keys, batch_size=self.tasks_per_batch, num_workers=0, drop_last=True)


@dataclass
class EncodedSpace:
    """Features of a space, and which of them are of which class."""

    name: str
    features: Features
    by_class: list[np.ndarray]


def encoded_space(space: FeatureSpace, split: Split) -> EncodedSpace:
    """The features of a split of a space, from the cache or encoded now.

    Raises:
        ValueError: fewer than two classes, or a class of fewer than four pictures.
    """
    data = EpisodicDataModule(space.dataset)
    backbone = FrozenBackbone(space.backbone)
    data.adapt(**backbone.wants)
    data.use_features(backbone.encode, backbone.key)
    images, features = data.images(split), data.features(split)
    assert isinstance(features, Features)
    name = f"{space.dataset.name} by {space.backbone.name}"
    by_class = [np.flatnonzero(images.labels == number) for number in range(len(images.class_names))]
    least = min((len(places) for places in by_class), default=0)
    if len(by_class) < 2 or least < 4:
        raise ValueError(
            f"space {name}: {len(by_class)} classes, the smallest with {least} pictures; a space needs two classes of "
            "four pictures"
        )
    return EncodedSpace(name, features, by_class)


class SpaceTasks(Dataset[Episode]):
    """Training tasks from encoded spaces, a batch at a time; what a batch holds follows from its first key.

    Args:
        spaces: each as likely as the others.
        tasks: what tasks are like.
        seed: of everything random.
        batch: T.
        augment: whether features are augmented.
    """

    def __init__(
        self, spaces: Sequence[EncodedSpace], tasks: TaskMixture, *, seed: int, batch: int, augment: bool
    ) -> None:
        self.spaces, self.tasks, self.seed, self.batch, self.augment = spaces, tasks, seed, batch, augment

    def __getitems__(self, keys: Sequence[EpisodeKey]) -> Episode:
        """The batch of these tasks [T]."""
        (epoch, first), numbers = keys[0], [number for _, number in keys]
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch, first])))
        space = self.spaces[int(generator.integers(len(self.spaces)))]
        sizes = self.tasks.sizes(generator, np.array([len(places) for places in space.by_class]))
        drawn = [self.tasks.task(generator, space.by_class, sizes) for _ in keys]
        index = EpisodeIndex(*(np.stack(part) for part in zip(*drawn, strict=True)))
        support, query = space.features.read(index.support), space.features.read(index.query)
        if self.augment:
            support, query = augmented(support, query, generator)
        return Episode(
            support=support,
            support_labels=torch.from_numpy(index.support_labels),
            query=query,
            query_labels=torch.from_numpy(index.query_labels),
            n_way=sizes.n_way,
            numbers=torch.tensor(numbers),  # and no places of pictures, which would be those of `dataset`
        )
