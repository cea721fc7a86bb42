"""Any timm model by name: its true width, its usual size, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import register_model
from torch import nn

import fewshot.backbones.create
from fewshot.backbones import create_backbone
from fewshot.functional.features import class_means

FAMILIES = [
    "resnet18",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "mobilenetv3_small_050",
    "mixer_s32_224",
    "levit_128s",
    "dla46_c",
]
FURTHER_FAMILIES = [
    "swin_tiny_patch4_window7_224",
    "efficientnet_b0",
    "efficientvit_b0",
    "regnetx_002",
    "densenet121",
    "ghostnet_050",
    "deit_tiny_distilled_patch16_224",
    "coat_lite_tiny",
    "xcit_nano_12_p16_224",
    "mobilevit_xxs",
]


@pytest.mark.parametrize(
    "name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in FURTHER_FAMILIES)]
)
def test_an_episode_through_any_family(name: str) -> None:
    """2-way 1-shot with one query a class, which is the support again with a little noise."""
    torch.manual_seed(0)
    backbone = create_backbone(name).eval()
    side = backbone.image_size
    support = torch.randn(2, 3, side, side)
    query = support + 1e-3 * torch.randn_like(support)
    with torch.inference_mode():
        features = backbone(torch.cat([support, query])).unflatten(0, (1, 4))  # [1, 4, D]
    assert features.shape == (1, 4, backbone.num_features)
    assert features.isfinite().all()
    means = class_means(features[:, :2], torch.tensor([[0, 1]]), 2)
    predicted = torch.cdist(features[:, 2:].double(), means.double()).argmin(-1)
    assert predicted.tolist() == [[0, 1]]


class Plain(nn.Module):
    """A network that knows nothing of timm."""

    def __init__(self, in_chans: int = 3, num_classes: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, 6, 3)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.conv(pictures)


def plain_net_of_the_tests(pretrained: bool = False, **options: Any) -> Plain:
    return Plain(options["in_chans"], options["num_classes"])


def test_a_registered_model_without_timms_description(tmp_path: Path) -> None:
    if not timm.is_model("plain_net_of_the_tests"):
        register_model(plain_net_of_the_tests)
    made = create_backbone("plain_net_of_the_tests", in_chans=1, image_size=28)
    assert (made.num_features, made.image_size, made.preprocessing) == (6, 28, None)
    torch.save(made.state_dict(), tmp_path / "weights.pth")
    again = create_backbone("plain_net_of_the_tests", in_chans=1, weights=tmp_path / "weights.pth")
    assert torch.equal(again.conv.weight, made.conv.weight)
    assert (again.image_size, again.preprocessing) == (224, None)


def test_true_width_where_timm_is_wrong() -> None:
    assert timm.create_model("efficientvit_b0", num_classes=0).num_features == 128
    assert create_backbone("efficientvit_b0").num_features == 1280


def test_measuring_leaves_random_states_statistics_and_modes_alone() -> None:
    torch.manual_seed(0)
    timm.create_model("test_efficientnet", num_classes=0)
    expected = torch.get_rng_state()
    torch.manual_seed(0)
    backbone = create_backbone("test_efficientnet")
    assert torch.equal(torch.get_rng_state(), expected)
    assert all(module.training for module in backbone.modules())
    assert int(backbone.bn1.num_batches_tracked) == 0
    assert not backbone.bn1.running_mean.any()


def test_names_in_the_state_dict_are_timms() -> None:
    assert (
        create_backbone("test_efficientnet").state_dict().keys()
        == timm.create_model("test_efficientnet", num_classes=0).state_dict().keys()
    )


class _Shaped(nn.Module):
    """A stand-in for a timm model that gives a map or tokens."""

    pretrained_cfg: dict[str, Any] = {"input_size": (3, 8, 8)}  # noqa: RUF012

    def __init__(self, shape: tuple[int, ...], **attributes: Any) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.randn(shape))
        for key, value in attributes.items():
            setattr(self, key, value)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.values.expand(len(images), *self.values.shape)


@pytest.mark.parametrize(
    ("network", "axes"),
    [
        (_Shaped((5, 2, 3)), (1, 2)),
        (_Shaped((2, 3, 5), output_fmt="NHWC"), (0, 1)),
        (_Shaped((4, 5)), (0,)),
        (_Shaped((4, 5), num_prefix_tokens=1), (0,)),
    ],
)
def test_maps_and_tokens_are_averaged(network: _Shaped, axes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fewshot.backbones.create, "_build", lambda *_: network)
    backbone = create_backbone("resnet18")
    assert backbone.num_features == 5
    values = network.values[1:] if hasattr(network, "num_prefix_tokens") else network.values
    images = torch.zeros(2, 3, 8, 8)
    torch.testing.assert_close(backbone(images), values.mean(axes).expand(2, 5))
    torch.testing.assert_close(copy.deepcopy(backbone)(images), backbone(images))
    torch.testing.assert_close(
        torch.func.functional_call(backbone, {"values": network.values + 1}, (images,)), backbone(images) + 1
    )


def test_what_cannot_be_averaged_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fewshot.backbones.create, "_build", lambda *_: _Shaped((2, 2, 2, 5)))
    with pytest.raises(ValueError, match="cannot be averaged"):
        create_backbone("resnet18")


def test_image_size_reaches_the_models_that_need_it() -> None:
    vit = create_backbone("vit_tiny_patch16_224", image_size=48)
    assert vit.image_size == 48
    assert vit(torch.zeros(1, 3, 48, 48)).shape == (1, 192)
    assert create_backbone("mobilenetv3_small_050", image_size=64, in_chans=1).image_size == 64


def test_unknown_names_are_answered_with_close_ones() -> None:
    with pytest.raises(ValueError, match=r"'resnt18' is not known; did you mean resnet18.*timm\.list_models"):
        create_backbone("resnt18")
    with pytest.raises(ValueError, match="did you mean conv4"):
        create_backbone("conv-4")
    with pytest.raises(ValueError, match="lies on the network"):
        create_backbone("hf-hub:timm/resnet18.a1_in1k")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet18", "image_size": 0}, "image_size=0"),
        ({"name": "resnet18", "in_chans": 0}, "in_chans=0"),
        ({"name": "vit_tiny_patch16_224", "image_size": 8}, "image_size"),
        ({"name": "conv4", "pretrained": True}, "no published weights"),
        ({"name": "resnet18", "pretrained": True, "weights": "x.pth"}, "choose one of them"),
    ],
)
def test_impossible_requests_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_backbone(**arguments)


def test_pretrained_weights_bring_their_preprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    build = timm.create_model
    asked = []

    def offline(name: str, *, pretrained: bool, **arguments: Any) -> nn.Module:
        asked.append(pretrained)
        return build(name, pretrained=False, **arguments)

    monkeypatch.setattr(timm, "create_model", offline)
    backbone = create_backbone("vit_tiny_patch16_224", pretrained=True, image_size=96)
    assert asked == [True]
    assert backbone.preprocessing["mean"] == (0.5, 0.5, 0.5)
    assert backbone.preprocessing["interpolation"] == "bicubic"
    assert backbone.preprocessing["input_size"] == (3, 96, 96)
    assert create_backbone("vit_tiny_patch16_224").preprocessing is None


def test_a_failed_download_names_the_local_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> nn.Module:
        raise OSError("connection refused")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=r"resnet18.*weights=.*connection refused"):
        create_backbone("resnet18", pretrained=True)
