"""Labels and rows of features as people and scikit-learn hand them over: what is accepted, and what is refused."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Hashable, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fewshot.functional.features import check_magnitude

Made = TypeVar("Made", bound="Estimator")


def scikit_learns(name: str, otherwise: type[Exception]) -> Any:
    """Its exception or warning of that name, which tells its callers more; without it the other one."""
    try:
        import sklearn.exceptions
    except ImportError:
        return otherwise
    return getattr(sklearn.exceptions, name)


def classifier_tags() -> Any:
    """What it asks a classifier about itself, which nothing else does."""
    from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

    return Tags(
        estimator_type="classifier",
        target_tags=TargetTags(required=True),
        classifier_tags=ClassifierTags(),
        input_tags=InputTags(),
    )


class Estimator:
    """What scikit-learn asks of every estimator, by the arguments of its constructor."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self: Made, **options: Any) -> Made:
        """Change arguments of the constructor; ValueError for one that does not exist."""
        if wrong := [name for name in options if name not in self._defaults()]:
            raise ValueError(
                f"invalid parameter {wrong[0]!r} of {type(self).__name__}; it has {', '.join(self._defaults())}"
            )
        vars(self).update(options)
        return self

    def __repr__(self) -> str:
        defaults = self._defaults()
        changed = [f"{name}={value!r}" for name, value in self.get_params().items() if value is not defaults[name]]
        return f"{type(self).__name__}({', '.join(changed)})"

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """The options of the constructor, with their defaults."""
        return {name: option.default for name, option in list(inspect.signature(cls.__init__).parameters.items())[1:]}

    def score(self, X: Any, y: Any) -> float:
        """Share of pictures or feature rows that get their label."""
        predicted = self.predict(X)
        labels = labels_of(y, len(predicted))
        return float(np.mean([one == other for one, other in zip(predicted, labels, strict=True)]))

    def check_feature_names(self, names: Sequence[str] | None, *, fits: bool) -> None:
        """Keep the names of a table's columns where it is fitted, as feature_names_in_; compare them afterwards.

        Args:
            names: of the columns; None where they have none.
            fits: whether rows are fitted from the beginning.

        Raises:
            ValueError: other names than those that were fitted, or in another order.
        """
        known = getattr(self, "feature_names_in_", None)
        if fits:
            vars(self).pop("feature_names_in_", None)
            if names is not None:
                self.feature_names_in_ = np.asarray(list(names), dtype=object)
        elif (names is None) != (known is None):
            said = (
                "X does not have valid feature names, but {} was fitted with feature names"
                if names is None
                else "X has feature names, but {} was fitted without feature names"
            )
            warnings.warn(said.format(type(self).__name__), stacklevel=4)
        elif names is not None and known is not None and list(names) != list(known):
            found, expected = next(pair for pair in zip_longest(names, known) if pair[0] != pair[1])
            raise ValueError(
                "The feature names should match those that were passed during fit, in their order: found "
                f"{found!r} in the place of {expected!r}; give the columns in that order (X[feature_names_in_])"
            )

    def _check_fitted(self) -> None:
        if not hasattr(self, "_adapted"):
            kind = scikit_learns("NotFittedError", ValueError)
            raise kind(f"this {type(self).__name__} is not fitted yet; call fit with labelled rows first")

    def predict(self, X: Any) -> np.ndarray:
        """The labels [n] of n rows."""
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        return classifier_tags()


def column_names(X: Any) -> list[str] | None:
    """D names of a table's columns, where all are text; None of anything else."""
    columns = getattr(X, "columns", None)
    if columns is None or not len(columns) or not all(isinstance(name, str) for name in columns):
        return None
    return list(columns)


def labels_of(y: Any, expected: int) -> list[Hashable]:
    """Labels as a list of plain values; ValueError where they are none or not as many as the rows."""
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None; give a label, -1 or None for each row")
    if isinstance(y, Tensor):
        y = y.detach().cpu().numpy()
    if isinstance(y, np.ma.MaskedArray) and y.mask.any():
        raise ValueError("y is a masked array; an unlabelled row has the label -1 or None, not a mask")
    if hasattr(y, "__array__"):
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1:
            kind = scikit_learns("DataConversionWarning", UserWarning)
            warnings.warn("A column-vector y was passed when a 1d array was expected", kind, stacklevel=3)
            y = y.ravel()
        if y.ndim != 1:
            raise ValueError(f"y has shape {list(y.shape)}; give one label for each row")
        if y.dtype.kind == "f":
            if not np.isfinite(y).all():
                raise ValueError("y contains NaN or infinity; an unlabelled row has the label -1 or None")
            if (y != np.round(y)).any():
                raise ValueError("Unknown label type: continuous numbers; labels are classes, not amounts")
        if y.dtype.kind in "cmM":
            raise ValueError(f"{'Complex data' if y.dtype.kind == 'c' else 'Times'} not supported as labels")
    labels = [label.item() if isinstance(label, np.generic) else label for label in y]
    if any(_is_nan(label) for label in labels):
        raise ValueError("y contains NaN; an unlabelled row has the label -1 or None")
    if len(labels) != expected:
        raise ValueError(f"inconsistent numbers: {expected} rows but {len(labels)} labels; give one for each row")
    return labels


NO_LABEL_AS_TEXT = ("-1", "-1.0", "nan", "None", "<NA>", "NaT", "")
"""What -1, NaN, None and pandas' missing values become in an array of text; one that is too narrow cuts them."""


def check_unlabelled(y: Any, labels: Sequence[Hashable]) -> None:
    """Refuse, or warn of, labels that were -1 or None before y was converted, and would be classes now.

    Args:
        y: as it was given, of which `labels_of` made the labels.
        labels: one for each row.

    Raises:
        ValueError: y is an array of text or of unsigned integers, neither of which can hold -1 or None.
    """
    if any(is_none(label) for label in labels):
        return
    dtype = np.dtype(object)
    if isinstance(y, Tensor) or hasattr(y, "__array__"):
        dtype = np.asarray(y.detach().cpu() if isinstance(y, Tensor) else y).dtype
    known: list[Any] = [label.decode(errors="replace") if isinstance(label, bytes) else label for label in labels]
    suspects: tuple[Any, ...] = (2 ** (8 * dtype.itemsize) - 1,) if dtype.kind == "u" else NO_LABEL_AS_TEXT
    if dtype.kind in "US":
        width = dtype.itemsize // np.dtype((dtype.kind, 1)).itemsize
        suspects += tuple(text[:width] for text in NO_LABEL_AS_TEXT)
    found = [suspect for suspect in suspects if suspect in known]
    if not found:
        return
    said = f"y has the label {found[0]!r} in {known.count(found[0])} of {len(known)} rows and no row without a label"
    if dtype.kind == "u":
        raise ValueError(f"{said}: {dtype} makes that of -1; give signed integers, as y.astype(int) if it is a class")
    if dtype.kind in "UST" and (len(found[0]) > 2 or found[0] in NO_LABEL_AS_TEXT):
        raise ValueError(
            f"{said}: an array of text makes text of -1, None and NaN; give a list or an array of dtype object, in "
            "which unlabelled rows have None, as y.tolist() if it is the name of a class"
        )
    warnings.warn(f"{said}; it is taken for a class, and an unlabelled row has None", stacklevel=4)


def numbered(labels: Sequence[Hashable], named: Sequence[Hashable] = ()) -> tuple[list[Hashable], np.ndarray]:
    """The classes that labels name, and [n] int64, the place among them of each label, -1 for None and for -1.

    Classes are sorted; where they cannot be compared they stand in the order of their first occurrence.

    Args:
        labels: of the rows.
        named: classes that are known besides, which need no labelled row.

    Raises:
        ValueError: there are fewer than two classes.
    """
    known = dict.fromkeys(label for label in (*labels, *named) if not is_none(label))
    if not known:
        raise ValueError("no row has a label; give at least one labelled row of each of two classes")
    if len(known) < 2:
        raise ValueError(f"there is one class alone, {next(iter(known))!r}; give labelled rows of two classes or more")
    try:
        classes = sorted(known)  # type: ignore[type-var]
    except TypeError:
        classes = list(known)
    places = {label: place for place, label in enumerate(classes)}
    return classes, np.array([-1 if is_none(label) else places[label] for label in labels], dtype=np.int64)


def check_numbered(labels: Sequence[Hashable], numbers: Sequence[Hashable], advice: str) -> None:
    """ValueError where there are labels, and none of them is one of the numbers that embeddings without names have."""
    known = [label for label in labels if not is_none(label)]
    if known and not set(known) & set(numbers):
        raise ValueError(
            f"class_embeddings have no names and stand for the labels 0 to {len(numbers) - 1}, and there are others "
            f"such as {known[0]!r}; {advice}"
        )


def is_none(label: Hashable) -> bool:
    """Whether it says that there is no label."""
    return label is None or (isinstance(label, (int, float)) and not isinstance(label, bool) and label == -1)


def _is_nan(label: Hashable) -> bool:
    try:
        return bool(label != label)
    except TypeError:  # pandas' NA
        return True


def label_array(classes: Sequence[Hashable]) -> np.ndarray:
    """[N], of numbers or text where all are, else of objects."""
    kinds = {type(label) for label in classes}
    if kinds in ({bool}, {int}, {float}, {str}):
        return np.array(classes)
    found = np.empty(len(classes), dtype=object)
    found[:] = classes
    return found


def check_rows(given: Any, n_features: int | None, y: Any = None) -> Tensor:
    """Features [n, D], float32.

    Args:
        given: a numpy array or tensor [n, D], or nested lists.
        n_features: D that the classifier was fitted with; None takes any.
        y: labels where `fit` asks, for which one row is too few.

    Raises:
        ValueError: no matrix, no rows or columns, values that are not finite, or another D.
        TypeError: a sparse matrix.
    """
    if hasattr(given, "toarray"):
        raise TypeError("Sparse data was passed, but dense data is required; use .toarray() to make it dense")
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = (given.float() if given.dtype == torch.bfloat16 else given).numpy()
    if np.ma.is_masked(given):
        raise ValueError("X is masked: some of its numbers are said not to count; leave those rows out, or fill them")
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
    if len(rows) < 2 and y is not None:
        raise ValueError(f"n_samples=1 (shape={rows.shape}): one row; give labelled rows of two classes or more")
    with np.errstate(over="ignore"):
        found = np.array(rows, dtype=np.float32)
    if not np.isfinite(found).all():
        raise ValueError("Input X contains NaN or infinity, or numbers beyond float32; features are finite numbers")
    if n_features is None:
        check_magnitude(found, "X")
    elif rows.shape[1] != n_features:
        raise ValueError(
            f"X has {rows.shape[1]} features, but FewShotClassifier is expecting {n_features} features as input"
        )
    return torch.from_numpy(found)
