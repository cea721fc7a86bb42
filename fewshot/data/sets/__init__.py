"""Data sets, one a file; each names its paper and where its split comes from."""

from fewshot.data.sets.base import DataSet
from fewshot.data.sets.cifar import CIFARFS, FC100
from fewshot.data.sets.folder import ImageFolderSplits
from fewshot.data.sets.glyphs import Glyphs

__all__ = ["CIFARFS", "FC100", "DataSet", "Glyphs", "ImageFolderSplits"]
