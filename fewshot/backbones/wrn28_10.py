"""WRN-28-10: the wide residual network of the SIB paper and of much of the few-shot literature.

Zagoruyko, Komodakis: Wide Residual Networks, BMVC 2016, arXiv 1605.07146 (table 1, blocks B(3,3) in pre-activation
order). Used by Hu et al., ICLR 2020, arXiv 2004.12696 with 32 px and 80 px pictures, whose strides differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fewshot.backbones.network import Network, register, side_of

SMALL_IMAGES = 40
"""Up to this side, in pixels, the first group keeps the resolution."""


class _Block(nn.Module):
    """Batch norm, ReLU, 3x3 convolution, twice, beside a shortcut: [B, C, H, W] -> [B, C', H', W']."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        activated = self.relu(self.bn1(images))
        # where the shape changes the shortcut starts after the activation, as in the authors' code
        shortcut = images if self.shortcut is None else self.shortcut(activated)
        return shortcut + self.conv2(self.relu(self.bn2(self.conv1(activated))))


class WideResNet(Network):
    """Three groups of pre-activation blocks, `width` times as wide as a ResNet's; the last map is averaged.

    Takes [B, in_chans, H, W] of any size and gives [B, 64 * width]: 640 for WRN-28-10. The values follow a ReLU.

    Args:
        depth: 6 n + 4 for n blocks in each group.
        width: factor on the channels 16, 32, 64.
        small_images: True: strides 1, 2, 2 (32 px); False: strides 2, 2, 2 (80 or 84 px). None: True where
            `img_size` is at most 40.
        num_classes: 0 for features; otherwise a linear layer gives [B, num_classes].
        in_chans: channels of the pictures.
        img_size: usual side of the pictures in pixels; it decides nothing but the strides.
    """

    def __init__(
        self,
        depth: int = 28,
        width: int = 10,
        *,
        small_images: bool | None = None,
        num_classes: int = 0,
        in_chans: int = 3,
        img_size: int | tuple[int, int] = 80,
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"a wide ResNet of depth {depth} does not exist; depths are 10, 16, 22, 28, 34, ...")
        side = side_of(img_size, "wrn28_10")
        self.small_images = side <= SMALL_IMAGES if small_images is None else small_images
        self.num_features = 64 * width
        blocks = (depth - 4) // 6
        first, second, third = 16 * width, 32 * width, 64 * width
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.block1 = self._group(16, first, blocks, stride=1 if self.small_images else 2)
        self.block2 = self._group(first, second, blocks, stride=2)
        self.block3 = self._group(second, third, blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(third)
        self.relu = nn.ReLU(inplace=True)
        self.reset_classifier(num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _group(in_channels: int, out_channels: int, blocks: int, *, stride: int) -> nn.Sequential:
        first = _Block(in_channels, out_channels, stride)
        return nn.Sequential(first, *(_Block(out_channels, out_channels, 1) for _ in range(blocks - 1)))

    def forward_features(self, images: Tensor) -> Tensor:
        """The map before averaging, [B, D, H', W']."""
        return self.relu(self.bn1(self.block3(self.block2(self.block1(self.conv1(images))))))


def original_names(network: WideResNet) -> dict[str, str]:
    """What the original SIB program calls each entry of the network's state dict, by our name."""
    return {
        key: re.sub(r"^(block\d)\.", r"\1.layer.", key).replace("shortcut", "convShortcut")
        for key in network.state_dict()
    }


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: WideResNet) -> dict[str, Any]:
    """`state_dict` with the original SIB program's names turned into ours; other names stay. (timm's name for this.)"""
    ours = {original: key for key, original in original_names(model).items()}
    return {ours.get(key, key): value for key, value in state_dict.items()}


_CONFIG = {"input_size": (3, 80, 80), "pool_size": (10, 10), "first_conv": "conv1"}
register("wrn28_10", WideResNet, _CONFIG)
