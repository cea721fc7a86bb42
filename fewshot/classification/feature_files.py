"""Files of features: .npy, .npz, .csv and .parquet. What they hold is data: nothing is unpickled, sizes are bounded."""

from __future__ import annotations

import contextlib
import csv
import tokenize
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np

from fewshot.classification.feature_parquet import parquet_names, read_parquet
from fewshot.classification.feature_table import (
    Refused,
    Table,
    as_text,
    check_columns,
    check_numbers,
    check_packing,
    no_number,
)
from fewshot.files import plain_cell

Found = TypeVar("Found")
MAX_LINE = 2**24
"""Characters of a line of a table at most."""
CELLS_AT_ONCE = 2**16
"""That become text."""
MATRICES = ("features", "embeddings", "class_embeddings")
"""Arrays of an .npz that features are looked for in; one with a single matrix may name it as it likes."""


def read_table(path: Path, columns: Sequence[str] = (), *, features: str | None = "features") -> Table:
    """The features of a file, and some of its columns as text.

    Args:
        path: .npy: [n, D], or one row [D]. .npz: arrays by name. .csv: a line of names, and then one row a line;
            without names where the first line holds numbers alone. .parquet: columns of numbers, or one of lists.
        columns: what is wanted as text. In a table every other column is a feature, or, beside a column of lists, left.
        features: the first of the names by which an .npz may call its features; None wants no features.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read, holds something else or too much, or has no such column.
    """
    with _named(path):
        return _reader(path, READERS)(path, tuple(columns), features)


def column_names(path: Path) -> list[str]:
    """What the columns of a table are called, or the arrays of an .npz; none of a .npy. Errors as of `read_table`."""
    with _named(path):
        return _reader(path, NAMES)(path)


def _reader(path: Path, readers: Mapping[str, Found]) -> Found:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is {'no regular file' if path.exists() else 'not there'}")
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise Refused(f"it does not end in {', '.join(READERS)}, which are read")
    return reader


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever a damaged file raises becomes a ValueError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Refused as error:
        raise ValueError(f"{path}: {error}") from error
    except FAULTS as error:
        reason = " ".join(str(error).split()).split("; ")[0]
        if "allow_pickle" in reason or "Object arrays" in reason:
            reason = "it holds Python objects, which are not read; save numbers, and text as an array of dtype str"
        if isinstance(error, UnicodeDecodeError):
            reason = "it is no text in UTF-8; save it as CSV in UTF-8"
        raise ValueError(f"{path} cannot be read: {reason[:200] or type(error).__name__}") from error


def _matrix(given: np.ndarray, name: str) -> np.ndarray:
    """The array as float32 [n, D], in memory."""
    if given.dtype.kind not in "biuf" or given.ndim not in (1, 2):
        raise Refused(f"{name} is {given.dtype} {list(given.shape)}; features are numbers [rows, width]")
    with np.errstate(over="ignore"):  # infinite then, which is refused by row
        given = given if given.ndim == 2 else given[None]
        return np.asarray(given, dtype=np.float32, order="C")


def _cells(given: np.ndarray, name: str) -> list[str | None]:
    """The entries of an array [n] as text."""
    if given.ndim != 1 or given.dtype.kind not in "biufSU":
        raise Refused(f"{name} is {given.dtype} {list(given.shape)}; give one text or number for each row")
    kept: dict[str | None, str | None] = {}  # a label of many rows is one text
    parts = (given[first : first + CELLS_AT_ONCE].tolist() for first in range(0, len(given), CELLS_AT_ONCE))
    return [kept.setdefault(text, text) for part in parts for text in map(as_text, part)]


def _read_npy(path: Path, columns: tuple[str, ...], features: str | None) -> Table:
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(found, np.ndarray):
        found.close()
        raise Refused("it is an .npz inside; call it so")
    check_numbers(found.size)
    if features is None:
        return Table(np.zeros((len(found) if found.ndim else 0, 0), np.float32), {columns[-1]: _cells(found, "it")})
    if columns:
        raise Refused(f"a .npy holds features alone and no {columns[0]!r}; take .npz, .csv or .parquet, or --labels")
    found = np.load(path, allow_pickle=False)  # read, as the pages of a mapped file would count twice
    return Table(_matrix(found, "it"), {}, found.ndim == 1)


def _read_npz(path: Path, columns: tuple[str, ...], features: str | None) -> Table:
    with zipfile.ZipFile(path) as packed:
        headers = {one.filename[:-4]: one for one in packed.infolist() if one.filename.endswith(".npy")}
        shapes = {name: _header(packed, one) for name, one in headers.items()}

        def loaded(name: str) -> np.ndarray:
            shape, dtype = shapes[name]
            count = int(np.prod(shape, dtype=object))
            if not dtype.itemsize:
                raise Refused(f"{name} is {dtype}, whose entries hold nothing")
            check_numbers(count * max(1, dtype.itemsize // 8))
            if not dtype.hasobject and count * dtype.itemsize > headers[name].file_size:
                raise Refused(f"{name} is cut short")
            check_packing(count * dtype.itemsize, headers[name].compress_size)
            with packed.open(headers[name]) as opened:
                return np.lib.format.read_array(opened, allow_pickle=False)

        if missing := [name for name in columns if name not in headers]:
            raise Refused(f"it has no array {missing[0]!r}; it has {', '.join(headers)}")
        if features is None:
            cells = {name: _cells(loaded(name), name) for name in columns}
            return Table(np.zeros((len(next(iter(cells.values()))), 0), np.float32), cells)
        matrices = [name for name, (shape, _) in shapes.items() if len(shape) == 2]
        named = [name for name in dict.fromkeys((features, *MATRICES)) if name in matrices]
        if not named and len(matrices) != 1:
            raise Refused(f"it has no array {features!r} [rows, width]; it has {', '.join(headers) or 'none'}")
        name = (named or matrices)[0]
        n_rows = shapes[name][0][0]
        for column in columns:
            if len(shape := shapes[column][0]) == 1 and shape[0] != n_rows:
                raise Refused(f"{column} has {shape[0]} entries for the {n_rows} rows of {name}")
        cells = {column: _cells(loaded(column), column) for column in columns}
        return Table(_matrix(loaded(name), name), cells)


def _header(packed: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and kind of an array, before it is unpacked."""
    with packed.open(member) as opened:
        version = np.lib.format.read_magic(opened)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(opened)
    return shape, dtype


def _npz_names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as packed:
        return [one.filename[:-4] for one in packed.infolist() if one.filename.endswith(".npy")]


def _csv_names(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8-sig") as opened:
        return next(_rows(opened), [])


def _rows(opened: TextIO) -> Any:
    """A csv.reader; a first line without a comma says what parts cells, as spreadsheets of many countries write it."""
    lines = _lines(opened)
    first = next(lines, "")
    separator = next((mark for mark in (",", ";", "\t") if mark in first), ",")
    return csv.reader(chain([first], lines), delimiter=separator)


def _lines(opened: TextIO) -> Iterator[str]:
    while line := opened.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise Refused(f"a line has more than {MAX_LINE:,} characters")
        yield line


def _read_csv(path: Path, columns: tuple[str, ...], features: str | None) -> Table:
    with path.open(newline="", encoding="utf-8-sig") as opened:
        lines = _rows(opened)
        names: list[str] = next(lines, [])
        rows: Iterator[list[str]] = lines
        headed = True
        if names and not columns and all(map(_is_number, names)) and not _counted(names):
            rows, names, headed = chain([names], lines), [str(place) for place in range(len(names))], False
        check_columns(names, columns)
        places = {name: names.index(name) for name in columns}
        rest = [place for place in range(len(names)) if place not in places.values()]
        unnamed = [names[place] for place in rest if not names[place] or names[place].startswith("Unnamed: ")]
        if unnamed and features is not None:
            raise Refused(
                f"it has a column called {unnamed[0]!r}, as pandas writes an index, no feature; write the table "
                "with index=False, or give the column a name for --id_column"
            )
        texts: dict[str, list[str | None]] = {name: [] for name in columns}
        numbers, n_rows = array("f"), 0
        for cells in rows:
            if not cells:
                continue
            if len(cells) != len(names):
                raise Refused(f"line {lines.line_num} has {len(cells)} cells, and the first has {len(names)}")
            for name, place in places.items():
                texts[name].append(plain_cell(cells[place]) or None)
            if features is not None:
                try:
                    numbers.extend(map(float, cells if not places else [cells[place] for place in rest]))
                except ValueError as error:
                    wrong = next(place for place in rest if not _is_number(cells[place]))
                    raise Refused(no_number(names[wrong], cells[wrong], f"line {lines.line_num}")) from error
                check_numbers(len(numbers))
            n_rows += 1
    width = len(rest) if features is not None else 0
    if features is not None and not width:
        raise Refused("it has no column of features beside those that are named")
    of_features = [names[place] for place in rest] if features is not None else []
    named = tuple(of_features) if headed and not _counted(of_features) else ()
    return Table(np.frombuffer(numbers, np.float32).reshape(n_rows, width) if n_rows * width
                 else np.zeros((n_rows, width), np.float32), texts, names=named)  # fmt: skip


def _counted(names: Sequence[str]) -> bool:
    """Whether several columns are called by their numbers, from 0 or from 1, as pandas calls those without names."""
    return len(names) > 1 and any(list(names) == [str(first + n) for n in range(len(names))] for first in (0, 1))


def _is_number(cell: str) -> bool:
    with contextlib.suppress(ValueError):
        float(cell)
        return True
    return False


FAULTS = (
    *(OSError, EOFError, ValueError, MemoryError, RuntimeError, csv.Error, zipfile.BadZipFile, zlib.error),
    *(SyntaxError, tokenize.TokenError),  # of the text in the head of an array
)
"""What reading a damaged file raises."""
Reader = Callable[[Path, tuple[str, ...], str | None], Table]
READERS: dict[str, Reader] = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv, ".parquet": read_parquet}
NAMES: dict[str, Callable[[Path], list[str]]] = {
    ".npy": lambda path: [],
    ".npz": _npz_names,
    ".csv": _csv_names,
    ".parquet": parquet_names,
}
"""By how a file's name ends."""
