"""Data sets, one a file; each names its paper and where its split comes from."""

from fewshot.data.datasets.base import FewShotDataset
from fewshot.data.datasets.cifar import CIFARFS, FC100
from fewshot.data.datasets.cub import CUB
from fewshot.data.datasets.folder import ImageFolderSplits
from fewshot.data.datasets.glyphs import Glyphs
from fewshot.data.datasets.imagenet import MiniImageNet, TieredImageNet
from fewshot.data.datasets.omniglot import Omniglot

__all__ = [
    "CIFARFS",
    "CUB",
    "FC100",
    "FewShotDataset",
    "Glyphs",
    "ImageFolderSplits",
    "MiniImageNet",
    "Omniglot",
    "TieredImageNet",
]
