"""A person's own pictures: folders of labelled ones, a folder of those to classify, and what may be wrong with them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from PIL import Image

from fewshot.data.sets.base import subfolders


@cache
def picture_endings() -> frozenset[str]:
    """Endings of files that Pillow reads, in lower case."""
    kinds = Image.registered_extensions()
    return frozenset(ending for ending, kind in kinds.items() if kind in Image.OPEN and kind not in ("PDF", "MPEG"))


def support_folder(folder: Path) -> dict[str, list[Path]]:
    """The labelled pictures of `<folder>/<class>/...`, by class, in the order of their names.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no class, one class alone, or a class without a picture.
    """
    _check_folder(folder, "support", "labelled pictures as <support>/<class>/<picture>")
    classes = {path.name: pictures_below(path) for path in subfolders(folder)}
    if not classes:
        loose = len(pictures_below(folder))
        found = f"{loose} pictures and no class folder" if loose else "no class folder"
        raise ValueError(
            f"support: {folder} has {found} in it; put labelled pictures into one folder a class, "
            f"{folder}/<class>/<picture>"
        )
    empty = [name for name, files in classes.items() if not files]
    if empty:
        raise ValueError(
            f"support: class {empty[0]!r} has no picture; {folder / empty[0]} needs at least one file that Pillow "
            "reads, or remove the folder"
        )
    if len(classes) == 1:
        raise ValueError(
            f"support: {folder} has one class alone, {next(iter(classes))!r}; there is nothing to tell apart with "
            "fewer than two classes"
        )
    return classes


def query_folder(folder: Path) -> list[Path]:
    """The pictures to classify, in the folder and the folders in it, in the order of their names.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no picture in it.
    """
    _check_folder(folder, "query", "the pictures to classify there, flat or in folders")
    files = pictures_below(folder)
    if not files:
        raise ValueError(
            f"query: {folder} has no picture in it, nor have its folders; it needs files that Pillow reads, such as "
            ".jpg, .png, .webp, .tif"
        )
    return files


def pictures_below(folder: Path) -> list[Path]:
    """Files in the folder and the folders in it that end as Pillow's formats do, hidden ones left out.

    Links are followed; a folder that is reached twice counts once.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(where) in seen:  # a link back into the folder
            folders.clear()
            continue
        seen.add(os.path.realpath(where))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in picture_endings():
                found.append(Path(where, name))
    return found


def check_apart(support: dict[str, list[Path]], query: Sequence[Path]) -> None:
    """ValueError where a support picture is among the queries or in two classes, byte by byte."""
    owners = [(path, name) for name, files in support.items() for path in files]
    twins = _same_content([path for path, _ in owners], query)
    names = dict(owners)
    for group in twins:
        classes = {names[path] for path in group if path in names}
        labelled = [path for path in group if path in names]
        if len(classes) > 1:
            first, second = (next(path for path in labelled if names[path] == name) for name in sorted(classes)[:2])
            raise ValueError(f"support: {first} and {second} are the same picture in two classes; remove one of them")
        others = [path for path in group if path not in names]
        if others or len(set(labelled)) < len(labelled):
            other = others[0] if others else labelled[0]
            raise ValueError(
                f"query: {other} is the same picture as {labelled[0]} of the support; a picture is labelled or to be "
                "classified, not both: remove it from one of the two"
            )


def _same_content(support: Sequence[Path], query: Sequence[Path]) -> Iterable[list[Path]]:
    """Groups of files of equal content in which the support occurs; files alone in their size are not read."""
    sizes = defaultdict(list)
    for path in (*support, *query):
        with contextlib.suppress(OSError):  # a link to nothing: reading it says so
            sizes[path.stat().st_size].append(path)
    of_support = set(support)
    for same_size in sizes.values():
        if len(same_size) < 2 or not of_support.intersection(same_size):
            continue
        contents = defaultdict(list)
        for path in same_size:
            with contextlib.suppress(OSError):
                contents[hashlib.sha256(path.read_bytes()).digest()].append(path)
        yield from (group for group in contents.values() if len(group) > 1 and of_support.intersection(group))


def _check_folder(folder: Path, option: str, wanted: str) -> None:
    if not folder.is_dir():
        what = "a file, not a folder" if folder.exists() else "not there"
        raise FileNotFoundError(f"{option}: {folder.absolute()} is {what}; put {wanted}")
