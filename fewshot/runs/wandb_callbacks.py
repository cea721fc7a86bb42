"""What Weights & Biases gets of a run: results, tables of predictions, checkpoints, pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from fewshot.data.class_datamodule import ClassDataModule
from fewshot.data.episodic_datamodule import EpisodicDataModule
from fewshot.data.interface import data_of
from fewshot.drawings.plots import accuracy_per_step_figure, png
from fewshot.drawings.training import batch_picture, episode_picture, feature_map
from fewshot.episode import Episode
from fewshot.runs.wandb_session import keep_id
from fewshot.training.few_shot_module import FewShotModule
from fewshot.training.pretrain_module import PretrainModule

COLUMNS = (
    *("episode", "role", "picture", "file", "label"),
    *("predicted before", "confidence before", "predicted", "confidence", "correct"),
)


class WandbReport(Callback):
    """Gives the run on W&B its config, its results and a table of episodes; its checkpoints where they are asked for.

    Config: everything that the run's config.yaml holds. Summary: everything that results.json holds. Table, under
    test/episodes or predict/episodes: the support and query pictures of a few episodes, those of the first rank, with
    the queries' labels, predictions and the confidence in them (the largest probability) before and after refinement.
    Without a WandbLogger, or where it is disabled, it does nothing.

    Args:
        n_episodes: how many episodes the table shows.
        checkpoints: whether best.ckpt and last.ckpt become artifacts of the run when training ends.
        earlier: the lines of metrics.csv that a run begins with which is continued; offline they are logged again, so
            that its history is whole.
    """

    def __init__(
        self, n_episodes: int = 3, checkpoints: bool = False, earlier: Sequence[Mapping[str, str]] = ()
    ) -> None:
        self.n_episodes, self.checkpoints, self.earlier = n_episodes, checkpoints, earlier
        self._rows: list[list[Any]] = []
        self._shown = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the config, and what was logged before the run was stopped; wandb goes on with it by itself online."""
        self._record_config(trainer)
        for run in wandb_runs(trainer):
            for line in self.earlier if run.offline else ():
                values = {name: float(value) for name, value in line.items() if name != "step"}
                run.log({**values, "trainer/global_step": int(line["step"])})

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
                keep_id(Path(folder), run.id)

    def _add_rows(self, trainer: Trainer, prediction: dict[str, Tensor | None]) -> None:
        """The rows of the next episodes, as far as any are still wanted."""
        data = data_of(trainer)
        if data is None or prediction["numbers"] is None or prediction["query_index"] is None:
            return  # a data module of a person's own, whose pictures we cannot read
        wanted = min(self.n_episodes - self._shown, len(prediction["numbers"]))
        for task in range(wanted):
            values = {name: None if value is None else value[task].cpu() for name, value in prediction.items()}
            self._rows += episode_rows(values, data.images("test"))
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
        values: one episode of what `fewshot.training.base.prediction` returns.
        images: the pictures of the split, fewshot.data.images.Images.
    """
    support, query = values["support_index"].numpy(), values["query_index"].numpy()
    names = images.names_of_episode(support, values["support_labels"], values["after"].shape[-1])
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


class WandbPictures(Callback):
    """Gives the run on W&B the pictures of `python -m fewshot show`.

    When training starts: train/episode, the contact sheet of training episode 0 (train/batch, the first batch, in
    whole-class training); a run that is continued has it already. When a test ends: test/features, the map of its
    first episode, and test/accuracy_per_step where the method takes refinement steps. Only the first rank draws, and
    only with a WandbLogger that is not disabled and with a module and data module of this package.
    """

    def __init__(self) -> None:
        self._first: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the first step of training will look at; all ranks have by now found the pictures readable."""
        data = data_of(trainer)
        if trainer.ckpt_path or not wandb_runs(trainer):
            return
        if isinstance(data, ClassDataModule):
            self._log(trainer, {"train/batch": batch_picture(data)})
        elif isinstance(data, EpisodicDataModule) and data.trains_on_dataset:
            self._log(trainer, {"train/episode": episode_picture(data, "train", 0)})

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an earlier test left."""
        self._first = None

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the map of the first episode, with the backbone as it is tested."""
        data = data_of(trainer)
        if batch_idx or not isinstance(data, (EpisodicDataModule, ClassDataModule)) or not isinstance(batch, Episode):
            return
        if isinstance(pl_module, (FewShotModule, PretrainModule)) and wandb_runs(trainer):
            tensors = {name: value[:1] for name, value in batch._asdict().items() if name != "n_way"}
            self._first = feature_map(pl_module, trainer.precision_plugin, batch._replace(**tensors), data)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the map, and the accuracies that are by now in results.json."""
        folder = trainer.log_dir  # asks all ranks
        if not wandb_runs(trainer):
            return
        pictures = {} if self._first is None else {"test/features": png(self._first)}
        file = None if folder is None else Path(folder) / "results.json"
        results = json.loads(file.read_text(encoding="utf-8")) if file is not None and file.is_file() else {}
        if len(results.get("accuracy_per_step", ())) > 1:
            pictures["test/accuracy_per_step"] = png(accuracy_per_step_figure(results))
        self._first = None
        self._log(trainer, pictures)

    def _log(self, trainer: Trainer, pictures: dict[str, Any]) -> None:
        for run in wandb_runs(trainer) if pictures else ():
            import wandb

            images = {name: wandb.Image(picture) for name, picture in pictures.items()}
            run.log({**images, "trainer/global_step": trainer.global_step})
