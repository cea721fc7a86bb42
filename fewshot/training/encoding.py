"""A frozen backbone as what turns pictures into features to be stored: what it is told by, and its key."""

from __future__ import annotations

import hashlib
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fewshot.backbones import BackboneConfig


class FrozenBackbone:
    """A backbone that is not part of the module in training; it encodes in float32, on a GPU where there is one.

    Args:
        config: which; published or local weights are what makes it worth encoding with.
    """

    def __init__(self, config: BackboneConfig) -> None:
        self.config = config
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network: Any = config.create().eval().requires_grad_(False).to(self.device)

    @property
    def wants(self) -> dict[str, Any]:
        """What a data module's `adapt` is told; see `wanted_pictures`."""
        return wanted_pictures(self.network, self.config)

    def key(self) -> str:
        """See `backbone_key`."""
        return backbone_key(self.network, self.config, "32-true")

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Features [B, D] of pictures [B, C, H, W]."""
        features: Tensor = self.network(pictures.to(self.device, memory_format=torch.channels_last))
        return features.float()


def wanted_pictures(backbone: Any, config: BackboneConfig) -> dict[str, Any]:
    """How many channels, what size and which normalisation a backbone wants: arguments of a data module's `adapt`.

    A size is asked for where the config names one, and where the network takes no other; else the pictures keep the
    size that the data set or the published weights say.
    """
    size = config.image_size
    if size is None and not backbone.takes_any_size:
        size = backbone.image_size
    return {"channels": backbone.in_chans, "preprocessing": backbone.preprocessing, "image_size": size}


def backbone_key(backbone: nn.Module, config: BackboneConfig, precision: str) -> str:
    """SHA-256 of what decides the features: the backbone's architecture, every one of its weights, the precision.

    With it timm's version, whose networks may change under the same name and weights. The device is left out: features
    of two kinds of device differ by rounding, and whose are there are used.
    """
    described = f"{config.name} {config.image_size} {precision} {config.compile} timm {timm.__version__}"
    digest = hashlib.sha256(described.encode())
    for name, tensor in backbone.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
