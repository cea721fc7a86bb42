"""What every data set is, and how a tree of class folders is read and checked."""

from __future__ import annotations

import json
import os
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fewshot.data.images import MAX_CACHED_BYTES, Images, PictureFiles, load_images
from fewshot.data.picture_files import left_out_below, pictures_below, told
from fewshot.data.pictures import picture_endings
from fewshot.data.transforms import Preprocessing
from fewshot.files import expanded

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
ClassFolders = dict[str, list[Path]]
"""Class name -> its pictures, both in sorted order."""


class FewShotDataset(ABC):
    """Pictures with classes, in three splits that share no class.

    Constructing one touches no file; `images` does. To add a data set, write these three in a file of your own.

    Attributes:
        name: short, for file names and results, such as "cifar_fs".
        preprocessing: the set's own sizes, normalisation and training transforms.
    """

    name: str
    preprocessing: Preprocessing

    @abstractmethod
    def images(self, split: Split, preprocessing: Preprocessing | None = None) -> Images:
        """The pictures of one split, at the stored size of `preprocessing` (the set's own where None).

        Raises:
            FileNotFoundError: the data are not there; says where it looked and how to get them.
            ValueError: no such split, a wrong or partial copy, a picture that cannot be read.
        """


def whole_dataset(dataset: FewShotDataset) -> FewShotDataset:
    """The data set; ValueError where it lacks an attribute that it has to set."""
    if lacking := [name for name in ("name", "preprocessing") if not hasattr(dataset, name)]:
        raise ValueError(
            f"the data set {type(dataset).__name__} has no {' and no '.join(lacking)}; set self.name, a short word, "
            "and self.preprocessing, a Preprocessing"
        )
    return dataset


class FolderDataset(FewShotDataset):
    """A data set of class folders; a set of its own says which folders make a split.

    Attributes:
        root: the folder; `~` and environment variables are filled in.
        max_cached_bytes: splits larger than this, decoded, are decoded at each reading instead of once.
        help_text: how to get the data, for errors.
    """

    root: str
    max_cached_bytes: int
    help_text: str

    @abstractmethod
    def classes(self, root: Path, split: Split) -> ClassFolders:
        """The classes of a split, checked; errors as of `images`. `root` is there."""

    def images(self, split: Split, preprocessing: Preprocessing | None = None) -> Images:
        """The pictures of one split; raises FileNotFoundError without data, ValueError for a wrong or partial copy."""
        check_split(self.name, split)
        classes = self.classes(find_root(self.root, name=self.name, help_text=self.help_text), split)
        return images_of_files(
            classes,
            preprocessing or self.preprocessing,
            key=f"{self.name}-{split}",
            max_cached_bytes=self.max_cached_bytes,
        )


def check_split(name: str, split: str) -> None:
    """Raises ValueError for a split other than train, val and test."""
    if split not in SPLITS:
        raise ValueError(f"{name} has no split {split!r}; choose one of {', '.join(SPLITS)}")


def find_root(root: str, *, name: str, help_text: str) -> Path:
    """The folder `root`, which must exist. Raises FileNotFoundError saying where it looked and how to get the data."""
    path = expanded(root)
    if not path.is_dir():
        raise FileNotFoundError(f"{name}: no folder {path.absolute()} (root={root!r}); {help_text}")
    return path


def has_splits(root: Path, folders: Iterable[str] = SPLITS) -> bool:
    """Whether the folder holds at least one of the split folders."""
    return any((root / folder).is_dir() for folder in folders)


def class_folders(folder: Path, *, name: str, split: str) -> ClassFolders:
    """The classes of `<folder>/<class>/<picture>`, with pictures in folders below a class; hidden entries left out.

    Warns of files that are no pictures or lie in no class folder: how many, and which.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no class in it, or a class without a picture.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{name}: split {split!r} has no folder {folder.absolute()}; put its class folders there"
        )
    classes = {path.name: pictures_below(path) for path in subfolders(folder)}
    if not classes:
        raise ValueError(f"{name}: split {split!r} is empty; {folder.absolute()} has no class folder in it")
    for class_name, files in classes.items():
        if not files:
            raise ValueError(
                f"{name}: class {class_name!r} of split {split!r} has no picture; {(folder / class_name).absolute()} "
                f"needs files ending in {' '.join(picture_endings())}"
            )
    if left_out := left_out_below(folder, classes=True):
        warnings.warn(f"{name}: split {split!r}: {told(left_out)}", stacklevel=4)
    return classes


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name, hidden ones left out."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    return [folder / name for name in names]


def check_copy(
    classes: Mapping[str, Sequence[Any]],
    expected: Sequence[str],
    sizes: range,
    *,
    name: str,
    split: str,
    complete: bool,
) -> None:
    """Raises ValueError when a split of a known data set is not what it should be; names the first difference.

    Args:
        classes: class name -> its pictures.
        expected: the names of the classes.
        sizes: how many pictures a class may have.
        name: of the data set.
        split: of the data set.
        complete: False lets classes and pictures be missing, but not all of them.
    """
    check_classes(classes, expected, name=name, split=split, complete=complete)
    check_class_sizes(classes, sizes if complete else range(1, sys.maxsize), name=name, split=split)


def check_classes(
    found: Iterable[str], expected: Iterable[str], *, name: str, split: str, complete: bool = True
) -> None:
    """Raises ValueError when the classes found are not the expected ones; names the first that differ.

    With complete=False classes may be missing, none may be superfluous.
    """
    found, expected = set(found), set(expected)
    missing, superfluous = sorted(expected - found), sorted(found - expected)
    if not superfluous and found and not (missing and complete):
        return
    parts = [f"{word} {_some(names)}" for word, names in (("missing", missing), ("unexpected", superfluous)) if names]
    raise ValueError(
        f"split {split!r} of {name} has {len(found)} classes, expected {len(expected)}: {'; '.join(parts)}; "
        "this is another split or a partial copy"
    )


def check_class_sizes(classes: Mapping[str, Sequence[Any]], allowed: range, *, name: str, split: str) -> None:
    """Raises ValueError when a class has a number of pictures outside `allowed`; names the first."""
    for class_name, files in classes.items():
        if len(files) not in allowed:
            expected = str(allowed[0]) if len(allowed) == 1 else f"{allowed[0]} to {allowed[-1]}"
            expected = "at least 1" if allowed.stop == sys.maxsize else expected
            raise ValueError(
                f"class {class_name!r} in split {split!r} of {name} has {len(files)} pictures, expected {expected}; "
                "this is a partial or altered copy"
            )


def check_apart(classes: ClassFolders, folders: Mapping[Split, Path], *, name: str, split: Split) -> None:
    """Raises ValueError when a class of one split lies in the folder of another split too; names the first."""
    for other, folder in folders.items():
        shared = [path.name for path in subfolders(folder) if path.name in classes] if folder.is_dir() else []
        if shared and other != split:
            raise ValueError(
                f"{name}: splits {split!r} and {other!r} share {len(shared)} classes, such as {shared[0]!r} "
                f"({(folder / shared[0]).absolute()}); a class belongs to one split"
            )


def images_of_files(
    classes: ClassFolders,
    preprocessing: Preprocessing,
    *,
    key: str,
    max_cached_bytes: int = MAX_CACHED_BYTES,
) -> Images:
    """Images of class folders, labels in the order of the classes. `key` begins the name of the cached array."""
    paths = [path for files in classes.values() for path in files]
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    names = [name_in_class(path, class_name) for class_name, files in classes.items() for path in files]
    files = PictureFiles(paths, names)
    return load_images(files, labels, list(classes), preprocessing, key=key, max_cached_bytes=max_cached_bytes)


def name_in_class(path: Path, class_name: str) -> str:
    """The picture as "<class>/<picture>", with the folders between them where it lies deeper."""
    parts = path.parts[:-1]
    depth = 1 + (parts[::-1].index(class_name) if class_name in parts else 0)
    return "/".join((class_name, *path.parts[-depth:]))


def read_lists(file_name: str) -> Any:
    """The class lists of a JSON file that lies beside this one."""
    return json.loads(Path(__file__).with_name(file_name).read_text(encoding="utf-8"))


def _some(names: Sequence[str], limit: int = 3) -> str:
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
