"""How the processes of a run were started: by Lightning, torchrun or SLURM, and which of them is the first."""

from __future__ import annotations

import os

import torch
from pytorch_lightning import Trainer

from fewshot.data.ranks import rank_and_world_size


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
    """Raise ValueError for processes that are spawned, or where more or fewer were started than the trainer counts on.

    Lightning notices with strategy ddp only; without it every process would train by itself, in one run folder.
    """
    if (method := getattr(trainer.strategy, "_start_method", "popen")) != "popen":
        raise ValueError(
            f"trainer.strategy starts processes by {method}, into which a run cannot be carried; give ddp, which "
            "starts them by the same command"
        )
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
