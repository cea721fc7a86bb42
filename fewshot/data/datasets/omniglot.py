"""Omniglot: handwritten characters of fifty alphabets, twenty drawings of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from fewshot.data.datasets.base import (
    SPLITS,
    ClassFolders,
    FewShotDataset,
    Split,
    check_copy,
    check_split,
    find_root,
    has_splits,
    read_lists,
    subfolders,
)
from fewshot.data.images import Images, PictureFiles, load_images
from fewshot.data.picture_files import pictures_below
from fewshot.data.transforms import Preprocessing
from fewshot.files import expanded

DRAWINGS_PER_CHARACTER = 20
TORCHVISION_FOLDERS = ("images_background", "images_evaluation")
_TURNS = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


class Omniglot(FewShotDataset):
    """Omniglot: 1623 characters drawn by 20 people, 28 x 28, one channel, ink 1 on paper 0.

    Lake, Salakhutdinov, Tenenbaum, "Human-level concept learning through probabilistic program induction", Science
    350, 2015. Files are black ink on white paper, 105 x 105; they are inverted and resized.

    split_by="vinyals": 1028 / 172 / 423 characters, times four rotations 4112 / 688 / 1692 classes, the split of
    Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra, "Matching networks for one shot learning", NeurIPS 2016,
    arXiv 1606.04080, as listed in github.com/jakesnell/prototypical-networks (MIT).

    split_by="background": test is the evaluation set of the original paper, 20 alphabets with 659 characters. It has
    no validation set: here the last five of the thirty background alphabets by name (Ojibwe, Sanskrit, Syriac
    Estrangelo, Tagalog, Tifinagh; 151 characters) are val and the other 25 (813 characters) train.

    Read from `<root>/<any split>/<alphabet>.<character>/<picture>` where a split folder is there, whichever split it
    is (both divisions come from the one tree), otherwise from `images_background/<alphabet>/<character>/<picture>` and
    images_evaluation in `<root>/omniglot-py`, where torchvision unpacks them. Both give the same pictures in the same
    order.

    Args:
        root: the folder; `~` and environment variables are filled in.
        split_by: "vinyals" or "background".
        rotations: whether a character turned by 90, 180 and 270 degrees counts as three further classes.
        download: fetch the two archives by torchvision (15 MB) when neither layout is there.
        complete: False accepts a copy with fewer characters or drawings, for trials.
    """

    name = "omniglot"

    def __init__(
        self,
        root: str = "data/omniglot",
        *,
        split_by: Literal["vinyals", "background"] = "vinyals",
        rotations: bool = True,
        download: bool = False,
        complete: bool = True,
    ) -> None:
        if split_by not in ("vinyals", "background"):
            raise ValueError(f"omniglot: split_by={split_by!r}; choose 'vinyals' or 'background'")
        self.root, self.split_by, self.rotations = root, split_by, rotations
        self.download, self.complete = download, complete
        # Mean and standard deviation over the Vinyals training characters.
        self.preprocessing = Preprocessing(
            image_size=28, stored_size=28, mean=(0.0782,), std=(0.216,), channels=1, invert=True
        )

    def images(self, split: Split, preprocessing: Preprocessing | None = None) -> Images:
        """The pictures of one split; raises FileNotFoundError without data, ValueError for a wrong or partial copy."""
        check_split(self.name, split)
        found = self._characters()
        if self.split_by == "vinyals":
            lists = read_lists("omniglot.json")["vinyals"][split]
            expected = [f"{alphabet}.character{number:02d}" for alphabet in lists for number in lists[alphabet]]
        else:
            alphabets = read_lists("omniglot.json")["background"]
            expected = [name for name in _all_characters() if name.rsplit(".", 1)[0] in alphabets[split]]
        classes = {name: found[name] for name in sorted(expected) if name in found}
        sizes = range(DRAWINGS_PER_CHARACTER, DRAWINGS_PER_CHARACTER + 1)
        check_copy(classes, expected, sizes, name=self.name, split=split, complete=self.complete)
        pictures = _Drawings(classes, turns=4 if self.rotations else 1)
        key = f"omniglot-{self.split_by}-{split}"
        return load_images(
            pictures, pictures.labels, pictures.class_names, preprocessing or self.preprocessing, key=key
        )

    def _characters(self) -> ClassFolders:
        """Every character that is there, "<alphabet>.<character>", and its drawings."""
        root = expanded(self.root)
        if has_splits(root):
            parts = [root / split for split in SPLITS if (root / split).is_dir()]
            return {path.name: pictures_below(path) for part in parts for path in subfolders(part)}
        unpacked = root / "omniglot-py"
        if self.download:
            _download(root)
        help_text = (
            "put <split>/<alphabet>.<character>/<picture> there, or torchvision's omniglot-py folder, or let "
            "torchvision fetch it with download=true"
        )
        find_root(self.root, name=self.name, help_text=help_text)
        folders = [unpacked / part for part in TORCHVISION_FOLDERS if (unpacked / part).is_dir()]
        if not folders:
            raise FileNotFoundError(
                f"{self.name}: {root.absolute()} has neither split folders nor omniglot-py/images_background; "
                f"{help_text}"
            )
        return {
            f"{alphabet.name}.{character.name}": pictures_below(character)
            for folder in folders
            for alphabet in subfolders(folder)
            for character in subfolders(alphabet)
        }


class _Drawings:
    """Drawings; each character appears `turns` times, turned by a further 90 degrees every time."""

    def __init__(self, classes: ClassFolders, *, turns: int) -> None:
        self.files = PictureFiles([path for files in classes.values() for path in files])
        self.class_names = [
            f"{name}.rot{90 * turn:03d}" if turns > 1 else name for turn in range(turns) for name in classes
        ]
        labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
        self.labels = np.concatenate([labels + turn * len(classes) for turn in range(turns)])
        drawings = [os.path.basename(path) for path in self.files.paths] * turns
        self.names = [f"{self.class_names[label]}/{name}" for label, name in zip(self.labels, drawings, strict=True)]

    def open(self, number: int) -> Image.Image:
        """One drawing, turned."""
        turn, number = divmod(number, len(self.files.paths))
        picture = self.files.open(number)
        transpose = _TURNS[turn]
        return picture if transpose is None else picture.transpose(transpose)

    def stamp(self) -> Iterator[str]:
        """The files; how often they are turned shows in the number of pictures."""
        return self.files.stamp()


def _all_characters() -> list[str]:
    lists = read_lists("omniglot.json")["vinyals"]
    return sorted(
        f"{alphabet}.character{number:02d}"
        for split in SPLITS
        for alphabet, numbers in lists[split].items()
        for number in numbers
    )


def _download(root: Path) -> None:
    from torchvision.datasets import Omniglot as Archive

    try:
        for background in (True, False):
            Archive(str(root), background=background, download=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"omniglot: torchvision could not fetch the archives into {root.absolute()} ({error}); "
            "unpack images_background.zip and images_evaluation.zip of github.com/brendenlake/omniglot into its "
            "omniglot-py folder by hand"
        ) from error
