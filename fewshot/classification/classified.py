"""What came of classifying a folder of pictures: everything that a table or a report of it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.classification.doubts import Contradicted, NearDuplicates, contradicted_labels, near_duplicates
from fewshot.classification.held_out import HeldOut
from fewshot.files import csv_line

NAMED = 5
"""Skipped files that the summary names."""


@dataclass(frozen=True)
class Classified:
    """Queries with their classes, before refinement and after, beside the support that they were compared with.

    Letters: N classes, S support pictures, Q queries, D feature size.

    Attributes:
        class_names: N names, in the order of the columns.
        support: S files, or names of rows.
        support_labels: [S] int64 in 0..N-1.
        query: Q files, or names of rows.
        query_names: Q names as a table shows them: the path below the query folder, with forward slashes, or the row's.
        support_features: [S, D] float32.
        query_features: [Q, D] float32.
        before: [Q, N] probabilities before refinement, rows sum to one.
        probabilities: [Q, N] probabilities after refinement, calibrated.
        novelty: [Q], how unlike every class a query is, larger is more so; None where that was not asked.
        novelty_threshold: queries above it are flagged as none of the classes; None where that was not asked.
        skipped: files that could not be read or are no pictures that are read, with the reason, which names them.
        settings: what was run, by name: backbone, method, checkpoint, temperature, chunk, versions; plain text.
        notes: what speaks against believing the answer.
        texts: of support and queries, what stands in the place of their pictures; None where they are pictures.
        class_embeddings: classes that were known by an embedding too.
        held_out: labelled ones held out, before refinement and after; where it says that refinement hurts,
            `probabilities` are those before. None where that was not asked for or refinement is none.
        given_labels: what a table of labels said, name and class, in its order; the class is None for one that is none
            of the classes. Those with a class are among the support, the others are neither support nor queries.
        nones: files, or names of rows, of the ones that are none of the classes, in the order of `given_labels`.
        former: Q classes that the queries had in an earlier run, None for a query that was not there; None where there
            was no earlier run.
        former_labelled: how many of that run's queries are labelled now, or are said to be none of the classes.
        corrected: how many labels of a run that is continued a table says otherwise.
    """

    class_names: tuple[str, ...]
    support: tuple[Path | str, ...]
    support_labels: np.ndarray
    query: tuple[Path | str, ...]
    query_names: tuple[str, ...]
    support_features: np.ndarray
    query_features: np.ndarray
    before: np.ndarray
    probabilities: np.ndarray
    novelty: np.ndarray | None = None
    novelty_threshold: float | None = None
    skipped: tuple[tuple[Path, str], ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    texts: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    class_embeddings: int = 0
    held_out: HeldOut | None = None
    given_labels: tuple[tuple[str, str | None], ...] = ()
    nones: tuple[Path | str, ...] = ()
    former: tuple[str | None, ...] | None = None
    former_labelled: int = 0
    corrected: int = 0

    @property
    def none_names(self) -> tuple[str, ...]:
        """Names, as a table shows them, of the ones that are said to be none of the classes."""
        return tuple(name for name, label in self.given_labels if label is None)

    @cached_property
    def changed_since(self) -> np.ndarray:
        """[Q] bool, which queries have another class than in the earlier run; all False where there was none."""
        names = self.class_names
        former = self.former or (None,) * len(self.query)
        return np.array(
            [was not in (None, names[now]) for was, now in zip(former, self.predicted, strict=True)], dtype=bool
        )

    @property
    def things(self) -> tuple[str, str]:
        """What a query is called, one and several."""
        return ("picture", "pictures") if self.texts is None else ("row", "rows")

    @cached_property
    def predicted(self) -> np.ndarray:
        """[Q] int64, the most probable class of each query."""
        return self.probabilities.argmax(1)

    @cached_property
    def predicted_before(self) -> np.ndarray:
        """[Q] int64, the same before refinement."""
        return self.before.argmax(1)

    @cached_property
    def changed(self) -> np.ndarray:
        """[Q] bool, which queries changed class through refinement."""
        return self.predicted != self.predicted_before

    @cached_property
    def contradicted(self) -> Contradicted:
        """Labelled ones that the others put into another class."""
        return contradicted_labels(self.support_features, self.support_labels, self.query_features, self.probabilities)

    @cached_property
    def near_duplicates(self) -> NearDuplicates | None:
        """Pairs that are almost the same, among the labelled ones (their places first) and the queries."""
        return near_duplicates(self.support_features, self.query_features)

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


def write_predictions(file: Path, classified: Classified) -> None:
    """One line for each query: path or id, predicted class, probability, margin, class before refinement, whether it is
    flagged as none of the classes, and for every class its probability after and before refinement. Those that a person
    said to be none of the classes come last, with nothing but that.

    A name that is no Unicode text, as of a file that was named in another encoding, has escapes in it.
    """
    names, best = classified.class_names, classified.probabilities.max(1)
    asked, nones = classified.novelty is not None, classified.none_names
    header = ["path" if classified.texts is None else "id", "predicted", "probability", "margin", "predicted_before"]
    header += ["novelty"] if asked else []
    header += ["none_of_these"] if asked or nones else []
    header += [f"probability {name}" for name in names] + [f"before {name}" for name in names]
    cells = [csv_line([name], "") for name in names]
    numbers = ",%.6f" * (2 * len(names)) + "\r\n"
    with file.open("w", newline="", encoding="utf-8", errors="backslashreplace") as opened:
        opened.write(csv_line(header, "\r\n"))
        for row, path in enumerate(classified.query_names):
            line = f"{csv_line([path], '')},{cells[classified.predicted[row]]},{best[row]:.6f},"
            line += f"{classified.margins[row]:.6f},{cells[classified.predicted_before[row]]}"
            if classified.novelty is not None:
                line += f",{classified.novelty[row]:.6f}"
            if asked or nones:
                line += f",{str(bool(classified.flagged[row])).lower()}"
            opened.write(line + numbers % (*classified.probabilities[row].tolist(), *classified.before[row].tolist()))
        for name in nones:
            cells_of = {"path": name, "id": name, "none_of_these": "true"}
            opened.write(
                csv_line([cells_of.get(column) for column in header[: 6 + asked]], "," * 2 * len(names) + "\r\n")
            )


def run_record(classified: Classified) -> dict[str, Any]:
    """What was run, for a JSON file."""
    return {
        "settings": dict(classified.settings),
        "classes": list(classified.class_names),
        "n_support": len(classified.support),
        "n_class_embeddings": classified.class_embeddings,
        "n_query": len(classified.query),
        "n_changed": int(classified.changed.sum()),
        "n_labels_contradicted": len(classified.contradicted.places),
        "n_near_duplicates": None if classified.near_duplicates is None else classified.near_duplicates.total,
        "proportions": dict(zip(classified.class_names, classified.probabilities.mean(0).tolist(), strict=True)),
        "n_none_of_these": int(classified.flagged.sum()) if classified.novelty is not None else None,
        "labels": [{"name": name, "label": label} for name, label in classified.given_labels if label is not None],
        "n_labels_corrected": classified.corrected,
        "none_of_these": list(classified.none_names),
        "held_out": None if classified.held_out is None else _held_out(classified.held_out),
        "since_previous": None if classified.former is None else _since(classified),
        "notes": list(classified.notes),
        "skipped": [{"picture": str(path), "reason": reason} for path, reason in classified.skipped],
    }


def _held_out(found: HeldOut) -> dict[str, Any]:
    answer = "before" if found.hurts else "after"
    return {"n": found.rows, "right_before": found.right_before, "right_after": found.right_after, "answer": answer}


def _since(classified: Classified) -> dict[str, int]:
    """Queries that changed class since the earlier run, that were not there, and that are labelled now."""
    new = sum(label is None for label in classified.former or ())
    return {
        "n_changed": int(classified.changed_since.sum()),
        "n_new": new,
        "n_labelled": classified.former_labelled,
    }


def summary(classified: Classified, labels_in_folders: bool) -> list[str]:
    """Lines that say what was found."""
    known = f"{len(classified.support)} labelled ones"
    if classified.class_embeddings:
        known += f" and {classified.class_embeddings} class embeddings"
    lines = [
        f"{len(classified.query)} {classified.things[1]} classified after {known} of {len(classified.class_names)} "
        f"classes; {classified.changed.sum()} changed class after looking at all {classified.things[1]} together"
    ]
    if "temperature" in classified.settings:
        lines.append(f"temperature of the probabilities: {classified.settings['temperature']}")
    if classified.novelty is not None:
        lines.append(f"{int(classified.flagged.sum())} flagged as none of these")
    if classified.corrected:
        lines.append(f"{classified.corrected} label{'s' * (classified.corrected > 1)} corrected")
    if classified.none_names:
        lines.append(f"{len(classified.none_names)} taken away, labelled as none of these")
    if classified.held_out is not None:
        lines.append(f"check of the labels: {classified.held_out}")
    if classified.former is not None:
        since = _since(classified)
        lines.append(
            f"since the earlier run {since['n_changed']} changed class, {since['n_labelled']} were labelled, "
            f"{since['n_new']} are new"
        )
    labels, pairs = len(classified.contradicted.places), classified.near_duplicates
    if labels or (pairs is not None and pairs.total):
        n_pairs = 0 if pairs is None else pairs.total
        lines.append(
            f"to look at in the report: labels that the others contradict: {labels}, near-duplicates: {n_pairs}"
        )
    lines += [f"note: {note}" for note in classified.notes]
    lines += [f"skipped: {reason}" for _, reason in classified.skipped[:NAMED]]
    if len(classified.skipped) > NAMED:
        lines.append(f"skipped: {len(classified.skipped)} files in all, which run.json names")
    if labels_in_folders:
        lines.append(accuracy_line(classified))
    return lines


def accuracy_line(classified: Classified) -> str:
    """Accuracy by the names of the queries' folders, before refinement and after."""
    numbers = {name: number for number, name in enumerate(classified.class_names)}
    labels = np.array([numbers.get(name.split("/")[0], -1) for name in classified.query_names])
    known = labels >= 0
    if not known.any():
        return "accuracy: no query of a known class could be read"
    right = [100 * (p[known] == labels[known]).mean() for p in (classified.predicted_before, classified.predicted)]
    return (
        f"accuracy on {known.sum()} queries of known class: {right[0]:.2f} % before looking at all together, "
        f"{right[1]:.2f} % after"
    )
