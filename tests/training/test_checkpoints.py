"""Checkpoints of another model, damaged ones and malicious ones: refused by one line, before anything is written."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from fewshot import FewShotModule, PretrainModule
from fewshot.backbones import BackboneConfig, WideResNet, create_backbone
from fewshot.backbones.checkpoint_file import read_checkpoint
from fewshot.commands import main
from fewshot.methods import SIB, EquivariantGradient, MLPGradient, NearestClassMean, ProtoNet
from fewshot.training.checkpoints import check_checkpoint

CONFIG: dict[str, Any] = {
    "experiment": "tiny",
    "model": {
        "class_path": "FewShotModule",
        "init_args": {
            "backbone": {"name": "conv4", "image_size": 16},
            "method": {
                "class_path": "SIB",
                "init_args": {
                    "gradient": {"class_path": "MLPGradient", "init_args": {"n_way": 5}},
                    "n_steps": 2,
                },
            },
        },
    },
    "data": {
        "class_path": "EpisodicDataModule",
        "init_args": {
            "dataset": {"class_path": "ImageFolderSplits", "init_args": {"root": "pictures", "image_size": 16}},
            "n_query": 2,
            "train_episodes": 2,
            "val_episodes": 2,
            "test_episodes": 3,
        },
    },
    "trainer": {
        "max_epochs": 1,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
}
PRETRAIN = {
    **CONFIG,
    "model": {
        "class_path": "PretrainModule",
        "init_args": {"n_classes": 5, "backbone": {"name": "conv4", "image_size": 16}},
    },
    "data": {
        "class_path": "ClassDataModule",
        "init_args": {"dataset": CONFIG["data"]["init_args"]["dataset"], "batch_size": 6, "n_query": 2},
    },
}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory, write_pictures: Callable[..., None]) -> Iterator[Path]:
    """The working directory: pictures and configs; wide ResNets are small ones."""
    path = tmp_path_factory.mktemp("checkpoints")
    write_pictures(path / "pictures")
    (path / "sib.yaml").write_text(yaml.safe_dump(CONFIG))
    (path / "pretrain.yaml").write_text(yaml.safe_dump(PRETRAIN))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr(WideResNet.__init__, "__defaults__", (10, 1))
        yield path


@pytest.fixture(scope="module")
def fitted(folder: Path) -> Path:
    """The checkpoint of a run."""
    main(["fit", "--config", "sib.yaml", "--runs", "fits", "--test_after_fit", "false"])
    return folder / "fits" / "tiny" / "version_0" / "checkpoints" / "best.ckpt"


def saved(module: torch.nn.Module, name: str = "saved.ckpt") -> str:
    """A checkpoint of a module, as Lightning writes it but for the state of the training."""
    content = {"pytorch-lightning_version": "2.6.0", "state_dict": module.state_dict()}
    torch.save({**content, "hyper_parameters": dict(module.hparams), "preprocessing": None}, name)  # type: ignore
    return name


def few_shot(method: Any = None, **backbone: Any) -> FewShotModule:
    config = {"name": "conv4", "image_size": 16, **backbone}
    return FewShotModule(SIB(n_steps=2) if method is None else method, BackboneConfig(**config))


def pretrained(n_classes: int = 5) -> PretrainModule:
    return PretrainModule(n_classes, BackboneConfig("conv4", image_size=16))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which these arguments are refused; nothing is left behind."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    printed = capsys.readouterr()
    assert exit_.value.code == 2
    assert len(printed.err.splitlines()) == 1 and printed.err.startswith("error: "), printed.err
    assert printed.out == ""
    assert not Path("runs").exists()
    return printed.err.removeprefix("error: ").strip()


# Of another model.


class Other(NamedTuple):
    """A model whose checkpoint is not the one that is asked for."""

    there: Callable[[], Any]
    here: Callable[[], Any]
    says: list[str]


OTHERS = {
    "backbone": Other(
        lambda: few_shot(name="conv4_32"),
        few_shot,
        ["holds weights of backbone 'conv4_32' but model.backbone.name is 'conv4'; set it to 'conv4_32'"],
    ),
    "same_weights_other_backbone": Other(
        lambda: PretrainModule(5, BackboneConfig("tf_mobilenetv3_small_075", image_size=32)),
        lambda: PretrainModule(5, BackboneConfig("mobilenetv3_small_075", image_size=32)),
        ["'tf_mobilenetv3_small_075' but model.backbone.name is 'mobilenetv3_small_075'"],
    ),
    "channels": Other(lambda: few_shot(in_chans=1), few_shot, ["1 channel(s) but model.backbone.in_chans is 3"]),
    "image_size_of_conv4": Other(
        lambda: few_shot(image_size=20),
        few_shot,
        ["of 'conv4' for pictures of 20 px but model.backbone.image_size is 16", "set it to 20"],
    ),
    "image_size_of_wrn28_10": Other(
        lambda: few_shot(name="wrn28_10", image_size=48),
        lambda: few_shot(name="wrn28_10"),
        ["of 'wrn28_10' for pictures of 48 px but model.backbone.image_size is 16"],
    ),
    "usual_image_size": Other(
        lambda: few_shot(name="wrn28_10", image_size=None),
        lambda: few_shot(name="wrn28_10"),
        ["of 'wrn28_10' for pictures of 80 px but model.backbone.image_size is 16"],
    ),
    "method": Other(
        lambda: few_shot(ProtoNet()),
        lambda: few_shot(NearestClassMean()),
        ["was trained with method ProtoNet but model.method is NearestClassMean", "--model.backbone.weights"],
    ),
    "gradient_network": Other(
        lambda: few_shot(SIB(gradient=EquivariantGradient())),
        lambda: few_shot(SIB(gradient=MLPGradient())),
        ["was trained with method.gradient EquivariantGradient but model.method.gradient is MLPGradient"],
    ),
    "width": Other(
        lambda: few_shot(SIB(gradient=MLPGradient(expansion=4))),
        lambda: few_shot(SIB(gradient=MLPGradient(expansion=8))),
        ["model.method.gradient.expansion is 8, there 4: misshapen 'method.gradient.layers.0.weight' [20, 5]"],
    ),
    "ways": Other(
        lambda: few_shot(SIB(gradient=MLPGradient(n_way=4))),
        lambda: few_shot(SIB(gradient=MLPGradient(n_way=5))),
        ["model.method.gradient.n_way is 5, there 4: misshapen", " and 7 more; take the config"],
    ),
    "pretraining": Other(
        pretrained,
        few_shot,
        ["a checkpoint of PretrainModule but the config builds FewShotModule; a pre-trained backbone goes to --model"],
    ),
    "not_pretraining": Other(
        few_shot, pretrained, ["a checkpoint of FewShotModule but the config builds PretrainModule"]
    ),
    "classes": Other(
        lambda: pretrained(6),
        pretrained,
        ["model.n_classes is 5, there 6: misshapen 'classifier.weight' [6, 64], expected [5, 64]"],
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_checkpoint_of_another_model_is_refused(what):
    there, here, says = OTHERS[what]
    with pytest.raises(ValueError, match=r"^ckpt_path: .*saved\.ckpt") as raised:
        check_checkpoint(here(), Path(saved(there())), training=False)
    for part in says:
        assert part in str(raised.value)


@pytest.mark.parametrize(("what", "config"), [("gradient_network", "sib.yaml"), ("not_pretraining", "pretrain.yaml")])
def test_the_command_line_refuses_a_checkpoint_of_another_model(what, config, capsys):
    """Before the trainer is asked."""
    there, _, says = OTHERS[what]
    error = refused(capsys, "test", "--config", config, "--ckpt_path", saved(there()))
    assert error.startswith("ckpt_path: ") and "saved.ckpt" in error and says[0] in error


@pytest.mark.parametrize(
    "command", ["fit", *(pytest.param(one, marks=pytest.mark.slow) for one in ("validate", "predict"))]
)
def test_every_command_refuses_it(command, capsys):
    error = refused(capsys, command, "--config", "sib.yaml", "--ckpt_path", saved(few_shot(image_size=20)))
    assert "of 'conv4' for pictures of 20 px" in error


def test_training_does_not_go_on_with_another_optimizer(fitted, capsys):
    options = ["--ckpt_path", str(fitted), "--model.optimizer", "torch.optim.AdamW"]
    error = refused(capsys, "fit", "--config", "sib.yaml", *options)
    assert f"{fitted} was trained with optimizer SGD but model.optimizer is AdamW" in error
    assert error.endswith(f"its own config is {fitted.parent.parent / 'config.yaml'}")


def test_weights_alone_are_no_checkpoint(capsys):
    torch.save(few_shot().state_dict(), "alone.pth")
    assert "alone.pth holds weights but is no checkpoint of a run; weights of a backbone go to --model" in refused(
        capsys, "test", "--config", "sib.yaml", "--ckpt_path", "alone.pth"
    )


def test_values_that_are_not_finite_are_refused(capsys):
    module = few_shot()
    module.method.initializer.weight.data[3] = torch.nan
    error = refused(capsys, "test", "--config", "sib.yaml", "--ckpt_path", saved(module))
    assert "'method.initializer.weight' holds values that are not finite" in error


def test_what_may_be_set_anew_is_told(fitted, capsys):
    options = [
        "--config",
        "sib.yaml",
        "--ckpt_path",
        str(fitted),
        "--runs",
        "tests",
        "--model.freeze_backbone",
        "false",
    ]
    main(["test", *options, "--model.method.step_size", "0.5", "--model.method.scale", "3"])
    told = [line for line in capsys.readouterr().out.splitlines() if "differs" in line]
    assert told == [
        "differs from the checkpoint: model.method.scale is 3.0, there 10.0 (which only says where training began: the "
        "trained value holds)",
        "differs from the checkpoint: model.method.step_size is 0.5, there 0.001",
    ]
    main(["test", *options])
    assert "differs" not in capsys.readouterr().out


def test_when_training_goes_on_its_options_count_too(fitted):
    module = FewShotModule(
        SIB(gradient=MLPGradient(n_way=5), n_steps=2), BackboneConfig("conv4", image_size=16), initial_loss_weight=2.0
    )
    assert set(check_checkpoint(module, fitted, training=True)) == {"initial_loss_weight"}
    assert check_checkpoint(module, fitted, training=False) == {}


def test_a_size_on_which_nothing_depends_may_differ():
    file = saved(few_shot(NearestClassMean(), name="resnet12", image_size=32))
    here = few_shot(NearestClassMean(), name="resnet12", image_size=48)
    assert check_checkpoint(here, Path(file), training=False)["backbone.image_size"]["there"] == 32


# Weights a backbone starts from.


@pytest.mark.parametrize("what", ["backbone", "channels", "image_size_of_conv4", "image_size_of_wrn28_10"])
def test_weights_of_another_backbone_are_refused(what):
    there, here, says = OTHERS[what]
    asked = here().backbone_config
    with pytest.raises(ValueError, match=r"^weight file saved\.ckpt holds weights of") as raised:
        replace(asked, weights=saved(there())).create()
    assert all(part in str(raised.value) for part in says)


def test_the_command_line_refuses_weights_of_another_backbone(capsys):
    weights = saved(few_shot(name="conv4_32"))
    error = refused(capsys, "test", "--config", "sib.yaml", "--model.backbone.weights", weights)
    assert error.startswith("weight file saved.ckpt holds weights of backbone 'conv4_32'")


def test_weights_trained_at_another_size():
    file = saved(PretrainModule(5, BackboneConfig("wrn28_10", image_size=48)))
    create_backbone("wrn28_10", weights=file, image_size=48)
    with pytest.warns(UserWarning, match=r"saved\.ckpt was trained on pictures of 48 px; here they have 56 px"):
        create_backbone("wrn28_10", weights=file, image_size=56)
    with pytest.raises(ValueError, match=r"48 px but model\.backbone\.image_size is 32, for which 'wrn28_10' is built"):
        create_backbone("wrn28_10", weights=file, image_size=32)


def test_a_name_with_the_tag_of_its_weights_is_the_same_backbone():
    file = saved(PretrainModule(5, BackboneConfig("test_efficientnet.r160_in1k", image_size=32)))
    create_backbone("test_efficientnet", weights=file, image_size=32)


# Damaged files.

OPTIONS = ["--ckpt_path", "--model.backbone.weights"]


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999])
def test_a_truncated_checkpoint_is_refused(kept, fitted):
    content = fitted.read_bytes()
    Path("cut.ckpt").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"cut\.ckpt cannot be read: it is damaged .*; copy or download it again"):
        read_checkpoint("cut.ckpt")


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kept", [pytest.param(0.0, marks=pytest.mark.slow), 0.6])
def test_the_command_line_refuses_a_truncated_checkpoint(kept, option, fitted, capsys):
    content = fitted.read_bytes()
    Path("cut.ckpt").write_bytes(content[: int(kept * len(content))])
    error = refused(capsys, "test", "--config", "sib.yaml", option, "cut.ckpt")
    assert "cut.ckpt cannot be read: it is damaged or incomplete" in error and "copy or download it again" in error


@pytest.mark.parametrize("option", OPTIONS)
def test_a_flipped_bit_in_a_weight_is_refused(option, fitted, capsys):
    """Torch alone reads such a file without a word."""
    content = bytearray(fitted.read_bytes())
    weight = torch.load(fitted, weights_only=True)["state_dict"]["method.gradient.layers.3.weight"]
    content[content.index(weight.numpy().tobytes()) + 1000] ^= 1
    Path("flipped.ckpt").write_bytes(content)
    torch.load("flipped.ckpt", weights_only=True)
    error = refused(capsys, "test", "--config", "sib.yaml", option, "flipped.ckpt")
    assert "flipped.ckpt cannot be read: it is damaged" in error and "checksum" in error


def test_flipped_bytes_are_refused_or_without_effect(tmp_path):
    weights = {f"layer{i}": torch.randn(7, 5) for i in range(4)}
    torch.save(weights, tmp_path / "whole.pth")
    content, n_refused, places = (tmp_path / "whole.pth").read_bytes(), 0, range(0, 4000, 23)
    for place in places:
        flipped = bytearray(content)
        flipped[place % len(content)] ^= 0xFF
        (tmp_path / "flipped.pth").write_bytes(flipped)
        try:
            found = read_checkpoint(tmp_path / "flipped.pth")
        except ValueError as error:
            assert "flipped.pth cannot be read" in str(error)
            n_refused += 1
        else:  # a byte between the entries, or a date
            assert found.keys() == weights.keys() and all(torch.equal(found[key], weights[key]) for key in weights)
    assert n_refused > 20


# Malicious files.


class Exploit:
    """Creates a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": {"weight": Exploit()}}))


def older_pickle(path: Path) -> None:
    """The protocol that torch.load expects, without its zip archive."""
    path.write_bytes(pickle.dumps({"state_dict": {"weight": Exploit()}}, protocol=2))


def zipped_by_torch(path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(3)}, "hyper_parameters": Exploit()}, path)


def array_of_objects(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, weight=np.array([Exploit()], dtype=object))


WRITERS = [plain_pickle, older_pickle, zipped_by_torch, array_of_objects]
SUFFIXES = [".ckpt", ".pth", ".safetensors", ".npz"]
ONE_OF_EACH = [
    pytest.param(write, suffix, marks=[] if suffix == ".ckpt" else [pytest.mark.slow])
    for write, suffix in zip(WRITERS, SUFFIXES, strict=True)
]
"""The others are read by the same function, which the test above calls."""


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("write", WRITERS)
def test_a_malicious_file_is_refused_and_not_executed(write, suffix, folder):
    file = Path(f"malicious{suffix}")
    write(file)
    with pytest.raises(ValueError, match=r"cannot be read: .* never executed") as raised:
        create_backbone("conv4", image_size=16, weights=file)
    assert not (folder / "executed").exists()
    assert str(file) in str(raised.value)
    # torch's advice on how to have it executed is not passed on
    assert "weights_only" not in str(raised.value) and "two options" not in str(raised.value)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(("write", "suffix"), ONE_OF_EACH)
def test_the_command_line_refuses_a_malicious_file(write, suffix, option, folder, capsys):
    write(Path(f"malicious{suffix}"))
    error = refused(capsys, "test", "--config", "sib.yaml", option, f"malicious{suffix}")
    assert not (folder / "executed").exists()
    assert f"malicious{suffix} cannot be read" in error and "never executed" in error


def test_the_exploit_is_a_real_one(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain_pickle(tmp_path / "malicious.pkl")
    content = pickle.loads((tmp_path / "malicious.pkl").read_bytes())
    assert content["state_dict"]["weight"] == 0 and (tmp_path / "executed").exists()


def test_a_malicious_file_in_a_run_folder_is_not_executed(folder, capsys):
    zipped_by_torch(Path("malicious.ckpt"))
    best = folder / "bad" / "version_0" / "checkpoints" / "best.ckpt"
    best.parent.mkdir(parents=True)
    best.write_bytes(Path("malicious.ckpt").read_bytes())
    for option in OPTIONS:
        error = refused(capsys, "test", "--config", "sib.yaml", option, "bad")
        assert "bad/version_0/checkpoints/best.ckpt cannot be read: it asks for " in error and "system" in error
    assert not (folder / "executed").exists()


def test_safetensors_are_weights_and_no_checkpoint(capsys):
    save_file({key: value.contiguous() for key, value in few_shot().state_dict().items()}, "weights.safetensors")
    assert "holds weights but is no checkpoint" in refused(
        capsys, "test", "--config", "sib.yaml", "--ckpt_path", "weights.safetensors"
    )
