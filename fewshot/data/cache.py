"""The cache folder: where it is, how its files are named, and how long they have been there."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from fewshot.files import expanded

fcntl: ModuleType | None


try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None


PICTURES, FEATURES, UNFINISHED = "decoded pictures", "features", "unfinished"
NAME_LENGTH = 100
"""Characters of a data set and split in a file's name; what follows them tells files apart."""
_FINISHED = re.compile(
    r"(features-(?P<of_features>[-.\w]+)-[0-9a-f]{32}|(?P<of_pictures>[-.\w]+)-[0-9a-f]{20})\.npy", re.A
)
_ASIDE = re.compile(r"\.(?P<finished>.+)-[0-9a-f]{8}\.npy")


def cache_dir() -> Path:
    """The folder of decoded pictures and features: $FEWSHOT_CACHE, else ~/.cache/fewshot. All of it may be deleted."""
    chosen = os.environ.get("FEWSHOT_CACHE")
    return expanded(chosen) if chosen else Path.home() / ".cache" / "fewshot"


def cached_file(name: str, digest: str, *, features: bool = False) -> Path:
    """Where an array of this name and hash lies, made or not, whatever characters the name has.

    Args:
        name: of data set and split, such as "cifar_fs-train".
        digest: hexadecimal, of everything that the array depends on; 20 characters of it are kept, 32 for features.
        features: whether these are features rather than decoded pictures.
    """
    plain = re.sub(r"[^-.0-9A-Za-z_]", "_", name)[:NAME_LENGTH].lstrip(".") or "_"
    return cache_dir() / (f"features-{plain}-{digest[:32]}.npy" if features else f"{plain}-{digest[:20]}.npy")


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let one process of this machine at a time make `path`, so that its ranks need not all do the same work.

    It saves work and nothing else: where the system or the disk knows no locks, processes do not wait for each other.
    """
    lock = path.with_name(f".{path.stem}.lock")
    with contextlib.ExitStack() as opened:
        with contextlib.suppress(OSError):  # a folder that cannot be written to is found out by whoever writes
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = opened.enter_context(lock.open("w"))
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX)  # let go of when the file is closed, also by a kill
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()


class CachedFile(NamedTuple):
    """A file of ours in the cache folder."""

    path: Path
    kind: str
    """PICTURES, FEATURES or UNFINISHED."""
    name: str
    """Data set and split, such as cifar_fs-train."""
    size: int
    """Bytes."""
    age: float
    """Seconds since it was written."""


def cached_files(folder: Path) -> list[CachedFile]:
    """The files of this package in the folder, by kind and name; everything else is left out, links and folders too."""
    now, found = time.time(), []
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            status = path.lstat()
        except FileNotFoundError:  # somebody has just finished writing it, or cleared it
            continue
        described = _described(path.name) if stat.S_ISREG(status.st_mode) else None
        if described is not None:
            found.append(CachedFile(path, *described, status.st_size, max(0.0, now - status.st_mtime)))
    return sorted(found, key=lambda file: (file.kind, file.name, file.path.name))


def _described(name: str) -> tuple[str, str] | None:
    """Kind and data set of a file by its name; None for a name that we do not give."""
    if match := _ASIDE.fullmatch(name):
        inner = _described(f"{match['finished']}.npy")
        return None if inner is None else (UNFINISHED, inner[1])
    match = _FINISHED.fullmatch(name)
    if match is None or name.startswith("."):
        return None
    return (FEATURES, match["of_features"]) if match["of_features"] else (PICTURES, match["of_pictures"])
