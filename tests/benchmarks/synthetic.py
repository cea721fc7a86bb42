"""What benchmarks run on where no real pictures are needed: features of width 640 by a backbone that costs nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from timm.models import register_model
from torch import Tensor, nn

from fewshot import EpisodicDataModule, FewShotModule
from fewshot.backbones import BackboneConfig
from fewshot.data.datasets import FewShotDataset
from fewshot.data.images import Images
from fewshot.data.transforms import Preprocessing
from fewshot.methods import SIB, Method

WIDTH, SIDE = 640, 8


class RandomProjection(nn.Module):
    """Pictures [B, 1, 8, 8] to features [B, 640]: one fixed random linear map and a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(SIDE * SIDE, WIDTH, generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(weight / SIDE)
        self.pretrained_cfg: dict[str, Any] = {"input_size": (1, SIDE, SIDE)}

    def forward(self, pictures: Tensor) -> Tensor:
        return (pictures.flatten(1) @ self.weight).relu()


@register_model
def random_projection(**_: Any) -> RandomProjection:
    """For `timm.create_model("random_projection")`, which hands over what every model of timm takes."""
    return RandomProjection()


class Clouds(FewShotDataset):
    """Pictures [1, 8, 8] in memory: a random picture for every class, and noise.

    Args:
        n_classes: of every split.
        n_pictures: of every class.
    """

    name = "clouds"
    preprocessing = Preprocessing(SIDE, SIDE, (0.5,), (0.25,), channels=1)

    def __init__(self, n_classes: int = 64, n_pictures: int = 600) -> None:
        self.n_classes, self.n_pictures = n_classes, n_pictures

    def images(self, split: Any, preprocessing: Preprocessing | None = None) -> Images:
        """The pictures of one split, drawn anew at each call and always the same."""
        rng = np.random.default_rng(["train", "val", "test"].index(split))
        labels = np.repeat(np.arange(self.n_classes), self.n_pictures)
        pictures = rng.integers(-60, 60, (len(labels), 1, SIDE, SIDE), dtype=np.int16)
        pictures += rng.integers(60, 196, (self.n_classes, 1, SIDE, SIDE), dtype=np.int16)[labels]
        class_names = [f"{split}-{c}" for c in range(self.n_classes)]
        names = [f"{class_names[label]}/{i}" for i, label in enumerate(labels)]
        return Images(pictures.astype(np.uint8), labels, class_names, names)


def module(method: Method | None = None) -> FewShotModule:
    """The published SIB, or another method, on these features."""
    backbone = BackboneConfig(name="random_projection", in_chans=1)
    return FewShotModule(method=SIB() if method is None else method, backbone=backbone)


def prepared(dataset: FewShotDataset, model: FewShotModule, **options: Any) -> EpisodicDataModule:
    """A data module whose episodes carry the features of that module's backbone, as inside a Trainer."""
    data = EpisodicDataModule(dataset, **options)
    data.adapt(channels=1)
    data.use_features(model.encode, model.backbone_key)
    return data
