"""A line on the error stream for work that takes longer than a few seconds."""

from __future__ import annotations

import sys
import time

SECONDS_BEFORE_PROGRESS = 3.0


class Progress:
    """Says how far something has come, once it has taken longer than a few seconds.

    Args:
        what: "decoding cifar_fs-train once", say.
        total: how many pictures there are in all.
    """

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self.next_line = time.monotonic() + SECONDS_BEFORE_PROGRESS
        self.shown = False

    def advance(self, count: int) -> None:
        """So many pictures more are done."""
        self.done += count
        if time.monotonic() >= self.next_line:
            # A terminal's line is written over; a log file gets a line ten times less often.
            pause = SECONDS_BEFORE_PROGRESS * (1 if sys.stderr.isatty() else 10)
            self.next_line = time.monotonic() + pause
            self._print("\r" if sys.stderr.isatty() else "\n")

    def close(self) -> None:
        """End the line, if there is one."""
        if self.shown:
            self._print("\n")

    def _print(self, end: str) -> None:
        self.shown = True
        print(f"{self.what}: {self.done} of {self.total} pictures", end=end, file=sys.stderr, flush=True)
