"""The record of a run, run.json: what is needed to repeat it, beside the config.yaml that says what was asked for.

It has a home of its own rather than a place in results.json because every command leaves one, also a run that failed or
was killed; results.json holds what a test measured.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shlex
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from fewshot.data.class_datamodule import ClassDataModule
from fewshot.data.datasets.base import Split
from fewshot.data.interface import PictureData, data_of
from fewshot.data.picture_datamodule import PictureDataModule
from fewshot.files import relative, write_json
from fewshot.runs.folder import RECORD, check_there
from fewshot.training.versions import versions

PACKAGE = Path(__file__).resolve().parent.parent
GIT_SECONDS = 10
"""How long git may take to answer; a working tree on a slow disk is then recorded without."""
KEYS = {
    "command": "fit, validate, test or predict",
    "command_line": "the command as it was given",
    "status": "running; finished, failed or interrupted once it has ended. A run that was killed still says running",
    "error": "of a run that failed: the exception's type and message",
    "started": "when the command was given (ISO 8601, UTC)",
    "ended": "when it ended",
    "seconds": "wall-clock time between the two",
    "training_seed": "what seed_everything was given; null where nothing was seeded",
    "checkpoint": "the checkpoint that was loaded, relative to the working directory where it lies below it",
    "differs_from_checkpoint": "options of the model with another value in that checkpoint, and where "
    "training goes on from it, as data.NAME, options of the data",
    "episodes": "by split that was used: the sizes of its episodes, their seed, their number, and the hash of their "
    "list (of epoch 0, in training: those of other epochs follow from the seed); of training on single pictures their "
    "number, seed and the hash of their names",
    "git": "commit of the working directory's repository and of the package's own source tree, and whether what is "
    "tracked there (of the package: any of its files) was changed since; null where there is no repository",
    "versions": "of Python and of the packages that decide a result",
    "device": "what it ran on: type, name, number, nodes, processes, strategy, precision, threads, deterministic mode",
    "earlier": "the records of the runs which this one continued in the same folder, oldest first",
}
"""What every key of run.json means."""


class RunRecord(Callback):
    """Writes run.json into the run folder: when the trainer is set up, when episodes are drawn first, and at the end.

    Args:
        command: fit, validate, test or predict.
        arguments: the command line behind `python -m fewshot`, beginning with the command.
    """

    def __init__(self, command: str, arguments: list[str]) -> None:
        self.begun = False
        """Whether anything was trained or measured; a run that was refused before leaves no folder."""
        self.trained = False
        """Whether a training has begun, which it does not where nothing is left to train."""
        self.folder: Path | None = None
        self._written = False
        self._trainer: Trainer | None = None
        self._start = time.monotonic()
        self.content: dict[str, Any] = {
            "command": command,
            "command_line": shlex.join(["python", "-m", "fewshot", *arguments]),
            "status": "running",
            "started": now(),
            "ended": None,
            "seconds": None,
            "checkpoint": None,
            "differs_from_checkpoint": {},
            "episodes": {},
        }

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write what is known beforehand."""
        folder = trainer.log_dir  # asks all ranks
        if folder is None or self.folder is not None or not trainer.is_global_zero:
            return
        self.folder, self._trainer = Path(folder), trainer
        seed = os.environ.get("PL_GLOBAL_SEED")
        self.content |= {
            "training_seed": None if seed is None else int(seed),
            "git": {"working_directory": git_state(Path.cwd()), "package": package_state()},
            "versions": versions(),
            "device": device_facts(trainer),
            "earlier": earlier_records(self.folder / RECORD),
        }
        self.write()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trained = True
        self._begin(trainer, "train")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._begin(trainer, "val")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, "test")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, "test")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check_there()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_there()
        measured = (getattr(pl_module, "results", {}).get("test") or {}).get("n_episodes")
        described, data = self.content["episodes"].get("test"), data_of(trainer)
        if described and measured not in (None, described["n_episodes"]) and isinstance(data, PictureDataModule):
            # limit_test_batches
            described |= {"n_episodes": measured, "episodes_sha256": data.episodes_sha256("test", measured)}

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_there()

    def close(self, error: BaseException | None) -> None:
        """Write how the run ended.

        Args:
            error: what ended it; None where it came to its end.
        """
        if self.folder is None or not self.begun:
            return
        stopped = isinstance(error, (KeyboardInterrupt, SystemExit))
        if error is not None and not stopped:
            self.content["status"] = "failed"
            self.content["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:1000]
        else:
            interrupted = stopped or (self._trainer is not None and self._trainer.interrupted)
            self.content["status"] = "interrupted" if interrupted else "finished"
        self.content |= {"ended": now(), "seconds": round(time.monotonic() - self._start, 3)}
        hidden = () if error is None else (OSError, ValueError)  # what came first is to be said
        with contextlib.suppress(*hidden):
            self.write()

    def _check_there(self) -> None:
        """Raise ValueError where the folder, in which this record lies, is gone."""
        if self.folder is not None:
            check_there(self.folder)

    def write(self) -> None:
        """Write what is known so far."""
        if self.folder is not None:
            if self._written:
                check_there(self.folder)
            self._written = True
            write_json(self.folder / RECORD, {key: self.content[key] for key in KEYS if key in self.content})

    def _begin(self, trainer: Trainer, split: Split) -> None:
        """Note that the episodes of this split are used; their loader is made by now."""
        self.begun = True
        if self.folder is None or split in self.content["episodes"]:
            return
        if trainer.ckpt_path and not self.content["episodes"]:  # what is tested after fit is named in results.json
            self.content["checkpoint"] = relative(str(trainer.ckpt_path))
        self.content["episodes"][split] = episodes_of(data_of(trainer), split)
        self.write()


def episodes_of(data: PictureData | None, split: Split) -> dict[str, Any] | None:
    """Sizes, number, seed and hash of a split's episodes; None for a data module that cannot tell.

    Args:
        data: a data module, as the trainer has it.
        split: train, val or test.
    """
    if data is None:
        return None
    if split == "train" and isinstance(data, ClassDataModule):  # single pictures
        images = data.images("train")
        names = hashlib.sha256("\0".join(images.names).encode()).hexdigest()
        return {"n_pictures": len(images), "seed": data.seed, "names_sha256": names}
    described = data.describe(split)
    kept = {key: described[key] for key in ("n_episodes", "n_way", "n_shot", "n_query")}
    seed = data.seed_of(split) if isinstance(data, PictureDataModule) else described["seed"]
    return {**kept, "seed": seed, "episodes_sha256": described["episodes_sha256"]}


def device_facts(trainer: Trainer) -> dict[str, Any]:
    """What a run's numbers may depend on beside the software's versions."""
    device = trainer.strategy.root_device
    cuda = device.type == "cuda"
    return {
        "type": device.type,
        "name": torch.cuda.get_device_name(device) if cuda else platform.machine(),
        "devices": trainer.num_devices,
        "nodes": trainer.num_nodes,
        "world_size": trainer.world_size,
        "strategy": type(trainer.strategy).__name__,
        "precision": str(trainer.precision),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "system": platform.system(),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the repository that holds a folder, and whether tracked files differ from it; None without one.

    What git does not track does not count: run folders often lie in the working directory.
    """
    commit = git(folder, "rev-parse", "--verify", "HEAD")
    if not commit:
        return None
    changed = git(folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all")
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}


def package_state() -> dict[str, Any] | None:
    """As `git_state`, of this package where it is a checkout; None where it is installed, also below a repository.

    New files count, as a method added to the package does.
    """
    if git(PACKAGE, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = git(PACKAGE, "rev-parse", "--verify", "HEAD")
    changed = git(PACKAGE, "status", "--porcelain", "--untracked-files=all", "--", "*.py", "*.json")
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}


def git(folder: Path, *arguments: str) -> str | None:
    """What a git command prints; None where there is no git, no repository, or no answer in time.

    It asks for nothing, locks nothing, and runs no program that the repository's configuration names.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment = {**inherited, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None


def earlier_records(path: Path) -> list[Mapping[str, Any]]:
    """The record that lies there already, behind those that it names itself."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(found, dict):
        return []
    return [*found.pop("earlier", []), found]


def now() -> str:
    """The time, in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
