"""ClassDataModule: plain batches of pictures with their classes for pre-training, watched by episodes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from fewshot.data.batches import PictureDataset, batch_loader
from fewshot.data.datasets.base import FewShotDataset, Split
from fewshot.data.episodic_datamodule import EpisodicDataModule, check_least, check_trainer
from fewshot.data.features import Encoder
from fewshot.data.images import Images
from fewshot.data.sampler import PictureKeys
from fewshot.data.transforms import Preprocessing
from fewshot.episode import Episode


class ClassDataModule(LightningDataModule):
    """Shuffled batches of (picture, class) of the training split, and episodes of the two others to watch them by.

    Batches are (float [B, C, H, W], int64 [B]). Their order and augmentation are a function of (seed, epoch).

    Args:
        dataset: the pictures, a class of fewshot.data.datasets or one of your own.
        batch_size: B, pictures of a training batch on each device; an incomplete last batch is left out.
        num_workers: processes that prepare pictures on each device; 0 prepares them in the main process.
        seed: 0 or more; what order, augmentation and episodes are drawn from.
        image_size: side of the pictures in pixels; null takes the backbone's, else the data set's.
        n_way: N, classes of a validation or test episode.
        n_shot: K, labelled pictures of a class.
        n_query: queries of a class.
        tasks_per_batch: T, episodes of a batch.
        val_episodes: episodes of a validation.
        test_episodes: episodes of a test.

    Raises:
        ValueError: as EpisodicDataModule, and for a batch_size larger than the training split.
    """

    def __init__(
        self,
        dataset: FewShotDataset,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        image_size: int | None = None,
        n_way: int = 5,
        n_shot: int = 1,
        n_query: int = 15,
        tasks_per_batch: int = 16,
        val_episodes: int = 600,
        test_episodes: int = 2000,
    ) -> None:
        super().__init__()
        check_least("batch_size", batch_size, 1)
        self.dataset, self.batch_size, self.num_workers, self.seed = dataset, batch_size, num_workers, seed
        self.n_way, self.n_shot, self.n_query = n_way, n_shot, n_query
        self.episodes = EpisodicDataModule(
            dataset,
            n_way=n_way,
            n_shot=n_shot,
            n_query=n_query,
            tasks_per_batch=tasks_per_batch,
            num_workers=num_workers,
            val_episodes=val_episodes,
            test_episodes=test_episodes,
            seed=seed,
            image_size=image_size,
            store_features=False,
        )
        """Reads the pictures and makes the validation and test episodes."""

    def adapt(
        self,
        channels: int | None = None,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
        image_size: int | None = None,
    ) -> None:
        """Deliver pictures as the backbone wants them; see EpisodicDataModule.adapt."""
        self.episodes.adapt(channels, preprocessing, image_size)

    def expect_features(self, *splits: Split) -> None:
        """Let episodes carry features; see EpisodicDataModule.expect_features."""
        self.episodes.expect_features(*splits)

    def compute_features(self, split: Split, encoder: Encoder) -> None:
        """Encode the split's pictures, each once; see EpisodicDataModule.compute_features."""
        self.episodes.compute_features(split, encoder)

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures become tensors."""
        return self.episodes.preprocessing

    @property
    def n_classes(self) -> int:
        """Classes of the training split."""
        return len(self.episodes.images("train").class_names)

    def images(self, split: Split) -> Images:
        """The pictures of one split."""
        return self.episodes.images(split)

    def episodes_sha256(self, split: Split) -> str:
        """Hash of the validation or test episodes."""
        return self.episodes.episodes_sha256(split)

    def describe(self, split: Split) -> dict[str, Any]:
        """What a result has to state about the episodes it was measured on."""
        return self.episodes.describe(split)

    def picture_batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first pictures of epoch 0, as the backbone receives them, and their classes: [size, C, H, W], [size]."""
        images = self.images("train")
        keys = list(itertools.islice(PictureKeys(len(images), seed=self.seed), min(size, self.batch_size)))
        return PictureDataset(images, self.preprocessing, seed=self.seed).__getitems__(keys)

    def train_dataloader(self) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
        """Shuffled, augmented pictures with their classes."""
        check_trainer(self.trainer)
        images = self.images("train")
        keys = PictureKeys(len(images), seed=self.seed)
        if self.batch_size > len(keys):
            raise ValueError(
                f"batch_size={self.batch_size} but split 'train' of {self.dataset.name} has {len(keys)} pictures for "
                "each device; lower data.batch_size"
            )
        pictures = PictureDataset(images, self.preprocessing, seed=self.seed)
        return batch_loader(pictures, keys, batch_size=self.batch_size, num_workers=self.num_workers, drop_last=True)

    def val_dataloader(self) -> DataLoader[Episode]:
        """The validation episodes."""
        check_trainer(self.trainer)
        return self.episodes.val_dataloader()

    def test_dataloader(self) -> DataLoader[Episode]:
        """The test episodes."""
        check_trainer(self.trainer)
        return self.episodes.test_dataloader()

    def predict_dataloader(self) -> DataLoader[Episode]:
        """The test episodes."""
        return self.test_dataloader()
