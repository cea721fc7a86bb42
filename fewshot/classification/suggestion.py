"""Which rows a person should label: the first ones where none is labelled, and the next ones where some are.

Rows are chosen one after the other so that every row has a chosen or labelled one close to it: MaxHerding (Bae, Noh,
Sutherland: Generalized Coverage for More Robust Low-Budget Active Learning, ECCV 2024, arXiv 2407.12212). Where there
is an answer already, a row counts by how uncertain it is: Uncertainty Herding (Bae, Oliveira, Sutherland, ICLR 2025,
arXiv 2412.20644). Here closeness is exp((cosine - 1) / width) of features that are power-transformed, centred and of
length one, and uncertainty is the root of one less the margin between the two most probable classes.

That was chosen on validation classes of CIFAR-FS, Tiny ImageNet and grocery pictures, among widths from 0.05 to 0.4,
the margin, its root and its square, the entropy and its root, and no uncertainty at all. What did no better there by
the labels that 95 % of the final accuracy takes: k-means or whitened principal components for the first ones, which
find a few more classes with ten labels; the probability of being a stranger beside the margin; a width that shrinks as
labels come; answers before and after refinement together; more weight for classes with few labels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fewshot.functional.features import normalized, signed_power

FIRST_WIDTH, NEXT_WIDTH = 0.4, 0.2
"""Of the closeness, in units of the cosine, where there is no answer yet and where there is."""
POWER = 0.5
"""Of the features' transform, as in PT-MAP."""
LOOKED_AT = 4096
"""Rows that are compared with each other at most, evenly over all: 64 MiB of closeness."""


def first_to_label(features: np.ndarray, number: int, labelled: np.ndarray | None = None) -> np.ndarray:
    """Places of the rows to label first where nothing is labelled, [number] int64, the most useful first.

    They are typical of many rows, and unlike each other. Equal input gives equal output.

    Args:
        features: [Q, D], finite.
        number: how many; where there are fewer rows, all of them.
        labelled: [S, D] of rows with a label where they are too few for an answer; None where there are none.

    Raises:
        ValueError: no rows, or a number below 1.
    """
    return _chosen(features, np.ones(len(features), dtype=np.float32), number, labelled, FIRST_WIDTH)


def next_to_label(
    features: np.ndarray, probabilities: np.ndarray, number: int, labelled: np.ndarray | None = None
) -> np.ndarray:
    """Places of the rows to label next, [number] int64, the most useful first.

    They are uncertain, close to many uncertain rows, and unlike each other and those labelled. Equal input gives equal
    output.

    Args:
        features: [Q, D] of the rows without a label, finite.
        probabilities: [Q, N] of their classes, calibrated.
        number: how many; where there are fewer rows, all of them.
        labelled: [S, D] of the rows with a label; None where they are not known.

    Raises:
        ValueError: no rows, a number below 1, or arrays that do not fit each other.
    """
    if probabilities.ndim != 2 or len(probabilities) != len(features):
        raise ValueError(f"probabilities {list(probabilities.shape)} do not fit {len(features)} rows; give [Q, N]")
    return _chosen(features, np.sqrt(uncertainty(probabilities)), number, labelled, NEXT_WIDTH)


def uncertainty(probabilities: np.ndarray) -> np.ndarray:
    """[Q] in 0..1: one less the margin between the two most probable classes of [Q, N]."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities), dtype=np.float32)
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.clip(1 - (best[:, 1] - best[:, 0]), 0, 1)


def _chosen(
    features: np.ndarray, weights: np.ndarray, number: int, labelled: np.ndarray | None, width: float
) -> np.ndarray:
    """Places [number] that cover the rows best, taken one after the other.

    Args:
        features: [Q, D].
        weights: [Q], how much it is worth that a row is covered.
        number: how many.
        labelled: [S, D], by which rows are covered already.
        width: of the closeness.
    """
    if number < 1:
        raise ValueError(f"number={number}; give 1 or more rows to label")
    if features.ndim != 2 or not len(features):
        raise ValueError(f"features of shape {list(features.shape)}; give one row or more, [Q, D]")
    if labelled is not None and labelled.shape[1:] != features.shape[1:]:
        raise ValueError(f"labelled rows {list(labelled.shape)} do not fit features {list(features.shape)}")
    if number > LOOKED_AT:
        raise ValueError(f"number={number}; {LOOKED_AT} rows are suggested at most")
    places = np.linspace(0, len(features) - 1, min(LOOKED_AT, len(features))).astype(np.int64)
    rows = torch.from_numpy(np.ascontiguousarray(features[places], dtype=np.float32))
    centre = normalized(signed_power(rows, POWER)).mean(0)
    rows = _seen(rows, centre)
    worth = torch.from_numpy(np.ascontiguousarray(weights[places], dtype=np.float32))
    closeness = _closeness(rows, rows, width)
    covered = torch.zeros(len(rows))
    known = np.zeros((0, features.shape[1]), np.float32) if labelled is None else np.asarray(labelled, dtype=np.float32)
    for first in range(0, len(known), LOOKED_AT):
        part = torch.from_numpy(known[first : first + LOOKED_AT])
        covered = torch.maximum(covered, _closeness(rows, _seen(part, centre), width).amax(1))
    taken = torch.zeros(len(rows), dtype=torch.bool)
    found = []
    for _ in range(min(number, len(rows))):
        gain = worth @ (closeness - covered.unsqueeze(1)).clamp_(min=0)
        best = int(gain.masked_fill(taken, -1.0).argmax())
        taken[best] = True
        covered = torch.maximum(covered, closeness[:, best])
        found.append(best)
    return places[found]


def _seen(rows: Tensor, centre: Tensor) -> Tensor:
    return normalized(normalized(signed_power(rows, POWER)) - centre)


def _closeness(rows: Tensor, others: Tensor, width: float) -> Tensor:
    """[n, m] of rows [n, D] and [m, D] of length one."""
    return (rows @ others.T).sub_(1).div_(width).exp_()
