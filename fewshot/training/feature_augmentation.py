"""Augmentation of features: cheap stand-ins for backbones that are weaker, narrower or of another scale."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LEAST_DIMENSIONS = 24


def augmented(support: Tensor, query: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Support [T, S, d] and queries [T, Q, d] of one space, seen as another backbone might: d is at most D.

    Each of these is done to all tasks of the batch or not at all: a random subset of 24 or more dimensions is kept
    (60 % of the batches); each is multiplied by a random factor (30 %); up to eight directions in which two queries
    differ are stretched up to fivefold, so that class means are poor where regression is not (30 %); noise is added, of
    up to the features' own standard deviation (50 %), and of half of these the absolute value taken; one random vector
    is added to all, so that they lie in a narrow cone, as those of many transformers do (20 %).

    Args:
        support: [T, S, D].
        query: [T, Q, D].
        generator: of this batch.
    """
    both = torch.cat([support, query], dim=1)
    width = both.shape[-1]
    if generator.random() < 0.6 and width > LEAST_DIMENSIONS:
        kept = int(generator.integers(LEAST_DIMENSIONS, width + 1))
        both = both[..., torch.from_numpy(generator.choice(width, kept, replace=False))]
    size = float(both.std())
    if generator.random() < 0.3:
        both = both * _normal(generator, both.shape[-1:]).mul(0.5).exp()
    if generator.random() < 0.3:
        both = _stretched(both, query.shape[1], generator)
    if generator.random() < 0.5:
        both = both + float(generator.random()) * size * _normal(generator, both.shape)
        if generator.random() < 0.5:
            both = both.abs()
    if generator.random() < 0.2:
        both = both + 2 * float(generator.random()) * size * _normal(generator, both.shape[-1:])
    return both[:, : support.shape[1]], both[:, support.shape[1] :]


def _stretched(examples: Tensor, n_query: int, generator: np.random.Generator) -> Tensor:
    """Examples [T, n, D], the queries last, longer along directions in which two queries differ."""
    queries = examples[:, -n_query:].flatten(0, 1)
    pairs = torch.from_numpy(generator.integers(0, len(queries), (2, int(generator.integers(1, 9)))))
    directions, _ = torch.linalg.qr((queries[pairs[0]] - queries[pairs[1]]).T)  # [D, r]
    factors = torch.from_numpy(generator.uniform(0, 4, directions.shape[1]).astype(np.float32))
    return examples + examples @ directions * factors @ directions.T


def _normal(generator: np.random.Generator, shape: torch.Size) -> Tensor:
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))
