"""Checkpoints of the original program become ours, with the same logits, and go wherever ours go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models import register_model
from torch import Tensor

from fewshot.backbones import WideResNet, create_backbone
from fewshot.backbones.wrn28_10 import original_names
from fewshot.commands import main
from fewshot.episode import Episode
from fewshot.interop.original import SETS, module_from_original, sib_from_original, wide_resnet_from_original
from fewshot.methods import NearestClassMean
from fewshot.methods.sib import SIB
from fewshot.training.few_shot_module import FewShotModule
from fewshot.training.saved_model import load_trained, read_model

ORACLE = Path(__file__).parents[1] / "oracles" / "sib_5way1shot_K3.npz"
SMALL = "wrn10_2_of_the_tests"
CIFAR = ("--dataset", "cifar_fs", "--backbone", SMALL)


@pytest.fixture(autouse=True, scope="module")
def small_backbone() -> Iterator[None]:
    """The original's network with one block a group and twice the width, known to timm while these tests run."""

    def wrn10_2_of_the_tests(pretrained: bool = False, **options: Any) -> WideResNet:
        keep = {key: options[key] for key in ("num_classes", "in_chans", "img_size") if key in options}
        network = WideResNet(10, 2, **keep)
        network.pretrained_cfg = {"input_size": (3, 80, 80), "classifier": "fc"}
        return network

    wrn10_2_of_the_tests.__module__ = __name__
    register_model(wrn10_2_of_the_tests)
    yield
    timm.models._registry._model_entrypoints.pop(SMALL)


def original_backbone(depth: int = 10, width: int = 2) -> dict[str, Tensor]:
    """Weights under the original's names, with statistics that are not those of a fresh network."""
    torch.manual_seed(5)
    network = WideResNet(depth, width, small_images=True)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.add_(0.1 * torch.rand_like(value) if "var" in name else 0.05 * torch.randn_like(value))
    names = original_names(network)
    return {names[key]: value.clone() for key, value in network.state_dict().items()}


def original_sib(width: int = 128) -> dict[str, Any]:
    """The oracle's SIB for features of 128 numbers, in float32, with a step that changes something."""
    with np.load(ORACLE) as archive:
        weights = {
            name.removeprefix("weights/"): torch.from_numpy(np.asarray(archive[name])).float()
            for name in archive
            if name.startswith("weights/")
        }
    weights["wnLayerFavg.weight"] = 1 + 0.1 * torch.randn(width)
    return {"SIB": weights, "nbStep": 3, "lr": 0.05}


@pytest.fixture
def original(tmp_path: Path) -> Path:
    torch.save({**original_sib(), "netFeat": original_backbone()}, tmp_path / "netSIBBest.pth")
    return tmp_path / "netSIBBest.pth"


def convert(*arguments: Any) -> None:
    main(["convert", *map(str, arguments)])


@pytest.mark.parametrize("output", ["model.ckpt", "model"])
def test_the_model_is_the_originals(output: str, original: Path, tmp_path: Path) -> None:
    convert(original, "--output", tmp_path / output, *CIFAR)
    found = load_trained(tmp_path / output)
    assert found.preprocessing == SETS["cifar_fs"]
    module = found.module
    if output == "model.ckpt":
        module = FewShotModule.load_from_checkpoint(tmp_path / output, weights_only=True).eval()
    network = wide_resnet_from_original(original, small_images=True).eval()
    method = sib_from_original(original).eval()
    labels = torch.arange(5).repeat(1, 2)
    tasks = Episode(torch.randn(1, 10, 3, 32, 32), labels, torch.randn(1, 12, 3, 32, 32), None, 5)
    with torch.no_grad():
        support, query = network(tasks.support[0])[None], network(tasks.query[0])[None]
        wanted = method.refine(support, labels, query, 5).logits
        logits = module(tasks).logits
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)
    assert float((wanted[-1] - wanted[0]).abs().max()) > 0.1
    assert isinstance(module.method, SIB) and module.method.n_steps == 3 and module.method.step_size == 0.05


def test_sib_and_its_backbone_from_two_files(original: Path, tmp_path: Path) -> None:
    torch.save(original_sib(), tmp_path / "netSIB.pth")
    torch.save(original_backbone(), tmp_path / "netFeat.pth")
    convert(tmp_path / "netSIB.pth", "--features", tmp_path / "netFeat.pth", "--output", tmp_path / "two.ckpt", *CIFAR)
    found = load_trained(tmp_path / "two.ckpt").module.backbone.state_dict()
    network = wide_resnet_from_original(original, small_images=True).state_dict()
    for key, value in network.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=0)


def test_a_backbone_alone_serves_as_weights(tmp_path: Path) -> None:
    torch.save(original_backbone(), tmp_path / "netFeat62.561.pth")
    convert(tmp_path / "netFeat62.561.pth", "--output", tmp_path / "features.ckpt", *CIFAR)
    found = load_trained(tmp_path / "features.ckpt").module
    assert type(found.method) is NearestClassMean
    backbone = create_backbone(SMALL, weights=tmp_path / "features.ckpt", image_size=32).eval()
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(backbone(pictures), found.backbone(pictures))
    assert backbone.preprocessing["mean"] == SETS["cifar_fs"].mean
    with pytest.raises(ValueError, match=r"32 px.*80"):  # its strides are those of small pictures
        create_backbone(SMALL, weights=tmp_path / "features.ckpt", image_size=80)


def test_test_and_export_take_it(
    original: Path, tmp_path: Path, write_pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures", size=32)
    convert(original, "--output", "model.ckpt", *CIFAR)
    config = Path(__file__).parents[2] / "configs" / "cifar_fs" / "wrn28_10_sib_5way1shot.yaml"
    options = ["--ckpt_path", "model.ckpt", "--model.backbone.name", SMALL]
    options += [
        "--data.dataset",
        "ImageFolderSplits",
        "--data.dataset.root",
        "pictures",
        "--trainer.accelerator",
        "cpu",
    ]
    options += ["--data.test_episodes", "3", "--data.n_query", "2", "--trainer.logger", "false", "--runs", "runs"]
    options += ["--trainer.devices", "1", "--model.method.step_size", "0.05", "--model.backbone.image_size", "32"]
    main(["test", "--config", str(config), *options])
    results = json.loads(next((tmp_path / "runs").rglob("results.json")).read_text())
    assert results["n_episodes"] == 3 and len(results["accuracy_per_step"]) == 4
    assert results["preprocessing"]["mean"] == pytest.approx(SETS["cifar_fs"].mean)
    main(["export", "--ckpt_path", "model.ckpt", "--output", "out", "--formats", "[]"])
    module, preprocessing = read_model(tmp_path / "out")
    assert preprocessing == SETS["cifar_fs"] and module.method.n_way == 5


def test_pictures_of_ones_own_size_and_normalisation(original: Path, tmp_path: Path) -> None:
    own = ("--image_size", 80, "--stored_size", 92, "--mean", "[0.5,0.5,0.5]", "--std", "[0.2,0.2,0.2]")
    convert(original, "--output", tmp_path / "model.ckpt", "--backbone", SMALL, *own)
    found = load_trained(tmp_path / "model.ckpt")
    assert found.preprocessing.stored_size == 92 and found.preprocessing.mean == (0.5, 0.5, 0.5)
    assert not found.module.backbone.small_images


def test_the_original_programs_own_figures() -> None:
    """As (x / 255) of what it subtracts and divides by; mini-ImageNet is cropped from 84 to 80 px."""
    mini, cifar = SETS["mini_imagenet"], SETS["cifar_fs"]
    assert (mini.image_size, mini.stored_size, cifar.image_size, cifar.stored_size) == (80, 84, 32, 32)
    np.testing.assert_allclose(mini.mean, [0.47214, 0.45331, 0.40996], atol=1e-5)
    np.testing.assert_allclose(cifar.std, [0.26749, 0.25659, 0.27631], atol=1e-5)


@pytest.mark.slow
def test_what_a_person_can_mend_is_one_line(original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: Any) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            convert(*arguments)
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
        return error

    out = ("--output", tmp_path / "out.ckpt")
    assert "give --dataset mini_imagenet or cifar_fs" in refused(original, *out)
    assert "image_size, std not given" in refused(original, *out, "--mean", "[0.5,0.5,0.5]")
    assert "leave image_size" in refused(original, *out, *CIFAR, "--image_size", 32)
    assert "nowhere.pth" in refused(tmp_path / "nowhere.pth", *out, *CIFAR)
    assert "leave --features out" in refused(original, *out, *CIFAR, "--features", original)
    assert "depth 10 and width 2, which 'wrn28_10' is not" in refused(original, *out, "--dataset", "cifar_fs")

    def written(name: str, content: Any) -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    alone = written("alone.pth", original_sib())
    assert "give its netFeat*.pth by --features" in refused(alone, *out, *CIFAR)
    feat = written("feat.pth", original_backbone())
    assert "is a backbone itself" in refused(feat, *out, *CIFAR, "--features", feat)
    other = written("other.pth", {"layer1.0.weight": torch.ones(3)})
    assert "'block1.layer.0.conv1.weight'" in refused(other, *out, *CIFAR)
    wide = written("wide.pth", {**original_sib(640), "netFeat": original_backbone()})
    assert "is for features of 640 numbers but the backbone" in refused(wide, *out, *CIFAR)
    huge = {"block1.layer.0.conv1.weight": torch.zeros(512, 16, 3, 3), "conv1.weight": torch.zeros(16, 3, 3, 3)}
    huge["block1.layer.63.x"] = torch.zeros(1)  # a network of 25 GB
    assert "missing 'block1.layer.0.bn1.weight'" in refused(written("huge.pth", huge), *out, *CIFAR)
    bad = original_backbone()
    bad["bn1.bias"][0] = float("nan")
    assert "'bn1.bias' holds values that are not finite" in refused(written("nan.pth", bad), *out, *CIFAR)
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(original.read_bytes()[:5000])
    assert "cannot be read" in refused(damaged, *out, *CIFAR)
    assert not (tmp_path / "out.ckpt").exists()
    convert(original, *out, *CIFAR)
    assert "is there already" in refused(original, *out, *CIFAR)
    convert(original, *out, *CIFAR, "--overwrite")
    assert "a checkpoint of Lightning" in refused(tmp_path / "out.ckpt", "--output", tmp_path / "a.ckpt", *CIFAR)
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".partial")]
    (tmp_path / "folder.ckpt").mkdir()
    assert "is a folder; name a .ckpt file" in refused(
        original, "--output", tmp_path / "folder.ckpt", *CIFAR, "--overwrite"
    )
    own = ("--image_size", 32, "--stored_size", 0, "--mean", "[0.5]", "--std", "[0.2]")
    assert "name a .ckpt file, or a folder" in refused(original, "--output", tmp_path / "b.pth", *CIFAR)
    assert "stored_size=0" in refused(original, "--output", tmp_path / "b.ckpt", *own)
    for name in ("model.ckpt", "model"):
        assert "damaged.pth is a file" in refused(original, "--output", damaged / name, *CIFAR)


def test_channels_are_the_backbones(original: Path) -> None:
    with pytest.raises(ValueError, match="takes 3 channels"):
        grey = SETS["cifar_fs"].with_channels(1)
        module_from_original(original, None, grey, backbone=SMALL)
