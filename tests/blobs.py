"""Pictures in memory that a small backbone tells apart, and a Trainer that writes and shows nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from pytorch_lightning import Trainer

from fewshot.backbones import BackboneConfig
from fewshot.data.datasets import FewShotDataset
from fewshot.data.images import Images
from fewshot.data.transforms import Preprocessing

CONV4 = BackboneConfig(name="conv4", image_size=28)


class Blobs(FewShotDataset):
    """Pictures in memory: a colour for every class, and noise; 8 classes of 6 pictures in every split."""

    name = "blobs"

    def __init__(self, n_classes: int = 8, n_pictures: int = 6) -> None:
        self.preprocessing = Preprocessing(28, 28, (0.5,) * 3, (0.5,) * 3, crop_padding=2, flip=True)
        self.n_classes, self.n_pictures = n_classes, n_pictures

    def images(self, split: Any, preprocessing: Preprocessing | None = None) -> Images:
        rng = np.random.default_rng(["train", "val", "test"].index(split))
        labels = np.repeat(np.arange(self.n_classes), self.n_pictures)
        colours = rng.integers(60, 196, (self.n_classes, 3, 1, 1))
        noise = rng.integers(-60, 60, (len(labels), 3, 28, 28))
        names = [f"{split}-{c}" for c in range(self.n_classes)]
        pictures = (colours[labels] + noise).astype(np.uint8)
        return Images(pictures, labels, names, [f"{names[label]}/{i}" for i, label in enumerate(labels)])


def trainer(**options: Any) -> Trainer:
    """One epoch on the CPU that writes and shows nothing."""
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    defaults: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, **dict.fromkeys(silent, False)}
    return Trainer(**{**defaults, **options})
