"""Which episodes and pictures each process reads, in which order, and from where it goes on after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from pytorch_lightning import Trainer
from torch.utils.data import Sampler

from fewshot.data.ranks import rank_and_world_size

EpisodeKey: TypeAlias = tuple[int, int]
"""(epoch, number)"""

PictureKey: TypeAlias = tuple[int, int, int]
"""(epoch, position in the shuffled epoch, picture)"""


class EpisodeKeys(Sampler[EpisodeKey]):
    """Yields the (epoch, number) of the episodes of this rank: number = position * world size + rank.

    Rank and world size are read from torch.distributed when the iteration begins. In training every rank has the same
    number of episodes, ceil(n_episodes / world size): where they do not divide evenly, the last ones have numbers from
    n_episodes on (new episodes, no repetition). In evaluation exactly 0..n_episodes-1 are handed out, each once, and
    ranks may differ by one episode; Lightning bears this as long as metrics are synchronised at the end of the epoch
    only. It does not bear a rank without any batch: where there are fewer episodes than ranks, those without one get
    one with a number from n_episodes on, which EpisodeDataset marks as padding and no result counts.

    Lightning calls ``set_epoch`` on the sampler of a loader, hence the epoch travels in the key and reaches workers.
    """

    def __init__(self, n_episodes: int, *, training: bool) -> None:
        self.n_episodes, self.training = n_episodes, training
        self.epoch = 0
        self._resumed = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the episodes of this epoch from the next iteration on; without effect in evaluation."""
        self.epoch = epoch if self.training else 0

    def resume(self, epoch: int, consumed: int) -> None:
        """Let the next iteration over this epoch begin after so many episodes of this rank."""
        self._resumed = (epoch, consumed)

    def __len__(self) -> int:
        """Episodes of this rank in a whole epoch, also when resuming."""
        rank, world = rank_and_world_size()
        return max(1, (self.n_episodes + world - 1 - (0 if self.training else rank)) // world)

    def __iter__(self) -> Iterator[EpisodeKey]:
        rank, world = rank_and_world_size()
        epoch = self.epoch
        start = self._resumed[1] if self._resumed[0] == epoch else 0
        self._resumed = (0, 0)
        for position in range(start, len(self)):
            yield epoch, position * world + rank


class PictureKeys(Sampler[PictureKey]):
    """Yields the keys of this rank's share of all pictures, in an order that is a function of (seed, epoch).

    Ranks take every world-size-th picture of one common order and equally many; at most world size - 1 pictures
    are left out of an epoch, others each time.
    """

    def __init__(self, n_pictures: int, *, seed: int) -> None:
        self.n_pictures, self.seed = n_pictures, seed
        self.epoch = 0
        self._resumed = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Use the order of this epoch from the next iteration on."""
        self.epoch = epoch

    def resume(self, epoch: int, consumed: int) -> None:
        """Let the next iteration over this epoch begin after so many pictures of this rank."""
        self._resumed = (epoch, consumed)

    def __len__(self) -> int:
        """Pictures of this rank in a whole epoch, also when resuming."""
        return self.n_pictures // rank_and_world_size()[1]

    def __iter__(self) -> Iterator[PictureKey]:
        rank, world = rank_and_world_size()
        epoch = self.epoch
        start = self._resumed[1] if self._resumed[0] == epoch else 0
        self._resumed = (0, 0)
        bits = np.random.Philox(np.random.SeedSequence([self.seed, 0, epoch]))
        order = np.argsort(bits.random_raw(self.n_pictures), kind="stable")
        for step in range(start, len(self)):
            position = step * world + rank
            yield epoch, position, int(order[position])


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
