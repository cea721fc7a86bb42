"""How a comparison is shown: a table as text, Markdown, CSV and JSON, and plots of accuracies with their intervals."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot.results import write_json

Row = Mapping[str, Any]

COLOURS = {"": "#0072b2", "dirichlet_": "#d55e00"}
"""Blue and vermilion, told apart by people who see fewer colours too."""


def table(rows: Sequence[Row], *, markdown: bool = False) -> str:
    """The rows in per cent: accuracies, paired differences, seconds for 1,000 episodes."""
    sizes = list(dict.fromkeys((row["n_shot"], row["n_query"]) for row in rows))
    headings = ["method"]
    if len(sizes) > 1:
        headings += ["shot", "queries a class"]
    kinds = [prefix for prefix in COLOURS if any(f"{prefix}accuracy" in row for row in rows)]
    for prefix in kinds:
        kind = "Dirichlet " if prefix else ""
        headings += [f"{kind}accuracy %", f"{kind}difference"]
    headings.append("s per 1,000")
    cells = []
    for row in rows:
        line = [str(row["method"])]
        if len(sizes) > 1:
            line += [str(row["n_shot"]), str(row["n_query"])]
        for prefix in kinds:
            line += [
                f"{100 * row[f'{prefix}accuracy']:.2f} ± {100 * row[f'{prefix}ci95']:.2f}",
                f"{100 * row[f'{prefix}difference']:+.2f} ± {100 * row[f'{prefix}difference_ci95']:.2f}",
            ]
        line.append(f"{row[f'{kinds[0]}seconds_per_1000']:.3g}")
        cells.append(line)
    if markdown:
        escaped = [[cell.replace("|", "\\|") for cell in line] for line in [headings, ["---"] * len(headings), *cells]]
        return "".join(f"| {' | '.join(line)} |\n" for line in escaped)
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in [headings, ["-" * width for width in widths], *cells]
    ]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def comma_separated(rows: Sequence[Row]) -> str:
    """CSV; accuracies are fractions of one."""
    keys = list(dict.fromkeys(key for row in rows for key in row if not key.endswith("chosen")))
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write(folder: Path, rows: Sequence[Row], about: Mapping[str, Any], n_way: int) -> list[Path]:
    """Write comparison.md, .csv, .json, .png and .svg into the folder, and .png and .svg against shots or queries.

    Args:
        folder: exists.
        rows: of `fewshot.comparison.rows`.
        about: what else the JSON file is to say.
        n_way: N, which chance follows from.
    """
    (folder / "comparison.md").write_text(table(rows, markdown=True), encoding="utf-8")
    (folder / "comparison.csv").write_text(comma_separated(rows), encoding="utf-8")
    write_json(folder / "comparison.json", {**about, "rows": [dict(row) for row in rows]})
    written = [folder / f"comparison.{ending}" for ending in ("md", "csv", "json")]
    written += _plot_of_methods(folder, rows, n_way)
    for key, label in (("n_shot", "shots"), ("n_query", "queries a class")):
        if len({row[key] for row in rows}) > 1:
            written += _plot_of_sizes(folder, rows, key, label)
    return written


def _plot_of_methods(folder: Path, rows: Sequence[Row], n_way: int) -> list[Path]:
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


def _plot_of_sizes(folder: Path, rows: Sequence[Row], key: str, label: str) -> list[Path]:
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
