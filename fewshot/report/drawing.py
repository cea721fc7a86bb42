"""The feature map as SVG, which is there without JavaScript, and the markers by which classes are told apart."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fewshot.report.feature_map import FeatureMap

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
NAMED_CLASSES = 8
"""Up to so many classes have their names in the map; more have their numbers."""


class Plane(NamedTuple):
    """Positions inside the drawing, in its own units, y downwards."""

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
    inner = WIDTH - 2 * MARGIN
    height = int(np.clip(inner * spread[1] / spread[0], 0.55 * inner, 0.85 * inner)) + 2 * MARGIN
    scale = min(inner / spread[0], (height - 2 * MARGIN) / spread[1])
    middle = np.array([WIDTH, height]) / 2
    placed = [np.round(middle + (part - (low + high) / 2) * [scale, -scale], 1) for part in drawn]
    return Plane(height, *placed)


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
    parts = [
        f'<svg id="map-{name}" class="map" viewBox="0 0 {WIDTH} {where.height}" role="img" '
        f'aria-label="Map of the features, classes {name} refinement">',
        f'<defs><marker id="arrow-{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0 0l8 4l-8 4z"/></marker></defs>' if after else "",
        '<g class="queries">',
    ]  # fmt: skip
    for (x, y), label, is_changed, is_flagged in zip(where.query, query_labels, changed, flagged, strict=True):
        classes, path = marker(label)
        ring = " changed" * (after and is_changed) + " flagged" * is_flagged
        parts.append(f'<path class="{classes}{ring}" d="M{x:g} {y:g}{path}"/>')
    parts.append('</g><g class="support">')
    for (x, y), label in zip(where.support, support_labels, strict=True):
        parts.append(f'<path class="k{label % N_COLOURS}" d="M{x:g} {y:g}{SUPPORT}"/>')
    parts.append('</g><g class="centres">')
    ends = where.centres_after if after else where.centres_before
    if after:
        for (x, y), (to_x, to_y) in zip(where.centres_before, ends, strict=True):
            if np.hypot(to_x - x, to_y - y) > 3:
                parts.append(f'<path class="move" d="M{x:g} {y:g}L{to_x:g} {to_y:g}" marker-end="url(#arrow-after)"/>')
    for label, (x, y) in enumerate(ends):
        classes, path = marker(label)
        parts.append(f'<path class="centre {classes}" transform="translate({x:g} {y:g}) scale(1.9)" d="M0 0{path}"/>')
    for label, (x, y) in enumerate(ends):
        text = _short(class_names[label]) if len(class_names) <= NAMED_CLASSES else str(label + 1)
        anchor = "start" if x < 90 else "end" if x > WIDTH - 90 else "middle"
        parts.append(f'<text x="{x:g}" y="{y - 13:g}" text-anchor="{anchor}">{html.escape(text)}</text>')
    return "".join([*parts, "</g></svg>"])


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
