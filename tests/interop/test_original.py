"""Models of the original program against its own results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot.backbones import WideResNet, create_backbone
from fewshot.interop.original import sib_from_original, wide_resnet_from_original

ORACLES = Path(__file__).parents[1] / "oracles"
WIDE_RESNET_ORACLES = sorted(ORACLES.glob("wrn10_2_*.npz"))


def read(path: Path) -> dict[str, Any]:
    with np.load(path) as archive:
        return {name: torch.from_numpy(np.asarray(archive[name])) for name in archive}


def entries(oracle: dict[str, Any], room: str) -> dict[str, Tensor]:
    return {name.removeprefix(room): value for name, value in oracle.items() if name.startswith(room)}


def checkpoint_of(oracle: dict[str, Any]) -> dict[str, Any]:
    return {
        "SIB": entries(oracle, "weights/"),
        "nbStep": int(oracle["n_steps"]),
        "lr": float(oracle["step_size"]),
    }


@pytest.fixture
def checkpoint() -> dict[str, Any]:
    return checkpoint_of(read(ORACLES / "sib_5way1shot_K3.npz"))


def test_sib_has_the_originals_parameters_and_no_others(checkpoint: dict[str, Any]) -> None:
    method = sib_from_original(checkpoint)
    learned = {
        name: value
        for name, value in checkpoint["SIB"].items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    }
    assert len(list(method.parameters())) == len(learned)
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == sum(v.numel() for v in learned.values())
    assert (method.n_steps, method.step_size, method.n_way) == (3, checkpoint["lr"], 5)


def test_sib_is_read_from_a_file_and_leaves_the_backbone_aside(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    netfeat = {"conv1.weight": torch.zeros(1)}
    checkpoint["SIB"] = {name: value.float() if value.ndim else value for name, value in checkpoint["SIB"].items()}
    torch.save({**checkpoint, "netFeat": netfeat, "lr": torch.tensor(0.01)}, tmp_path / "netSIBBest.pth")
    method = sib_from_original(tmp_path / "netSIBBest.pth")
    assert {p.dtype for p in method.parameters()} == {torch.float32}
    assert method.step_size == pytest.approx(0.01)


def test_sib_names_every_bad_entry(checkpoint: dict[str, Any]) -> None:
    weights = checkpoint["SIB"]
    with pytest.raises(ValueError, match=r"missing 'lr'.*superfluous 'epoch'"):
        sib_from_original({"SIB": weights, "nbStep": 3, "epoch": 1})
    less = {name: value for name, value in weights.items() if name not in ("bias", "dni.layer2.0.bias")}
    with pytest.raises(ValueError, match=r"missing 'bias'; missing 'dni.layer2.0.bias'; superfluous 'extra'"):
        sib_from_original({**checkpoint, "SIB": {**less, "extra": torch.zeros(1)}})
    bent = {**weights, "dni.layer1.0.weight": torch.zeros(40, 6), "scale_cls": torch.ones(2)}
    with pytest.raises(ValueError, match=r"misshapen 'scale_cls'.*misshapen 'dni.layer1.0.weight' \[40, 6\]"):
        sib_from_original({**checkpoint, "SIB": bent})
    with pytest.raises(ValueError, match="'scale_cls' holds values that are not finite"):
        sib_from_original({**checkpoint, "SIB": {**weights, "scale_cls": torch.tensor([float("nan")])}})
    with pytest.raises(ValueError, match=r"misshapen 'dni.layer3.weight'"):
        sib_from_original({**checkpoint, "SIB": {**weights, "dni.layer3.weight": torch.zeros(40)}})
    with pytest.raises(ValueError, match=r"'nbStep'.*-1"):
        sib_from_original({**checkpoint, "nbStep": -1})
    with pytest.raises(ValueError, match=r"'lr'.*'fast'"):
        sib_from_original({**checkpoint, "lr": "fast"})
    with pytest.raises(ValueError, match=r"'SIB'.*list"):
        sib_from_original({**checkpoint, "SIB": []})
    with pytest.raises(FileNotFoundError, match="nowhere"):
        sib_from_original("nowhere.pth")


def whole_wide_resnet(oracle: dict[str, Any]) -> dict[str, Tensor]:
    """The weights with the rows that the archive leaves out (behind features 16 to 127) filled up; see its README."""
    weights = entries(oracle, "weights/")
    short = [name for name in weights if name.startswith("bn1.")]
    for name in [*short, "block3.layer.0.conv2.weight", "block3.layer.0.convShortcut.weight"]:
        kept = weights[name]
        weights[name] = torch.cat([kept, kept.new_ones(128 - len(kept), *kept.shape[1:])])
    return weights


@pytest.mark.parametrize("path", WIDE_RESNET_ORACLES, ids=lambda path: path.stem)
def test_wide_resnet_gives_the_originals_features(path: Path) -> None:
    oracle = read(path)
    network = wide_resnet_from_original(whole_wide_resnet(oracle), small_images=bool(oracle["small_images"]))
    assert network.num_features == 128
    with torch.inference_mode():
        features = network.double().eval()(oracle["images"])
    torch.testing.assert_close(features[:, :16], oracle["features"], rtol=0, atol=1e-5)


def original_wide_resnet(depth: int, width: int, in_chans: int = 3) -> dict[str, Tensor]:
    ours = WideResNet(depth, width, in_chans=in_chans, small_images=True).state_dict()
    renamed = {}
    for name, value in ours.items():
        if name.startswith("block"):
            group, rest = name.split(".", 1)
            name = f"{group}.layer.{rest}".replace("shortcut", "convShortcut")
        renamed[name] = value
    return renamed


@pytest.mark.parametrize(("depth", "width", "in_chans"), [(16, 1, 3), (22, 2, 1), (10, 3, 3)])
def test_wide_resnet_of_any_depth_and_width(depth: int, width: int, in_chans: int, tmp_path: Path) -> None:
    weights = original_wide_resnet(depth, width, in_chans)
    torch.save({"SIB": {}, "netFeat": weights}, tmp_path / "netSIB.pth")
    network = wide_resnet_from_original(tmp_path / "netSIB.pth", small_images=True)
    assert network.num_features == 64 * width
    assert len(network.block3) == (depth - 4) // 6
    torch.testing.assert_close(network.block3[0].conv2.weight, weights["block3.layer.0.conv2.weight"])


def test_wide_resnet_names_every_bad_entry() -> None:
    weights = original_wide_resnet(16, 1)
    bent = dict(weights)
    del bent["block2.layer.1.bn1.weight"]
    bent |= {"head.weight": torch.zeros(1), "bn1.bias": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"missing 'block2.layer.1.bn1.weight'") as raised:
        wide_resnet_from_original(bent, small_images=True)
    assert "superfluous 'head.weight'" in str(raised.value)
    assert "misshapen 'bn1.bias' [3], expected [64]" in str(raised.value)
    del bent["block1.layer.0.conv1.weight"]
    with pytest.raises(ValueError, match=r"'block1.layer.0.conv1.weight' .* missing"):
        wide_resnet_from_original(bent, small_images=True)


@pytest.mark.slow
def test_create_backbone_reads_the_originals_wide_resnet(tmp_path: Path) -> None:
    weights = original_wide_resnet(28, 10)
    torch.save(weights, tmp_path / "netFeatBest.pth")
    backbone = create_backbone("wrn28_10", weights=tmp_path / "netFeatBest.pth", image_size=32)
    torch.testing.assert_close(backbone.block1[0].shortcut.weight, weights["block1.layer.0.convShortcut.weight"])
