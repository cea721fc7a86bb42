"""The page: what is read out of `Classified`, as plain data for report.html and map.html, report.css and report.js."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.classification.class_order import in_natural_order
from fewshot.classification.classified import Classified
from fewshot.classification.report.doubts import doubts, files_of, for_script
from fewshot.classification.report.drawing import arrow, label_positions, marker
from fewshot.classification.report.feature_map import WIDTH, FeatureMap, feature_map, plane
from fewshot.classification.report.markup import printable, rendered, script, style, written
from fewshot.classification.report.selection import shown_queries, shown_support
from fewshot.classification.report.thumbnails import SIDE, thumbnails
from fewshot.classification.suggestion import next_to_label
from fewshot.files import WholeFile

MAX_SUPPORT_PICTURES = 400
LABELLED_NEXT = 10
"""Queries that are proposed to be labelled next."""
CLASSES_WITH_BARS = 10
"""In the larger view; the others of a picture are summed up in one row."""
CLASSES_UNFOLDED = 10
"""Up to so many classes their list is open from the start."""
NAMED_CLASSES = 8
"""Up to so many classes have their names in the map; more have their numbers."""


def write_report(
    file: Path,
    classified: Classified,
    *,
    title: str | None = None,
    max_pictures: int = 2000,
    table: str = "predictions.csv",
    folder: str | None = None,
    remember: bool = False,
) -> None:
    """Write one HTML page that needs nothing else: no network, no file beside it.

    It is written aside and renamed, so that nobody sees half of it. The same input gives the same bytes.

    Args:
        file: such as OUT/report.html; replaced if it is there, its folder made if it is not.
        classified: one query or more.
        title: the heading; None says what is classified.
        max_pictures: queries shown, at most; of more, those to label next, those that changed class or are flagged,
            the least confident ones and a spread of the others are shown, and the page says how many are not.
        table: the file that lists all queries, named where the page does not show all of them.
        folder: of the run, as the next run has to call it, which the page says; None takes the name of the file's.
        remember: whether its small pictures are remembered in the cache folder, by the content of their files.

    Raises:
        ValueError: no queries, or `max_pictures` below 1.
    """
    if max_pictures < 1:
        raise ValueError(f"max_pictures={max_pictures}; a report shows one {classified.things[0]} or more")
    if not classified.query:
        raise ValueError("there are no queries to report on; name a folder that holds some")
    title = f"Classified {classified.things[1]}" if title is None else title
    folder = file.absolute().parent.name if folder is None else folder
    content = page(classified, title=title, max_pictures=max_pictures, table=table, folder=folder, remember=remember)
    with WholeFile(file) as opened:
        opened.write(content)


def page(
    classified: Classified, *, title: str, max_pictures: int, table: str, folder: str, remember: bool = False
) -> str:
    """The text of the page; arguments as for `write_report`."""
    found = doubts(classified)
    classified = in_natural_order(classified)
    n_next = min(LABELLED_NEXT, max_pictures)
    labelled = classified.support_features if len(classified.support) else None
    next_ = next_to_label(classified.query_features, classified.probabilities, n_next, labelled).tolist()
    shown = shown_queries(classified, max_pictures, next_)
    support = shown_support(classified, MAX_SUPPORT_PICTURES)
    support_shown = np.concatenate(support)
    positions = feature_map(classified)
    width, height, where = plane(positions, support=support_shown, query=shown)
    files = [classified.query[i] for i in shown] + [classified.support[i] for i in support_shown] + files_of(found)
    pictures = [file for file in dict.fromkeys(files) if isinstance(file, Path)]
    uri = dict(zip(pictures, thumbnails(pictures, remember=remember), strict=True))
    names = classified.class_names
    texts = [name if len(name) <= 18 else f"{name[:17]}…" for name in names]
    if len(names) > NAMED_CLASSES:
        texts = [str(label + 1) for label in range(len(names))]

    def counts(labels: np.ndarray) -> list[int]:
        return np.bincount(labels, minlength=len(names)).tolist()

    data = _data(classified, where, support_shown, shown, next_) | {"table": printable(table)}
    of_doubts = for_script(found, list(names), len(shown))
    data |= {"contradicted": of_doubts["contradicted"], "paths": data["paths"] | of_doubts["paths"]}
    data["digest"] = hashlib.sha256(json.dumps(data).encode()).hexdigest()[:32]
    cards = [
        {"i": i, "uri": uri.get(classified.query[i]), "at": at, "since": since}
        for i, at, since in zip(shown, where.query, data["since"], strict=True)
    ]
    return rendered(
        "report.html",
        title=title,
        table=table,
        folder=shlex.quote(folder),
        style=style(),
        script=script(),
        side=SIDE,
        classes_unfolded=CLASSES_UNFOLDED,
        classified=classified,
        skipped=[("/".join(path.parts[-2:]), text.replace(str(path), path.name)) for path, text in classified.skipped],
        classes=[
            {"name": name, "text": text, "marker": marker(label), "support": numbers, "move": arrow(start, end)}
            for label, (name, text, numbers, start, end) in enumerate(
                zip(names, texts, support, where.centres_before, where.centres_after, strict=True)
            )
        ],
        counts={
            "support": counts(classified.support_labels),
            "before": counts(classified.predicted_before),
            "after": counts(classified.predicted),
            "shown": counts(classified.predicted[shown]),
        },
        cards=cards,
        next=[cards[place] for place in data["next"]],
        doubts=found,
        uri=uri,
        support_names=[file.name if isinstance(file, Path) else file for file in classified.support],
        support_uris={i: uri.get(classified.support[i]) for i in support_shown},
        support_at=list(zip(where.support, classified.support_labels[support_shown], strict=True)),
        share=positions.share,
        width=width,
        height=height,
        crowded=width > WIDTH,
        maps=_maps(classified, where, texts, width=width, height=height),
        proportions={"before": classified.before.mean(0), "after": classified.probabilities.mean(0)},
        data=data,
    )


def _maps(
    classified: Classified, where: FeatureMap, texts: list[str], *, width: int, height: int
) -> list[dict[str, Any]]:
    """The map by the classes before looking at all, and by those after."""
    kinds = (
        ("before", classified.predicted_before, where.centres_before),
        ("after", classified.predicted, where.centres_after),
    )
    return [
        {
            "name": name,
            "labels": labels,
            "centres": centres,
            "texts": label_positions(centres, texts, width=width, height=height),
        }
        for name, labels, centres in kinds
    ]


def _data(
    classified: Classified, where: FeatureMap, support: np.ndarray, shown: np.ndarray, next_: list[int]
) -> dict[str, Any]:
    """What the script needs of the pictures shown, in the order of the cards; probabilities in thousandths."""
    former = classified.former
    places = {i: place for place, i in enumerate(shown.tolist())}
    before, after = classified.before[shown], classified.probabilities[shown]
    bars = np.argsort(-np.maximum(before, after), 1, kind="stable")[:, :CLASSES_WITH_BARS]
    bars = np.take_along_axis(bars, np.argsort(-np.take_along_axis(after, bars, 1), 1, kind="stable"), 1)
    of_bars = [_whole(1000, np.take_along_axis(values, bars, 1)) for values in (before, after)]
    return {
        "classes": [printable(text) for text in classified.class_names],
        "labels": [written(text) for text in classified.class_names],
        "column": "path" if classified.texts is None else "id",
        "paths": {
            place: written(classified.query_names[i])
            for place, i in enumerate(shown)
            if printable(classified.query_names[i]) != classified.query_names[i]
        },
        "next": [places[i] for i in next_],
        "since": [
            printable(str(former[i])) if former is not None and classified.changed_since[i] else None for i in shown
        ],
        "earlier": [
            (written(name), None if label is None else written(label)) for name, label in classified.given_labels
        ],
        "things": classified.things,
        "total": len(classified.query),
        "number": (shown + 1).tolist(),
        "predicted": classified.predicted[shown].tolist(),
        "before": classified.predicted_before[shown].tolist(),
        "confidence": _whole(100, after.max(1)),
        "margin": _whole(1000, classified.margins[shown]),
        "moved": _whole(1000, np.abs(after - before).sum(1) / 2),
        "flagged": classified.flagged[shown].astype(int).tolist(),
        "novelty": None if classified.novelty is None else [float(f"{v:.4g}") for v in classified.novelty[shown]],
        "threshold": None if classified.novelty is None else float(f"{classified.novelty_threshold:.4g}"),
        "bars": np.stack([bars, *of_bars], -1).tolist(),
        "query": where.query.tolist(),
        "support": where.support.tolist(),
        "supportLabels": classified.support_labels[support].tolist(),
    }


def _whole(unit: int, values: np.ndarray) -> list[Any]:
    return np.rint(unit * values.astype(np.float64)).astype(int).tolist()
