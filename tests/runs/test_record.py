"""run.json: every command leaves one, whatever becomes of the run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fewshot.commands import main
from fewshot.methods import SIB
from fewshot.runs import record
from fewshot.runs.record import KEYS, RunRecord, earlier_records, git_state, package_state
from fewshot.runs.results import KEYS as RESULT_KEYS

CONFIG = """
experiment: tiny
model:
  class_path: FewShotModule
  init_args:
    backbone: {name: conv4, image_size: 16}
    method: {class_path: SIB, init_args: {n_steps: 1}}
data:
  class_path: EpisodicDataModule
  init_args:
    dataset: {class_path: ImageFolderSplits, init_args: {root: pictures, image_size: 16}}
    n_query: 2
    train_episodes: 2
    val_episodes: 2
    test_episodes: 3
    train_seed: 7
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
"""


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory, write_pictures: Callable[..., None]) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("record")
    write_pictures(path / "pictures")
    (path / "tiny.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        yield path


def written(experiment: str, version: int = 0) -> dict[str, Any]:
    return json.loads(Path("runs", experiment, f"version_{version}", "run.json").read_text())


@pytest.fixture(scope="module")
def commands(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of a fit, and of the other commands with its checkpoint."""
    main(["fit", "--config", "tiny.yaml", "--seed_everything", "3"])
    for command in ("validate", "test", "predict"):
        main([command, "--config", "tiny.yaml", "--ckpt_path", "runs/tiny/version_0", "--data.n_shot", "2"])
    return {name: written("tiny", i) for i, name in enumerate(("fit", "validate", "test", "predict"))}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "splits"),
    [("fit", {"train", "val", "test"}), ("validate", {"val"}), ("test", {"test"}), ("predict", {"test"})],
)
def test_every_command_leaves_its_record_and_its_config(command, splits, commands):
    found = commands[command]
    assert found.keys() == KEYS.keys() - {"error"}
    assert found["command"] == command and found["status"] == "finished"
    assert found["command_line"].startswith(f"python -m fewshot {command} --config tiny.yaml ")
    assert found["training_seed"] == (3 if command == "fit" else 0)
    assert found["checkpoint"] == (None if command == "fit" else "runs/tiny/version_0/checkpoints/best.ckpt")
    assert datetime.fromisoformat(found["started"]) <= datetime.fromisoformat(found["ended"])
    assert found["seconds"] > 0
    assert set(found["episodes"]) == splits
    assert all(len(one["episodes_sha256"]) == 64 for one in found["episodes"].values())
    assert found["versions"]["torch"] == torch.__version__.split("+")[0] or "+" in found["versions"]["torch"]
    assert (found["device"]["type"], found["device"]["world_size"]) == ("cpu", 1)
    assert found["device"]["precision"] == "32-true"
    folder = Path("runs/tiny", f"version_{list(commands).index(command)}")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["data"]["init_args"]["n_shot"] == (1 if command == "fit" else 2)
    assert {"seed_everything", "model", "data", "trainer", "ckpt_path", "experiment", "runs"} <= config.keys()
    assert not list(folder.glob("*.partial"))


@pytest.mark.slow
def test_the_record_names_the_episodes_that_were_measured(commands):
    results = json.loads(Path("runs/tiny/version_0/results.json").read_text())
    episodes = commands["fit"]["episodes"]
    assert episodes["test"]["episodes_sha256"] == results["episodes_sha256"]
    assert (episodes["train"]["seed"], episodes["test"]["seed"]) == (7, 0)
    assert (episodes["train"]["n_episodes"], episodes["val"]["n_episodes"]) == (2, 2)
    assert commands["test"]["episodes"]["test"]["n_shot"] == 2
    assert len({one["episodes_sha256"] for one in episodes.values()}) == 3


def test_the_record_of_a_limited_test_names_the_episodes_that_were_measured(commands):
    options = [
        "--experiment",
        "limited",
        "--trainer.limit_test_batches",
        "1",
        "--data.tasks_per_batch",
        "1",
        "--data.store_features",
        "false",
    ]
    main(["test", "--config", "tiny.yaml", "--ckpt_path", "runs/tiny/version_0", *options])
    results = json.loads(Path("runs/limited/version_0/results.json").read_text())
    episodes = written("limited", 0)["episodes"]["test"]
    assert episodes["n_episodes"] == results["n_episodes"] < 3
    assert episodes["episodes_sha256"] == results["episodes_sha256"]


def test_every_key_of_the_results_is_documented(commands):
    assert json.loads(Path("runs/tiny/version_0/results.json").read_text()).keys() <= RESULT_KEYS.keys()


def test_a_run_that_fails_says_why(monkeypatch):
    def fail(*_: Any) -> None:
        raise ValueError("no such\nluck")

    monkeypatch.setattr(SIB, "loss", fail)
    with pytest.raises(ValueError, match="no such"):
        main(["fit", "--config", "tiny.yaml", "--experiment", "failing"])
    found = written("failing")
    assert (found["status"], found["error"]) == ("failed", "ValueError: no such luck")
    assert found["ended"] and set(found["episodes"]) == {"train"}


def test_a_run_that_is_interrupted_says_so(monkeypatch):
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SIB, "loss", interrupt)
    with pytest.raises(SystemExit):
        main(["fit", "--config", "tiny.yaml", "--experiment", "interrupted"])
    assert written("interrupted")["status"] == "interrupted"


def test_a_killed_run_still_says_running(monkeypatch):
    monkeypatch.setattr(RunRecord, "close", lambda self, error: None)
    main(["test", "--config", "tiny.yaml", "--experiment", "killed"])
    found = written("killed")
    assert found["status"] == "running" and found["ended"] is None and found["episodes"]["test"]


def test_a_run_that_is_refused_late_leaves_nothing(capsys):
    """After the config was written: the number of classes is known only when pictures are read."""
    with pytest.raises(SystemExit) as stop:
        main(
            ["test", "--config", "tiny.yaml", "--experiment", "late", "--data.n_way", "6", "--model.method", "ProtoNet"]
        )
    assert stop.value.code == 2 and "5 classes" in capsys.readouterr().err
    assert not Path("runs", "late").exists()


def test_a_run_that_goes_on_in_its_folder_keeps_the_earlier_record(tmp_path):
    assert earlier_records(tmp_path / "run.json") == []
    (tmp_path / "run.json").write_text(json.dumps({"status": "running", "earlier": [{"status": "failed"}]}))
    assert earlier_records(tmp_path / "run.json") == [{"status": "failed"}, {"status": "running"}]
    (tmp_path / "run.json").write_text("{")
    assert earlier_records(tmp_path / "run.json") == []


# What git says.


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "core.hooksPath="]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_of_a_repository(tmp_path):
    assert git_state(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "file.txt").write_text("a")
    git(tmp_path, "add", "file.txt")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "new.txt").write_text("not tracked")
    assert git_state(tmp_path / "runs") == {"commit": commit, "dirty": False}
    (tmp_path / "file.txt").write_text("b")
    assert git_state(tmp_path) == {"commit": commit, "dirty": True}


def test_git_that_is_missing_or_hangs_or_is_told_of_another_repository(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))  # as inside a hook
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    assert git_state(tmp_path) is None
    (programs / "git").write_text('#!/bin/sh\nread answer\n[ -z "$answer" ] && exec /bin/sleep 60\n')
    (programs / "git").chmod(0o755)
    monkeypatch.setattr(record, "GIT_SECONDS", 0.2)
    assert git_state(tmp_path) is None


def test_no_program_named_by_a_repository_is_run(tmp_path):
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    (tmp_path / "monitor").write_text(f"#!/bin/sh\ntouch {tmp_path}/executed\n")
    (tmp_path / "monitor").chmod(0o755)
    git(tmp_path, "config", "core.fsmonitor", str(tmp_path / "monitor"))
    assert git_state(tmp_path) is not None
    assert not (tmp_path / "executed").exists()
    git(tmp_path, "status")
    assert (tmp_path / "executed").exists()  # git alone would


def test_the_commit_of_the_package(tmp_path, monkeypatch):
    """Of a checkout, not of a repository around the environment that it is installed in."""
    package = tmp_path / "environment" / "fewshot"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (tmp_path / ".gitignore").write_text("environment\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    monkeypatch.setattr(record, "PACKAGE", package)
    assert package_state() is None
    git(tmp_path, "add", "-f", "environment/fewshot/__init__.py")
    git(tmp_path, "commit", "-q", "-m", "second")
    assert package_state() == {"commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    (tmp_path / ".gitignore").unlink()
    (package / "method.py").write_text("")
    found = package_state()
    assert found is not None and found["dirty"] is True
    assert os.path.exists(package / "method.py")


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_folder_that_goes_in_training_ends_the_run(how, tmp_path, monkeypatch, capsys):
    """By one line, and without another folder in its place."""

    def go(self: Any, trainer: Any, *_: Any) -> None:
        (shutil.rmtree if how == "removed" else lambda path: os.rename(path, tmp_path / "elsewhere"))(trainer.log_dir)

    monkeypatch.setattr(RunRecord, "on_train_batch_end", go)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "tiny.yaml", "--experiment", how])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and line.startswith(f"error: runs/{how}/version_0 was removed or moved while this run")
    assert os.listdir(Path("runs", how)) == []


def test_a_record_that_cannot_be_written_does_not_hide_what_failed(tmp_path, monkeypatch):
    ended = RunRecord("fit", ["fit"])
    ended.folder, ended.begun = tmp_path, True
    ended.write()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    ended.close(ValueError("the first error"))
    with pytest.raises(OSError, match="No space"):
        ended.close(None)
    assert os.listdir(tmp_path) == ["run.json"] and json.loads((tmp_path / "run.json").read_text())
