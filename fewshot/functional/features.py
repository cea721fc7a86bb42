"""Features of a task, transformed and averaged: lengths, powers, class means."""

from __future__ import annotations

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


def normalized(vectors: Tensor) -> Tensor:
    """The vectors scaled to length one along their last dimension; a zero vector stays zero.

    Args:
        vectors: [..., D].
    """
    return F.normalize(vectors, dim=-1)


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


def squared_distances(query: Tensor, prototypes: Tensor) -> Tensor:
    """Squared Euclidean distance between every query and every prototype, [T, Q, N].

    Args:
        query: [T, Q, D].
        prototypes: [T, N, D].
    """
    products = torch.bmm(query, prototypes.transpose(1, 2))  # [T, Q, N]
    lengths = query.square().sum(-1, keepdim=True) + prototypes.square().sum(-1).unsqueeze(1)
    return (lengths - 2 * products).clamp_min(0)
