"""What version 0.1.0 wrote, before the files of the package moved: it is loaded, tested, resumed as it was then.

tests/former holds a checkpoint of pre-training, a saved model, a saved classifier, and a run that was killed in its
second epoch; expected.json holds what 0.1.0 itself then made of them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fewshot import FewShotClassifier, FewShotModule, PretrainModule, load_trained
from fewshot.backbones import create_backbone
from fewshot.commands import main
from fewshot.files import run_versions
from fewshot.methods import SIB, GaussianPosterior, MLPGradient
from fewshot.methods.class_path import import_path, same_class, with_present_paths
from fewshot.training.mixup import Mixup
from fewshot.training.rotation import Rotation
from fewshot.training.schedules import WarmupMultiStepLR

FORMER = Path(__file__).parent / "former"
EXPECTED: dict[str, Any] = json.loads((FORMER / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the run as `runs/sib`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(FORMER / "run", tmp_path / "runs")
    return tmp_path / "runs"


def test_the_checkpoint_of_a_pretraining_is_loaded() -> None:
    module = PretrainModule.load_from_checkpoint(FORMER / "pretrain.ckpt")
    assert module.rotation == Rotation(share=0.5) and module.mixup == Mixup(alpha=2.0, layers=["input"])
    assert module.lr_scheduler is not None and module.lr_scheduler.func is WarmupMultiStepLR  # type: ignore[attr-defined]
    assert module.optimizer.func is torch.optim.SGD and module.optimizer.keywords["lr"] == 0.05  # type: ignore[attr-defined]
    backbone = create_backbone("conv4_32", weights=FORMER / "pretrain.ckpt", in_chans=1, image_size=16)
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, module.backbone.state_dict()[key])


def test_the_saved_model_and_a_checkpoint_are_the_same_kind_of_model() -> None:
    saved = load_trained(FORMER / "saved_model")
    assert load_trained(FORMER / "run" / "sib").preprocessing == saved.preprocessing
    for module in (saved.module, FewShotModule.load_from_checkpoint(FORMER / "run" / "sib")):
        assert isinstance(module.method, SIB) and module.method.n_steps == 2
        assert isinstance(module.method.gradient, MLPGradient) and module.method.gradient.n_way == 3
        assert isinstance(module.method.posterior, GaussianPosterior)


def test_the_saved_classifier_says_what_it_said() -> None:
    classifier = FewShotClassifier.load(FORMER / "classifier")
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (16, 16)).astype(np.uint8)) for _ in range(9)]
    assert classifier.transduction_.tolist() == EXPECTED["transduction"]
    np.testing.assert_allclose(classifier.predict_proba(pictures), EXPECTED["probabilities"], atol=1e-6)


@pytest.mark.slow
def test_the_run_goes_on_from_its_own_config_and_ends_where_it_ended(runs: Path) -> None:
    config = str(runs / "sib" / "version_0" / "config.yaml")
    main(["fit", "--config", config, "--ckpt_path", "auto"])
    results = json.loads((runs / "sib" / "version_0" / "results.json").read_text(encoding="utf-8"))
    former = EXPECTED["results"]
    for key in ("episodes_sha256", "n_way", "n_shot", "data", "image_size", "preprocessing", "backbone"):
        assert results[key] == former[key]
    assert set(results) == set(former)
    assert results["accuracy_per_step"] == pytest.approx(former["accuracy_per_step"], abs=1e-6)
    # not to a digit: 0.1.0 counted no query of unknown class
    assert results["temperature"] == pytest.approx(former["temperature"], rel=0.05)
    main(["test", "--config", config, "--ckpt_path", str(runs / "sib" / "version_0")])
    newest = max(run_versions(runs / "sib"))[1]
    again = json.loads((newest / "results.json").read_text(encoding="utf-8"))
    assert again["accuracy_per_step"] == results["accuracy_per_step"]


def test_a_former_option_that_did_something_is_refused_by_name(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = runs / "sib" / "version_0" / "config.yaml"
    config.write_text(config.read_text().replace("fresh_share: 0.0", "fresh_share: 0.5"))
    with pytest.raises(SystemExit):
        main(["test", "--config", str(config)])
    assert "FewShotModule has no option 'fresh_share'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("former", "present"),
    {
        "fewshot.module.FewShotModule": "fewshot.FewShotModule",
        "fewshot.pretrain.PretrainModule": "fewshot.PretrainModule",
        "fewshot.pretrain.WarmupMultiStepLR": "fewshot.training.schedules.WarmupMultiStepLR",
        "fewshot.data.sets.cifar.CIFARFS": "fewshot.data.datasets.cifar.CIFARFS",
        "fewshot.data.datamodule.EpisodicDataModule": "fewshot.data.episodic_datamodule.EpisodicDataModule",
        "fewshot.methods.sib.SIB": "fewshot.methods.sib.SIB",
        "my.fewshot.module.Mine": "my.fewshot.module.Mine",
        "/data/fewshot.module/x.ckpt": "/data/fewshot.module/x.ckpt",
        "fewshot.mixup/runs": "fewshot.mixup/runs",
        "--root=pictures/fewshot.data.sets": "--root=pictures/fewshot.data.sets",
    }.items(),
)
def test_former_paths(former: str, present: str) -> None:
    assert with_present_paths(former) == present
    assert with_present_paths(f"class_path: {former}  # x") == f"class_path: {present}  # x"


def test_what_is_written_names_public_paths() -> None:
    assert import_path(FewShotModule) == "fewshot.FewShotModule"
    assert import_path(SIB) == "fewshot.methods.SIB" and import_path(MLPGradient) == "fewshot.methods.MLPGradient"
    assert same_class("fewshot.methods.sib.SIB", import_path(SIB))
    assert not same_class("mine.SIB", import_path(SIB)) and not same_class("fewshot.methods.TIM", import_path(SIB))


def test_a_class_of_the_package_has_its_name_alone() -> None:
    """`same_class` compares names: no two public classes that a file may name are called alike."""
    import fewshot
    import fewshot.data.datasets
    import fewshot.methods

    names: dict[str, Any] = {}
    for package in (fewshot, fewshot.methods, fewshot.data.datasets):
        for name in package.__all__:
            assert names.setdefault(name, getattr(package, name)) is getattr(package, name)
