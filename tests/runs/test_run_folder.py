"""Run folders: numbered, found again, held by one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fewshot.files import LAST, UNFINISHED, checkpoints_of
from fewshot.runs.folder import new_run_folder, remove_unless_begun, unfinished, unfinished_run


def begun(folder: Path, *, mark: bool = True, checkpoint: bool = True) -> Path:
    (folder / LAST).parent.mkdir(parents=True)
    if checkpoint:
        (folder / LAST).touch()
    if mark:
        (folder / UNFINISHED).touch()
    return folder


def test_versions_are_counted_by_number(tmp_path):
    assert new_run_folder(tmp_path / "new") == tmp_path / "new" / "version_0"
    for name in ("version_2", "version_10", "version_x", "other"):
        (tmp_path / "old" / name).mkdir(parents=True)
    assert new_run_folder(tmp_path / "old").name == "version_11"


def test_a_run_that_was_refused_leaves_nothing_and_others_stay(tmp_path):
    folder = new_run_folder(tmp_path / "runs" / "experiment")
    for name in ("config.yaml", UNFINISHED):
        (folder / name).touch()
    remove_unless_begun(folder, begun=False)
    assert not (tmp_path / "runs").exists()
    folder = new_run_folder(tmp_path / "runs" / "experiment")
    (folder / "config.yaml").touch()
    remove_unless_begun(folder, begun=True)
    (folder / "checkpoints").mkdir()
    remove_unless_begun(folder, begun=False)
    assert len(list(folder.iterdir())) == 2


def test_the_newest_unfinished_run_with_a_checkpoint(tmp_path):
    begun(tmp_path / "version_1")
    begun(tmp_path / "version_2")
    begun(tmp_path / "version_10", mark=False)
    assert unfinished_run(tmp_path) == tmp_path / "version_2"
    begun(tmp_path / "version_11", checkpoint=False)
    assert unfinished_run(tmp_path) == tmp_path / "version_2"


def test_a_later_checkpoint_of_a_requeued_job_goes_first(tmp_path):
    run = begun(tmp_path / "version_0")
    os.utime(run / LAST, ns=(1, 1))
    (run / "hpc_ckpt_1.ckpt").touch()
    assert checkpoints_of(run) == [run / LAST, run / "hpc_ckpt_1.ckpt"]


def test_what_became_of_the_others_is_told(tmp_path):
    begun(tmp_path / "version_0", mark=False)
    begun(tmp_path / "version_1", checkpoint=False)
    with pytest.raises(FileNotFoundError, match=r"version_1 was stopped before its first.*version_0 is finished"):
        unfinished_run(tmp_path)


def test_the_mark_goes_with_the_end_and_stays_after_an_error(tmp_path):
    with unfinished(tmp_path):
        assert (tmp_path / UNFINISHED).exists()
    assert not (tmp_path / UNFINISHED).exists()
    with pytest.raises(KeyError), unfinished(tmp_path):
        raise KeyError
    assert (tmp_path / UNFINISHED).exists()


@pytest.mark.slow
def test_a_run_that_another_process_writes_is_refused(tmp_path):
    program = (
        "import sys, pathlib; from fewshot.runs.folder import unfinished\n"
        "with unfinished(pathlib.Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "in\n"
        with pytest.raises(ValueError, match=f"is being written by process {other.pid}"), unfinished(tmp_path):
            pass
        assert (tmp_path / UNFINISHED).read_text() == f"{other.pid}\n"
        other.kill()
    with unfinished(tmp_path):
        pass
    assert not (tmp_path / UNFINISHED).exists()
