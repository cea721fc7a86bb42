"""A folder of results that is whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = ".unfinished"
"""Folder in the output that holds files until all of them are written."""


def check_output(folder: Path, *, overwrite: bool) -> None:
    """ValueError where something would be lost: a file of that name, or a folder with something in it."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output: {folder} is a file; name a folder")
    if not overwrite and folder.is_dir() and any(path.name != UNFINISHED for path in folder.iterdir()):
        raise ValueError(f"output: {folder} has files in it; name another folder, or give --overwrite")


@contextlib.contextmanager
def written_whole(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write to; its files move into `folder` when the block ends, and are gone where it fails.

    Nothing outside `folder` is touched. What was in it and is not written anew stays.

    Args:
        folder: made where it is not there.
        overwrite: whether files in it may be replaced.

    Raises:
        ValueError: as `check_output`; or the folder cannot be written to.
    """
    check_output(folder, overwrite=overwrite)
    aside, made = folder / UNFINISHED, not folder.exists()
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    except OSError as error:
        raise ValueError(f"output: cannot write to {folder} ({error}); name another folder") from error
    try:
        yield aside
        for path in sorted(aside.iterdir()):
            os.replace(path, folder / path.name)
        aside.rmdir()
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
