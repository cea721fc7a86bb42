"""What a busy neighbour costs: an epoch of the quickstart alone, and beside a program that keeps one core busy.

Every run is a process of its own, started as a user starts it; what differs is how threads wait for each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fewshot.commands.waiting import OF_THE_USER
from tests.benchmarks.measuring import say, table

TITLE = "A busy neighbour (one epoch of the quickstart with a short test, whole command)"
ROOT = Path(__file__).resolve().parents[2]
WAYS = {
    "as shipped": {},
    "as torch has it": {"KMP_BLOCKTIME": "200"},  # its default, which libgomp does not read: nothing is bounded
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


@contextlib.contextmanager
def neighbour() -> Iterator[None]:
    """A program that keeps one core busy, the first that this process may use."""
    program = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(program.pid, {min(os.sched_getaffinity(0))})
        yield
    finally:
        program.kill()
        program.wait()


def seconds(folder: Path, variables: dict[str, str], *, episodes: int) -> float:
    """Seconds of one run of the command, as its run.json tells them: without importing the libraries."""
    unset = {name: value for name, value in os.environ.items() if name not in (*OF_THE_USER, "OMP_NUM_THREADS")}
    runs = Path(tempfile.mkdtemp(dir=folder))
    options = {
        "--config": str(ROOT / "configs/quickstart.yaml"),
        "--runs": str(runs),
        "--trainer.max_epochs": "1",
        "--trainer.limit_val_batches": "0",
        "--trainer.logger": "false",
        "--trainer.enable_progress_bar": "false",
        "--data.train_episodes": str(episodes),
        "--data.test_episodes": "16",
    }
    subprocess.run(
        [sys.executable, "-m", "fewshot", "fit", *(part for pair in options.items() for part in pair)],
        env={**unset, **variables, "FEWSHOT_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    (record,) = runs.rglob("run.json")
    return float(json.loads(record.read_text(encoding="utf-8"))["seconds"])


def run(*, quick: bool = False) -> str:
    """The table: seconds alone and beside the neighbour, and how many times the first the second is."""
    repeats, episodes = (1, 8) if quick else (3, 400)
    ways = dict(list(WAYS.items())[:1]) if quick else WAYS
    found: dict[tuple[str, bool], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="fewshot-benchmark-") as name:
        folder = Path(name)
        seconds(folder, {}, episodes=4)  # draws the characters
        for _ in range(repeats):
            for way, variables in ways.items():
                for beside in (False, True):
                    with neighbour() if beside else contextlib.nullcontext():
                        found.setdefault((way, beside), []).append(seconds(folder, variables, episodes=episodes))
                say(f"{way}: {found[way, False][-1]:.1f} s alone, {found[way, True][-1]:.1f} s beside a neighbour")
    rows = []
    for way in ways:
        alone, beside = (statistics.median(found[way, busy]) for busy in (False, True))
        rows.append([way, alone, beside, beside / alone])
    return table(["threads wait", "alone, s", "beside a busy neighbour, s", "times"], rows)
