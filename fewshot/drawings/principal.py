"""Principal components: the few coordinates along which features differ most, for a map of them."""

from __future__ import annotations

import torch
from torch import Tensor

AT_ONCE = 8192
"""Rows that are centred at a time, so that there is no second copy of all of them."""


def principal_components(features: Tensor, n_kept: int = 2) -> Tensor:
    """Centred features along the directions of their largest variance, [..., n, n_kept], the largest one first.

    The sign of every direction is the one in which its largest entry by size is positive, as in scikit-learn's PCA, so
    that the same features give the same map. Where features vary along fewer directions than asked for, because n - 1
    or D is smaller or features are alike, the columns that are left are 0. Features of half precision are brought to
    single precision. What the columns hold of the variance is their sum of squares over that of the centred features.

    Args:
        features: [..., n, D], finite, n 1 or more.
        n_kept: columns, 1 or more.
    """
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    n, size = features.shape[-2:]
    mean, parts = features.mean(-2, keepdim=True), features.split(max(size, AT_ONCE), dim=-2)
    if n > size:
        products = sum((part - mean).mT @ (part - mean) for part in parts)  # [..., D, D]
        directions = torch.linalg.eigh(products)[1].flip(-1)  # [..., D, D], ascending turned round
    else:
        directions = torch.linalg.svd(features - mean, full_matrices=False)[2].mT  # [..., D, n]
    directions = directions[..., :n_kept]
    largest = directions.gather(-2, directions.abs().argmax(-2, keepdim=True))  # [..., 1, n_kept]
    directions = torch.where(largest < 0, -directions, directions)
    coordinates = torch.cat([(part - mean) @ directions for part in parts], dim=-2)
    largest = torch.maximum(features.amax((-2, -1), keepdim=True), -features.amin((-2, -1), keepdim=True))
    rounding = torch.finfo(features.dtype).eps * max(n, size) * largest
    coordinates = torch.where(coordinates.abs().amax(-2, keepdim=True) > rounding, coordinates, 0)
    return torch.nn.functional.pad(coordinates, (0, n_kept - coordinates.shape[-1]))
