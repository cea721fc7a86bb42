"""A checkpoint from a stranger chooses no code: every way of reading one goes through the same wall."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fewshot import FewShotClassifier, FewShotModule, PretrainModule
from fewshot.backbones import BackboneConfig
from fewshot.commands import main
from fewshot.methods import SIB
from fewshot.training.saved_model import load_trained

EVIL = "evil_module_of_a_stranger"
CALL = {"class_path": "subprocess.getoutput", "init_args": {"cmd": "touch PWNED"}}
ALPHA = {"class_path": "subprocess.getoutput", "init_args": {"cmd": "touch PWNED"}}
LOOKAHEAD = {
    "class_path": "timm.optim.Lookahead",
    "init_args": {"base_optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}, "alpha": ALPHA},
}
OWN = {"class_path": f"{EVIL}.X", "init_args": {}}
PICTURES = {"image_size": 16, "stored_size": 16, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}

OPTIONS_OF_TRAINING: dict[str, Any] = {
    "lr_scheduler": {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": CALL}},
    "optimizer": LOOKAHEAD,
    "initial_loss_weight": CALL,
    "label_smoothing": OWN,
}
"""Which nothing but training reads: whatever they say, the model is read and nothing else happens."""


def changed(content: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of the hyper-parameters."""
    place, *rest = content["hyper_parameters"], *key.split(".")
    for name in rest[:-1]:
        place = place[name]
    place[rest[-1]] = value


REFUSED: dict[str, tuple[str, Any]] = {
    "method": ("method.class_path", f"{EVIL}.X"),
    "method, of the standard library": ("method", CALL),
    "method, by a function": ("method.class_path", "fewshot.training.saved_model.load_trained"),
    "method, what the package imports": ("method.class_path", "fewshot.training.few_shot_module.timm.create_model"),
    "method, no dotted path": ("method.class_path", "X; import os"),
    "method, a list": ("method", [OWN]),
    "initialiser": ("method.init_args.initializer", OWN),
    "gradient": ("method.init_args.gradient", OWN),
    "posterior": ("method.init_args.posterior", CALL),
    "steps": ("method.init_args.n_steps", CALL),
    "deep within": ("method.init_args.step_size", {"a": [{"b": OWN}]}),
    "backbone": ("backbone", OWN),
    "backbone's name": ("backbone.name", OWN),
    "backbone on the network": ("backbone.name", "hf-hub:timm/resnet18.a1_in1k"),
    "module": ("_class_path", f"{EVIL}.X"),
    "an option that there is not": ("lr_lambda", CALL),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module of a stranger's, labelled pictures and pictures to classify."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"{EVIL}.py").write_text("from pathlib import Path\nPath('PWNED').touch()\nclass X: pass\n")
    rng = np.random.default_rng(0)
    for place in ("support/a", "support/b", "query"):
        (tmp_path / place).mkdir(parents=True)
        for number in range(2):
            pixels = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / place / f"{number}.png")
    return tmp_path


def checkpoint(kind: str = "few_shot") -> dict[str, Any]:
    """What a good checkpoint holds."""
    torch.manual_seed(0)
    backbone = BackboneConfig("conv4_32", image_size=16)
    module: Any = FewShotModule(SIB(n_steps=1), backbone) if kind == "few_shot" else PretrainModule(3, backbone)
    return {
        "pytorch-lightning_version": "2.6.0",
        "epoch": 0,
        "global_step": 0,
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "pictures": dict(PICTURES),
    }


def command(*words: str) -> None:
    main([*words])


def classify(file: Path) -> None:
    command("classify", f"--ckpt_path={file}", "--support=support", "--query=query", "--output=out")


def compare(file: Path) -> None:
    data = "{class_path: Glyphs}"
    methods = f"{{it: {{ckpt_path: {file}}}}}"
    command("compare", f"--methods={methods}", f"--data.dataset={data}", "--data.test_episodes=2", "--runs=runs")


ROUTES: dict[str, Callable[[Path], Any]] = {
    "load_trained": load_trained,
    "from_checkpoint": FewShotClassifier.from_checkpoint,
    "load_from_checkpoint": FewShotModule.load_from_checkpoint,
    "classify": classify,
    "export": lambda file: command("export", f"--ckpt_path={file}", "--output=out", "--formats=[]"),
    "compare": compare,
}


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


STATES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no state": (lambda c: c.pop("state_dict"), "holds no options with weights"),
    "options that are a list": (lambda c: c.update(hyper_parameters=["method"]), "no checkpoint of FewShotModule"),
    "ten million steps": (
        lambda c: changed(c, "method.init_args.n_steps", 10_000_000),
        "n_steps=10000000 but a file may ask for 10000 at most",
    ),
    "a billion ways": (
        lambda c: changed(
            c,
            "method.init_args.gradient",
            {"class_path": "fewshot.methods.MLPGradient", "init_args": {"n_way": 10**9}},
        ),
        "n_way=1000000000 but a file may ask for 10000 at most",
    ),
    "more weights than the file": (
        lambda c: changed(
            c,
            "method.init_args.gradient",
            {"class_path": "fewshot.methods.MLPGradient", "init_args": {"n_way": 10_000}},
        ),
        "many more weights than the file",
    ),
    "large pictures": (
        lambda c: changed(c, "backbone.image_size", 10_000),
        "image_size=10000; a file may ask for",
    ),
    "no options": (lambda c: c.update(hyper_parameters=None), "no checkpoint of FewShotModule"),
    "a missing weight": (lambda c: c["state_dict"].pop("method.scale"), r"missing 'method\.scale'"),
    "a misshapen weight": (lambda c: c["state_dict"].update({"method.scale": torch.ones(3)}), "misshapen"),
    "a weight that is no tensor": (lambda c: c["state_dict"].update({"method.scale": 1}), "not a tensor"),
    "a weight that is not finite": (
        lambda c: c["state_dict"]["method.scale"].fill_(float("nan")),
        "values that are not finite",
    ),
    "integers for weights": (
        lambda c: c["state_dict"].update({"method.scale": torch.tensor(10)}),
        r"'method\.scale' holds int64, not float32",
    ),
    "complex weights": (
        lambda c: c["state_dict"].update({"method.scale": torch.tensor(1 + 1j)}),
        "holds complex64, not float32",
    ),
    "a weight beyond float32": (
        lambda c: c["state_dict"].update({"method.scale": torch.tensor(1e300, dtype=torch.float64)}),
        "values that are not finite in float32",
    ),
    "one number for many": (
        lambda c: c["state_dict"].update({"x": torch.zeros(1).expand(10**9)}),
        r"tensor of shape \[1000000000\] holds fewer numbers than it says",
    ),
    "a superfluous weight": (lambda c: c["state_dict"].update({"x": torch.ones(3)}), "superfluous 'x'"),
    "a temperature below 0": (lambda c: c.update(temperature=-1.0), "not a number in"),
    "a temperature near 0": (lambda c: c.update(temperature=1e-300), r"1e-300, not a number in 0\.0001\.\.10000"),
    "a temperature that is no number": (lambda c: c.update(temperature=float("nan")), "not a number in"),
    "a normalisation that is none": (lambda c: c.update(preprocessing=[1]), "normalisation .* is a list"),
}


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
