"""PictureDataModule: pictures in splits, and the episodes of validation and test; base of the two data modules."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from fewshot.data.batches import EVALUATED_TOGETHER, EpisodeDataset, batch_loader
from fewshot.data.datasets.base import FewShotDataset, Split, whole_dataset
from fewshot.data.features import Encoder, Features, PassingFeatures, stored_features
from fewshot.data.images import Images
from fewshot.data.keys import EpisodeKeys, check_trainer
from fewshot.data.ranks import gathered, rank_and_world_size
from fewshot.data.sampler import MIXED_BLOCK, EpisodeSampler, MixedEpisodeSampler, check_least, check_sizes
from fewshot.data.transforms import Preprocessing, adapted_preprocessing
from fewshot.episode import Episode


class PictureDataModule(LightningDataModule):
    """What EpisodicDataModule and ClassDataModule share; it fulfils `fewshot.data.interface.PictureData`.

    Args:
        dataset: the pictures.
        n_way: N of validation and test episodes.
        n_shot: K of them.
        n_query: queries of a class of them.
        tasks_per_batch: T, episodes of a batch on each device; on stored features more are evaluated at once.
        num_workers: processes that prepare pictures on each device.
        val_episodes: episodes of a validation.
        test_episodes: episodes of a test, and of a prediction.
        seed: 0 or more; what all episodes are drawn from.
        dirichlet: null, or the concentration of unbalanced queries.
        long_tail: null, or of validation and test the queries of the largest class over those of the smallest.
        image_size: side of the pictures in pixels; null takes the backbone's, else the data set's.

    Raises:
        ValueError: a size that is not positive; when a loader is asked for also: more ways than classes, a class
            with too few pictures, an empty split, classes shared between splits.
    """

    augmented_views: int = 0
    trains_on_dataset: bool = True
    """Whether training is on the train split of `dataset`, so that pictures of it show what is trained on."""

    def __init__(
        self,
        dataset: FewShotDataset,
        *,
        n_way: int,
        n_shot: int,
        n_query: int,
        tasks_per_batch: int,
        num_workers: int,
        val_episodes: int,
        test_episodes: int,
        seed: int,
        dirichlet: float | None = None,
        long_tail: float | None = None,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.dataset = whole_dataset(dataset)
        self.n_way, self.n_shot, self.n_query = n_way, n_shot, n_query
        self.tasks_per_batch, self.num_workers = tasks_per_batch, num_workers
        self.val_episodes, self.test_episodes = val_episodes, test_episodes
        self.seed, self.dirichlet, self.long_tail, self.image_size = seed, dirichlet, long_tail, image_size
        check_sizes(n_way=n_way, n_shot=n_shot, n_query=n_query, seed=seed, dirichlet=dirichlet, long_tail=long_tail)
        for name in ("tasks_per_batch", "val_episodes", "test_episodes"):
            check_least(name, getattr(self, name), 1)
        check_least("num_workers", num_workers, 0)
        if image_size is not None:
            check_least("image_size", image_size, 1)
        self._wanted: dict[str, Any] = {}
        self._encoder: tuple[Encoder, str | Callable[[], str]] | None = None
        self._images: dict[Split, Images] = {}
        self._samplers: dict[tuple[Any, ...], EpisodeSampler | MixedEpisodeSampler] = {}
        self._features: dict[Split, tuple[object, Features]] = {}
        self._passing: dict[Split, PassingFeatures] = {}
        self._expected: tuple[Split, ...] = ()
        self._hashes: dict[tuple[Any, ...], str] = {}

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
            images.check_stored(self.preprocessing, self.dataset.name)
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
        asked = self._drawn_by(split)
        if asked not in self._samplers:
            names, values = zip(*self.sizes(split).items(), strict=True)
            sizes = [dict(zip(names, each, strict=True)) for each in itertools.product(*values)]
            samplers = [self._sampler(split, **each) for each in sizes]
            self._samplers[asked] = samplers[0] if len(samplers) == 1 else MixedEpisodeSampler(samplers)
        return self._samplers[asked]

    def _drawn_by(self, split: Split) -> tuple[Any, ...]:  # a program may set other sizes between two tests
        return split, self.seed_of(split), *self.sizes(split).items()

    def sizes(self, split: Split) -> dict[str, tuple[Any, ...]]:
        """What the episodes of the split may have of each: n_way, n_shot, n_query, dirichlet and long_tail."""
        return {name: (getattr(self, name),) for name in ("n_way", "n_shot", "n_query", "dirichlet", "long_tail")}

    def seed_of(self, split: Split) -> int:
        """What the episodes of the split are drawn from."""
        return self.seed

    def _sampler(self, split: Split, **sizes: Any) -> EpisodeSampler:
        images = self.images(split)
        return EpisodeSampler(
            images.labels,
            **sizes,
            seed=self.seed_of(split),
            split=split,
            class_names=images.class_names,
            source=self.dataset.name,
            option_prefix=self.option_prefix(split),
        )

    def option_prefix(self, split: Split) -> str:
        """What errors put before the names of options that the split's episodes come from."""
        return ""

    def n_episodes(self, split: Split) -> int:
        """Episodes of the split; 0 where there are none."""
        return {"val": self.val_episodes, "test": self.test_episodes}.get(split, 0)

    def episodes_sha256(self, split: Split, n_episodes: int | None = None) -> str:
        """Hash of the pictures, by name, and labels of the split's first episodes, or all (of epoch 0, in training)."""
        number = self.n_episodes(split) if n_episodes is None else n_episodes
        asked = (number, *self._drawn_by(split))
        if asked not in self._hashes:
            digest = hashlib.sha256(self.sampler(split).sha256(number).encode())
            digest.update("\0".join(self.images(split).names).encode())
            self._hashes[asked] = digest.hexdigest()
        return self._hashes[asked]

    def describe(self, split: Split) -> dict[str, Any]:
        """What a result has to state about the episodes it was measured on; plain values for a JSON file."""
        preprocessing = self.preprocessing
        sizes = {name: list(values) for name, values in self.sizes(split).items()}
        kinds, (tail,) = sizes.pop("dirichlet"), sizes.pop("long_tail")
        otherwise = "balanced" if tail is None else f"tail({tail})"
        sizes["query_distribution"] = [otherwise if one is None else f"dirichlet({one})" for one in kinds]
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

    def val_dataloader(self) -> DataLoader[Episode]:
        """The validation episodes."""
        return self._loader("val", evaluated=True)

    def test_dataloader(self) -> DataLoader[Episode]:
        """The test episodes."""
        return self._loader("test", evaluated=True)

    def predict_dataloader(self) -> DataLoader[Episode]:
        """The test episodes."""
        return self._loader("test")

    def _loader(self, split: Split, *, evaluated: bool = False) -> DataLoader[Episode]:
        check_trainer(self.trainer)
        devices = rank_and_world_size()[1]
        mixed = any(len(values) > 1 for values in self.sizes(split).values())  # without reading a picture
        if mixed and MIXED_BLOCK % (self.tasks_per_batch * devices):
            raise ValueError(
                f"tasks_per_batch={self.tasks_per_batch} on {devices} device(s), but training episodes of mixed sizes "
                f"come in blocks of {MIXED_BLOCK}, which the product of the two has to divide; change one of them"
            )
        training, features = split == "train", self.features(split)  # which may encode for minutes
        episodes = self._episodes(split, training=training, features=features)
        keys = EpisodeKeys(self.n_episodes(split), training=training)
        tasks, workers = self.tasks_per_batch, self.num_workers if features is None else 0
        if evaluated and features is not None:
            tasks = max(tasks, EVALUATED_TOGETHER // (self.n_way * (self.n_shot + self.n_query)) ** 2)
        return batch_loader(episodes, keys, batch_size=tasks, num_workers=workers, drop_last=False)

    def _episodes(self, split: Split, *, training: bool, features: Features | PassingFeatures | None) -> EpisodeDataset:
        return EpisodeDataset(
            self.images(split),
            self.sampler(split),
            self.preprocessing,
            training=training,
            n_episodes=self.n_episodes(split),
            features=features,
        )
