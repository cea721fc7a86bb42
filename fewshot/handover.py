"""What a LightningModule tells its data module: what the backbone receives, and its features in which precision."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import asdict
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.profilers import PassThroughProfiler
from torch import Tensor

from fewshot.backbones.config import BackboneConfig
from fewshot.ranks import share_buffers
from fewshot.sections import measure_with, section

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")


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


def record_pictures(checkpoint: dict[str, Any], module: Any) -> None:
    """Write into a checkpoint how its pictures became tensors, so that it serves pictures without its data set."""
    preprocessing = getattr(getattr(module._trainer, "datamodule", None), "preprocessing", None)
    checkpoint["pictures"] = module.pictures if preprocessing is None else asdict(preprocessing)


def encode(module: Any, pictures: Tensor) -> Tensor:
    """Features [B, D] of pictures [B, C, H, W], in float32, by the module's backbone on its own device.

    They are computed in the trainer's precision (float32 without a trainer), so that features computed once are those
    which the same run would compute for every episode. They are kept in float32 in any precision.
    """
    trainer = module._trainer
    with section("encode"), contextlib.nullcontext() if trainer is None else trainer.precision_plugin.forward_context():
        pictures = pictures.to(module.device, module.dtype, memory_format=torch.channels_last)
        return module.backbone(pictures).float()


def compute_features(module: Any, split: str) -> None:
    """Let the data module encode a split's pictures with the backbone as it is now.

    Where the backbone is trained, this replaces encoding every picture once for each episode it occurs in. All ranks
    take the first one's batch-norm statistics before, those that its checkpoint holds.
    """
    share_buffers(module.backbone)
    datamodule: Any = getattr(module.trainer, "datamodule", None)
    if hasattr(datamodule, "compute_features"):
        datamodule.compute_features(split, functools.partial(encode, module))


def hand_over_profiler(trainer: Trainer) -> None:
    """Let sections of the field's words report to the trainer's profiler, if it has one; see fewshot.sections."""
    profiler = getattr(trainer, "profiler", None)
    measure_with(None if isinstance(profiler, PassThroughProfiler) else profiler)


def check_precision(trainer: Trainer) -> None:
    """Raise ValueError for a precision in which methods do not work.

    With weights of 16 bits a step of 1e-3 is mostly rounded away. Mixed precision keeps them in 32 bits.
    """
    if trainer.precision not in PRECISIONS:
        raise ValueError(
            f"trainer.precision={trainer.precision} is not supported: the weights themselves would lose what a small "
            f"step changes; choose one of {', '.join(PRECISIONS)}"
        )
