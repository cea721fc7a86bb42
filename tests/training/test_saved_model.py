"""A model as a folder: what goes in comes out, and nothing that was altered or damaged is taken."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from fewshot.backbones import BackboneConfig, create_backbone
from fewshot.data.transforms import Preprocessing
from fewshot.episode import Episode
from fewshot.files import written_aside
from fewshot.methods import (
    LEO,
    MAML,
    PTMAP,
    SIB,
    TADAM,
    EquivariantGradient,
    Method,
    ProtoNet,
    SimpleShot,
    TransportSIB,
)
from fewshot.methods.base_classes import BaseClasses
from fewshot.methods.matching import FullContextEmbedding, MatchingNetworks
from fewshot.methods.posterior import GaussianPosterior
from fewshot.training.few_shot_module import FewShotModule
from fewshot.training.saved_model import load_trained, save_trained

PREPROCESSING = Preprocessing(image_size=16, stored_size=18, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), flip=True)

METHODS: dict[str, Callable[[], Method]] = {
    "sib": lambda: SIB(n_steps=2, step_size=1e-2),
    "sib, parts": lambda: SIB(gradient=EquivariantGradient(width=4), posterior=GaussianPosterior(prior_std=0.5)),
    "transport_sib": lambda: TransportSIB(),
    "simpleshot": lambda: SimpleShot(),
    "pt_map, proportions": lambda: PTMAP(prior=[0.1, 0.3, 0.2, 0.2, 0.2]),
    "protonet": lambda: ProtoNet(learn_temperature=True),
    "matching": lambda: MatchingNetworks(context=FullContextEmbedding()),
    "leo": lambda: LEO(),
    "maml": lambda: MAML(n_way=5),
    "tadam": lambda: TADAM(),
}


def trained(method: Method) -> FewShotModule:
    """A module whose every weight, statistic and buffer is away from where it starts."""
    torch.manual_seed(3)
    module = FewShotModule(
        method=method,
        backbone=BackboneConfig("conv4_32", image_size=16),
        freeze_backbone=method.on_features,
        initial_loss_weight=0.0,
    )
    width = module.backbone.num_features
    module.method.prepare(BaseClasses(torch.randn(width), torch.randn(7, width), torch.randn(7, width), torch.ones(())))
    with torch.no_grad():
        for value in (*module.parameters(), *module.backbone.buffers()):
            if value.is_floating_point():
                value.add_(0.05 * torch.rand_like(value))
    module.temperature = 1.75
    return module.eval()


def episode() -> Episode:
    labels = torch.arange(5).repeat(2, 2)
    return Episode(torch.randn(2, 10, 3, 16, 16), labels, torch.randn(2, 6, 3, 16, 16), None, 5)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_trained(trained(SIB(n_steps=1)), PREPROCESSING, tmp_path / "model")


def altered(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))


@pytest.mark.parametrize("name", METHODS)
def test_what_is_saved_comes_back(name: str, tmp_path: Path) -> None:
    module = trained(METHODS[name]())
    folder = save_trained(module, PREPROCESSING, tmp_path / "deep" / "model")
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "model.safetensors"]
    assert os.listdir(folder.parent) == ["model"]
    found = load_trained(folder)
    assert found.file == folder / "model.safetensors" and found.preprocessing == PREPROCESSING
    assert type(found.module) is FewShotModule and not found.module.training
    assert found.module.temperature == 1.75 and found.module.pictures["image_size"] == 16
    for key, value in module.state_dict().items():
        torch.testing.assert_close(found.module.state_dict()[key], value, rtol=0, atol=0)
    tasks = episode()
    torch.testing.assert_close(found.module(tasks).logits, module(tasks).logits, rtol=0, atol=0)
    again = save_trained(found.module, found.preprocessing, tmp_path / "again")
    for file in ("config.json", "README.md", "model.safetensors"):
        assert (again / file).read_bytes() == (folder / file).read_bytes()


def test_neither_training_nor_this_machine_is_in_it(tmp_path: Path) -> None:
    weights = tmp_path / "first.pth"
    torch.save(trained(SIB()).backbone.state_dict(), weights)
    module = FewShotModule(SIB(), BackboneConfig("conv4_32", weights=str(weights), image_size=16, compile=False))
    folder = save_trained(module, PREPROCESSING, tmp_path / "model")
    text = (folder / "config.json").read_text()
    assert str(tmp_path) not in text and "pickle" not in text
    assert set(json.loads(text)["model"]["init_args"]) == {"method", "backbone"}
    weights.unlink()
    load_trained(folder)


def test_the_normalisation_of_the_first_weights_comes_back(tmp_path: Path) -> None:
    module = trained(SIB())
    module.backbone.preprocessing = {"mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0), "input_size": (3, 16, 16)}
    found = load_trained(save_trained(module, PREPROCESSING, tmp_path / "model")).module
    assert found.backbone.preprocessing == {"mean": [0.1, 0.2, 0.3], "std": [1.0] * 3, "input_size": [3, 16, 16]}


def test_its_backbone_serves_another_model(tmp_path: Path) -> None:
    module = FewShotModule(SIB(), BackboneConfig("test_efficientnet", image_size=32)).eval()
    preprocessing = replace(PREPROCESSING, image_size=32, stored_size=32)
    folder = save_trained(module, preprocessing, tmp_path / "model")
    backbone = create_backbone("test_efficientnet", weights=folder, image_size=32).eval()
    pictures = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(backbone(pictures), module.backbone(pictures))
    assert backbone.preprocessing is None  # trained on a data set's own normalisation, not on timm's
    with pytest.raises(ValueError, match="holds weights of backbone 'test_efficientnet'"):
        create_backbone("resnet18", weights=folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json, beside the weight file model\.safetensors, is not valid JSON"):
        create_backbone("test_efficientnet", weights=folder)


def test_a_folder_that_is_there_stays_unless_it_may_be_overwritten(tmp_path: Path, saved: Path) -> None:
    module = trained(ProtoNet())
    with pytest.raises(ValueError, match="is there already"):
        save_trained(module, PREPROCESSING, saved)
    save_trained(module, PREPROCESSING, saved, overwrite=True)
    assert type(load_trained(saved).module.method) is ProtoNet
    (saved / "diary.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds diary\.txt, which nothing here wrote"):
        save_trained(module, PREPROCESSING, saved, overwrite=True)
    assert (saved / "diary.txt").is_file()
    with pytest.raises(ValueError, match="is a file"):
        save_trained(module, PREPROCESSING, saved / "diary.txt", overwrite=True)
    (tmp_path / "empty").mkdir()
    save_trained(module, PREPROCESSING, tmp_path / "empty")


def test_what_is_interrupted_leaves_nothing_and_takes_nothing_away(tmp_path: Path, saved: Path) -> None:
    before = (saved / "config.json").read_bytes()
    with pytest.raises(KeyboardInterrupt), written_aside(saved, overwrite=True, known=os.listdir(saved)) as aside:
        (aside / "config.json").write_text("half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["model"] and (saved / "config.json").read_bytes() == before


def test_a_model_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    module = trained(SIB())
    with torch.no_grad():
        module.method.scale.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"'method\.scale' of the model holds values that are not finite"):
        save_trained(module, PREPROCESSING, tmp_path / "model")
    assert not (tmp_path / "model").exists()


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "format": (lambda c: c.update(format=2), "has the format 2 and this fewshot reads 1"),
    "no format": (lambda c: c.pop("format"), "has the format None"),
    "library": (lambda c: c.update(library_name="timm"), "library_name is not 'fewshot'"),
    "missing": (lambda c: c.pop("preprocessing"), "missing 'preprocessing'"),
    "superfluous": (lambda c: c.update(hook=1), "superfluous 'hook'"),
    "temperature": (lambda c: c.update(temperature=0), "temperature is 0, not a number in"),
    "temperature, text": (lambda c: c.update(temperature="1"), "temperature is '1'"),
    "a class of elsewhere": (
        lambda c: c["model"]["init_args"]["method"].update(class_path="antigravity.SIB"),
        "only classes of fewshot are imported; if you trust it, allow 'antigravity'",
    ),
    "a module by name": (
        lambda c: c["model"]["init_args"].update(method="antigravity.SIB"),
        "is not of the type Method",
    ),
    "a class within": (
        lambda c: c["model"]["init_args"]["method"]["init_args"].update(
            gradient={"class_path": "antigravity.Gradient", "init_args": {}}
        ),
        r"method\.gradient asks for antigravity\.Gradient",
    ),
    "what the package imports": (
        lambda c: c["model"]["init_args"]["method"].update(class_path="fewshot.training.few_shot_module.timm"),
        r"there is no class fewshot\.training\.few_shot_module\.timm",
    ),
    "another kind of class": (
        lambda c: c["model"].update(class_path="fewshot.training.pretrain_module.PretrainModule"),
        "is no FewShotModule",
    ),
    "no such class": (
        lambda c: c["model"]["init_args"]["method"].update(class_path="fewshot.methods.sob.SOB"),
        r"fewshot\.methods\.sob\.SOB cannot be imported",
    ),
    "no class": (lambda c: c["model"].update(class_path=["os"]), r"class_path is \['os'\]"),
    "no arguments": (lambda c: c["model"].pop("init_args"), "model does not have the keys class_path and init_args"),
    "weights from elsewhere": (
        lambda c: c["model"]["init_args"]["backbone"].update(weights="/etc/passwd"),
        "backbone does not have the keys name, in_chans and image_size",
    ),
    "a name that is none": (lambda c: c["model"]["init_args"]["backbone"].update(name="conv5"), "'conv5' is not known"),
    "an option that is none": (
        lambda c: c["model"]["init_args"]["method"]["init_args"].update(n_stepz=1),
        "SIB has no option 'n_stepz'",
    ),
    "an option of another type": (
        lambda c: c["model"]["init_args"]["method"]["init_args"].update(n_steps="3"),
        r"method\.n_steps='3' is not of the type int",
    ),
    "an option out of range": (
        lambda c: c["model"]["init_args"]["method"]["init_args"].update(n_steps=-1),
        "n_steps=-1 but it is at least 0",
    ),
    "preprocessing": (lambda c: c["preprocessing"].update(std=[1.0, 0.0, 1.0]), "every value must be above 0"),
    "preprocessing, type": (lambda c: c["preprocessing"].update(image_size=16.5), "image_size=16.5 is not of the type"),
    "preprocessing, less": (lambda c: c["preprocessing"].pop("mean"), "Preprocessing needs 'mean'"),
    "channels": (
        lambda c: c["preprocessing"].update(channels=1, mean=[0.5], std=[0.5]),
        "preprocessing.channels is 1 but the backbone takes 3",
    ),
    "another method": (
        lambda c: c["model"]["init_args"].update(
            method={"class_path": "fewshot.methods.protonet.ProtoNet", "init_args": {}}
        ),
        "superfluous 'method.bias'",
    ),
    "another size": (lambda c: c["model"]["init_args"]["backbone"].update(image_size=64), "does not fit the model"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_altered_config_is_one_error_and_imports_nothing(name: str, saved: Path) -> None:
    change, message = CHANGES[name]
    altered(saved, change)
    with pytest.raises(ValueError, match=message):
        load_trained(saved)
    assert "antigravity" not in sys.modules


def test_a_config_that_is_not_plain_json_is_one_error(saved: Path) -> None:
    file = saved / "config.json"
    text = file.read_text()
    for bad in (
        "",
        text[: len(text) // 2],
        "[1]",
        text.replace("1.75", "NaN"),
        text.replace("1.75", "1e999"),
        "[" * 99999,
    ):
        file.write_text(bad)
        with pytest.raises(ValueError, match=r"config\.json"):
            load_trained(saved)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        load_trained(saved)


def test_weights_that_do_not_fit_are_one_error(saved: Path) -> None:
    file = saved / "model.safetensors"
    whole = load_file(file)
    changes = {
        "missing 'method.scale'": {key: value for key, value in whole.items() if key != "method.scale"},
        "superfluous 'extra'": {**whole, "extra": torch.ones(1)},
        r"misshapen 'method\.scale' \[2\]": {**whole, "method.scale": torch.ones(2)},
        "'method.bias' holds values that are not finite": {**whole, "method.bias": torch.tensor(torch.inf)},
    }
    for message, state in changes.items():
        save_file(state, file)
        with pytest.raises(ValueError, match=message):
            load_trained(saved)
    save_file(whole, file)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match="cannot be read"):
        load_trained(saved)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_trained(saved)


@pytest.mark.parametrize("bent", [{"mean": (3,)}, {"class_means": (7, 3)}, {"class_means": ()}, {"scale": (2,)}])
def test_what_is_known_of_the_training_classes_has_the_features_size(bent: dict[str, Any], tmp_path: Path) -> None:
    folder = save_trained(trained(SimpleShot()), PREPROCESSING, tmp_path / "model")
    whole = load_file(folder / "model.safetensors")
    name, shape = next(iter(bent.items()))
    save_file({**whole, f"method.base_classes.{name}": torch.zeros(shape)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=f"misshapen 'method.base_classes.{name}'"):
        load_trained(folder)


def test_a_method_of_ones_own_is_imported_where_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "saved_models_own_method.py").write_text(
        "from fewshot.methods import ProtoNet\n\n\nclass Mine(ProtoNet):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = __import__("saved_models_own_method").Mine
    folder = save_trained(trained(mine()), PREPROCESSING, tmp_path / "model")
    with pytest.raises(ValueError, match="allow 'saved_models_own_method'"):
        load_trained(folder)
    assert type(load_trained(folder, packages=["saved_models_own_method"]).module.method) is mine
    assert 'load_trained("the folder of this file", packages=["saved_models_own_method"])' in card_of(folder)


def card_of(folder: Path) -> str:
    """README.md of a saved model."""
    return (folder / "README.md").read_text(encoding="utf-8")


def test_the_card_says_what_the_hub_reads_and_no_figure_that_was_not_given(tmp_path: Path) -> None:
    results = {
        **{"accuracy": 0.7244, "ci95": 0.0062, "n_way": 5, "n_shot": 1, "n_query": 15, "n_episodes": 2000},
        **{"data": "cifar_fs", "split": "test"},
    }
    module = trained(SIB())
    plain = (save_trained(module, PREPROCESSING, tmp_path / "a") / "README.md").read_text()
    head = yaml.safe_load(plain.split("---\n")[1])
    assert head["library_name"] == "fewshot" and head["pipeline_tag"] == "image-classification"
    assert "license" not in head and "model-index" not in head and "Accuracy" not in plain
    assert "package" not in plain
    folder = save_trained(module, PREPROCESSING, tmp_path / "b", license="mit", results=results)
    told = (folder / "README.md").read_text()
    head = yaml.safe_load(told.split("---\n")[1])
    assert head["license"] == "mit" and "72.44 ± 0.62 %" in told
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == 72.44
    with pytest.raises(ValueError, match="Hub's word"):
        save_trained(module, PREPROCESSING, tmp_path / "c", license="MIT\nlicense: x")
    with pytest.raises(ValueError, match="results lack ci95"):
        save_trained(module, PREPROCESSING, tmp_path / "c", results={"accuracy": 1, "n_way": 5})
