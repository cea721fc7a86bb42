"""CIFAR-FS and FC100: two splits of the hundred classes of CIFAR-100."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from fewshot.data.datasets.base import (
    SPLITS,
    ClassFolders,
    FewShotDataset,
    Split,
    check_copy,
    check_split,
    class_folders,
    find_root,
    has_splits,
    images_of_files,
    read_lists,
    subfolders,
)
from fewshot.data.images import Images, load_images
from fewshot.data.picture_files import pictures_below
from fewshot.data.transforms import Preprocessing
from fewshot.files import expanded

PICTURES_PER_CLASS = 600
TORCHVISION_FOLDER = "cifar-100-python"


# Mean and standard deviation over the training part of CIFAR-100; training transforms of SIB (Hu et al. 2020).
PREPROCESSING = Preprocessing(
    image_size=32,
    stored_size=32,
    mean=(0.50708, 0.48655, 0.44092),
    std=(0.26733, 0.25644, 0.27615),
    crop_padding=4,
    colour_jitter=0.4,
    flip=True,
)


class CIFARFS(FewShotDataset):
    """CIFAR-FS: CIFAR-100 in 64 / 16 / 20 classes of 600 pictures of 32 x 32.

    Bertinetto, Henriques, Torr, Vedaldi, "Meta-learning with differentiable closed-form solvers", ICLR 2019,
    arXiv 1805.08136. Pictures: Krizhevsky, "Learning multiple layers of features from tiny images", 2009. The class
    lists in cifar100.json are those of github.com/ArnoutDevos/maml-cifar-fs (MIT), which equal torchmeta's (MIT).

    Read from `<root>/<split>/<class>/<picture>` where a split folder is there, otherwise from torchvision's CIFAR-100
    in `<root>/cifar-100-python`. Both hold the same pictures but number those of a class differently, so episodes of
    one seed are not the same. CIFAR-100 is distributed as Python pickles; torchvision opens them only after it has
    compared their md5 with the published one, and that is the only reason why it is acceptable to read them.

    Args:
        root: the folder; `~` and environment variables are filled in.
        download: fetch CIFAR-100 by torchvision (169 MB) when neither is there.
        complete: False accepts a copy with fewer classes or pictures than the benchmark, for trials.
        colour_jitter: strength of the training pictures' colour jitter; SIB's protocol has 0.4, 0 leaves it out.
    """

    name = "cifar_fs"

    def __init__(
        self,
        root: str = "data/cifar_fs",
        *,
        download: bool = False,
        complete: bool = True,
        colour_jitter: float = PREPROCESSING.colour_jitter,
    ) -> None:
        self.root, self.download, self.complete = root, download, complete
        self.preprocessing = replace(PREPROCESSING, colour_jitter=colour_jitter)

    def images(self, split: Split, preprocessing: Preprocessing | None = None) -> Images:
        """The pictures of one split; raises FileNotFoundError without data, ValueError for a wrong or partial copy."""
        check_split(self.name, split)
        preprocessing = preprocessing or self.preprocessing
        expected = read_lists("cifar100.json")["cifar_fs"][split]
        root = expanded(self.root)
        if not has_splits(root):
            return _torchvision_images(self, expected, split, preprocessing)
        classes = class_folders(root / split, name=self.name, split=split)
        return _folder_images(self, classes, expected, split, preprocessing)


class FC100(FewShotDataset):
    """FC100: CIFAR-100 in 60 / 20 / 20 classes of 600 pictures of 32 x 32, split by superclass.

    Oreshkin, Rodriguez, Lacoste, "TADAM: Task dependent adaptive metric for improved few-shot learning", NeurIPS
    2018, arXiv 1805.10123: 12 / 4 / 4 of the twenty superclasses. The superclass lists in cifar100.json are those of
    torchmeta (github.com/tristandeleu/pytorch-meta, MIT).

    Read from any tree `<root>/<split>/<class>/<picture>` that holds the classes, in whichever of its splits they are,
    so that a copy of CIFAR-FS serves; otherwise from torchvision's CIFAR-100 (see CIFARFS).

    Args:
        root: the folder; `~` and environment variables are filled in.
        download: fetch CIFAR-100 by torchvision (169 MB) when neither is there.
        complete: False accepts a copy with fewer classes or pictures than the benchmark, for trials.
    """

    name = "fc100"

    def __init__(self, root: str = "data/cifar_fs", *, download: bool = False, complete: bool = True) -> None:
        self.root, self.download, self.complete = root, download, complete
        self.preprocessing = PREPROCESSING

    def images(self, split: Split, preprocessing: Preprocessing | None = None) -> Images:
        """The pictures of one split; raises FileNotFoundError without data, ValueError for a wrong or partial copy."""
        check_split(self.name, split)
        preprocessing = preprocessing or self.preprocessing
        lists = read_lists("cifar100.json")
        superclasses = lists["fc100_superclasses"][split]
        expected = sorted(name for name, superclass in lists["superclass_of"].items() if superclass in superclasses)
        root = expanded(self.root)
        if not has_splits(root):
            return _torchvision_images(self, expected, split, preprocessing)
        # One level at a time: "train" is a split folder and, inside one, also a class of CIFAR-100.
        folders = {path.name: path for part in SPLITS if (root / part).is_dir() for path in subfolders(root / part)}
        classes = {name: pictures_below(folders[name]) for name in expected if name in folders}
        return _folder_images(self, classes, expected, split, preprocessing)


def _folder_images(
    data: CIFARFS | FC100, classes: ClassFolders, expected: list[str], split: Split, preprocessing: Preprocessing
) -> Images:
    sizes = range(PICTURES_PER_CLASS, PICTURES_PER_CLASS + 1)
    check_copy(classes, expected, sizes, name=data.name, split=split, complete=data.complete)
    return images_of_files(classes, preprocessing, key=f"{data.name}-{split}")


class _CIFAR100Pictures:
    """The pictures of some classes of torchvision's CIFAR-100, ordered by class, the train part before the test part.

    Args:
        root: the folder that holds cifar-100-python.
        expected: names of the classes.
        download: whether torchvision may fetch the archive.
    """

    def __init__(self, root: Path, expected: list[str], *, download: bool) -> None:
        from torchvision.datasets import CIFAR100

        parts = [CIFAR100(str(root), train=train, download=download) for train in (True, False)]
        pixels = np.concatenate([part.data for part in parts])  # [60000, 32, 32, 3]
        targets = np.concatenate([part.targets for part in parts])
        numbers = [np.flatnonzero(targets == parts[0].class_to_idx[name]) for name in expected]
        self.pixels = pixels[np.concatenate(numbers)]
        self.labels = np.repeat(np.arange(len(expected)), [len(chosen) for chosen in numbers])
        self.names = [
            f"{name}/{'train' if number < len(parts[0]) else 'test'}_{number % len(parts[0]):05d}"
            for name, chosen in zip(expected, numbers, strict=True)
            for number in chosen
        ]

    def open(self, number: int) -> Image.Image:
        """One picture."""
        return Image.fromarray(self.pixels[number])

    def stamp(self) -> list[str]:
        """The names are enough: torchvision has compared the md5 of the files."""
        return list(self.names)


def _torchvision_images(
    data: CIFARFS | FC100, expected: list[str], split: Split, preprocessing: Preprocessing
) -> Images:
    root = expanded(data.root)
    if not data.download:
        help_text = (
            f"put <split>/<class>/<picture> there, or torchvision's {TORCHVISION_FOLDER}, or let torchvision fetch it "
            "with download=true"
        )
        find_root(data.root, name=data.name, help_text=help_text)
        if not (root / TORCHVISION_FOLDER).is_dir():
            raise FileNotFoundError(
                f"{data.name}: {root.absolute()} has neither split folders nor {TORCHVISION_FOLDER}; {help_text}"
            )
    try:
        pictures = _CIFAR100Pictures(root, expected, download=data.download)
    except (OSError, RuntimeError) as error:  # no network; a RuntimeError is torchvision's answer to a wrong md5
        raise ValueError(
            f"{data.name}: torchvision could not fetch or verify {(root / TORCHVISION_FOLDER).absolute()} ({error}); "
            "delete what is there and fetch it again with download=true"
        ) from error
    return load_images(pictures, pictures.labels, expected, preprocessing, key=f"{data.name}-{split}-torchvision")
