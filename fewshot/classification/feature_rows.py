"""Rows of features as scikit-learn hands them over: what is accepted, what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def check_rows(given: Any, n_features: int | None, *, fitting: bool, y: Any = None) -> Tensor:
    """Features [n, D], float32.

    Args:
        given: a numpy array or tensor [n, D], or nested lists.
        n_features: D that the classifier was fitted with; None takes any.
        fitting: whether `fit` asks, for which one row is too few.
        y: labels, to tell rows that were forgotten from labels that were.

    Raises:
        ValueError: no matrix, no rows or columns, values that are not finite, or another D.
        TypeError: a sparse matrix.
    """
    if hasattr(given, "toarray"):
        raise TypeError("Sparse data was passed, but dense data is required; use .toarray() to make it dense")
    if isinstance(given, Tensor):
        given = given.detach().cpu().numpy()
    rows = np.asarray(given)
    if rows.dtype.kind == "c":
        raise ValueError("Complex data not supported: features are real numbers")
    if rows.dtype.kind not in "biuf":
        try:
            rows = rows.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"features are numbers, but found {rows.dtype} ({error}); give backbone=... to classify pictures; "
                "argument must be a string or a number"
            ) from error
    if rows.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {rows.ndim}D array of shape {list(rows.shape)}: one row of features for each "
            "picture. Reshape your data, or give backbone=... to classify pictures"
        )
    if not len(rows):
        raise ValueError(f"Found array with 0 sample(s) (shape={rows.shape}) while a minimum of 1 is required.")
    if not rows.shape[1]:
        raise ValueError(f"0 feature(s) (shape={rows.shape}) while a minimum of 1 is required.")
    if fitting and len(rows) < 2 and y is not None:
        raise ValueError(f"n_samples=1 (shape={rows.shape}): one row; give labelled rows of two classes or more")
    if not np.isfinite(rows).all():
        raise ValueError("Input X contains NaN or infinity; features are finite numbers")
    if n_features is not None and rows.shape[1] != n_features:
        raise ValueError(
            f"X has {rows.shape[1]} features, but FewShotClassifier is expecting {n_features} features as input"
        )
    return torch.from_numpy(np.array(rows, dtype=np.float32))
