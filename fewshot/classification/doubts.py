"""What a person should look at among their own pictures: labels that the others contradict, and near-duplicates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from fewshot.functional.features import normalized, signed_power

POWER, SHARPNESS = 0.5, 10.0
"""Of the features' transform, as in PT-MAP, and of cosines before their softmax, as in the energy of `novelty`."""
CONTRADICTED = 0.5
"""A label is named where another class is more probable than this. With one label in ten wrong (10 classes, 3 to 10
labelled and 30 unlabelled pictures of each, an ImageNet network on three sets of validation classes), this finds 40 to
78 % of the wrong ones, and 42 to 75 % of those named are wrong."""
ALIKE = 0.95
"""Cosine of centred features from which two rows are near-duplicates. With the same network and sets the nearest other
picture never came above 0.92; copies with less light, cut by 3 %, or saved again as JPEG lie mostly above 0.9."""
MOST_PRODUCTS = 2.5e11
"""Of numbers, in comparing all rows: 14,000 rows of 1,280 features. Of more rows no near-duplicates are looked for."""
AT_ONCE, ROWS_AT_ONCE = 1024, 8192
"""Rows that are compared with all others at a time, and that are transformed at a time."""
KEPT = 1000
"""Pairs that are named at most, the most alike ones."""


class Contradicted(NamedTuple):
    """Labelled rows that the others put into another class, the clearest first."""

    places: np.ndarray
    """[n] int64, which of the labelled."""
    classes: np.ndarray
    """[n] int64, the class that the others put it into."""
    probabilities: np.ndarray
    """[n], of that class."""


class NearDuplicates(NamedTuple):
    """Pairs of rows that are almost the same, the most alike first."""

    pairs: np.ndarray
    """[n, 2] int64, the smaller place first; `KEPT` at most."""
    cosines: np.ndarray
    """[n]"""
    total: int
    """Pairs in all."""


def contradicted_labels(
    support: np.ndarray, support_labels: np.ndarray, query: np.ndarray, probabilities: np.ndarray
) -> Contradicted:
    """Labelled rows whose class, known by its other labelled rows and by the queries, is less like them than another.

    Each class is the mean of its labelled rows and of all queries, weighted by their probability of the class; a
    labelled row is left out of its own. All are judged at once, without fitting anything.

    Args:
        support: [S, D].
        support_labels: [S] int64 in 0..N-1.
        query: [Q, D].
        probabilities: [Q, N] of the queries.
    """
    n_classes = probabilities.shape[1]
    known, parts = powered(support), range(0, len(query), ROWS_AT_ONCE)
    total = known.sum(0) + sum(powered(query[start : start + ROWS_AT_ONCE]).sum(0) for start in parts)
    centre = total / (len(support) + len(query))
    labelled = normalized(known - centre)
    labels = torch.from_numpy(np.asarray(support_labels, dtype=np.int64))
    sums = torch.nn.functional.one_hot(labels, n_classes).float().T @ labelled  # [N, D]
    for start in parts:
        part = slice(start, start + ROWS_AT_ONCE)
        sums += torch.from_numpy(probabilities[part]).float().T @ normalized(powered(query[part]) - centre)
    scores = labelled @ normalized(sums).T  # [S, N]
    own = (labelled * normalized(sums[labels] - labelled)).sum(1)
    scores.scatter_(1, labels.unsqueeze(1), own.unsqueeze(1))
    best, classes = (SHARPNESS * scores).softmax(1).max(1)
    places = ((classes != labels) & (best > CONTRADICTED)).nonzero().flatten()
    places = places[best[places].argsort(descending=True, stable=True)]
    return Contradicted(places.numpy(), classes[places].numpy(), best[places].numpy())


def powered(rows: np.ndarray) -> torch.Tensor:
    """Rows [n, D], power-transformed and of length one."""
    return normalized(signed_power(torch.from_numpy(rows).float(), POWER))


def near_duplicates(*features: np.ndarray) -> NearDuplicates | None:
    """Pairs of rows that are almost the same; None where there are too many rows to compare all.

    Args:
        features: [n, D] of one kind of rows or several; places count on from one to the next.
    """
    if sum(map(len, features)) ** 2 * features[0].shape[1] > MOST_PRODUCTS:
        return None
    rows = torch.from_numpy(np.concatenate(features)).float()
    rows = normalized(rows - rows.mean(0))
    total, found, cosines = 0, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0)
    for start in range(0, len(rows), AT_ONCE):
        alike = rows[start : start + AT_ONCE] @ rows[start:].T  # those of earlier blocks are compared already
        alike = alike.triu_(1).flatten()
        count = int((alike >= ALIKE).sum())
        values, at = alike.topk(min(count, KEPT))
        total += count
        width = len(rows) - start
        cosines = torch.cat([cosines, values])
        found = torch.cat([found, torch.stack([at // width + start, at % width + start], 1)])
        best = cosines.argsort(descending=True, stable=True)[:KEPT]
        cosines, found = cosines[best], found[best]
    pairs, alikeness = found.numpy(), cosines.clamp(max=1).numpy()
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -alikeness))
    return NearDuplicates(pairs[order], alikeness[order], total)
