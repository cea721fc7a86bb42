"""The ledger of results: one table of all runs below some folders, python -m fewshot results.

A run is a folder <experiment>/version_<n> with the results.json of its test and, beside it, the run.json that every
command writes. Only the standard library is imported: a table of hundreds of runs is there before torch would be.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from fewshot.files import expanded, full_path
from fewshot.runs.ledger import (
    COLUMNS,
    STATUS,
    WRITERS,
    Column,
    Run,
    check_column,
    found_runs,
    matches,
    sorted_groups,
    value_at,
)

EPILOG = """columns: {columns};
also any key of results.json, with dots into what is nested (versions.torch, method.init_args.step_size,
accuracy_per_step.1), and of the run.json beside it (run.git.package.commit, run.device.precision).

Accuracies are fractions of one in csv and json as in the files, per cent with their 95 % interval in text and markdown.
Accuracies compare only within one episode list, the first digits of episodes_sha256: by default the table is grouped by
it, and each group is sorted by accuracy.

examples:
  python -m fewshot results runs/
  python -m fewshot results runs/ --where data=cifar_fs --where shot=1 --sort accuracy --format markdown
  python -m fewshot results runs/ --columns experiment,version,accuracy,run.git.package.commit
""".format(columns=", ".join(column.key for column in (*COLUMNS, STATUS)))


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
    runs = found_runs([expanded(folder) for folder in options.folders])
    tested = [one for one in runs if one.tested]
    if not tested and not (options.all and runs):
        looked = ", ".join(str(full_path(folder)) for folder in options.folders)
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
    made.add_argument("--format", choices=tuple(WRITERS), default="text", help="text by default")
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
