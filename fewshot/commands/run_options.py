"""Options of a run beside those of trainer, model and data, and what is refused before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning.cli import LightningArgumentParser

from fewshot.backbones.checkpoint_file import read_checkpoint
from fewshot.files import resolve_weights

WORDS_OF_CHECKPOINTS = ("best", "last", "hpc")
WORK = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}
"""What the trainer calls the batches that a command is there for."""
LARGEST_SEED = 2**32 - 1


def add_run_options(parser: LightningArgumentParser) -> None:
    """Options of a run beside those of trainer, model and data."""
    parser.add_argument("--experiment", type=str, default="experiment", help="Name of the run's folder.")
    parser.add_argument("--runs", type=str, default="runs", help="Where run folders go: <runs>/<experiment>/<version>.")
    parser.add_argument("--test_after_fit", type=bool, default=True, help="Test the best checkpoint after fit.")
    parser.add_argument(
        "--checkpoint_every_n_steps",
        type=int | None,
        default=None,
        help="Optimiser steps between writings of last.ckpt within an epoch; it is written after each epoch too.",
    )
    parser.add_argument(
        "--checkpoint_every_n_minutes",
        type=float | None,
        default=10.0,
        help="Minutes between writings of last.ckpt within an epoch; null for none by the clock.",
    )


def without_first_weights(config: Any) -> None:
    """Let the backbone of a config start from nothing, for a checkpoint brings its weights."""
    backbone = (config["model"].get("init_args") or {}).get("backbone")
    if backbone is not None:
        backbone["weights"], backbone["pretrained"] = None, False


def checkpoint_file(given: str) -> str:
    """The checkpoint that --ckpt_path names: a file, or the folder of a run or experiment.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read.
    """
    if given in WORDS_OF_CHECKPOINTS:
        raise ValueError(
            f"ckpt_path: {given!r} names no run; give a checkpoint file, or the folder of a run or experiment"
        )
    if "://" in given:
        return given
    try:
        file = resolve_weights(given)
        read_checkpoint(file)
    except (FileNotFoundError, ValueError) as error:
        message = str(error).split(" If a pre-training run")[0].removeprefix("weights ")
        raise type(error)(f"ckpt_path: {message}") from error
    return str(file)


def check_run_options(command: str, config: Any) -> None:
    """ValueError for options by which a command would write elsewhere or do nothing.

    Args:
        command: fit, validate, test or predict.
        config: its options as parsed.
    """
    check_experiment(config["experiment"], config["runs"])
    option = f"limit_{WORK[command]}_batches"
    if config["trainer"].get(option) == 0:
        raise ValueError(f"trainer.{option}=0 leaves {command} nothing to do; raise it, or leave it out")
    if config["trainer"].get("barebones"):
        raise ValueError(
            "trainer.barebones=true allows neither log nor checkpoint, which a run consists of; leave it out, and set "
            "trainer.enable_progress_bar, enable_model_summary and num_sanity_val_steps to spare time"
        )


def check_experiment(experiment: str, runs: str) -> None:
    """ValueError for a name of an experiment that is no folder below the one of runs."""
    parts = Path(experiment).parts
    if Path(experiment).is_absolute() or ".." in parts or not parts:
        raise ValueError(f"experiment={experiment} is no folder below {runs}; give a name, and the place by --runs")


def check_seed(seed: int | bool | None) -> None:
    """ValueError for a seed that NumPy does not take."""
    if not isinstance(seed, bool) and seed is not None and not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"seed_everything={seed} but a seed is from 0 to {LARGEST_SEED}; false sets none")
