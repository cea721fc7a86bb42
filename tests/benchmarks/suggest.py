"""Labels that `suggest` saves: how many it takes to reach 95 % of the final accuracy, beside labelling in random order.

python -m tests.benchmarks suggest FOLDER [FOLDER ...] --backbone tf_efficientnet_lite0 --image_size 128

FOLDER holds <class>/<picture>. A start draws classes, and deals the pictures of each into those that may be labelled
and those that accuracy is measured on; who chooses the labels has no say in that. All are looked at together. Labels
are given some at a time, each time after the answer so far. The final accuracy is that with all labelled that may be.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewshot import FewShotClassifier
from fewshot.classification.suggestion import first_to_label, next_to_label
from fewshot.data.picture_files import pictures_below
from tests.benchmarks.measuring import say, table

STEPS = tuple(range(10, 501, 10))
"""Labels after which there is an answer, ten at a time, as `suggest` gives them where nothing else is asked for."""
SHOWN = (10, 20, 30, 40, 50, 70, 100)
"""Those of which means are printed; a curve goes on that far at least."""
SHARE = 0.95
Choice = Callable[["Pool", np.ndarray, "np.ndarray | None", int], np.ndarray]
"""Of a pool, the places labelled so far, the answer to the others, and a number: the places to label next."""


class Pool:
    """Pictures of one start.

    Args:
        by_class: features [n, D] of every class of the data set.
        n_classes: how many are drawn.
        per_class: pictures of a class at most.
        seed: of the start.
    """

    def __init__(self, by_class: Sequence[torch.Tensor], *, n_classes: int, per_class: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        parts: list[tuple[int, torch.Tensor, torch.Tensor]] = []
        for label, number in enumerate(rng.permutation(len(by_class))[:n_classes]):
            rows = by_class[number][torch.from_numpy(rng.permutation(len(by_class[number]))[:per_class])]
            parts.append((label, rows[: len(rows) // 2], rows[len(rows) // 2 :]))
        order = torch.from_numpy(rng.permutation(sum(len(rows) for _, rows, _ in parts)))
        self.rows = torch.cat([rows for _, rows, _ in parts])[order]
        self.labels = np.repeat([label for label, _, _ in parts], [len(rows) for _, rows, _ in parts])[order]
        self.others = torch.cat([others for _, _, others in parts])
        self.truth = np.repeat([label for label, _, _ in parts], [len(others) for _, _, others in parts])
        self.order = rng.permutation(len(self.rows))
        """In which a person labels them who does not choose."""

    def answer(self, classifier: FewShotClassifier, labelled: np.ndarray) -> tuple[float, np.ndarray | None]:
        """Accuracy on the others, and probabilities of those not labelled, None where one class alone is known."""
        left = self.left(labelled)
        known = self.labels[labelled]
        if len(set(known)) < 2:
            return float((self.truth == known[0]).mean()), None
        rows = torch.cat([self.rows[labelled], self.rows[left], self.others])
        classifier.fit_features(rows, [*known.tolist(), *[None] * (len(left) + len(self.others))])
        said = classifier.transduction_proba_
        found = classifier.classes_[said[len(left) :].argmax(1)]
        return float((found == self.truth).mean()), said[: len(left)]

    def left(self, labelled: np.ndarray) -> np.ndarray:
        """Places of those not labelled."""
        return np.setdiff1d(np.arange(len(self.rows)), labelled)


def at_random(pool: Pool, labelled: np.ndarray, _: np.ndarray | None, number: int) -> np.ndarray:
    """Those that come next in the order of the start."""
    return pool.order[len(labelled) : len(labelled) + number]


def as_suggested(pool: Pool, labelled: np.ndarray, said: np.ndarray | None, number: int) -> np.ndarray:
    """Those that `suggest` names."""
    left = pool.left(labelled)
    rows, known = pool.rows[left].numpy(), pool.rows[labelled].numpy()
    if said is None:
        return left[first_to_label(rows, number, known)]
    return left[next_to_label(rows, said, number, known)]


CHOICES: dict[str, Choice] = {"random": at_random, "suggest": as_suggested}


def curve(
    classifier: FewShotClassifier, pool: Pool, choose: Choice, steps: Sequence[int], wanted: float
) -> list[float]:
    """Accuracy after each of these numbers of labels, until it is reached and all of SHOWN are passed."""
    labelled, said, found = np.zeros(0, dtype=np.int64), None, []
    for step in steps:
        labelled = np.concatenate([labelled, choose(pool, labelled, said, step - len(labelled))])
        accuracy, said = pool.answer(classifier, labelled)
        found.append(accuracy)
        if step >= SHOWN[-1] and max(found) >= wanted:
            break
    return found


def labels_to(wanted: float, steps: Sequence[int], accuracies: Sequence[float]) -> float:
    """The number of labels from which on a curve has that accuracy for the first time."""
    reached = next(place for place, accuracy in enumerate(accuracies) if accuracy >= wanted)
    if not reached:
        return float(steps[0])
    low, high = accuracies[reached - 1], accuracies[reached]
    return steps[reached - 1] + (steps[reached] - steps[reached - 1]) * (wanted - low) / (high - low)


def measured(
    by_class: Sequence[torch.Tensor], *, n_classes: int, per_class: int, starts: int, method: str | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Of every choice by start: the final accuracy, the labels that 95 % of it needed, and the curve.

    Raises:
        ValueError: fewer classes than are to be drawn.
    """
    if len(by_class) < n_classes:
        raise ValueError(f"classes={n_classes} but there are {len(by_class)}")
    classifier = FewShotClassifier(method=method, chunk_size=2000).prepare()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in CHOICES}
    for start in range(starts):
        pool = Pool(by_class, n_classes=n_classes, per_class=per_class, seed=start)
        steps = [*(step for step in STEPS if step < len(pool.rows)), len(pool.rows)]
        final, _ = pool.answer(classifier, pool.order)
        for name, choose in CHOICES.items():
            accuracies = curve(classifier, pool, choose, steps, SHARE * final)
            needed = labels_to(SHARE * final, steps, accuracies)
            found[name].append(
                {"start": start, "final": final, "needed": needed, "steps": steps, "accuracies": accuracies}
            )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks suggest", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", default=None)
    parser.add_argument("--image_size", type=int, default=None)
    parser.add_argument("--method", default=None, help="in place of UniversalSIB")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--per_class", type=int, default=100, help="pictures of a class at most")
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--output", type=Path, default=None, help="JSON of all curves")
    options = parser.parse_args(arguments)
    encoder = FewShotClassifier(options.backbone, weights=options.weights, image_size=options.image_size).encoder
    assert encoder is not None
    every, rows, at = {}, [], []
    for folder in options.folder:
        say(f"{folder} ...")
        classes = [path for path in sorted(folder.iterdir()) if path.is_dir()]
        by_class = [encoder.encode(pictures_below(path)[: 2 * options.per_class]).features for path in classes]
        found = measured(
            [features for features in by_class if len(features) >= 2],
            n_classes=options.classes,
            per_class=options.per_class,
            starts=options.starts,
            method=options.method,
        )
        every[str(folder)] = found
        needed = {name: [one["needed"] for one in runs] for name, runs in found.items()}
        means = {name: float(np.mean(values)) for name, values in needed.items()}
        final = 100 * np.mean([one["final"] for one in found["random"]])
        name = "/".join(folder.parts[-2:])
        ratio = means["suggest"] / means["random"]
        rows.append([name, f"{final:.1f}", *(f"{means[one]:.0f}" for one in CHOICES), ratio])
        for choice, runs in found.items():
            curves = [dict(zip(one["steps"], one["accuracies"], strict=False)) for one in runs]
            means_at = [np.mean([one[step] for one in curves if step in one] or [np.nan]) for step in SHOWN]
            at.append([name, choice, *(f"{100 * mean:.1f}" for mean in means_at)])
    header = ["data set", "final accuracy, %", *(f"labels to 95 % of it, {name}" for name in CHOICES), "ratio"]
    print(table(header, [*rows, ["mean", "", "", "", float(np.mean([row[-1] for row in rows]))]]))
    print("\nAccuracy in % after so many labels\n")
    print(table(["data set", "order", *SHOWN], at))
    if options.output is not None:
        options.output.write_text(json.dumps(every), encoding="utf-8")


if __name__ == "__main__":
    main()
