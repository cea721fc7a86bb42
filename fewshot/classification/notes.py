"""What speaks against believing an answer: pictures unlike those of training, and an answer that moves too much."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fewshot.classification.classified import Classified
from fewshot.data.pictures import open_picture
from fewshot.data.transforms import Preprocessing

SAMPLE = 100
"""Pictures that are looked at, evenly over all of them."""
COLOUR = 8.0
"""A picture is in colour where its largest and smallest channel differ by more than this on average, of 255."""
MOVED_SHARE = 0.5
FLAGGED_SHARE = 0.2
"""Shares of the queries, moved by refinement and flagged as none of the classes, from which on it is said."""


def trained_on(about: Mapping[str, Any] | None, preprocessing: Preprocessing) -> str:
    """The pictures that a model was trained on, in words.

    Args:
        about: what its checkpoint says, `data` and `channels`; None where it does not.
        preprocessing: how they became tensors.
    """
    name, kind = ("unknown data", preprocessing.channels) if about is None else (about["data"], about["channels"])
    size = preprocessing.image_size
    return f"{name}: {'grey pictures' if kind == 1 else 'pictures in colour'} of {size} x {size} pixels"


def of_pictures(paths: Sequence[Path], about: Mapping[str, Any] | None, preprocessing: Preprocessing) -> Iterator[str]:
    """How pictures differ from those that a model was trained on; nothing where they do not.

    Args:
        paths: a person's own; those that cannot be read are left out.
        about: as of `trained_on`.
        preprocessing: as of `trained_on`.
    """
    seen = list(_seen(paths))
    if not seen:
        return
    coloured, side = np.mean([spread > COLOUR for spread, _ in seen]), float(np.median([side for _, side in seen]))
    known = f"the model was trained on {trained_on(about, preprocessing)}"
    if preprocessing.channels == 1 and coloured >= 0.5:
        yield f"most pictures are in colour and {known}; classes may be told no better than by chance"
    if about is not None and about["channels"] == 3 and coloured <= 0.1:
        yield f"hardly any picture is in colour and {known}; classes may be told worse than there"
    if 2 * side < preprocessing.image_size:
        yield f"most pictures are smaller, of {side:.0f} pixels, and {known}; classes may be told worse than there"


def of_answer(classified: Classified, share: float | None) -> Iterator[str]:
    """What is unlikely about an answer; nothing where nothing is.

    Args:
        classified: the answer.
        share: of the queries that was to be flagged; None where the labelled ones were asked.
    """
    n, things = len(classified.query), classified.things[1]
    for one, other in _alike(classified.class_names):
        yield f"the classes {one!r} and {other!r} differ in upper and lower case, or in how accents are written, alone"
    held = classified.held_out
    if held is not None and held.hurts:
        yield (
            f"looking at all {things} together hurt: {held}, which chance alone would do less than once in "
            f"{int(1 / held.chance)}; so the answer before is given; compare another method (--method TIM)"
        )
    if (moved := int(classified.changed.sum())) >= MOVED_SHARE * n:
        yield (
            f"looking at all {things} together moved {moved} of {n} ({100 * moved / n:.0f} %) to another class, and "
            "one of the two answers to each is wrong; look at some of them, and compare another method (--method TIM)"
        )
    by_support = share is None and not classified.settings.get("none of these", "").startswith("learned")
    if by_support and (flagged := int(classified.flagged.sum())) > FLAGGED_SHARE * n:
        yield (
            f"{flagged} of {n} {things} ({100 * flagged / n:.0f} %) are flagged as none of these, by how unlike each "
            f"other the labelled {things} of a class are; where those were taken in a row (the first by name) they are "
            "more alike than the others: pick them at random, or say which share to flag (--none_share)"
        )


def _seen(paths: Sequence[Path]) -> Iterator[tuple[float, int]]:
    """How far the channels of each picture are apart, and its shorter side in pixels."""
    for place in np.linspace(0, len(paths) - 1, min(SAMPLE, len(paths))).astype(int):
        try:
            picture = open_picture(paths[place])
            small = np.asarray(picture.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)).astype(float)
        except (ValueError, OSError):
            continue
        yield float((small.max(-1) - small.min(-1)).mean()), min(picture.size)


def _alike(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of names that a person would read as one."""
    known: dict[str, str] = {}
    for name in names:
        before = known.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if before != name:
            yield before, name
