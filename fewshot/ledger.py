"""The ledger of results: one table of all runs below some folders, python -m fewshot results.

A run is a folder <experiment>/version_<n> with the results.json of its test and, beside it, the run.json that every
command writes. Only the standard library is imported: a table of hundreds of runs is there before torch would be.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

FORMATS = ("text", "markdown", "csv", "json")
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

EPILOG = """columns: {columns};
also any key of results.json, with dots into what is nested (versions.torch, method.init_args.step_size,
accuracy_per_step.1), and of the run.json beside it (run.git.package.commit, run.device.precision).

Accuracies are fractions of one in csv and json as in the files, per cent with their 95 % interval in text and markdown.
Accuracies compare only within one episode list, the first digits of episodes_sha256: by default the table is grouped by
it, and each group is sorted by accuracy.

examples:
  python -m fewshot results runs/
  python -m fewshot results runs/ --where data=CIFAR-FS --where shot=1 --sort accuracy --format markdown
  python -m fewshot results runs/ --columns experiment,version,accuracy,run.git.package.commit
""".format(columns=", ".join(column.key for column in (*COLUMNS, STATUS)))


class Run(NamedTuple):
    """A run's folder and what is known of it, ready for dotted keys."""

    folder: Path
    values: dict[str, Any]

    @property
    def tested(self) -> bool:
        """Whether it has results."""
        return self.values["status"] == "tested"


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError."""
        raise ValueError(f"results: {message} (python -m fewshot results --help)")


def run(arguments: list[str]) -> None:
    """Print the table.

    Args:
        arguments: those after `results`.

    Raises:
        ValueError: an option or a column that there is not.
        FileNotFoundError: no folder of that name, or no results below it.
    """
    options = parser().parse_args(arguments)
    runs = found_runs([Path(folder).expanduser() for folder in options.folders])
    tested = [one for one in runs if one.tested]
    if not tested and not (options.all and runs):
        looked = ", ".join(str(Path(folder).expanduser().resolve()) for folder in options.folders)
        others = f"; {unfinished(runs)} there, --all shows them" if runs else ""
        raise FileNotFoundError(
            f"results: no results.json of a test below {looked}{others}; `fit` and `test` write one into their run "
            "folder, name the folder that holds your runs"
        )
    chosen = [one for one in (runs if options.all else tested) if all(matches(one, where) for where in options.where)]
    if not chosen:
        wanted = " and ".join(f"{column.key}={value}" for column, value in options.where)
        raise ValueError(f"results: none of {len(runs if options.all else tested)} runs has {wanted}")
    columns = options.columns or [*COLUMNS, *([STATUS] if options.all else [])]
    for column in (*columns, *([options.sort] if options.sort else [])):
        check_column(column, chosen)
    groups = sorted_groups(chosen, options.sort, descending=options.descending)
    text = WRITERS[options.format](columns, groups)
    if options.format in ("text", "markdown"):
        text += notes(chosen, runs, everything=options.all)
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser() -> Parser:
    """The options."""
    made = Parser(
        prog="python -m fewshot results",
        description="A table of all runs below some folders.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("folders", nargs="*", default=["runs"], metavar="FOLDER", help="where to look; runs by default")
    made.add_argument("--format", choices=FORMATS, default="text", help="text by default")
    made.add_argument("--columns", type=columns_of, metavar="KEY,KEY,...", help="these instead of the usual ones")
    made.add_argument("--where", type=condition_of, action="append", default=[], metavar="KEY=VALUE", help="only these")
    made.add_argument("--sort", type=column_of, metavar="KEY", help="one list by this key, instead of groups")
    order = made.add_mutually_exclusive_group()
    order.add_argument("--descending", action="store_true", default=None, help="large first; so are accuracies always")
    order.add_argument("--ascending", action="store_false", dest="descending", help="small first")
    made.add_argument("--all", action="store_true", help="also runs without results: unfinished, failed or not tested")
    return made


def column_of(key: str) -> Column:
    """The column of that name, or one for a dotted key of results.json."""
    known = {column.key: column for column in (*COLUMNS, STATUS)}
    return known.get(key) or Column(key, key, key)


def columns_of(keys: str) -> list[Column]:
    """The columns that commas separate."""
    return [column_of(key.strip()) for key in keys.split(",") if key.strip()]


def condition_of(text: str) -> tuple[Column, str]:
    """A column and the value that it is to have."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no condition; write KEY=VALUE")
    return column_of(key.strip()), value.strip()


# Finding and reading runs.


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


# Choosing and ordering.


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
    """Whether a value counts as a number; JSON's NaN does not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


# Writing.


def shown(run: Run, column: Column) -> str:
    """A value as a table shows it."""
    value = value_at(run, column.place)
    if value is None:
        return "-"
    if column.key == "date":
        return str(value)[:16].replace("T", " ")
    if column.interval and is_number(value):
        interval = value_at(run, column.interval)
        return f"{100 * value:.2f}" + (f" +- {100 * interval:.2f}" if is_number(interval) else "")
    return " ".join(value.split()) if isinstance(value, str) else json.dumps(value)


def table(columns: Sequence[Column], groups: Sequence[Sequence[Run]]) -> str:
    """Aligned text, an empty line between groups."""
    cells = [[[shown(run, column) for column in columns] for run in group] for group in groups]
    headings = [column.heading + (" %" if column.interval else "") for column in columns]
    widths = [max(map(len, one)) for one in zip(headings, *(row for group in cells for row in group), strict=True)]
    right = [
        all(re.fullmatch(r"-|[-\d.+ ]*\d", row[place]) for group in cells for row in group)
        for place in range(len(columns))
    ]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    blocks = ["\n".join(map(line, group)) for group in cells]
    return "\n".join([line(headings), rule, "\n\n".join(blocks)]) + "\n"


def markdown(columns: Sequence[Column], groups: Sequence[Sequence[Run]]) -> str:
    """A table in Markdown."""
    headings = [column.heading + (" %" if column.interval else "") for column in columns]
    rows = [[shown(run, column).replace("|", "\\|") for column in columns] for group in groups for run in group]
    lines = [headings, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)


def keys_and_places(columns: Sequence[Column]) -> Iterator[tuple[str, str]]:
    """Key and place of every column, and of the interval that belongs to it."""
    for column in columns:
        yield column.key, column.place
        if column.interval:
            yield ("ci95" if column.key == "accuracy" else f"{column.key}_ci95"), column.interval


def comma_separated(columns: Sequence[Column], groups: Sequence[Sequence[Run]]) -> str:
    """CSV with the keys as its first row; nothing where there is no value."""
    pairs, text = list(keys_and_places(columns)), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([key for key, _ in pairs])
    for run in (run for group in groups for run in group):
        values = [value_at(run, place) for _, place in pairs]
        writer.writerow([json.dumps(value) if isinstance(value, (dict, list)) else value for value in values])
    return text.getvalue()


def objects(columns: Sequence[Column], groups: Sequence[Sequence[Run]]) -> str:
    """JSON: a list with one object for every run."""
    pairs = list(keys_and_places(columns))
    rows = [{key: value_at(run, place) for key, place in pairs} for group in groups for run in group]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


WRITERS: dict[str, Callable[[Sequence[Column], Sequence[Sequence[Run]]], str]] = {
    "text": table,
    "markdown": markdown,
    "csv": comma_separated,
    "json": objects,
}


def notes(shown_runs: Sequence[Run], runs: Sequence[Run], *, everything: bool) -> str:
    """Below a table: whether its accuracies compare, and what it leaves out."""
    lines = []
    lists = {value_at(run, "episodes_sha256") for run in shown_runs if run.tested}
    if len(lists) > 1:
        lines.append(f"{len(lists)} episode lists: accuracies compare only within one")
    if not everything and any(not run.tested for run in runs):
        lines.append(f"not shown: {unfinished(runs)}; --all shows them")
    return "".join(f"\n{line}" for line in lines) + ("\n" if lines else "")


def unfinished(runs: Sequence[Run]) -> str:
    """How many runs have no results, and why."""
    words = {"finished": "not tested"}
    states = [words.get(run.values["status"], run.values["status"]) for run in runs if not run.tested]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    return f"{len(states)} run{'s' if len(states) != 1 else ''} without results ({counts})"
