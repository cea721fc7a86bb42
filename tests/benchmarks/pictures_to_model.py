"""From picture files to a tested model: decode, encode, 50,000 training and 2,000 test episodes; Conv-4, frozen."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from torch import nn

from fewshot import EpisodicDataModule, FewShotModule
from fewshot.backbones import BackboneConfig
from fewshot.data.datasets import CIFARFS, FewShotDataset, ImageFolderSplits
from fewshot.data.datasets.cifar import PREPROCESSING
from fewshot.methods import SIB
from tests.benchmarks import reference
from tests.benchmarks.measuring import Cost, Stopwatch, measured, middle, own_cache, quiet, say, shown, table
from tests.benchmarks.pictures import listed, real, written
from tests.benchmarks.sib_training import through_trainer

TITLE = "Pictures to tested model (32 px, Conv-4 frozen, 50,000 training and 2,000 test episodes)"
TRAINING, TESTING = 50_000, 2_000


def reference_costs(root: Path, backbone: nn.Module, width: int, episodes: int) -> tuple[Cost, Cost]:
    """Cost of a training and of a test episode where every picture is opened, transformed and encoded anew."""
    model = reference.ReferenceSIB(width)
    optimizer = reference.reference_optimizer(model)
    mean, std = PREPROCESSING.mean, PREPROCESSING.std
    training = reference.picture_tasks(*listed(root / "train"), reference.training_pipeline(32, 4, mean, std))
    testing = reference.picture_tasks(*listed(root / "test"), reference.test_pipeline(32, mean, std))

    def train() -> None:
        for task in itertools.islice(training, episodes):
            reference.train_episode(model, optimizer, reference.encoded_task(backbone, task))

    def test() -> None:
        for task in itertools.islice(testing, episodes):
            reference.test_accuracy(model, reference.encoded_task(backbone, task))

    measured(train, episodes)
    return measured(train, episodes), measured(test, episodes)


def prepare(dataset: FewShotDataset, model: FewShotModule) -> Cost:
    """Cost of decoding and encoding all pictures of two splits, from an empty cache; nothing is cut short."""
    data = EpisodicDataModule(dataset)
    data.adapt(channels=3, image_size=32)
    data.use_features(model.encode, model.backbone_key)
    watch = Stopwatch()
    with quiet():
        for split in ("train", "test"):
            data.features(split)  # type: ignore[arg-type]
    return watch.stop()


def run(*, quick: bool = False) -> str:
    """The table; the reference is measured for a stretch, and ours too where tasks per batch are few."""
    torch.manual_seed(0)
    model = FewShotModule(SIB(), BackboneConfig("conv4", image_size=32))
    backbone = model.backbone.eval()
    stretches = {8: 16} if quick else {1: 2_000, 8: 8_000, 64: TRAINING}
    with own_cache() as folder:
        root = None if quick else real("cifar_fs")
        if root is not None:
            dataset: FewShotDataset = CIFARFS(str(root))
        else:
            classes, per_class = (6, 20) if quick else (20, 600)
            root = written(folder / "pictures", side=32, classes=classes, per_class=per_class, ending="png")
            dataset = ImageFolderSplits(str(root), 32, crop_padding=4)
        say("the reference ...")
        before = reference_costs(root, backbone, model.backbone.num_features, 2 if quick else 40)
        say("decoding and encoding ...")
        ready = prepare(dataset, model)
        rows = []
        for tasks, episodes in stretches.items():
            say(f"{tasks} tasks a batch ...")
            data = EpisodicDataModule(
                dataset,
                image_size=32,
                tasks_per_batch=tasks,
                train_episodes=episodes,
                test_episodes=16 if quick else TESTING,
            )
            fit = through_trainer(model, data, folder, test=False)
            test = through_trainer(model, data, folder, test=True)
            rows.append([f"ours, {tasks} tasks per batch", episodes, *line(ready, fit, test, before)])
        again = reference_costs(root, backbone, model.backbone.num_features, 2 if quick else 40)
    before = middle([before[0], again[0]]), middle([before[1], again[1]])
    rows = [["reference", 2 if quick else 80, *line(Cost(0.0, 0.0), *before, before)], *rows]
    header = [
        "way",
        "training episodes measured",
        "decode and encode, s",
        "ms per training episode",
        "ms per test episode",
        "in all, s",
        "times the reference",
        "by processor time",
    ]
    return table(header, rows)


def line(ready: Cost, fit: Cost, test: Cost, before: tuple[Cost, Cost]) -> list[object]:
    """The cells behind a way's name."""
    total = [ready[i] + TRAINING * fit[i] + TESTING * test[i] for i in (0, 1)]
    plain = [TRAINING * before[0][i] + TESTING * before[1][i] for i in (0, 1)]
    parts = [ready.wall, 1e3 * fit.wall, 1e3 * test.wall, total[0]]
    return [shown(float(part)) for part in (*parts, plain[0] / total[0], plain[1] / total[1])]
