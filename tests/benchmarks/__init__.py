"""Speed, measured side by side with a plain reference: `python -m tests.benchmarks` prints every table.

One file is one benchmark: a TITLE and `run(quick=...)`, which returns Markdown tables. Nothing here is a test and no
time is asserted; tests/test_benchmarks.py runs each for a moment, so that they keep working. Times are medians over
repeats in which every way has its turn.
"""

NAMES = [
    "sib_training",
    "pictures_to_model",
    "feeding",
    "growth",
    "where_time_goes",
    "other_packages",
    "neighbour",
    "roofline",
]
OF_ACCURACY = ["safety", "own_pictures", "suggest", "encoding"]
"""Those that measure accuracy, and others with options of their own: run by name."""
