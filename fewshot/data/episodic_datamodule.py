"""EpisodicDataModule: episodes for training, validation, testing and prediction."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from fewshot.data.batches import EpisodeDataset, batch_loader
from fewshot.data.datasets.base import FewShotDataset, Split
from fewshot.data.features import Encoder, Features, PassingFeatures, stored_features
from fewshot.data.images import Images
from fewshot.data.ranks import gathered, rank_and_world_size
from fewshot.data.sampler import MIXED_BLOCK, EpisodeKeys, EpisodeSampler, MixedEpisodeSampler, check_sizes
from fewshot.data.transforms import Preprocessing, adapted_preprocessing
from fewshot.episode import Episode


class EpisodicDataModule(LightningDataModule):
    """Few-shot episodes for training, validation, testing and prediction (the test split's episodes).

    Episode i of a split is a function of (seed, split, epoch, i): neither the method nor batch size, workers or devices
    change it. Training draws new episodes every epoch; validation and test episodes stay.

    Args:
        dataset: the pictures, a class of fewshot.data.datasets or one of your own.
        n_way: N, classes of an episode.
        n_shot: K, labelled pictures of a class.
        n_query: queries of a class.
        tasks_per_batch: T, episodes of a batch on each device; the last batch of an epoch may be smaller. With
            trainer.accumulate_grad_batches=a on W devices an optimiser step follows the mean over a*T*W episodes: where
            a method normalises within the episode, as all here do, 8 = 1*8*1 = 4*2*1 = 1*4*2 episodes give the same
            step up to rounding. The step that ends an epoch takes what is left of it, episodes of a smaller last batch
            weigh more than others, and where fewer than a batches are left Lightning still divides by a, so that this
            step is smaller. Neither happens where a*T*W divides train_episodes.
        num_workers: processes that prepare pictures on each device; 0 prepares them in the main process. Stored
            features are always read in the main process.
        train_episodes: episodes of a training epoch, all devices together; rounded up to a multiple of their number.
        val_episodes: episodes of a validation.
        test_episodes: episodes of a test, and of a prediction.
        seed: 0 or more; what all episodes and augmentations are drawn from.
        dirichlet: null for n_query queries of every class; a number above 0 for n_way * n_query queries whose class
            proportions are drawn from a Dirichlet distribution of this concentration (Veilleux et al. 2021 take 2).
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
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.n_way, self.n_shot, self.n_query = n_way, n_shot, n_query
        self.train_n_way = _choices("train_n_way", n_way if train_n_way is None else train_n_way)
        self.train_n_shot = _choices("train_n_shot", n_shot if train_n_shot is None else train_n_shot)
        self.train_n_query = _choices("train_n_query", n_query if train_n_query is None else train_n_query)
        self.train_dirichlet = _choices("train_dirichlet", dirichlet if train_dirichlet is None else train_dirichlet)
        self.tasks_per_batch, self.num_workers = tasks_per_batch, num_workers
        self.train_episodes, self.val_episodes, self.test_episodes = train_episodes, val_episodes, test_episodes
        self.seed, self.dirichlet = seed, dirichlet
        self.train_seed = seed if train_seed is None else train_seed
        self.image_size, self.store_features, self.augmented_views = image_size, store_features, augmented_views
        check_sizes(n_way=n_way, n_shot=n_shot, n_query=n_query, seed=seed, dirichlet=dirichlet)
        check_least("train_seed", self.train_seed, 0)
        for name in ("train_n_way", "train_n_shot", "train_n_query"):
            check_least(name, min(getattr(self, name)), 1)
        for concentration in self.train_dirichlet if train_dirichlet is not None else ():
            if concentration is not None and not 0 < concentration < float("inf"):
                raise ValueError(
                    f"train_dirichlet={concentration} but a concentration is above 0; null gives balanced queries"
                )
        for name in ("tasks_per_batch", "train_episodes", "val_episodes", "test_episodes"):
            check_least(name, getattr(self, name), 1)
        for name in ("num_workers", "augmented_views"):
            check_least(name, getattr(self, name), 0)
        if image_size is not None:
            check_least("image_size", image_size, 1)
        self._train_differs = (train_n_way, train_n_shot, train_n_query) != (None, None, None)
        self._wanted: dict[str, Any] = {}
        self._encoder: tuple[Encoder, str | Callable[[], str]] | None = None
        self._images: dict[Split, Images] = {}
        self._samplers: dict[Split, EpisodeSampler | MixedEpisodeSampler] = {}
        self._features: dict[Split, tuple[object, Features]] = {}
        self._passing: dict[Split, PassingFeatures] = {}
        self._expected: tuple[Split, ...] = ()
        self._hashes: dict[Split, str] = {}

    # What the module hands over, before it asks for a loader.

    def adapt(
        self,
        channels: int | None = None,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
        image_size: int | None = None,
    ) -> None:
        """Deliver pictures as the backbone wants them, from the next loader on.

        Args:
            channels: 1 or 3.
            preprocessing: the backbone's own, or mean, std, interpolation, input_size and crop_pct as
                `timm.data.resolve_model_data_config` returns them; the training transforms remain the data set's. None
                takes the data set's own.
            image_size: side in pixels.

        Raises ValueError where data.image_size is set and another.
        """
        if None not in (image_size, self.image_size) and image_size != self.image_size:
            raise ValueError(
                f"data.image_size={self.image_size} but the backbone is built for image_size={image_size}; "
                "set one of the two"
            )
        before = self.preprocessing
        self._wanted = {"channels": channels, "wanted": preprocessing, "image_size": image_size}
        if self.preprocessing != before:
            self._images.clear()

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

    def expect_features(self, *splits: Split) -> None:
        """Let episodes of these splits carry what `compute_features` computed last, wherever that saves work.

        It does where the split has fewer pictures than its episodes have in all.
        """
        self._encoder, self._expected = None, splits

    def compute_features(self, split: Split, encoder: Encoder) -> None:
        """Encode the split's pictures, each once, by a backbone that is still being trained.

        To be called before every validation and test, with the backbone as it is then; nothing happens for splits
        whose episodes carry pictures or stored features. With several ranks each encodes a share of the pictures.
        """
        features = self.features(split)
        if isinstance(features, PassingFeatures):
            features.compute(encoder, self.images(split), self.preprocessing)

    # What is there to read.

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures become tensors: the data set's way, adapted to the backbone and to image_size."""
        wanted = {**self._wanted, "image_size": self.image_size or self._wanted.get("image_size")}
        return adapted_preprocessing(self.dataset.preprocessing, **wanted)

    def images(self, split: Split) -> Images:
        """The pictures of one split."""
        if split not in self._images:
            images = self.dataset.images(split, self.preprocessing)
            for other, its_images in self._images.items():
                shared = sorted(set(images.class_names) & set(its_images.class_names))
                if shared:
                    raise ValueError(
                        f"splits {other!r} and {split!r} of {self.dataset.name} share {len(shared)} classes, such as "
                        f"{shared[0]!r}; no class may stand in two splits"
                    )
            self._images[split] = images
        return self._images[split]

    def sampler(self, split: Split) -> EpisodeSampler | MixedEpisodeSampler:
        """What draws the episodes of one split."""
        if split not in self._samplers:
            sizes = list(itertools.product(*self._sizes(split).values()))
            samplers = [self._sampler(split, *size) for size in sizes]
            self._samplers[split] = samplers[0] if len(samplers) == 1 else MixedEpisodeSampler(samplers)
        return self._samplers[split]

    def _sizes(self, split: Split) -> dict[str, tuple[Any, ...]]:
        """What the episodes of the split may have of each, in the order of `_sampler`."""
        if split == "train":
            sizes = (self.train_n_way, self.train_n_shot, self.train_n_query, self.train_dirichlet)
        else:
            sizes = ((self.n_way,), (self.n_shot,), (self.n_query,), (self.dirichlet,))
        return dict(zip(("n_way", "n_shot", "n_query", "dirichlet"), sizes, strict=True))

    def _sampler(self, split: Split, n_way: int, n_shot: int, n_query: int, dirichlet: float | None) -> EpisodeSampler:
        images, training = self.images(split), split == "train"
        return EpisodeSampler(
            images.labels,
            n_way=n_way,
            n_shot=n_shot,
            n_query=n_query,
            seed=self.train_seed if training else self.seed,
            split=split,
            dirichlet=dirichlet,
            class_names=images.class_names,
            source=self.dataset.name,
            option_prefix="train_" if training and self._train_differs else "",
        )

    def n_episodes(self, split: Split) -> int:
        """Episodes of the split (of an epoch, in training)."""
        return {"train": self.train_episodes, "val": self.val_episodes, "test": self.test_episodes}[split]

    def episodes_sha256(self, split: Split) -> str:
        """Hash of the pictures, by name, and labels of all episodes of the split (of epoch 0, in training)."""
        if split not in self._hashes:
            digest = hashlib.sha256(self.sampler(split).sha256(self.n_episodes(split)).encode())
            digest.update("\0".join(self.images(split).names).encode())
            self._hashes[split] = digest.hexdigest()
        return self._hashes[split]

    def describe(self, split: Split) -> dict[str, Any]:
        """What a result has to state about the episodes it was measured on; plain values for a JSON file."""
        preprocessing = self.preprocessing
        sizes = {name: list(values) for name, values in self._sizes(split).items()}
        distributions = ["balanced" if one is None else f"dirichlet({one})" for one in sizes.pop("dirichlet")]
        sizes["query_distribution"] = distributions
        return {
            "data": self.dataset.name,
            "split": split,
            "n_classes": len(self.images(split).class_names),
            "image_size": preprocessing.image_size,
            **{name: values[0] if len(values) == 1 else values for name, values in sizes.items()},
            "seed": self.seed,
            "n_episodes": self.n_episodes(split),
            "episodes_sha256": self.episodes_sha256(split),
            "preprocessing": asdict(preprocessing),
        }

    def features(self, split: Split) -> Features | PassingFeatures | None:
        """The features of the split, computed now if they are to be stored; None where episodes carry pictures."""
        if split in self._expected:
            index = self.sampler(split).draw(0, [0])
            if len(self.images(split)) <= self.n_episodes(split) * (index.support.size + index.query.size):
                return self._passing.setdefault(split, PassingFeatures())
        if self._encoder is None:
            return None
        encoder, key = self._encoder
        key = key if isinstance(key, str) else key()
        preprocessing, views = self.preprocessing, self.augmented_views if split == "train" else 0
        asked = (key, preprocessing, views)
        if split not in self._features or self._features[split][0] != asked:
            gathered(lambda: len(self.images(split)))  # a picture that one rank cannot read ends all of them
            name = f"{self.dataset.name}-{split}"
            features = stored_features(
                encoder, self.images(split), preprocessing, key=key, name=name, views=views, seed=self.seed
            )
            self._features[split] = (asked, features)
        return self._features[split][1]

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

    def picture_episode(self, split: Split, number: int) -> Episode:
        """The episode of that number, of epoch 0 in training, with pictures, whatever the loader's episodes carry.

        They are as the backbone receives them: augmented in training, unless it is given them once, to store the
        features of the pictures as they are.
        """
        return self._episodes(split, training=self.augments(split), features=None)[number]

    def augments(self, split: Split) -> bool:
        """Whether what the backbone receives of this split is augmented."""
        stored_plain = self._encoder is not None and not self.augmented_views
        return split == "train" and not stored_plain and self.preprocessing.augments

    # What Lightning asks for.

    def train_dataloader(self) -> DataLoader[Episode]:
        """Episodes of this epoch."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Episode]:
        """The validation episodes."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Episode]:
        """The test episodes."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Episode]:
        """The test episodes."""
        return self._loader("test")

    def _loader(self, split: Split) -> DataLoader[Episode]:
        check_trainer(self.trainer)
        devices = rank_and_world_size()[1]
        mixed = any(len(values) > 1 for values in self._sizes(split).values())  # without reading a picture
        if mixed and MIXED_BLOCK % (self.tasks_per_batch * devices):
            raise ValueError(
                f"tasks_per_batch={self.tasks_per_batch} on {devices} device(s), but training episodes of mixed sizes "
                f"come in blocks of {MIXED_BLOCK}, which the product of the two has to divide; change one of them"
            )
        training, features = split == "train", self.features(split)  # which may encode for minutes
        episodes = self._episodes(split, training=training, features=features)
        keys = EpisodeKeys(self.n_episodes(split), training=training)
        workers = 0 if features is not None else self.num_workers
        return batch_loader(episodes, keys, batch_size=self.tasks_per_batch, num_workers=workers, drop_last=False)

    def _episodes(self, split: Split, *, training: bool, features: Features | PassingFeatures | None) -> EpisodeDataset:
        return EpisodeDataset(
            self.images(split),
            self.sampler(split),
            self.preprocessing,
            training=training,
            n_episodes=self.n_episodes(split),
            features=features,
        )


def check_trainer(trainer: Trainer | None) -> None:
    """Raise ValueError where Lightning would split the episodes once more over the devices."""
    if trainer is None or trainer.world_size == 1:
        return
    connector = getattr(trainer, "_accelerator_connector", None)  # the option has no public name
    if getattr(connector, "use_distributed_sampler", False):
        raise ValueError(
            f"use_distributed_sampler=True with {trainer.world_size} processes, but the data module itself gives every "
            "process its share; set trainer.use_distributed_sampler=false"
        )


def _choices(name: str, given: Any) -> tuple[Any, ...]:
    """The values that an option allows; ValueError for an empty list."""
    values = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not values:
        raise ValueError(f"{name}=[] but training needs a value; give one, or null for that of the other splits")
    return values


def check_least(name: str, value: int, least: int) -> None:
    """Raise ValueError for an option of a data module that is too small."""
    if value < least:
        raise ValueError(f"{name}={value} but it is at least {least}; raise data.{name}")
