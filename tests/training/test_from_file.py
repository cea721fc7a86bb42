"""A checkpoint from a stranger chooses no code: every way of reading one goes through the same wall."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import (
    EVIL,
    OPTIONS_OF_TRAINING,
    OWN,
    PICTURES,
    REFUSED,
    ROUTES,
    changed,
    checkpoint,
    command,
    working_directory,
)
from hostile_weights import STATES

from fewshot import FewShotClassifier, FewShotModule, PretrainModule
from fewshot.backbones import BackboneConfig
from fewshot.methods import SIB
from fewshot.training.saved_model import load_trained


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module of a stranger's, labelled pictures and pictures to classify."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    working_directory(tmp_path)
    return tmp_path


def nothing_happened(folder: Path) -> bool:
    return not (folder / "PWNED").exists() and EVIL not in sys.modules


def refusal(route: str, file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The error of a route, which is one line of the command or a ValueError."""
    with pytest.raises((ValueError, SystemExit)) as caught:
        ROUTES[route](file)
    if isinstance(caught.value, SystemExit):
        assert caught.value.code == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert [line for line in lines if not line.startswith("decoding ")] == lines[-1:], lines
        return lines[-1]
    return str(caught.value)


@pytest.mark.parametrize("case", REFUSED)
def test_a_class_of_elsewhere_is_refused_before_it_is_imported(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = checkpoint()
    changed(content, *REFUSED[case])
    torch.save(content, folder / "x.ckpt")
    for route in ("load_trained", "load_from_checkpoint", "from_checkpoint"):
        assert "x.ckpt" in refusal(route, folder / "x.ckpt", capsys)
    assert nothing_happened(folder)


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
def test_every_way_of_reading_has_the_wall(route: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = checkpoint()
    changed(content, "method.class_path", f"{EVIL}.X")
    torch.save(content, folder / "x.ckpt")
    said = refusal(route, folder / "x.ckpt", capsys)
    assert f"asks for {EVIL}.X, and only classes of fewshot are imported" in said and f"allow '{EVIL}'" in said
    assert nothing_happened(folder)


@pytest.mark.parametrize("key", OPTIONS_OF_TRAINING)
def test_options_of_training_are_dropped_unread(key: str, folder: Path) -> None:
    content = checkpoint()
    changed(content, key, OPTIONS_OF_TRAINING[key])
    torch.save(content, folder / "x.ckpt")
    found = load_trained(folder / "x.ckpt").module
    assert isinstance(found.method, SIB) and found.optimizer.func is torch.optim.SGD
    FewShotClassifier.from_checkpoint(folder / "x.ckpt")
    assert nothing_happened(folder)


@pytest.mark.parametrize("key", ["lr_scheduler", "optimizer"])
@pytest.mark.parametrize("kind", [FewShotModule, PretrainModule])
def test_where_training_is_to_go_on_an_optimiser_of_elsewhere_is_refused(key: str, kind: Any, folder: Path) -> None:
    content = checkpoint("few_shot" if kind is FewShotModule else "pretrain")
    changed(content, key, OPTIONS_OF_TRAINING[key])
    torch.save(content, folder / "x.ckpt")
    with pytest.raises(ValueError, match=rf"{key}.*(only classes of|not plain values)"):
        kind.load_from_checkpoint(folder / "x.ckpt")
    given = {key: None}
    assert isinstance(kind.load_from_checkpoint(folder / "x.ckpt", **given), kind)
    assert nothing_happened(folder)


def test_first_weights_and_their_fetching_are_never_read(folder: Path) -> None:
    for kind in (FewShotModule, PretrainModule):
        content = checkpoint("few_shot" if kind is FewShotModule else "pretrain")
        changed(content, "backbone.pretrained", True)
        changed(content, "backbone.weights", "/etc/passwd")
        torch.save(content, folder / "x.ckpt")
        loaded = kind.load_from_checkpoint(folder / "x.ckpt")
        assert loaded.backbone_config == BackboneConfig("conv4_32", image_size=16)


def test_weights_of_a_pretraining_take_no_code_from_its_options(folder: Path) -> None:
    content = checkpoint("pretrain")
    for key in ("optimizer", "rotation", "mixup", "_class_path"):
        changed(content, key, OWN)
    torch.save(content, folder / "x.ckpt")
    BackboneConfig("conv4_32", weights=str(folder / "x.ckpt"), image_size=16).create()
    assert nothing_happened(folder)


@pytest.mark.parametrize("case", STATES)
def test_the_state_is_checked_before_it_is_taken_over(case: str, folder: Path) -> None:
    change, said = STATES[case]
    content = checkpoint()
    change(content)
    torch.save(content, folder / "x.ckpt")
    for read in (load_trained, FewShotModule.load_from_checkpoint):
        with pytest.raises(ValueError, match=said):
            read(folder / "x.ckpt")


def test_pictures_that_no_memory_holds_are_refused(folder: Path) -> None:
    content = checkpoint() | {"pictures": {**PICTURES, "stored_size": 1_000_000}}
    torch.save(content, folder / "x.ckpt")
    with pytest.raises(ValueError, match="stored_size=1000000; need 1 <= image_size <= stored_size <= 2048"):
        load_trained(folder / "x.ckpt")


def test_a_class_of_ones_own_is_read_on_ones_own_word(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my_own_method.py").write_text("from fewshot.methods import ProtoNet\n\n\nclass Mine(ProtoNet): pass\n")
    my_own_method = importlib.import_module("my_own_method")

    backbone = BackboneConfig("conv4_32", image_size=16)
    content = checkpoint()
    module = FewShotModule(my_own_method.Mine(), backbone)
    content |= {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    torch.save(content, folder / "x.ckpt")
    assert "allow 'my_own_method' by the option packages" in refusal("classify", folder / "x.ckpt", capsys)
    packages = ["my_own_method"]
    for found in (
        load_trained(folder / "x.ckpt", packages).module,
        FewShotModule.load_from_checkpoint(folder / "x.ckpt", packages=packages),
    ):
        assert type(found.method) is my_own_method.Mine
    classifier = FewShotClassifier.from_checkpoint(folder / "x.ckpt", packages=packages)
    assert type(classifier.method_) is my_own_method.Mine
    options = ["--support=support", "--query=query", "--output=out", f"--packages={packages}"]
    command("classify", f"--ckpt_path={folder / 'x.ckpt'}", *options)
    assert (folder / "out" / "predictions.csv").is_file()


def test_what_is_not_served_is_said(folder: Path) -> None:
    torch.save(checkpoint(), folder / "x.ckpt")
    for option in ({"weights_only": False}, {"strict": False}, {"hparams_file": "hparams.yaml"}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} is not served"):
            FewShotModule.load_from_checkpoint(folder / "x.ckpt", **option)
    assert FewShotModule.load_from_checkpoint(folder / "x.ckpt", map_location="cpu", weights_only=True, strict=True)
