"""What methods do to features before anything else, each task by itself."""

from __future__ import annotations

import torch
from torch import Tensor


def signed_power(features: Tensor, exponent: float) -> Tensor:
    """sign(z) (|z| + 1e-6)^exponent, of any shape; features of a ReLU as published, others keep their sign.

    Args:
        features: of any shape; zero counts as positive.
        exponent: above 0; 0.5 draws a long tail of large entries in.
    """
    size = (features.abs() + 1e-6).pow(exponent)
    return torch.where(features < 0, -size, size)


def centred(features: Tensor) -> Tensor:
    """The features [T, n, D] of every task less their own mean."""
    return features - features.mean(1, keepdim=True)
