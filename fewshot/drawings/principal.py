"""Principal components: the few coordinates along which features differ most, for a map of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

AT_ONCE = 8192
"""Rows that are centred at a time, so that there is no second copy of all of them."""


def principal_components(features: Tensor | Sequence[Tensor], n_kept: int = 2) -> Tensor:
    """Centred features along the directions of their largest variance, [..., n, n_kept], the largest one first.

    The sign of every direction is the one in which its largest entry by size is positive, as in scikit-learn's PCA, so
    that the same features give the same map. Where features vary along fewer directions than asked for, because n - 1
    or D is smaller or features are alike, the columns that are left are 0. Features of half precision are brought to
    single precision. What the columns hold of the variance is their sum of squares over that of the centred features.

    Args:
        features: [..., n, D], finite, n 1 or more; or several such, whose rows follow each other, and which are not
            copied into one where there are more of them than D.
        n_kept: columns, 1 or more.
    """
    several = [features] if isinstance(features, Tensor) else list(features)
    several = [one.to(torch.promote_types(one.dtype, torch.float32)) for one in several if one.shape[-2]]
    n, size = sum(one.shape[-2] for one in several), several[0].shape[-1]
    mean = torch.stack([one.sum(-2, keepdim=True) for one in several]).sum(0) / n
    parts = [part for one in several for part in one.split(max(size, AT_ONCE), dim=-2)]
    if n > size:
        products = sum((part - mean).mT @ (part - mean) for part in parts)  # [..., D, D]
        directions = torch.linalg.eigh(products)[1].flip(-1)  # [..., D, D], ascending turned round
    else:
        directions = torch.linalg.svd(torch.cat(parts, dim=-2) - mean, full_matrices=False)[2].mT  # [..., D, n]
    directions = directions[..., :n_kept]
    largest = directions.gather(-2, directions.abs().argmax(-2, keepdim=True))  # [..., 1, n_kept]
    directions = torch.where(largest < 0, -directions, directions)
    coordinates = mean.new_empty(*mean.shape[:-2], n, directions.shape[-1])  # in one place, lest memory be in pieces
    for part, place in zip(parts, coordinates.split([one.shape[-2] for one in parts], dim=-2), strict=True):
        place.copy_((part - mean) @ directions)
    extremes = [torch.maximum(part.amax((-2, -1), keepdim=True), -part.amin((-2, -1), keepdim=True)) for part in parts]
    rounding = torch.finfo(mean.dtype).eps * max(n, size) * torch.stack(extremes).amax(0)
    coordinates = torch.where(coordinates.abs().amax(-2, keepdim=True) > rounding, coordinates, 0)
    return torch.nn.functional.pad(coordinates, (0, n_kept - coordinates.shape[-1]))


def variance(features: Sequence[Tensor]) -> float:
    """Sum of squares of all rows of several [n, D] about their mean, which is what `principal_components` share out."""
    mean = torch.stack([one.sum(0) for one in features]).sum(0) / sum(map(len, features))
    parts = (part for one in features for part in one.split(AT_ONCE))
    return sum(float((part - mean).square().sum().double()) for part in parts)
