"""Prints the benchmarks' tables: all of them, or those that are named.

python -m tests.benchmarks                    every table (about half an hour on two idle cores)
python -m tests.benchmarks sib_training       one of them
python -m tests.benchmarks --quick            each for a moment, to see that it runs; the figures mean nothing
python -m tests.benchmarks safety --help      accuracy, which takes data and hours, has options of its own
python -m tests.benchmarks encoding --help    so has this one: photographs of 12 megapixels to features
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

if __package__ in (None, ""):  # python tests/benchmarks
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import NAMES, OF_ACCURACY
from tests.benchmarks.measuring import machine, say


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmarks that are asked for and print their tables."""
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in OF_ACCURACY:
        importlib.import_module(f"tests.benchmarks.{given[0]}").main(given[1:])
        return
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Speed beside a plain reference.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(NAMES)}; all where none is given")
    parser.add_argument("--quick", action="store_true", help="a moment each; the figures mean nothing")
    options = parser.parse_args(given)
    if unknown := [name for name in options.names if name not in NAMES]:
        parser.error(f"no benchmark {unknown[0]!r}; choose among {', '.join(NAMES)}")
    for name in options.names or NAMES:
        benchmark = importlib.import_module(f"tests.benchmarks.{name}")
        say(f"{name} ...")
        before = machine()
        tables = benchmark.run(quick=options.quick)
        print(f"\n## {benchmark.TITLE}\n\n{before}\n\n{tables}", flush=True)


if __name__ == "__main__":
    main()
