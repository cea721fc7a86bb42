"""What a LightningModule tells its data module: what the backbone receives, and its features."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from fewshot.backbones.config import BackboneConfig


def hand_over_preprocessing(backbone: Any, config: BackboneConfig, trainer: Trainer | None) -> None:
    """Tell the trainer's data module how many channels, what size and which normalisation the backbone wants.

    A size is asked for where the config names one, and where the network takes no other; else the pictures keep the
    size that the data set or the published weights say.
    """
    datamodule: Any = getattr(trainer, "datamodule", None)
    if hasattr(datamodule, "adapt"):
        size = config.image_size
        if size is None and not backbone.takes_any_size:
            size = backbone.image_size
        datamodule.adapt(channels=backbone.in_chans, preprocessing=backbone.preprocessing, image_size=size)


def compute_features(module: Any, split: str) -> None:
    """Let the data module encode a split's pictures with the backbone as it is now, in the trainer's precision.

    Where the backbone is trained, this replaces encoding every picture once for each episode it occurs in.
    """
    datamodule: Any = getattr(module.trainer, "datamodule", None)
    if hasattr(datamodule, "compute_features"):

        def encode(pictures: Tensor) -> Tensor:
            with module.trainer.precision_plugin.forward_context():
                pictures = pictures.to(module.device, module.dtype, memory_format=torch.channels_last)
                return module.backbone(pictures).float()

        datamodule.compute_features(split, encode)
