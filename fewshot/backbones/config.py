"""Which backbone to build: the plain values that configs and checkpoints hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from fewshot.backbones import create_backbone, resolve_weights


@dataclass(frozen=True)
class BackboneConfig:
    """A timm backbone by name.

    Args:
        name: any name timm knows; conv4, conv4_32, conv4_128, resnet12 and wrn28_10 are registered by this package.
        pretrained: whether timm downloads its published weights; they bring their own size and normalisation.
        weights: a weight file, a checkpoint of PretrainModule, or a run folder (the newest version's best.ckpt).
        in_chans: channels of the pictures the backbone receives, 1 (grey) or 3 (RGB).
        image_size: side of the pictures in pixels; None takes the model's usual size.
        compile: whether torch.compile translates the network when it is first called, which takes up to minutes and
            pays off in long runs. Names in checkpoints stay as they are, so they serve with and without.
    """

    name: str = "conv4"
    pretrained: bool = False
    weights: str | None = None
    in_chans: int = 3
    image_size: int | None = None
    compile: bool = False

    def located(self) -> BackboneConfig:
        """The same with the weight file itself in place of the run folder that holds it, for the record."""
        return self if self.weights is None else replace(self, weights=str(resolve_weights(self.weights)))

    def create(self) -> nn.Module:
        """The backbone, from pictures [B, C, H, W] to features [B, D], in channels-last memory order."""
        backbone = create_backbone(
            self.name,
            pretrained=self.pretrained,
            weights=self.weights,
            in_chans=self.in_chans,
            image_size=self.image_size,
            compile=self.compile,
        )
        return backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def drop_initial_weights(checkpoint: dict[str, Any]) -> None:
    """Make a Lightning checkpoint independent of the weight file its backbone started from.

    The checkpoint holds the backbone's weights itself, so loading it must neither need that file nor download anything.
    """
    backbone = checkpoint["hyper_parameters"]["backbone"]
    checkpoint["hyper_parameters"]["backbone"] = {**backbone, "pretrained": False, "weights": None}
