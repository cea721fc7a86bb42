"""Several processes give what one gives, to the last digit, whoever starts them."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fewshot
from fewshot.commands import main

CONFIG = """
experiment: tiny
model:
  class_path: FewShotModule
  init_args:
    backbone: {name: conv4_32, image_size: 28}
    method:
      class_path: SIB
      init_args:
        gradient:
          class_path: MLPGradient
          init_args: {n_way: "${data.init_args.n_way}"}
        n_steps: 2
        step_size: 0.05
    optimizer:
      class_path: torch.optim.AdamW
      init_args: {lr: 1.0e-2}
data:
  class_path: EpisodicDataModule
  init_args:
    dataset:
      class_path: ImageFolderSplits
      init_args: {root: PICTURES, image_size: 28}
    n_way: 4
    n_query: 3
    tasks_per_batch: 2
    train_episodes: 10
    val_episodes: 5
    test_episodes: 7
trainer:
  max_epochs: 2
  log_every_n_steps: 1
  accelerator: cpu
  devices: 1
  enable_progress_bar: false
  enable_model_summary: false
"""

DDP = ("--trainer.strategy", "ddp")
TWO = (*DDP, "--trainer.devices", "2")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config, and beside it the pictures that it names."""
    folder = tmp_path_factory.mktemp("distributed")
    generator = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for c in range(6):
            (folder / "pictures" / split / f"{split}{c}").mkdir(parents=True)
            shade = generator.integers(64, 192, 3)
            for number in range(45 if split == "val" else 5):  # two batches to encode: one for each process
                pixels = shade + generator.integers(-60, 60, (28, 28, 3))
                path = folder / "pictures" / split / f"{split}{c}" / f"{number}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    path = folder / "tiny.yaml"
    path.write_text(CONFIG.replace("PICTURES", str(folder / "pictures")))
    return path


def started(
    *arguments: object, folder: Path, launcher: Sequence[object] = (sys.executable,), **environment: str
) -> subprocess.Popen[str]:
    """The command line in a process of its own, or in the processes of a launcher, working in a folder."""
    folder.mkdir(exist_ok=True)
    source = str(Path(fewshot.__file__).parent.parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": source, **environment}
    command = [str(part) for part in (*launcher, "-m", "fewshot", *arguments)]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(*processes: subprocess.Popen[str], code: int = 0) -> str:
    """What the processes have printed, after a check of their exit codes; a process that hangs fails the test."""
    printed = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=300)
            assert process.returncode == code, err[-3000:]
            printed.append(out + err)
    finally:
        for process in processes:
            process.kill()
    return "\n".join(printed)


def test_of(run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Path:
    """The run folder of a test of a run's best checkpoint by this process alone."""
    monkeypatch.chdir(folder)
    best = str(run / "checkpoints" / "best.ckpt")
    alone = ["--ckpt_path", best, "--runs", "alone", "--trainer.strategy", "auto", "--trainer.devices", "1"]
    main(["test", "--config", str(run / "config.yaml"), *alone, "--trainer.num_nodes", "1", *options])
    return max((folder / "alone" / "tiny").glob("version_*"), key=lambda path: path.stat().st_mtime)


test_of.__test__ = False  # type: ignore[attr-defined]


def assert_same_test(one: Path, other: Path, n_episodes: int) -> None:
    """The same result, to the last digit, of the whole and of every episode."""
    rows = (one / "episodes.csv").read_text()
    assert rows == (other / "episodes.csv").read_text() and len(rows.splitlines()) == 1 + n_episodes
    results = [json.loads((run / "results.json").read_text()) for run in (one, other)]
    same = ("accuracy", "ci95", "accuracy_per_step", "accuracy_nearest_mean", "gain_over", "n_episodes")
    assert [[result[key] for key in same] for result in results] == [[results[0][key] for key in same]] * 2
    assert results[0]["n_episodes"] == n_episodes


def run_of(folder: Path, experiment: str = "runs") -> Path:
    """The one run folder there is."""
    runs = sorted((folder / experiment / "tiny").iterdir())
    assert [run.name for run in runs] == ["version_0"]
    return runs[0]


def validated(run: Path) -> list[tuple[str, Any]]:
    """The logged validation accuracies as they are written, each with the loss, which adds up in another order."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/accuracy"]]
    return [(row["val/accuracy"], pytest.approx(float(row["val/loss"]), rel=1e-5)) for row in rows]


@pytest.mark.slow
def test_two_processes_train_and_test_like_one(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three training steps with a frozen backbone; one validation episode for two processes, and seven test ones."""
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    options = ["--data.val_episodes", 1, "--trainer.max_epochs", 1]
    printed = finished(started("fit", "--config", config, *TWO, *options, folder=tmp_path))
    assert printed.count("7 episodes of pictures (test)") == 1 and "sync_dist" not in printed
    run = run_of(tmp_path)
    assert sorted(path.name for path in run.iterdir() if path.is_file()) == [
        *("config.yaml", "episodes.csv", "hparams.yaml", "metrics.csv", "results.json", "run.json")
    ]
    assert_same_test(run, test_of(run, tmp_path, monkeypatch), 7)
    best = run / "checkpoints" / "best.ckpt"
    accuracy, loss = validation_of(best, run, tmp_path, monkeypatch)
    assert validated(run) == [(accuracy, loss.expected)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "trained"),
    [
        ("lightning", "trained"),
        ("torchrun", "frozen"),
        ("two nodes", "frozen"),
        ("two nodes", "trained"),
        ("srun", "trained"),
    ],
)
def test_whoever_starts_them(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str, trained: str
) -> None:
    """Fit, test and predict with frozen and trained backbone.

    The second of two nodes sees neither runs nor cache. What srun would start is started by hand, with its environment.
    """
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    options = ["--model.freeze_backbone", str(trained == "frozen").lower(), "--data.val_episodes=21"]
    run = fit_on_two(config, tmp_path, launcher, *options)
    assert_same_test(run, test_of(run, tmp_path, monkeypatch), 7)
    best = run / "checkpoints" / "best.ckpt"
    accuracy, loss = validation_of(best, run, tmp_path, monkeypatch)
    assert (accuracy, loss.expected) in validated(run)
    options = ["--config", str(run / "config.yaml"), "--ckpt_path", str(best), "--runs"]
    finished(started("predict", *options, "predicted", *TWO, "--trainer.num_nodes", "1", folder=tmp_path))
    main(["predict", *options, "alone", "--trainer.strategy=auto", "--trainer.devices=1", "--trainer.num_nodes=1"])
    predicted = (run_of(tmp_path, "predicted") / "predictions.csv").read_text()
    alone = max((tmp_path / "alone" / "tiny").glob("*/predictions.csv"))
    assert predicted == alone.read_text() and len(predicted.splitlines()) == 1 + 7 * 12


def fit_on_two(config: Path, folder: Path, launcher: str, *options: str) -> Path:
    """The run folder of a fit with two processes."""
    arguments = ("fit", "--config", config, *options)
    if launcher == "lightning":
        finished(started(*arguments, *TWO, folder=folder))
    elif launcher == "torchrun":
        finished(started(*arguments, *TWO, folder=folder, launcher=(*TORCHRUN, 2, "--master_port", free_port())))
    elif launcher == "srun":
        variables = {"NTASKS": "2", "NTASKS_PER_NODE": "2", "NNODES": "1", "NODELIST": "127.0.0.1", "NODEID": "0"}
        slurm = {f"SLURM_{name}": value for name, value in {**variables, "JOB_ID": "1", "JOB_NAME": "fit"}.items()}
        slurm["MASTER_PORT"] = str(free_port())
        ranks = [{**slurm, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
        finished(*[started(*arguments, *TWO, folder=folder, **rank) for rank in ranks])
    else:
        agents = (*TORCHRUN, 1, "--nnodes", 2, "--master_addr", "127.0.0.1", "--master_port", free_port())
        nodes = (*arguments, *DDP, "--trainer.devices", 1, "--trainer.num_nodes", 2)
        first = started(*nodes, folder=folder, launcher=(*agents, "--node_rank", 0))
        elsewhere = folder / "elsewhere"
        second = started(
            *nodes, folder=elsewhere, launcher=(*agents, "--node_rank", 1), FEWSHOT_CACHE=str(elsewhere / "cache")
        )
        finished(first, second)
        names = [{path.name for path in (place / "cache").iterdir()} for place in (folder, elsewhere)]
        assert names[0] == names[1] and not [name for name in names[0] if name.startswith(".")]
        assert {path.name for path in elsewhere.rglob("*") if path.is_file()} - names[1] <= {"best.ckpt"}
    return run_of(folder)


def validation_of(best: Path, run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Any]:
    """The validation accuracy and loss of a checkpoint by this process alone, as they are logged."""
    monkeypatch.chdir(folder)
    alone = ["--runs", "validated", "--trainer.strategy=auto", "--trainer.devices=1", "--trainer.num_nodes=1"]
    main(["validate", "--config", str(run / "config.yaml"), "--ckpt_path", str(best), *alone])
    return validated(folder / "validated" / "tiny" / "version_0")[0]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize("command", ["test", "predict"])
def test_one_episode_for_two_processes(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    options = ["--config", str(config), "--data.test_episodes=1"]
    finished(started(command, *options, *TWO, folder=tmp_path))
    monkeypatch.chdir(tmp_path)
    main([command, *options, "--runs", "alone"])
    name = {"test": "episodes.csv", "predict": "predictions.csv"}[command]
    rows = (run_of(tmp_path) / name).read_text()
    assert rows == (run_of(tmp_path, "alone") / name).read_text()
    assert len(rows.splitlines()) == {"test": 2, "predict": 13}[command]


@pytest.mark.slow
def test_an_error_of_one_process_ends_both(config: Path, tmp_path: Path) -> None:
    """Features that cannot be written on the second node, which the first would wait half an hour for."""
    agents = (*TORCHRUN, 1, "--nnodes", 2, "--master_addr", "127.0.0.1", "--master_port", free_port())
    nodes = ("fit", "--config", config, *DDP, "--trainer.devices", 1, "--trainer.num_nodes", 2)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full").chmod(0o500)
    options: list[dict[str, Any]] = [
        {"folder": tmp_path / "0", "FEWSHOT_CACHE": str(tmp_path / "cache")},
        {"folder": tmp_path / "1", "FEWSHOT_CACHE": str(tmp_path / "file" / "cache")},
    ]
    processes = [
        started(*nodes, launcher=(*agents, "--node_rank", rank), **option) for rank, option in enumerate(options)
    ]
    printed = finished(*processes, code=1)  # of torchrun
    assert "error: cannot write decoded pictures to" in printed
    assert "error: rank 1: cannot write decoded pictures to" in printed


@pytest.mark.slow
def test_processes_that_the_trainer_does_not_count_on_are_refused(config: Path, tmp_path: Path) -> None:
    launcher = (*TORCHRUN, 2, "--master_port", free_port())
    printed = finished(started("fit", "--config", config, folder=tmp_path, launcher=launcher), code=1)
    assert "error: trainer: 2 processes were started together, but devices=1 on num_nodes=1 make 1" in printed
    assert not (tmp_path / "runs").exists()
