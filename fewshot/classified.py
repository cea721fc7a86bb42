"""What came of classifying a folder of pictures: everything that a table or a report of it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Classified:
    """Queries with their classes, before refinement and after, beside the support that they were compared with.

    Letters: N classes, S support pictures, Q queries, D feature size.

    Attributes:
        class_names: N names, in the order of the columns.
        support: S files.
        support_labels: [S] int64 in 0..N-1.
        query: Q files.
        query_names: Q names as a table shows them: the path below the query folder, with forward slashes.
        support_features: [S, D] float32.
        query_features: [Q, D] float32.
        before: [Q, N] probabilities before refinement, rows sum to one.
        probabilities: [Q, N] probabilities after refinement, calibrated.
        novelty: [Q], how unlike every class a query is, larger is more so; None where that was not asked.
        novelty_threshold: queries above it are flagged as none of the classes; None where that was not asked.
        skipped: pictures that could not be read, with the reason.
        settings: what was run, by name: backbone, method, checkpoint, temperature, chunk, versions; plain text.
    """

    class_names: tuple[str, ...]
    support: tuple[Path, ...]
    support_labels: np.ndarray
    query: tuple[Path, ...]
    query_names: tuple[str, ...]
    support_features: np.ndarray
    query_features: np.ndarray
    before: np.ndarray
    probabilities: np.ndarray
    novelty: np.ndarray | None = None
    novelty_threshold: float | None = None
    skipped: tuple[tuple[Path, str], ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def predicted(self) -> np.ndarray:
        """[Q] int64, the most probable class of each query."""
        return self.probabilities.argmax(1)

    @cached_property
    def predicted_before(self) -> np.ndarray:
        """[Q] int64, the same before refinement."""
        return self.before.argmax(1)

    @cached_property
    def margins(self) -> np.ndarray:
        """[Q], the probability of the most probable class less that of the next."""
        best = np.sort(self.probabilities, axis=1)[:, ::-1]
        return best[:, 0] - (best[:, 1] if best.shape[1] > 1 else 0.0)

    @cached_property
    def flagged(self) -> np.ndarray:
        """[Q] bool, which queries are unlike every class; all False where that was not asked."""
        if self.novelty is None or self.novelty_threshold is None:
            return np.zeros(len(self.query), dtype=bool)
        return self.novelty > self.novelty_threshold
