"""Transductive meta-learning on PyTorch Lightning.

The names below are what a user types. Each is imported when it is first used: the command line's help and its tools
wait for neither torch nor timm. `import fewshot.backbones` registers conv4, conv4_32, conv4_128, resnet12,
resnet12_narrow and wrn28_10 with timm; all that builds a backbone does so by itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewshot.backbones import BackboneConfig
    from fewshot.classification.classifier import FewShotClassifier
    from fewshot.data.class_datamodule import ClassDataModule
    from fewshot.data.datasets import FewShotDataset
    from fewshot.data.episodic_datamodule import EpisodicDataModule
    from fewshot.episode import Episode
    from fewshot.methods import SIB, Method, TransportSIB, UniversalSIB
    from fewshot.training.feature_spaces import FeatureSpacesDataModule
    from fewshot.training.few_shot_module import FewShotModule
    from fewshot.training.pretrain_module import PretrainModule
    from fewshot.training.saved_model import load_trained, save_trained

__version__ = "0.1.0"

__all__ = [
    "SIB",
    "BackboneConfig",
    "ClassDataModule",
    "Episode",
    "EpisodicDataModule",
    "FeatureSpacesDataModule",
    "FewShotClassifier",
    "FewShotDataset",
    "FewShotModule",
    "Method",
    "PretrainModule",
    "TransportSIB",
    "UniversalSIB",
    "load_trained",
    "save_trained",
]

_HOMES = {
    "SIB": "methods",
    "BackboneConfig": "backbones",
    "ClassDataModule": "data.class_datamodule",
    "Episode": "episode",
    "EpisodicDataModule": "data.episodic_datamodule",
    "FeatureSpacesDataModule": "training.feature_spaces",
    "FewShotClassifier": "classification.classifier",
    "FewShotDataset": "data.datasets",
    "FewShotModule": "training.few_shot_module",
    "Method": "methods",
    "PretrainModule": "training.pretrain_module",
    "TransportSIB": "methods",
    "UniversalSIB": "methods",
    "load_trained": "training.saved_model",
    "save_trained": "training.saved_model",
}


def __getattr__(name: str) -> Any:
    """A public name, imported from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fewshot' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fewshot.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
