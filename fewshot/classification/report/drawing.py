"""The feature map as SVG, which is there without JavaScript, and the markers by which classes are told apart."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fewshot.classification.report.feature_map import FeatureMap

N_COLOURS = 8
"""Colours --k0 to --k7 of report.css."""
SHAPES = (
    "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",  # disc
    "m0-5l4.8 8.4h-9.6z",  # triangle up
    "m0-5l5 5l-5 5l-5-5z",  # diamond
    "m0 5l4.8-8.4h-9.6z",  # triangle down
    "m-1.4-4.8h2.8v3.4h3.4v2.8h-3.4v3.4h-2.8v-3.4h-3.4v-2.8h3.4z",  # plus
    "m0-5.6l1.4 3.7l4 .2l-3.1 2.4l1 3.8l-3.3-2.2l-3.3 2.2l1-3.8l-3.1-2.4l4-.2z",  # star
    "m-4.6-2.6l2-2l2.6 2.6l2.6-2.6l2 2l-2.6 2.6l2.6 2.6l-2 2l-2.6-2.6l-2.6 2.6l-2-2l2.6-2.6z",  # cross
)
SUPPORT = "m-5-5h10v10h-10z"
N_SHAPES = 2 * len(SHAPES) - 1
"""Filled ones, then all but the last hollow: 13, which has no divisor in common with 8, so that 104 classes differ."""
WIDTH, MARGIN = 640, 34
CROWD, CROWDED_WIDTH = 500, 960
"""Above so many pictures the drawing is that much larger, so that its markers are smaller beside it."""
CENTRE, LETTER = 10, 11
"""Half the size of a centre's marker, and the usual width of a letter beside it."""
NAMED_CLASSES = 8
"""Up to so many classes have their names in the map; more have their numbers."""


class Plane(NamedTuple):
    """Positions inside the drawing, in its own units, y downwards."""

    width: int
    height: int
    support: np.ndarray
    query: np.ndarray
    centres_before: np.ndarray
    centres_after: np.ndarray


def plane(positions: FeatureMap, *, support: np.ndarray, query: np.ndarray) -> Plane:
    """The map brought to the drawing's size, one scale for both directions.

    Args:
        positions: of all pictures.
        support: numbers of the support pictures that are drawn.
        query: numbers of the queries that are drawn.
    """
    drawn = [positions.support[support], positions.query[query], positions.centres_before, positions.centres_after]
    every = np.concatenate(drawn)
    low, high = every.min(0), every.max(0)
    spread = np.maximum(high - low, 1e-9 * max(1.0, float(np.abs(every).max())))
    width = WIDTH if len(support) + len(query) <= CROWD else CROWDED_WIDTH
    inner = width - 2 * MARGIN
    height = int(np.clip(inner * spread[1] / spread[0], 0.55 * inner, 0.85 * inner)) + 2 * MARGIN
    scale = min(inner / spread[0], (height - 2 * MARGIN) / spread[1])
    middle = np.array([width, height]) / 2
    placed = [np.round(middle + (part - (low + high) / 2) * [scale, -scale], 1) for part in drawn]
    return Plane(width, height, *placed)


def marker(label: int) -> tuple[str, str]:
    """The CSS classes and the path, relative to its middle, of the marker of a class."""
    shape = label % N_SHAPES
    hollow = " hollow" if shape >= len(SHAPES) else ""
    return f"k{label % N_COLOURS}{hollow}", SHAPES[shape % len(SHAPES)]


def swatch(label: int) -> str:
    """The marker of a class as a small drawing beside its name."""
    classes, path = marker(label)
    return (
        f'<svg class="swatch" viewBox="-7 -7 14 14" aria-hidden="true"><path class="{classes}" d="M0 0{path}"/></svg>'
    )


def scatter(
    where: Plane,
    *,
    after: bool,
    support_labels: Sequence[int],
    query_labels: Sequence[int],
    changed: Sequence[bool],
    flagged: Sequence[bool],
    class_names: Sequence[str],
) -> str:
    """One of the two maps: queries under the markers of their class, support as squares, class centres.

    Args:
        where: positions; the following are in its order.
        after: whether centres after refinement are drawn too, with arrows to them, and rings around what changed.
        support_labels: classes of the support pictures drawn.
        query_labels: predicted classes of the queries drawn.
        changed: whether refinement changed them.
        flagged: whether they are unlike every class.
        class_names: N.
    """
    name = "after" if after else "before"
    crowded = " crowded" if where.width > WIDTH else ""
    parts = [
        f'<svg id="map-{name}" class="map{crowded}" viewBox="0 0 {where.width} {where.height}" role="img" '
        f'aria-label="Map of the features, classes {name} refinement">',
        f'<defs><marker id="arrow-{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="4.5" markerHeight="4.5" '
        f'orient="auto-start-reverse"><path d="M0 0l8 4l-8 4z"/></marker></defs>' if after else "",
        '<g class="queries">',
    ]  # fmt: skip
    for (x, y), label, is_changed, is_flagged in zip(where.query, query_labels, changed, flagged, strict=True):
        classes, path = marker(label)
        drawn = f'<path class="{classes}" d="M{x:g} {y:g}{path}"/>'
        rings = f'<circle cx="{x:g}" cy="{y:g}" r="7"/>' if after and is_changed else ""
        rings += f'<circle class="flagged" cx="{x:g}" cy="{y:g}" r="9.5"/>' if is_flagged else ""
        parts.append(f"<g>{drawn}{rings}</g>" if rings else drawn)
    parts.append('</g><g class="support">')
    for (x, y), label in zip(where.support, support_labels, strict=True):
        parts.append(f'<path class="k{label % N_COLOURS}" d="M{x:g} {y:g}{SUPPORT}"/>')
    parts.append('</g><g class="centres">')
    ends = where.centres_after if after else where.centres_before
    for label, (start, end) in enumerate(zip(where.centres_before, ends, strict=True)):
        classes, path = marker(label)
        x, y = end
        drawn = f'<path class="centre {classes}" transform="translate({x:g} {y:g}) scale(1.9)" d="M0 0{path}"/>'
        parts.append(f"<g>{_arrow(start, end)}{drawn}</g>")
    parts.append('</g><g class="labels">')
    named = len(class_names) <= NAMED_CLASSES
    texts = [_short(text) if named else str(label + 1) for label, text in enumerate(class_names)]
    middles = label_positions(ends, texts, width=where.width, height=where.height)
    parts += [f'<text x="{x:g}" y="{y:g}">{html.escape(t)}</text>' for t, (x, y) in zip(texts, middles, strict=True)]
    return "".join([*parts, "</g></svg>"])


def _arrow(start: np.ndarray, end: np.ndarray) -> str:
    """From one centre to the rim of the other's marker; nothing where it would lie below that."""
    length = float(np.hypot(*(end - start)))
    if length <= CENTRE:
        return ""
    (x, y), (to_x, to_y) = start, start + (end - start) * (1 - CENTRE / length)
    return (
        f'<circle cx="{x:g}" cy="{y:g}" r="3"/>'
        f'<path class="move" d="M{x:g} {y:g}L{to_x:.1f} {to_y:.1f}" marker-end="url(#arrow-after)"/>'
    )


def label_positions(centres: np.ndarray, texts: Sequence[str], *, width: int, height: int) -> np.ndarray:
    """The middles of the base lines of texts beside their centres, [N, 2].

    Above the centre, below it, or to a side: where the text covers least of the other centres and of the texts placed
    before it, and does not leave the drawing.
    """
    taken = [np.array([x - CENTRE, y - CENTRE, x + CENTRE, y + CENTRE]) for x, y in centres]
    placed = []
    for (x, y), text in zip(centres, texts, strict=True):
        wide = sum(LETTER * (2 if unicodedata.east_asian_width(letter) in "WF" else 1) for letter in text) / 2
        upright = [(0, -13), (0, 25)]
        aside = [(side * (wide + gap), dy) for gap, dy in ((13, 6), (0, -15), (0, 27)) for side in (1, -1)]
        best: tuple[float, np.ndarray, np.ndarray] | None = None
        for dx, dy in upright + aside:
            middle = np.array([np.clip(x + dx, wide + 2, width - wide - 2), np.clip(y + dy, 18, height - 6)])
            box = np.array([middle[0] - wide, middle[1] - 14, middle[0] + wide, middle[1] + 4])
            cover = sum(_overlap(box, other) for other in taken)
            if best is None or cover < best[0]:
                best = cover, middle, box
        assert best is not None
        placed.append(best[1])
        taken.append(best[2])
    return np.round(placed, 1)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """The area that two boxes (left, top, right, bottom) have in common."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    return float(sides[0] * sides[1]) if (sides > 0).all() else 0.0


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
