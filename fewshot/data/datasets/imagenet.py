"""mini-ImageNet and tiered-ImageNet: classes of ImageNet in small pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fewshot.data.datasets.base import (
    SPLITS,
    ClassFolders,
    FolderDataset,
    Split,
    check_apart,
    check_copy,
    class_folders,
    read_lists,
)
from fewshot.data.datasets.folder import IMAGENET_MEAN, IMAGENET_STD
from fewshot.data.images import MAX_CACHED_BYTES
from fewshot.data.transforms import Preprocessing

MINI_PICTURES_PER_CLASS = 600
TIERED_CLASSES: dict[Split, int] = {"train": 351, "val": 97, "test": 160}
PREPROCESSING = Preprocessing(
    image_size=84,
    stored_size=84,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    crop_padding=8,
    colour_jitter=0.4,
    flip=True,
)


class MiniImageNet(FolderDataset):
    """mini-ImageNet: 64 / 16 / 20 classes of ImageNet with 600 pictures each, stored at 84 x 84, used at 80 x 80.

    Vinyals et al., "Matching networks for one shot learning", NeurIPS 2016, arXiv 1606.04080, in the split of Ravi,
    Larochelle, "Optimization as a model for few-shot learning", ICLR 2017 (mini_imagenet.json, with the wnids listed in
    github.com/imtiazziko/LaplacianShot). Sizes and transforms are those of SIB, Hu et al. 2020, arXiv 2004.12696:
    training crops of 80 out of 84 padded by 8, jitter 0.4, mirroring; the middle 80 at test. Pictures that are not
    square lose their ends instead of being squeezed.

    Args:
        root: the folder that holds `<split>/<wnid>/<picture>`; `~` and environment variables are filled in.
        complete: False accepts a copy with fewer classes or pictures than the benchmark, for trials.
        max_cached_bytes: splits larger than this, decoded, are decoded at each reading instead of once.
    """

    name = "mini_imagenet"
    preprocessing = replace(PREPROCESSING, image_size=80)
    help_text = (
        "mini-ImageNet cannot be downloaded freely: take the 60,000 pictures from a copy of ImageNet (ILSVRC 2012, "
        "train) as listed in train.csv, val.csv and test.csv of github.com/twitter-research/meta-learning-lstm and put "
        "them there as train/n01532829/<picture>, val/n01855672/<picture>, test/n01930112/<picture> and so on, "
        "64 + 16 + 20 folders of 600 jpg or png files"
    )

    def __init__(
        self, root: str = "data/mini_imagenet", *, complete: bool = True, max_cached_bytes: int = MAX_CACHED_BYTES
    ) -> None:
        self.root, self.complete, self.max_cached_bytes = root, complete, max_cached_bytes

    def classes(self, root: Path, split: Split) -> ClassFolders:
        """The split's folder, which holds the classes of the list."""
        classes = class_folders(root / split, name=self.name, split=split)
        sizes = range(MINI_PICTURES_PER_CLASS, MINI_PICTURES_PER_CLASS + 1)
        expected = read_lists("mini_imagenet.json")[split]
        check_copy(classes, expected, sizes, name=self.name, split=split, complete=self.complete)
        return classes


class TieredImageNet(FolderDataset):
    """tiered-ImageNet: 351 / 97 / 160 classes of ImageNet, split by 20 / 6 / 8 broader categories, 84 x 84.

    Ren, Triantafillou, Ravi, Snell, Swersky, Tenenbaum, Larochelle, Zemel, "Meta-learning for semi-supervised few-shot
    classification", ICLR 2018, arXiv 1803.00676; the numbers of classes are checked, and that no class is in two
    splits. Its 779,165 pictures are decoded as they are read unless max_cached_bytes is raised (train: 9.5 GB).

    Args:
        root: the folder that holds `<split>/<wnid>/<picture>`; `~` and environment variables are filled in.
        complete: False accepts a copy with fewer classes, for trials.
        max_cached_bytes: splits larger than this, decoded, are decoded at each reading instead of once.
    """

    name = "tiered_imagenet"
    preprocessing = PREPROCESSING
    help_text = (
        "put its pictures there as train/<wnid>/<picture>, val/<wnid>/<picture> and test/<wnid>/<picture> "
        "(351 + 97 + 160 folders of jpg or png files), the classes listed at github.com/renmengye/few-shot-ssl-public, "
        "the pictures from ImageNet (ILSVRC 2012, train)"
    )

    def __init__(
        self, root: str = "data/tiered_imagenet", *, complete: bool = True, max_cached_bytes: int = MAX_CACHED_BYTES
    ) -> None:
        self.root, self.complete, self.max_cached_bytes = root, complete, max_cached_bytes

    def classes(self, root: Path, split: Split) -> ClassFolders:
        """The split's folder, which holds as many classes as it should."""
        classes = class_folders(root / split, name=self.name, split=split)
        check_apart(classes, {other: root / other for other in SPLITS}, name=self.name, split=split)
        expected = TIERED_CLASSES[split]
        if len(classes) > expected or (self.complete and len(classes) < expected):
            raise ValueError(
                f"split {split!r} of {self.name} has {len(classes)} classes, expected {expected}; "
                "this is another split or a partial copy"
            )
        return classes
