"""Graphs over the examples of a task: nearest neighbours, normalised affinities, label propagation.

Letters beside the package's: n examples of a task, support and queries together.
"""

from __future__ import annotations

import torch
from torch import Tensor


def nearest(similarity: Tensor, n_neighbours: int) -> Tensor:
    """Whether column j is among the most similar ones of row i, bool [T, n, m].

    Args:
        similarity: [T, n, m]; an entry of minus infinity is never chosen while there are others.
        n_neighbours: how many of each row; all of them where there are fewer columns.
    """
    chosen = similarity.topk(min(n_neighbours, similarity.shape[-1]), dim=-1).indices  # [T, n, k]
    return torch.zeros_like(similarity, dtype=torch.bool).scatter_(-1, chosen, True)


def without_diagonal(matrix: Tensor) -> Tensor:
    """The matrices [T, n, n] with a zero diagonal."""
    itself = torch.eye(matrix.shape[-1], dtype=torch.bool, device=matrix.device)
    return matrix.masked_fill(itself, 0)


def cosine_affinities(features: Tensor, n_neighbours: int, power: float) -> Tensor:
    """Graph of nearest neighbours by cosine, [T, n, n]: (a + a^T) / 2 with a_ij = max(cos_ij, 0)^power.

    a_ij is zero unless j is one of the nearest neighbours of i; nobody is a neighbour of itself. It is differentiable
    in the weights; who is a neighbour is not.

    Args:
        features: [T, n, D], each of length one.
        n_neighbours: neighbours of each example.
        power: above 0.
    """
    cosine = torch.bmm(features, features.transpose(1, 2))  # [T, n, n]
    itself = torch.eye(cosine.shape[-1], dtype=torch.bool, device=cosine.device)
    others = cosine.masked_fill(itself, -torch.inf)
    directed = (cosine.clamp_min(0) ** power).masked_fill(~nearest(others, n_neighbours) | itself, 0)
    return (directed + directed.transpose(1, 2)) / 2


def symmetrically_normalized(affinities: Tensor, floor: float = 0.0) -> Tensor:
    """D^-1/2 W D^-1/2 with D the row sums of W plus the floor, [T, n, n]; rows that sum to nothing stay zero.

    Its eigenvalues lie in [-1, 1] for a symmetric W without negative entries.

    Args:
        affinities: W, [T, n, n], symmetric, no entry negative.
        floor: added to every row sum.
    """
    degrees = affinities.sum(-1) + floor  # [T, n]
    connected = degrees > 0
    scale = torch.where(connected, torch.where(connected, degrees, 1.0).rsqrt(), 0.0)
    return affinities * scale.unsqueeze(-1) * scale.unsqueeze(-2)


def propagated(affinities: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """Labels spread over the graph to the end of the process, (I - alpha W)^-1 Y, [T, n, N].

    Zhou, Bousquet, Lal, Weston, Schölkopf: Learning with Local and Global Consistency, NeurIPS 2003, eq. 4, without its
    factor 1 - alpha. One batched solve; differentiable in both tensors.

    Args:
        affinities: W, [T, n, n], normalised.
        labels: Y, [T, n, N], zero rows for what is not labelled.
        alpha: how far labels spread, in [0, 1).
    """
    system = torch.eye(affinities.shape[-1], dtype=affinities.dtype, device=affinities.device) - alpha * affinities
    return torch.linalg.solve(system, labels)


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
