"""Conv-4: the four-block convolutional network of the first few-shot papers.

Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra: Matching Networks for One Shot Learning, NeurIPS 2016,
arXiv 1606.04080 (section 4.1), and Snell, Swersky, Zemel: Prototypical Networks for Few-shot Learning, NeurIPS 2017,
arXiv 1703.05175 (section 3.1, the flattened output).
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    # The papers write ReLU, then pooling. The two commute (values and gradients), and this order touches a quarter.
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
    )


class Conv4(nn.Module):
    """Four times 3x3 convolution, batch normalisation, ReLU and 2x2 max pooling; the last map is flattened.

    Takes [B, in_chans, img_size, img_size] and gives [B, D] with D = width * (img_size // 16)**2: 1600 for 84 px,
    256 for 32 px, 64 for 28 px with 64 channels. Pictures of another size would silently change D and are refused.

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
        if isinstance(img_size, tuple):  # what timm passes where no size is asked for
            img_size = img_size[0]
        if img_size < 16:
            raise ValueError(
                f"conv4 halves the picture four times and needs at least 16 px; image size {img_size} given"
            )
        self.in_chans = in_chans
        self.image_size = img_size
        self.num_classes = num_classes
        self.num_features = width * (img_size // 16) ** 2
        self.conv1 = _block(in_chans, width)
        self.conv2 = _block(width, width)
        self.conv3 = _block(width, width)
        self.conv4 = _block(width, width)
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

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

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """The flattened map [B, D], or with a classifier its output [B, num_classes] unless `pre_logits`."""
        features = features.flatten(1)  # [B, D]
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


def _cfg() -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 0,
        "input_size": (3, 84, 84),
        "fixed_input_size": True,
        "first_conv": "conv1.0",
        "classifier": "fc",
    }


default_cfgs = generate_default_cfgs({"conv4": _cfg(), "conv4_32": _cfg(), "conv4_128": _cfg()})


def _create(variant: str, width: int, pretrained: bool, kwargs: dict[str, Any]) -> Conv4:
    if pretrained:
        raise ValueError(f"{variant} has no published weights; use pretrained=False, with weights=<file> of your own")
    return build_model_with_cfg(Conv4, variant, pretrained=False, width=width, **kwargs)


@register_model
def conv4(pretrained: bool = False, **kwargs: Any) -> Conv4:
    """Conv-4 with 64 channels; for `timm.create_model("conv4", in_chans=, img_size=, num_classes=)`."""
    return _create("conv4", 64, pretrained, kwargs)


@register_model
def conv4_32(pretrained: bool = False, **kwargs: Any) -> Conv4:
    """Conv-4 with 32 channels, as in MAML; for `timm.create_model("conv4_32", ...)`."""
    return _create("conv4_32", 32, pretrained, kwargs)


@register_model
def conv4_128(pretrained: bool = False, **kwargs: Any) -> Conv4:
    """Conv-4 with 128 channels; for `timm.create_model("conv4_128", ...)`."""
    return _create("conv4_128", 128, pretrained, kwargs)
