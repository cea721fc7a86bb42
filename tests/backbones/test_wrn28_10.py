"""The wide ResNet: strides by image size. Its features against the original's: tests/test_interop.py."""

from __future__ import annotations

import pytest
import timm
import torch

from fewshot.backbones import WideResNet, create_backbone


@pytest.mark.parametrize(
    ("image_size", "small"), [(None, False), (28, True), (32, True), (40, True), (80, False), (84, False)]
)
def test_strides_follow_the_image_size(image_size: int | None, small: bool) -> None:
    arguments = {} if image_size is None else {"img_size": image_size}
    with torch.device("meta"):
        assert timm.create_model("wrn28_10", **arguments).small_images is small


def test_strides_can_be_said() -> None:
    large = WideResNet(10, 1, small_images=False, img_size=32)
    small = WideResNet(10, 1, small_images=True, img_size=80)
    assert large.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 64, 4, 4)
    assert small.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 64, 8, 8)


@pytest.mark.slow
def test_wrn28_10_is_28_deep_and_10_wide() -> None:
    backbone = create_backbone("wrn28_10", image_size=32, in_chans=1)
    assert (backbone.num_features, backbone.image_size) == (640, 32)
    convolutions = [m for m in backbone.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) == 25  # and three shortcuts make 28
    assert (backbone(torch.randn(1, 1, 32, 32)) >= 0).all()


def test_a_classifier_and_refusals() -> None:
    network = WideResNet(16, 1, num_classes=7)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    with pytest.raises(ValueError, match="depth 12 does not exist"):
        WideResNet(12, 1)
    with pytest.raises(ValueError, match="wrn28_10 has no published weights"):
        timm.create_model("wrn28_10", pretrained=True)
