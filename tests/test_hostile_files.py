"""What strangers may send: at least 60 hostile files run no code, start no program, and end in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import hostile
import pytest
import torch
from hostile import Outcome, checkpoint, tried, watched, working_directory
from hostile_files import attacks

ATTACKS = {attack.name: attack for attack in attacks()}
ONE_OF_A_KIND = (
    *("checkpoint: method", "checkpoint: os.system in a checkpoint", "checkpoint: os.system in an old checkpoint"),
    *("checkpoint: bytearray of gigabytes", "checkpoint: packed zeros", "checkpoint: tensors larger than their parts"),
    *("checkpoint: a list in itself", "state: complex weights", "state: a temperature near 0"),
    *("saved model: a model on the network", "saved classifier: a classifier with a stranger's method"),
    *("picture: PostScript as a JPEG", "picture: a pipe", "picture: a BMP that says 2 gigapixels"),
    *("array: an array of objects", "CIFAR-100 that is another pickle"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with what the files need."""
    folder = tmp_path_factory.mktemp("hostile")
    working_directory(folder)
    torch.save(checkpoint(), folder / "good.ckpt")
    return folder


def test_there_are_enough() -> None:
    assert len(ATTACKS) >= 60


@pytest.mark.filterwarnings("ignore:.*decompression bomb.*")
@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_one_of_every_kind(name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    attack = ATTACKS[name]
    outcome = tried(next(iter(attack.ways.values())), attack.make(tmp_path), place)
    assert not outcome.faults and outcome.said, outcome


def test_what_no_file_may_cause_is_seen(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched() as seen:
        subprocess.run([sys.executable, "-c", ""], check=True)
    assert seen and seen[0].startswith("subprocess.Popen")
    assert tried(lambda _: os.system("true"), None, place).faults
    monkeypatch.setattr(hostile, "MEBIBYTES", 64)
    assert tried(lambda _: bytearray(b"x") * 2**28, None, place).faults or not Path("/proc/self/clear_refs").exists()
    monkeypatch.setattr(hostile, "SECONDS", 0.05)
    assert "a traceback: TimeoutError: it hangs" in tried(lambda _: time.sleep(9), None, place).faults
    assert tried(lambda _: {}["x"], None, place).faults == ["a traceback: KeyError: 'x'"]


@pytest.mark.slow
def test_every_file_by_every_way(tmp_path: Path) -> None:
    tests = Path(__file__).parent
    paths = {"PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}", "FEWSHOT_CACHE": str(tmp_path / "cache")}
    (tmp_path / "work").mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", "hostile", str(tmp_path / "work")],
        env={**os.environ, **paths},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    faults = {}
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    for name, is_refused, *outcome in lines:
        found = Outcome(*outcome)
        if found.faults or (is_refused and not found.said):
            faults[name] = found
    assert not faults
    assert len(lines) > 400
