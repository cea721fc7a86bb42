"""Which pictures make up episode i: a pure function of (seed, split, epoch, i), and which rank gets which episodes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewshot.data.draws import IntArray, dirichlet_counts, distinct_integers, tail_shares

SPLITS = ("train", "val", "test")
"""The splits of a data set. Their order is part of how episodes are drawn: never change it."""

EPISODES, AUGMENTATION, SIZES = 0, 1, 2
"""What random numbers are for; each purpose has a stream of its own, so that one can change without the other."""
MIXED_BLOCK = 64
"""So many consecutive episodes have one size where sizes are mixed."""


class EpisodeIndex(NamedTuple):
    """Where the pictures of T episodes stand in their split, and their labels inside the episode."""

    support: IntArray
    """[T, S] pictures, class after class: S = N * K."""
    support_labels: IntArray
    """[T, S] in 0..N-1."""
    query: IntArray
    """[T, Q] pictures, shuffled: Q = N * n_query."""
    query_labels: IntArray
    """[T, Q] in 0..N-1."""


class EpisodeSampler:
    """Draws the episodes of one split.

    Classes are drawn without replacement and numbered afresh for every episode, support and query are disjoint, and the
    queries come in random order. Drawing costs O(N * (K + n_query)) per episode, whatever the number of classes and of
    pictures.

    Args:
        labels: [n] int, class of every picture of the split, in 0..C-1.
        n_way: N, classes of an episode.
        n_shot: K, support pictures of a class.
        n_query: query pictures of a class; with ``dirichlet`` or ``long_tail`` their mean over an episode's classes.
        seed: base of every random number.
        split: "train", "val" or "test". Only training episodes differ from epoch to epoch.
        dirichlet: None for n_query queries of every class. Otherwise the concentration alpha of a symmetric Dirichlet
            distribution from which the class proportions of the N * n_query queries of each episode are drawn
            (Veilleux et al., "Realistic Evaluation of Transductive Few-Shot Learning", NeurIPS 2021, arXiv 2204.11181,
            with alpha = 2; the smaller, the less balanced). Proportions become counts by largest remainders. A class
            has at most what its pictures leave after the support; what exceeds this goes to the other classes in
            proportion to their shares, until the total is N * n_query again. A class may have no query at all.
        long_tail: in its place, how many times as many queries the largest class has as the smallest: proportions are a
            geometric series, in random order, and become counts in the same way.
        class_names: [C] names for error messages.
        source: name of the data set for error messages.

        option_prefix: put before the names of sizes in error messages, "train_" for example.

    Raises ValueError for sizes below 1, more ways than classes, an empty split, and a class of fewer than
    n_shot + n_query pictures.
    """

    def __init__(
        self,
        labels: IntArray,
        *,
        n_way: int,
        n_shot: int,
        n_query: int,
        seed: int = 0,
        split: str = "test",
        dirichlet: float | None = None,
        long_tail: float | None = None,
        class_names: Sequence[str] | None = None,
        source: str = "the data set",
        option_prefix: str = "",
    ) -> None:
        labels = np.asarray(labels, dtype=np.int64)
        names = [str(c) for c in range(int(labels.max(initial=-1)) + 1)] if class_names is None else list(class_names)
        sizes = np.bincount(labels, minlength=len(names))
        check_sizes(n_way=n_way, n_shot=n_shot, n_query=n_query, seed=seed, dirichlet=dirichlet, long_tail=long_tail)
        where, option = f"split {split!r} of {source}", option_prefix
        if split not in SPLITS:
            raise ValueError(f"split={split!r} is not one of {', '.join(SPLITS)}")
        if not len(labels):
            raise ValueError(f"{where} holds no pictures; check the files of the data set")
        if n_way > len(sizes):
            raise ValueError(f"{option}n_way={n_way} but {where} has {len(sizes)} classes; lower data.{option}n_way")
        if sizes.min() < n_shot + n_query:
            worst = int(sizes.argmin())
            raise ValueError(
                f"{option}n_shot={n_shot} and {option}n_query={n_query} take {n_shot + n_query} pictures of a class "
                f"but class {names[worst]!r} of {where} has {sizes[worst]}; "
                f"lower data.{option}n_shot or data.{option}n_query"
            )
        self.n_way, self.n_shot, self.n_query = n_way, n_shot, n_query
        self.seed, self.split, self.dirichlet = seed, split, dirichlet
        self.tail = None if long_tail is None else tail_shares(n_way, long_tail)
        self.sizes: IntArray = sizes
        self.starts: IntArray = np.cumsum(sizes) - sizes
        self.by_class: IntArray = np.argsort(labels, kind="stable")
        total = n_way * n_query
        # The most queries that one class can have: fixes how many numbers an episode draws, whatever its neighbours.
        self._balanced = dirichlet is None and long_tail is None
        self._depth = n_query if self._balanced else min(total, int(sizes.max()) - n_shot)
        self._generator = np.random.Generator(np.random.Philox(key=self._key(0)))
        self._state = self._generator.bit_generator.state
        self._keys = (0, self._key(0))

    def draw(self, epoch: int, numbers: Sequence[int] | IntArray) -> EpisodeIndex:
        """The episodes with these numbers [T]; each is the same in whatever company it is drawn."""
        tasks, ways, shots, total = len(numbers), self.n_way, self.n_shot, self.n_way * self.n_query
        classes_end, pictures_end = ways, ways + ways * (shots + self._depth)
        raw = np.empty((tasks, pictures_end + total), dtype=np.uint64)
        shares = np.empty((tasks, ways))
        for task, number in enumerate(numbers):
            self._seek(epoch, int(number), EPISODES)
            raw[task] = self._generator.bit_generator.random_raw(raw.shape[1])
            if self.dirichlet is not None:
                shares[task] = self._generator.dirichlet(np.full(ways, self.dirichlet))
            elif self.tail is not None:
                shares[task] = self._generator.permutation(self.tail)
        uniform = (raw >> np.uint64(11)) * 2.0**-53  # in [0, 1)

        classes = distinct_integers(uniform[:, :classes_end], np.full(tasks, len(self.sizes), dtype=np.int64))  # [T, N]
        sizes = self.sizes[classes]
        if self._balanced:
            counts = np.full((tasks, ways), self.n_query, dtype=np.int64)
        else:
            counts = dirichlet_counts(shares, total, sizes - shots)
        depth = shots + int(counts.max(initial=0))
        draws = uniform[:, classes_end:pictures_end].reshape(tasks * ways, shots + self._depth)[:, :depth]
        picks = distinct_integers(draws, sizes.reshape(-1), shots + counts.reshape(-1))  # [T*N, K+depth]
        places = np.minimum(picks.reshape(tasks, ways, depth), sizes[:, :, None] - 1) + self.starts[classes][:, :, None]
        pictures = self.by_class[places]

        taken = np.arange(depth - shots) < counts[:, :, None]  # [T, N, depth]
        numbering = np.arange(ways, dtype=np.int64)
        labels = np.broadcast_to(numbering[:, None], taken.shape)
        shuffled = np.argsort(raw[:, pictures_end:], axis=1, kind="stable")  # [T, Q]
        return EpisodeIndex(
            pictures[:, :, :shots].reshape(tasks, -1),
            np.tile(np.repeat(numbering, shots), (tasks, 1)),
            np.take_along_axis(pictures[:, :, shots:][taken].reshape(tasks, total), shuffled, axis=1),
            np.take_along_axis(labels[taken].reshape(tasks, total), shuffled, axis=1),
        )

    def generator(self, epoch: int, number: int) -> np.random.Generator:
        """Random numbers for the augmentation of one episode, a function of (seed, split, epoch, number)."""
        return self.random_numbers(epoch, number, AUGMENTATION)

    def random_numbers(self, epoch: int, number: int, purpose: int) -> np.random.Generator:
        """The stream of one purpose and one number, a function of (seed, split, epoch, number)."""
        return np.random.Generator(np.random.Philox(key=self._key(epoch), counter=[0, 0, number, purpose]))

    def sha256(self, n_episodes: int) -> str:
        """Hash over pictures and labels of episodes 0..n_episodes-1 (of epoch 0): the identity of an evaluation."""
        digest = hashlib.sha256(f"{self.n_way} {self.n_shot} {self.n_query} {n_episodes}".encode())
        for first in range(0, n_episodes, 512):
            index = self.draw(0, range(first, min(first + 512, n_episodes)))
            digest.update(np.concatenate(index, axis=1).astype("<i8").tobytes())
        return digest.hexdigest()

    def _key(self, epoch: int) -> NDArray[np.uint64]:
        sequence = np.random.SeedSequence([self.seed, SPLITS.index(self.split), epoch if self.split == "train" else 0])
        return sequence.generate_state(2, np.uint64).astype(np.uint64, copy=False)

    def _seek(self, epoch: int, number: int, purpose: int) -> None:
        """Set the counter of the generator to where the numbers of this episode begin (2^128 apart from any other)."""
        if self._keys[0] != epoch:
            self._keys = (epoch, self._key(epoch))
        state = self._state["state"]
        state["key"], state["counter"][:] = self._keys[1], (0, 0, number, purpose)
        self._generator.bit_generator.state = self._state


class MixedEpisodeSampler:
    """Draws the episodes of one split in several sizes or query distributions, one of them for every 64 episodes.

    Which one is a function of (seed, split, epoch, i // 64), so that batches whose numbers stay within such a block can
    be stacked, and what a block holds is what its sampler draws for these numbers.

    Args:
        samplers: one for each size, alike in seed and split; each is as likely as the others.
    """

    def __init__(self, samplers: Sequence[EpisodeSampler]) -> None:
        self.samplers = samplers

    def draw(self, epoch: int, numbers: Sequence[int] | IntArray) -> EpisodeIndex:
        """The episodes with these numbers [T], all of one block."""
        blocks = {int(number) // MIXED_BLOCK for number in numbers}
        assert len(blocks) == 1, "a batch lies within one block"
        return self._sampler(epoch, blocks.pop()).draw(epoch, numbers)

    def generator(self, epoch: int, number: int) -> np.random.Generator:
        """Random numbers for the augmentation of one episode, a function of (seed, split, epoch, number)."""
        return self.samplers[0].generator(epoch, number)

    def sha256(self, n_episodes: int) -> str:
        """Hash over pictures and labels of episodes 0..n_episodes-1 (of epoch 0)."""
        digest = hashlib.sha256(f"mixed {n_episodes}".encode())
        for first in range(0, n_episodes, MIXED_BLOCK):
            index = self.draw(0, range(first, min(first + MIXED_BLOCK, n_episodes)))
            digest.update(np.concatenate(index, axis=1).astype("<i8").tobytes())
        return digest.hexdigest()

    def _sampler(self, epoch: int, block: int) -> EpisodeSampler:
        place = self.samplers[0].random_numbers(epoch, block, SIZES).integers(len(self.samplers))
        return self.samplers[int(place)]


def check_sizes(
    *, n_way: int, n_shot: int, n_query: int, seed: int, dirichlet: float | None, long_tail: float | None = None
) -> None:
    """Raise ValueError for sizes that no data set can serve."""
    for name, value in {"n_way": n_way, "n_shot": n_shot, "n_query": n_query}.items():
        if value < 1:
            raise ValueError(f"{name}={value} but an episode needs at least 1; raise data.{name}")
    if seed < 0:
        raise ValueError(f"seed={seed} is negative; data.seed is 0 or more")
    if dirichlet is not None and not 0 < dirichlet < float("inf"):
        raise ValueError(f"dirichlet={dirichlet} but a concentration is above 0; null gives balanced queries")
    if long_tail is not None and not 1 <= long_tail < float("inf"):
        raise ValueError(
            f"long_tail={long_tail} but the largest class is 1 or more times the smallest; null is balanced"
        )
    if dirichlet is not None and long_tail is not None:
        raise ValueError(f"dirichlet={dirichlet} and long_tail={long_tail}; leave one of them null")


def check_least(name: str, value: int, least: int) -> None:
    """Raise ValueError for an option of a data module that is too small."""
    if value < least:
        raise ValueError(f"{name}={value} but it is at least {least}; raise data.{name}")
