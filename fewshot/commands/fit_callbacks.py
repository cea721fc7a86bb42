"""What a command does in the course of its Trainer's work, beside what is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning.callbacks
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger

from fewshot.data.picture_datamodule import PictureDataModule
from fewshot.data.ranks import gathered


class HasRunFolder(Protocol):
    """A command that writes into a folder of its run."""

    run_folder: Path | None


class TellRunFolder(Callback):
    """Tells all ranks the run folder that the first one has made, as soon as they have found each other.

    Args:
        cli: whose run folder it is.
        logger: which logs there.
    """

    def __init__(self, cli: HasRunFolder, logger: CSVLogger) -> None:
        self.cli, self.logger = cli, logger

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take over the first rank's folder."""
        folder = Path(trainer.strategy.broadcast(str(self.cli.run_folder)))
        self.cli.run_folder, self.logger._version = folder, folder.name


class FindTestSplit(Callback):
    """Ends what cannot be tested before it is trained: without the test split, or with too few pictures in it."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for the test episodes, on all ranks together."""
        data: Any = getattr(trainer, "datamodule", None)
        is_trial = bool(getattr(trainer, "fast_dev_run", False))
        if trainer.limit_test_batches and not is_trial and isinstance(data, PictureDataModule):
            gathered(lambda: data.sampler("test") is None)


@contextmanager
def without_averaging(trainer: Trainer) -> Iterator[None]:
    """Within it, a checkpoint gives the averaged weights, by which it was chosen, where training averages them.

    Lightning's WeightAveraging would go on with the weights of before the average, as a training that is continued has
    to.
    """
    averaging: Any = getattr(pytorch_lightning.callbacks, "WeightAveraging", ())
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    trainer.callbacks = [one for one in callbacks if not isinstance(one, averaging)]  # type: ignore[attr-defined]
    try:
        yield
    finally:
        trainer.callbacks = callbacks  # type: ignore[attr-defined]
