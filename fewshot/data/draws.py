"""Whole numbers drawn for many episodes at once: distinct ones, and counts that keep a sum."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float64]


def distinct_integers(uniform: FloatArray, sizes: IntArray, used: IntArray | None = None) -> IntArray:
    """[R, n] integers: row r is a uniform ordered draw without replacement out of 0..sizes[r]-1.

    Fisher-Yates: step j exchanges place j with a random place in j..size-1 and takes what stood there. As long as no
    place comes up twice, what stands there is its own number, so only rows with a repeated place need more.

    Args:
        uniform: [R, n] random numbers in [0, 1).
        sizes: [R] how many to draw from.
        used: [R] how many entries of each row are wanted (all by default); what follows them is arbitrary.
    """
    steps = np.arange(uniform.shape[1], dtype=np.int64)
    places = steps + (uniform * (sizes[:, None] - steps)).astype(np.int64)
    if used is not None:
        places = np.where(steps < used[:, None], places, sizes[:, None] + steps)
    ordered = np.sort(places, axis=1)
    repeated = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    at_once = max(1, 2**20 // max(1, places.shape[1]) ** 2)
    for first in range(0, len(repeated), at_once):
        rows = repeated[first : first + at_once]
        places[rows] = exchanged(places[rows])
    return places


def exchanged(places: IntArray) -> IntArray:
    """[R, n] what Fisher-Yates takes when step j exchanges place j with place places[r, j] >= j.

    A place that step j has visited holds what place j held then: its own number, unless an earlier step i had visited
    place j, for then it held what place i held at step i, and so on back. So each step looks up who visited its place
    last before it, and follows that chain to its end.
    """
    steps = np.arange(places.shape[1])
    earlier = steps < steps[:, None]  # [n, n]: step i before step j
    last_here = np.where(earlier & (places[:, None, :] == places[:, :, None]), steps, -1).max(axis=2)  # [R, n]
    origin = np.where(earlier & (places[:, None, :] == steps[:, None]), steps, -1).max(axis=2)
    origin = np.where(origin < 0, steps, origin)
    while not np.array_equal(further := np.take_along_axis(origin, origin, axis=1), origin):
        origin = further
    return np.where(last_here < 0, places, np.take_along_axis(origin, np.maximum(last_here, 0), axis=1))


def dirichlet_counts(shares: FloatArray, total: int, room: IntArray) -> IntArray:
    """[T, N] whole numbers near shares * total, each at most its room, each row summing to total.

    Args:
        shares: [T, N] proportions, rows sum to 1.
        total: what every row sums to.
        room: [T, N] upper bounds; a row must sum to at least total.
    """
    counts = largest_remainders(shares * total, total)
    for row in np.flatnonzero((counts > room).any(axis=1)):
        counts[row] = np.minimum(counts[row], room[row])
        while missing := total - int(counts[row].sum()):
            weight = np.where(counts[row] < room[row], np.maximum(shares[row], 1e-12), 0.0)
            more = largest_remainders((weight / weight.sum() * missing)[None], missing)[0]
            counts[row] = np.minimum(counts[row] + more, room[row])
    return counts


def tail_shares(n_way: int, ratio: float) -> FloatArray:
    """[N] shares of a long tail, largest first: a geometric series whose first is `ratio` times its last."""
    shares = ratio ** -(np.arange(n_way) / max(n_way - 1, 1))
    return shares / shares.sum()


def largest_remainders(ideal: FloatArray, total: int) -> IntArray:
    """[T, N] rows rounded down, then one more for the largest remainders, so that each row sums to total."""
    counts = np.floor(ideal).astype(np.int64)
    rank = np.argsort(np.argsort(-(ideal - counts), axis=1, kind="stable"), axis=1, kind="stable")
    return counts + (rank < total - counts.sum(axis=1, keepdims=True))
