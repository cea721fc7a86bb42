"""Which pictures a page shows where it cannot show all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewshot.classification.classified import Classified


def shown_queries(classified: Classified, limit: int, always: Sequence[int] = ()) -> np.ndarray:
    """Numbers of at most `limit` queries, int64 [min(Q, limit)], the least confident first.

    Where there are more, those that are always shown come first; up to half of the room left goes to those that changed
    class or are flagged, the least confident first; a quarter to the least confident of the others; what is left to an
    even spread over classes and confidences.
    """
    confidence = classified.probabilities.max(1)
    rising = np.argsort(confidence, kind="stable")
    if len(rising) > limit:
        certain = np.asarray(always[:limit], dtype=np.int64)
        rising, limit = rising[~np.isin(rising, certain)], limit - len(certain)
        remarkable = classified.changed | classified.flagged
        first = rising[remarkable[rising]][: limit // 2]
        others = rising[~np.isin(rising, first)]
        doubtful, others = others[: limit // 4], others[limit // 4 :]
        others = others[np.argsort(classified.predicted[others], kind="stable")]
        room = limit - len(first) - len(doubtful)
        spread = others[(2 * np.arange(room) + 1) * len(others) // (2 * room)] if room else others[:0]
        rising = np.concatenate([certain, first, doubtful, spread])
    return rising[np.lexsort((rising, confidence[rising]))]


def shown_support(classified: Classified, limit: int) -> list[np.ndarray]:
    """For each class the numbers of the support pictures shown: all, or the first `limit` / N where there are more.

    Every class that has support pictures shows one at least.
    """
    n_classes = len(classified.class_names)
    members = [np.flatnonzero(classified.support_labels == label) for label in range(n_classes)]
    if len(classified.support) > limit:
        members = [numbers[: max(1, limit // n_classes)] for numbers in members]
    return members
