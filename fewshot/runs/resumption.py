"""What a run leaves behind so that it goes on after a kill as if nothing had happened."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import SIGTERMException

from fewshot.backbones.checkpoint_file import save_whole
from fewshot.backbones.checkpoint_limits import check_content
from fewshot.data.ranks import rank_and_world_size
from fewshot.files import plain
from fewshot.methods.class_path import same_class, with_present_paths
from fewshot.runs.checkpointing import with_present_keys
from fewshot.training.checkpoints import ClassName, flattened

BATCHES_BETWEEN_AGREEMENTS = 16
VALIDATED = (
    *("data", "data.dataset", "data.image_size", "data.val_episodes", "data.seed"),
    *("data.n_way", "data.n_shot", "data.n_query", "data.dirichlet", "data.long_tail"),
)
"""Options of the data that decide the validation episodes, beside those of the data set."""
NOT_VALIDATED = (
    *("root", "name", "download", "max_cached_bytes", "train_folder", "test_folder"),
    *("colour_jitter", "crop_padding", "flip"),
)
"""Options of a data set that change no picture of a validation."""
MAX_CONFIG = 2**20
"""Bytes of a config that are read."""


class Resumption(Callback):
    """Saves checkpoints in the middle of an epoch and on SIGTERM, and every rank's random states in all checkpoints.

    Weights, optimiser, scheduler and counters are in Lightning's checkpoints, the position within the epoch comes from
    the loader (`fewshot.data.batches`); a run that is resumed from any of its checkpoints has the weights of one that
    was never interrupted, bit for bit where the arithmetic is deterministic.

    A checkpoint is not written in the middle of accumulated gradients, nor just before a validation: the next batch
    that is neither comes soon. A SIGTERM is answered then too, by a checkpoint and `SIGTERMException`.

    Args:
        path: the file that is replaced each time.
        every_n_steps: optimiser steps between two checkpoints; None for none by steps.
        every_n_minutes: minutes between two checkpoints; None for none by time.
    """

    def __init__(self, path: Path, every_n_steps: int | None = None, every_n_minutes: float | None = 10.0) -> None:
        for name, value in (("every_n_steps", every_n_steps), ("every_n_minutes", every_n_minutes)):
            if value is not None and value <= 0:
                raise ValueError(f"checkpoint_{name}={value}; it is above 0, or null for none")
        self.path, self.every_n_steps, self.every_n_minutes = path, every_n_steps, every_n_minutes
        self._saved_at = (0, 0.0)
        self._pending: dict[str, float] = {}
        self._loaded: dict[str, Any] | None = None
        self._terminated = False

    def state_dict(self) -> dict[str, Any]:
        """Random states of all ranks, and the line of the log that is written only after this checkpoint."""
        world = rank_and_world_size()[1]
        states: list[Any] = [random_states()]
        if world > 1:
            states = [None] * world
            torch.distributed.all_gather_object(states, random_states())
        return {"random_states": states, "pending": dict(self._pending)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep them until training starts: what happens before draws random numbers too."""
        self._loaded = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the random states, write the line that was pending, and listen for SIGTERM."""
        self._saved_at = (trainer.global_step, time.monotonic())
        self._listen()
        loaded, self._loaded = self._loaded, None
        if loaded is None:
            return
        rank, world = rank_and_world_size()
        if len(loaded["random_states"]) == world:
            restore_random_states(loaded["random_states"][rank])
        if loaded["pending"]:
            values = dict(loaded["pending"])
            step = int(values.pop("step"))
            for logger in trainer.loggers:
                logger.log_metrics(values, step)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop, where a SIGTERM came; what the epoch before left behind has just been saved."""
        if self._agreed(trainer, self._terminated):
            raise SIGTERMException

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, where it is time to; and stop, where a SIGTERM came."""
        stop, due = self._stop_or_save(trainer, batch_idx)
        if not (stop or due) or _accumulating(trainer) or _validation_follows(trainer, batch_idx):
            return
        self._pending = pending_line(trainer)
        trainer.save_checkpoint(self.path)
        self._pending = {}
        self._saved_at = (trainer.global_step, time.monotonic())
        if stop:
            raise SIGTERMException

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let the log on disk be as far as the checkpoint."""
        for logger in trainer.loggers:
            logger.save()

    def _stop_or_save(self, trainer: Trainer, batch_idx: int) -> tuple[bool, bool]:
        """Whether a SIGTERM came, and whether so many steps or minutes have passed: the same on all ranks.

        What ranks have to agree about is asked every few batches, where there are several.
        """
        if getattr(trainer, "fast_dev_run", False):
            return False, False
        step, moment = self._saved_at
        due = self.every_n_steps is not None and trainer.global_step - step >= self.every_n_steps
        if trainer.world_size > 1 and batch_idx % BATCHES_BETWEEN_AGREEMENTS:
            return False, due
        if self.every_n_minutes is not None:
            due = due or self._agreed(trainer, time.monotonic() - moment >= 60 * self.every_n_minutes)
        return self._agreed(trainer, self._terminated), due

    def _agreed(self, trainer: Trainer, here: bool) -> bool:
        """Whether it is so on any rank."""
        return here if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(here, all=False)

    def _listen(self) -> None:
        """Note a SIGTERM, until training ends and Lightning restores what was there before.

        Lightning's own handler sends messages between ranks from within, which do not meet those of the other ranks.
        """
        self._terminated = False

        def note(number: int, frame: Any) -> None:
            self._terminated = True

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, note)


def random_states() -> dict[str, Any]:
    """States of the global random generators of Python, numpy and torch, as tensors and plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    states = {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: dict[str, Any]) -> None:
    """Set the global random generators to what `random_states` returned."""
    version, numbers, gauss_next = states["python"]
    random.setstate((version, tuple(numbers), gauss_next))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def pending_line(trainer: Trainer) -> dict[str, float]:
    """What Lightning will log for this training step after its callbacks have run; empty where it logs nothing."""
    step, every = trainer.fit_loop.epoch_loop._batches_that_stepped, int(getattr(trainer, "log_every_n_steps", 0))
    if not every or (step + 1) % every:
        return {}
    values = {name: float(value) for name, value in trainer.logged_metrics.items() if name.startswith("train/")}
    return {**values, "epoch": trainer.current_epoch, "step": step}


def data_differences(data: Mapping[str, Any], checkpoint: Path, *, same_run: bool) -> dict[str, dict[str, Any]]:
    """Options of the data with another value in the run that a checkpoint is of, as far as its config lies beside it.

    Args:
        data: the options as the config has them.
        checkpoint: in the folder of its run.
        same_run: whether that run itself goes on.

    Returns:
        By dotted key the values `here` and `there`, and a `note`, which is empty.

    Raises:
        ValueError: the run itself is to go on with other validation episodes: its best checkpoint was chosen by those.
    """
    config = checkpoint.parent.parent / "config.yaml"
    try:
        if config.stat().st_size > MAX_CONFIG:
            return {}
        theirs = yaml.safe_load(with_present_paths(config.read_text(encoding="utf-8")))["data"]
        check_content(theirs)  # aliases may stand for any number of entries, or for themselves
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError):
        return {}
    ours, theirs = dict(flattened(data, "data")), dict(flattened(theirs, "data"))
    found = {}
    for key in sorted(ours.keys() & theirs.keys()):
        here, there = ours[key], theirs[key]
        named = isinstance(here, ClassName) and isinstance(there, ClassName)
        if not (same_class(here, there) if named else plain(here) == plain(there)):
            found[key] = {"here": here, "there": there, "note": ""}
    decisive = [key for key in found if key in VALIDATED or _changes_pictures(key)]
    if same_run and decisive:
        key = decisive[0]
        raise ValueError(
            f"{key} is {found[key]['here']} but the run that is to go on has {found[key]['there']}: its best "
            f"checkpoint was chosen on other episodes; give what it has, or train on in a run of its own with "
            f"--ckpt_path {checkpoint}"
        )
    return found


def _changes_pictures(key: str) -> bool:
    """Whether an option, by its dotted key, is of the data set and may change the pictures of a validation."""
    return key.startswith("data.dataset.") and key.rpartition(".")[2] not in NOT_VALIDATED


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that a kill leaves the previous one whole."""

    def load_checkpoint(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Lightning's, of this version's runs and of earlier ones."""
        return with_present_keys(super().load_checkpoint(*arguments, **options))

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write; a path with a protocol, such as s3://, is left to Lightning."""
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        try:
            save_whole(target, checkpoint)
        except OSError as error:
            there = any(target.parent.glob("*.ckpt"))
            advice = "the one before it is whole, and the same command with --ckpt_path auto continues the run"
            raise ValueError(
                f"cannot write the checkpoint {target} ({error.strerror}); make room"
                + (f": {advice}" if there else ", and start again: it is the run's first")
            ) from error


def _accumulating(trainer: Trainer) -> bool:
    """Whether gradients have been summed up that no step has used yet."""
    return trainer.fit_loop._should_accumulate()


def _validation_follows(trainer: Trainer, batch_idx: int) -> bool:
    """Whether a validation may come before the next batch of training: at an epoch's end, or in its middle."""
    every = trainer.val_check_batch
    batches = batch_idx + 1 if trainer.check_val_every_n_epoch is not None else trainer.fit_loop.total_batch_idx + 1
    return trainer.is_last_batch or (isinstance(every, int) and batches % every == 0)
