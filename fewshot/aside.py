"""Folders that are there whole or not at all: written aside, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def written_aside(folder: str | os.PathLike[str], *, overwrite: bool, known: Collection[str]) -> Iterator[Path]:
    """An empty folder to write into, which becomes `folder` when this ends, and goes where it ends by an exception.

    Args:
        folder: where the result goes; made with its parents. `~` and environment variables are filled in.
        overwrite: whether a folder that is there may be replaced; an empty one may always.
        known: names of the files that may be written; a folder that holds anything else is never replaced.

    Raises:
        ValueError: the folder is there and may not be replaced, is a file, cannot be made, or the disk is full.
    """
    target = full_path(folder)
    check_replaceable(target, overwrite=overwrite, known=known)
    aside = target.parent / f".{target.name}.{secrets.token_hex(4)}.partial"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
    except OSError as error:
        raise ValueError(f"{target} cannot be made: {error.strerror}; name another folder") from error
    try:
        yield aside
        _rename(aside, target)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise ValueError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_replaceable(target: Path, *, overwrite: bool, known: Collection[str]) -> None:
    """Raise ValueError where `written_aside` would; arguments as there, but for a path that is resolved."""
    check_place(target)
    if not target.exists():
        return
    if not target.is_dir():
        raise ValueError(f"{target} is a file; name a folder")
    found = sorted(os.listdir(target))
    if found and not overwrite:
        raise ValueError(f"{target} is there already; name another folder, or allow overwriting it (overwrite)")
    others = [name for name in found if name not in known]
    if others:
        named = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise ValueError(
            f"{target} is not overwritten: it holds {named}, which nothing here wrote; name another folder"
        )


def check_place(target: Path) -> None:
    """Raise ValueError where nothing could be written at this path, which is resolved."""
    above = next((place for place in target.parents if os.path.lexists(place)), target)  # the root has none
    if not above.is_dir():
        raise ValueError(f"{target} cannot be made: {above} is a file; name another folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(f"{target} cannot be made: nothing may be written into {above}; name another folder")


def full_path(given: str | os.PathLike[str]) -> Path:
    """The path, absolute, with `~` and environment variables filled in and links followed."""
    return Path(os.path.expandvars(os.path.expanduser(os.fspath(given)))).resolve()


def _rename(aside: Path, target: Path) -> None:
    """Put the folder in the place of the other, which comes back where that fails."""
    if not target.exists():
        aside.rename(target)
        return
    old = aside.with_suffix(".old")
    target.rename(old)
    try:
        aside.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
