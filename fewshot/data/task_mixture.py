"""Tasks of every kind that people bring: few or many classes, shots and queries, in all proportions, with strangers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fewshot.data.draws import FloatArray, IntArray, largest_remainders, tail_shares
from fewshot.data.sampler import EpisodeIndex
from fewshot.episode import STRANGER

KINDS = re.compile(r"balanced|some|(dirichlet|tail|some)\((\d+(?:\.\d+)?)\)")
"""Of class proportions."""


class Sizes(NamedTuple):
    """What the tasks of one batch have in common."""

    n_way: int
    n_shot: int
    total: int
    """Queries in all, strangers among them."""
    strangers: float
    wrong_labels: float
    repeats: float


@dataclass(frozen=True)
class TaskMixture:
    """What tasks a head is to be trained for.

    Ways, shots and queries of a class are drawn between two bounds, so that doubling is as likely everywhere; of the
    lists of shares one each, all equally likely.

    Args:
        ways: bounds of N; no more than a space has classes.
        shots: bounds of K; no more than leave three pictures of the space's smallest class to the queries.
        queries: bounds of the queries a class, on average.
        most_queries: of a task in all, which bounds time and memory.
        proportions: how likely each kind of class proportions is, as weights: "balanced"; "dirichlet(2)", drawn from a
            symmetric Dirichlet distribution of that concentration; "tail(10)", a geometric series whose first class has
            ten times as many queries as the last; "some(3)", three of the classes in equal parts and none of the
            others; "some", a random number of them.
        strangers: shares of queries that are of none of the task's classes, rounded to whole queries.
        wrong_labels: shares of the support's labels that are drawn at random; one of every class stays right.
        repeats: shares of queries that are another one once more.

    Raises:
        ValueError: bounds in the wrong order, a share outside of 0..1, or a kind that is not known.
    """

    ways: tuple[int, int] = (2, 20)
    shots: tuple[int, int] = (1, 10)
    queries: tuple[int, int] = (1, 40)
    most_queries: int = 400
    proportions: Mapping[str, float] = field(
        default_factory=lambda: {
            "balanced": 7,
            "dirichlet(2)": 4,
            "dirichlet(0.5)": 3,
            "tail(10)": 4,
            "some": 3,
            "some(1)": 1,
        }
    )
    strangers: Sequence[float] = (0.0, 0.0, 0.0, 0.0, 0.05, 0.1, 0.2, 0.2, 0.3, 0.4)
    wrong_labels: Sequence[float] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1)
    repeats: Sequence[float] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.3)

    def __post_init__(self) -> None:
        for name, least in (("ways", 2), ("shots", 1), ("queries", 1)):
            low, high = getattr(self, name)
            if not least <= low <= high:
                raise ValueError(f"{name}={[low, high]}; give two bounds, the lower first, of {least} or more")
        if self.most_queries < 1:
            raise ValueError(f"most_queries={self.most_queries}; give 1 or more")
        for kind, weight in self.proportions.items():
            found = KINDS.fullmatch(kind)
            number = 1.0 if found is None or found[2] is None else float(found[2])
            if found is None or number < (1 if found[1] == "some" else 1e-6) or not weight >= 0:
                raise ValueError(
                    f"proportions: {kind!r} with weight {weight} is not known; kinds are balanced, dirichlet(2), "
                    "tail(10), some(3) and some, with numbers of your own above 0, and a weight is 0 or more"
                )
        if not sum(self.proportions.values()) > 0:
            raise ValueError("proportions: no kind has a weight above 0; give at least one")
        for name in ("strangers", "wrong_labels", "repeats"):
            shares = getattr(self, name)
            if not shares or min(shares) < 0 or max(shares) >= 1:
                raise ValueError(f"{name}={list(shares)}; give at least one share, of 0 or more and below 1")

    def sizes(self, generator: np.random.Generator, class_sizes: IntArray) -> Sizes:
        """What the tasks of a batch have in common, for a space whose classes have so many pictures, [C]."""
        n_way = min(_between(generator, self.ways), len(class_sizes))
        n_shot = max(1, min(_between(generator, self.shots), int(class_sizes.min()) - 3))
        total = min(n_way * _between(generator, self.queries), self.most_queries)
        strangers, wrong, repeats = (
            float(generator.choice(np.asarray(shares, dtype=np.float64)))
            for shares in (self.strangers, self.wrong_labels, self.repeats)
        )
        return Sizes(n_way, n_shot, total, strangers if len(class_sizes) > n_way else 0.0, wrong, repeats)

    def task(self, generator: np.random.Generator, by_class: Sequence[IntArray], sizes: Sizes) -> EpisodeIndex:
        """One task, its arrays without the leading axis; strangers have the label STRANGER.

        Where a class has fewer pictures left than it is to have queries, some of them are drawn repeatedly.

        Args:
            generator: of this task alone.
            by_class: the pictures of every class.
            sizes: of the batch.
        """
        n_way, n_shot = sizes.n_way, sizes.n_shot
        n_strange = min(round(sizes.strangers * sizes.total), sizes.total - 1)
        others = min(len(by_class) - n_way, max(1, n_way // 2)) if n_strange else 0
        classes = generator.choice(len(by_class), n_way + others, replace=False)
        shares = self._proportions(generator, n_way)
        counts = largest_remainders(shares[None] * (sizes.total - n_strange), sizes.total - n_strange)[0]
        support, query, labels = [], [], []
        for label, (number, count) in enumerate(zip(classes[:n_way].tolist(), counts.tolist(), strict=True)):
            shuffled = generator.permutation(by_class[number])
            support.append(shuffled[:n_shot])
            query.append(_taken(generator, shuffled[n_shot:], count))
            labels.append(np.full(count, label))
        if n_strange:
            query.append(_taken(generator, np.concatenate([by_class[c] for c in classes[n_way:].tolist()]), n_strange))
            labels.append(np.full(n_strange, STRANGER))
        queries, query_labels = np.concatenate(query), np.concatenate(labels)
        if sizes.repeats:
            known = queries[0], query_labels[0]  # strangers come last, and there is one that is none
            places = generator.integers(0, sizes.total, (2, round(sizes.repeats * sizes.total)))
            queries[places[0]], query_labels[places[0]] = queries[places[1]], query_labels[places[1]]
            if (query_labels == STRANGER).all():
                queries[0], query_labels[0] = known
        order = generator.permutation(sizes.total)
        support_labels = np.repeat(np.arange(n_way), n_shot)
        if sizes.wrong_labels:
            wrong = generator.random(len(support_labels)) < sizes.wrong_labels
            wrong[::n_shot] = False
            support_labels = np.where(wrong, generator.integers(0, n_way, len(wrong)), support_labels)
        return EpisodeIndex(np.concatenate(support), support_labels, queries[order], query_labels[order])

    def _proportions(self, generator: np.random.Generator, n_way: int) -> FloatArray:
        """[N], summing to one."""
        kinds = list(self.proportions)
        weights = np.array([self.proportions[kind] for kind in kinds], dtype=np.float64)
        found = KINDS.fullmatch(kinds[int(generator.choice(len(kinds), p=weights / weights.sum()))])
        assert found is not None
        if found[1] == "dirichlet":
            return generator.dirichlet(np.full(n_way, float(found[2])))
        if found[1] == "tail":
            return generator.permutation(tail_shares(n_way, float(found[2])))
        present = n_way
        if found[0] != "balanced":
            present = int(generator.integers(1, n_way + 1)) if found[2] is None else min(n_way, int(float(found[2])))
        return generator.permutation(np.repeat([1 / present, 0.0], [present, n_way - present]))


def _between(generator: np.random.Generator, bounds: tuple[int, int]) -> int:
    """A whole number between two bounds, both possible, uniform in its logarithm."""
    low, high = bounds
    return min(high, int(np.exp(generator.uniform(np.log(low), np.log(high + 1)))))


def _taken(generator: np.random.Generator, pictures: IntArray, count: int) -> IntArray:
    """So many of the pictures, each once while there are enough."""
    if count <= len(pictures):
        return generator.permutation(pictures)[:count]
    return np.concatenate([pictures, generator.choice(pictures, count - len(pictures))])
