"""ResNet-12 and its DropBlock."""

from __future__ import annotations

import pytest
import timm
import torch

from fewshot.backbones import ResNet12, create_backbone
from fewshot.backbones.resnet12 import DropBlock


@pytest.mark.parametrize(
    ("name", "width", "image_size", "in_chans"),
    [("resnet12", 640, None, 3), ("resnet12", 640, 32, 1), ("resnet12_narrow", 256, 32, 3)],
)
def test_features(name: str, width: int, image_size: int | None, in_chans: int) -> None:
    backbone = create_backbone(name, image_size=image_size, in_chans=in_chans)
    side = image_size or 84
    assert (backbone.num_features, backbone.image_size) == (width, side)
    assert backbone(torch.randn(2, in_chans, side, side)).shape == (2, width)


def test_parameter_count_is_that_of_the_published_network() -> None:
    """Three 3x3 convolutions and a 1x1 shortcut a block, each with scale and shift of its normalisation."""
    channels, expected = 3, 0
    for width in (64, 160, 320, 640):
        expected += 9 * (channels * width + 2 * width**2) + channels * width + 4 * 2 * width
        channels = width
    assert sum(p.numel() for p in ResNet12().parameters()) == expected == 12_424_320


def test_timm_builds_it_with_a_classifier_and_dropblock() -> None:
    network = timm.create_model("resnet12", num_classes=7, img_size=32, drop_block_rate=0.1, drop_block_size=2)
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    with pytest.raises(ValueError, match="resnet12 has no published weights"):
        timm.create_model("resnet12", pretrained=True)
    with pytest.raises(ValueError, match=r"drop_block_rate=1\.0"):
        ResNet12(drop_block_rate=1.0)
    with pytest.raises(ValueError, match="at least 16 px; image size 8 given"):
        create_backbone("resnet12", image_size=8)


@pytest.mark.parametrize(("side", "size"), [(10, 5), (5, 5), (8, 2), (2, 5)])
def test_dropblock_drops_its_rate_in_whole_regions_and_keeps_the_mean(side: int, size: int) -> None:
    torch.manual_seed(0)
    drop = DropBlock(0.1, size)
    features = torch.ones(100, 100, side, side)
    dropped = drop(features)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.1, abs=0.015)
    assert float(dropped.mean()) == pytest.approx(1, abs=1e-4)
    holes = (dropped == 0).flatten(0, 1).sum((1, 2))
    assert int(holes[holes > 0].min()) == min(side, size) ** 2
    assert torch.equal(drop.eval()(features), features)
