"""How rows are seen where classes have embeddings: about their centre, and by how they scatter about their classes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fewshot.functional.features import normalized

SHRINKAGE = 0.85
"""Share of equal scatter in all directions in what rows are whitened by."""
LEAST_SCATTER = 1e-4
"""Of rows of length one, on average; less is rounding."""


class RowView(NamedTuple):
    """What rows of features become before they are classified. Letters: D features."""

    centre: Tensor
    """[D], taken off rows of length one."""
    whitening: Tensor | None = None
    """[D, D], what they are multiplied by then; None leaves them."""

    def of(self, rows: Tensor) -> Tensor:
        """Rows [n, D] so seen, each of length one."""
        centred = normalized(normalized(rows) - self.centre)
        return centred if self.whitening is None else normalized(centred @ self.whitening)

    def __str__(self) -> str:
        return "about their mean" + ("" if self.whitening is None else ", whitened by their scatter within classes")

    def fits(self, width: int) -> bool:
        """Whether it is for so many features."""
        whitening = self.whitening
        return self.centre.shape == (width,) and (whitening is None or whitening.shape == (width, width))


def whitening_of(rows: Tensor, shares: Tensor) -> Tensor:
    """What makes the scatter of rows about their class means alike in all directions, but for a factor, [D, D].

    The inverse root of the scatter within classes, as in linear discriminant analysis, shrunk towards the same in all
    directions (Ledoit, Wolf: A well-conditioned estimator for large-dimensional covariance matrices, 2004) by a fixed
    share. It is symmetric, so that features keep their places.

    Args:
        rows: [n, D], of length one.
        shares: [n, N], how far each row is of each class; of each row they sum to one.
    """
    masses = shares.sum(0).clamp_min(1e-6).unsqueeze(1)  # [N, 1]
    means = shares.T @ rows / masses
    scatter = (rows.T @ rows - means.T @ (masses * means)) / len(rows)
    width = rows.shape[1]
    scatter = scatter * (width / scatter.trace().clamp_min(LEAST_SCATTER))
    shrunk = (1 - SHRINKAGE) * scatter + SHRINKAGE * torch.eye(width, dtype=rows.dtype, device=rows.device)
    values, vectors = torch.linalg.eigh(shrunk.cpu())  # not to be had on every accelerator
    return ((vectors * values.clamp_min(SHRINKAGE / 2).rsqrt()) @ vectors.T).to(rows)
