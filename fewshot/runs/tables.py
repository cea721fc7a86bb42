"""The ledger's runs written as text, Markdown, CSV and JSON. Standard library only."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence

from fewshot.runs.ledger import Column, Run, is_number, value_at


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
