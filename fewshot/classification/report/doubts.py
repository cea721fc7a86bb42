"""What the page says to look at: labels that the others contradict, and near-duplicates, as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewshot.classification.classified import Classified

SHOWN = 20
"""Of each kind, at most."""


def doubts(classified: Classified) -> dict[str, Any]:
    """For doubts.html; pairs of different classes come first."""
    names, labelled = classified.class_names, classified.support_labels
    found, pairs = classified.contradicted, classified.near_duplicates
    sides = [] if pairs is None else [[_side(classified, int(place)) for place in pair] for pair in pairs.pairs]
    of_pairs: list[dict[str, Any]] = [
        {"first": first, "second": second, "cosine": float(cosine)}
        for (first, second), cosine in zip(sides, () if pairs is None else pairs.cosines, strict=True)
    ]
    of_pairs.sort(key=lambda pair: pair["first"]["label"] == pair["second"]["label"])
    return {
        "labels": [
            {
                "file": _file(classified, int(place)),
                "label": names[labelled[place]],
                "other": names[other],
                "probability": float(probability),
            }
            for place, other, probability in list(zip(*found, strict=True))[:SHOWN]
        ],
        "n_labels": len(found.places),
        "pairs": of_pairs[:SHOWN],
        "n_pairs": 0 if pairs is None else pairs.total,
    }


def files_of(found: dict[str, Any]) -> list[Path | str]:
    """The files of all that is shown."""
    pairs = [pair[side]["file"]["source"] for pair in found["pairs"] for side in ("first", "second")]
    return [entry["file"]["source"] for entry in found["labels"]] + pairs


def _side(classified: Classified, place: int) -> dict[str, Any]:
    """One of a pair: its file, and the class that it has or was given."""
    n_labelled = len(classified.support)
    labelled = place < n_labelled
    label = classified.support_labels[place] if labelled else classified.predicted[place - n_labelled]
    return {"file": _file(classified, place), "labelled": labelled, "label": classified.class_names[label]}


def _file(classified: Classified, place: int) -> dict[str, Any]:
    """A labelled one, or after all of these a query: what it is called, and what is shown of it."""
    n_labelled = len(classified.support)
    kind, i = (0, place) if place < n_labelled else (1, place - n_labelled)
    source = (classified.support, classified.query)[kind][i]
    name = classified.query_names[i] if kind else source.name if isinstance(source, Path) else source
    return {"source": source, "name": name, "text": classified.texts[kind][i] if classified.texts else None}
