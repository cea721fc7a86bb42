"""Data sets, one a file; each names its paper and where its split comes from."""

from fewshot.data.sets.base import DataSet
from fewshot.data.sets.cifar import CIFARFS, FC100
from fewshot.data.sets.cub import CUB
from fewshot.data.sets.folder import ImageFolderSplits
from fewshot.data.sets.glyphs import Glyphs
from fewshot.data.sets.imagenet import MiniImageNet, TieredImageNet
from fewshot.data.sets.omniglot import Omniglot

__all__ = [
    "CIFARFS",
    "CUB",
    "FC100",
    "DataSet",
    "Glyphs",
    "ImageFolderSplits",
    "MiniImageNet",
    "Omniglot",
    "TieredImageNet",
]
