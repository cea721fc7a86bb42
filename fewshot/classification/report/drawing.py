"""The markers by which classes are told apart, and where the names of class centres stand on the map."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

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
N_SHAPES = 2 * len(SHAPES) - 1
"""Filled ones, then all but the last hollow: 13, which has no divisor in common with 8, so that 104 classes differ."""
CENTRE, LETTER = 10, 11
"""Half the size of a centre's marker, and the usual width of a letter beside it."""


class Marker(NamedTuple):
    """How a class is drawn: CSS classes, and the path of an SVG relative to its middle."""

    colour: str
    css: str
    """The colour, and whether it is hollow."""
    path: str


def marker(label: int) -> Marker:
    """The marker of a class, by its number."""
    shape, colour = label % N_SHAPES, f"k{label % N_COLOURS}"
    return Marker(colour, colour if shape < len(SHAPES) else f"{colour} hollow", SHAPES[shape % len(SHAPES)])


def arrow(start: np.ndarray, end: np.ndarray) -> list[float] | None:
    """From one centre to the rim of the other's marker, x and y of both ends; None where it would lie below that."""
    length = float(np.hypot(*(end - start)))
    if length <= CENTRE:
        return None
    return np.round([*start, *(start + (end - start) * (1 - CENTRE / length))], 1).tolist()


def label_positions(centres: np.ndarray, texts: Sequence[str], *, width: int, height: int) -> np.ndarray:
    """The middles of the base lines of texts beside their centres, [N, 2].

    Above the centre, below it, or to a side: where the text covers least of the other centres and of the texts placed
    before it, and does not leave the drawing.
    """
    taken = np.concatenate([centres - CENTRE, centres + CENTRE], 1)  # boxes [N, 4]: left, top, right, bottom
    placed = []
    for centre, text in zip(centres, texts, strict=True):
        wide = sum(LETTER * (2 if unicodedata.east_asian_width(letter) in "WF" else 1) for letter in text) / 2
        beside = [(side * (wide + gap), dy) for gap, dy in ((13, 6), (0, -15), (0, 27)) for side in (1, -1)]
        middles = np.add(centre, [(0, -13), (0, 25), *beside])  # [8, 2]
        middles = middles.clip([wide + 2, 18], [width - wide - 2, height - 6])
        boxes = np.concatenate([np.subtract(middles, (wide, 14)), np.add(middles, (wide, 4))], 1)  # [8, 4]
        sides = np.minimum(boxes[:, None, 2:], taken[:, 2:]) - np.maximum(boxes[:, None, :2], taken[:, :2])
        best = int(sides.clip(min=0).prod(-1).sum(1).argmin())
        placed.append(middles[best])
        taken = np.concatenate([taken, boxes[best : best + 1]])
    return np.round(placed, 1)
