"""Plots of a comparison: accuracies of methods with their intervals, and against shots or queries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fewshot.drawings.lettering import drawable
from fewshot.drawings.plots import BLUE, GREEN, GRID, VERMILION, new_figure, save

Row = Mapping[str, Any]


class Kind(NamedTuple):
    """How queries of one kind are drawn."""

    name: str
    colour: str
    marker: str


KINDS = {
    "": Kind("balanced", BLUE, "o"),
    "dirichlet_": Kind("Dirichlet", VERMILION, "s"),
    "tail_": Kind("long tail", GREEN, "D"),
}
"""By what begins the keys of a row."""

MARKERS = "osD^v<>pPX*hd"
"""Of methods, in turn."""
COLOURS, LINES = 10, ("-", "--", ":")
"""After so many methods colours come again, with lines that are drawn otherwise."""


def plot_of_methods(folder: Path, rows: Sequence[Row], n_way: int) -> list[Path]:
    """Accuracies with intervals at the first size, one line for each method."""
    size = (rows[0]["n_shot"], rows[0]["n_query"])
    shown = [row for row in rows if (row["n_shot"], row["n_query"]) == size][::-1]
    figure = new_figure(8, 1.2 + 0.32 * len(shown))
    axes = figure.add_subplot(axisbelow=True)
    for prefix, kind in KINDS.items():
        if f"{prefix}accuracy" not in shown[0]:
            continue
        axes.errorbar(
            [100 * row[f"{prefix}accuracy"] for row in shown],
            range(len(shown)),
            xerr=[_interval(row[f"{prefix}ci95"]) for row in shown],
            fmt=kind.marker,
            color=kind.colour,
            capsize=3,
            label=f"{kind.name} queries",
        )
    axes.set_yticks(range(len(shown)), [drawable(row["method"]) for row in shown], parse_math=False)
    axes.set_xlabel("accuracy in %, 95 % interval")
    axes.set_title(f"{n_way}-way {size[0]}-shot, {size[1]} queries a class")
    axes.grid(axis="x", color=GRID)
    axes.legend(loc="lower right")
    return save(figure, folder / "comparison", "png", "svg")


def plot_of_sizes(folder: Path, rows: Sequence[Row], key: str, label: str) -> list[Path]:
    """Accuracy of each method against shots or queries, the other one as in the first row."""
    other = "n_query" if key == "n_shot" else "n_shot"
    figure = new_figure(8, 4.5)
    axes = figure.add_subplot(axisbelow=True)
    prefix = next(prefix for prefix in KINDS if f"{prefix}accuracy" in rows[0])
    for place, name in enumerate(dict.fromkeys(row["method"] for row in rows)):
        points = sorted(
            (row for row in rows if row["method"] == name and row[other] == rows[0][other]), key=lambda row: row[key]
        )
        axes.errorbar(
            [row[key] for row in points],
            [100 * row[f"{prefix}accuracy"] for row in points],
            yerr=[_interval(row[f"{prefix}ci95"]) for row in points],
            marker=MARKERS[place % len(MARKERS)],
            capsize=3,
            label=drawable(name),
        )
    axes.set_xlabel(label)
    axes.set_ylabel("accuracy in %, 95 % interval")
    axes.set_xticks(sorted({row[key] for row in rows}))
    axes.grid(color=GRID)
    _as_they_are(axes.legend(loc="lower right", fontsize="small"))
    return save(figure, folder / f"accuracy_by_{'shots' if key == 'n_shot' else 'queries'}", "png", "svg")


def plot_of_backbones(folder: Path, labels: Sequence[str], rows: Sequence[Sequence[Row]], n_way: int) -> list[Path]:
    """Accuracy of each method over backbones, a panel for every number of shots and kind of queries.

    Args:
        folder: gets backbones.png and backbones.svg.
        labels: of the backbones, B names.
        rows: of each backbone, B lists.
        n_way: N.
    """
    shots = sorted({row["n_shot"] for each in rows for row in each})
    kinds = [prefix for prefix in KINDS if any(f"{prefix}accuracy" in row for each in rows for row in each)]
    names = list(dict.fromkeys(row["method"] for each in rows for row in each))
    figure = new_figure(max(8, 2.2 * len(labels) * len(kinds)), 4.2 * len(shots) + 0.25 * len(names))
    for place, (shot, prefix) in enumerate((shot, prefix) for shot in shots for prefix in kinds):
        axes = figure.add_subplot(len(shots), len(kinds), place + 1, axisbelow=True)
        for number, name in enumerate(names):
            found = [
                (at, row)
                for at, each in enumerate(rows)
                for row in each
                if (row["method"], row["n_shot"]) == (name, shot) and row.get(f"{prefix}accuracy") is not None
            ]
            axes.errorbar(
                [at + 0.3 * (number / len(names) - 0.5) for at, _ in found],
                [100 * row[f"{prefix}accuracy"] for _, row in found],
                yerr=[_interval(row[f"{prefix}ci95"]) for _, row in found],
                marker=MARKERS[number % len(MARKERS)],
                linestyle=LINES[number // COLOURS % len(LINES)],
                linewidth=0.8,
                capsize=2,
                label=drawable(name),
            )
        axes.set_xticks(range(len(labels)), [drawable(label) for label in labels], fontsize="small", parse_math=False)
        axes.set_xlim(-0.5, len(labels) - 0.5)
        axes.set_ylabel("accuracy in %, 95 % interval")
        axes.set_title(f"{n_way}-way {shot}-shot, {KINDS[prefix].name} queries")
        axes.grid(axis="y", color=GRID)
    handles, told = axes.get_legend_handles_labels()
    _as_they_are(figure.legend(handles, told, loc="outside lower center", ncols=4, fontsize="small"))
    return save(figure, folder / "backbones", "png", "svg")


def _as_they_are(legend: Any) -> None:
    """A name with dollar signs is no formula."""
    for text in legend.get_texts():
        text.set_parse_math(False)


def _interval(half_width: float) -> float:
    return 0.0 if math.isnan(half_width) else 100 * half_width
