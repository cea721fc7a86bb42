"""Coordinates of the examples of a task from eigenvectors of their own inner products."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.functional.graph import symmetrically_normalized, without_diagonal

EASE_FLOOR = 1e-4
"""Added to the degrees of both of EASE's graphs, as in its published code."""


def principal_coordinates(features: Tensor, n_kept: int) -> Tensor:
    """The features along their leading right singular vectors, without centring, [T, n, min(n_kept, n, D)].

    Inner products are kept as well as so many dimensions can; with all of them, exactly. The sign of every coordinate
    is arbitrary, its size is not. Columns are sorted, the largest singular value first.

    Args:
        features: [T, n, D].
        n_kept: dimensions, 1 or more.
    """
    n_kept = min(n_kept, *features.shape[1:])
    if features.shape[1] <= features.shape[2]:
        values, vectors = torch.linalg.eigh(torch.bmm(features, features.transpose(1, 2)))  # ascending
        coordinates = vectors * values.clamp_min(0).sqrt().unsqueeze(1)
    else:
        coordinates = torch.bmm(features, torch.linalg.eigh(torch.bmm(features.transpose(1, 2), features))[1])
    return coordinates[..., -n_kept:].flip(-1)


def ease_coordinates(features: Tensor, *, n_kept: int, rank: int, contrast: float) -> Tensor:
    """EASE: the features projected on the smallest eigenvectors of Z^T (contrast W1 - W) Z, [T, n, min(n_kept, n, D)].

    W = |U U^T| with U the leading left singular vectors of Z says who is alike by low-rank self-representation; W1 has
    all pairs alike. Both are without diagonal and symmetrically normalised. Small eigenvalues are directions along
    which alike examples agree and examples as a whole do not.

    Args:
        features: Z, [T, n, D], each of length one.
        n_kept: dimensions, 1 or more.
        rank: columns of U, 1 or more.
        contrast: weight of W1.
    """
    coordinates = principal_coordinates(features, features.shape[-1])  # an isometry: eigenvectors turn with it
    lengths = coordinates.square().sum(1, keepdim=True).clamp_min(torch.finfo(features.dtype).tiny).sqrt()  # [T, 1, r]
    leading = (coordinates / lengths)[..., :rank]  # U
    alike = without_diagonal(torch.bmm(leading, leading.transpose(1, 2)).abs())
    graphs = [
        symmetrically_normalized(graph, EASE_FLOOR) for graph in (alike, without_diagonal(alike.new_ones(alike.shape)))
    ]
    quadratic = coordinates.transpose(1, 2) @ (contrast * graphs[1] - graphs[0]) @ coordinates  # [T, r, r]
    return torch.bmm(coordinates, torch.linalg.eigh(quadratic)[1][..., :n_kept])
