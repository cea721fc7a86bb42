"""An earlier run that is continued: what its classifier was fitted on takes part, under the names it had."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewshot.classification.classifier import FewShotClassifier
from fewshot.classification.task import Task
from fewshot.files import write_json

FOLDER, ROWS = "classifier", "rows.json"
"""Of the output of a run: the saved classifier, and what its rows are called."""
MAX_BYTES = 2**28


class Earlier(NamedTuple):
    """The task of an earlier run, without its pictures."""

    names: tuple[str, ...]
    """Of labelled rows, then of the others, as `row_names` gives them."""
    labels: tuple[str | None, ...]
    features: Tensor
    """[n, D]."""
    class_embeddings: Mapping[str, Tensor]
    nones: tuple[str, ...] = ()
    """Names, as a table shows them, of those that are none of the classes."""

    def queries(self) -> list[str]:
        """Those without a label, as a table shows them."""
        both = zip(self.names, self.labels, strict=True)
        return [name.partition("/")[2] for name, label in both if label is None]

    def classes(self) -> set[str]:
        """Of labels and embeddings."""
        return {*filter(None, self.labels), *self.class_embeddings}


def row_names(task: Task, roots: Mapping[str, Path]) -> list[str]:
    """A name for each labelled row and each query: `query/PATH`, and `support/CLASS/PATH` of labelled ones elsewhere.

    Args:
        task: labelled rows and queries, of which those that are no files have a name already.
        roots: "query" and "support", the folders of the pictures, where there are such.
    """
    found = []
    for file in task.support:
        if isinstance(file, str):
            found.append(file if task.texts is None else f"query/{file}")
            continue
        name, root = next((name, root) for name, root in roots.items() if root in file.parents)
        found.append(f"{name}/{file.relative_to(root).as_posix()}")
    return [*found, *(f"query/{name}" for name in task.query_names)]


def keep(folder: Path, classifier: FewShotClassifier, names: list[str], nones: Sequence[str]) -> None:
    """Write the classifier and the names of its rows, and of those of no class, into the folder of a run."""
    classifier.save(folder / FOLDER, rows=True)
    write_json(folder / ROWS, {"rows": names, "none_of_these": list(nones)})


def earlier_run(folder: Path, **options: Any) -> tuple[FewShotClassifier, Earlier]:
    """The classifier of a run, and what it was fitted on.

    Args:
        folder: the run's output.
        options: of `FewShotClassifier.load`.

    Raises:
        FileNotFoundError: it did not keep its classifier.
        ValueError: it cannot be read.
    """
    if not (folder / FOLDER).is_dir() or not (folder / ROWS).is_file():
        raise FileNotFoundError(
            f"continue: {folder} holds no {FOLDER} and {ROWS}; name the output of a classify --keep_classifier"
        )
    classifier = FewShotClassifier.load(folder / FOLDER, **options)
    given = classifier.given_
    if (size := (folder / ROWS).stat().st_size) > MAX_BYTES:
        raise ValueError(f"continue: {folder / ROWS} has {size:,} bytes, and {MAX_BYTES:,} are read at most")
    try:
        content = json.loads((folder / ROWS).read_text(encoding="utf-8"))
        names, nones = content["rows"], content["none_of_these"]
        right = all(isinstance(name, str) for name in (*names, *nones)) and len(set(names)) == len(names)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ValueError(f"continue: {folder / ROWS} is damaged: {error}") from error
    if given is None or not right or len(names) != len(given.rows):
        raise ValueError(f"continue: {folder / ROWS} and {folder / FOLDER} do not go together")
    labels = tuple(None if label is None else str(label) for label in given.labels)
    embeddings = {} if given.embeddings is None else {str(k): v for k, v in given.embeddings.by_name().items()}
    return classifier, Earlier(tuple(names), labels, given.rows, embeddings, tuple(nones))


def joined(task: Task, earlier: Earlier, roots: Mapping[str, Path]) -> Task:
    """The task with the rows of an earlier one before its own.

    A row that is there again, under its name and with its features, counts once, and keeps a label that it had. One of
    the same name and of other features is another row; the earlier one is then called `earlier/NAME`.

    Args:
        task: what was read now.
        earlier: what was there.
        roots: as of `row_names`.

    Raises:
        ValueError: features of another width.
    """
    width, had = task.query_features.shape[1], earlier.features.shape[1]
    if width != had:
        raise ValueError(f"continue: rows have {width} features, and the earlier ones {had}; they are not of one model")
    now = {name: place for place, name in enumerate(row_names(task, roots))}
    features = torch.cat([task.support_features, task.query_features])
    same = {
        name: _alike(features[now[name]], row)
        for name, row in zip(earlier.names, earlier.features, strict=True)
        if name in now
    }
    first = len(task.support)
    kept = [place for place, name in enumerate(earlier.names) if not same.get(name, False)]
    old, new = ([place for place in kept if (earlier.labels[place] is None) is free] for free in (False, True))
    labels = dict(zip(earlier.names, earlier.labels, strict=True))
    again = {now[name] - first: labels[name] for name, is_same in same.items() if is_same and now[name] >= first}
    again = {place: label for place, label in again.items() if label is not None}  # queries that had a label
    left = np.setdiff1d(np.arange(len(task.query)), list(again))

    names = [_renamed(name) if name in same else name for name in earlier.names]
    classes = tuple(sorted({*task.class_names, *filter(None, earlier.labels), *earlier.class_embeddings}))
    places = {name: place for place, name in enumerate(classes)}
    numbers = [places[label] for label in (earlier.labels[place] for place in old) if label is not None]
    numbers += [places[task.class_names[label]] for label in task.support_labels]
    numbers += [places[label] for label in again.values() if label is not None]
    order = np.argsort(numbers, kind="stable")
    of_support = torch.cat([earlier.features[old], task.support_features, task.query_features[list(again)]])
    is_rows = task.texts is not None
    support = [*_shown(names, old, all_of_it=not is_rows), *task.support, *(task.query[place] for place in again)]
    remembered = _shown(names, new)
    embeddings = {places[name]: row for name, row in earlier.class_embeddings.items()}
    embeddings |= {places[task.class_names[label]]: row for label, row in task.class_embeddings.items()}
    texts = None
    if task.texts is not None:
        of_texts = [*_shown(names, old), *task.texts[0], *(task.texts[1][place] for place in again)]
        texts = (tuple(of_texts[place] for place in order), (*remembered, *(task.texts[1][place] for place in left)))
    return task._replace(
        class_names=classes,
        support=tuple(support[place] for place in order),
        support_labels=np.array(numbers, dtype=np.int64)[order],
        support_features=of_support[order],
        query=(*_shown(names, new, all_of_it=not is_rows), *(task.query[place] for place in left)),
        query_names=(*remembered, *(task.query_names[place] for place in left)),
        query_features=torch.cat([earlier.features[new], task.query_features[left]]),
        texts=texts,
        class_embeddings=embeddings,
    )


def _alike(one: Tensor, other: Tensor) -> bool:
    return bool(torch.nn.functional.cosine_similarity(one, other, dim=0) > 1 - 1e-4) or bool(torch.equal(one, other))


def _renamed(name: str) -> str:
    kind, _, rest = name.partition("/")
    return f"{kind}/earlier/{rest}"


def _shown(names: list[str], places: list[int], *, all_of_it: bool = False) -> list[str]:
    """Names as a table shows them, without what they begin with."""
    return [names[place] if all_of_it else names[place].partition("/")[2] for place in places]
