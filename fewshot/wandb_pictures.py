"""Weights & Biases: what a training looks at and what became of it, as pictures.

The command line adds `WandbPictures` to the trainer beside `fewshot.wandb_logging.WandbReport`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from fewshot.data.class_datamodule import ClassDataModule
from fewshot.data.datamodule import EpisodicDataModule
from fewshot.drawings.plots import accuracy_per_step_figure, png
from fewshot.episode import Episode
from fewshot.module import FewShotModule
from fewshot.pretrain import PretrainModule
from fewshot.training_pictures import batch_picture, episode_picture, feature_map
from fewshot.wandb_logging import wandb_runs


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
        data = getattr(trainer, "datamodule", None)
        if trainer.ckpt_path or not wandb_runs(trainer):
            return
        if isinstance(data, ClassDataModule):
            self._log(trainer, {"train/batch": batch_picture(data)})
        elif isinstance(data, EpisodicDataModule):
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
        data = getattr(trainer, "datamodule", None)
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
