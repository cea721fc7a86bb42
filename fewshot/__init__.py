"""Transductive meta-learning on PyTorch Lightning.

Importing the package registers conv4, conv4_32, conv4_128, resnet12 and wrn28_10 with timm. The public names below are
imported when they are first used, so that what needs no Lightning does not wait for it; and the command line imports
what each of its commands needs, so that its help and its tools wait for neither torch nor timm.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewshot.classification.classifier import FewShotClassifier
    from fewshot.data.class_datamodule import ClassDataModule
    from fewshot.data.datamodule import EpisodicDataModule
    from fewshot.episode import Episode
    from fewshot.methods import SIB
    from fewshot.module import FewShotModule
    from fewshot.pretrain import PretrainModule

__version__ = "0.1.0"

__all__ = [
    "SIB",
    "ClassDataModule",
    "Episode",
    "EpisodicDataModule",
    "FewShotClassifier",
    "FewShotModule",
    "PretrainModule",
]

_HOMES = {
    "SIB": "fewshot.methods",
    "ClassDataModule": "fewshot.data.class_datamodule",
    "Episode": "fewshot.episode",
    "EpisodicDataModule": "fewshot.data.datamodule",
    "FewShotClassifier": "fewshot.classification.classifier",
    "FewShotModule": "fewshot.module",
    "PretrainModule": "fewshot.pretrain",
}


def __getattr__(name: str) -> Any:
    """A public name, imported from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fewshot' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def _is_command_line() -> bool:
    """Whether this process is `python -m fewshot` or the installed script."""
    words = list(zip(sys.orig_argv, sys.orig_argv[1:], strict=False))
    return ("-m", "fewshot") in words or os.path.splitext(os.path.basename((sys.argv or [""])[0]))[0] == "fewshot"


if not _is_command_line():
    importlib.import_module("fewshot.backbones")  # registers the backbones of this package with timm
