"""One thread for batches that are too small to share out: threads would wait for each other longer than they work."""

from __future__ import annotations

import os
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from fewshot.episode import Episode

SHARED = 2**16
"""Numbers of a batch's features from which on it is shared out: two tasks of 80 pictures, D = 640."""
OF_THE_USER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class FewThreads(Callback):
    """Lets small batches of features have one of the processor's threads, and all others as many as there were.

    Nothing is done but on a CPU, nor where the environment says how many threads there are to be. What there was before
    comes back at the end of every loop, and where one ends in an error.
    """

    def __init__(self) -> None:
        self._usual: int | None = None

    def suit(self, batch: Any) -> None:
        """Set the number of threads for a batch."""
        small = (
            isinstance(batch, Episode)
            and batch.holds_features
            and batch.query.device.type == "cpu"
            and batch.support.numel() + batch.query.numel() < SHARED
        )
        if not small or any(name in os.environ for name in OF_THE_USER):
            self.restore()
        elif self._usual is None:
            self._usual = torch.get_num_threads()
            torch.set_num_threads(1)

    def restore(self) -> None:
        """As many threads as there were."""
        if self._usual is not None:
            torch.set_num_threads(self._usual)
            self._usual = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.suit(batch)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.suit(batch)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.suit(batch)

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.suit(batch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.restore()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.restore()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.restore()

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.restore()
