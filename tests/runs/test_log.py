"""metrics.csv: never emptied, and begun with the lines of the run that is continued."""

from __future__ import annotations

import csv
import errno
import os
from pathlib import Path

import pytest

from fewshot.runs.log import RunLog


def log(folder: Path) -> RunLog:
    (folder / "tiny" / "version_0").mkdir(parents=True, exist_ok=True)
    (folder / "tiny" / "version_0" / "run.json").touch()
    return RunLog(save_dir=folder, name="tiny", version="version_0")


def written(folder: Path) -> list[dict[str, str]]:
    with (folder / "tiny" / "version_0" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_new_column_keeps_the_lines_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = log(tmp_path)
    logger.log_metrics({"b": 1.0}, 0)
    logger.save()
    logger.log_metrics({"a": 2.0}, 1)

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            logger.save()
        logger.finalize("failed")
    assert written(tmp_path) == [{"b": "1.0", "step": "0"}]
    logger.finalize("success")
    assert written(tmp_path) == [{"a": "", "b": "1.0", "step": "0"}, {"a": "2.0", "b": "", "step": "1"}]
    assert sorted(os.listdir(tmp_path / "tiny" / "version_0")) == ["metrics.csv", "run.json"]


def test_a_continued_log_is_there_until_it_is_replaced(tmp_path: Path) -> None:
    first = log(tmp_path)
    for step in range(3):
        first.log_metrics({"a": float(step)}, step)
    first.save()
    before = written(tmp_path)
    again = log(tmp_path)
    again.begin_with([{"a": "0.0", "step": "0"}])
    assert written(tmp_path) == before  # killed now, it would still be whole
    again.log_metrics({"a": 9.0}, 1)
    again.save()
    assert written(tmp_path) == [{"a": "0.0", "step": "0"}, {"a": "9.0", "step": "1"}]


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    logger = log(tmp_path)
    logger.log_metrics({"a": 1.0}, 0)
    (tmp_path / "tiny" / "version_0").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"version_0 was removed or moved .* --ckpt_path auto"):
        logger.save()
    assert os.listdir(tmp_path / "tiny") == []
