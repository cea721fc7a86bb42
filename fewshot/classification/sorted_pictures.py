"""Classified pictures in a folder for each class: copies, or hard links, which take no room."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from fewshot.classification.classified import Classified

NONE_FOLDER = "none_of_these"
"""Of those that are of none of the classes."""
LONGEST = 255
"""Bytes of a name in a folder at most."""
NO_NAME = re.compile(r"[\x00-\x1f\x7f/\\:*?\"<>|]|^[ .]|[ .]$|%(?=[0-9A-Fa-f]{2})")
"""What some system does not take in a folder's name, and what would read as an escape of that."""
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names of devices on Windows."""


def of_classes(classified: Classified, folder: Path) -> list[tuple[Path, str | None]]:
    """The pictures of the queries' folder with their classes, None for none of them, those too that a table labelled.

    Args:
        classified: what came of pictures.
        folder: of the queries.
    """
    names = classified.class_names
    queries = zip(classified.query, classified.predicted, classified.flagged, strict=True)
    labelled = zip(classified.support, classified.support_labels, strict=True)
    return [
        *((file, None if flagged else names[c]) for file, c, flagged in queries if isinstance(file, Path)),
        *((file, names[c]) for file, c in labelled if isinstance(file, Path) and folder in file.parents),
        *((file, None) for file in classified.nones if isinstance(file, Path)),
    ]


def folder_name(class_name: str) -> str:
    """The class's name as that of a folder on any system: what cannot stand in one is escaped, as %2F for a slash.

    Raises:
        ValueError: it is empty or too long.
    """
    name = NO_NAME.sub(lambda found: f"%{ord(found[0]):02X}", class_name)
    name = f"%{ord(name[0]):02X}{name[1:]}" if RESERVED.fullmatch(name) else name
    if not name or len(os.fsencode(name)) > LONGEST:
        what = "too long" if name else "empty"
        raise ValueError(f"sorted: the name of class {class_name[:40]!r} is {what} for that of a folder; shorten it")
    return name


def check_sorted(target: Path, others: Sequence[tuple[str, Path]]) -> None:
    """ValueError where the folder is one of the others, or lies in one, or one in it.

    Args:
        target: where pictures are to be sorted into; resolved.
        others: options and their folders.
    """
    for name, other in others:
        place = other.resolve()
        if target == place or place in target.parents or (name == "output" and target in place.parents):
            raise ValueError(f"sorted: {target} and {name} {place} lie in each other; name a folder beside it")


def write_sorted(folder: Path, pictures: Sequence[tuple[Path, str | None]], *, link: bool) -> int:
    """Copy or link every picture into the folder of its class; returns how many folders that are.

    A name that is taken gets a number: `cat.jpg`, `cat-2.jpg`. Names that differ in case alone are taken for the same.

    Args:
        folder: empty.
        pictures: each with its class, None for none of them.
        link: hard links in the place of copies.

    Raises:
        ValueError: a class without a usable name, a picture that is gone, or a system that does not link.
    """
    if any(_alike(name) == NONE_FOLDER for _, name in pictures if name is not None):
        raise ValueError(f"sorted: a class is called {NONE_FOLDER}, as the folder of those that are of none; rename it")
    taken: set[tuple[str, str]] = set()
    places: dict[str | None, str] = {None: NONE_FOLDER}
    for name in dict.fromkeys(name for _, name in pictures):
        if name is not None:
            places[name] = _free(folder_name(name), "", taken)
    for path, name in pictures:
        place = folder / places[name]
        place.mkdir(exist_ok=True)
        target = place / _free(path.name, places[name], taken)
        try:
            if link:
                os.link(path.resolve(), target)
            else:
                shutil.copy2(path, target)
        except FileNotFoundError as error:
            raise ValueError(f"sorted: {path} is gone") from error
        except OSError as error:
            if not link:
                raise
            raise ValueError(f"sorted: {path} cannot be linked ({error.strerror}); leave --link out to copy") from error
    return len({places[name] for _, name in pictures})


def _free(name: str, place: str, taken: set[tuple[str, str]]) -> str:
    """The name with a number where it is taken in that place; it is taken then."""
    stem, ending = os.path.splitext(name)
    number, free = 1, name
    while (place, _alike(free)) in taken:
        number += 1
        kept = stem
        while len(os.fsencode(free := f"{kept}-{number}{ending}")) > LONGEST and kept:
            kept = kept[:-1]
    taken.add((place, _alike(free)))
    return free


def _alike(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
