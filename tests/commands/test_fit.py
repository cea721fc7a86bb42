"""The command line, in process wherever a process of its own proves nothing more."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning.callbacks
import torch
import yaml
from PIL import Image
from tiny_experiment import CONFIG, PLAIN, PRETRAINING, newest, refused

import fewshot
from fewshot import FewShotModule, PretrainModule, load_trained, save_trained
from fewshot.commands import COMMANDS, main
from fewshot.commands.accepted import accepted_classes, short_key, type_name
from fewshot.commands.refusals import one_line, refusal_of, worker_refusal
from fewshot.methods import SIB
from fewshot.runs.checkpointing import with_present_keys

PLUGIN = """
from fewshot.data.datasets import ImageFolderSplits
from fewshot.methods import ProtoNet


class Mine(ProtoNet):
    def __init__(self, sharpness: float = 1.0) -> None:
        super().__init__(temperature=sharpness)


class MyPictures(ImageFolderSplits):
    def __init__(self, folder: str) -> None:
        super().__init__(root=folder, image_size=28)


class Broken(ProtoNet):
    def __init__(self) -> None:
        raise KeyError("a fault of the program")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with pictures, a config, and a person's own method and data set."""
    path = tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for c in range(10):
            (path / "pictures" / split / f"{split}{c}").mkdir(parents=True)
            for i in range(4):
                colours = rng.integers(0, 256, (28, 28, 3)).astype(np.uint8)
                Image.fromarray(colours).save(path / "pictures" / split / f"{split}{c}" / f"{i}.png")
    (path / "tiny.yaml").write_text(PLAIN)
    (path / "interpolated.yaml").write_text(CONFIG)
    (path / "a_method.py").write_text(PLUGIN)
    return path


@pytest.fixture(scope="module")
def in_folder(folder: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        yield folder


@pytest.fixture(scope="module")
def fitted(in_folder: Path) -> Path:
    """The run folder of a fit of the 7-way config with 9 ways."""
    main(["fit", "--config", "interpolated.yaml", "--data.n_way", "9"])
    return in_folder / "runs" / "tiny" / "version_0"


def results(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


# A run, and what it leaves.


def test_a_run_writes_its_folder(fitted):
    names = {path.relative_to(fitted).as_posix() for path in fitted.rglob("*") if path.is_file()}
    assert {"config.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "metrics.csv", "results.json"} <= names


def test_results_say_what_was_measured(fitted):
    found = results(fitted)
    expected = {"accuracy", "ci95", "accuracy_per_step", "n_episodes", "n_way", "n_shot", "n_query", "seed"}
    expected |= {"episodes_sha256", "data", "split", "image_size", "backbone", "method", "checkpoint", "versions"}
    assert expected <= set(found)
    assert (found["n_episodes"], found["n_way"], found["n_shot"], found["n_query"]) == (5, 9, 1, 2)
    assert (found["data"], found["split"], found["image_size"]) == ("pictures", "test", 28)
    assert len(found["accuracy_per_step"]) == 3 and found["accuracy_per_step"][-1] == found["accuracy"]
    assert 0 <= found["accuracy"] <= 1
    assert found["backbone"]["name"] == "conv4"
    assert found["method"]["init_args"]["gradient"]["init_args"]["n_way"] == 9
    assert found["checkpoint"] == "runs/tiny/version_0/checkpoints/best.ckpt"
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert found["training_seed"] == 0


def test_the_model_knows_what_it_was_trained_on(fitted, tmp_path):
    about = {"data": "pictures", "channels": 3}
    module, pictures, _ = load_trained(fitted)
    assert module.trained_on == about
    assert load_trained(save_trained(module, pictures, tmp_path / "saved")).module.trained_on == about


def test_interpolation_follows_an_override(fitted):
    config = yaml.safe_load((fitted / "config.yaml").read_text())
    assert config["data"]["init_args"]["n_way"] == 9
    assert config["model"]["init_args"]["method"]["init_args"]["gradient"]["init_args"]["n_way"] == 9


def test_a_seven_way_config_overridden_to_nine_ways_loads_as_nine_way(fitted):
    module = FewShotModule.load_from_checkpoint(fitted / "checkpoints" / "best.ckpt", weights_only=True)
    assert isinstance(module.method, SIB) and module.method.n_way == 9
    assert module.method.gradient.layers[0].in_features == 9


def test_last_checkpoint_is_the_last_epochs(fitted):
    last = torch.load(fitted / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 1 and last["global_step"] == 4


def test_last_checkpoint_is_the_last_epochs_also_when_validation_is_rare(in_folder):
    options = ["--experiment", "rare", "--trainer.check_val_every_n_epoch", "2", "--trainer.max_epochs", "3"]
    main(["fit", "--config", "tiny.yaml", *options, "--test_after_fit", "false"])
    folder = in_folder / "runs" / "rare" / "version_0"
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 2
    assert torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] == 1
    assert not (folder / "results.json").exists()


def test_metrics_are_logged_under_the_promised_names(fitted):
    header = (fitted / "metrics.csv").read_text().splitlines()[0].split(",")
    promised = {"train/loss", "train/accuracy", "train/gradient_norm", "train/gradient_cosine", "val/loss"}
    promised |= {f"{split}/{name}" for split in ("val", "test") for name in ("accuracy", "accuracy_ci95")}
    promised |= {f"{split}/accuracy_step_{k}" for split in ("val", "test") for k in range(3)}
    assert promised <= set(header)


def test_the_same_command_twice_writes_two_versions(in_folder, capsys):
    for _ in range(2):
        main(["fit", "--config", "tiny.yaml", "--experiment", "twice", "--trainer.max_epochs", "1"])
    first, second = (in_folder / "runs" / "twice" / f"version_{i}" for i in range(2))
    assert results(first)["accuracy"] == results(second)["accuracy"]
    printed = capsys.readouterr()
    assert "run written to runs/twice/version_1" in printed.out
    assert "python -m fewshot predict --config runs/twice/version_1/config.yaml" in printed.out
    assert printed.err == ""


# The other commands.


def test_testing_the_checkpoint_gives_the_same_accuracy(fitted, in_folder, capsys):
    checkpoint = fitted / "checkpoints" / "best.ckpt"
    main(["test", "--config", str(fitted / "config.yaml"), "--ckpt_path", str(checkpoint)])
    found, before = results(newest(in_folder / "runs" / "tiny")), results(fitted)
    for key in ("accuracy", "ci95", "accuracy_per_step", "episodes_sha256", "method"):
        assert found[key] == before[key]
    assert "K = 2" in capsys.readouterr().out


AVERAGING = {
    "EMAWeightAveraging": ["--trainer.callbacks.init_args.decay", "0.9"],
    "StochasticWeightAveraging": ["--trainer.callbacks.init_args.swa_lrs", "0.01"],
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*WeightAveraging.*")
@pytest.mark.parametrize("callback", AVERAGING)
def test_averaged_weights_are_tested_after_fit_as_by_test(callback, in_folder):
    if not hasattr(pytorch_lightning.callbacks, callback):
        pytest.skip(f"this Lightning has no {callback}")
    options = ["--trainer.callbacks.class_path", f"pytorch_lightning.callbacks.{callback}", *AVERAGING[callback]]
    options += ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "5.0"]
    options += ["--model.method.step_size", "1.0"]  # so that every weight shows
    main(["fit", "--config", "tiny.yaml", "--experiment", callback, "--trainer.max_epochs", "3", *options])
    run = newest(in_folder / "runs" / callback)
    best = run / "checkpoints" / "best.ckpt"
    again = ["--experiment", f"{callback}_again", "--ckpt_path", str(best), *options[-2:]]
    main(["test", "--config", "tiny.yaml", *again])
    again = newest(in_folder / "runs" / f"{callback}_again")
    assert (run / "episodes.csv").read_text() == (again / "episodes.csv").read_text()
    assert results(run)["ece"] == results(again)["ece"]


def test_options_given_here_win_over_the_checkpoints(fitted, in_folder):
    options = ["--model.method.test_steps", "5", "--data.n_shot", "2", "--data.test_episodes", "3"]
    main(["test", "--config", str(fitted / "config.yaml"), "--ckpt_path", str(fitted), *options])
    found = results(newest(in_folder / "runs" / "tiny"))
    assert len(found["accuracy_per_step"]) == 6
    assert found["method"]["init_args"]["test_steps"] == 5
    assert (found["n_shot"], found["n_episodes"]) == (2, 3)


@pytest.mark.slow
def test_a_checkpoint_needs_no_weights_of_pretraining(fitted, in_folder):
    weights = in_folder / "pretrained.ckpt"
    shutil.copy(fitted / "checkpoints" / "best.ckpt", weights)
    options = ["--config", "tiny.yaml", "--experiment", "from_weights", "--trainer.max_epochs", "1"]
    main(["fit", *options, "--model.backbone.weights", str(weights)])
    weights.unlink()
    run = in_folder / "runs" / "from_weights" / "version_0"
    assert results(run)["backbone"]["weights"] == str(weights)
    main(["test", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "best.ckpt")])
    assert results(newest(run.parent))["accuracy"] == results(run)["accuracy"]
    FewShotModule.load_from_checkpoint(run / "checkpoints" / "best.ckpt", weights_only=True)


@pytest.mark.slow
def test_a_profiler_tells_where_an_episodes_time_goes(in_folder):
    options = ["--trainer.max_epochs", "1", "--test_after_fit", "false", "--trainer.limit_train_batches", "2"]
    pictures = ["--data.store_features", "false", "--data.dataset.max_cached_bytes", "0"]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        main(["fit", "--config", "tiny.yaml", "--experiment", "profiled", *options, *pictures])
    rows = {event.key for event in profiler.key_averages()}
    assert {"sampling", "decode", "transform", "encode", "method"} <= rows
    assert any(row.startswith("Optimizer.step#") for row in rows)


def test_validate_measures_a_checkpoint(fitted, in_folder, capsys):
    main(["validate", "--config", str(fitted / "config.yaml"), "--ckpt_path", str(fitted)])
    assert "val/accuracy" in capsys.readouterr().out


def test_predict_writes_a_row_for_every_query(fitted, in_folder, capsys):
    main(["predict", "--config", str(fitted / "config.yaml"), "--ckpt_path", str(fitted)])
    run = newest(in_folder / "runs" / "tiny")
    assert f"predictions written to runs/tiny/{run.name}/predictions.csv" in capsys.readouterr().out
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 9 * 2
    correct = [row["label"] == row["predicted"] for row in rows]
    assert sum(correct) / len(rows) == pytest.approx(results(fitted)["accuracy"])
    for row in rows[:20]:
        assert row["picture"].startswith(row["label"] + "/")
        for when in ("before", "after"):
            assert sum(float(row[f"{when}_{c}"]) for c in range(9)) == pytest.approx(1, abs=1e-4)
        best = max(range(9), key=lambda c: float(row[f"after_{c}"]))
        assert row[f"class_{best}"] == row["predicted"]
    assert not list(run.glob("*.partial"))


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGTERM")
@pytest.mark.parametrize("command", [pytest.param("validate", marks=pytest.mark.slow), "predict", "test"])
def test_sigterm_ends_a_command_with_its_exit_code_and_leaves_no_results(
    fitted, in_folder, capsys, monkeypatch, command
):
    step = {"validate": "validation_step", "predict": "predict_step", "test": "test_step"}[command]
    monkeypatch.setattr(FewShotModule, step, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stopped:
        main([command, "--config", str(fitted / "config.yaml"), "--ckpt_path", str(fitted)])
    assert stopped.value.code == 143 and "stopped by SIGTERM" in capsys.readouterr().out
    run = newest(in_folder / "runs" / "tiny")
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    assert not (run / "results.json").exists() and not list(run.glob("predictions*"))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGTERM")
def test_sigterm_before_the_first_checkpoint_promises_no_continuation(in_folder, capsys, monkeypatch):
    monkeypatch.setattr(FewShotModule, "compute_features", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", "tiny.yaml", "--experiment", "early"])
    said = capsys.readouterr().out
    assert stopped.value.code == 143 and "stopped by SIGTERM" in said and "auto continues" not in said


def test_a_place_for_runs_may_begin_with_the_home_folder(in_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    main(
        [
            "validate",
            "--config",
            "tiny.yaml",
            "--runs=~/mine",
            "--experiment",
            "here",
            "--trainer.limit_val_batches",
            "1",
        ]
    )
    (run,) = (tmp_path / "home" / "mine" / "here").iterdir()
    assert {"config.yaml", "run.json", "metrics.csv"} <= {file.name for file in run.iterdir()}
    assert not (in_folder / "~").exists()


@pytest.mark.parametrize("command", ["validate", "predict", "test"])
def test_an_untrained_model_is_said_to_be_one(in_folder, capsys, command):
    main([command, "--config", "tiny.yaml", "--experiment", "untrained"])
    assert "no --ckpt_path given: the method is tested untrained" in capsys.readouterr().out


def test_what_cannot_be_tested_is_not_trained(in_folder, capsys):
    options = ["fit", "--config", "tiny.yaml", "--experiment", "no_test", "--data.dataset.test_folder", "nowhere"]
    assert "nowhere" in refused(capsys, *options)
    assert not Path("runs/no_test").exists()
    main([*options, "--test_after_fit", "false", "--trainer.max_epochs", "1"])


def test_nearest_class_mean_is_tested_without_fit(in_folder):
    options = ["--model.method", "NearestClassMean", "--experiment", "nearest"]
    main(["test", "--config", "tiny.yaml", *options])
    found = results(in_folder / "runs" / "nearest" / "version_0")
    assert found["method"]["class_path"].endswith("NearestClassMean")
    assert found["accuracy"] == found["accuracy_nearest_mean"] and found["checkpoint"] is None


def test_without_checkpoints_the_trained_module_itself_is_tested(in_folder, capsys):
    options = ["--trainer.enable_checkpointing", "false", "--experiment", "none", "--trainer.max_epochs", "1"]
    main(["fit", "--config", "tiny.yaml", *options])
    assert results(in_folder / "runs" / "none" / "version_0")["checkpoint"] is None
    assert "next:" not in capsys.readouterr().out


@pytest.mark.slow
def test_pretraining_then_meta_training_from_its_folder(in_folder):
    (in_folder / "pretrain.yaml").write_text(PRETRAINING)
    main(["fit", "--config", "pretrain.yaml"])
    run = in_folder / "runs" / "pretraining" / "version_0"
    assert results(run)["method"] == "nearest class mean"
    module = PretrainModule.load_from_checkpoint(run / "checkpoints" / "best.ckpt", weights_only=True)
    main(
        [
            *["fit", "--config", "tiny.yaml", "--experiment", "meta", "--trainer.max_epochs", "1"],
            *["--model.backbone.weights", "runs/pretraining"],
        ]
    )
    meta = in_folder / "runs" / "meta" / "version_0" / "checkpoints" / "best.ckpt"
    trained = FewShotModule.load_from_checkpoint(meta, weights_only=True)
    for name, value in module.backbone.state_dict().items():
        assert torch.equal(value, trained.backbone.state_dict()[name])


# Plugins, several configs, overrides.


def test_a_persons_a_method_and_data_set(in_folder):
    own = {
        "model": {"init_args": {"method": {"class_path": "a_method.Mine", "init_args": {"sharpness": 2.0}}}},
        "data": {"init_args": {"dataset": {"class_path": "a_method.MyPictures", "init_args": {"folder": "pictures"}}}},
    }
    (in_folder / "own.yaml").write_text(yaml.safe_dump(own))
    main(["test", "--config", "tiny.yaml", "--config", "own.yaml", "--experiment", "own"])
    method = results(in_folder / "runs" / "own" / "version_0")["method"]
    assert method == {"class_path": "a_method.Mine", "init_args": {"sharpness": 2.0}}


def printed_config(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--print_config"])
    assert exit_.value.code in (0, None)
    return yaml.safe_load(capsys.readouterr().out)


def test_later_configs_and_options_win(in_folder, capsys):
    (in_folder / "later.yaml").write_text("data: {init_args: {n_way: 3, n_shot: 2}}\ntrainer: {max_epochs: 5}\n")
    config = printed_config(
        capsys,
        *["fit", "--config", "tiny.yaml", "--config", "later.yaml", "--data.n_shot", "4"],
        *["--model.method.n_steps", "5", "--model.backbone.name", "resnet18", "--data.dataset.root", "elsewhere"],
    )
    data, model = config["data"]["init_args"], config["model"]["init_args"]
    assert (data["n_way"], data["n_shot"], config["trainer"]["max_epochs"]) == (3, 4, 5)
    assert model["method"]["init_args"]["n_steps"] == 5 and model["backbone"]["name"] == "resnet18"
    assert data["dataset"]["init_args"]["root"] == "elsewhere"


def test_bare_names_and_dotted_paths(in_folder, capsys):
    for name in ("ProtoNet", "fewshot.methods.ProtoNet", "fewshot.methods.protonet.ProtoNet"):
        config = printed_config(capsys, "fit", "--config", "tiny.yaml", "--model.method", name)
        assert config["model"]["init_args"]["method"]["class_path"].endswith("ProtoNet")


# What is refused, and how.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data.n_wya", "3"], ["data.n_wya: EpisodicDataModule has no option", "did you mean n_way?", "n_shot"]),
        (["--model.method.n_stepz", "3"], ["model.method.n_stepz: SIB has no option", "n_steps", "step_size"]),
        (["--model.init_args.method.init_args.n_stepz", "3"], ["model.method.n_stepz: SIB has no option"]),
        (["--model.backbone.nam", "x"], ["model.backbone.nam: ", "did you mean name?", "image_size"]),
        (["--data.dataset.rot", "x"], ["data.dataset.rot: ImageFolderSplits has no option", "did you mean root?"]),
        (["--trainer.max_epoch", "3"], ["trainer.max_epoch: trainer has no option", "max_epochs", "precision"]),
        (["--modle", "x"], ["modle: ", "did you mean model?", "ckpt_path"]),
        (["--model.method", "ProtoNet", "--model.method.n_steps", "3"], ["ProtoNet has no option", "temperature"]),
        (["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lrr", "3"], ["model.optimizer.lrr", "lr, mom"]),
        (["--model.method", "SIBB"], ["model.method: no class 'SIBB'", "SIB", "ProtoNet", "dotted path"]),
        (["--model.method.gradient", "MLPG"], ["model.method.gradient: no class 'MLPG'", "EquivariantGradient"]),
        (["--model.method.gradient", "ProtoNet"], ["model.method.gradient: ", "MLPGradient"]),
        (["--model.optimizer", "torch.optim.Adamm"], ["model.optimizer: ", "'Adamm'", "AdamW"]),
        (["--data", "Episodic"], ["data: no class 'Episodic'", "EpisodicDataModule", "ClassDataModule"]),
        (["--data.dataset", "glyph"], ["'glyph' is known here; did you mean Glyphs? Accepted: CIFARFS"]),
        (["--model.optimizer", "torch.optim.AdmW"], ["no attribute 'AdmW'; did you mean AdamW"]),
        (["--data.dataset", "Nix"], ["data.dataset: no class 'Nix'", "CIFARFS", "Glyphs", "Omniglot"]),
        (["--data.n_way", "five"], ["data.n_way=five: expected int"]),
        (["--trainer.max_epochs", "three"], ["trainer.max_epochs=three: expected int or null"]),
        (["--model.method.reduction", "median"], ["model.method.reduction", "expected 'sum' or 'mean'"]),
        (["--model.freeze_backbone", "maybe"], ["model.freeze_backbone=maybe: expected true or false"]),
        (["--data.n_way"], ["data.n_way: expected a value"]),
        (["extra"], ["extra"]),
        (["--config", "nowhere.yaml"], ["config: no file nowhere.yaml"]),
        (["--data.n_way", "0"], ["n_way=0"]),
        (["--model.method.n_steps", "-1"], ["n_steps=-1 but it is at least 0"]),
        (["--model.backbone.name", "conv5"], ["backbone 'conv5' is not known", "conv4"]),
        (["--model.backbone.weights", "nowhere.ckpt"], ["'nowhere.ckpt' not found"]),
        (["--ckpt_path", "nowhere.ckpt"], ["ckpt_path: ", "'nowhere.ckpt' not found"]),
        (["--ckpt_path", "tiny.yaml"], ["ckpt_path: ", "tiny.yaml cannot be read"]),
        (["--trainer.accelerator", "gpuu"], ["trainer: ", "gpuu", "cpu"]),
        (["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "-1"], ["optimizer: ", "-1"]),
        (["--data.n_way", "11", "--model.method.gradient.n_way", "11"], ["n_way=11 but split", "10 classes"]),
        (["--data.dataset.root", "gone"], ["no folder", "gone", "<root>/<split>/<class>/<picture>"]),
        (["--model.method", "NearestClassMean"], ["nothing to train", "freeze_backbone=false"]),
        (["--runs", "tiny.yaml"], ["tiny.yaml", "is a file; name another folder"]),
        (["--data.dataset.mean", "[0.5, 0.5]"], ["channels=3 but mean has 2"]),
        (["--data.dataset.mean", "[]"], ["channels=3 but mean has 0"]),
        (
            ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/acc"],
            ["trainer.callbacks: Early stopping conditioned on metric `val/acc`", "val/accuracy"],
        ),
        (
            ["--trainer.strategy", "ddp_spawn", "--trainer.devices", "2"],
            ["trainer.strategy starts processes by spawn, into which a run cannot be carried; give ddp"],
        ),
    ],
    ids=lambda value: " ".join(value) if value and str(value[0]).startswith("-") else None,
)
def test_what_is_wrong_is_refused_by_one_line(in_folder, capsys, arguments, says):
    error = refused(capsys, "fit", "--config", "tiny.yaml", "--experiment", "refused", *arguments)
    for part in says:
        assert part in error
    assert not [path for path in (in_folder / "runs").glob("refused/version_*") if not any(path.iterdir())]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("n_steps: 2", "n_stepz: 2", "model.method.n_stepz: SIB has no option 'n_stepz'; did you mean n_steps"),
        ("class_path: SIB", "class_path: SIBB", "model.method: no class 'SIBB' is known here"),
        ("root: pictures, ", "", "data.dataset.root: required by ImageFolderSplits"),
        ("n_query: 2", "n_query: two", "data.n_query=two: expected int"),
        ('n_way}"', 'n_wayy}"', "model.method.gradient.n_way: Interpolation key 'data.init_args.n_wayy' not found"),
        ("n_query: 2", "n_query: [2", "config: wrong.yaml is not valid YAML"),
        ("experiment: tiny", "eksperiment: tiny", "eksperiment: the command has no option 'eksperiment'; did you mean"),
        ("trainer:", "trainer:\n  max_epoch: 3", "trainer.max_epoch: trainer has no option 'max_epoch'; did you"),
        ("trainer:", "trainr:", "trainr: the command has no option 'trainr'; did you mean trainer? Accepted: con"),
        ("model:", "model:\n  init_arg: {}", "model.init_arg: a class is told by class_path and init_args, not by"),
        ("data:", "data:\n  init_arg: {}", "data.init_arg: a class is told by class_path and init_args, not by"),
        ("data:", "dtaa:", "model.method.gradient.n_way: it refers to data.init_args.n_way, but there is no 'data'"),
    ],
)
def test_a_wrong_config_is_refused_by_one_line(in_folder, capsys, old, new, says):
    assert old in CONFIG
    (in_folder / "wrong.yaml").write_text(CONFIG.replace(old, new))
    assert refused(capsys, "fit", "--config", "wrong.yaml").startswith(says)


def test_a_config_that_is_no_mapping(in_folder, capsys):
    (in_folder / "list.yaml").write_text("- 1\n")
    assert refused(capsys, "fit", "--config=list.yaml") == "config: list.yaml holds list, not keys with values"


def test_a_config_of_compare_or_of_another_program(in_folder, capsys):
    (in_folder / "side.yaml").write_text("experiment: side\nmethods: {}\n")
    error = refused(capsys, "fit", "--config", "side.yaml")
    assert error == "config: side.yaml is one of compare, with methods; give it to python -m fewshot compare"
    (in_folder / "workflow.yaml").write_text("on: [push]\n")
    assert "workflow.yaml has the key True, which is no name of an option" in refused(
        capsys, "fit", "--config=workflow.yaml"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model.backbone.weights", "null"],
        ["--model.backbone.image_size=null"],
        ["--model.method.test_steps", "null"],
        ["--model.method.posterior=null"],
    ],
)
def test_null_below_an_option_is_null(in_folder, capsys, arguments):
    with pytest.raises(SystemExit):
        main(["test", "--config", "tiny.yaml", *arguments, "--print_config"])
    found = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    part, name = arguments[0].removeprefix("--model.").removesuffix("=null").split(".")
    assert {**found[part], **found[part].get("init_args", {})}[name] is None


def test_a_checkpoint_callback_of_ones_own_stands_beside_the_runs(in_folder):
    options = ["--trainer.callbacks.monitor", "val/accuracy", "--trainer.callbacks.mode", "max"]
    options += ["--trainer.callbacks.dirpath", "mine", "--trainer.callbacks.save_last", "true"]
    main(["fit", "--config", "tiny.yaml", "--experiment", "own", "--trainer.callbacks+=ModelCheckpoint", *options])
    assert {"best.ckpt", "last.ckpt"} <= {path.name for path in newest(in_folder / "runs" / "own").glob("*/*.ckpt")}
    assert (in_folder / "mine" / "last.ckpt").is_file()


def test_states_of_former_checkpoints_have_the_names_of_today():
    former = {"callbacks": {"ModelCheckpoint{'monitor': 'val/accuracy'}": {"best": 1}, "Other": {}}}
    present = with_present_keys(former)
    assert present == {"callbacks": {"RunCheckpoint{'monitor': 'val/accuracy'}": {"best": 1}, "Other": {}}}
    own = {"callbacks": {**present["callbacks"], "ModelCheckpoint{'monitor': 'val/accuracy'}": {"mine": 1}}}
    assert with_present_keys(own) == own and with_present_keys({})["callbacks"] == {}


def test_no_model_and_no_command(in_folder, capsys):
    assert "required; name a config, as in --config configs/quickstart.yaml" in refused(capsys, "fit")
    assert "choose one of fit, validate, test, predict" in refused(capsys, "fti")
    assert "no command given" in refused(capsys)


def test_a_checkpoint_of_another_size_is_refused(fitted, capsys):
    options = ["--config", str(fitted / "config.yaml"), "--ckpt_path", str(fitted)]
    error = refused(capsys, "test", *options, "--model.method.gradient.expansion", "4")
    assert error.startswith("ckpt_path: the checkpoint does not fit the model of this config")


def test_a_workers_error_is_refused_like_any_other(in_folder, capsys, monkeypatch):
    shutil.copytree(in_folder / "pictures", in_folder / "damaged")
    for path in (in_folder / "damaged" / "train").rglob("*.png"):
        path.write_bytes(b"not a picture")
    options = ["--data.dataset.root", "damaged", "--data.dataset.max_cached_bytes", "1", "--data.num_workers", "1"]
    error = refused(
        capsys, "fit", "--config", "tiny.yaml", *options, "--data.store_features", "false", "--experiment", "damaged"
    )
    assert ".png" in error and "DataLoader" not in error


def test_a_fault_of_the_program_keeps_its_traceback(in_folder):
    with pytest.raises(Exception, match="a fault of the program"):
        main(["fit", "--config", "tiny.yaml", "--model.method", "a_method.Broken"])


def test_the_words_of_a_refusal():
    assert short_key("fit.model.init_args.method.init_args.n_way") == "model.method.n_way"
    assert type_name(int | None) == "int or null"
    assert {"SIB", "ProtoNet"} <= set(accepted_classes(__import__("fewshot.methods", fromlist=["Method"]).Method))
    assert one_line("a\n  b") == "a b"
    foreign = 'Caught ValueError in DataLoader worker process 0.\n  File "/else/x.py", line 1\nValueError: no'
    assert worker_refusal(foreign) is None
    assert refusal_of(ValueError("of a library"), []) is None


# What needs a process of its own.


def environment(**more: str) -> dict[str, str]:
    """That of this process, with the package importable from any folder."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(fewshot.__file__).parent.parent), **more}


def test_help_names_the_commands(capsys):
    main(["--help"])
    printed = capsys.readouterr().out
    assert all(command in printed for command in COMMANDS) and "--config configs/quickstart.yaml" in printed


def test_help_of_a_command(in_folder, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "--help"])
    printed = capsys.readouterr().out
    assert exit_.value.code == 0 and "--trainer.max_epochs" in printed and "--test_after_fit" in printed


@pytest.mark.slow
def test_python_m_refuses_on_the_first_line(in_folder):
    command = [sys.executable, "-m", "fewshot", "fit", "--config", "tiny.yaml", "--model.method.n_stepz", "3"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith("error: model.method.n_stepz: SIB has no option")
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_console_script_finds_classes_beside_the_configs(in_folder):
    """Without python -m, the working directory is not on the import path by itself; and nothing but results is said."""
    code = "import sys; sys.path = [p for p in sys.path if p]; from fewshot.commands import main; main()"
    options = ["--model.method", "a_method.Mine", "--experiment", "script"]
    command = [sys.executable, "-c", code, "test", "--config", "tiny.yaml", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "results written to runs/script/version_0/results.json" in done.stdout


@pytest.mark.slow
def test_wandb_works_offline(in_folder, monkeypatch):
    monkeypatch.delenv("WANDB_DIR", raising=False)
    options = ["--trainer.logger", "WandbLogger", "--trainer.logger.offline", "true", "--trainer.logger.project", "x"]
    command = [sys.executable, "-m", "fewshot", "fit", "--config", "tiny.yaml", "--experiment", "wandb", *options]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment(WANDB_MODE="offline"),
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    run = in_folder / "runs" / "wandb" / "version_0"
    assert list((run / "wandb").glob("offline-run-*")) and (run / "results.json").is_file()
    assert not (in_folder / "wandb").exists()
