"""Loaders of whole batches that know how far an epoch has come, and go on from there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from fewshot.data.sampler import EpisodeKeys, PictureKeys
from fewshot.ranks import rank_and_world_size

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
        self._batches, self._resumed = self._resumed, 0
        for batch in super().__iter__():
            self._batches += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, the batches of it handed out so far, and what the two are counted in."""
        size, world = int(self.batch_size or 1), rank_and_world_size()[1]
        return {"epoch": self.sampler.epoch, "batches": self._batches, "batch_size": size, "world_size": world}

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
