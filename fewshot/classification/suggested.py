"""What a person is asked to label: which pictures or rows, in which order, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fewshot.classification.classifier import FewShotClassifier
from fewshot.classification.suggestion import first_to_label, next_to_label
from fewshot.classification.task import Task, classified_task
from fewshot.files import csv_line
from fewshot.functional.features import normalized


@dataclass(frozen=True)
class Suggested:
    """Pictures or rows to label, the most useful first. M of them, N classes.

    Attributes:
        class_names: those that are known, N or none.
        files: M files, or names of rows.
        names: M names as a table shows them.
        reasons: M, in words.
        texts: M, what stands in the place of their pictures; None where they are pictures.
        predicted: [M] int64, the class that each is taken for; None where fewer than two classes are known.
        given_labels: what a table of labels said already, name and class, None for none of the classes.
        n_query: how many they were chosen from.
        skipped: files that could not be read, with the reason.
    """

    class_names: tuple[str, ...]
    files: tuple[Path | str, ...]
    names: tuple[str, ...]
    reasons: tuple[str, ...]
    texts: tuple[str, ...] | None
    predicted: np.ndarray | None
    given_labels: tuple[tuple[str, str | None], ...]
    n_query: int
    skipped: tuple[tuple[Path, str], ...] = ()

    @property
    def things(self) -> tuple[str, str]:
        """What one is called, and several."""
        return ("picture", "pictures") if self.texts is None else ("row", "rows")

    @property
    def column(self) -> str:
        """What the column is called that names them."""
        return "path" if self.texts is None else "id"


def suggested(classifier: FewShotClassifier, task: Task, number: int) -> Suggested:
    """Choose what to label: by an answer where two classes are known, else what is typical.

    The order in which rows are given makes no difference.

    Args:
        classifier: what classifies.
        task: labelled rows, none or more, and those to choose from.
        number: how many.

    Raises:
        ValueError: as of `FewShotClassifier.fit`, and of `fewshot.classification.suggestion.first_to_label`.
    """
    task = _by_name(task)
    known = [task.support_features] if task.none_features is None else [task.support_features, task.none_features]
    labelled, features = torch.cat(known).numpy(), task.query_features.numpy()
    predicted = None
    if len(task.class_names) < 2:
        places = first_to_label(features, number, labelled if len(labelled) else None)
        reasons = _typical(features, places)
    else:
        answer = classified_task(classifier, task)
        places = next_to_label(features, answer.probabilities, number, labelled)
        predicted = answer.predicted[places]
        reasons = _uncertain(answer.probabilities[places], task.class_names)
    return Suggested(
        class_names=task.class_names,
        files=tuple(task.query[place] for place in places),
        names=tuple(task.query_names[place] for place in places),
        reasons=tuple(reasons),
        texts=None if task.texts is None else tuple(task.texts[1][place] for place in places),
        predicted=predicted,
        given_labels=task.given_labels,
        n_query=len(task.query),
        skipped=task.skipped,
    )


def write_suggestions(file: Path, found: Suggested) -> None:
    """A table: path or id, rank from 1, why; and empty columns for the label, with which it serves as --labels."""
    with file.open("w", newline="", encoding="utf-8", errors="backslashreplace") as opened:
        opened.write(csv_line([found.column, "rank", "why", "label", "none_of_these"], "\r\n"))
        for rank, (name, reason) in enumerate(zip(found.names, found.reasons, strict=True), start=1):
            opened.write(csv_line([name, rank, reason, None, None], "\r\n"))


def _by_name(task: Task) -> Task:
    """The same task, its labelled rows and queries in the order of their names."""
    order = sorted(range(len(task.query)), key=lambda place: task.query_names[place])
    of_support = sorted(
        range(len(task.support)), key=lambda place: (task.support_labels[place], str(task.support[place]))
    )
    if order == list(range(len(order))) and of_support == list(range(len(of_support))):
        return task
    texts = task.texts
    return task._replace(
        support=tuple(task.support[place] for place in of_support),
        support_labels=task.support_labels[of_support],
        support_features=task.support_features[of_support],
        query=tuple(task.query[place] for place in order),
        query_names=tuple(task.query_names[place] for place in order),
        query_features=task.query_features[order],
        texts=texts and (tuple(texts[0][place] for place in of_support), tuple(texts[1][place] for place in order)),
    )


def _typical(features: np.ndarray, places: np.ndarray) -> list[str]:
    """How many rows are closer to each of those chosen than to the others."""
    rows = normalized(torch.from_numpy(features))
    nearest = torch.cat([(part @ rows[places].T).argmax(1) for part in rows.split(4096)])
    counts = torch.bincount(nearest, minlength=len(places)).tolist()
    return [f"typical of {count} of {len(rows)}" for count in counts]


def _uncertain(probabilities: np.ndarray, names: tuple[str, ...]) -> list[str]:
    found = []
    for row in probabilities:
        first, second = np.argsort(-row, kind="stable")[:2]
        found.append(f"{names[first]} {100 * row[first]:.0f} % or {names[second]} {100 * row[second]:.0f} %")
    return found
