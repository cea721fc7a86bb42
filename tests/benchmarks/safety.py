"""Whether using unlabelled pictures ever does harm: methods over data sets, backbones, sizes and class proportions.

python -m tests.benchmarks safety [--split val] [--tasks 24] [--cells 60] [--sets cifar_fs ...] [--methods TIM ...]
                                  [--ckpt_path RUN ...]

A cell of the grid is a data set seen by a backbone, a number of ways, shots and queries of a class, and a kind of class
proportions. In every cell all methods get the same tasks; differences are paired, with 95 % intervals. Data sets are
folders <FEWSHOT_DATA>/<set>/<split>/<class>/<picture>; those that are not there, and backbones whose weights are not to
be had, are left out, which is said.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewshot import load_trained
from fewshot.backbones import BackboneConfig
from fewshot.classification.novelty import novelty
from fewshot.data.datasets import ImageFolderSplits
from fewshot.data.sampler import EpisodeIndex
from fewshot.data.task_mixture import Sizes, TaskMixture
from fewshot.episode import STRANGER
from fewshot.methods import (
    PADDLE,
    PTMAP,
    TIM,
    UNEM,
    AlphaTIM,
    BaseClasses,
    EaseSiamese,
    LaplacianShot,
    LogisticRegression,
    Method,
    NearestClassMean,
    ProtoLP,
    RidgeRegression,
    StatA,
    UniversalSIB,
)
from fewshot.training.feature_spaces import EncodedSpace, FeatureSpace, encoded_space
from fewshot.training.metrics import CalibrationError
from tests.benchmarks.own_pictures import area

TITLE = "Safety: unlabelled pictures of every kind"
SETS = ("cifar_fs", "tiny_imagenet_fs", "grocery", "sign_digits", "omniglot")
BACKBONES: Mapping[str, BackboneConfig] = {
    "lite0": BackboneConfig("tf_efficientnet_lite0", pretrained=True, image_size=128),
    "lite1": BackboneConfig("tf_efficientnet_lite1", pretrained=True, image_size=128),
    "conv4": BackboneConfig("conv4", weights="runs/cifar_fs_conv4_pretrain", image_size=32),
}
METHODS: Mapping[str, Method] = {
    "nearest class mean": NearestClassMean(),
    "logistic regression": LogisticRegression(),
    "ridge regression": RidgeRegression(),
    "UniversalSIB": UniversalSIB(),
    "UniversalSIB, told uniform": UniversalSIB(prior="uniform"),
    "PT-MAP": PTMAP(),
    "PT-MAP, prior of the queries": PTMAP(prior="queries", prior_strength=30.0),
    "TIM": TIM(),
    "alpha-TIM": AlphaTIM(),
    "PADDLE": PADDLE(),
    "UNEM, untrained": UNEM(),
    "StatA": StatA(),
    "LaplacianShot": LaplacianShot(),
    "EASE": EaseSiamese(),
    "protoLP": ProtoLP(),
}
YARDSTICKS = ("nearest class mean", "logistic regression")
KINDS = ("balanced", "dirichlet(2)", "dirichlet(0.5)", "tail(10)", "some(3)", "some(1)", "strangers")
WAYS, SHOTS, QUERIES = (2, 5, 10, 20), (1, 3, 5, 10), (1, 5, 15, 50)
AT_ONCE = 8
MARGIN = 0.5
"""Points by which the lower bound of a difference may lie below zero."""
LARGE, CALIBRATED, CALIBRATED_AT_ONE_SHOT = 200, 5.0, 8.0
"""Queries of a task from which on a calibration error, in per cent, is asked for, and how large it may be."""


class Cell(NamedTuple):
    """What the tasks of one cell are like."""

    n_way: int
    n_shot: int
    n_query: int
    kind: str

    def __str__(self) -> str:
        return f"{self.n_way} ways, {self.n_shot} shots, {self.n_query} queries, {self.kind}"


@dataclass
class Row:
    """What one method reached in one cell: accuracies [n] of the tasks, and the calibration error, in per cent."""

    space: str
    cell: Cell
    method: str
    accuracies: np.ndarray
    ece: float
    strangers: dict[str, float]
    """Areas under the ROC curve in per cent, by what tells strangers."""


def grid(n_classes: int) -> list[Cell]:
    """All cells that a data set of so many classes has."""
    found = [Cell(*each) for each in itertools.product(WAYS, SHOTS, QUERIES, KINDS)]
    return [cell for cell in found if _possible(cell, n_classes)]


def _possible(cell: Cell, n_classes: int) -> bool:
    spare = 1 if cell.kind == "strangers" else 0
    return cell.n_way + spare <= n_classes and (cell.kind != "some(3)" or cell.n_way > 3)


def is_large(cell: Cell) -> bool:
    """Whether its tasks have so many queries that their calibration is asked for."""
    return cell.n_way * cell.n_query >= LARGE


def tasks_of(
    space: EncodedSpace, cell: Cell, n_tasks: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Support [T, S, D], labels [T, S], queries [T, Q, D] and their labels [T, Q], a few tasks at a time."""
    strangers = 0.2 if cell.kind == "strangers" else 0.0
    mixture = TaskMixture(proportions={"balanced" if strangers else cell.kind: 1.0})
    sizes = Sizes(cell.n_way, cell.n_shot, cell.n_way * cell.n_query, strangers, 0.0, 0.0)
    for first in range(0, n_tasks, AT_ONCE):
        drawn = [
            mixture.task(
                np.random.default_rng([seed, cell.n_way, cell.n_shot, cell.n_query, number]), space.by_class, sizes
            )
            for number in range(first, min(first + AT_ONCE, n_tasks))
        ]
        index = EpisodeIndex(*(np.stack(part) for part in zip(*drawn, strict=True)))
        support, query = space.features.read(index.support), space.features.read(index.query)
        yield support, torch.from_numpy(index.support_labels), query, torch.from_numpy(index.query_labels)


def told_mean(method: Method, features: Tensor) -> Method:
    """The method, where it centres by the training classes' mean a copy that is told that of features [T, n, D]."""
    if method.needs_base is None:
        return method
    made = copy.deepcopy(method)
    made.prepare(BaseClasses(features.mean((0, 1)), features.new_zeros(0, features.shape[-1])))
    return made


@torch.inference_mode()
def measured(space: EncodedSpace, cell: Cell, methods: Mapping[str, Method], n_tasks: int, seed: int) -> list[Row]:
    """Every method on the same tasks of a cell."""
    accuracies: dict[str, list[float]] = {name: [] for name in methods}
    errors = {name: CalibrationError() for name in methods}
    scores: dict[str, list[tuple[Tensor, Tensor]]] = {"energy": [], "distance": [], "learned": []}
    for support, labels, query, truth in tasks_of(space, cell, n_tasks, seed):
        known = truth != STRANGER
        for name, given in methods.items():
            method = told_mean(given, torch.cat([support, query], dim=1))
            refinement = method.eval().refine(support, labels, query, cell.n_way)
            logits = refinement.logits[-1].float()
            right = (logits.argmax(-1) == truth) & known
            accuracies[name] += (100 * right.sum(1) / known.sum(1)).tolist()
            errors[name].update(logits[known].softmax(-1), truth[known])
            if name == "UniversalSIB" and cell.kind == "strangers" and refinement.strangers is not None:
                scores["learned"] += list(zip(refinement.strangers[-1], known, strict=True))
        if cell.kind == "strangers":
            for place in range(len(support)):
                for measure in ("energy", "distance"):
                    told = novelty(support[place], labels[place], query[place], cell.n_way, measure)  # type: ignore[arg-type]
                    scores[measure].append((told, known[place]))
    areas = {
        name: 100 * float(np.mean([area(told[known], told[~known]) for told, known in each if not bool(known.all())]))
        for name, each in scores.items()
        if any(not bool(known.all()) for _, known in each)
    }
    return [
        Row(space.name, cell, name, np.array(accuracies[name]), 100 * errors[name].compute(), areas) for name in methods
    ]


def difference(rows: Sequence[Row], method: str, yardstick: str) -> tuple[float, float]:
    """Mean paired difference of two methods in one cell, and the half-width of its 95 % interval, in points."""
    by_name = {row.method: row.accuracies for row in rows}
    gain = by_name[method] - by_name[yardstick]
    return float(gain.mean()), 1.96 * float(gain.std(ddof=1)) / len(gain) ** 0.5


def report(cells: Sequence[Sequence[Row]], methods: Sequence[str]) -> str:
    """Tables: by method over the grid, and the cells of UniversalSIB that fall short."""
    headings = (
        "method",
        "mean",
        "1 shot, balanced",
        "1 shot, else",
        "more, balanced",
        "more, else",
        "calibration error",
    )
    lines = [f"| {' | '.join(headings)} |", "|---|---|---|---|---|---|---|"]

    def mean(name: str, wanted: Any) -> str:
        found = [row.accuracies.mean() for cell in cells for row in cell if row.method == name and wanted(row.cell)]
        return f"{np.mean(found):.2f}" if found else ""

    for name in methods:
        kinds = [
            mean(name, lambda cell: True),
            mean(name, lambda cell: cell.n_shot == 1 and cell.kind == "balanced"),
            mean(name, lambda cell: cell.n_shot == 1 and cell.kind != "balanced"),
            mean(name, lambda cell: cell.n_shot > 1 and cell.kind == "balanced"),
            mean(name, lambda cell: cell.n_shot > 1 and cell.kind != "balanced"),
        ]
        ece = np.mean([row.ece for cell in cells for row in cell if row.method == name])
        lines.append(f"| {name} | {' | '.join(kinds)} | {ece:.1f} |")
    for name in [name for name in methods if name == "UniversalSIB" or name not in METHODS]:
        for yardstick in YARDSTICKS:
            found = [(difference(rows, name, yardstick), rows[0]) for rows in cells]
            short = [
                f"- {row.space}, {row.cell}: {gain:+.1f} ± {half:.1f}"
                for (gain, half), row in found
                if gain - half < -MARGIN
            ]
            clearly = sum(gain + half < -MARGIN for (gain, half), _ in found)
            lines.append(
                f"\n{name} less {yardstick}: {np.mean([gain for (gain, _), _ in found]):+.2f} on average over "
                f"{len(found)} cells; the lower bound is below -{MARGIN} in {len(short)}, the upper one in {clearly}"
            )
            lines += short
        large = [row for cell in cells for row in cell if row.method == name and is_large(row.cell)]
        beyond = [row for row in large if row.ece > (CALIBRATED_AT_ONE_SHOT if row.cell.n_shot == 1 else CALIBRATED)]
        if large:
            lines.append(
                f"\n{name}: calibration error beyond {CALIBRATED:g} %, at one shot {CALIBRATED_AT_ONE_SHOT:g} %, in "
                f"{len(beyond)} of {len(large)} cells of {LARGE} queries or more"
            )
        lines += [f"- {row.space}, {row.cell}: {row.ece:.1f} %" for row in beyond]
    areas = [cell[0].strangers for cell in cells if "learned" in cell[0].strangers]
    if areas:
        each = ", ".join(f"{name} {np.mean([one[name] for one in areas]):.1f}" for name in areas[0])
        lines.append(f"\nArea under the ROC curve for strangers, %, mean of {len(areas)} cells: {each}")
    return "\n".join(lines)


def spaces_of(sets: Sequence[str], backbones: Sequence[str], split: str) -> Iterator[EncodedSpace]:
    """The spaces that are to be had here, encoded; says which are not."""
    root = Path(os.environ.get("FEWSHOT_DATA", "data"))
    for name, backbone in itertools.product(sets, backbones):
        config = BACKBONES[backbone]
        try:
            dataset = ImageFolderSplits(str(root / name), image_size=config.image_size or 84)
            yield encoded_space(FeatureSpace(dataset, config), split)  # type: ignore[arg-type]
        except (ValueError, FileNotFoundError) as error:
            print(f"left out: {name} by {backbone} ({str(error)[:100]})", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks safety", description=__doc__)
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=list(BACKBONES))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--ckpt_path", nargs="+", default=[], metavar="RUN", help="heads for any features, too")
    parser.add_argument("--tasks", type=int, default=24, help="of every cell")
    parser.add_argument("--large", action="store_true", help=f"cells of {LARGE} queries or more alone")
    parser.add_argument("--cells", type=int, default=None, help="of each space, drawn at random; all where not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=None, help="a JSON file of all means")
    options = parser.parse_args(arguments)
    methods = {name: METHODS[name] for name in dict.fromkeys([*YARDSTICKS, *options.methods])}
    heads = {run: load_trained(run).module.method for run in options.ckpt_path}
    if tied := [run for run, head in heads.items() if head.n_way is not None]:
        parser.error(f"{tied[0]} was trained for one number of ways, and the grid has several")
    methods |= heads
    found: list[list[Row]] = []
    for space in spaces_of(options.sets, options.backbones, options.split):
        begun, cells = time.perf_counter(), grid(len(space.by_class))
        cells = [cell for cell in cells if is_large(cell) or not options.large]
        if options.cells is not None and options.cells < len(cells):
            chosen = np.random.default_rng(options.seed).choice(len(cells), options.cells, replace=False)
            cells = [cells[place] for place in sorted(chosen.tolist())]
        for cell in cells:
            found.append(measured(space, cell, methods, options.tasks, options.seed))
        print(f"{space.name}: {len(cells)} cells in {time.perf_counter() - begun:.0f} s", flush=True)
    if options.output is not None:
        plain = [
            {
                "space": row.space,
                **row.cell._asdict(),
                "method": row.method,
                "accuracy": row.accuracies.mean(),
                "ece": row.ece,
                **row.strangers,
            }
            for cell in found
            for row in cell
        ]
        options.output.write_text(json.dumps(plain, indent=1), encoding="utf-8")
    print(report(found, list(methods)))


if __name__ == "__main__":
    main()
