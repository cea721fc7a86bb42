"""Embeddings of classes as extra support: CLIP's text side, or any model's that shares a space with the rows.

The two sides lie apart (Liang, Zhang, Kwon, Yeung, Zou: Mind the Gap, NeurIPS 2022, arXiv 2203.02053). So each is
brought to unit length, centred by its own mean, and brought to unit length again: rows by the mean of all rows that are
given, class embeddings by theirs. What comes later is centred by the mean of those rows.

A row is centred less by the mean the fewer rows there are, since it is part of it. Where every class has an embedding,
they are drawn towards the rows of their classes, and both may be whitened, see
`fewshot.classification.drawn_embeddings`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewshot.classification.conventions import is_none
from fewshot.classification.drawn_embeddings import DrawnEmbeddings
from fewshot.classification.row_view import RowView
from fewshot.functional.features import normalized


class ClassEmbeddings(NamedTuple):
    """One row of features for each class."""

    class_names: tuple[Any, ...]
    features: Tensor
    """[A, D]."""

    def by_name(self) -> dict[Any, Tensor]:
        """[D] of every class."""
        return dict(zip(self.class_names, self.features, strict=True))


def as_class_embeddings(given: Any, n_features: int) -> ClassEmbeddings:
    """What `FewShotClassifier.fit` was given, checked.

    Args:
        given: a mapping from label to [D], or [A, D], of the labels 0..A-1.
        n_features: D.

    Raises:
        ValueError: anything else, or numbers that are not finite.
    """
    if not isinstance(given, Mapping) and (not hasattr(given, "__len__") or getattr(given, "ndim", 1) == 0):
        raise ValueError(f"class_embeddings is a {type(given).__name__}; give {{label: row}}, or an array [N, D]")
    names: Sequence[Hashable] = list(given) if isinstance(given, Mapping) else range(len(given))
    if none := [name for name in names if is_none(name)]:
        raise ValueError(f"class_embeddings have a row for {none[0]!r}, which says that there is no label")
    rows = list(given.values()) if isinstance(given, Mapping) else given
    if isinstance(rows, list):
        rows = [row.detach().cpu().numpy() if isinstance(row, Tensor) else np.asarray(row) for row in rows]
        if len({row.shape for row in rows}) > 1:
            raise ValueError(f"class_embeddings have shapes {sorted({row.shape for row in rows})}; give [D] for each")
        rows = np.stack(rows) if rows else np.zeros((0, n_features))
    found = torch.as_tensor(np.asarray(rows.detach().cpu() if isinstance(rows, Tensor) else rows), dtype=torch.float32)
    if found.ndim != 2 or found.shape[1] != n_features:
        raise ValueError(
            f"class_embeddings have shape {list(found.shape)} and the rows {n_features} features; give one row of as "
            "many for each class, of the same model"
        )
    if not bool(found.isfinite().all()):
        raise ValueError("class_embeddings contain NaN or infinity")
    return ClassEmbeddings(tuple(names), found)


class Support(NamedTuple):
    """What the classes of a task are known by, and the rows beside it. Letters: S labelled rows, E embeddings."""

    rows: Tensor
    """[n, D]."""
    features: Tensor
    """[S + E, D]."""
    labels: Tensor
    """[S + E] int64."""
    unlabelled: Tensor
    """[n - S, D] of the rows; without a copy where they are the last ones."""
    n_embeddings: int = 0
    """E, the last ones of them."""
    view: RowView | None = None
    """How the rows are seen; None where there are no embeddings."""
    embeddings_without: Callable[[Tensor], Tensor] | None = None
    """[E, D] as they would be if some of the labelled rows, by their places [H] among these, had no label."""


def support_of(
    rows: Tensor, places: Tensor, given: ClassEmbeddings | None, classes: Sequence[Hashable], weight: int
) -> Support:
    """Labelled rows and class embeddings, without the gap between them.

    Args:
        rows: [n, D].
        places: [n] int64, the class of each row, -1 for none.
        given: one embedding for each class or for some; None leaves the rows as they are.
        classes: N.
        weight: as how many labelled rows an embedding counts.

    Raises:
        ValueError: a weight that is no whole number above 0.
    """
    known = places >= 0
    if given is None:
        return Support(rows, rows[known], places[known], _unlabelled(rows, known))
    if type(weight) is not int or weight < 1:
        raise ValueError(f"class_embedding_weight={weight!r}; give a whole number, 1 or more")
    numbers = torch.tensor([classes.index(name) for name in given.class_names], device=rows.device)
    centre = normalized(rows).mean(0) * len(rows) / (len(rows) + len(classes))
    of_classes = given.features.to(rows)[numbers.argsort()]
    among = DrawnEmbeddings(rows, of_classes, places, centre) if len(of_classes) == len(classes) else None
    view = RowView(centre) if among is None else among.view

    def embeddings(places: Tensor) -> Tensor:
        found = RowView(normalized(of_classes).mean(0)).of(of_classes) if among is None else among.drawn(places)
        return found.repeat(weight, 1)

    def without(held: Tensor) -> Tensor:
        fewer = places.clone()
        fewer[known.nonzero().flatten()[held]] = -1
        return embeddings(fewer)

    seen, labels = view.of(rows), numbers.sort().values.repeat(weight)
    return Support(
        seen,
        torch.cat([seen[known], embeddings(places)]),
        torch.cat([places[known], labels]),
        _unlabelled(seen, known),
        len(labels),
        view,
        without,
    )


def _unlabelled(rows: Tensor, known: Tensor) -> Tensor:
    first = int(known.sum())
    return rows[~known] if bool(known[first:].any()) else rows[first:]
