"""A config of seconds, for a folder with pictures in it; its newest run; and the line by which a command is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.commands import main

CONFIG = """
experiment: tiny
model:
  class_path: FewShotModule
  init_args:
    backbone: {name: conv4, image_size: 28}
    method:
      class_path: SIB
      init_args:
        gradient:
          class_path: MLPGradient
          init_args: {n_way: "${data.init_args.n_way}"}
        n_steps: 2
data:
  class_path: EpisodicDataModule
  init_args:
    dataset:
      class_path: ImageFolderSplits
      init_args: {root: pictures, image_size: 28}
    n_way: 7
    n_query: 2
    tasks_per_batch: 2
    train_episodes: 4
    val_episodes: 3
    test_episodes: 5
trainer:
  max_epochs: 2
  log_every_n_steps: 1
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
"""
PLAIN = CONFIG.replace('"${data.init_args.n_way}"', "7")
"""Without the interpolation, which takes half the time of parsing it."""
PRETRAINING = """
experiment: pretraining
model:
  class_path: PretrainModule
  init_args:
    n_classes: 10
    backbone: {name: conv4, image_size: 28}
data:
  class_path: ClassDataModule
  init_args:
    dataset:
      class_path: ImageFolderSplits
      init_args: {root: pictures, image_size: 28}
    batch_size: 10
    n_query: 2
    val_episodes: 3
    test_episodes: 4
trainer:
  max_epochs: 2
  log_every_n_steps: 1
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
"""


def newest(experiment: Path) -> Path:
    """The latest version of an experiment."""
    return max(experiment.glob("version_*"), key=lambda path: int(path.name.split("_")[1]))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which these arguments are refused."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    assert "Traceback" not in lines[0] and "Subtypes" not in lines[0] and "<class '" not in lines[0]
    return lines[0].removeprefix("error: ")
