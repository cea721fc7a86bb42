"""What a LightningModule tells its data module: what the backbone receives, and its features."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from fewshot.backbones import read_checkpoint, state_dict_of
from fewshot.backbones.config import BackboneConfig
from fewshot.functional.prototypes import class_means
from fewshot.methods.base import BaseClasses


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


def hand_over_base_classes(module: Any) -> None:
    """Tell the module's method about the training classes of the data module, where it asks and does not know yet.

    A checkpoint brings what its method was told, so that this follows the loading of one. The pictures of the train
    split are encoded as they are, once, and stored like all features.

    Raises:
        ValueError: the backbone is trained too, so that what the method is told would not stay true.
    """
    method = module.method
    datamodule: Any = getattr(module.trainer, "datamodule", None)
    if method.is_prepared or not hasattr(datamodule, "plain_features"):
        return
    if not module.freeze_backbone:
        raise ValueError(
            f"{type(method).__name__} is told the training classes' features once, but freeze_backbone=false changes "
            "them; set model.freeze_backbone=true"
        )
    with torch.inference_mode(False), torch.no_grad():
        features, labels = datamodule.plain_features("train", module.encode, module.backbone_key())
        means = class_means(features.unsqueeze(0), labels.unsqueeze(0), int(labels.max()) + 1)[0]  # [C, D]
        weights, scale = _pretraining_classifier(module.backbone_config.weights, features.shape[-1])
        method.prepare(BaseClasses(features.mean(0), means, weights, scale))
        method.base_classes.to(module.device)


def _pretraining_classifier(path: str | None, n_features: int) -> tuple[Tensor | None, Tensor | None]:
    """Weights [C, D] and scale of the classifier in a checkpoint of PretrainModule; None for any other file."""
    state = {} if path is None else state_dict_of(read_checkpoint(path))
    weights, scale = state.get("classifier.weight"), state.get("classifier.scale")
    if weights is None or scale is None or weights.ndim != 2 or weights.shape[1] != n_features:
        return None, None
    return weights.float(), scale.float()
