"""What was made of picture files, in the cache folder: made once, found by what a file holds, whatever it is called.

A file of the cache holds some rows, as they came: uint8 [n, 32 + W], in each what tells the picture and the way it was
made (SHA-256), then W bytes. What is added later goes into files of its own, so that several processes may add at once;
when there are many, one takes their place.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from fewshot.data.cache import alone, cached_file
from fewshot.data.cached_array import CachedArray, read_array
from fewshot.data.pictures import MAX_FILE_BYTES

ID_BYTES = 32
"""Of a SHA-256."""
NAME_LENGTH = 60
"""Characters of a name in a file's name."""
MOST_FILES = 8
"""More are put together into one."""
AT_ONCE = 4096
"""Rows that are copied at a time."""
READ_AT_ONCE = 2**20
SECONDS_BETWEEN_FILES = 60.0
"""A run that is killed loses no more than was made in them."""
logger = logging.getLogger(__name__)
_unwritable: set[Path] = set()
Rows = TypeVar("Rows", bound="ContentRows")


class ContentRows:
    """Rows of W bytes, one a picture file, that the cache folder knows; looking up is safe from several threads.

    Args:
        name: for the names of files.
        key: hexadecimal; changes with all that the rows depend on besides the content of a picture's file.
        width: W.
    """

    what = "small pictures"
    """For the message where they cannot be written."""
    of_features = False

    def __init__(self, name: str, key: str, width: int) -> None:
        self.key, self.width = key, width
        self._name = f"{name[:NAME_LENGTH]}-{key[:16]}"
        self._folder = self._file("0").parent
        self._parts: dict[Path, np.ndarray] = {}
        self._damaged: list[Path] = []
        self._places: dict[bytes, tuple[Path, int]] = {}
        self._new: dict[bytes, np.ndarray] = {}
        self._written = time.monotonic()
        for path in self._files():
            self._read(path)

    def row_of(self, content: bytes) -> np.ndarray | None:
        """uint8 [W] of a file of that SHA-256, or None."""
        place = self._places.get(self._id(content))
        return None if place is None else self._parts[place[0]][place[1], ID_BYTES:]

    def add(self, content: bytes, row: np.ndarray) -> None:
        """Remember uint8 [W] of a file of that SHA-256.

        It is written within a minute, or at the end of a `with` statement, also of one that is broken off.
        """
        self._new[self._id(content)] = row
        if time.monotonic() - self._written > SECONDS_BETWEEN_FILES:
            self.write()

    def is_sound(self, rows: np.ndarray) -> bool:
        """Whether rows [n, 32 + W] of a file may be believed; its digest is checked already."""
        return True

    def __enter__(self: Rows) -> Rows:
        return self

    def __exit__(self, *error: object) -> None:
        self.write()

    def write(self) -> None:
        """Write what was added, and put many files together.

        A folder that cannot be written to is said once and stops nothing.
        """
        self._written = time.monotonic()
        try:
            if self._new:
                ids = np.frombuffer(b"".join(self._new), np.uint8).reshape(-1, ID_BYTES)
                rows = np.stack(list(self._new.values()))
                self._read(self._write([np.concatenate([ids, rows], axis=1)]))
                self._new.clear()
            for path in self._damaged:
                path.unlink(missing_ok=True)
            self._damaged.clear()
            if len(self._parts) > MOST_FILES:
                self._put_together()
        except OSError as error:
            self._new.clear()
            if self._folder not in _unwritable:
                _unwritable.add(self._folder)
                logger.warning(
                    "%s are not remembered: cannot write to %s (%s); set FEWSHOT_CACHE to another folder, or "
                    "store_features to false",
                    self.what,
                    self._folder,
                    error.strerror or error,
                )

    def _put_together(self) -> None:
        """One file in the place of all. Another process may do the same at once, or still read the former ones."""
        with alone(self._file("0")):
            parts = {path: part for path, part in self._parts.items() if path.exists()}
            if len(parts) <= MOST_FILES:  # somebody else was faster
                return
            whole = self._write(list(parts.values()))
            for path in parts:
                if path != whole:
                    with contextlib.suppress(PermissionError):  # a system that keeps what is still read
                        path.unlink(missing_ok=True)

    def _write(self, parts: Sequence[np.ndarray]) -> Path:
        """Write rows [n, 32 + W], each once; returns the file, whose name is that of its content."""
        kept, seen = [], dict[bytes, None]()
        for part in parts:
            names = [part[row, :ID_BYTES].tobytes() for row in range(len(part))]
            first = {name: row for row, name in enumerate(names) if name not in seen}
            seen |= dict.fromkeys(first)
            kept.append(np.array(list(first.values()), dtype=np.int64))
        path = self._file(hashlib.sha256(b"".join(sorted(seen))).hexdigest())
        array = CachedArray(path, "u1")
        try:
            array.open()
            array.begin((len(seen), ID_BYTES + self.width))
            for part, rows in zip(parts, kept, strict=True):
                for start in range(0, len(rows), AT_ONCE):
                    array.append(part[rows[start : start + AT_ONCE]])
            array.finish()
        finally:
            array.discard()
        return path

    def _read(self, path: Path) -> None:
        part = read_array(path, "u1", (None, ID_BYTES + self.width))
        if part is not None and not all(
            self.is_sound(part[first : first + AT_ONCE]) for first in range(0, len(part), AT_ONCE)
        ):
            logger.warning("%s is damaged (it holds numbers that are not finite); it is made again", path)
            part = None
        if part is not None:
            self._parts[path] = part
            self._places |= {part[row, :ID_BYTES].tobytes(): (path, row) for row in range(len(part))}
        elif path.exists():
            self._damaged.append(path)  # it is said already; what it held is made again

    def _id(self, content: bytes) -> bytes:
        return hashlib.sha256(self.key.encode() + content).digest()

    def _file(self, digest: str) -> Path:
        return cached_file(self._name, digest, features=self.of_features)

    def _files(self) -> Iterator[Path]:
        """Those of this name and key, the oldest first."""
        begin = self._file("").name.removesuffix(".npy")
        try:
            found = [path for path in self._folder.iterdir() if path.name.startswith(begin) and path.suffix == ".npy"]
            yield from sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))
        except OSError:  # no folder, none that may be read, or a file that is gone by now
            return


class ContentFeatures(ContentRows):
    """Features of one backbone, D numbers of float32 a picture file; arguments as of ContentRows, but `width` is D."""

    what, of_features = "features", True

    def __init__(self, name: str, key: str, width: int) -> None:
        super().__init__(name, key, 4 * width)

    def row_of(self, content: bytes) -> np.ndarray | None:
        """Features [D] of a file of that SHA-256, or None."""
        row = super().row_of(content)
        return None if row is None else numbers(row[None])[0]

    def add(self, content: bytes, row: np.ndarray) -> None:
        """Remember features [D] of a file of that SHA-256, unless they are not finite; see ContentRows."""
        if np.isfinite(row).all():
            super().add(content, np.array(row, "<f4").view(np.uint8))

    def is_sound(self, rows: np.ndarray) -> bool:
        """Whether the numbers are finite."""
        return bool(np.isfinite(numbers(rows[:, ID_BYTES:])).all())


def numbers(rows: np.ndarray) -> np.ndarray:
    """Features [n, D] of their bytes [n, 4 D]."""
    return np.array(rows, order="C").view("<f4")


def content_of(path: str | os.PathLike[str]) -> tuple[bytes, tuple[int, ...]] | None:
    """SHA-256 of what a file holds, and what changes when it is written to; None where it is not to be read at all."""
    try:
        state = state_of(path)
        if state is None:
            return None
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(READ_AT_ONCE):
                digest.update(block)
        return digest.digest(), state
    except OSError:  # who decodes it will say so
        return None


def state_of(path: str | os.PathLike[str]) -> tuple[int, ...] | None:
    """Number, size and time of change of a regular file of no more than MAX_FILE_BYTES, else None; OSError for none."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
