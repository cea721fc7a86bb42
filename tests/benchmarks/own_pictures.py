"""What a person gets who classifies pictures of new classes: accuracy before and after refinement, and on later ones.

python -m tests.benchmarks.own_pictures CHECKPOINT FOLDER [--classes 10 --shots 5 --tasks 20 ...]

FOLDER holds <class>/<picture>, classes that CHECKPOINT was not trained on. Every task draws classes, labelled pictures,
and from the rest those that refine and those that come later. It is Python's FewShotClassifier that is measured, which
`classify` calls.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fewshot import FewShotClassifier
from fewshot.classification.novelty import Measure, novelty
from fewshot.data.picture_files import pictures_below
from fewshot.training.metrics import CalibrationError

MEASURES: tuple[Measure, ...] = ("distance", "energy")


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.own_pictures", description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--method", action="append", default=None, help="in place of the checkpoint's; several")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--later", type=int, default=30, help="pictures of a class that come after refinement")
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--chunk_size", type=int, default=2000)
    options = parser.parse_args(arguments)

    encoder = FewShotClassifier.from_checkpoint(options.checkpoint).encoder
    assert encoder is not None
    begun = time.perf_counter()
    features = [encoder.encode(pictures_below(folder)).features for folder in sorted(options.folder.iterdir())]
    count = sum(map(len, features))
    print(f"{count} pictures of {len(features)} classes encoded in {time.perf_counter() - begun:.1f} s")
    rng = np.random.default_rng(0)
    tasks = [task(rng, features, options) for _ in range(options.tasks)]
    for name in (None, *(options.method or [])):
        measured = [one_task(name, each, options) for each in tasks]
        print(
            f"{name or 'of the checkpoint'}: {options.tasks} tasks of {options.classes} classes, {options.shots} shots"
        )
        for key in measured[0]:
            values = np.array([each[key] for each in measured])
            half = 1.96 * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
            print(f"  {key:<44}{values.mean():8.2f} ± {half:.2f}")


class Task(NamedTuple):
    """Features of one task."""

    rows: torch.Tensor
    """Labelled, then unlabelled."""
    labels: list[int | None]
    truth: np.ndarray
    """Of the unlabelled."""
    later: torch.Tensor
    later_truth: np.ndarray
    others: torch.Tensor
    """Of classes that are not in the task."""


def task(rng: np.random.Generator, features: list[torch.Tensor], options: argparse.Namespace) -> Task:
    """Classes, labelled pictures, those that refine and those that come later, drawn at random."""
    chosen = rng.permutation(len(features))
    support, query, later, others = [], [], [], []
    for place, number in enumerate(chosen):
        rows = features[number][torch.from_numpy(rng.permutation(len(features[number])))]
        if place >= options.classes:
            others.append(rows)
            continue
        support.append(rows[: options.shots])
        later.append(rows[options.shots : options.shots + options.later])
        query.append(rows[options.shots + options.later :])
    labels = [place for place, rows in enumerate(support) for _ in rows]
    truth, later_truth = (np.repeat(np.arange(len(part)), [len(rows) for rows in part]) for part in (query, later))
    rest = torch.cat(others) if others else torch.zeros(0, features[0].shape[1])
    rows = torch.cat([*support, *query])
    return Task(rows, [*labels, *[None] * len(truth)], truth, torch.cat(later), later_truth, rest)


def one_task(name: str | None, given: Task, options: argparse.Namespace) -> dict[str, float]:
    """Accuracies in per cent, seconds of refinement, and how well other classes are told."""
    classifier = FewShotClassifier(method=name, checkpoint=options.checkpoint, chunk_size=options.chunk_size).prepare()
    begun = time.perf_counter()
    classifier.fit_features(given.rows, given.labels)
    seconds = time.perf_counter() - begun
    before, after = classifier.initial_proba_, classifier.transduction_proba_
    alone, truth = classifier.later_features(given.later), given.truth
    error = CalibrationError()
    error.update(torch.from_numpy(after), torch.from_numpy(truth))
    measured = {
        "accuracy before refinement, %": 100 * float((before.argmax(1) == truth).mean()),
        "accuracy after refinement, %": 100 * float((after.argmax(1) == truth).mean()),
        "accuracy on later pictures, each alone, %": 100 * float((alone.argmax(1) == given.later_truth).mean()),
        "expected calibration error, %": 100 * error.compute(),
        f"seconds to refine {len(truth)} pictures": seconds,
    }
    if not len(given.others):
        return measured
    known = len(given.rows) - len(truth)
    support, labels = given.rows[:known], torch.tensor(given.labels[:known])
    for measure in MEASURES:
        scores = novelty(support, labels, torch.cat([given.rows[known:], given.others]), options.classes, measure)
        told = area(scores[: len(truth)], scores[len(truth) :])
        measured[f"area under ROC of other classes, {measure}, %"] = 100 * told
    return measured


def area(known: torch.Tensor, other: torch.Tensor) -> float:
    """How often a picture of another class scores higher than one of a known class, half where they score alike."""
    ordered, other = known.sort().values, other.contiguous()
    below, not_above = (torch.searchsorted(ordered, other, right=right).double() for right in (False, True))
    return float(((below + not_above) / 2).mean() / len(known))


if __name__ == "__main__":
    main()
