"""Weights & Biases: what a run records there beyond Lightning's metrics, and where wandb writes.

The command line gives every `WandbLogger` of a config its run's folder, a name and an id (`placed`), opens a
`wandb_session` around the command, and adds `WandbReport` to the trainer. wandb is imported when a run starts. Nothing
of this touches metrics.csv, which is written whatever the loggers are.
"""

from __future__ import annotations

import copy
import json
import netrc
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
import yaml
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from fewshot.episode import Episode

COLUMNS = (
    *("episode", "role", "picture", "file", "label"),
    *("predicted before", "confidence before", "predicted", "confidence", "correct"),
)
NO_UPLOAD = ("offline", "dryrun", "disabled")
ID = Path("wandb") / "id"
# Where wandb would otherwise write: below the home folder.
FOLDERS = {"WANDB_CACHE_DIR": "cache", "WANDB_DATA_DIR": "data"}


class WandbReport(Callback):
    """Gives the run on W&B its config, its results and a table of episodes; its checkpoints where they are asked for.

    Config: everything that the run's config.yaml holds. Summary: everything that results.json holds. Table, under
    test/episodes or predict/episodes: the support and query pictures of a few episodes, those of the first rank, with
    the queries' labels, predictions and the confidence in them (the largest probability) before and after refinement.
    Without a WandbLogger, or where it is disabled, it does nothing.

    Args:
        n_episodes: how many episodes the table shows.
        checkpoints: whether best.ckpt and last.ckpt become artifacts of the run when training ends.
    """

    def __init__(self, n_episodes: int = 3, checkpoints: bool = False) -> None:
        self.n_episodes, self.checkpoints = n_episodes, checkpoints
        self._rows: list[list[Any]] = []
        self._shown = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._record_config(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._record_config(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._record_config(trainer)
        self._rows, self._shown = [], 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._record_config(trainer)
        self._rows, self._shown = [], 0

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Predict the first episodes once more, for a test keeps nothing but counts."""
        if self._shown >= self.n_episodes or not wandb_runs(trainer) or not isinstance(batch, Episode):
            return
        with torch.random.fork_rng(), trainer.precision_plugin.forward_context():
            prediction = pl_module.predict_step(batch, batch_idx)
        self._add_rows(trainer, prediction)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take the first episodes of a prediction."""
        if self._shown < self.n_episodes and wandb_runs(trainer) and isinstance(outputs, dict):
            self._add_rows(trainer, outputs)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the table, and the results that are by now in results.json."""
        folder = trainer.log_dir  # asks all ranks
        self._log_table(trainer, "test/episodes")
        for run in wandb_runs(trainer):
            if folder is not None and (file := Path(folder) / "results.json").is_file():
                run.summary.update(json.loads(file.read_text(encoding="utf-8")))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the table."""
        self._log_table(trainer, "predict/episodes")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log best.ckpt and last.ckpt, if asked to, as two versions of one artifact with these names as aliases."""
        for run in wandb_runs(trainer) if self.checkpoints else ():
            import wandb

            callbacks = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
            for callback in callbacks:
                path = callback.best_model_path
                if path and Path(path).is_file():
                    artifact = wandb.Artifact(name=f"model-{run.id}", type="model", metadata=described(callback))
                    artifact.add_file(path, name=Path(path).name)
                    run.log_artifact(artifact, aliases=[Path(path).stem, "latest"])

    def _record_config(self, trainer: Trainer) -> None:
        """Copy config.yaml, which Lightning has written when the command's own work starts; keep the run's id."""
        folder = trainer.log_dir  # asks all ranks
        for run in wandb_runs(trainer):
            if folder is not None and (file := Path(folder) / "config.yaml").is_file():
                config = yaml.safe_load(file.read_text(encoding="utf-8"))
                run.config.update(config, allow_val_change=True)
                (Path(folder) / ID).parent.mkdir(exist_ok=True)
                (Path(folder) / ID).write_text(run.id, encoding="utf-8")

    def _add_rows(self, trainer: Trainer, prediction: dict[str, Tensor | None]) -> None:
        """The rows of the next episodes, as far as any are still wanted."""
        images = getattr(getattr(trainer, "datamodule", None), "images", None)
        if images is None or prediction["numbers"] is None or prediction["query_index"] is None:
            return  # a data module of a person's own, whose pictures we cannot read
        wanted = min(self.n_episodes - self._shown, len(prediction["numbers"]))
        for task in range(wanted):
            values = {name: None if value is None else value[task].cpu() for name, value in prediction.items()}
            self._rows += episode_rows(values, images("test"))
        self._shown += wanted

    def _log_table(self, trainer: Trainer, name: str) -> None:
        for run in wandb_runs(trainer) if self._rows else ():
            import wandb

            rows = [
                [wandb.Image(cell) if isinstance(cell, Image.Image) else cell for cell in row] for row in self._rows
            ]
            run.log({name: wandb.Table(columns=list(COLUMNS), data=rows), "trainer/global_step": trainer.global_step})


def episode_rows(values: dict[str, Any], images: Any) -> list[list[Any]]:
    """A row of COLUMNS for every support and every query picture of one episode.

    Args:
        values: one episode of what `fewshot.predictions.prediction` returns.
        images: the pictures of the split, fewshot.data.images.Images.
    """
    support, query = values["support_index"].numpy(), values["query_index"].numpy()
    names = {
        int(c): images.class_names[images.labels[i]] for i, c in zip(support, values["support_labels"], strict=True)
    }
    number, pictures = int(values["numbers"]), [picture_of(array) for array in images.read([*support, *query])]
    rows: list[list[Any]] = []
    for i, picture in zip(support, pictures, strict=False):
        label = images.class_names[images.labels[i]]
        rows.append([number, "support", picture, images.names[i], label, None, None, None, None, None])
    for q, (i, picture) in enumerate(zip(query, pictures[len(support) :], strict=True)):
        label = None if values["query_labels"] is None else names[int(values["query_labels"][q])]
        guesses: list[Any] = []
        for probabilities in (values["before"][q], values["after"][q]):
            guesses += [names[int(probabilities.argmax())], float(probabilities.max())]
        correct = None if label is None else guesses[2] == label
        rows.append([number, "query", picture, images.names[i], label, *guesses, correct])
    return rows


def picture_of(array: Tensor) -> Image.Image:
    """The picture [C, S, S] of uint8, C = 1 or 3; what wandb makes of a tensor depends on its version."""
    return Image.fromarray((array[0] if len(array) == 1 else array.permute(1, 2, 0)).numpy())


def described(checkpoint: ModelCheckpoint) -> dict[str, Any]:
    """What a checkpoint was kept for, and the score it was kept with."""
    score = checkpoint.best_model_score
    return {"monitor": checkpoint.monitor, "score": None if score is None else float(score)}


def wandb_runs(trainer: Trainer) -> list[Any]:
    """The W&B runs that this process records: those of its WandbLoggers on the first rank, unless disabled."""
    if not trainer.is_global_zero:
        return []
    runs = [logger.experiment for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    return [run for run in runs if not getattr(run, "disabled", False)]


# What the command line does before there is a trainer.


def placed(loggers: Any, *, folder: Path, command: str) -> tuple[Any, bool]:
    """The loggers' configs with what only this run knows, and whether checkpoints are to become artifacts.

    Whatever logger has a save_dir that is not set gets the run's folder. A WandbLogger gets also the name
    <experiment>/<version>, the experiment as its group, the command as its type of job, and the id kept in the folder.

    Args:
        loggers: `trainer.logger` as parsed: None, a boolean, one class with its arguments, or a list of them. It is not
            changed.
        folder: of the run.
        command: fit, validate, test or predict.

    Raises:
        ValueError: log_model=all offline; online without an API key.
    """
    loggers, artifacts = copy.deepcopy(loggers), False
    for logger in loggers if isinstance(loggers, (list, tuple)) else [loggers]:
        arguments = getattr(logger, "init_args", None)
        if arguments is None:
            continue
        if arguments.get("save_dir") == ".":
            arguments["save_dir"] = str(folder)
        if not logger["class_path"].endswith("WandbLogger"):
            continue
        mode = os.environ.get("WANDB_MODE")
        offline = bool(arguments.get("offline")) or mode in NO_UPLOAD
        if not offline:
            check_key()
        if offline and arguments.get("log_model") == "all":
            raise ValueError(
                "trainer.logger.log_model=all offline: what is uploaded later would be the checkpoints as they are by "
                "then; set log_model to true (best and last, when training ends), or offline to false"
            )
        if arguments.get("log_model") is True:
            arguments["log_model"], artifacts = False, True
        known = {"name": f"{folder.parent.name}/{folder.name}", "group": folder.parent.name, "job_type": command}
        if offline:
            known["mode"] = "disabled" if mode == "disabled" else "offline"
            be_silent()
        for name, value in known.items():
            arguments[name] = value if arguments.get(name) is None else arguments[name]
        if not arguments.get("version"):
            arguments["id"] = arguments.get("id") or kept_id(folder)
    return loggers, artifacts


def kept_id(folder: Path) -> str | None:
    """The id that the run in this folder has on W&B, so that who continues it continues it there; None for a new run.

    None also for a run of a sweep's agent, which has an id in the environment.
    """
    file = folder / ID
    return file.read_text(encoding="utf-8").strip() if file.is_file() and "WANDB_SWEEP_ID" not in os.environ else None


@rank_zero_only
def be_silent() -> None:
    """Keep wandb from writing to the screen, until the session ends, unless WANDB_SILENT says otherwise."""
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    wandb.setup()  # reads it; else the first message, on a setting that Lightning still names, would come before


def check_key() -> None:
    """ValueError where wandb would ask for an API key: a run, of a script or not, must never wait for an answer."""
    import wandb

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return
    settings = wandb.setup().settings
    host = urlsplit(settings.base_url).netloc
    if not getattr(settings, "api_key", None) and not set(netrc_machines()) & {host, "api.wandb.ai"}:
        raise ValueError(
            f"trainer.logger.offline=false but there is no API key for {host}; run `wandb login`, set WANDB_API_KEY, "
            "or leave offline at true and upload later with `wandb sync`"
        )


def netrc_machines() -> Sequence[str]:
    """Names of the machines that the user's netrc file has a password for."""
    for path in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            return [name for name, entry in netrc.netrc(os.path.expanduser(path or "")).hosts.items() if entry[2]]
        except (OSError, netrc.NetrcParseError):
            continue
    return []


@contextmanager
def wandb_session(folder: Path) -> Iterator[None]:
    """Keeps what wandb writes in <folder>/wandb, and finishes the run that was started meanwhile.

    Environment variables of the user's win. Afterwards the environment is as it was, and wandb has no process left.

    Raises:
        ValueError: in place of wandb's own errors.
    """
    names = (*FOLDERS, "WANDB_MODE", "WANDB_SILENT", "WANDB_SERVICE")
    before = {name: os.environ.get(name) for name in names}
    outer = getattr(sys.modules.get("wandb"), "run", None)
    for name, below in FOLDERS.items():
        os.environ.setdefault(name, str((folder / "wandb" / below).absolute()))
    exit_code = 1
    try:
        yield
        exit_code = 0
    except Exception as error:
        if type(error).__module__.startswith("wandb."):
            raise ValueError(f"wandb: {error}; trainer.logger.offline=true needs no network") from error
        raise
    finally:
        wandb = sys.modules.get("wandb")
        if wandb is not None and outer is None:
            if wandb.run is not None:
                wandb.run.finish(exit_code)
            wandb.teardown(exit_code)
        if outer is None and not list((folder / "wandb").glob("*run-*")):
            remove(folder / "wandb")  # no run was started, but the settings were asked for
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@rank_zero_only
def remove(folder: Path) -> None:
    """Remove a folder with all that is in it."""
    shutil.rmtree(folder, ignore_errors=True)
