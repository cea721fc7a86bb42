"""Every file of configs/: consistent in itself and with the others, and run on a few small pictures.

Fit, test and predict go through the command line's own entry point, in a folder whose data/ holds a few pictures of
each data set. The shipped file is changed in how much is done and in the backbone's width, not in what is done:
pictures have their shipped size, and SIB finds the checkpoint that the pre-training config has just written.
"""

from __future__ import annotations

import csv
import glob
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from small_copies import INCOMPLETE, N_EPISODES, N_QUERY, load, small

from fewshot.backbones import create_backbone, resnet12
from fewshot.backbones.wrn28_10 import WideResNet
from fewshot.commands import main

ROOT = Path(__file__).resolve().parent.parent
COMPARISONS = sorted((ROOT / "configs" / "compare").glob("*.yaml"))
CONFIGS = sorted({*(ROOT / "configs").rglob("*.yaml")} - {*COMPARISONS})


def experiment_of(config: Path) -> str:
    """What a config is called: its folder's name, which is the data set's, before its own."""
    folder = config.parent.name
    return config.stem if folder == "configs" else f"{folder}_{config.stem}"


BY_EXPERIMENT = {experiment_of(config): config for config in CONFIGS}
each_config = pytest.mark.parametrize("config", CONFIGS, ids=experiment_of)

TRAINING_PICTURES = {"CIFARFS": 64 * 600, "MiniImageNet": 64 * 600, "ImageFolderSplits": 64 * 100}


def header(config: Path) -> str:
    """The comment that a config begins with."""
    lines = config.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(lines[:first])


def values_of(key: str, tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value, interpolations as they are written, of every `key` in a config."""
    for name, value in tree.items() if isinstance(tree, dict) else ():
        here = f"{path}.{name}" if path else str(name)
        if name == key:
            yield here, value
        yield from values_of(key, value, here)


def backbone_of(config: Path) -> dict[str, Any]:
    """Name, weights, channels and image size of a config's backbone, interpolations filled in."""
    backbone = OmegaConf.to_container(load(config).model.init_args.backbone, resolve=True)
    assert isinstance(backbone, dict)
    return {str(key): value for key, value in backbone.items()}


def pretraining_of(config: Path) -> Path | None:
    """The config that has to be run before this one, by the run folder that its backbone's weights come from."""
    weights = backbone_of(config).get("weights")
    return BY_EXPERIMENT[Path(weights).name] if weights else None


def trains(config: Path) -> bool:
    """Whether a config is to be fitted; those of methods without parameters say in their header that they are not."""
    return "not by `fit`" not in header(config)


def pretrains(config: Path) -> bool:
    """Whether a config trains a backbone by classes, from nothing."""
    return str(load(config).model.class_path).endswith("PretrainModule")


def assert_named_files_exist(config: Path) -> None:
    """A header names files as they are seen from the config's folder; in a command, from the repository's."""
    for name in re.findall(r"[\w*/.]+\.yaml", header(config)):
        folder = ROOT if name.startswith("configs/") else config.parent
        assert glob.glob(str(folder / name)), f"the header of {config.name} names {name}, which is not there"


def test_there_are_configs() -> None:
    assert len(CONFIGS) >= 20


def test_no_two_configs_write_into_the_same_folder() -> None:
    experiments = [load(config).experiment for config in CONFIGS]
    assert len(set(experiments)) == len(CONFIGS)


@each_config
def test_a_config_is_named_and_headed_by_what_it_is(config: Path) -> None:
    loaded, comment = load(config), header(config)
    assert loaded.experiment == experiment_of(config)
    assert comment, "a config begins with a comment that says what it is"
    assert_named_files_exist(config)
    sizes = re.search(r"_(\d+)way(\d+)shot$", config.stem)
    if sizes:
        data = loaded.data.init_args
        assert (str(data.n_way), str(data.n_shot)) == sizes.groups()
        assert f"{data.n_way}-way {data.n_shot}-shot" in comment


@each_config
def test_a_value_that_two_parts_share_has_one_home(config: Path) -> None:
    written = OmegaConf.to_container(load(config), resolve=False)
    ways = dict(values_of("n_way", written))
    assert isinstance(ways.pop("data.init_args.n_way"), int)
    assert set(ways.values()) <= {"${data.init_args.n_way}"}
    assert {rate for _, rate in values_of("max_lr", written)} <= {"${model.init_args.optimizer.init_args.lr}"}
    sizes = [value for _, value in values_of("image_size", written)]
    assert sum(value != "${data.init_args.image_size}" for value in sizes) <= 1, f"image_size is written as {sizes}"
    for _, root in values_of("root", written):
        assert re.fullmatch(r"\$\{oc\.env:FEWSHOT_DATA,data\}/\w+", root), root


@each_config
def test_weights_come_from_a_pretraining_config_of_the_same_backbone_and_pictures(config: Path) -> None:
    pretraining = pretraining_of(config)
    if pretraining is None:
        trained_here = load(config).model.init_args.get("freeze_backbone", True) is False or pretrains(config)
        assert trained_here or backbone_of(config)["pretrained"]
        return
    assert pretraining.name in header(config), "the header says which config has to be run before"
    ours, theirs = load(config), load(pretraining)
    assert backbone_of(config)["weights"] == f"runs/{theirs.experiment}"
    assert pretrains(pretraining)
    assert {**backbone_of(config), "weights": None} == {**backbone_of(pretraining), "weights": None}
    datasets = [config.data.init_args.dataset for config in (ours, theirs)]  # their training transforms may differ
    assert len({(dataset.class_path, dataset.init_args.root) for dataset in datasets}) == 1


@cache
def backbone_without_weights(name: str, **options: Any) -> torch.nn.Module:
    """A config's backbone, which other configs have too."""
    with torch.device("meta"):  # shapes alone: nothing is computed
        return create_backbone(name, **options)


@each_config
def test_the_backbone_exists_at_its_shipped_width_and_size(config: Path) -> None:
    network = backbone_without_weights(**{**backbone_of(config), "weights": None, "pretrained": False})
    if isinstance(network, (WideResNet, resnet12.ResNet12)):
        narrow = backbone_of(config)["name"] == "resnet12_narrow"
        assert network.num_features == (256 if narrow else 640)
    if isinstance(network, WideResNet):
        assert network.small_images == (network.image_size == 32)


@each_config
def test_a_config_logs_to_wandb_offline(config: Path) -> None:
    logger = load(config).trainer.logger
    assert logger.class_path == "WandbLogger"
    assert logger.init_args == {"project": "fewshot", "offline": True}


@each_config
def test_a_schedule_in_steps_agrees_with_the_epochs(config: Path) -> None:
    loaded = load(config)
    schedule = loaded.model.init_args.get("lr_scheduler")
    if schedule is None or loaded.model.init_args.get("lr_interval") != "step":
        return
    data = loaded.data.init_args
    if "train_episodes" in data:
        steps = data.train_episodes // data.tasks_per_batch
    else:
        steps = TRAINING_PICTURES[data.dataset.class_path] // data.batch_size
    last = loaded.trainer.max_epochs * steps
    assert schedule.init_args.get("total_steps", last) == last
    milestones = schedule.init_args.get("milestones", [])
    assert all(milestone % steps == 0 and milestone < last for milestone in milestones)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the commands are given; data/ gets its pictures when a config asks for them, runs/ grows."""
    return tmp_path_factory.mktemp("configs")


@pytest.fixture(scope="session")
def fitted(workplace: Path) -> Callable[[Path], Path]:
    """Fits a config, and before it the one its backbone comes from, once a session; returns its run folder."""
    folders: dict[Path, Path] = {}

    def fit(config: Path) -> Path:
        if config not in folders:
            pretraining = pretraining_of(config)
            if pretraining is not None:
                fit(pretraining)
            main(["fit", "--config", str(config), *small(config, workplace), "--trainer.limit_train_batches=2"])
            folders[config] = workplace / "runs" / experiment_of(config) / "version_0"
        return folders[config]

    return fit


@pytest.fixture
def few_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build wrn28_10 as a wide ResNet of depth 10 and width 1, and resnet12 with an eighth of its channels and less."""
    monkeypatch.setattr(WideResNet.__init__, "__defaults__", (10, 1))
    monkeypatch.setattr(resnet12, "WIDTHS", (8, 8, 16, 16))


def predicted_accuracy(run: Path) -> tuple[int, float]:
    """Rows of a run's predictions.csv, and the share of them that is right."""
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return len(rows), float(np.mean([row["label"] == row["predicted"] for row in rows]))


@pytest.mark.slow
@pytest.mark.parametrize("config", [config for config in CONFIGS if not trains(config)], ids=experiment_of)
def test_a_config_without_training_is_tested_and_predicts(
    config: Path,
    workplace: Path,
    fitted: Callable[[Path], Path],
    few_channels: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.delenv("FEWSHOT_DATA", raising=False)
    pretraining = pretraining_of(config)
    if pretraining is not None:
        fitted(pretraining)
    main(["test", "--config", str(config), *small(config, workplace)])
    run = workplace / "runs" / experiment_of(config) / "version_0"
    tested, data = json.loads((run / "results.json").read_text(encoding="utf-8")), load(config).data.init_args
    assert [tested[key] for key in ("n_way", "n_shot", "n_query", "n_episodes", "seed")] == [
        *(data.n_way, data.n_shot, N_QUERY, N_EPISODES, data.seed)
    ]

    main(["predict", "--config", str(run / "config.yaml")])
    n_rows, accuracy = predicted_accuracy(run.with_name("version_1"))
    assert n_rows == N_EPISODES * data.n_way * N_QUERY
    assert accuracy == pytest.approx(tested["accuracy"])


@pytest.mark.slow
@pytest.mark.parametrize("config", [config for config in CONFIGS if trains(config)], ids=experiment_of)
def test_a_config_is_fitted_tested_and_predicts(
    config: Path,
    workplace: Path,
    fitted: Callable[[Path], Path],
    few_channels: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.delenv("FEWSHOT_DATA", raising=False)
    monkeypatch.setenv("WANDB_MODE", "disabled")  # tests/runs starts it
    run = fitted(config)
    best = run / "checkpoints" / "best.ckpt"
    assert best.is_file() and (run / "checkpoints" / "last.ckpt").is_file()
    after_fit = json.loads((run / "results.json").read_text(encoding="utf-8"))
    data = load(config).data.init_args
    assert [after_fit[key] for key in ("n_way", "n_shot", "n_query", "n_episodes", "seed")] == [
        *(data.n_way, data.n_shot, N_QUERY, N_EPISODES, data.seed)
    ]
    assert 0 <= after_fit["accuracy"] <= 1

    main(["test", "--config", str(config), *small(config, workplace), "--ckpt_path", str(best)])
    tested = json.loads((run.with_name("version_1") / "results.json").read_text(encoding="utf-8"))
    same = ("accuracy", "ci95", "accuracy_per_step", "episodes_sha256", "method", "image_size")
    assert {key: tested[key] for key in same} == {key: after_fit[key] for key in same}
    assert tested["backbone"] == {**after_fit["backbone"], "weights": None}  # the checkpoint holds them

    main(["predict", "--config", str(run / "config.yaml"), "--ckpt_path", str(best)])
    n_rows, accuracy = predicted_accuracy(run.with_name("version_2"))
    assert n_rows == N_EPISODES * data.n_way * N_QUERY
    assert accuracy == pytest.approx(after_fit["accuracy"])


@pytest.mark.slow
@pytest.mark.parametrize("config", COMPARISONS, ids=experiment_of)
def test_a_comparison_measures_all_its_methods(
    config: Path,
    workplace: Path,
    fitted: Callable[[Path], Path],
    few_channels: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.delenv("FEWSHOT_DATA", raising=False)
    loaded = load(config)
    assert loaded.experiment == experiment_of(config)
    assert_named_files_exist(config)
    for contestant in loaded.methods.values():
        if contestant.get("ckpt_path"):
            fitted(BY_EXPERIMENT[Path(contestant.ckpt_path).name])
    few = [f"--data.n_query={N_QUERY}", f"--data.val_episodes={N_EPISODES}", f"--data.test_episodes={N_EPISODES}"]
    few += ["--accelerator=cpu", *([] if loaded.data.dataset.class_path == "ImageFolderSplits" else [INCOMPLETE])]
    few += ["--backbone.pretrained=false"] if loaded.backbone.get("pretrained") else []  # nothing is fetched
    main(["compare", "--config", str(config), *few])
    written = json.loads(
        (workplace / "runs" / experiment_of(config) / "version_0" / "comparison.json").read_text("utf-8")
    )
    assert {row["method"] for row in written["rows"]} == set(loaded.methods)
    assert all(0 <= row[key] <= 1 for row in written["rows"] for key in ("accuracy", "dirichlet_accuracy"))


@pytest.mark.skipif(os.name == "nt", reason="the script is one of sh")
def test_a_row_begins_goes_on_or_leaves_alone_each_of_its_runs(tmp_path: Path) -> None:
    """What the script starts, told by a `python` that writes its arguments down and leaves results."""
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nshift 2\necho "$1 $(basename "$3" .yaml) $5" >> asked\n')
    program.chmod(0o755)
    runs = tmp_path / "runs"
    for name, files in {
        "conv4_pretrain/version_0": ["unfinished"],
        "conv4_sib_5way1shot/version_0": ["unfinished", "checkpoints/last.ckpt"],
        "conv4_sib_5way1shot_k5/version_0": ["results.json"],
        "conv4_sib_5way5shot/version_0": ["unfinished"],
        "conv4_sib_5way5shot/version_1": ["results.json"],
    }.items():
        for file in files:
            (runs / f"cifar_fs_{name}" / file).parent.mkdir(parents=True, exist_ok=True)
            (runs / f"cifar_fs_{name}" / file).touch()
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    script = str(ROOT / "configs/cifar_fs/row.sh")
    subprocess.run(["sh", script, "conv4"], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "asked").read_text().splitlines() == [
        "fit conv4_pretrain null",
        "fit conv4_sib_5way1shot auto",
        "test conv4_sib_5way5shot runs/cifar_fs_conv4_sib_5way5shot",
    ]


@pytest.mark.weekly
def test_a_row_is_trained_and_tested_unattended_and_goes_on(tmp_path: Path) -> None:
    options = small(ROOT / "configs/cifar_fs/conv4_sib_5way1shot.yaml", tmp_path)
    command = ["sh", str(ROOT / "configs/cifar_fs/row.sh"), "conv4", *options, "--trainer.limit_train_batches=2"]
    environment = {name: value for name, value in os.environ.items() if name != "FEWSHOT_DATA"}
    environment |= {"FEWSHOT_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"

    def wanted() -> list[Path]:
        names = ["pretrain", *(f"sib_5way{shots}shot{tested}" for shots in (1, 5) for tested in ("", "_k5"))]
        return [tmp_path / "runs" / f"cifar_fs_conv4_{name}" / "version_0" / "results.json" for name in names]

    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=900)
    times = [file.stat().st_mtime_ns for file in wanted()]
    wanted()[-1].unlink()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=900)
    again = sorted((tmp_path / "runs").glob("cifar_fs_conv4_sib_5way5shot_k5/version_*/results.json"))
    assert len(again) == 1
    assert [file.stat().st_mtime_ns for file in wanted()[:-1]] == times[:-1]
