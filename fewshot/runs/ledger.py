"""The runs of the ledger: found below some folders, read, chosen, put in order and written. Standard library only."""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from fewshot.runs.tables import csv_table, markdown_table, per_cent, text_table

RUN_FILES = ("results.json", "run.json", "config.yaml")
"""What makes a folder a run; the first says that it was tested."""


class Column(NamedTuple):
    """One column: the key that names it, its heading in a table, and where in a run its value is."""

    key: str
    heading: str
    place: str
    interval: str = ""
    """Where the half-width of the 95 % interval is; both are then fractions of one, shown in per cent in tables."""


COLUMNS = (
    Column("experiment", "experiment", "experiment"),
    Column("version", "version", "version"),
    Column("data", "data", "data"),
    Column("way", "way", "n_way"),
    Column("shot", "shot", "n_shot"),
    Column("backbone", "backbone", "backbone.name"),
    Column("method", "method", "method_name"),
    Column("steps", "K", "steps"),
    Column("accuracy", "accuracy", "accuracy", "ci95"),
    Column("step_0", "K=0", "accuracy_per_step.0", "ci95_per_step.0"),
    Column("nearest_mean", "nearest mean", "accuracy_nearest_mean", "ci95_nearest_mean"),
    Column("episodes", "episodes", "n_episodes"),
    Column("list", "episode list", "episode_list"),
    Column("seed", "seed", "seed"),
    Column("training_seed", "training seed", "training_seed"),
    Column("checkpoint", "checkpoint", "checkpoint"),
    Column("date", "date", "date"),
)
STATUS = Column("status", "status", "status")
GROUP = ("data", "split", "n_way", "n_shot", "n_query", "episodes_sha256")
"""What two accuracies must share before they are compared."""


class Run(NamedTuple):
    """A run's folder and what is known of it, ready for dotted keys."""

    folder: Path
    values: dict[str, Any]

    @property
    def tested(self) -> bool:
        """Whether it has results."""
        return self.values["status"] == "tested"


def found_runs(roots: Sequence[Path]) -> list[Run]:
    """The runs below these folders; what cannot be read is named on the error stream and left out."""
    found: dict[Path, Run] = {}
    for root in roots:
        if not root.exists():
            raise FileNotFoundError(f"results: no folder {root} (in {Path.cwd()})")
        for folder in run_folders(root if root.is_dir() else root.parent):
            if folder.resolve() not in found:
                try:
                    found[folder.resolve()] = read_run(folder, root)
                except ValueError as error:
                    sys.stderr.write(f"skipped {error}\n")
    return list(found.values())


def run_folders(root: Path) -> Iterator[Path]:
    """Every folder from `root` down that holds a run's files."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if set(RUN_FILES) & set(files):
            yield Path(folder)


def read_run(folder: Path, root: Path) -> Run:
    """What a run's folder says; ValueError names a results.json that is broken or of another program."""
    results, record = folder / "results.json", {}
    if (folder / "run.json").is_file():
        try:
            record = read_object(folder / "run.json")
        except ValueError as error:
            sys.stderr.write(f"without its record: {error}\n")  # the results beside it stand for themselves
    values: dict[str, Any] = {}
    if results.is_file():
        values = read_object(results)
        missing = [key for key in ("accuracy", "n_episodes", "n_way", "n_shot") if not is_number(values.get(key))]
        if missing or not 0 <= values["accuracy"] <= 1:
            raise ValueError(f"{results}: not of a test of this program ({', '.join(missing) or 'accuracy'})")
    method = values.get("method")
    per_step = values.get("accuracy_per_step")
    changed = max((folder / name).stat().st_mtime for name in RUN_FILES if (folder / name).is_file())
    date = record.get("started") or datetime.fromtimestamp(changed, timezone.utc).isoformat(timespec="seconds")
    version = re.fullmatch(r"version_(\d+)", folder.name)
    numbered = folder if version is None else folder.parent  # what a run without a number is called by
    inside = numbered.resolve().is_relative_to(root.resolve()) and numbered.resolve() != root.resolve()
    values |= {
        "run": record,
        "folder": str(folder),
        "experiment": str(numbered.relative_to(root)) if inside else numbered.resolve().name,
        "version": None if version is None else int(version[1]),
        "method_name": str(method.get("class_path")).rsplit(".", 1)[-1] if isinstance(method, dict) else method,
        "steps": len(per_step) - 1 if isinstance(per_step, list) and per_step else None,
        "episode_list": str(values["episodes_sha256"])[:8] if values.get("episodes_sha256") else None,
        "date": date,
        "status": "tested" if results.is_file() else status_of(record),
    }
    return Run(folder, values)


def status_of(record: dict[str, Any]) -> str:
    """What became of a run without results; one whose record was never closed was killed, or is still at it."""
    status = record.get("status")
    return str(status) if status in ("finished", "failed", "interrupted") else "unfinished"


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; ValueError names the file and what is wrong."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split()) or type(error).__name__}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not keys with values")
    return content


def value_at(run: Run, place: str) -> Any:
    """What a dotted key leads to; None where it leads nowhere."""
    value: Any = run.values
    for part in place.split("."):
        if isinstance(value, list) and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else None
        elif isinstance(value, dict):
            value = value.get(part)
        else:
            return None
    return value


def check_column(column: Column, runs: Sequence[Run]) -> None:
    """ValueError where no run has such a key."""
    if column in COLUMNS or column == STATUS or any(value_at(run, column.place) is not None for run in runs):
        return
    known = {one.key for one in COLUMNS} | {key for run in runs for key in run.values}
    close = difflib.get_close_matches(column.key.split(".")[0], sorted(known), n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise ValueError(f"results: no run has '{column.key}'; {hint}Keys: {', '.join(sorted(known))}")


def matches(run: Run, condition: tuple[Column, str]) -> bool:
    """Whether a run has the value asked for: the same text, or the same number."""
    column, wanted = condition
    value = value_at(run, column.place)
    if value is None or isinstance(value, bool):
        return wanted.lower() == {None: "null", True: "true", False: "false"}[value]
    if is_number(value):
        try:
            return value == float(wanted)
        except ValueError:
            return False
    return wanted == (value if isinstance(value, str) else json.dumps(value))


def sorted_groups(runs: Sequence[Run], column: Column | None, *, descending: bool | None) -> list[list[Run]]:
    """Runs in the order in which they are shown: one list by the column asked for, or by accuracy for each list of
    episodes.
    """
    if column is not None:
        large_first = column.interval != "" if descending is None else descending
        return [in_order(runs, column.place, descending=large_first)]
    groups: dict[str, list[Run]] = {}
    for run in in_order(runs, "accuracy", descending=descending in (None, True)):
        groups.setdefault(json.dumps([value_at(run, key) for key in GROUP]), []).append(run)
    return sorted(groups.values(), key=lambda group: [order_of(value_at(group[0], key)) for key in GROUP])


def in_order(runs: Sequence[Run], place: str, *, descending: bool) -> list[Run]:
    """Runs by a value, those without it last; equal ones by folder."""
    by_folder = sorted(runs, key=lambda run: [order_of(part) for part in re.split(r"(\d+)", str(run.folder))])
    having = [run for run in by_folder if value_at(run, place) is not None]
    lacking = [run for run in by_folder if value_at(run, place) is None]
    return sorted(having, key=lambda run: order_of(value_at(run, place)), reverse=descending) + lacking


def order_of(value: Any) -> tuple[bool, bool, float, str]:
    """What values of any kind are sorted by: numbers first, then texts, then nothing."""
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    number = is_number(value)
    return value is None, not number, float(value) if number else 0.0, "" if number else str(value)


def is_number(value: Any) -> bool:
    """Whether a value counts as a number; JSON's NaN does not, nor does one that is larger than a float."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def shown(run: Run, column: Column) -> str:
    """A value as a table shows it."""
    value = value_at(run, column.place)
    if value is None:
        return "-"
    if column.key == "date":
        return str(value)[:16].replace("T", " ")
    if column.interval and is_number(value):
        interval = value_at(run, column.interval)
        return per_cent(value, interval if is_number(interval) else None)
    if not isinstance(value, str):
        return json.dumps(value)
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in " ".join(value.split()))


def headings_and_cells(
    columns: Sequence[Column], groups: Sequence[Sequence[Run]]
) -> tuple[list[str], list[list[list[str]]]]:
    """What a table shows: its headings, and the cells of every row of every group."""
    headings = [column.heading + (" %" if column.interval else "") for column in columns]
    return headings, [[[shown(run, column) for column in columns] for run in group] for group in groups]


def keys_and_places(columns: Sequence[Column]) -> Iterator[tuple[str, str]]:
    """Key and place of every column, and of the interval that belongs to it."""
    for column in columns:
        yield column.key, column.place
        if column.interval:
            yield ("ci95" if column.key == "accuracy" else f"{column.key}_ci95"), column.interval


def as_text(columns: Sequence[Column], groups: Sequence[Sequence[Run]]) -> str:
    """Aligned text, an empty line between groups."""
    return text_table(*headings_and_cells(columns, groups))


def as_markdown(columns: Sequence[Column], groups: Sequence[Sequence[Run]]) -> str:
    """A table in Markdown."""
    headings, cells = headings_and_cells(columns, groups)
    return markdown_table(headings, [row for group in cells for row in group])


def as_csv(columns: Sequence[Column], groups: Sequence[Sequence[Run]]) -> str:
    """CSV with the keys as its first row."""
    pairs = list(keys_and_places(columns))
    values = [[value_at(run, place) for _, place in pairs] for group in groups for run in group]
    plain = [[json.dumps(value) if isinstance(value, (dict, list)) else value for value in row] for row in values]
    return csv_table([key for key, _ in pairs], plain)


def as_json(columns: Sequence[Column], groups: Sequence[Sequence[Run]]) -> str:
    """JSON: a list with one object for every run."""
    pairs = list(keys_and_places(columns))
    rows = [{key: value_at(run, place) for key, place in pairs} for group in groups for run in group]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


WRITERS: dict[str, Callable[[Sequence[Column], Sequence[Sequence[Run]]], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "csv": as_csv,
    "json": as_json,
}
