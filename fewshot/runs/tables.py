"""Tables as aligned text, Markdown and CSV, for every command that shows one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from fewshot.files import csv_line

NUMBER = re.compile(r"-|[-+\d., ±]*\d( (B|kB|MB|GB|TB))?")
"""What a column consists of that is aligned to the right."""


def per_cent(value: float, half_width: float | None, *, mark: str = "+-", signed: bool = False) -> str:
    """A fraction of one in per cent with its interval, without where there is none, as of a single episode."""
    text = f"{100 * value:{'+' if signed else ''}.2f}"
    return text if half_width is None or not math.isfinite(half_width) else f"{text} {mark} {100 * half_width:.2f}"


def text_table(headings: Sequence[str], groups: Iterable[Sequence[Sequence[str]]]) -> str:
    """Aligned text with a rule below the headings and an empty line between groups of rows."""
    groups = [list(group) for group in groups]
    rows = [row for group in groups for row in group]
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    right = [all(NUMBER.fullmatch(row[place]) for row in rows) for place in range(len(headings))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    blocks = ["\n".join(map(line, group)) for group in groups]
    return "\n".join([line(headings), rule, "\n\n".join(blocks)]) + "\n"


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def csv_table(keys: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV with the keys as its first row; nothing where there is no value."""
    return "".join(map(csv_line, (keys, *rows)))
