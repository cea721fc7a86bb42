"""An array in the cache folder: written part by part with a digest behind it, and read only where the two agree."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from fewshot.files import WholeFile

DIGEST = hashlib.sha256
READ_AT_ONCE = 2**24
logger = logging.getLogger(__name__)
_checked: dict[Path, tuple[int, ...]] = {}
_said: set[tuple[Path, tuple[int, ...]]] = set()


class CachedArray:
    """An .npy file that is being written, there whole or not at all, with the SHA-256 of its numbers behind them.

    Call `open`, `begin` with the shape, `append` for every part, then `finish`; `discard` leaves nothing behind.

    Args:
        path: where it goes; it is written aside by a name that `fewshot.data.cache.cached_files` tells.
        dtype: of the numbers, in their order on the disk.
    """

    def __init__(self, path: Path, dtype: str) -> None:
        self.path, self.dtype, self.begun = path, np.dtype(dtype), False
        self._whole = WholeFile(path, "wb", aside=path.parent / f".{path.stem}-{secrets.token_hex(4)}.npy")
        self._file: IO[bytes] | None = None
        self._digest, self._missing = DIGEST(), 0

    @property
    def aside(self) -> Path:
        """Where it is written before."""
        return self._whole.aside

    def open(self) -> None:
        """Make the file."""
        self._file = self._whole.open()

    def begin(self, shape: tuple[int, ...]) -> None:
        """Write the header."""
        assert self._file is not None
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self.begun, self._missing = True, math.prod(shape) * self.dtype.itemsize

    def append(self, part: np.ndarray) -> None:
        """Write numbers that follow those before."""
        assert self._file is not None
        numbers = np.ascontiguousarray(part, dtype=self.dtype).reshape(-1).view(np.uint8).data
        self._digest.update(numbers)
        self._file.write(numbers)
        self._missing -= len(numbers)

    def finish(self) -> None:
        """Write the digest, and give the file its name."""
        assert self._file is not None and self._missing == 0
        self._file.write(self._digest.digest())
        self._whole.finish()
        self._file = None

    def discard(self) -> None:
        """Leave nothing behind, unless the file has got its name."""
        self._whole.discard()


def read_array(path: Path, dtype: str, shape: Sequence[int | None]) -> np.memmap | None:
    """The numbers of that file, memory-mapped and read-only; None where there is no file, or a damaged one.

    The digest is compared once in a process, again where the file has changed. Of a damaged file one line is said.

    Args:
        path: the file.
        dtype: of its numbers.
        shape: of the array; None for a side of any length.
    """
    try:
        status = os.stat(path)
    except OSError:  # none, or none that may be read: who writes it will say so
        return None
    state = (status.st_ino, status.st_size, status.st_mtime_ns)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        fault = _fault(array, np.dtype(dtype), shape, size=status.st_size, is_checked=_checked.get(path) == state)
    except (OSError, ValueError, EOFError) as error:
        array, fault = None, " ".join(str(error).split()) or type(error).__name__
    if not fault:
        _checked[path] = state
        return array
    if (path, state) not in _said:
        _said.add((path, state))
        logger.warning("%s is damaged (%s); it is made again", path, fault)
    return None


def _fault(array: Any, dtype: np.dtype, shape: Sequence[int | None], *, size: int, is_checked: bool) -> str:
    """What is wrong with a file's array, nothing where that is nothing."""
    fits = array.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
    if not fits or array.dtype != dtype or not array.flags.c_contiguous:
        wanted = ", ".join("any" if side is None else str(side) for side in shape)
        return f"it holds {array.dtype} {list(array.shape)}, not {dtype} [{wanted}]"
    end = array.offset + array.nbytes
    if size != end + DIGEST().digest_size:
        return f"it has {size} bytes, not {end + DIGEST().digest_size}"
    if is_checked:
        return ""
    digest = DIGEST()
    with open(array.filename, "rb") as file:
        file.seek(array.offset)
        for start in range(array.offset, end, READ_AT_ONCE):
            digest.update(file.read(min(READ_AT_ONCE, end - start)))
        return "" if digest.digest() == file.read() else "its numbers are not those that were written"
