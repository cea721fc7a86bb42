"""Labels as people write them: of any hashable kind, with -1 or None where there is none."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fewshot.classification.scikit_learn import conversion_warning


def labels_of(y: Any, expected: int | None) -> list[Hashable]:
    """Labels as a list of plain values; ValueError where they are none or not as many as the rows."""
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None; give a label, -1 or None for each row")
    if isinstance(y, Tensor):
        y = y.detach().cpu().numpy()
    if hasattr(y, "__array__"):
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1:
            warnings.warn(
                "A column-vector y was passed when a 1d array was expected", conversion_warning(), stacklevel=3
            )
            y = y.ravel()
        if y.ndim != 1:
            raise ValueError(f"y has shape {list(y.shape)}; give one label for each row")
        if y.dtype.kind == "f":
            if not np.isfinite(y).all():
                raise ValueError("y contains NaN or infinity; an unlabelled row has the label -1 or None")
            if (y != np.round(y)).any():
                raise ValueError("Unknown label type: continuous numbers; labels are classes, not amounts")
        if y.dtype.kind == "c":
            raise ValueError("Complex data not supported as labels")
    labels = [label.item() if isinstance(label, np.generic) else label for label in y]
    if any(isinstance(label, float) and label != label for label in labels):
        raise ValueError("y contains NaN; an unlabelled row has the label -1 or None")
    if expected is not None and len(labels) != expected:
        raise ValueError(f"inconsistent numbers: {expected} rows but {len(labels)} labels; give one for each row")
    return labels


def is_unlabelled(label: Hashable) -> bool:
    """Whether a label says that there is none: None, or the number -1."""
    return label is None or (isinstance(label, (int, float)) and not isinstance(label, bool) and label == -1)


def sorted_classes(labels: Sequence[Hashable]) -> list[Hashable]:
    """Each label once, sorted; in the order of their first occurrence where they cannot be compared."""
    distinct = list(dict.fromkeys(labels))
    try:
        return sorted(distinct)  # type: ignore[type-var]
    except TypeError:
        return distinct


def label_array(classes: Sequence[Hashable]) -> np.ndarray:
    """[N], of numbers or text where all are, else of objects."""
    kinds = {type(label) for label in classes}
    if kinds in ({bool}, {int}, {float}, {str}):
        return np.array(classes)
    found = np.empty(len(classes), dtype=object)
    found[:] = classes
    return found
