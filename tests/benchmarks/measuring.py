"""Times of several ways to do the same, taken in turn; Markdown tables; facts about the machine."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytorch_lightning
import torch


class Cost(NamedTuple):
    """Seconds per episode: on the clock, and of this process's processor time, which a busy machine disturbs less."""

    wall: float
    cpu: float

    @property
    def per_second(self) -> float:
        """Episodes per second on the clock."""
        return 1 / self.wall


class Stopwatch:
    """Measures from construction to `stop`."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def stop(self, episodes: float = 1) -> Cost:
        """Cost of one of so many episodes."""
        return Cost((time.perf_counter() - self.wall) / episodes, (time.process_time() - self.cpu) / episodes)


def measured(run: Callable[[], object], episodes: int) -> Cost:
    """Cost of an episode where one call runs so many."""
    watch = Stopwatch()
    run()
    return watch.stop(episodes)


def medians(ways: Mapping[str, Callable[[], Cost]], repeats: int) -> dict[str, Cost]:
    """Median cost of every way over repeats in which each has its turn; a first round warms up and does not count."""
    rounds = [{name: way() for name, way in ways.items()} for _ in range(repeats + 1)][1:]
    return {name: middle([costs[name] for costs in rounds]) for name in ways}


def middle(costs: Sequence[Cost]) -> Cost:
    """Median on the clock and of processor time, each by itself."""
    return Cost(statistics.median(cost.wall for cost in costs), statistics.median(cost.cpu for cost in costs))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; floats with three digits that matter."""

    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(shown(cell) for cell in cells) + " |"

    return "\n".join([line(header), "|" + "---|" * len(header), *(line(row) for row in rows)])


def shown(cell: object) -> str:
    """As it stands in a table: 12,345 or 1.23 or the text itself."""
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"


def machine() -> str:
    """One line: processor, cores, threads, load, versions."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    versions = (
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"pytorch-lightning {pytorch_lightning.__version__}, numpy {np.__version__}"
    )
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {device}, {load}; {versions}"
    )


@contextlib.contextmanager
def own_cache() -> Iterator[Path]:
    """An empty FEWSHOT_CACHE in a temporary folder, and a folder beside it; both go afterwards."""
    before = os.environ.get("FEWSHOT_CACHE")
    with tempfile.TemporaryDirectory(prefix="fewshot-benchmark-") as folder:
        os.environ["FEWSHOT_CACHE"] = str(Path(folder) / "cache")
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["FEWSHOT_CACHE"]
            else:
                os.environ["FEWSHOT_CACHE"] = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What Lightning prints goes nowhere, as in a script whose output is a file; its advice is not repeated."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield


def say(text: str) -> None:
    """Progress of a long measurement, on the error stream."""
    print(text, file=sys.stderr, flush=True)
