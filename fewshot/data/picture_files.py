"""Which files of a folder are pictures, and which are left out: nothing is left out without a word."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from fewshot.data.pictures import FORMATS, picture_endings

LeftOut = tuple[Path, str]
"""A file that is not read, and why, which begins with its path."""


def pictures_below(folder: Path) -> list[Path]:
    """Files in the folder and the folders in it with a picture's ending, in the order of their names."""
    endings = picture_endings()
    return [Path(where, name) for where, name in files_below(folder) if name.lower().endswith(endings)]


def left_out_below(folder: Path, *, classes: bool) -> list[LeftOut]:
    """The other files, and where the folder is one of class folders, pictures that lie in none of them."""
    found, endings = [], picture_endings()
    for where, name in files_below(folder):
        is_picture = name.lower().endswith(endings)
        if is_picture and not (classes and where == os.fspath(folder)):
            continue
        path = Path(where, name)
        ending = path.suffix.lower()
        if is_picture:
            reason = "it lies in no class folder"
        elif ending in FORMATS["HEIF"]:
            reason = "HEIC needs pillow-heif, which the extra heif of this package brings"
        else:
            reason = f"pictures with the ending {ending} are not read" if ending else "it has no ending"
        found.append((path, f"{path}: {reason}"))
    return found


def told(left_out: Sequence[LeftOut]) -> str:
    """How many files are left out, by their endings, and the first one with its reason."""
    kinds = Counter(path.suffix.lower() or "without ending" for path, _ in left_out)
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return f"{len(left_out)} files are left out ({counted}); the first: {left_out[0][1]}"


def files_below(folder: Path) -> Iterator[tuple[str, str]]:
    """Folder and name of the files in a folder and those in it, hidden ones left out, in the order of their names.

    Links are followed; a folder that is reached twice counts once.

    Raises:
        ValueError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise ValueError(f"{error.filename} cannot be read ({error.strerror}); let it be read, or take it out")

    seen: set[str] = set()
    for where, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if os.path.realpath(where) in seen:  # a link back into the folder
            folders.clear()
            continue
        seen.add(os.path.realpath(where))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from ((where, name) for name in sorted(names) if not name.startswith("."))
