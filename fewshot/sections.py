"""Where an episode's time goes, in words of the field, as rows of Lightning's profiler.

`--trainer.profiler simple` prints how long each of these took in all, beside Lightning's own rows; `advanced` and
`pytorch` show them too:

    sampling    which pictures make up the episodes
    reading     stored features of these pictures, or decoded pictures from their array
    decode      opening, decoding and resizing picture files
    transform   cropping, augmenting and normalising pictures
    encode      the backbone; without its backward pass
    method      support and query features to logits; without the backward pass, Lightning's row `backward`
    optimiser   the update of the weights

They do not overlap. With worker processes (data.num_workers) the first four happen there, where no profiler looks; set
it to 0 to see them. Without a profiler nothing is measured.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

_NOTHING = nullcontext()
_profiler: Any = None
_open: set[str] = set()


def measure_with(profiler: Any) -> None:
    """Let this process's sections report to a profiler of Lightning's from now on; None to none."""
    global _profiler
    _profiler = profiler
    _open.clear()


def measuring() -> bool:
    """Whether there is a profiler."""
    return _profiler is not None


def section(name: str) -> AbstractContextManager[Any]:
    """What is done inside counts as `name`."""
    return _NOTHING if _profiler is None else _profiler.profile(name)


def begin(name: str) -> None:
    """What follows counts as `name`, until `end`; for where the two stand in different functions."""
    if _profiler is not None and name not in _open:
        _open.add(name)
        _profiler.start(name)


def end(name: str) -> None:
    """What `begin` began is over; nothing happens where it was not called."""
    if name in _open:
        _open.discard(name)
        _profiler.stop(name)
