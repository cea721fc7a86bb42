"""Cost of an episode as the work grows, and the memory of a long test, each in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.measuring import Cost, own_cache, table
from tests.benchmarks.sib_training import through_trainer
from tests.benchmarks.synthetic import Clouds, module

TITLE = "Cost as the work grows (Trainer.test of SIB on stored features, D = 640)"


def child(episodes: int, classes: int, tasks: int, *, repeats: int) -> dict[str, Any]:
    """Time and peak memory of a test in a process of its own."""
    arguments = [str(value) for value in (episodes, classes, tasks, repeats)]
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.growth", *arguments]
    root = Path(__file__).resolve().parents[2]
    finished = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return json.loads(finished.stdout.splitlines()[-1])


def measure(episodes: int, classes: int, tasks: int, repeats: int) -> dict[str, Any]:
    """Test so often, after one test that warms up; the fastest counts, as what disturbs only ever adds."""
    from fewshot import EpisodicDataModule

    model, dataset = module(), Clouds(n_classes=classes, n_pictures=20)
    costs: list[Cost] = []
    with own_cache() as folder:
        data = EpisodicDataModule(dataset, tasks_per_batch=tasks, test_episodes=episodes)
        ready = EpisodicDataModule(dataset, tasks_per_batch=tasks, test_episodes=tasks)
        through_trainer(model, ready, folder, test=True)
        memory_before = peak_memory()
        for _ in range(repeats):
            costs.append(through_trainer(model, data, folder, test=True))
    return {
        "wall": min(cost.wall for cost in costs),
        "cpu": min(cost.cpu for cost in costs),
        "before": memory_before,
        "peak": peak_memory(),
        "threads": torch.get_num_threads(),
    }


def peak_memory() -> float:
    """The most memory this process has held so far, in MiB; Linux's ru_maxrss would count its parent's too."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def run(*, quick: bool = False) -> str:
    """Three tables: more episodes, more classes, more tasks per batch."""
    if quick:
        found = measure(8, 6, 4, 1)
        return rows_of("test episodes", {8: found})
    more_episodes = {n: child(n, 64, 64, repeats=max(1, 2_000 // n)) for n in (100, 1_000, 10_000)}
    more_classes = {n: child(2_000, n, 64, repeats=2) for n in (64, 1_000, 10_000)}
    more_tasks = {n: child(2_000, 64, n, repeats=2) for n in (1, 8, 64, 256)}
    return "\n\n".join(
        rows_of(what, found)
        for what, found in (
            ("test episodes (64 classes, 64 tasks per batch)", more_episodes),
            ("classes (2,000 episodes, 64 tasks per batch)", more_classes),
            ("tasks per batch (2,000 episodes, 64 classes)", more_tasks),
        )
    )


def rows_of(what: str, found: dict[int, dict[str, Any]]) -> str:
    """One table."""
    first = next(iter(found.values()))
    rows = [
        [
            f"{size:,}",
            1e6 * values["wall"],
            1e6 * values["cpu"],
            values["cpu"] / first["cpu"],
            values["before"],
            values["peak"],
        ]
        for size, values in found.items()
    ]
    header = [
        what,
        "µs/episode",
        "processor µs/episode",
        "relative to the first row",
        "peak memory before the test, MiB",
        "peak memory after it, MiB",
    ]
    return table(header, rows)


if __name__ == "__main__":
    print(json.dumps(measure(*(int(argument) for argument in sys.argv[1:5]))))
