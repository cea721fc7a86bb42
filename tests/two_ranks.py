"""Runs a function in two processes of their own that torch.distributed joins."""

from __future__ import annotations

import multiprocessing
import os
import queue
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SECONDS = 240  # far less than the half hour after which waiting processes give up


def on_two_ranks(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What function(rank, *arguments) returns in each of two processes; one may be a module's function only.

    It starts without a process group and makes one by `join`. Raises TimeoutError where a process hangs, and
    RuntimeError where one fails.
    """
    context = multiprocessing.get_context("spawn")
    answers: Any = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_run, args=(function, rank, folder, answers, arguments), daemon=True)
            for rank in range(2)
        ]
        try:
            for process in processes:
                process.start()
            found = dict(answers.get(timeout=SECONDS) for _ in processes)
        except queue.Empty:
            raise TimeoutError(f"{function.__name__} hangs: no answer after {SECONDS} s") from None
        finally:
            for process in processes:
                process.join(timeout=10)
                process.kill()
    failed = [f"rank {rank}: {answer}" for rank, answer in found.items() if isinstance(answer, Exception)]
    if failed:
        raise RuntimeError("; ".join(failed))
    return [found[0], found[1]]


def join(rank: int) -> None:
    """Let the two processes find each other."""
    folder = os.environ["TWO_RANKS"]
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)


def meet(rank: int, name: str) -> None:
    """Return when both processes have called this, without a process group."""
    folder = Path(os.environ["TWO_RANKS"])
    (folder / f"{name}{rank}").touch()
    while not (folder / f"{name}{1 - rank}").exists():
        pass


def raised(function: Callable[[], Any]) -> str:
    """Kind and message of what a function raises."""
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def _run(function: Callable[..., Any], rank: int, folder: str, answers: Any, arguments: tuple[Any, ...]) -> None:
    os.environ["TWO_RANKS"] = folder
    torch.set_num_threads(1)
    try:
        answers.put((rank, function(rank, *arguments)))
    except Exception as error:
        answers.put((rank, RuntimeError(f"{type(error).__name__}: {error}")))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
