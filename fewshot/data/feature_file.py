"""The file that features lie in: read by memory-mapping, written aside and renamed, by one rank of every folder."""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewshot.data.cached_array import CachedArray, read_array
from fewshot.data.pictures import progress_bar
from fewshot.data.ranks import gathered, rank_and_world_size

SECONDS_UNTIL_SEEN = 60


class Features:
    """Features of all pictures of a split, memory-mapped.

    Workers and ranks share the pages of the file; pickling one passes its path on, not its contents.

    Args:
        path: a float32 .npy file [V, n, D]: V views of n pictures.

    Raises ValueError where the file holds anything else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        # Copy on write: the same pages as read-only, but torch takes the array without a warning.
        array = np.load(self.path, mmap_mode="c", allow_pickle=False)
        if array.ndim != 3 or array.dtype != np.float32:
            raise ValueError(f"{path} holds {array.dtype} {list(array.shape)}, not float32 [views, pictures, width]")
        self.n_views, self.n_pictures, self.width = array.shape
        self._rows = torch.from_numpy(array.reshape(-1, self.width))  # [V*n, D]

    def read(self, index: np.ndarray, views: np.ndarray | None = None) -> Tensor:
        """float32 [*, D] for pictures index [*], each in the view of the same place in views [*] (view 0 if None)."""
        rows = index if views is None else views * self.n_pictures + index
        chosen = self._rows.index_select(0, torch.from_numpy(np.ascontiguousarray(rows).reshape(-1)))
        return chosen.view(*rows.shape, self.width)

    def __reduce__(self) -> tuple[type[Features], tuple[Path]]:
        """Map the file again on the other side."""
        return Features, (self.path,)


def found_features(path: Path, size: tuple[int, int]) -> bool:
    """Whether that file holds whole features of so many views of so many pictures."""
    return read_array(path, "<f4", (*size, None)) is not None


def write_features(
    path: Path, batches: Iterator[list[np.ndarray]], size: tuple[int, int], *, name: str, partners: Sequence[int]
) -> None:
    """Put the features into a file aside, then give it its name; one rank of each cache folder does, all take part.

    Args:
        path: the file.
        batches: as `encoded` yields them.
        size: how many views of how many pictures.
        name: for messages.
        partners: the ranks that want this file.
    """
    rank, _ = rank_and_world_size()
    first_rank, progress = rank == 0, progress_bar(f"encoding {name} once", size[0] * size[1])
    aside = _Aside(path)
    try:
        asides = gathered(aside.open)
        # Who sees whose files tells who shares a folder; its first rank writes.
        seen = gathered(lambda: [other for other in asides if (path.parent / other).exists()])
        writer = min(partner for partner in partners if seen[partner] == seen[rank])
        if rank != writer:
            aside.remove()
        for parts in batches:
            gathered(partial(aside.append, parts, size) if rank == writer else _nothing)
            if first_rank:
                progress.update(sum(map(len, parts)))
        gathered(aside.rename if rank == writer else _nothing)
        gathered(partial(_wait_for, path, size))
    finally:
        progress.close()
        aside.remove()


class _Aside:
    """A file of features that is being written. Its errors are ValueErrors that say what to do."""

    def __init__(self, path: Path) -> None:
        self.path, self._whole, self._needed = path, CachedArray(path, "<f4"), 0

    def open(self) -> str:
        """Make the file; returns its name."""
        with self._told():
            self._whole.open()
        return self._whole.aside.name

    def append(self, parts: Sequence[np.ndarray], size: tuple[int, int]) -> None:
        """Write parts [B, D] of `size` (views, pictures); the first ones bring D, and with it the header."""
        with self._told():
            if not self._whole.begun and parts:
                shape = (*size, parts[0].shape[1])
                self._needed = int(np.prod(shape)) * 4 + 160
                free = shutil.disk_usage(self.path.parent).free
                if self._needed > free:
                    raise OSError(errno.ENOSPC, f"{free:,} bytes are free")
                self._whole.begin(shape)
            for part in parts:
                self._whole.append(part)

    def rename(self) -> None:
        """Give the file its name."""
        with self._told():
            self._whole.finish()

    def remove(self) -> None:
        """Leave nothing behind, unless the file has got its name."""
        self._whole.discard()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            advice = "set FEWSHOT_CACHE to another folder, or set data.store_features=false"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ValueError(
                    f"{self.path} needs {self._needed:,} bytes but the disk is full ({error.strerror}); make room, "
                    + advice
                ) from error
            raise ValueError(f"cannot write features to {self.path.parent} ({error}); {advice}") from error


def _nothing() -> None:
    """What a rank does while another one writes."""


def _wait_for(path: Path, size: tuple[int, int]) -> None:
    """Return once the file is there: another node may see a minute late what has been renamed on a network disk."""
    for _ in range(2 * SECONDS_UNTIL_SEEN):
        if found_features(path, size):
            return
        time.sleep(0.5)
    raise ValueError(f"{path} was written but is not to be seen here; set FEWSHOT_CACHE to a folder of each node's own")
