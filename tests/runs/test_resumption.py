"""A run that is killed and continued ends as one that was left alone: real processes, real kills."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from continued_runs import assert_same_end, write_configs

from fewshot.commands import main
from fewshot.files import LAST
from fewshot.runs.checkpointing import run_checkpoints
from fewshot.runs.folder import unfinished
from fewshot.runs.resumption import (
    AtomicCheckpointIO,
    Resumption,
    data_differences,
    random_states,
    restore_random_states,
)

MOMENTS = {
    "in the first epoch": "SIGKILL 5",
    "in the second epoch": "SIGKILL 13",
    "in a validation": "validation 16",
    "while a checkpoint is written": "writing 9",
    "by SIGTERM": "SIGTERM 13",
}

TWO_PROCESSES = ["--trainer.strategy", "ddp", "--trainer.devices", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_pictures: Callable[..., None]) -> Iterator[Path]:
    """A working directory with pictures, the configs, and what kills; one thread, here and in the processes."""
    path = tmp_path_factory.mktemp("resumption")
    write_pictures(path / "pictures", classes=6, size=28)
    write_configs(path)
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr(sys, "path", list(sys.path))
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        yield path
        torch.set_num_threads(threads)


def start(moment: str, runs: str, *arguments: str, config: str = "tiny.yaml") -> subprocess.Popen[str]:
    """A training that will be killed."""
    command = [sys.executable, "-m", "fewshot", "fit", "--config", config, "--runs", runs, *arguments]
    environment = {**os.environ, "KILL": moment}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def continued(runs: str, *arguments: str, config: str = "tiny.yaml") -> Path:
    main(["fit", "--config", config, "--runs", runs, *arguments, "--ckpt_path", "auto"])
    assert os.listdir(f"{runs}/tiny") == ["version_0"]
    return Path(runs, "tiny", "version_0")


def uninterrupted(runs: str, *arguments: str, config: str = "tiny.yaml") -> Path:
    main(["fit", "--config", config, "--runs", runs, *arguments])
    return Path(runs, "tiny", "version_0")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    return uninterrupted("whole")


@pytest.fixture(scope="module")
def ended(folder: Path) -> Path:
    """A run of one epoch that was not interrupted."""
    return uninterrupted("ended", "--trainer.max_epochs", "1")


@pytest.fixture(scope="module")
def killed(folder: Path) -> dict[str, str]:
    """The folder of runs of each moment at which one was killed; all of them train at the same time."""
    processes = {moment: start(kill, moment.replace(" ", "_")) for moment, kill in MOMENTS.items()}
    for moment, process in processes.items():
        _, errors = process.communicate(timeout=300)
        expected = 128 + signal.SIGTERM if moment == "by SIGTERM" else -signal.SIGKILL
        assert process.returncode == expected, errors[-3000:]
    return {moment: moment.replace(" ", "_") for moment in MOMENTS}


@pytest.fixture(scope="module")
def others() -> dict[tuple[str, ...], Path]:
    """Runs of other kinds that were not killed, by config and arguments."""
    return {}


def finished(process: subprocess.Popen[str], runs: str) -> Path:
    """The folder of a run, once it has ended well."""
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return Path(runs, "tiny", "version_0")


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_like_an_uninterrupted_one(moment: str, whole: Path, killed: dict[str, str]) -> None:
    run = Path(killed[moment], "tiny", "version_0")
    assert (run / "unfinished").exists() and not (run / "results.json").exists()
    step = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert step == {"in the first epoch": 3, "in a validation": 15, "while a checkpoint is written": 8}.get(
        moment, 14 if moment == "by SIGTERM" else 12
    )
    assert_same_end(continued(killed[moment]), whole)
    assert (run / f"config_resumed_at_step_{step}.yaml").is_file()
    assert (run / "config.yaml").read_text().count("ckpt_path: null") == 1
    assert list(run.rglob("*.partial")) == []


@pytest.mark.slow
def test_nothing_to_continue_is_an_error_and_no_fresh_start(ended: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for runs, reason in (("ended", "version_0 is finished or no training"), ("nowhere", "no versions at all")):
        with pytest.raises(SystemExit) as stop:
            main(["fit", "--config", "tiny.yaml", "--runs", runs, "--ckpt_path", "auto"])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ckpt_path=auto continues an unfinished run") and reason in error
    assert not Path("nowhere").exists()


def test_auto_is_for_fit(ended: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["test", "--config", "tiny.yaml", "--runs", "ended", "--ckpt_path", "auto"])
    assert "for test give a checkpoint file" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "moment", "arguments"),
    [
        ("tiny.yaml", "SIGKILL 3", ["--trainer.accumulate_grad_batches", "3", "--model.freeze_backbone", "true"]),
        ("tiny.yaml", "SIGKILL 7", ["--data.num_workers", "2", "--trainer.val_check_interval", "4"]),
        ("tiny.yaml", "SIGKILL 7", TWO_PROCESSES),
        ("tiny.yaml", "SIGTERM 6", TWO_PROCESSES),
        ("pretraining.yaml", "SIGKILL 7", []),
    ],
    ids=["accumulated, frozen backbone", "workers", "two processes", "two processes and SIGTERM", "pre-training"],
)
def test_so_do_other_kinds_of_runs(
    config: str,
    moment: str,
    arguments: list[str],
    folder: Path,
    others: dict[tuple[str, ...], Path],
    request: pytest.FixtureRequest,
) -> None:
    runs = request.node.name.replace(" ", "_")
    process = start(moment, runs, *arguments, config=config)
    kind = (config, *arguments)
    if kind not in others:  # trained while the other one is
        others[kind] = finished(start("", f"{runs}_whole", *arguments, config=config), f"{runs}_whole")
    process.communicate(timeout=300)
    assert process.returncode != 0
    again = start("", runs, *arguments, "--ckpt_path", "auto", config=config)
    assert_same_end(finished(again, runs), others[kind])


# The pieces.


def test_random_states_survive_a_checkpoint_that_holds_no_objects(tmp_path: Path) -> None:
    torch.save(random_states(), tmp_path / "states.pt")
    drawn = [random.random(), np.random.rand(), float(torch.rand(()))]
    restore_random_states(torch.load(tmp_path / "states.pt", weights_only=True))
    assert [random.random(), np.random.rand(), float(torch.rand(()))] == drawn


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"step": 1}, path)

    def full(content: Any, file: Any) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ValueError, match=r"last\.ckpt.*No space left on device"):
        writer.save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert os.listdir(path.parent) == ["last.ckpt"]


@pytest.mark.parametrize("option", ["every_n_steps", "every_n_minutes"])
def test_intervals_are_positive(option: str) -> None:
    with pytest.raises(ValueError, match=f"checkpoint_{option}=0"):
        Resumption(Path("last.ckpt"), **{option: 0})


DATA: dict[str, Any] = {
    "class_path": "fewshot.data.episodic_datamodule.EpisodicDataModule",
    "init_args": {"n_shot": 1, "num_workers": 0, "dataset": {"mean": (0.5, 0.5)}},
}


@pytest.mark.parametrize(
    ("option", "value", "decides"), [("n_shot", 5, True), ("num_workers", 4, False), ("n_way", 9, False)]
)
def test_options_of_the_data_that_differ_are_told(option: str, value: int, decides: bool, tmp_path: Path) -> None:
    checkpoint = tmp_path / LAST
    assert data_differences(DATA, checkpoint, same_run=True) == {}  # no config beside it
    former = {**DATA, "class_path": "fewshot.data.datamodule.EpisodicDataModule"}
    (tmp_path / "config.yaml").write_text(json.dumps({"data": former}))
    assert data_differences(DATA, checkpoint, same_run=True) == {}
    changed = {**DATA, "init_args": {**DATA["init_args"], option: value}}
    known = {} if option == "n_way" else {f"data.{option}": {"here": value, "there": value - 4, "note": ""}}
    assert data_differences(changed, checkpoint, same_run=False) == known
    if decides:
        with pytest.raises(ValueError, match=r"data.n_shot is 5 but the run that is to go on has 1: .*--ckpt_path"):
            data_differences(changed, checkpoint, same_run=True)
    else:
        assert data_differences(changed, checkpoint, same_run=True) == known


@pytest.mark.parametrize(("option", "decides"), [("distortion", True), ("root", False), ("flip", False)])
def test_options_of_a_data_set_decide_where_they_change_pictures(option: str, decides: bool, tmp_path: Path) -> None:
    def with_option(value: object) -> dict[str, Any]:
        dataset = {"class_path": "fewshot.data.datasets.glyphs.Glyphs", "init_args": {option: value}}
        return {"class_path": DATA["class_path"], "init_args": {"dataset": dataset}}

    (tmp_path / "config.yaml").write_text(json.dumps({"data": with_option(1)}))
    found = data_differences(with_option(2), tmp_path / LAST, same_run=not decides)
    assert list(found) == [f"data.dataset.{option}"]
    if decides:
        with pytest.raises(ValueError, match=r"data\.dataset\.distortion is 2 but the run that is to go on has 1"):
            data_differences(with_option(2), tmp_path / LAST, same_run=True)


def test_a_config_that_stands_for_more_than_it_is_says_nothing(tmp_path: Path) -> None:
    levels = ["a0: &a0 [" + ", ".join("x" * 10) + "]"]
    levels += [f"a{n}: &a{n} {{" + ", ".join(f"k{k}: *a{n - 1}" for k in range(10)) + "}" for n in range(1, 9)]
    for text in ("data:\n  " + "\n  ".join(levels), "data: &a\n  n_way: *a", "data: {n_shot: 5}" + "\n" * 2**20):
        (tmp_path / "config.yaml").write_text(text)
        assert data_differences(DATA, tmp_path / LAST, same_run=True) == {}


def test_a_best_checkpoint_that_lies_elsewhere_is_forgotten(tmp_path: Path) -> None:
    """What another run's checkpoint says of its own best one is nothing to a new run, whose first epoch is the best."""
    (tmp_path / "a" / LAST).parent.mkdir(parents=True)
    (tmp_path / "a" / "checkpoints" / "best.ckpt").touch()
    best, _ = run_checkpoints(tmp_path / "a")
    best.best_model_path = str(tmp_path / "a" / "checkpoints" / "best.ckpt")
    best.best_k_models, best.kth_best_model_path = {best.best_model_path: torch.tensor(0.9)}, best.best_model_path
    best.best_model_score = best.kth_value = torch.tensor(0.9)
    state = best.state_dict()
    other, _ = run_checkpoints(tmp_path / "b")
    other.load_state_dict(state)
    assert other.best_model_path == "" and other.best_k_models == {} and other.best_model_score is None
    (tmp_path / "a").rename(tmp_path / "c")
    moved, _ = run_checkpoints(tmp_path / "c")
    moved.load_state_dict(state)
    assert moved.best_model_path == str(tmp_path / "c" / "checkpoints" / "best.ckpt")
    assert moved.best_model_score == torch.tensor(0.9) and list(moved.best_k_models) == [moved.best_model_path]


def test_what_a_killed_writer_left_goes_when_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / LAST).parent.mkdir()
    for name in (".run.json.partial", "checkpoints/.best.ckpt.partial", "mine.partial"):
        (tmp_path / name).touch()
    with unfinished(tmp_path):
        assert [path.name for path in tmp_path.rglob("*.partial")] == ["mine.partial"]
