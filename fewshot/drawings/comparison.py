"""Plots of a comparison: accuracies of methods with their intervals, and against shots or queries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

COLOURS = {"": "#0072b2", "dirichlet_": "#d55e00"}
"""Blue and vermilion, told apart by people who see fewer colours too."""


def plot_of_methods(folder: Path, rows: Sequence[Row], n_way: int) -> list[Path]:
    """Accuracies with intervals at the first size, one line for each method."""
    size = (rows[0]["n_shot"], rows[0]["n_query"])
    shown = [row for row in rows if (row["n_shot"], row["n_query"]) == size][::-1]
    figure, axes = _figure(height=1.2 + 0.32 * len(shown))
    for prefix, colour in COLOURS.items():
        if f"{prefix}accuracy" not in shown[0]:
            continue
        axes.errorbar(
            [100 * row[f"{prefix}accuracy"] for row in shown],
            range(len(shown)),
            xerr=[_interval(row[f"{prefix}ci95"]) for row in shown],
            fmt="s" if prefix else "o",
            color=colour,
            capsize=3,
            label="Dirichlet queries" if prefix else "balanced queries",
        )
    axes.set_yticks(range(len(shown)), [row["method"] for row in shown])
    axes.set_xlabel("accuracy in %, 95 % interval")
    axes.set_title(f"{n_way}-way {size[0]}-shot, {size[1]} queries a class")
    axes.grid(axis="x", color="#dddddd")
    axes.legend(loc="lower right")
    return _saved(figure, folder / "comparison")


def plot_of_sizes(folder: Path, rows: Sequence[Row], key: str, label: str) -> list[Path]:
    """Accuracy of each method against shots or queries, the other one as in the first row."""
    other = "n_query" if key == "n_shot" else "n_shot"
    figure, axes = _figure(height=4.5)
    prefix = "" if "accuracy" in rows[0] else "dirichlet_"
    markers = "osD^v<>pPX*hd"
    for place, name in enumerate(dict.fromkeys(row["method"] for row in rows)):
        points = sorted(
            (row for row in rows if row["method"] == name and row[other] == rows[0][other]), key=lambda row: row[key]
        )
        axes.errorbar(
            [row[key] for row in points],
            [100 * row[f"{prefix}accuracy"] for row in points],
            yerr=[_interval(row[f"{prefix}ci95"]) for row in points],
            marker=markers[place % len(markers)],
            capsize=3,
            label=name,
        )
    axes.set_xlabel(label)
    axes.set_ylabel("accuracy in %, 95 % interval")
    axes.set_xticks(sorted({row[key] for row in rows}))
    axes.grid(color="#dddddd")
    axes.legend(fontsize="small")
    return _saved(figure, folder / f"accuracy_by_{'shots' if key == 'n_shot' else 'queries'}")


def _interval(half_width: float) -> float:
    return 0.0 if math.isnan(half_width) else 100 * half_width


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # half a second, and no window system

    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    return figure, axes


def _saved(figure: Any, stem: Path) -> list[Path]:
    paths = [stem.with_suffix(ending) for ending in (".png", ".svg")]
    for path in paths:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths
