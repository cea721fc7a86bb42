"""Features of a task, transformed and averaged: lengths, powers, class means."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def in_full_precision(tensor: Tensor) -> Tensor:
    """The tensor in float32 where it came in half precision; float32 and float64 stay as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def signed_power(features: Tensor, exponent: float | None) -> Tensor:
    """sign(z) (|z| + 1e-6)^exponent, of any shape; features of a ReLU as published, others keep their sign.

    Args:
        features: of any shape; zero counts as positive.
        exponent: above 0; 0.5 draws a long tail of large entries in; None leaves features as they are.
    """
    if exponent is None:
        return features
    size = (features.abs() + 1e-6).pow(exponent)
    return torch.where(features < 0, -size, size)


def centred(features: Tensor) -> Tensor:
    """The features [T, n, D] of every task less their own mean."""
    return features - features.mean(1, keepdim=True)


SMALLEST, LARGEST = 1e-9, 1e15
"""What the largest number of a task may be, so that lengths and their squares are numbers of float32."""


def check_magnitude(rows: np.ndarray, source: str) -> None:
    """Raise ValueError where all numbers of features [n, D] are so small, or some so large, that lengths are lost."""
    largest = max(float(rows.max()), -float(rows.min()))
    if largest and not SMALLEST <= largest <= LARGEST:
        raise ValueError(
            f"{source}: the largest number is {largest:.3g}, and lengths are computed where it lies between "
            f"{SMALLEST:g} and {LARGEST:g}; multiply all features by one factor, here and later"
        )


def normalized(vectors: Tensor) -> Tensor:
    """The vectors scaled to length one along their last dimension; a zero vector stays zero.

    Args:
        vectors: [..., D].
    """
    return F.normalize(vectors, dim=-1)


SPAN_PAYS = 2
"""How many times the examples of a task the feature size has to be for `in_own_span` to change it."""


def in_own_span(support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """The features turned into the space that a task's own examples span, [T, S, d] and [T, Q, d] with d <= D.

    S + Q vectors span at most S + Q dimensions: the triangular factor of their QR decomposition has the same inner
    products, so that lengths, distances, means and all that is made of these stay as they are. A method of many rounds
    then works on S + Q numbers an example rather than on D. Where D is not at least twice as many, nothing is done, nor
    where a gradient is to flow, which the factor of examples that depend on each other has not, or a graph is exported.

    Args:
        support: [T, S, D].
        query: [T, Q, D].
    """
    n_support, n_examples, width = support.shape[1], support.shape[1] + query.shape[1], support.shape[2]
    learns = torch.is_grad_enabled() and (support.requires_grad or query.requires_grad)
    if width < SPAN_PAYS * n_examples or learns or torch.compiler.is_exporting():
        return support, query
    examples = torch.cat([support, query], dim=1).transpose(1, 2)  # [T, D, S+Q]
    turned = torch.linalg.qr(examples, mode="r").R.transpose(1, 2).contiguous()  # [T, S+Q, S+Q]
    return turned[:, :n_support], turned[:, n_support:]


def member_means(members: Tensor, features: Tensor) -> Tensor:
    """Mean of the features of every class, weighted by how much each belongs to it, [T, N, D].

    Args:
        members: [T, n, N], each column with a sum above 0.
        features: [T, n, D].
    """
    return torch.bmm(members.transpose(1, 2), features) / members.sum(1).unsqueeze(-1)


def class_means(features: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Mean feature of every class of every task, [T, N, D].

    Args:
        features: [T, S, D].
        labels: [T, S] int64 in 0..N-1.
        n_way: N. A class without any feature gets a zero vector.
    """
    members = F.one_hot(labels, n_way).to(features.dtype)  # [T, S, N]
    counts = members.sum(dim=1).clamp_min(1)  # [T, N]
    return torch.bmm(members.transpose(1, 2), features) / counts.unsqueeze(-1)


def squared_lengths(vectors: Tensor) -> Tensor:
    """[..., n, 1] from [..., n, D]."""
    return vectors.square().sum(-1, keepdim=True)


def squared_distances(query: Tensor, prototypes: Tensor, query_squares: Tensor | None = None) -> Tensor:
    """Squared Euclidean distance between every query and every prototype, [T, Q, N], a class's side by side in memory.

    Args:
        query: [T, Q, D].
        prototypes: [T, N, D].
        query_squares: [T, Q, 1], `squared_lengths` of the queries, where many distances of the same are asked for.
    """
    products = torch.bmm(prototypes, query.transpose(1, 2))  # [T, N, Q]: twice as fast on a CPU as the other way round
    of_queries = squared_lengths(query) if query_squares is None else query_squares
    lengths = squared_lengths(prototypes) + of_queries.transpose(1, 2)
    return (lengths - 2 * products).clamp_min(0).transpose(1, 2)
