"""metrics.csv: what was logged, whole at any moment, and begun with the lines of the run that is continued."""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment

from fewshot.files import WholeFile
from fewshot.runs.folder import check_there


class _Lines(ExperimentWriter):
    """Lightning's writer, which deletes the file at first and empties it where a new column comes; this one replaces it
    by a longer one.
    """

    def __init__(self, log_dir: str) -> None:
        self.metrics: list[dict[str, Any]] = []
        self.written: list[dict[str, Any]] = []
        self.log_dir, self.hparams = log_dir, {}
        Path(log_dir).mkdir(parents=True, exist_ok=True)

    def save(self) -> None:
        """Write all lines, if there are new ones."""
        if not self.metrics:
            return
        lines = [*self.written, *self.metrics]
        check_there(Path(self.log_dir))
        with WholeFile(Path(self.log_dir) / self.NAME_METRICS_FILE) as file:
            writer = csv.DictWriter(file, fieldnames=sorted({name for line in lines for name in line}))
            writer.writeheader()
            writer.writerows(lines)
        self.written, self.metrics = lines, []


class RunLog(CSVLogger):
    """Lightning's CSVLogger, whose file is there whole or not at all, whatever kills the run or fills the disk."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer."""
        if self._experiment is None:
            self._experiment = _Lines(self.log_dir)
        return self._experiment

    def begin_with(self, lines: list[dict[str, str]]) -> None:
        """Let the log begin with these lines."""
        self.experiment.written = list(lines)

    def finalize(self, status: str) -> None:
        """Write what is left; what else is wrong with a run that has failed has been said."""
        with contextlib.suppress(*((OSError, ValueError) if status == "failed" else ())):
            super().finalize(status)


def lines_to_keep(metrics: Path, checkpoint: dict[str, Any]) -> list[dict[str, str]]:
    """Lines of a metrics.csv that were written before the checkpoint; those after it will be written again."""
    if not metrics.is_file():
        return []
    step = checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"]
    with open(metrics, newline="", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if (line.get("step") or "").isdigit()]
    return [{name: value for name, value in line.items() if value} for line in lines if int(line["step"]) < step]
