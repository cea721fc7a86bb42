"""What the backbones of this package have in common: what timm asks of a network, and how it learns their names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

default_cfgs: dict[str, Any] = {}
"""Where timm looks for the configurations of the networks that are registered here, by name."""


class Network(nn.Module, ABC):
    """Pictures [B, C, H, W] to features [B, D], or through a classifier `fc` to [B, num_classes].

    A network sets `num_features` and calls `reset_classifier` when it is made.
    """

    num_features: int
    """D."""
    num_classes: int
    """0 without a classifier."""
    fc: nn.Module

    @abstractmethod
    def forward_features(self, images: Tensor) -> Tensor:
        """The last map, [B, C', H', W']."""

    def pool(self, features: Tensor) -> Tensor:
        """One vector a picture, [B, D]: the mean over the last map [B, D, H', W']."""
        return features.mean((2, 3))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """[B, D] of the last map, or with a classifier its output [B, num_classes] unless `pre_logits`."""
        features = self.pool(features)
        return features if pre_logits else self.fc(features)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D]."""
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        """The last layer, as timm asks for it."""
        return self.fc

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a fresh one; 0 removes it."""
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()


def register(name: str, kind: type[Network], config: dict[str, Any], **options: Any) -> None:
    """Let `timm.create_model(name, in_chans=, img_size=, num_classes=, ...)` make a network of this kind.

    Args:
        name: in timm's list of models.
        kind: the class.
        config: what timm is to know of it: `input_size`, `first_conv` and so on.
        options: of the class, that belong to the name.
    """

    def create(pretrained: bool = False, **others: Any) -> Network:
        if pretrained:
            raise ValueError(f"{name} has no published weights; use pretrained=False, with weights=<file> of your own")
        return build_model_with_cfg(kind, name, pretrained=False, **options, **others)

    create.__name__ = name
    default_cfgs.update(generate_default_cfgs({name: {"url": "", "num_classes": 0, "classifier": "fc", **config}}))
    register_model(create)


def side_of(img_size: int | tuple[int, int], name: str, least: int = 0) -> int:
    """The side in pixels; ValueError below the least. timm passes (height, width) where no size is asked for."""
    side = img_size[0] if isinstance(img_size, tuple) else img_size
    if side < least:
        raise ValueError(f"{name} halves the picture four times and needs at least {least} px; image size {side} given")
    return side
