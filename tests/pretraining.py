"""Pre-training on blobs: the data, a Trainer that logs every step and writes nothing, the loss of one batch."""

from __future__ import annotations

from typing import Any

from blobs import Blobs
from blobs import trainer as silent
from pytorch_lightning import Trainer
from torch import Tensor

from fewshot import ClassDataModule, PretrainModule


def data(**options: Any) -> ClassDataModule:
    sizes: dict[str, Any] = {"batch_size": 16, "n_query": 2, "val_episodes": 30, "test_episodes": 20}
    return ClassDataModule(Blobs(n_pictures=12), **{**sizes, **options})


def trainer(**options: Any) -> Trainer:
    return silent(**{"log_every_n_steps": 1, **options})


def loss_of(module: PretrainModule, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The training loss of one batch, outside of a Trainer."""
    module._trainer = trainer()
    module._trainer.log_every_n_steps = 10**6
    module._trainer.fit_loop.max_batches = 10**6  # no step is logged
    return module.training_step(batch, 0)
