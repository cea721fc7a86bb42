"""kill -9 and a full disk at random moments: nothing is lost, nothing is left behind, one line is said."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from continued_runs import assert_same_end, process, write_configs

from fewshot.files import LAST, UNFINISHED

MANY = 20
FEW = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_pictures: Callable[..., None]) -> Iterator[Path]:
    """A working directory with pictures and the config."""
    path = tmp_path_factory.mktemp("ends")
    write_pictures(path / "pictures", classes=6, size=28)
    write_configs(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(sys, "path", [str(path), *sys.path])
        yield path


def command(runs: str, *more: str) -> list[str]:
    return ["fit", "--config", "tiny.yaml", "--runs", runs, *more]


@pytest.fixture(scope="module")
def whole(folder: Path) -> tuple[Path, float, int]:
    """A run that was left alone, how many seconds it took, and how often it wrote."""
    for _ in range(2):  # the second one finds everything imported and decoded
        run = process(command("runs_whole"), folder / "whole.txt")
        begun = time.monotonic()
        run.start()
        run.join(300)
        assert run.exitcode == 0, (folder / "whole.txt").read_text()
    seconds = time.monotonic() - begun
    return folder / "runs_whole" / "tiny" / "version_0", seconds, int((folder / "whole.txt").read_text().split()[-1])


def goes_on(runs: str, output: Path) -> Path:
    """The folder of the run, once what has ended has been continued, or begun anew where there was no checkpoint."""
    (version,) = Path(runs, "tiny").glob("version_*") if Path(runs, "tiny").is_dir() else [Path(runs, "tiny/version_0")]
    if version.is_dir() and not (version / UNFINISHED).exists() and (version / "results.json").exists():
        return version
    is_resumed = (version / LAST).is_file()
    again = process(command(runs, *(["--ckpt_path", "auto"] if is_resumed else [])), output)
    again.start()
    again.join(300)
    assert again.exitcode == 0, output.read_text()
    return version if is_resumed else max(Path(runs, "tiny").glob("version_*"))


def check_end(run: Path, whole: Path) -> None:
    assert_same_end(run, whole)
    assert list(run.rglob("*.partial")) == []


@pytest.mark.parametrize(
    "times", [pytest.param(FEW, marks=pytest.mark.slow), pytest.param(MANY, marks=pytest.mark.weekly)]
)
def test_kills_at_random_moments(times: int, folder: Path, whole: tuple[Path, float, int]) -> None:
    """Each run is killed up to three times; between the kills it is continued."""
    moments = random.Random(times)
    for number in range(times):
        runs = f"runs_{times}_killed_{number}"
        killed = process(command(runs), folder / "killed.txt")
        for _ in range(moments.choice([1, 1, 2, 3])):
            killed.start()
            time.sleep(moments.uniform(0, whole[1]))
            with contextlib.suppress(ProcessLookupError):  # it had come to its end
                os.kill(killed.pid, signal.SIGKILL)
            killed.join(60)
            folders = list(Path(runs, "tiny").glob("version_*")) if Path(runs, "tiny").is_dir() else []
            if len(folders) != 1 or not (folders[0] / UNFINISHED).exists() or not (folders[0] / LAST).exists():
                break
            killed = process(command(runs, "--ckpt_path", "auto"), folder / "killed.txt")
        check_end(goes_on(runs, folder / "again.txt"), whole[0])


@pytest.mark.parametrize(
    "times", [pytest.param(FEW, marks=pytest.mark.slow), pytest.param(MANY, marks=pytest.mark.weekly)]
)
def test_a_full_disk_at_random_moments(times: int, folder: Path, whole: tuple[Path, float, int]) -> None:
    moments = random.Random(times)
    for number in range(times):
        runs = f"runs_{times}_full_{number}"
        full = process(command(runs), folder / "full.txt", full_from=moments.randint(1, whole[2]))
        full.start()
        full.join(300)
        said = (folder / "full.txt").read_text().splitlines()
        assert full.exitcode == 2, said
        errors = [line for line in said if line.startswith("error: ")]
        assert len(errors) == 1 and re.search("No space left on device", errors[0]), said
        assert not any("Traceback" in line for line in said)
        assert list(Path(runs).rglob("*.partial")) == []
        check_end(goes_on(runs, folder / "again.txt"), whole[0])
