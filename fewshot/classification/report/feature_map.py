"""Features on a plane: support, queries and class centres along the two directions in which features vary most."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from fewshot.classification.classified import Classified
from fewshot.drawings.principal import principal_components, variance

WIDTH, MARGIN = 640, 34
CROWD, CROWDED_WIDTH = 500, 960
"""Above so many pictures the drawing is that much larger, so that its markers are smaller beside it."""
MANY = 20_000
"""Above so many pictures single precision does, in half the memory."""


class FeatureMap(NamedTuple):
    """Positions along the first two principal components of support and queries together, or in a drawing of them."""

    support: np.ndarray
    """[S, 2]"""
    query: np.ndarray
    """[Q, 2]"""
    centres_before: np.ndarray
    """[N, 2], by the probabilities before refinement."""
    centres_after: np.ndarray
    """[N, 2], by those after it."""
    share: float
    """How much of the features' variance the two directions hold, 0..1."""


def feature_map(classified: Classified) -> FeatureMap:
    """Where each picture and each class centre lies.

    A class centre is the mean of the class's support features and of all query features, these weighted by their
    probability of the class; refinement moves it, while the features stay.
    """
    features = [torch.from_numpy(rows) for rows in (classified.support_features, classified.query_features)]
    if sum(map(len, features)) <= MANY:
        features = [torch.cat(features).double()]
    coordinates = principal_components(features).double().numpy()  # [S + Q, 2]
    whole = variance(features)
    share = min(1.0, float((coordinates**2).sum() / whole)) if whole > 0 else 0.0
    support, query = np.split(coordinates, [len(classified.support_labels)])
    members = np.eye(len(classified.class_names))[classified.support_labels]  # [S, N]
    centres = []
    for of_query in (classified.before, classified.probabilities):
        sums = members.T @ support
        for first in range(0, len(query), MANY):
            sums = sums + of_query[first : first + MANY].T @ query[first : first + MANY]
        weights = members.sum(0) + of_query.sum(0, dtype=np.float64)  # [N]
        centres.append(sums / np.maximum(weights, np.finfo(np.float64).tiny)[:, None])
    return FeatureMap(support, query, centres[0], centres[1], share)


def plane(positions: FeatureMap, *, support: np.ndarray, query: np.ndarray) -> tuple[int, int, FeatureMap]:
    """Width and height of the drawing, and the map inside it, one scale for both directions, y downwards.

    Args:
        positions: of all pictures.
        support: numbers of the support pictures that are drawn.
        query: numbers of the queries that are drawn.
    """
    drawn = [positions.support[support], positions.query[query], positions.centres_before, positions.centres_after]
    every = np.concatenate(drawn)
    low, high = every.min(0), every.max(0)
    spread = np.maximum(high - low, 1e-9 * max(1.0, float(np.abs(every).max())))
    width = WIDTH if len(support) + len(query) <= CROWD else CROWDED_WIDTH
    inner = width - 2 * MARGIN
    height = int(np.clip(inner * spread[1] / spread[0], 0.55 * inner, 0.85 * inner)) + 2 * MARGIN
    scale = min(inner / spread[0], (height - 2 * MARGIN) / spread[1])
    middle = np.array([width, height]) / 2
    placed = [np.round(middle + (part - (low + high) / 2) * [scale, -scale], 1) for part in drawn]
    return width, height, positions._replace(**dict(zip(FeatureMap._fields, placed, strict=False)))
