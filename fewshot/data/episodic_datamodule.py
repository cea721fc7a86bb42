"""EpisodicDataModule: episodes for training, validation, testing and prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from fewshot.data.datasets.base import FewShotDataset, Split
from fewshot.data.features import Encoder, stored_features
from fewshot.data.picture_datamodule import PictureDataModule
from fewshot.data.sampler import check_least
from fewshot.episode import Episode


class EpisodicDataModule(PictureDataModule):
    """Few-shot episodes for training, validation, testing and prediction (the test split's episodes).

    Episode i of a split is a function of (seed, split, epoch, i): neither the method nor batch size, workers or devices
    change it. Training draws new episodes every epoch; validation and test episodes stay.

    Args:
        dataset: the pictures, a class of fewshot.data.datasets or one of your own.
        n_way: N, classes of an episode.
        n_shot: K, labelled pictures of a class.
        n_query: queries of a class.
        tasks_per_batch: T, episodes of a batch on each device; the last batch of an epoch may be smaller. With
            trainer.accumulate_grad_batches=a on W devices an optimiser step follows the mean over a*T*W episodes. On a
            frozen backbone 8 = 1*8*1 = 4*2*1 = 1*4*2 episodes give the same step up to rounding, since methods
            normalise within the episode; BatchNorm of a backbone that is trained too normalises over T of them (in
            MAML over one). The step that ends an epoch takes what is left of it, episodes of a smaller last batch
            weigh more than others, and where fewer than a batches are left Lightning still divides by a, so that this
            step is smaller. Neither happens where a*T*W divides train_episodes. Validation and test on stored features
            take up to 40 small episodes at a time where T is less, which changes no result but rounding.
        num_workers: processes that prepare pictures on each device; 0 prepares them in the main process. Stored
            features are always read in the main process.
        train_episodes: episodes of a training epoch, all devices together; rounded up to a multiple of their number.
        val_episodes: episodes of a validation.
        test_episodes: episodes of a test, and of a prediction.
        seed: 0 or more; what all episodes and augmentations are drawn from.
        dirichlet: null for n_query queries of every class; a number above 0 for n_way * n_query queries whose class
            proportions are drawn from a Dirichlet distribution of this concentration (Veilleux et al. 2021 take 2).
        long_tail: of validation and test episodes, in place of dirichlet: how many times as many queries the largest
            class has as the smallest, in a geometric series.
        train_n_way: N of training episodes where it differs; null takes n_way. Of several numbers here, and in the next
            three, one each is drawn for every 64 consecutive training episodes, which tasks_per_batch times the number
            of devices has to divide.
        train_n_shot: K of training episodes where it differs; null takes n_shot.
        train_n_query: queries of a class in training episodes where it differs; null takes n_query.
        train_dirichlet: dirichlet of training episodes where it differs, null being balanced within a list, as in
            [null, 2.0]; null alone takes dirichlet.
        image_size: side of the pictures in pixels; null takes the backbone's, else the data set's.
        store_features: whether a frozen backbone encodes every picture once rather than once for every episode.
        augmented_views: stored features of each training picture under so many random augmentations, one of which is
            picked whenever the picture comes up; 0 stores the features of the picture as it is.
        train_seed: seed of training episodes where it differs, to train again and test on the same episodes; null takes
            seed.

    Raises:
        ValueError: a size that is not positive; when a loader is asked for also: more ways than classes, a class
            with too few pictures, an empty split, classes shared between splits.
    """

    def __init__(
        self,
        dataset: FewShotDataset,
        n_way: int = 5,
        n_shot: int = 1,
        n_query: int = 15,
        tasks_per_batch: int = 16,
        num_workers: int = 0,
        train_episodes: int = 1000,
        val_episodes: int = 600,
        test_episodes: int = 2000,
        seed: int = 0,
        dirichlet: float | None = None,
        train_n_way: int | list[int] | None = None,
        train_n_shot: int | list[int] | None = None,
        train_n_query: int | list[int] | None = None,
        train_dirichlet: float | list[float | None] | None = None,
        image_size: int | None = None,
        store_features: bool = True,
        augmented_views: int = 0,
        train_seed: int | None = None,
        long_tail: float | None = None,
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
            dirichlet=dirichlet,
            long_tail=long_tail,
            image_size=image_size,
        )
        self.train_n_way = _choices("train_n_way", n_way if train_n_way is None else train_n_way)
        self.train_n_shot = _choices("train_n_shot", n_shot if train_n_shot is None else train_n_shot)
        self.train_n_query = _choices("train_n_query", n_query if train_n_query is None else train_n_query)
        self.train_dirichlet = _choices("train_dirichlet", dirichlet if train_dirichlet is None else train_dirichlet)
        self.train_episodes, self.train_seed = train_episodes, seed if train_seed is None else train_seed
        self.store_features, self.augmented_views = store_features, augmented_views
        check_least("train_seed", self.train_seed, 0)
        for name in ("train_n_way", "train_n_shot", "train_n_query"):
            check_least(name, min(getattr(self, name)), 1)
        for concentration in self.train_dirichlet if train_dirichlet is not None else ():
            if concentration is not None and not 0 < concentration < float("inf"):
                raise ValueError(
                    f"train_dirichlet={concentration} but a concentration is above 0; null gives balanced queries"
                )
        check_least("train_episodes", train_episodes, 1)
        check_least("augmented_views", augmented_views, 0)
        self._train_differs = (train_n_way, train_n_shot, train_n_query) != (None, None, None)

    def use_features(self, encoder: Encoder, key: str | Callable[[], str]) -> bool:
        """Let episodes carry features of a frozen backbone in place of pictures; returns whether they will.

        Nothing is computed before a loader of the split is asked for. With data.store_features=false episodes go on
        carrying pictures.

        Args:
            encoder: float [B, C, H, W] on the CPU -> [B, D]; its own affair are device, evaluation mode, precision.
                With several ranks each encodes a share of the pictures.
            key: changes with the backbone's architecture, weights and precision; or a function that returns it, called
                whenever a loader is asked for.
        """
        self._expected = ()
        self._encoder = (encoder, key) if self.store_features else None
        return self.store_features

    def carry_pictures(self) -> None:
        """Let episodes carry pictures again, whatever was handed over before."""
        self._encoder, self._expected = None, ()

    def plain_features(self, split: Split, encoder: Encoder, key: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [n, D] of all pictures of the split as they are, without augmentation, and their classes [n].

        They are stored, whatever the episodes carry.

        Args:
            split: which.
            encoder: as of `use_features`.
            key: as of `use_features`.
        """
        images = self.images(split)
        name = f"{self.dataset.name}-{split}"
        features = stored_features(encoder, images, self.preprocessing, key=key, name=name)
        return features.read(np.arange(len(images))), torch.as_tensor(images.labels)

    def sizes(self, split: Split) -> dict[str, tuple[Any, ...]]:
        """What the episodes of the split may have of each: n_way, n_shot, n_query, dirichlet and long_tail."""
        sizes = super().sizes(split)
        own = {"long_tail": (None,), **{name: getattr(self, f"train_{name}") for name in sizes if name != "long_tail"}}
        return own if split == "train" else sizes

    def seed_of(self, split: Split) -> int:
        """What the episodes of the split are drawn from."""
        return self.train_seed if split == "train" else self.seed

    def option_prefix(self, split: Split) -> str:
        """What errors put before the names of options that the split's episodes come from."""
        return "train_" if split == "train" and self._train_differs else ""

    def n_episodes(self, split: Split) -> int:
        """Episodes of the split (of an epoch, in training)."""
        return self.train_episodes if split == "train" else super().n_episodes(split)

    def train_dataloader(self) -> DataLoader[Episode]:
        """Episodes of this epoch."""
        return self._loader("train")


def _choices(name: str, given: Any) -> tuple[Any, ...]:
    """The values that an option allows; ValueError for an empty list."""
    values = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not values:
        raise ValueError(f"{name}=[] but training needs a value; give one, or null for that of the other splits")
    return values
