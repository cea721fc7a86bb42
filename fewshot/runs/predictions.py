"""Predictions of episodes as a table: one row for every query picture."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import Tensor

from fewshot.data.interface import data_of
from fewshot.data.ranks import gathered
from fewshot.episode import PADDING
from fewshot.files import WholeFile, csv_line


class PredictionWriter(BasePredictionWriter):
    """Writes <run folder>/predictions.csv during `predict`.

    Columns: episode; picture; label (empty where not known) and predicted class by name; and for every class c of the
    episode its name and its probability before and after refinement (class_c, before_c, after_c). Episodes come in the
    order of their numbers. The file gets its name when it is complete. With several ranks each keeps the rows of its
    episodes in memory, and the first one writes them all at the end.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self._whole: WholeFile | None = None
        self._file: IO[str] | None = None
        self._kept: dict[int, str] = {}
        self.path: Path | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file.

        Raises:
            ValueError: the pictures of the data module have no names.
        """
        if data_of(trainer) is None:
            raise ValueError("predictions.csv names pictures; set data to EpisodicDataModule or ClassDataModule")
        self.path = Path(trainer.log_dir or trainer.default_root_dir) / "predictions.csv"  # log_dir asks all ranks
        self._kept, self._header_written = {}, False
        if trainer.is_global_zero:
            self._whole = WholeFile(self.path)
            self._file = self._whole.open()

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """One row for every query of every episode of the batch."""
        data = data_of(trainer)
        assert data is not None, "on_predict_start refuses others"
        images = data.images("test")
        n_way = prediction["after"].shape[-1]
        if self._file is not None and not self._header_written:
            columns = [f"{column}_{c}" for c in range(n_way) for column in ("class", "before", "after")]
            self._file.write(csv_line(["episode", "picture", "label", "predicted", *columns], "\r\n"))
            self._header_written = True
        values: dict[str, Tensor | None] = {key: None if v is None else v.cpu() for key, v in prediction.items()}
        for task in range(len(prediction["numbers"])):
            task_values: dict[str, Any] = {
                key: None if value is None else value[task].numpy() for key, value in values.items()
            }
            if int(task_values["numbers"]) == PADDING:
                continue
            classes = images.names_of_episode(task_values["support_index"], task_values["support_labels"], n_way)
            rows = []
            for q, picture in enumerate(task_values["query_index"]):
                labels = task_values["query_labels"]
                before, after = task_values["before"][q], task_values["after"][q]
                probabilities = [x for c in range(n_way) for x in (classes[c], f"{before[c]:.6f}", f"{after[c]:.6f}")]
                label = "" if labels is None else classes[labels[q]]
                row = [int(task_values["numbers"]), images.names[int(picture)], label, classes[int(after.argmax())]]
                rows.append(csv_line([*row, *probabilities], "\r\n"))
            if trainer.world_size > 1:
                self._kept[int(task_values["numbers"])] = "".join(rows)
            elif self._file is not None:
                self._file.write("".join(rows))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what the ranks have kept, close the file and give it its name."""
        parts = gathered(lambda: self._kept)
        self._kept = {}
        if self._file is not None and self._whole is not None:
            episodes = {number: text for part in parts for number, text in part.items()}
            self._file.writelines(episodes[number] for number in sorted(episodes))
            self._whole.finish()
            self._file = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no half-written file."""
        if self._whole is not None:
            self._whole.discard()
