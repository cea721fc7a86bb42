"""Features of a .parquet file, which pyarrow reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fewshot.classification.feature_table import (
    Refused,
    Table,
    as_text,
    check_columns,
    check_numbers,
    check_packing,
    no_number,
)

Found = TypeVar("Found")
ROWS_AT_ONCE = 4096


def read_parquet(path: Path, columns: tuple[str, ...], features: str | None) -> Table:
    """What `read_table` gives of such a file; arguments as there."""
    return _opened(path, lambda opened: _of_parquet(opened, path.stat().st_size, columns, features))


def parquet_names(path: Path) -> list[str]:
    """What its columns are called."""
    return _opened(path, lambda opened: list(opened.schema_arrow.names))


def _opened(path: Path, use: Callable[[Any], Found]) -> Found:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise Refused("pyarrow reads .parquet and is not installed; pip install 'fewshot[parquet]'") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as opened:
            return use(opened)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error
    finally:
        pyarrow.default_memory_pool().release_unused()


def _of_parquet(opened: Any, size: int, columns: tuple[str, ...], features: str | None) -> Table:
    import pyarrow.types as kinds

    about, schema = opened.metadata, opened.schema_arrow
    check_columns(schema.names, columns)
    groups = [about.row_group(place) for place in range(about.num_row_groups)]
    check_numbers(sum(group.column(c).num_values for group in groups for c in range(group.num_columns)))
    check_numbers(sum(group.total_byte_size for group in groups) // 8)
    index = (schema.pandas_metadata or {}).get("index_columns", [])  # no feature; a dict of one that is not stored
    rest = [] if features is None else [name for name in schema.names if name not in columns and name not in index]
    lists = [name for name in rest if _is_list(schema.field(name).type)]
    if len(lists) > 1:
        raise Refused(f"it has several columns of lists: {', '.join(lists[:3])}; keep the one that holds the features")
    rest = lists or rest
    for name in rest:
        kind = schema.field(name).type
        kind = kind.value_type if lists else kind
        if not (kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind)):
            raise Refused(no_number(name, kind, "all rows"))
    if features is not None and not rest:
        raise Refused("it has no column of features beside those that are named")
    texts: dict[str, list[str | None]] = {name: [] for name in columns}
    rows, filled = np.zeros((about.num_rows, 0), np.float32), 0
    for batch in opened.iter_batches(ROWS_AT_ONCE, columns=[*columns, *rest]):
        for name in columns:
            texts[name] += [as_text(value) for value in batch.column(name).to_pylist()]
        with np.errstate(over="ignore"):
            if lists:
                part = _of_lists(batch.column(lists[0]), rows.shape[1] if filled else None)
            else:
                found = [batch.column(name).to_numpy(zero_copy_only=False) for name in rest]
                part = np.stack([np.asarray(one, np.float32) for one in found], 1) if rest else rows[:0]
        if not filled:
            check_numbers(len(rows) * part.shape[1])
            check_packing(4 * len(rows) * part.shape[1], size)
            rows = np.empty((len(rows), part.shape[1]), np.float32)
        rows[filled : filled + len(part)] = part
        filled += batch.num_rows
    if filled != len(rows):
        raise Refused(f"it has {filled} rows and says {len(rows)}")
    return Table(rows, texts, names=() if lists else tuple(rest))


def _is_list(kind: Any) -> bool:
    import pyarrow.types as kinds

    return kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)


def _of_lists(column: Any, width: int | None) -> np.ndarray:
    """A column of lists of numbers as float32 [n, D]; a number that is missing is NaN."""
    lengths = set(column.value_lengths().to_pylist())
    if len(lengths) != 1 or (width is not None and lengths != {width}) or None in lengths:
        raise Refused("its lists are of different lengths, or some are missing; features are rows of one width")
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(len(column), lengths.pop())
