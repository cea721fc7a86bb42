"""The pictures of one split as square uint8 arrays: decoded once and memory-mapped when small, on demand when large."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.profiler import record_function

from fewshot.data.cache import alone, cached_file
from fewshot.data.cached_array import CachedArray, read_array
from fewshot.data.pictures import open_picture, progress_bar, square_picture
from fewshot.data.transforms import Preprocessing

MAX_CACHED_BYTES = 2 * 1024**3
CACHE_FORMAT = 2  # raised whenever decoding changes, so that arrays written before are not read any more
PICTURES_AT_A_TIME = 64
DECODING_THREADS = min(8, os.cpu_count() or 1)


class Pictures(Protocol):
    """Where pictures come from: files, or arrays of a data set that comes as one archive."""

    @property
    def names(self) -> Sequence[str]:
        """For each picture "<class>/<picture>"."""

    def open(self, number: int) -> Image.Image:
        """Picture `number`, decoded, of any size and mode."""

    def stamp(self) -> Iterable[str]:
        """Lines that change whenever a picture does, cheap to have: file names, sizes and times of change."""


class PictureFiles:
    """Pictures that are files of their own.

    Args:
        paths: one file each, `.../<class>/<picture>`.
        names: for each "<class>/<picture>"; None takes the last two parts of its path.
    """

    def __init__(self, paths: Sequence[Path], names: Sequence[str] | None = None) -> None:
        self.paths = [str(path) for path in paths]
        self.names = ["/".join(path.rsplit(os.sep, 2)[-2:]) for path in self.paths] if names is None else list(names)

    def open(self, number: int) -> Image.Image:
        """The decoded picture. Raises ValueError with its path when it cannot be read."""
        return open_picture(self.paths[number])

    def stamp(self) -> Iterator[str]:
        """Path, size in bytes and time of change of each file."""
        for path in self.paths:
            try:
                status = os.stat(path)
            except OSError as error:
                raise ValueError(f"cannot read picture {path} ({error.strerror}); replace or remove it") from error
            yield f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}"


class Images:
    """The pictures of one split: square, one size, uint8.

    Args:
        array: uint8 [n, C, S, S], or None when pictures are decoded as they are read.
        labels: int64 [n] in 0..len(class_names)-1.
        class_names: one per class, in the order of labels.
        names: [n] "<class>/<picture>", says where each picture comes from.
        pictures: the source, needed where array is None.
        preprocessing: how pictures are resized, needed where array is None.
    """

    def __init__(
        self,
        array: np.ndarray | None,
        labels: np.ndarray,
        class_names: Sequence[str],
        names: Sequence[str],
        *,
        pictures: Pictures | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self.labels = np.asarray(labels, dtype=np.int64)
        self.class_names = list(class_names)
        self.names = names
        assert array is not None or (pictures is not None and preprocessing is not None)
        assert array is None or (array.dtype == np.uint8 and array.ndim == 4 and array.shape[2] == array.shape[3])
        assert len(self.labels) == len(names) == (len(names) if array is None else len(array))
        self._file = str(array.filename) if isinstance(array, np.memmap) and array.filename else None
        self._array = None if array is None else array.view(np.ndarray)  # a memmap's own indexing is slow
        self._pictures = pictures
        self._preprocessing = preprocessing

    def __len__(self) -> int:
        """How many pictures."""
        return len(self.labels)

    def check_stored(self, preprocessing: Preprocessing, source: str) -> None:
        """Raise ValueError where they are not of the size and channels that a data set of that name was asked for."""
        wanted = (preprocessing.channels, preprocessing.stored_size)
        own = self._preprocessing
        decoded = wanted if own is None else (own.channels, own.stored_size)
        found = decoded if self._array is None else self._array.shape[1:3]
        if found != wanted:
            raise ValueError(
                f"{source}: images(split, preprocessing) gives pictures of {found[0]} channels and {found[1]} px where "
                f"preprocessing asks for {wanted[0]} and stored_size={wanted[1]}; let it resize and convert them"
            )

    def names_of_episode(self, support_index: Iterable[int], support_labels: Iterable[int], n_way: int) -> list[str]:
        """Names of an episode's N classes, in the order of their labels.

        Args:
            support_index: [S] pictures of the support.
            support_labels: [S], in 0..N-1.
            n_way: N.
        """
        names = [""] * n_way
        for picture, label in zip(support_index, support_labels, strict=True):
            names[int(label)] = self.class_names[int(self.labels[int(picture)])]
        return names

    def read(self, index: np.ndarray) -> Tensor:
        """Pictures of the given numbers, uint8 [B, C, S, S], for index int [B]. The result is a copy."""
        index = np.asarray(index)
        if self._array is not None:
            with record_function("reading"):
                return torch.from_numpy(self._array[index])
        with record_function("decode"):
            return torch.from_numpy(self._decode(index))

    def _decode(self, index: np.ndarray) -> np.ndarray:
        """uint8 [B, C, S, S]; by threads, unless this is one of several worker processes."""
        pictures, preprocessing = self._pictures, self._preprocessing
        assert pictures is not None and preprocessing is not None
        size, channels = preprocessing.stored_size, preprocessing.channels
        result = np.empty((len(index), channels, size, size), dtype=np.uint8)

        def fill(rows: range) -> None:
            for row in rows:
                number = int(index[row])
                result[row] = square_picture(pictures.open(number), preprocessing, name=pictures.names[number])

        threads = DECODING_THREADS if torch.utils.data.get_worker_info() is None else 1
        if threads == 1 or len(index) < 2 * threads:
            fill(range(len(index)))
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(fill, [range(first, len(index), threads) for first in range(threads)]))
        return result

    @property
    def memory_mapped(self) -> bool:
        """Whether pictures were decoded once and lie in a file, rather than in memory or undecoded."""
        return self._file is not None

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal sha256 of the pictures and labels.

        Of the pixels where they are held as an array; of file names, sizes and times of change where they are decoded
        on demand.
        """
        digest = hashlib.sha256()
        if self._array is not None:
            digest.update(repr(self._array.shape).encode())
            for start in range(0, len(self._array), 4096):
                digest.update(self._array[start : start + 4096].tobytes())
        else:
            assert self._pictures is not None
            digest.update(repr(self._preprocessing).encode())
            for line in self._pictures.stamp():
                digest.update(line.encode())
        digest.update(self.labels.tobytes())
        digest.update("\n".join(self.class_names).encode())
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """Leaves a memory-mapped array out: worker processes map the file again instead of receiving a copy."""
        state = self.__dict__.copy()
        if self._file is not None:
            state["_array"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Maps the file again."""
        self.__dict__.update(state)
        if self._file is not None:
            self._array = np.load(self._file, mmap_mode="r", allow_pickle=False).view(np.ndarray)


def load_images(
    pictures: Pictures,
    labels: np.ndarray,
    class_names: Sequence[str],
    preprocessing: Preprocessing,
    *,
    key: str,
    max_cached_bytes: int = MAX_CACHED_BYTES,
) -> Images:
    """Images read from pictures: decoded once into a memory-mapped file, or on demand when that would be too large.

    Args:
        pictures: where they come from.
        labels: [n].
        class_names: one per class.
        preprocessing: stored_size, channels and interpolation are used.
        key: begins the file's name, such as "cifar_fs-train".
        max_cached_bytes: above so many bytes pictures are decoded each time they are read.

    Raises:
        ValueError: a picture that cannot be read, by its path (when it is decoded).
    """
    size, channels = preprocessing.stored_size, preprocessing.channels
    shape = (len(labels), channels, size, size)
    if int(np.prod(shape, dtype=np.int64)) > max_cached_bytes:
        return Images(None, labels, class_names, pictures.names, pictures=pictures, preprocessing=preprocessing)
    described: dict[str, object] = {"key": key, "shape": shape, "interpolation": preprocessing.interpolation}
    if preprocessing.invert:
        described["invert"] = True
    path = cache_path(key, described, pictures.stamp())
    array = load_cached(path, shape)
    if array is None:
        with alone(path), record_function("decode"):
            array = load_cached(path, shape)  # another process may have been faster
            if array is None:
                array = write_cached(path, shape, _decoded(pictures, preprocessing, what=key))
    return Images(array, labels, class_names, pictures.names)


def cache_path(name: str, described: Mapping[str, object], stamp: Iterable[str] = ()) -> Path:
    """Where an array of this description lies in the cache, made or not: another description, another file."""
    digest = hashlib.sha256(json.dumps({"format": CACHE_FORMAT, **described}, sort_keys=True).encode())
    for line in stamp:
        digest.update(b"\n" + line.encode("utf-8", "surrogateescape"))
    return cached_file(name, digest.hexdigest())


def load_cached(path: Path, shape: tuple[int, ...]) -> np.memmap | None:
    """The uint8 array of that file, memory-mapped and read-only, or None when there is no whole one of that shape."""
    return read_array(path, "u1", shape)


def write_cached(path: Path, shape: tuple[int, ...], parts: Iterable[np.ndarray]) -> np.memmap:
    """Writes the parts, which follow one another along the first axis, and returns them memory-mapped, read-only.

    The file is written aside and then renamed, so that another process sees all of it or nothing.
    """
    whole = CachedArray(path, "u1")
    try:
        # Written, not mapped: on a full disk a write fails with an error, a mapped page kills the process.
        whole.open()
        whole.begin(shape)
        for part in parts:
            whole.append(part)
        whole.finish()
    except OSError as error:
        raise ValueError(
            f"cannot write decoded pictures to {path.parent} ({error}); set FEWSHOT_CACHE to another folder"
        ) from error
    finally:
        whole.discard()
    loaded = load_cached(path, shape)
    assert loaded is not None
    return loaded


def _decoded(pictures: Pictures, preprocessing: Preprocessing, *, what: str) -> Iterator[np.ndarray]:
    """Parts of [n, C, S, S] in order, decoded by threads (Pillow lets go of the interpreter lock)."""
    total = len(pictures.names)

    def part(start: int) -> np.ndarray:
        numbers = range(start, min(start + PICTURES_AT_A_TIME, total))
        return np.stack(
            [square_picture(pictures.open(number), preprocessing, name=pictures.names[number]) for number in numbers]
        )

    progress = progress_bar(f"decoding {what} once", total)
    threads = DECODING_THREADS
    with ThreadPoolExecutor(threads) as pool:
        starts = range(0, total, PICTURES_AT_A_TIME)
        # In rounds, so that the results of a large set do not pile up before they are written.
        for first in range(0, len(starts), 4 * threads):
            for array in pool.map(part, starts[first : first + 4 * threads]):
                yield array
                progress.update(len(array))
    progress.close()
