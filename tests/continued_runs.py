"""Runs that are killed or find the disk full: configs of seconds, processes that can be killed, and the same end."""

from __future__ import annotations

import builtins
import csv
import errno
import multiprocessing
import os
from pathlib import Path
from typing import Any

import torch

CONFIG = """
experiment: tiny
seed_everything: 1
model:
  class_path: FewShotModule
  init_args:
    backbone: {name: conv4_32, image_size: 28}
    freeze_backbone: false
    method:
      class_path: SIB
      init_args:
        gradient: {class_path: MLPGradient, init_args: {n_way: "${data.init_args.n_way}"}}
        posterior: {class_path: GaussianPosterior}  # draws from torch's global generator at every step
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-3}}
    lr_scheduler:
      class_path: torch.optim.lr_scheduler.OneCycleLR
      init_args: {max_lr: 1.0e-2, total_steps: 24}
    lr_interval: step
data:
  class_path: EpisodicDataModule
  init_args:
    dataset: {class_path: ImageFolderSplits, init_args: {root: pictures, image_size: 28}}
    n_way: 5
    n_query: 2
    tasks_per_batch: 2
    train_episodes: 16
    val_episodes: 4
    test_episodes: 5
trainer:
  max_epochs: 3
  log_every_n_steps: 2
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  callbacks: {class_path: killer.Killer}
checkpoint_every_n_steps: 3
"""

PRETRAINING = """
experiment: tiny
seed_everything: 1
model:
  class_path: PretrainModule
  init_args:
    n_classes: 6
    backbone: {name: conv4_32, image_size: 28}
    lr_scheduler: {class_path: fewshot.training.schedules.WarmupMultiStepLR, init_args: {warmup_steps: 20}}
data:
  class_path: ClassDataModule
  init_args:
    dataset: {class_path: ImageFolderSplits, init_args: {root: pictures, image_size: 28}}
    batch_size: 3
    num_workers: 2
    n_query: 2
    val_episodes: 4
    test_episodes: 5
trainer:
  max_epochs: 3
  log_every_n_steps: 2
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  callbacks: {class_path: killer.Killer}
checkpoint_every_n_steps: 3
"""

KILLER = '''
import os
import signal

import torch
from pytorch_lightning import Callback

WHAT, _, STEP = os.environ.get("KILL", "").partition(" ")


class Killer(Callback):
    """Sends this process a signal: before a step, in a validation, or when half of a checkpoint is on disk."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if WHAT in ("SIGKILL", "SIGTERM") and trainer.global_step == int(STEP):
            os.kill(os.getpid(), getattr(signal, WHAT))

    def on_validation_batch_start(self, trainer, *rest, **more):
        if WHAT == "validation" and trainer.global_step == int(STEP):
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_start(self, trainer, module):
        whole = torch.save

        def save(content, file, *rest, **more):
            whole(content, file, *rest, **more)
            if trainer.global_step == int(STEP):
                file.truncate(file.tell() // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        if WHAT == "writing":
            torch.save = save
'''


def write_configs(folder: Path) -> None:
    """Into a working directory: tiny.yaml, pretraining.yaml, and the callback that kills."""
    (folder / "tiny.yaml").write_text(CONFIG)
    (folder / "pretraining.yaml").write_text(PRETRAINING)
    (folder / "killer.py").write_text(KILLER)


def lines(run: Path) -> list[dict[str, str]]:
    """The log's lines; a validation's comes before or after that of the training step it follows."""
    with open(run / "metrics.csv", newline="") as file:
        return sorted(
            csv.DictReader(file), key=lambda line: (int(line["step"]), line["val/accuracy"], line["test/accuracy"])
        )


def assert_same_end(run: Path, other: Path) -> None:
    """Weights, optimiser, schedule, random states, best checkpoint, log and test results agree in every bit."""
    ours, theirs = (torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (run, other))
    assert ours["global_step"] == theirs["global_step"] and ours["epoch"] == theirs["epoch"]
    assert all(torch.equal(value, theirs["state_dict"][name]) for name, value in ours["state_dict"].items())
    for kind in ("optimizer_states", "lr_schedulers"):
        assert repr(ours[kind]) == repr(theirs[kind])
    assert repr(ours["callbacks"]["Resumption"]) == repr(theirs["callbacks"]["Resumption"])
    best, its_best = (torch.load(path / "checkpoints" / "best.ckpt", weights_only=True) for path in (run, other))
    assert best["global_step"] == its_best["global_step"]
    assert (run / "results.json").is_file() and (other / "results.json").is_file()
    if (other / "episodes.csv").is_file():
        assert (run / "episodes.csv").read_text() == (other / "episodes.csv").read_text()
    assert lines(run) == lines(other)
    assert not (run / "unfinished").exists()


def process(arguments: list[str], output: Path, *, full_from: int | None = None) -> Any:
    """A process of this command in the working directory, not started, forked from one that has imported everything.

    Args:
        arguments: behind `python -m fewshot`.
        output: file of what it prints; the last line is how often it has written to a file.
        full_from: the disk is full from this writing on.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fewshot.commands.fit", "fewshot.commands.refusals"])
    return context.Process(target=_command, args=(arguments, os.getcwd(), str(output), full_from))


class _Counted:
    """A file, every writing to which counts, and fails once the disk is full."""

    writings = 0
    full_from: int | None = None

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Counted:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def write(self, content: Any) -> int:
        _Counted.writings += 1
        if _Counted.full_from is not None and _Counted.writings >= _Counted.full_from:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(content)

    def writelines(self, parts: Any) -> None:
        for part in parts:
            self.write(part)


def _command(arguments: list[str], folder: str, output: str, full_from: int | None) -> None:
    """Run a command as a process of its own would."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.chdir(folder)
    torch.set_num_threads(1)
    plain, _Counted.full_from = builtins.open, full_from

    def counted(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        opened = plain(file, mode, *rest, **options)
        inside = isinstance(file, (str, Path)) and "runs" in os.path.abspath(file)
        return _Counted(opened) if inside and set(mode) & set("wax+") else opened

    builtins.open = counted  # type: ignore[assignment]
    from fewshot.commands import main

    try:
        main(arguments)
    finally:
        os.write(1, f"{_Counted.writings}\n".encode())
