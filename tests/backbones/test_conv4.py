"""Conv-4: width by image size, and the size it refuses."""

from __future__ import annotations

import pytest
import timm
import torch

from fewshot.backbones import Conv4, create_backbone


@pytest.mark.parametrize(
    ("name", "image_size", "in_chans", "n_features"),
    [
        ("conv4", None, 3, 1600),
        ("conv4", 84, 3, 1600),
        ("conv4", 32, 3, 256),
        ("conv4", 28, 1, 64),
        ("conv4_32", 28, 1, 32),
        ("conv4_128", 32, 3, 512),
    ],
)
def test_width_follows_the_image_size(name: str, image_size: int | None, in_chans: int, n_features: int) -> None:
    backbone = create_backbone(name, image_size=image_size, in_chans=in_chans)
    side = image_size or 84
    assert (backbone.num_features, backbone.image_size, backbone.in_chans) == (n_features, side, in_chans)
    assert backbone(torch.randn(2, in_chans, side, side)).shape == (2, n_features)


@pytest.mark.parametrize("shape", [(2, 3, 84, 84), (2, 1, 32, 32), (2, 3, 32, 40)])
def test_another_size_is_refused_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"conv4 was built for pictures of \[3, 32, 32\]"):
        Conv4(img_size=32)(torch.zeros(shape))


def test_too_small_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 px; image size 12 given"):
        create_backbone("conv4", image_size=12)


def test_blocks_are_the_papers_whatever_the_order_of_pooling_and_relu() -> None:
    torch.manual_seed(0)
    backbone = Conv4(img_size=32).double().eval()
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    expected = images
    for block in (backbone.conv1, backbone.conv2, backbone.conv3, backbone.conv4):
        expected = torch.max_pool2d(block[1](block[0](expected)).relu(), 2)
    torch.testing.assert_close(backbone(images), expected.flatten(1), rtol=0, atol=0)
    channels_last = backbone.to(memory_format=torch.channels_last)
    torch.testing.assert_close(channels_last(images), expected.flatten(1), rtol=1e-12, atol=1e-12)


def test_timm_builds_it_with_a_classifier() -> None:
    network = timm.create_model("conv4", num_classes=7, in_chans=1, img_size=28)
    assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 7)
    network.reset_classifier(0)
    assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 64)
    with pytest.raises(ValueError, match="conv4 has no published weights"):
        timm.create_model("conv4", pretrained=True)
