"""The command line: python -m fewshot {fit,validate,test,predict}; LightningCLI, and nothing numerical."""

from __future__ import annotations

import re
import sys
import traceback
from pathlib import Path
from typing import Any

import jsonargparse
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

import fewshot.data.datamodule
import fewshot.data.sets
import fewshot.methods
import fewshot.module
import fewshot.pretrain  # noqa: F401  (imported so that configs may name their classes without the path)
from fewshot.predictions import PredictionWriter
from fewshot.results import ResultsWriter

PACKAGE = Path(__file__).parent


class Parser(LightningArgumentParser):
    """A parser whose errors come first, in one line, without pages of usage."""

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Print one line and exit with 2."""
        sys.stderr.write(f"error: {clear_message(message)}\n")
        raise SystemExit(2) from ex


class FewShotCLI(LightningCLI):
    """LightningCLI with a folder for every run, the best checkpoint tested after fit, and checked configs."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options beside those of trainer, model and data."""
        parser.add_argument("--experiment", type=str, default="experiment", help="Name of the run's folder.")
        parser.add_argument("--runs", type=str, default="runs", help="Where run folders go: <runs>/<experiment>/<version>.")
        parser.add_argument("--test_after_fit", type=bool, default=True, help="Test the best checkpoint after fit.")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """What Trainer methods there are, and which of their arguments are not options."""
        hidden = {"model", "datamodule", "weights_only", "verbose"}
        return {
            "fit": {*hidden, "train_dataloaders", "val_dataloaders"},
            "validate": {*hidden, "dataloaders"},
            "test": {*hidden, "dataloaders"},
            "predict": {*hidden, "dataloaders"},
        }

    def _parse_ckpt_path(self) -> None:
        """Not what LightningCLI does: a checkpoint's hyper-parameters would silently win over options given here."""

    def before_instantiate_classes(self) -> None:
        """Give the run a folder; a checkpoint to be loaded replaces the weights that the backbone starts from."""
        config = self.config[self.subcommand]
        self.run_name = config["experiment"]
        self.run_root = Path(config["runs"])
        self.run_version = next_version(self.run_root / self.run_name)
        self.run_folder = self.run_root / self.run_name / self.run_version
        if config.get("ckpt_path"):
            backbone = (config["model"].get("init_args") or {}).get("backbone")
            if backbone is not None:
                backbone["weights"], backbone["pretrained"] = None, False
        for logger in as_list(config["trainer"].get("logger")):
            arguments = getattr(logger, "init_args", None)
            if arguments is not None and "save_dir" in arguments and arguments["save_dir"] == ".":
                arguments["save_dir"] = str(self.run_folder)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer that logs to the run folder, keeps best and last checkpoint there, and writes results."""
        config = self._get(self.config_init, "trainer")
        loggers = [logger for logger in as_list(config.get("logger")) if isinstance(logger, Logger)]
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                self.run_folder.mkdir(parents=True, exist_ok=True)
        csv = CSVLogger(save_dir=self.run_root, name=self.run_name, version=self.run_version)
        trainer = super().instantiate_trainer(logger=[csv, *loggers], **kwargs)
        return trainer

    def fit(self, model: LightningModule, **kwargs: Any) -> None:
        """Train, then test the best checkpoint."""
        self.trainer.fit(model, **kwargs, weights_only=True)
        if not self._get(self.config, "test_after_fit") or self.trainer.fast_dev_run or self.trainer.interrupted:
            return
        best = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
        self.trainer.test(model, kwargs.get("datamodule"), ckpt_path=best or None, weights_only=True, verbose=False)
        print(f"\nrun written to {self.run_folder}\nnext: {self._next_command(best)}", flush=True)

    def validate(self, **kwargs: Any) -> None:
        """Validate a checkpoint."""
        self.trainer.validate(**kwargs, weights_only=True)

    def test(self, **kwargs: Any) -> None:
        """Test a checkpoint."""
        self.trainer.test(**kwargs, weights_only=True, verbose=False)
        print(f"\nresults written to {self.run_folder / 'results.json'}", flush=True)

    def predict(self, **kwargs: Any) -> None:
        """Write the predictions of the test split's episodes."""
        self.trainer.predict(**kwargs, weights_only=True, return_predictions=False)

    def _next_command(self, checkpoint: str) -> str:
        config = self.run_folder / "config.yaml"
        return f"python -m fewshot predict --config {config} --ckpt_path {relative(checkpoint)}"


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: arguments; None takes those of the process.
    """
    jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    try:
        FewShotCLI(
            LightningModule,
            LightningDataModule,
            args=args,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            parser_class=Parser,
            parser_kwargs={"parser_mode": "omegaconf+"},
            seed_everything_default=0,
            save_config_kwargs={"overwrite": False},
            trainer_defaults={"use_distributed_sampler": False, "callbacks": run_callbacks()},
        )
    except (ValueError, FileNotFoundError, MisconfigurationException) as error:
        if not raised_here(error):
            raise
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from error


def run_callbacks() -> list[Any]:
    """What every run has: best and last checkpoint, results and predictions."""
    best = ModelCheckpoint(
        monitor="val/accuracy",
        mode="max",
        filename="best",
        save_top_k=1,
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )
    last = ModelCheckpoint(filename="last", save_top_k=1, enable_version_counter=False)
    return [best, last, ResultsWriter(), PredictionWriter()]


def next_version(folder: Path) -> str:
    """Name of the first version that the folder does not hold: version_0, version_1, ..."""
    numbers = [int(match[1]) for entry in folder.glob("version_*") if (match := re.fullmatch(r"version_(\d+)", entry.name))]
    return f"version_{max(numbers, default=-1) + 1}"


def as_list(value: Any) -> list[Any]:
    """None and booleans as an empty list, one thing as a list of it."""
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def relative(path: str) -> str:
    """The path as seen from the working directory, where it lies below it."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return path


def raised_here(error: BaseException) -> bool:
    """Whether an error was raised by this package's own checks rather than deep inside a library."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and PACKAGE in Path(frames[-1].filename).parents


def clear_message(message: str) -> str:
    """The part of a parser's message that names the key and what is accepted, in one line."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    return " ".join(lines)
