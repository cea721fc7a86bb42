"""What scikit-learn's own classes say better where it is installed; it is no dependency."""

from __future__ import annotations

from typing import Any


def not_fitted(message: str) -> Exception:
    """Its error for a classifier that is not fitted; without it a ValueError."""
    try:
        from sklearn.exceptions import NotFittedError
    except ImportError:
        return ValueError(message)
    return NotFittedError(message)


def conversion_warning() -> type[Warning]:
    """Its kind of warning for a column of labels; without it UserWarning."""
    try:
        from sklearn.exceptions import DataConversionWarning
    except ImportError:
        return UserWarning
    return DataConversionWarning


def classifier_tags() -> Any:
    """What it asks a classifier about itself, which nothing else does."""
    from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

    return Tags(
        estimator_type="classifier",
        target_tags=TargetTags(required=True),
        classifier_tags=ClassifierTags(),
        input_tags=InputTags(),
    )
