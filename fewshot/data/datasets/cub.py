"""CUB-200-2011: two hundred species of birds."""

from __future__ import annotations

from pathlib import Path

from fewshot.data.datasets.base import (
    ClassFolders,
    FolderDataset,
    Split,
    check_copy,
    class_folders,
    has_splits,
    read_lists,
    subfolders,
)
from fewshot.data.datasets.folder import IMAGENET_MEAN, IMAGENET_STD
from fewshot.data.images import MAX_CACHED_BYTES
from fewshot.data.picture_files import pictures_below
from fewshot.data.transforms import Preprocessing

PICTURES_PER_CLASS = range(41, 61)  # the smallest class has 41 pictures, the largest 60


class CUB(FolderDataset):
    """CUB-200-2011: 100 / 50 / 50 species, 11,788 pictures, 41 to 60 a species, used at 84 x 84.

    Wah, Branson, Welinder, Perona, Belongie, "The Caltech-UCSD Birds-200-2011 dataset", CNS-TR-2011-001, 2011. The
    split in cub.json is torchmeta's (github.com/tristandeleu/pytorch-meta, MIT); other work uses others of the same
    sizes, so numbers compare only on the same lists. Pictures are stored at 96 and cropped to 84 (sizes of Chen, Liu,
    Kira, Wang, Huang, "A closer look at few-shot classification", ICLR 2019, arXiv 1904.04232), without bounding boxes.

    Read from `<root>/<split>/<class>/<picture>` where a split folder is there, otherwise from
    `<root>/CUB_200_2011/images/<class>/<picture>` as the archive unpacks, or `<root>/images/<class>/<picture>`.

    Args:
        root: the folder; `~` and environment variables are filled in.
        complete: False accepts a copy with fewer species or pictures, for trials.
        max_cached_bytes: splits larger than this, decoded, are decoded at each reading instead of once.
    """

    name = "cub"
    preprocessing = Preprocessing(
        image_size=84, stored_size=96, mean=IMAGENET_MEAN, std=IMAGENET_STD, colour_jitter=0.4, flip=True
    )
    help_text = (
        "unpack CUB_200_2011.tgz of data.caltech.edu/records/65de6-vp158 there, so that "
        "CUB_200_2011/images/001.Black_footed_Albatross/ exists, or put <split>/<class>/<picture> there"
    )

    def __init__(
        self, root: str = "data/cub", *, complete: bool = True, max_cached_bytes: int = MAX_CACHED_BYTES
    ) -> None:
        self.root, self.complete, self.max_cached_bytes = root, complete, max_cached_bytes

    def classes(self, root: Path, split: Split) -> ClassFolders:
        """The split's species, from split folders or from the archive's one folder."""
        expected = read_lists("cub.json")[split]
        classes = self._found(root, split, expected)
        check_copy(classes, expected, PICTURES_PER_CLASS, name=self.name, split=split, complete=self.complete)
        return classes

    def _found(self, root: Path, split: Split, expected: list[str]) -> ClassFolders:
        if has_splits(root):
            return class_folders(root / split, name=self.name, split=split)
        for folder in (root / "CUB_200_2011" / "images", root / "images"):
            if folder.is_dir():
                return {path.name: pictures_below(path) for path in subfolders(folder) if path.name in expected}
        raise FileNotFoundError(
            f"{self.name}: {root.absolute()} has neither split folders nor CUB_200_2011/images; {self.help_text}"
        )
