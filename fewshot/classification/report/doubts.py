"""What the page says to look at: labels that the others contradict, and near-duplicates, as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewshot.classification.classified import Classified
from fewshot.classification.report.markup import written

SHOWN = 20
"""Of each kind, at most."""


def doubts(classified: Classified) -> dict[str, Any]:
    """For doubts.html; pairs of different classes come first."""
    names, labelled, tables = classified.class_names, classified.support_labels, names_in_table(classified)
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
                "in_table": tables.get(int(place)),
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


def names_in_table(classified: Classified) -> dict[int, str]:
    """By the places of labelled ones the names that a table of labels has for them: those that it can correct.

    They are the ones that a table labelled, and all pictures of an earlier run that is continued.
    """
    given = {name for name, label in classified.given_labels if label is not None}
    queries = [*zip(classified.query, classified.query_names, strict=True)]
    queries += zip(classified.nones, classified.none_names, strict=False)
    folder = next((file.parents[name.count("/")] for file, name in queries if isinstance(file, Path)), None)
    found = {}
    for place, source in enumerate(classified.support):
        if isinstance(source, Path):
            name = source.relative_to(folder).as_posix() if folder and folder in source.parents else ""
        else:
            name = source if classified.texts else source.removeprefix("query/")
        if name in given or (isinstance(source, str) and not classified.texts):
            found[place] = name
    return found


def for_script(found: dict[str, Any], labels: list[str], first: int) -> dict[str, Any]:
    """What the script needs of the labels that are contradicted, which are places of its lists from `first` on."""
    index = {name: place for place, name in enumerate(labels)}
    return {
        "contradicted": [
            [index[one["label"]], index[one["other"]], round(1000 * one["probability"]), _elsewhere(one)]
            for one in found["labels"]
        ],
        "paths": {
            first + place: written(one["in_table"])
            for place, one in enumerate(found["labels"])
            if one["in_table"] is not None
        },
    }


def _elsewhere(one: dict[str, Any]) -> str | None:
    """How a label is corrected that no table gave."""
    if one["in_table"] is not None:
        return None
    if isinstance(one["file"]["source"], Path):
        return "Its label is the name of its folder: move the picture to the folder of its class, and run again."
    return "Its label is not of a table of labels: correct it where you gave it, and run again."


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
