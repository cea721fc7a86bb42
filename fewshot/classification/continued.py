"""An earlier run that is continued: what its classifier was fitted on takes part, under the names it had."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
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
        return {_in_table(name): name for name in self.names}

    def classes(self) -> set[str]:
        """Of labels and embeddings."""
        return {*filter(None, self.labels), *self.class_embeddings}

    def none_names(self) -> list[str]:
        """Those of none of the classes, as a table shows them."""
        return [_in_table(name) for name in self.names if name in self.nones]

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
    nones = [name for name, label in task.given_labels if label is None]
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
        names = [*names, *(f"query/{name}" for name in nones)]
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


def joined(task: Task, earlier: Earlier, roots: Mapping[str, Path], told: Mapping[str, str | None]) -> Task:
    """The task with the rows of an earlier one before its own.

    A row that is there again, under its name and with its features, counts once, and keeps a label that it had. One of
    the same name and of other features is another row; the earlier one is then called `earlier/NAME`.

    Args:
        task: what was read now.
        earlier: what was there.
        roots: as of `row_names`.
        told: what a table says now, by names in a table; of a row that was there it counts in the place of its label.

    Raises:
        ValueError: features of another width, or no row is without a label.
    """
    width, had = task.query_features.shape[1], earlier.features.shape[1]
    if width != had:
        raise ValueError(f"continue: rows have {width} features, and the earlier ones {had}; they are not of one model")
    of_nones = task.query_features[:0] if task.none_features is None else task.none_features
    none_names = [f"query/{name}" for name, label in task.given_labels if label is None]
    now = {name: place for place, name in enumerate([*row_names(task, roots), *none_names])}
    features = torch.cat([task.support_features, task.query_features, of_nones])
    same = {
        name: _alike(features[now[name]], row)
        for name, row in zip(earlier.names, earlier.features, strict=True)
        if name in now
    }
    by_table = earlier.by_table()
    said = {by_table[name]: label for name, label in told.items() if same.get(by_table.get(name, ""), name in by_table)}
    corrected, earlier = earlier.n_corrected(said), earlier.relabelled(said)

    first, end = len(task.support), len(task.support) + len(task.query)
    kept = [place for place, name in enumerate(earlier.names) if not same.get(name, False)]
    old = [place for place in kept if earlier.labels[place] is not None]
    strange = [place for place in kept if earlier.names[place] in earlier.nones]
    new = sorted({*kept} - {*old, *strange})
    labels = dict(zip(earlier.names, earlier.labels, strict=True))
    queries = {now[name] - first: name for name, is_same in same.items() if is_same and first <= now[name] < end}
    again = {place: labels[name] for place, name in queries.items() if labels[name] is not None}
    aside = [place for place, name in queries.items() if name in earlier.nones]
    left = np.setdiff1d(np.arange(len(task.query)), [*again, *aside])
    if not new and not len(left):
        raise ValueError("labels: all that is there has labels; there is nothing left to classify")

    names = _free_names(earlier.names, {name for name in same if not same[name]}, now)
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
    none_now = [*_shown(names, strange), *(task.query_names[place] for place in aside)]
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
        given_labels=_given_labels(task, said, none_now),
        nones=(*task.nones, *_shown(names, strange, all_of_it=not is_rows), *(task.query[place] for place in aside)),
        none_features=torch.cat([of_nones, earlier.features[strange], task.query_features[aside]]),
        corrected=corrected,
    )


def _given_labels(
    task: Task, said: Mapping[str, str | None], nones: Sequence[str]
) -> tuple[tuple[str, str | None], ...]:
    """What tables say: of this run's rows, of earlier ones, and of those that are none of the classes."""
    known = dict(task.given_labels)
    given = {_in_table(name): label for name, label in said.items() if label is not None}
    earlier = [(name, label) for name, label in given.items() if name not in known]
    return (*task.given_labels, *earlier, *((name, None) for name in nones))


def _in_table(name: str) -> str:
    return name.removeprefix("query/")


def _alike(one: Tensor, other: Tensor) -> bool:
    return bool(torch.nn.functional.cosine_similarity(one, other, dim=0) > 1 - 1e-4) or bool(torch.equal(one, other))


def _free_names(names: Sequence[str], taken: Collection[str], now: Collection[str]) -> list[str]:
    """The names, of which those that are taken by other rows now become `KIND/earlier/REST`."""
    found, used = [], {*names, *now}
    for name in names:
        if name in taken:
            kind, _, rest = name.partition("/")
            while name in used:
                rest = f"earlier/{rest}"
                name = f"{kind}/{rest}"
            used.add(name)
        found.append(name)
    return found


def _shown(names: list[str], places: list[int], *, all_of_it: bool = False) -> list[str]:
    """Names as a table shows them, without what they begin with."""
    return [names[place] if all_of_it else names[place].partition("/")[2] for place in places]
