"""A person's own pictures: folders of labelled ones, a folder of those to classify, and what may be wrong with them."""

from __future__ import annotations

import contextlib
import hashlib
import stat
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from fewshot.classification.encoder import PictureEncoder
from fewshot.classification.task import Task
from fewshot.data.datasets.base import subfolders
from fewshot.data.picture_files import pictures_below
from fewshot.data.pictures import MAX_FILE_BYTES, picture_endings


def support_folder(folder: Path) -> dict[str, list[Path]]:
    """The labelled pictures of `<folder>/<class>/...`, by class, in the order of their names.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no class, or a class without a picture.
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
            f"support: class {empty[0]!r} has no picture; {folder / empty[0]} needs at least one file that is "
            f"read ({' '.join(picture_endings())}), or remove the folder"
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
            f"query: {folder} has no picture in it, nor have its folders; it needs files that are read: "
            f"{' '.join(picture_endings())}"
        )
    return files


def check_apart(support: dict[str, list[Path]], query: Sequence[Path]) -> None:
    """ValueError where a support picture is among the queries or in two classes, byte by byte."""
    names = {path: name for name, files in support.items() for path in files}
    for group in _same_content(names, query):
        labelled = [path for path in group if path in names]
        others = [path for path in group if path not in names]
        classes = sorted({names[path] for path in labelled})
        if len(classes) > 1:
            first, second = (next(path for path in labelled if names[path] == name) for name in classes[:2])
            raise ValueError(f"support: {first} and {second} are the same picture in two classes; remove one of them")
        if others or len(set(labelled)) < len(labelled):
            other = others[0] if others else labelled[0]
            raise ValueError(
                f"query: {other} is the same picture as {labelled[0]} of the support; a picture is labelled or to be "
                "classified, not both: remove it from one of the two"
            )


def check_alike(support: Mapping[str, Sequence[Path]], told: Mapping[Path, str | None]) -> None:
    """ValueError where a table of labels says another class of a picture than the support or the table itself does.

    Args:
        support: pictures of each class.
        told: what the table says of others; None for none of the classes.
    """
    every: dict[Path, str | None] = {path: name for name, files in support.items() for path in files}
    every.update(told)
    for group in _same_content(every, []):
        first = min(group, key=lambda path: path in told)
        for other in group:
            if other in told and told[other] != every[first]:
                one, two = ("none of these" if name is None else repr(name) for name in (told[other], every[first]))
                raise ValueError(
                    f"labels: {other} is {one}, and {first}, the same picture, is {two}; correct one of the two"
                )


def _same_content(support: Collection[Path], query: Sequence[Path]) -> Iterator[list[Path]]:
    """Groups of files of equal content in which the support occurs; files alone in their size are not read."""
    sizes = defaultdict(list)
    for path in (*support, *query):
        with contextlib.suppress(OSError):  # a link to nothing: reading it says so, as it does of what is left out here
            status = path.stat()
            if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_FILE_BYTES:
                sizes[status.st_size].append(path)
    for same_size in sizes.values():
        contents = defaultdict(list)
        for path in same_size if len(same_size) > 1 and any(path in support for path in same_size) else ():
            with contextlib.suppress(OSError):
                contents[hashlib.sha256(path.read_bytes()).digest()].append(path)
        yield from (same for same in contents.values() if len(same) > 1 and any(path in support for path in same))


def _check_folder(folder: Path, option: str, wanted: str) -> None:
    if not folder.is_dir():
        what = "a file, not a folder" if folder.exists() else "not there"
        raise FileNotFoundError(f"{option}: {folder.absolute()} is {what}; put {wanted}")


def encoded_folders(
    encoder: PictureEncoder,
    support: Mapping[str, Sequence[Path]],
    query: Sequence[Path],
    query_root: Path,
    *,
    skip_broken: bool,
) -> Task:
    """Features of labelled pictures by class, and of unlabelled ones.

    Args:
        encoder: what encodes them.
        support: pictures of each class.
        query: pictures to classify.
        query_root: the folder below which they are named.
        skip_broken: go on without pictures that cannot be read.

    Raises:
        ValueError: a picture cannot be read and is not to be skipped; a class, or the queries, without one that can.
    """
    names = tuple(support)
    labelled = [path for files in support.values() for path in files]
    of_support, support_kept, broken = _encoded(encoder, labelled, skip_broken, "encoding the support")
    numbers = np.repeat(np.arange(len(names)), [len(files) for files in support.values()])[support_kept]
    for number, name in enumerate(names):
        if number not in numbers:
            reason = next(reason for path, reason in broken if path in support[name])
            raise ValueError(f"support: no picture of class {name!r} can be read; the first: {reason}")
    of_query, query_kept, more = _encoded(encoder, query, skip_broken, "encoding the queries")
    if query and not len(of_query):
        raise ValueError(f"query: none of the {len(query)} pictures can be read; the first: {more[0][1]}")
    kept = tuple(query[place] for place in query_kept)
    return Task(
        names,
        tuple(labelled[place] for place in support_kept),
        numbers,
        of_support,
        kept,
        tuple(path.relative_to(query_root).as_posix() for path in kept),
        of_query,
        (*broken, *more),
    )


def _encoded(
    encoder: PictureEncoder, paths: Sequence[Path], skip_broken: bool, what: str
) -> tuple[Tensor, np.ndarray, list[tuple[Path, str]]]:
    """Features [n, D], places of the pictures that could be read, and the others with the reason."""
    try:
        found = encoder.encode(paths, skip_broken=skip_broken, what=what)
    except ValueError as error:
        raise ValueError(f"{error}; --broken skip goes on without it") from error
    return found.features, found.kept, [(paths[place], reason) for place, reason in found.broken]
