"""Episodes and single pictures as batches: what a data loader reads, and where it goes on after a kill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.profiler import record_function
from torch.utils.data import DataLoader, Dataset

from fewshot.data.features import Features, PassingFeatures
from fewshot.data.images import Images
from fewshot.data.keys import EpisodeKey, EpisodeKeys, PictureKey, PictureKeys
from fewshot.data.ranks import rank_and_world_size
from fewshot.data.sampler import EpisodeIndex, EpisodeSampler, MixedEpisodeSampler
from fewshot.data.transforms import Preprocessing, evaluation_transform, training_transform
from fewshot.episode import PADDING, Episode

PICTURES_DRAWN_AHEAD = 2**14
"""Numpy takes hardly longer to draw so many pictures for some hundred episodes than for one."""
EVALUATED_TOGETHER = 2**18
"""Pairs of pictures of a task, summed over the tasks of a batch of validation or test on stored features, where
tasks_per_batch asks for no more: 40 tasks of 80 pictures, one of 400."""


class EpisodeDataset(Dataset[Episode]):
    """The episodes of one split, built a batch at a time: one reading of pictures and one transform for all.

    Args:
        images: the pictures of the split.
        sampler: says which of them make up an episode.
        preprocessing: how pictures become tensors.
        training: whether pictures are augmented, as a function of (seed, split, epoch, number, position) alone.
        n_episodes: how many there are.
        features: where given, episodes hold these instead of pictures; several views are chosen from by the episode.
    """

    def __init__(
        self,
        images: Images,
        sampler: EpisodeSampler | MixedEpisodeSampler,
        preprocessing: Preprocessing,
        *,
        training: bool,
        n_episodes: int,
        features: Features | PassingFeatures | None = None,
    ) -> None:
        self.images, self.sampler, self.preprocessing = images, sampler, preprocessing
        self.training, self.n_episodes, self.features = training, n_episodes, features
        self._ahead: tuple[int, list[int], EpisodeIndex] | None = None

    def __len__(self) -> int:
        return self.n_episodes

    def __getitem__(self, key: EpisodeKey | int) -> Episode:
        """A batch of the one episode."""
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[EpisodeKey | int]) -> Episode:
        """The batch of these episodes [T]; a plain number stands for that episode of epoch 0."""
        pairs = [(0, key) if isinstance(key, int) else key for key in keys]
        epoch, numbers = pairs[0][0], [number for _, number in pairs]
        assert all(pair[0] == epoch for pair in pairs), "a batch lies within one epoch"
        with record_function("sampling"):
            index = self._drawn(epoch, numbers)
        if self.features is not None:
            with record_function("reading"):
                support, query = self._features(self.features, epoch, numbers, index)
        else:
            support, query = self._pictures(epoch, numbers, index)
        if not self.training:  # see EpisodeKeys: there may be fewer episodes than ranks
            numbers = [number if number < self.n_episodes else PADDING for number in numbers]
        return Episode(
            support=support,
            support_labels=torch.from_numpy(index.support_labels),
            query=query,
            query_labels=torch.from_numpy(index.query_labels),
            n_way=int(index.support_labels.max()) + 1,  # every class has support
            numbers=torch.tensor(numbers),
            support_index=torch.from_numpy(index.support),
            query_index=torch.from_numpy(index.query),
        )

    def _drawn(self, epoch: int, numbers: list[int]) -> EpisodeIndex:
        """The episodes with these numbers [T], where features are read together with those that are to come."""
        sampler, stride = self.sampler, rank_and_world_size()[1]
        if self.features is None or not isinstance(sampler, EpisodeSampler):
            return sampler.draw(epoch, numbers)
        if self._ahead is not None and self._ahead[0] == epoch and numbers[0] in self._ahead[1]:
            _, drawn, index = self._ahead
            first = drawn.index(numbers[0])
            part = slice(first, first + len(numbers))
            if drawn[part] == numbers:
                return EpisodeIndex(*(rows[part].copy() for rows in index))
        together = PICTURES_DRAWN_AHEAD // (sampler.n_way * (sampler.n_shot + sampler.n_query))
        to_come = list(range(numbers[0], self.n_episodes, stride))[:together]
        if len(to_come) <= len(numbers) or to_come[: len(numbers)] != numbers:
            return sampler.draw(epoch, numbers)
        self._ahead = epoch, to_come, sampler.draw(epoch, to_come)
        return self._drawn(epoch, numbers)

    def _features(
        self, features: Features | PassingFeatures, epoch: int, numbers: Sequence[int], index: EpisodeIndex
    ) -> tuple[Tensor, Tensor]:
        """[T, S, D] and [T, Q, D]."""
        if features.n_views == 1 or not self.training:
            return features.read(index.support), features.read(index.query)
        n_support = index.support.shape[1]
        size = n_support + index.query.shape[1]
        views = np.stack([self.sampler.generator(epoch, i).integers(0, features.n_views, size) for i in numbers])
        return features.read(index.support, views[:, :n_support]), features.read(index.query, views[:, n_support:])

    def _pictures(self, epoch: int, numbers: Sequence[int], index: EpisodeIndex) -> tuple[Tensor, Tensor]:
        """[T, S, C, H, W] and [T, Q, C, H, W]."""
        tasks, n_support = index.support.shape
        if not self.training:
            flat = np.concatenate([index.support.reshape(-1), index.query.reshape(-1)])
            pictures = self.images.read(flat)
            with record_function("transform"):
                inputs = evaluation_transform(pictures, self.preprocessing)
            support, query = inputs.split([index.support.size, index.query.size])
            return support.unflatten(0, (tasks, -1)), query.unflatten(0, (tasks, -1))
        order = np.concatenate([index.support, index.query], axis=1)  # [T, S+Q]
        pictures = self.images.read(order.reshape(-1)).unflatten(0, order.shape)
        size, n_query = self.preprocessing.image_size, order.shape[1] - n_support
        support = torch.empty(tasks, n_support, pictures.shape[2], size, size)
        query = torch.empty(tasks, n_query, pictures.shape[2], size, size)
        # One call an episode, each with the episode's own random numbers: the batch leaves no trace in the pictures.
        with record_function("transform"):
            for task, number in enumerate(numbers):
                generator = self.sampler.generator(epoch, number)
                augmented = training_transform(pictures[task], self.preprocessing, generator)
                support[task], query[task] = augmented[:n_support], augmented[n_support:]
        return support, query


class PictureDataset(Dataset[tuple[Tensor, Tensor]]):
    """Augmented pictures with their class, a batch at a time: (float [B, C, H, W], int64 [B]).

    The augmentation of a batch is a function of (seed, epoch, position of its first picture).
    """

    def __init__(self, images: Images, preprocessing: Preprocessing, *, seed: int) -> None:
        self.images, self.preprocessing, self.seed = images, preprocessing, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: PictureKey | int) -> tuple[Tensor, Tensor]:
        """A batch of the one picture."""
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[PictureKey | int]) -> tuple[Tensor, Tensor]:
        """The batch of these pictures; a plain number stands for that picture in epoch 0."""
        triples = [(0, key, key) if isinstance(key, int) else key for key in keys]
        index = np.array([picture for _, _, picture in triples])
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, 1, *triples[0][:2]])))
        pictures = self.images.read(index)
        with record_function("transform"):
            inputs = training_transform(pictures, self.preprocessing, generator)
        return inputs, torch.from_numpy(self.images.labels[index])


Batch = TypeVar("Batch")


class ResumableLoader(DataLoader[Batch]):
    """A DataLoader over the keys of a rank whose position within an epoch can be saved and taken up again.

    What counts is how many batches were handed out, not how far the sampler has run ahead for its workers. Lightning
    stores `state_dict` in every checkpoint and hands it back when it resumes in the middle of an epoch.
    """

    sampler: EpisodeKeys | PictureKeys
    _batches = 0
    _resumed = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        resumed, self._batches, self._resumed = self._resumed, 0, 0
        skipped = 0 if isinstance(self.sampler, (EpisodeKeys, PictureKeys)) else resumed  # those have skipped them
        self._batches = resumed - skipped
        for batch in super().__iter__():
            self._batches += 1
            if self._batches > skipped:
                yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, the batches of it handed out so far, and what the two are counted in."""
        size, world = int(self.batch_size or 1), rank_and_world_size()[1]
        epoch = getattr(self.sampler, "epoch", 0)  # with trainer.overfit_batches Lightning puts in one that has none
        return {"epoch": epoch, "batches": self._batches, "batch_size": size, "world_size": world}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration begin where this state was saved.

        Raises:
            ValueError: the batches were of another size, or shared among more or fewer processes.
        """
        here = self.state_dict()
        for name, what in (("batch_size", "tasks or pictures a batch"), ("world_size", "processes")):
            if state[name] != here[name]:
                raise ValueError(
                    f"the checkpoint was written in the middle of epoch {state['epoch']} by a run with {state[name]} "
                    f"{what}, and this one has {here[name]}; resume with the same number, or from the end of an epoch"
                )
        if isinstance(self.sampler, (EpisodeKeys, PictureKeys)):
            self.sampler.resume(state["epoch"], state["batches"] * state["batch_size"])
        self._resumed = state["batches"]


def batch_loader(
    dataset: Dataset[Batch],
    keys: EpisodeKeys | PictureKeys,
    *,
    batch_size: int,
    num_workers: int,
    drop_last: bool,
) -> ResumableLoader[Batch]:
    """A loader whose data set builds whole batches from lists of keys, in the order of the keys.

    Lightning finds `keys` as the loader's sampler: it calls its set_epoch, and keeps it when it rebuilds the loader for
    prediction. The loader has a random generator of its own, so that iterating leaves torch's global one alone.
    """
    return ResumableLoader(
        dataset,
        batch_size=batch_size,
        sampler=keys,
        drop_last=drop_last,
        num_workers=num_workers,
        collate_fn=whole_batch,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        generator=torch.Generator(),
    )


def whole_batch(batch: Any) -> Any:
    """The batch itself: the data set has put it together."""
    return batch
