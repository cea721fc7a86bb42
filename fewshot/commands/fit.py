"""What fit, validate, test and predict do: LightningCLI, a folder for every run, and nothing numerical."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Any

import jsonargparse
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

import fewshot.data.class_datamodule
import fewshot.data.datasets
import fewshot.data.episodic_datamodule
import fewshot.methods
import fewshot.training.feature_spaces
import fewshot.training.few_shot_module
import fewshot.training.pretrain_module  # noqa: F401  (imported so that configs may name their classes without the path)
from fewshot.backbones.checkpoint_file import read_checkpoint
from fewshot.commands.fit_callbacks import FindTestSplit, TellRunFolder, without_averaging
from fewshot.commands.parser import Parser, check_configs
from fewshot.commands.process import TERMINATED, quietened, say
from fewshot.commands.run_options import (
    add_run_options,
    check_run_options,
    check_seed,
    checkpoint_file,
    without_first_weights,
)
from fewshot.files import LAST, checkpoints_of, expanded, relative
from fewshot.runs.checkpointing import run_checkpoints
from fewshot.runs.folder import hand_round, new_run_folder, remove_unless_begun, unfinished, unfinished_run
from fewshot.runs.launch import check_processes, is_launched_first
from fewshot.runs.log import RunLog, lines_to_keep
from fewshot.runs.predictions import PredictionWriter
from fewshot.runs.record import RunRecord
from fewshot.runs.results import ResultsWriter
from fewshot.runs.resumption import AtomicCheckpointIO, Resumption, data_differences
from fewshot.runs.wandb_callbacks import WandbPictures, WandbReport
from fewshot.runs.wandb_session import placed, wandb_session
from fewshot.training.checkpoints import check_checkpoint


class FewShotCLI(LightningCLI):
    """LightningCLI with one command's parser, a folder for every run, and the best checkpoint tested after fit."""

    def __init__(self, command: str, **kwargs: Any) -> None:
        self.command = command
        self.run_folder: Path | None = None
        self.resumed: Path | None = None
        self.artifacts = False
        self.record = RunRecord(command, kwargs["args"])
        ended_by: BaseException | None = None
        try:
            with contextlib.ExitStack() as self.session:
                super().__init__(**kwargs)
        except BaseException as error:
            ended_by = error
            raise
        finally:
            self.record.close(ended_by)
            remove_unless_begun(self.run_folder, begun=self.record.begun)

    def __deepcopy__(self, memo: dict[int, Any]) -> FewShotCLI:
        """Itself: a model that is copied in training holds what made its optimiser, and by it the command."""
        return self

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command asked for, and which arguments of the Trainer's method are no options."""
        loaders = {"train_dataloaders", "val_dataloaders"} if self.command == "fit" else {"dataloaders"}
        return {self.command: {"model", "datamodule", "weights_only", "verbose", "return_predictions", *loaders}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options beside those of trainer, model and data."""
        add_run_options(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; LightningCLI would warn where a program with arguments of its own hands arguments over."""
        self.config = parser.parse_args(args)
        check_seed(self.config[self.command].get("seed_everything"))

    def _parse_ckpt_path(self) -> None:
        """Not what LightningCLI does: a checkpoint's hyper-parameters would silently win over options given here."""

    def before_instantiate_classes(self) -> None:
        """Find the checkpoint, which replaces the weights that the backbone starts from; give the run a folder."""
        config = self.config[self.subcommand]
        check_run_options(self.command, config)
        experiment = expanded(config["runs"]) / config["experiment"]
        if config.get("ckpt_path") == "auto":
            if self.command != "fit":
                raise ValueError(
                    f"ckpt_path=auto continues an unfinished fit; for {self.command} give a checkpoint file, or the "
                    "folder of a run or experiment"
                )
            # not in the config: it is stored with the run, and is to start others
            self.run_folder, config["ckpt_path"] = unfinished_run(experiment), None
            self.resumed = Path(checkpoint_file(str(checkpoints_of(self.run_folder)[-1])))
            step = read_checkpoint(self.resumed)["global_step"]
            self.save_config_kwargs |= {"config_filename": f"config_resumed_at_step_{step}.yaml", "overwrite": True}
        elif config.get("ckpt_path"):
            config["ckpt_path"] = checkpoint_file(config["ckpt_path"])
        if config.get("ckpt_path") or self.resumed is not None:
            without_first_weights(config)
        self.run_folder = self.run_folder or new_run_folder(experiment)
        self.session.enter_context(wandb_session(self.run_folder))
        self.given_logger = config["trainer"].get("logger")
        config["trainer"]["logger"], self.artifacts = placed(
            None if config["trainer"].get("fast_dev_run") else self.given_logger,  # which logs nowhere
            folder=self.run_folder,
            command=self.command,
        )

    def after_instantiate_classes(self) -> None:
        """Refuse a checkpoint of another model before anything is written; say which options differ from it."""
        checkpoint = str(self.resumed or self._get(self.config, "ckpt_path") or "")
        if not checkpoint or "://" in checkpoint:
            return
        training = self.command == "fit"
        differences = check_checkpoint(self.model, Path(checkpoint), training=training)
        if training:
            data = self._get(self.config, "data").as_dict()
            differences |= data_differences(data, Path(checkpoint), same_run=self.resumed is not None)
        self.record.content["differs_from_checkpoint"] = differences
        for key, values in differences.items():
            name = key if key.split(".")[0] == "data" else f"model.{key}"
            say(f"differs from the checkpoint: {name} is {values['here']}, there {values['there']}{values['note']}")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer that logs to the run folder, keeps best and last checkpoint there, and writes results."""
        assert self.run_folder is not None
        self.config[self.subcommand]["trainer"]["logger"] = self.given_logger  # config.yaml serves other runs too
        config = self._get(self.config_init, "trainer")
        loggers = [logger for logger in as_list(config.get("logger")) if isinstance(logger, Logger)]
        experiment = self.run_folder.parent
        csv = RunLog(save_dir=experiment.parent, name=experiment.name, version=self.run_folder.name)
        earlier: list[dict[str, str]] = []
        if self.resumed is not None and is_launched_first():
            earlier = lines_to_keep(self.run_folder / "metrics.csv", read_checkpoint(self.resumed))
            csv.begin_with(earlier)
        self.results, self.predictions = ResultsWriter(), PredictionWriter()
        wandb = [WandbReport(checkpoints=self.artifacts, earlier=earlier), WandbPictures()]
        tests = self.command == "fit" and self._get(self.config, "test_after_fit")
        tell: list[Callback] = [TellRunFolder(self, csv), *([FindTestSplit()] if tests else [])]
        self.checkpoints = []
        self.trainer_defaults["callbacks"] = [*tell, self.record, self.results, self.predictions, *wandb]
        if config.get("enable_checkpointing") is not False:
            self.checkpoints = run_checkpoints(self.run_folder)
            options = [self._get(self.config, f"checkpoint_every_n_{unit}") for unit in ("steps", "minutes")]
            self.trainer_defaults["callbacks"] += [*self.checkpoints, Resumption(self.run_folder / LAST, *options)]
        plugins = as_list(config.get("plugins"))
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        # where SLURM requeues, Lightning saves a checkpoint here, and takes up one that it finds here
        root = config.get("default_root_dir") or self.run_folder
        try:
            trainer = super().instantiate_trainer(
                logger=[csv, *loggers], plugins=plugins, default_root_dir=root, **kwargs
            )
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise ValueError(f"trainer: {error}") from error
        check_processes(trainer)
        return trainer

    def fit(self, model: LightningModule, **kwargs: Any) -> None:
        """Train, then test the best checkpoint (the last one where nothing was validated)."""
        assert self.run_folder is not None
        if self.resumed is not None:
            kwargs["ckpt_path"] = str(self.resumed)
            say(f"continuing {self.run_folder}")
        with unfinished(self.run_folder):
            try:
                self._fit_and_test(model, **kwargs)
            except SystemExit as stop:
                if not isinstance(stop, SIGTERMException) and stop.code != TERMINATED:
                    raise
                if checkpoints_of(self.run_folder):
                    say(f"\nthe same command with --ckpt_path auto continues {self.run_folder}")
                raise SystemExit(TERMINATED) from stop

    def _fit_and_test(self, model: LightningModule, **kwargs: Any) -> None:
        assert self.run_folder is not None
        self.trainer.fit(model, **kwargs, weights_only=True)
        if getattr(self.trainer, "fast_dev_run", False) or self.trainer.interrupted:
            return
        if not self.record.trained:
            self._nothing_trained(kwargs.get("ckpt_path"))
        checkpoint = next((x.best_model_path for x in self.checkpoints if x.best_model_path), "")
        if self.checkpoints and not self.checkpoints[0].best_model_path:
            say("nothing was validated: there is no best.ckpt, and the last weights are tested")
        if self._get(self.config, "test_after_fit"):
            hand_round(checkpoint, self.trainer)
            datamodule = kwargs.get("datamodule")
            with without_averaging(self.trainer):
                self.trainer.test(model, datamodule, ckpt_path=checkpoint or None, weights_only=True, verbose=False)
            say(self.results.table or "nothing was tested: trainer.limit_test_batches=0")
        say(f"\nrun written to {self.run_folder}")
        if checkpoint:
            options = ["--config", f"{self.run_folder}/config.yaml", "--ckpt_path", relative(checkpoint)]
            say(f"next: {shlex.join(['python', '-m', 'fewshot', 'predict', *options])}")

    def _nothing_trained(self, checkpoint: str | None) -> None:
        """Say that a run which is continued was trained already; ValueError for any other."""
        limits = {"max_epochs": self.trainer.max_epochs, "max_steps": self.trainer.max_steps}
        ends = " and ".join(f"trainer.{name}={value}" for name, value in limits.items() if value not in (None, -1))
        if self.resumed is not None:
            say(f"nothing is left to train with {ends}: the run is tested as it is")
            return
        from_where = f" from {checkpoint}, which has come so far already" if checkpoint else ""
        raise ValueError(
            f"nothing was trained{from_where}: {ends} leaves nothing to do; raise it, or measure a model by `test`"
        )

    def validate(self, **kwargs: Any) -> None:
        """Validate a checkpoint."""
        say_if_untrained(kwargs)
        self.trainer.validate(**kwargs, weights_only=True)

    def test(self, **kwargs: Any) -> None:
        """Test a checkpoint."""
        say_if_untrained(kwargs)
        self.trainer.test(**kwargs, weights_only=True, verbose=False)
        say(self.results.table)
        say(f"\nresults written to {self.run_folder}/results.json")

    def predict(self, **kwargs: Any) -> None:
        """Write the predictions of the test split's episodes."""
        say_if_untrained(kwargs)
        self.trainer.predict(**kwargs, weights_only=True, return_predictions=False)
        say(f"\npredictions written to {self.predictions.path}")


def say_if_untrained(asked: dict[str, Any]) -> None:
    """Say that there is no checkpoint, where there is something to train."""
    if asked.get("ckpt_path") is None and any(parameter.requires_grad for parameter in asked["model"].parameters()):
        say("no --ckpt_path given: the method is tested untrained")


def run(arguments: list[str]) -> None:
    """Run one command.

    Args:
        arguments: the command and its options.

    Raises:
        Exception: of any kind; `fewshot.commands.refusals.refusal_of` tells those that a person can mend.
    """
    check_configs(arguments)
    jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    with quietened(training=arguments[0] == "fit"):
        FewShotCLI(
            command=arguments[0],
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            args=arguments,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            parser_class=Parser,
            parser_kwargs={"parser_mode": "omegaconf+"},
            seed_everything_default=0,
            save_config_kwargs={"overwrite": False},
            trainer_defaults={"use_distributed_sampler": False},
        )


def as_list(value: Any) -> list[Any]:
    """None and booleans as an empty list, one thing as a list of it."""
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
