"""A map of one episode's features: what the queries are taken for before and after refinement, and what they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewshot.drawings.contact_sheet import class_names
from fewshot.drawings.lettering import drawable, font_file, write
from fewshot.drawings.plots import INK, new_figure, shortest
from fewshot.drawings.principal import principal_components
from fewshot.episode import Episode
from fewshot.functional.features import normalized

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
"""Okabe and Ito's, without black: told apart by people who see fewer colours, too."""

SHAPES = "osD^vPpXh8dH<>*"
"""The first seven classes have the first shape, the next seven the second."""

MANY_QUERIES = 100
"""With more of them the map is drawn larger and its marks smaller."""

APART = 0.14
"""Inches between two numbers; one that would stand closer to another is left out."""


class MappedEpisode(NamedTuple):
    """One episode in the plane."""

    support: Tensor
    """[S, 2]."""
    query: Tensor
    """[Q, 2]."""
    variance: tuple[float, float]
    """Shares of the features' variance that the two axes hold."""
    support_labels: list[int]
    query_labels: list[int]
    before: list[int]
    """[Q] classes predicted before refinement."""
    after: list[int]
    is_refined: bool
    """Whether refinement changed any probability."""
    names: list[str]
    """[N] classes."""


def mapped_episode(
    episode: Episode, support: Tensor, query: Tensor, *, before: Tensor, after: Tensor, images: Any
) -> MappedEpisode:
    """The plane of the features' first two principal components, each feature scaled to length one before.

    Args:
        episode: one task, T = 1.
        support: [1, S, D] features.
        query: [1, Q, D] features.
        before: [1, Q, N] probabilities before refinement.
        after: [1, Q, N] after it.
        images: of the split; say what the classes are called.
    """
    features = normalized(torch.cat([support, query], 1)[0].detach().float().cpu())  # [S+Q, D]
    plane = principal_components(features)
    total = (features - features.mean(0)).square().sum().clamp_min(torch.finfo(features.dtype).tiny)
    shares = (plane.square().sum(0) / total).tolist()
    n_support = support.shape[1]
    return MappedEpisode(
        plane[:n_support],
        plane[n_support:],
        (shares[0], shares[1]),
        episode.support_labels[0].tolist(),
        episode.known_query_labels()[0].tolist(),
        before[0].argmax(-1).tolist(),
        after[0].argmax(-1).tolist(),
        not torch.equal(before, after),
        class_names(episode, images),
    )


def feature_map_figure(mapped: MappedEpisode, *, title: str) -> Any:
    """The map, once with the classes predicted before refinement and once with those after it; once where none is.

    Colour and shape are the predicted class. A wrong query has a dark edge, and beside it stands the number of the
    class that it is of, if there is room for it. Stars are the support.

    Args:
        mapped: the episode.
        title: the first line.
    """
    panels = [("before refinement", mapped.before), ("after refinement", mapped.after)]
    if not mapped.is_refined:
        panels = [("predicted", mapped.after)]
    side = 6.0 if len(mapped.query) <= MANY_QUERIES else 8.0
    figure = new_figure(side * len(panels) + 2.8, side + 0.2)
    write(figure.suptitle("", x=0.02, ha="left"), title)
    first = None
    for place, (words, predicted) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1, sharex=first, sharey=first)
        first = first or axes
        right = sum(guess == label for guess, label in zip(predicted, mapped.query_labels, strict=True))
        axes.set_title(
            f"{words}: {right} of {len(predicted)} right ({100 * right / len(predicted):.1f} %)", fontsize="medium"
        )
        _draw(axes, mapped, predicted, side)
        axes.set_xlabel(f"first principal component ({100 * mapped.variance[0]:.0f} % of the variance)")
        if not place:
            axes.set_ylabel(f"second ({100 * mapped.variance[1]:.0f} %)")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.margins(0.06)
    _add_legend(figure, mapped.names)
    return figure


def _marker(label: int) -> tuple[str, str]:
    """Colour and shape of a class."""
    return COLOURS[label % len(COLOURS)], SHAPES[label // len(COLOURS) % len(SHAPES)]


def _draw(axes: Any, mapped: MappedEpisode, predicted: Sequence[int], side: float) -> None:
    """The marks, and those numbers that do not stand upon each other, the support's before the wrong queries'."""
    points = torch.cat([mapped.support, mapped.query])
    span = (points.amax(0) - points.amin(0)).clamp_min(torch.finfo(points.dtype).tiny)
    inches = ((points - points.amin(0)) / span * side).tolist()
    written: list[list[float]] = []

    def number(place: int, label: int, offset: tuple[int, int]) -> None:
        here = [middle + points / 72 for middle, points in zip(inches[place], offset, strict=True)]
        if all(math.dist(here, other) >= APART for other in written):
            written.append(here)
            _write_number(axes, points[place].tolist(), label, offset=offset)

    size = 58 if len(mapped.query) <= MANY_QUERIES else 36
    for place, label in enumerate(mapped.support_labels):
        x, y = points[place].tolist()
        axes.scatter([x], [y], s=360, c=_marker(label)[0], marker="*", edgecolors=INK, linewidths=1.0, zorder=4)
        number(place, label, (0, -1))
    for place, (guess, label) in enumerate(zip(predicted, mapped.query_labels, strict=True), len(mapped.support)):
        x, y = points[place].tolist()
        colour, shape = _marker(guess)
        wrong = guess != label
        edge, width = (INK, 1.6) if wrong else ("white", 0.6)
        look = {"s": size, "c": colour, "marker": shape, "edgecolors": edge, "linewidths": width}
        axes.scatter([x], [y], zorder=3 if wrong else 2, **look)
        if wrong:
            number(place, label, (6, 5))


def _write_number(axes: Any, place: Sequence[float], label: int, *, offset: tuple[int, int]) -> None:
    from matplotlib.patheffects import withStroke

    axes.annotate(
        str(label),
        place,
        xytext=offset,
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=8,
        fontweight="bold",
        color=INK,
        zorder=5,
        path_effects=[withStroke(linewidth=2, foreground="white")],
    )


def _add_legend(figure: Any, names: Sequence[str]) -> None:
    from matplotlib.font_manager import FontProperties
    from matplotlib.lines import Line2D

    def entry(words: str, **look: Any) -> Any:
        return Line2D([], [], linestyle="", label=drawable(words), **look)

    entries = [
        entry(f"{label}  {shortest(name)}", marker=_marker(label)[1], color=_marker(label)[0], markersize=8)
        for label, name in enumerate(names)
    ]
    entries += [
        entry("support", marker="*", color="white", markeredgecolor=INK, markersize=15),
        entry("wrong; the number is its class", marker="o", color="white", markeredgecolor=INK, markersize=7),
    ]
    legend = figure.legend(handles=entries, loc="outside right upper", title="predicted class", fontsize="small")
    for text, handle in zip(legend.get_texts(), entries, strict=True):
        text.set_parse_math(False)
        text.set_fontproperties(FontProperties(fname=font_file(handle.get_label()), size="small"))
