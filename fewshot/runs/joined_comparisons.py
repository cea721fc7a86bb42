"""Earlier comparisons, one a backbone, read from their folders to be drawn together."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fewshot.files import expanded, run_versions

NAME = "comparison.json"
SIZES = ("n_shot", "n_query")
NUMBERS = ("accuracy", "ci95", "difference", "difference_ci95", "seconds_per_1000")
"""What every row has, and again under names that begin with one of PREFIXES where such queries were measured."""
PREFIXES = ("dirichlet_", "tail_")
MAX_BYTES = 2**26


class OfBackbone(NamedTuple):
    """What a comparison measured, and on what."""

    backbone: str
    data: str
    n_way: int
    n_episodes: int
    rows: list[dict[str, Any]]
    """One a method and size; the keys are those of `fewshot.runs.comparison.rows`."""

    @property
    def label(self) -> str:
        """Backbone and data in two lines."""
        return f"{self.backbone}\n{self.data}"


def joined(folders: Sequence[str]) -> list[OfBackbone]:
    """The comparisons in the order given.

    Args:
        folders: of a comparison, or of all versions of one, of which the last is taken.

    Raises:
        FileNotFoundError: a folder without a comparison.json.
        ValueError: no folder, a file that holds no comparison, or one that does not say its backbone.
    """
    if not folders:
        raise ValueError("joined: no folder is named; give those of comparisons, as '[runs/one, runs/other]'")
    return [_read(expanded(folder)) for folder in folders]


def _read(folder: Path) -> OfBackbone:
    places = (
        [folder, *(version for _, version in sorted(run_versions(folder), reverse=True))]
        if folder.is_dir()
        else [folder]
    )
    file = next((place / NAME for place in places if (place / NAME).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"joined: {folder} has no {NAME}; give the folder that compare wrote")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"joined: {file} has more than {MAX_BYTES:,} bytes; it is no comparison")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        rows = [_row(row) for row in found["rows"]]
        read = OfBackbone(
            str(found["backbone"]), str(found["data"]), int(found["n_way"]), int(found["n_episodes"]), rows
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"joined: {file} is no comparison that says its backbone and data ({type(error).__name__}: {error}); run "
            "compare again"
        ) from error
    if not rows:
        raise ValueError(f"joined: {file} has no method in it")
    return read


def _row(given: dict[str, Any]) -> dict[str, Any]:
    """A row with what is drawn and written of it, numbers as numbers; what has none, such as an interval, is NaN."""
    kinds = ("", *(prefix for prefix in PREFIXES if f"{prefix}accuracy" in given))
    numbers = {f"{kind}{key}": given[f"{kind}{key}"] for kind in kinds for key in NUMBERS}
    return {
        "method": str(given["method"]),
        **{key: int(given[key]) for key in SIZES},
        **{key: math.nan if value is None else float(value) for key, value in numbers.items()},
    }
