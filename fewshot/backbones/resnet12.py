"""ResNet-12: the residual network of the few-shot literature between Conv-4 and WRN-28-10.

Oreshkin, Rodriguez, Lacoste: TADAM, NeurIPS 2018, arXiv 1805.10123 (four blocks of three convolutions), with the
widths 64-160-320-640 and the leaky ReLU of Lee, Maji, Ravichandran, Soatto: Meta-Learning with Differentiable Convex
Optimization (MetaOptNet), CVPR 2019, arXiv 1904.03758, section 4.1. DropBlock: Ghiasi, Lin, Le, NeurIPS 2018,
arXiv 1810.12890.

Departures: the last map is averaged to 640 features (MetaOptNet flattens it for its SVM; later work averages), and the
DropBlock rate is constant instead of growing during training.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from fewshot.backbones.network import Network, register, side_of

WIDTHS = (64, 160, 320, 640)


class DropBlock(nn.Module):
    """In training, zero square regions of each channel, [B, C, H, W] -> [B, C, H, W]; what stays is scaled up.

    A region lies wholly inside the map (timm's layer lets them start anywhere at the same rate, which on the 5 x 5 map
    of an 84 px picture hits nearly every picture at rate 0.1).

    Args:
        rate: share of the cells dropped, about; 0 <= rate < 1.
        size: side of a region in cells; maps smaller than that are dropped whole.
    """

    def __init__(self, rate: float, size: int) -> None:
        super().__init__()
        self.rate = rate
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        """The features with regions dropped; themselves in evaluation mode."""
        if not self.training:
            return features
        batch, channels, height, width = features.shape
        side = min(self.size, height, width)
        places = (height - side + 1, width - side + 1)
        probability = min(1.0, self.rate * height * width / (side**2 * places[0] * places[1]))
        corners = features.new_empty(batch, channels, *places).bernoulli_(probability)
        dropped = functional.max_pool2d(functional.pad(corners, [side - 1] * 4), side, stride=1)  # [B, C, H, W]
        kept = 1 - dropped
        return features * kept / kept.mean().clamp(min=1e-6)


class _Block(nn.Module):
    """Three 3x3 convolutions beside a 1x1 shortcut, leaky ReLU, pooling: [B, C, H, W] -> [B, C', H//2, W//2]."""

    def __init__(self, in_channels: int, out_channels: int, drop: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv3 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.relu = nn.LeakyReLU(0.1, inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.drop = drop

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu(self.bn1(self.conv1(images)))
        features = self.relu(self.bn2(self.conv2(features)))
        features = self.bn3(self.conv3(features)) + self.shortcut(images)
        # pooling before the activation gives the same: both are monotone
        return self.drop(self.relu(self.pool(features)))


class ResNet12(Network):
    """Four residual blocks, each halving the picture; the last map is averaged.

    Takes [B, in_chans, H, W] of at least 16 px and gives [B, D] with D = widths[3], 640.

    Args:
        widths: channels of the four blocks; None takes 64, 160, 320 and 640. `resnet12_narrow` has 32, 64, 128 and 256,
            which two CPU cores can train.
        drop_block_rate: share of the activations dropped in training: regions (DropBlock) after the last two blocks,
            single activations after the first two, as in MetaOptNet (which uses 0.1). 0 drops nothing.
        drop_block_size: side of a dropped region in cells of the map (MetaOptNet: 5 for 84 px, 2 for 32 px).
        num_classes: 0 for features; otherwise a linear layer gives [B, num_classes].
        in_chans: channels of the pictures.
        img_size: usual side of the pictures in pixels; nothing depends on it, but less than 16 is refused.
    """

    def __init__(
        self,
        widths: Sequence[int] | None = None,
        *,
        drop_block_rate: float = 0.0,
        drop_block_size: int = 5,
        num_classes: int = 0,
        in_chans: int = 3,
        img_size: int | tuple[int, int] = 84,
    ) -> None:
        super().__init__()
        side_of(img_size, "resnet12", least=16)
        if not 0 <= drop_block_rate < 1:
            raise ValueError(f"drop_block_rate={drop_block_rate}; a share of the activations lies in 0 <= rate < 1")
        channels = (in_chans, *(WIDTHS if widths is None else widths))
        self.num_features = channels[-1]
        blocks = []
        for number in range(4):
            drop: nn.Module = nn.Identity()
            if drop_block_rate:
                regions = number >= 2
                drop = DropBlock(drop_block_rate, drop_block_size) if regions else nn.Dropout(drop_block_rate)
            blocks.append(_Block(channels[number], channels[number + 1], drop))
        self.block1, self.block2, self.block3, self.block4 = blocks
        self.reset_classifier(num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.1, mode="fan_out", nonlinearity="leaky_relu")

    def forward_features(self, images: Tensor) -> Tensor:
        """The map before averaging, [B, D, H // 16, W // 16]."""
        return self.block4(self.block3(self.block2(self.block1(images))))


_CONFIG = {"input_size": (3, 84, 84), "pool_size": (5, 5), "first_conv": "block1.conv1"}
register("resnet12", ResNet12, _CONFIG)
register("resnet12_narrow", ResNet12, _CONFIG, widths=(32, 64, 128, 256))
