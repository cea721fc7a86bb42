"""Rows of features of a person's own, with ids, labels and texts: what --features and --class_embeddings read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewshot.classification.class_embeddings import ClassEmbeddings
from fewshot.classification.feature_files import READERS, Table, column_names, read_table
from fewshot.classification.label_files import NO_LABEL, GivenLabels, check_labels, label_of, read_labels
from fewshot.classification.task import Task
from fewshot.data.picture_files import LeftOut, files_below
from fewshot.functional.features import check_magnitude

SHOWN = 500
"""Characters of a text that a report shows."""
MOVED_AT_ONCE = 2**14
"""Rows."""


class FeatureRows(NamedTuple):
    """Rows of a file, or of the files of a folder."""

    features: np.ndarray
    """[n, D] float32, finite."""
    ids: tuple[str, ...]
    labels: tuple[str | None, ...]
    texts: tuple[str, ...]
    """What a report shows of each row: its text, or its id."""
    left_out: tuple[LeftOut, ...] = ()
    """Files of the folder that are not read."""
    given: GivenLabels = GivenLabels({})
    """What a table of labels says by ids, of rows elsewhere too; `labels` has it too."""
    feature_names: tuple[str, ...] | None = None
    """What the columns of the features are called, where a table says it."""


def feature_rows(
    place: Path,
    *,
    labels: Path | None = None,
    id_column: str | None = None,
    label_column: str | None = None,
    text_column: str | None = None,
    elsewhere: Collection[str] = (),
) -> FeatureRows:
    """Read rows of features.

    Args:
        place: a file of `fewshot.classification.feature_files`, or a folder of them, in the order of their names.
        labels: a file with labels beside the rows: a table with ids and labels, in which not every row needs to occur,
            or one label for each row in their order.
        id_column: where names of rows are; None numbers them from 0, after the file's name in a folder.
        label_column: where labels are, beside the features, in `labels`, or in both; None is `label` in the latter.
        text_column: where what a report shows is.
        elsewhere: names of other rows, which `labels` may name too.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a file cannot be read, or rows, ids and labels do not go together.
    """
    files, left_out = _files(place)
    beside = label_column is not None and (labels is None or all(label_column in column_names(one) for one in files))
    inside = label_column if beside else None
    wanted = [name for name in (id_column, inside, text_column) if name is not None]
    tables = [read_table(file, list(dict.fromkeys(wanted))) for file in files]
    for file, table in zip(files, tables, strict=True):
        _check_rows(file, table, files[0], tables[0])
    features = tables[0].features if len(tables) == 1 else np.concatenate([table.features for table in tables])

    def column(name: str | None) -> list[str | None] | None:
        return None if name is None else [cell for table in tables for cell in table.columns[name]]

    names = column(id_column)
    if names is None:
        names = [
            table.one * file.name or (f"{file.relative_to(place).as_posix()}:{row}" if place.is_dir() else str(row))
            for file, table in zip(files, tables, strict=True)
            for row in range(len(table.features))
        ]
    ids = _unique(names, place)
    known = column(inside) or [None] * len(ids)
    known = [None if label in NO_LABEL else label for label in map(label_of, known)]
    given = GivenLabels({})
    if labels is not None:
        given = labels_of_rows(labels, ids, id_column, label_column, needed=not beside, elsewhere=elsewhere)
        check_labels(given.classes, {name: label for name, label in zip(ids, known, strict=True) if label is not None})
        known = [given.classes.get(name, label) for name, label in zip(ids, known, strict=True)]
    texts = [text or "" for text in column(text_column) or ids]
    texts = [text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…" for text in texts]
    feature_names = next((table.names for table in tables if table.names), None)
    return FeatureRows(features, ids, tuple(known), tuple(texts), tuple(left_out), given, feature_names)


def columns_in_all(place: Path) -> set[str]:
    """Columns, or arrays, that every file of features has."""
    return set.intersection(*(set(column_names(file)) for file in _files(place)[0]))


def feature_task(rows: FeatureRows, *, alone: bool = True) -> Task:
    """The labelled rows as support, by class, and the others as queries.

    Args:
        rows: all.
        alone: whether there have to be queries among them.

    The rows are put into that order where they lie, so that there is no second copy of a large file.

    Raises:
        ValueError: no row is without a label.
    """
    names = sorted({label for label in rows.labels if label is not None})  # the order of folders
    places = {name: place for place, name in enumerate(names)}
    numbers = np.array([-1 if label is None else places[label] for label in rows.labels], dtype=np.int64)
    support = np.argsort(numbers, kind="stable")[(numbers < 0).sum() :]  # by class, as folders give them
    where = {name: place for place, name in enumerate(rows.ids)} if rows.given.classes else {}
    given = {name: label for name, label in rows.given.classes.items() if name in where}
    none_names = [name for name, label in given.items() if label is None]
    nones = np.array([where[name] for name in none_names], dtype=np.int64)
    query = np.setdiff1d(np.flatnonzero(numbers < 0), nones)
    if alone and not len(query):
        raise ValueError(f"features: all {len(numbers)} rows have labels; rows to classify have an empty one, or -1")
    of_support, of_query, of_nones = _support_first(rows.features, support, query, nones)
    return Task(
        tuple(names),
        tuple(rows.ids[place] for place in support),
        numbers[support],
        of_support,
        tuple(rows.ids[place] for place in query),
        tuple(rows.ids[place] for place in query),
        of_query,
        rows.left_out,
        (tuple(rows.texts[place] for place in support), tuple(rows.texts[place] for place in query)),
        given_labels=tuple(given.items()),
        nones=tuple(none_names),
        none_features=of_nones,
    )


def _support_first(
    features: np.ndarray, support: np.ndarray, query: np.ndarray, nones: np.ndarray
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the support, of the queries right behind them, and of those that are neither.

    Args:
        features: [n, D], which are moved.
        support: [S] places, in any order.
        query: [Q] places, ascending; with the others they are all n.
        nones: [M] places.
    """
    labelled, strange = features[support], torch.from_numpy(features[nones])
    end = len(features)
    for last in range(len(query), 0, -MOVED_AT_ONCE):  # from the end on, where nothing is that has still to be moved
        block = query[max(0, last - MOVED_AT_ONCE) : last]
        features[end - len(block) : end] = features[block]
        end -= len(block)
    features[end - len(support) : end] = labelled
    found = torch.from_numpy(features)
    return found[end - len(support) : end], found[end:], strange


def class_embeddings(file: Path) -> ClassEmbeddings:
    """One row of features for each class, with the names of the classes.

    Args:
        file: .csv or .parquet with a column `class`; .npz with `class_names` beside the embeddings, `class_embeddings`
            or a single matrix, or without names, and .npy: their classes are numbered from 0.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read, or a class stands twice.
    """
    kind = file.suffix.lower()
    name = None if kind == ".npy" else "class_names" if kind == ".npz" else "class"
    try:
        table = read_table(file, [name] if name else [], features="class_embeddings")
    except ValueError as error:
        if kind != ".npz" or "no array 'class_names'" not in str(error):
            raise
        table, name = read_table(file, features="class_embeddings"), None
    _check_rows(file, table, file, table)
    names = table.columns[name] if name else [str(row) for row in range(len(table.features))]
    return ClassEmbeddings(_unique(names, file), torch.from_numpy(table.features))


def _files(place: Path) -> tuple[list[Path], list[LeftOut]]:
    """The files to read, and those of a folder that are left out."""
    if not place.exists():
        raise FileNotFoundError(
            f"features: {place.absolute()} is not there; name a file ({', '.join(READERS)}) or folder"
        )
    if not place.is_dir():
        return [place], []
    found = [Path(where, name) for where, name in files_below(place)]
    read = [file for file in found if file.suffix.lower() in READERS]
    if not read:
        raise ValueError(f"features: {place} has no file in it that is read: {', '.join(READERS)}")
    return read, [(file, f"{file}: features are read from {', '.join(READERS)}") for file in found if file not in read]


def _check_rows(file: Path, table: Table, first: Path, of_first: Table) -> None:
    """ValueError where there are no rows, rows of other features than the first file's, or numbers not finite."""
    features, width = table.features, of_first.features.shape[1]
    if not features.size:
        raise ValueError(
            f"{file} has {len(features)} rows of {features.shape[1]} features; there is nothing to classify"
        )
    if features.shape[1] != width:
        raise ValueError(
            f"{file} has rows of {features.shape[1]} features, and {first} of {width}; they do not go together"
        )
    if table.names and of_first.names and table.names != of_first.names:
        here, there = next(pair for pair in zip(table.names, of_first.names, strict=True) if pair[0] != pair[1])
        raise ValueError(
            f"{file} has the column {here!r} where {first} has {there!r}; give both the same columns in the same order"
        )
    wrong = [start for start in range(0, len(features), 4096) if not np.isfinite(features[start : start + 4096]).all()]
    if wrong:
        row = wrong[0] + int((~np.isfinite(features[wrong[0] : wrong[0] + 4096]).all(1)).argmax())
        raise ValueError(f"{file}: row {row}, counted from 0, holds a number that is missing, infinite or too large")
    check_magnitude(features, str(file))


def _unique(names: Sequence[str | None], place: Path) -> tuple[str, ...]:
    """The names, of which none is missing and none stands twice; ValueError otherwise."""
    seen: dict[str, int] = {}
    for row, name in enumerate(names):
        if name is None:
            raise ValueError(f"{place}: row {row}, counted from 0, has no name")
        if seen.setdefault(name, row) != row:
            raise ValueError(f"{place}: rows {seen[name]} and {row}, counted from 0, are both called {name!r}")
    return tuple(seen)


def labels_of_rows(
    file: Path,
    ids: Sequence[str],
    id_column: str | None,
    label_column: str | None,
    *,
    needed: bool,
    elsewhere: Collection[str] = (),
) -> GivenLabels:
    """What a file of its own says of rows, by their ids.

    Args:
        file: which.
        ids: of all rows.
        id_column: where it may name them; `id` is another.
        label_column: where it may have their labels; `label`, in an .npz `labels`, is another.
        needed: whether a column of that name has to be in this file.
        elsewhere: names of other rows that it may name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read, or says something of no row.
    """
    usual = "label" if file.suffix.lower() in (".csv", ".parquet") else "labels"
    if label_column is None or (not needed and label_column not in column_names(file)):
        label_column = usual
    found = read_labels(file, [id_column or "id", "id"], label_column)
    if not isinstance(found, GivenLabels):
        if len(found) != len(ids):
            beside = f" and no column {id_column or 'id'!r} that says whose" if usual == "label" else ""
            raise ValueError(f"labels: {file} has {len(found)} labels for {len(ids)} rows{beside}")
        return GivenLabels({name: label for name, label in zip(ids, found, strict=True) if label not in NO_LABEL})
    if strange := found.classes.keys() - {*ids, *elsewhere}:
        first = next(name for name in found.classes if name in strange)
        example = next(iter((*ids, *elsewhere)))
        raise ValueError(
            f"labels: {file} names {first!r}, and no row is called so ({example!r}, ...); is --id_column right?"
        )
    return found
