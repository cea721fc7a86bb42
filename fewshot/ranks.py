"""What the processes that train together (ranks) agree on, so that an error of one ends all of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from pytorch_lightning import Trainer

Value = TypeVar("Value")


def rank_and_world_size() -> tuple[int, int]:
    """This process's number and how many there are; (0, 1) outside distributed runs."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def gathered(compute: Callable[[], Value]) -> list[Value]:
    """What `compute` returns on every rank, in the order of ranks; where it raises on one rank, it raises on all.

    Every rank has to call it, as often as the others: a rank that failed on its own would leave them waiting for it
    until the process group's timeout, half an hour by default.

    Args:
        compute: returns something that can be pickled.

    Raises:
        Exception: what `compute` raised, on its own rank. On the others ValueError or FileNotFoundError where it was
            one, RuntimeError otherwise; the message says which rank it was.
    """
    _, world = rank_and_world_size()
    if world == 1:
        return [compute()]
    mine: Any = None
    failed: Exception | None = None
    try:
        mine = compute()
    except Exception as error:
        failed = error
    answers: list[Any] = [None] * world
    torch.distributed.all_gather_object(answers, (mine, _told(failed)))
    if failed is not None:
        raise failed
    for other, (_, told) in enumerate(answers):
        if told is not None:
            kind, message = told
            raise {"ValueError": ValueError, "FileNotFoundError": FileNotFoundError}.get(kind, RuntimeError)(
                f"rank {other}: {message}"
            )
    return [value for value, _ in answers]


def is_launched_first() -> bool:
    """Whether this process is the first of all that were started together.

    As the launcher's environment tells (Lightning's own, torchrun, SLURM), so that it is known before the processes
    have found each other; afterwards as torch.distributed tells.
    """
    rank, world = rank_and_world_size()
    if world > 1:
        return rank == 0
    if "RANK" in os.environ:
        return os.environ["RANK"] == "0"
    if is_slurm_task():
        return os.environ.get("SLURM_PROCID", "0") == "0"
    node = os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0"))
    return node == "0" and os.environ.get("LOCAL_RANK", "0") == "0"


def launched_world_size() -> int | None:
    """How many processes torchrun or srun has started together; None where neither has."""
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ["SLURM_NTASKS"]) if is_slurm_task() else None


def check_processes(trainer: Trainer) -> None:
    """Raise ValueError where torchrun or srun has started more or fewer processes than the trainer counts on.

    Lightning notices with strategy ddp only; without it every process would train by itself, in one run folder.
    """
    launched = launched_world_size()
    if launched is not None and launched != trainer.world_size:
        raise ValueError(
            f"trainer: {launched} processes were started together, but devices={trainer.num_devices} on "
            f"num_nodes={trainer.num_nodes} make {trainer.world_size}; set trainer.strategy=ddp, trainer.devices to "
            "the number of processes on each node and trainer.num_nodes to that of nodes"
        )


def is_slurm_task() -> bool:
    """Whether srun started this process; by SLURM's rules a job called bash or interactive is a person's shell."""
    return "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def share_buffers(module: torch.nn.Module) -> None:
    """Give every rank the first rank's buffers, such as the statistics of batch normalisation.

    DistributedDataParallel does so before a training step only, so that after it each rank has counted its own batch
    in; without this, ranks would validate different networks, and none the one in the checkpoint but the first.
    """
    if rank_and_world_size()[1] > 1:
        for buffer in module.buffers():
            first = buffer.contiguous()
            torch.distributed.broadcast(first, src=0)
            buffer.copy_(first)


def _told(error: Exception | None) -> tuple[str, str] | None:
    """Kind and message of an error, as the other ranks hear of it."""
    if error is None:
        return None
    for kind in (ValueError, FileNotFoundError):
        if isinstance(error, kind):
            return kind.__name__, str(error)
    return "", f"{type(error).__name__}: {error}"
