"""Plots: pictures per class of every split, and accuracy after every refinement step of a run."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fewshot.data.images import Images
from fewshot.drawings.lettering import drawable, write

BLUE, VERMILION, GREEN, INK, GRID = "#0072b2", "#d55e00", "#009e73", "#1a1a1a", "#dddddd"
"""Told apart by people who see fewer colours, too."""

MOST_NAMES = 40
"""So many classes are named below their bars."""

NAME_LENGTH = 28


def class_counts_figure(splits: Mapping[str, Images], *, data: str, taken: Mapping[str, int | None]) -> Any:
    """Bars of how many pictures each class has, the largest first, a panel for every split.

    Args:
        splits: pictures by split.
        data: name of the data set.
        taken: by split, the most pictures of a class that an episode takes; None where there is no such number.
    """
    figure = new_figure(10, 0.7 + 2.9 * len(splits))
    figure.suptitle(drawable(f"{data}: pictures per class"), parse_math=False)
    for place, (split, images) in enumerate(splits.items()):
        axes = figure.add_subplot(len(splits), 1, place + 1)
        counts = np.bincount(images.labels, minlength=len(images.class_names))
        order = np.argsort(-counts, kind="stable")
        axes.bar(range(len(counts)), counts[order], width=0.85 if len(counts) <= MOST_NAMES else 1.0, color=BLUE)
        axes.set_xlim(-0.6, len(counts) - 0.4)
        axes.set_ylim(0, 1.12 * counts.max())
        axes.grid(axis="y", color=GRID)
        axes.set_axisbelow(True)
        axes.yaxis.get_major_locator().set_params(integer=True)
        least, most = int(counts.min()), int(counts.max())
        sizes = f"{most} of each" if least == most else f"{least} to {most} of each, median {np.median(counts):g}"
        words = f"{split}: {len(counts)} classes, {len(images):,} pictures, {sizes}"
        if (line := taken.get(split)) is not None:
            words += f"; an episode takes up to {line}, the line"
            axes.axhline(line, color=VERMILION, linewidth=1.5)
        axes.set_title(words, fontsize="medium", loc="left")
        if len(counts) <= MOST_NAMES:
            names = [shortest(images.class_names[label]) for label in order]
            axes.set_xticks(
                range(len(counts)),
                [drawable(name) for name in names],
                rotation=45,
                ha="right",
                rotation_mode="anchor",
                fontsize="small" if len(counts) <= 24 else "x-small",
            )
            for tick, name in zip(axes.get_xticklabels(), names, strict=True):
                write(tick, name)
        else:
            smallest = f"; the smallest is {shortest(images.class_names[order[-1]])}" if least < most else ""
            write(axes.set_xlabel(""), f"classes, the largest first{smallest}")
    return figure


def accuracy_per_step_figure(results: Mapping[str, Any]) -> Any:
    """Accuracy before refinement and after each of the K steps with its 95 % interval, and the nearest class mean's.

    Args:
        results: of a results.json with two entries or more in `accuracy_per_step`; see fewshot.runs.results.KEYS.
    """
    accuracies = 100 * np.array(results["accuracy_per_step"], dtype=float)
    widths = results.get("ci95_per_step") or [None] * len(accuracies)
    intervals = np.array([0.0 if width is None else 100 * width for width in widths])
    figure = new_figure(7, 4.4)
    axes = figure.add_subplot()
    steps = np.arange(len(accuracies))
    axes.fill_between(steps, accuracies - intervals, accuracies + intervals, color=BLUE, alpha=0.18, linewidth=0)
    axes.errorbar(steps, accuracies, yerr=intervals, color=BLUE, marker="o", capsize=4, label=_method_name(results))
    nearest = results.get("accuracy_nearest_mean")
    if nearest is not None:
        width = results.get("ci95_nearest_mean") or 0.0
        axes.axhline(100 * nearest, color=VERMILION, linestyle="--", label="nearest class mean on the same features")
        axes.axhspan(100 * (nearest - width), 100 * (nearest + width), color=VERMILION, alpha=0.12, linewidth=0)
    rises = bool(accuracies[1] >= accuracies[0])
    for step, above in ((0, not rises), (len(accuracies) - 1, rises)):  # where the line does not lead
        axes.annotate(
            f"{accuracies[step]:.2f} ± {intervals[step]:.2f}" if intervals[step] else f"{accuracies[step]:.2f}",
            (step, accuracies[step] + (intervals[step] if above else -intervals[step])),
            xytext=(0, 6 if above else -6),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize="small",
            color=INK,
        )
    axes.margins(x=0.12, y=0.2)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("refinement steps K")
    axes.set_ylabel("accuracy in %, 95 % interval")
    axes.grid(color=GRID)
    axes.legend(loc="lower right" if accuracies[-1] >= accuracies[0] else "upper right", fontsize="small")
    write(axes.set_title("", fontsize="medium"), _episodes(results))
    return figure


def png(figure: Any) -> Image.Image:
    """The figure as a picture."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    content.seek(0)
    return Image.open(content)


def save(figure: Any, stem: Path, *endings: str) -> list[Path]:
    """Write a figure as <stem>.png, <stem>.svg, and say where; the same figure gives the same bytes."""
    import matplotlib

    paths = [stem.with_suffix(f".{ending}") for ending in endings]
    with matplotlib.rc_context({"svg.hashsalt": "fewshot"}):
        for path in paths:
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches, which no window system and no state of pyplot knows of."""
    from matplotlib.figure import Figure  # half a second

    return Figure(figsize=(width, height), layout="constrained")


def shortest(name: str) -> str:
    """The name, its middle left out where it is too long for a plot."""
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH // 2]}…{name[-(NAME_LENGTH // 2) :]}"


def _method_name(results: Mapping[str, Any]) -> str:
    method = results.get("method")
    path = method.get("class_path", "") if isinstance(method, Mapping) else str(method or "")
    return path.rsplit(".", 1)[-1] or "accuracy"


def _episodes(results: Mapping[str, Any]) -> str:
    """Which episodes were measured, in one line."""
    sizes = [f"{results[key]}-{word}" for key, word in (("n_way", "way"), ("n_shot", "shot")) if key in results]
    data = f"{results.get('data', '')} ({results.get('split', 'test')})".strip()
    count = results.get("n_episodes")
    return ", ".join(filter(None, [" ".join(sizes), data, f"{count:,} episodes" if isinstance(count, int) else ""]))
