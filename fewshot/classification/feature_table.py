"""What is read of a file of features, and how much of it at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

MAX_NUMBERS = 2**31
"""Numbers that are read from a file at most: 8 GiB of float32."""
MAX_PACKED, MAX_RATIO = 2**26, 200
"""Bytes that a packed array may unpack to in any case, and how many times its own size beyond that."""


class Table(NamedTuple):
    """What was asked for of a file."""

    features: np.ndarray
    """[n, D] float32; D = 0 where no features were asked for."""
    columns: dict[str, list[str | None]]
    """n cells of every column that was asked for, as text; None where there is none."""
    one: bool = False
    """Whether the file holds a single row without saying that it is a table: a vector."""
    names: tuple[str, ...] = ()
    """What the columns of the features are called, where a table says it."""


class Refused(ValueError):
    """A fault that is said in our words already."""


def check_numbers(count: int) -> None:
    """Refused where there are too many numbers."""
    if count > MAX_NUMBERS:
        raise Refused(f"it holds {count:,} numbers, and {MAX_NUMBERS:,} are read at most; split it, and name the parts")


def check_packing(unpacked: int, packed: int) -> None:
    """Refused where so few bytes unpack to so many."""
    if unpacked > max(MAX_PACKED, MAX_RATIO * packed):
        raise Refused(f"its {packed:,} bytes unpack to {unpacked:,}; save it without compression if that is right")


def as_text(value: Any) -> str | None:
    """A cell; None where there is nothing in it."""
    if value is None or value != value:  # NaN
        return None
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def check_columns(names: Sequence[str], columns: Sequence[str]) -> None:
    """Refused where names stand twice or one that is asked for is missing."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise Refused(f"two columns are called {twice[0]!r}")
    if missing := [name for name in columns if name not in names]:
        shown = ", ".join(map(repr, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        raise Refused(f"it has no column {missing[0]!r}; it has {shown or 'none'}")


def no_number(name: str, value: object, where: str) -> str:
    """That a feature is none."""
    return (
        f"column {name!r} holds {str(value)[:40]!r} in {where}, which is no number, and every column is a feature that "
        "is not named by --id_column, --label_column or --text_column"
    )
