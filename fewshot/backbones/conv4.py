"""Conv-4: the four-block convolutional network of the first few-shot papers.

Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra: Matching Networks for One Shot Learning, NeurIPS 2016,
arXiv 1606.04080 (section 4.1), and Snell, Swersky, Zemel: Prototypical Networks for Few-shot Learning, NeurIPS 2017,
arXiv 1703.05175 (section 3.1, the flattened output).
"""

from __future__ import annotations

from torch import Tensor, nn

from fewshot.backbones.network import Network, register, side_of


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    # The papers write ReLU, then pooling. The two commute (values and gradients), and this order touches a quarter.
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
    )


class Conv4(Network):
    """Four times 3x3 convolution, batch normalisation, ReLU and 2x2 max pooling; the last map is flattened.

    Takes [B, in_chans, img_size, img_size] and gives [B, D] with D = width * (img_size // 16)**2: 1600 for 84 px,
    256 for 32 px, 64 for 28 px with 64 channels. Pictures of another size would silently change D and are refused. timm
    knows it as conv4 (64 channels), conv4_32 (as in MAML) and conv4_128.

    Args:
        width: channels of every block.
        num_classes: 0 for features; otherwise a linear layer gives [B, num_classes].
        in_chans: channels of the pictures.
        img_size: side of the pictures in pixels, at least 16.
    """

    def __init__(
        self, width: int = 64, *, num_classes: int = 0, in_chans: int = 3, img_size: int | tuple[int, int] = 84
    ) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.image_size = side_of(img_size, "conv4", least=16)
        self.num_features = width * (self.image_size // 16) ** 2
        self.conv1 = _block(in_chans, width)
        self.conv2 = _block(width, width)
        self.conv3 = _block(width, width)
        self.conv4 = _block(width, width)
        self.reset_classifier(num_classes)

    def forward_features(self, images: Tensor) -> Tensor:
        """The map before flattening: [B, C, H, W] -> [B, width, H // 16, W // 16].

        Raises:
            ValueError: the pictures have another size or number of channels than declared.
        """
        expected = (self.in_chans, self.image_size, self.image_size)
        if tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"conv4 was built for pictures of {list(expected)} (channels, height, width) and got "
                f"{list(images.shape[1:])}; build it with that image size and channels, or resize the pictures"
            )
        return self.conv4(self.conv3(self.conv2(self.conv1(images))))

    def pool(self, features: Tensor) -> Tensor:
        """The flattened map, [B, D]."""
        return features.flatten(1)


_CONFIG = {"input_size": (3, 84, 84), "fixed_input_size": True, "first_conv": "conv1.0"}
for _name, _width in (("conv4", 64), ("conv4_32", 32), ("conv4_128", 128)):
    register(_name, Conv4, _CONFIG, width=_width)
