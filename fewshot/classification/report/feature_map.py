"""Features on a plane: support, queries and class centres along the two directions in which features vary most."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from fewshot.classification.classified import Classified
from fewshot.drawings.principal import principal_components


class FeatureMap(NamedTuple):
    """Positions along the first two principal components of support and queries together."""

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
    features = np.concatenate([classified.support_features, classified.query_features]).astype(np.float64)
    coordinates = principal_components(torch.from_numpy(features)).numpy()  # [S + Q, 2]
    variance = ((features - features.mean(0)) ** 2).sum()
    members = np.eye(len(classified.class_names))[classified.support_labels]  # [S, N]

    def centres(probabilities: np.ndarray) -> np.ndarray:
        weights = np.concatenate([members, probabilities])  # [S + Q, N]
        totals = np.maximum(weights.sum(0), np.finfo(np.float64).tiny)
        return (weights / totals).T @ coordinates

    return FeatureMap(
        support=coordinates[: len(members)],
        query=coordinates[len(members) :],
        centres_before=centres(classified.before),
        centres_after=centres(classified.probabilities),
        share=min(1.0, float((coordinates**2).sum() / variance)) if variance > 0 else 0.0,
    )
