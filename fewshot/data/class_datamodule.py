"""ClassDataModule: plain batches of pictures with their classes for pre-training, watched by episodes."""

from __future__ import annotations

import itertools

import torch
from torch.utils.data import DataLoader

from fewshot.data.batches import PictureDataset, batch_loader
from fewshot.data.datasets.base import FewShotDataset
from fewshot.data.keys import PictureKeys, check_trainer
from fewshot.data.picture_datamodule import PictureDataModule
from fewshot.data.sampler import check_least


class ClassDataModule(PictureDataModule):
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
        tasks_per_batch: T, episodes of a batch; on stored features more are evaluated at once.
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
        super().__init__(
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
        )
        check_least("batch_size", batch_size, 1)
        self.batch_size = batch_size

    @property
    def n_classes(self) -> int:
        """Classes of the training split."""
        return len(self.images("train").class_names)

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
