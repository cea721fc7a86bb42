"""What is refused before anything is built, and faults of the machine in one line."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import torch

from fewshot.commands.refusals import refusal_of
from fewshot.commands.run_options import check_run_options, check_seed


def config(trainer: dict[str, Any] | None = None, experiment: str = "tiny") -> dict[str, Any]:
    return {"experiment": experiment, "runs": "runs", "trainer": trainer or {}}


@pytest.mark.parametrize("experiment", ["../../x", "a/../../x", "/x", "..", ".", ""])
def test_an_experiment_lies_below_the_folder_of_runs(experiment: str) -> None:
    with pytest.raises(ValueError, match=r"is no folder below runs; give a name, and the place by --runs"):
        check_run_options("fit", config(experiment=experiment))
    check_run_options("fit", config(experiment="conv4/sib..1"))


@pytest.mark.parametrize(
    ("command", "batches"), [("fit", "train"), ("validate", "val"), ("test", "test"), ("predict", "predict")]
)
def test_a_command_with_nothing_to_do_is_refused(command: str, batches: str) -> None:
    for nothing in (0, 0.0):
        with pytest.raises(ValueError, match=f"trainer.limit_{batches}_batches=0 leaves {command} nothing to do"):
            check_run_options(command, config({f"limit_{batches}_batches": nothing}))
    check_run_options(command, config({f"limit_{batches}_batches": 1, "limit_val_batches": 1}))
    check_run_options(command, config({f"limit_{batches}_batches": None}))


def test_a_run_is_not_barebones() -> None:
    with pytest.raises(ValueError, match="allows neither log nor checkpoint"):
        check_run_options("fit", config({"barebones": True}))


def test_a_seed_is_one_that_numpy_takes() -> None:
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match=f"seed_everything={seed} but a seed is from 0 to 4294967295"):
            check_seed(seed)
    for good in (0, 2**32 - 1, True, False, None):
        check_seed(good)


def caused(error: Exception, cause: Exception) -> Exception:
    """The error, raised while the other one was handled."""
    error.__context__ = cause
    return error


FULL = OSError(errno.ENOSPC, "No space left on device", "runs/x/metrics.csv")
READ_ONLY = OSError(errno.EROFS, "Read-only file system", "runs")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (FULL, "runs/x/metrics.csv: No space left on device; make room; the same command with --ckpt_path auto"),
        (caused(RuntimeError("unexpected pos 64 vs 0"), FULL), "runs/x/metrics.csv: No space left on device"),
        (READ_ONLY, "runs: Read-only file system; check who may write there, or name another place"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), "runs: Permission denied; check who may"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            "data.num_workers: DataLoader worker (pid 7) is killed by signal: Killed; where memory ran out, lower",
        ),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "data.num_workers: DataLoader worker"),
        (
            caused(
                ValueError("Does not validate"), ModuleNotFoundError("Neither tensorboard nor tensorboardX is there")
            ),
            "Neither tensorboard nor tensorboardX is there; install what is missing",
        ),
        (
            RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 320 bytes. Error"
            ),
            "out of memory: can't allocate memory: you tried to allocate 320 bytes; ask for less at a time",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of 80 GiB."),
            "out of memory: CUDA out of memory.; ask for less at a time",
        ),
        (MemoryError("Unable to allocate 3 TiB for an array"), "out of memory: Unable to allocate 3 TiB for an array;"),
    ],
)
def test_a_fault_of_the_machine_is_one_line(error: Exception, says: str) -> None:
    found = refusal_of(error, ["fit"])
    assert found is not None and found.startswith(says) and "\n" not in found
    assert "auto" not in (refusal_of(error, ["test"]) or "")


def test_a_fault_of_the_program_is_none_of_the_machine() -> None:
    assert refusal_of(OSError(errno.EINVAL, "Invalid argument"), ["fit"]) is None
    assert refusal_of(RuntimeError("shape mismatch"), ["fit"]) is None
