"""Several processes give what one gives, to the last digit."""

import subprocess
import sys
from pathlib import Path

import pytest

QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart.yaml"


def fewshot(*arguments, folder):
    """Run the command line in a process of its own, which starts the further ones."""
    command = [sys.executable, "-m", "fewshot", *map(str, arguments), "--trainer.enable_progress_bar", "false"]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_train_and_test_like_one(tmp_path):
    few = [
        "--data.train_episodes",
        16,
        "--data.val_episodes",
        21,
        "--data.test_episodes",
        51,
        "--trainer.max_epochs",
        2,
    ]
    two = ["--trainer.accelerator", "cpu", "--trainer.strategy", "ddp", "--trainer.devices", 2]
    fewshot("fit", "--config", QUICKSTART, "--runs", "two", *few, *two, folder=tmp_path)
    run = tmp_path / "two" / "quickstart" / "version_0"
    fewshot("test", "--config", QUICKSTART, "--runs", "one", "--ckpt_path", run, *few, folder=tmp_path)
    one = tmp_path / "one" / "quickstart" / "version_0" / "episodes.csv"
    assert len(one.read_text().splitlines()) == 52
    assert one.read_text() == (run / "episodes.csv").read_text()
