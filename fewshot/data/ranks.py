"""What the processes that train together (ranks) agree on, so that an error of one ends all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

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


def _told(error: Exception | None) -> tuple[str, str] | None:
    """Kind and message of an error, as the other ranks hear of it."""
    if error is None:
        return None
    for kind in (ValueError, FileNotFoundError):
        if isinstance(error, kind):
            return kind.__name__, str(error)
    return "", f"{type(error).__name__}: {error}"
