"""Run folders, <runs>/<experiment>/version_<n>: made, found again when unfinished, held by one process at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytorch_lightning import Trainer

from fewshot.data.ranks import gathered
from fewshot.files import UNFINISHED, WholeFile, check_place, checkpoints_of, run_versions
from fewshot.runs.launch import is_launched_first

try:
    import fcntl
except ImportError:  # no POSIX: nothing tells whether another process still writes to a run
    fcntl = None  # type: ignore[assignment]


RECORD = "run.json"
"""The record of a run, which is written first and last."""
WRITTEN_BEFOREHAND = ("config.yaml", "hparams.yaml", RECORD, "wandb", UNFINISHED)
"""What is written of a run while its trainer is set up."""


def new_run_folder(experiment: Path) -> Path:
    """A new folder <experiment>/version_<n>, n one more than the highest there is; made by the first process alone.

    For the others it is a guess, which the first one's replaces before anything is written: they may have started
    before or after it was made, or see another disk.
    """
    if is_launched_first():
        check_place(experiment.resolve() / "version_0")
    number = max((version for version, _ in run_versions(experiment)), default=-1) + 1
    while is_launched_first():
        try:
            (experiment / f"version_{number}").mkdir(parents=True)
            break
        except FileExistsError:  # another run of this experiment was faster
            number += 1
    return experiment / f"version_{number}"


def remove_unless_begun(folder: Path | None, *, begun: bool) -> None:
    """Leave no trace of a run that was refused before it trained or measured anything."""
    if folder is None or not is_launched_first():
        return
    written = [] if begun or not folder.is_dir() else list(folder.iterdir())
    if all(path.name in WRITTEN_BEFOREHAND for path in written):  # else somebody's: a logger's, a continued run's
        for path in written:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (folder, *folder.parents[:2]):
        try:
            path.rmdir()
        except OSError:  # it holds something, or is gone
            return


def unfinished_run(experiment: Path) -> Path:
    """The newest version of the experiment that was begun, has a checkpoint to go on from, and is not finished.

    Raises:
        FileNotFoundError: there is none; says which versions there are and what became of them.
    """
    found = []
    for number, folder in sorted(run_versions(experiment), reverse=True):
        if not (folder / UNFINISHED).is_file():
            found.append(f"version_{number} is finished or no training")
        elif not checkpoints_of(folder):
            found.append(f"version_{number} was stopped before its first checkpoint")
        else:
            return folder
    raise FileNotFoundError(
        f"ckpt_path=auto continues an unfinished run, but {experiment} holds none "
        f"({'; '.join(found) or 'no versions at all'}); leave --ckpt_path out to start one"
    )


def check_there(folder: Path) -> None:
    """Raise ValueError where a run's record is not there any more, rather than begin another folder in its place."""
    if not (folder / RECORD).is_file():
        raise ValueError(
            f"{folder} was removed or moved while this run wrote to it, so the run is stopped; where it was moved to, "
            "the same command with --runs and --ckpt_path auto continues it"
        )


@contextmanager
def unfinished(folder: Path) -> Iterator[None]:
    """Mark a run as unfinished for as long as this lasts, and for good where it ends by an exception or a kill.

    The mark is locked by this process, so that no second one continues a run that is still going on.

    Raises:
        ValueError: another process is at work in this folder.
    """
    if not is_launched_first():
        yield
        return
    mark = folder / UNFINISHED
    with open(mark, "a+", encoding="utf-8") as file:
        if not _locked(file.fileno()):
            file.seek(0)
            raise ValueError(f"{folder} is being written by process {file.read().strip()}; wait for it, or stop it")
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        for path in folder.rglob(".*.partial"):  # of a process that was killed while it wrote
            path.unlink(missing_ok=True)
        yield
        mark.unlink(missing_ok=True)


def _locked(descriptor: int) -> bool:
    """Whether this process now holds the lock of that file; also where the file system knows no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # some network file systems have none
        return True
    return True


def hand_round(checkpoint: str, trainer: Trainer) -> None:
    """Put a copy of the first rank's checkpoint at the same place on nodes that do not see its disk."""
    path = Path(checkpoint)
    missing = gathered(lambda: bool(checkpoint) and not path.is_file())
    if not any(missing):
        return
    content: bytes = trainer.strategy.broadcast(path.read_bytes() if trainer.is_global_zero else b"")
    if missing[trainer.global_rank]:
        own = path.with_name(f".{path.name}.{trainer.global_rank}.partial")
        with WholeFile(path, "wb", aside=own) as file:
            file.write(content)
