"""An earlier run that is continued: what its classifier was fitted on takes part, under the names it had."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
    """Of labelled rows, of the others, as `row_names` gives them, and of those that are none of the classes."""
    labels: tuple[str | None, ...]
    features: Tensor
    """[n, D]."""
    class_embeddings: Mapping[str, Tensor]
    nones: frozenset[str] = frozenset()
    """Of the names, those that are none of the classes."""
    columns: Mapping[str, str] = {}
    """What the run was told of where ids, labels and texts of rows stand, by the name of the option."""

    def by_table(self) -> dict[str, str]:
        """The rows' names by those that a table of labels may give them: `PATH`, and `support/CLASS/PATH`."""
        return {in_table(name): name for name in self.names}

    def classes(self) -> set[str]:
        """Of labels and embeddings."""
        return {*filter(None, self.labels), *self.class_embeddings}

    def none_names(self) -> list[str]:
        """Those of none of the classes, as a table shows them."""
        return [in_table(name) for name in self.names if name in self.nones]

    def relabelled(self, told: Mapping[str, str | None]) -> Earlier:
        """The same after what a person says now: by the rows' names a class, or None for none of them."""
        said = {name: told[name] for name in self.names if name in told}
        nones = {name for name in {*self.nones, *said} if said.get(name) is None}
        labels = tuple(said.get(name, label) for name, label in zip(self.names, self.labels, strict=True))
        return self._replace(labels=labels, nones=frozenset(nones))

    def n_corrected(self, told: Mapping[str, str | None]) -> int:
        """How many rows had another label, or were none of the classes."""
        both = [(name, label) for name, label in zip(self.names, self.labels, strict=True) if name in told]
        return sum(told[name] != label for name, label in both if label is not None or name in self.nones)


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


def keep(folder: Path, classifier: FewShotClassifier, task: Task, names: list[str], columns: Mapping[str, str]) -> None:
    """Write the classifier, the names of its rows, and those of no class with their features, into a run's folder.

    Args:
        folder: of the run.
        classifier: fitted on the task.
        task: of which it takes those of no class.
        names: as `row_names` gives them.
        columns: as of `Earlier`.
    """
    classifier.save(folder / FOLDER, rows=True)
    of_nones = task.query_features[:0] if task.none_features is None else task.none_features
    # the shortest digits that read back as the same float32
    features = [[float(str(number)) for number in row] for row in of_nones.numpy()]
    nones = [
        name if name.startswith("support/") else f"query/{name}" for name, label in task.given_labels if label is None
    ]
    content = {"rows": names, "none_of_these": nones, "none_features": features, "columns": dict(columns)}
    write_json(folder / ROWS, content)


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
        names, nones, columns = content["rows"], content["none_of_these"], content.get("columns", {})
        strange = torch.tensor(content.get("none_features", []), dtype=torch.float32)
        of_nones = [name if name.startswith(("query/", "support/")) else f"query/{name}" for name in nones]
        names = [*names, *of_nones]  # earlier releases wrote them without what they begin with
        right = all(isinstance(name, str) for name in (*names, *nones)) and len(set(names)) == len(names)
        right &= all(isinstance(name, str) for name in (*columns, *columns.values())) and bool(strange.isfinite().all())
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        raise ValueError(f"continue: {folder / ROWS} is damaged: {error}") from error
    n_rows = 0 if given is None else len(given.rows)
    if given is None or not right or len(names) != n_rows + len(nones):
        raise ValueError(f"continue: {folder / ROWS} and {folder / FOLDER} do not go together")
    strange = strange if nones else given.rows[:0]
    if strange.shape != (len(nones), given.rows.shape[1]):
        raise ValueError(f"continue: {folder / ROWS} and {folder / FOLDER} do not go together")
    labels = (*(None if label is None else str(label) for label in given.labels), *[None] * len(nones))
    embeddings = {} if given.embeddings is None else {str(k): v for k, v in given.embeddings.by_name().items()}
    features = torch.cat([given.rows, strange])
    return classifier, Earlier(tuple(names), labels, features, embeddings, frozenset(names[n_rows:]), columns)


def in_table(name: str) -> str:
    """A row's name as a table of labels may give it."""
    return name.removeprefix("query/")
