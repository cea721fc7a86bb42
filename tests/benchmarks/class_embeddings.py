"""Zero-shot by embeddings of classes, before the other rows are looked at and after.

python -m tests.benchmarks.class_embeddings FILE [FILE ...] [--present 5 --draws 10]

FILE is an .npz with features [n, D], labels [n] in 0..N-1 and class_embeddings [N, D]. No row is labelled: the
embeddings are all that is known. Every method is given all rows, and then only those of some of the classes, drawn at
random, among which it has to look for all N.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fewshot import FewShotClassifier
from fewshot.classification.feature_files import read_table
from fewshot.methods import PTMAP, Method

METHODS: dict[str, Method | None] = {"the default": None, "PTMAP, uniform": PTMAP(prior="uniform")}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.class_embeddings", description=__doc__)
    parser.add_argument("file", type=Path, nargs="+")
    parser.add_argument("--present", type=int, default=5, help="classes of which there are rows")
    parser.add_argument("--draws", type=int, default=10, help="of these classes")
    options = parser.parse_args(arguments)
    for file in options.file:
        table = read_table(file, ["labels"])
        embeddings = read_table(file, features="class_embeddings").features
        labels = np.array(table.columns["labels"], dtype=int)
        for present, draws in ((len(embeddings), 1), (options.present, options.draws)):
            found: dict[str, list[float]] = {}
            for rows in drawn(labels, present, draws):
                for name, share in accuracies(table.features[rows], labels[rows], embeddings):
                    found.setdefault(name, []).append(100 * share)
            print(f"{file.name}: rows of {present} of {len(embeddings)} classes, {draws} draws")
            for name, values in found.items():
                print(f"  {name:<40}{np.mean(values):6.1f} (least {np.min(values):.1f})")


def drawn(labels: np.ndarray, present: int, draws: int) -> Iterator[np.ndarray]:
    """Places of the rows of so many classes, drawn anew each time."""
    classes = np.unique(labels)
    for draw in range(draws):
        yield np.flatnonzero(np.isin(labels, np.random.default_rng(draw).permutation(classes)[:present]))


def accuracies(rows: np.ndarray, labels: np.ndarray, embeddings: np.ndarray) -> Iterator[tuple[str, float]]:
    """By plain cosines, and of every method before it looks at the rows together and after."""
    one, other = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (rows, embeddings))
    yield "zero-shot, cosines as they are", float(((one @ other.T).argmax(1) == labels).mean())
    for name, method in METHODS.items():
        fitted = FewShotClassifier(method=method).fit(rows, [None] * len(rows), embeddings)
        for when, said in (("before", fitted.initial_proba_), ("after", fitted.transduction_proba_)):
            yield f"{name}, {when}", float((said.argmax(1) == labels).mean())


if __name__ == "__main__":
    main()
