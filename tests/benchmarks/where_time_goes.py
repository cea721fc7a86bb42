"""Where an episode's time goes, by torch.profiler: what the package marks by record_function."""

from __future__ import annotations

import torch

from fewshot import EpisodicDataModule, FewShotModule
from fewshot.backbones import BackboneConfig
from fewshot.data.datasets import ImageFolderSplits
from fewshot.methods import SIB
from tests.benchmarks.measuring import own_cache, shown, table
from tests.benchmarks.pictures import written
from tests.benchmarks.sib_training import through_trainer

TITLE = "Where a training episode's time goes (SIB on Conv-4, 32 px, ms per episode)"
SECTIONS = ("sampling", "reading", "decode", "transform", "encode", "method")


def run(*, quick: bool = False) -> str:
    """Three ways to come by features, one row each; `rest`, mostly the backward pass, is what is left of the whole."""
    episodes, tasks = (4, 2) if quick else (256, 8)
    rows = []
    with own_cache() as folder:
        root = written(folder / "pictures", side=32, classes=6, per_class=20)
        for name, stored, decoded in (
            ("stored features", True, True),
            ("pictures from the array", False, True),
            ("pictures from JPEG files", False, False),
        ):
            dataset = ImageFolderSplits(str(root), 32, crop_padding=4, max_cached_bytes=2**31 if decoded else 0)
            data = EpisodicDataModule(
                dataset, image_size=32, tasks_per_batch=tasks, train_episodes=episodes, store_features=stored
            )
            model = FewShotModule(SIB(), BackboneConfig("conv4", image_size=32))
            through_trainer(model, data, folder, test=False)  # decodes and encodes once
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
                cost = through_trainer(model, data, folder, test=False)
            found = {event.key: event.cpu_time_total / 1e6 for event in profiler.key_averages()}
            spent = {section: found.get(section, 0.0) for section in SECTIONS}
            spent["optimiser"] = sum(time for row, time in found.items() if row.startswith("Optimizer.step#"))
            parts = [1e3 * seconds / episodes for seconds in spent.values()]
            whole = 1e3 * cost.wall
            rows.append([name, *(shown(part) for part in parts), max(0.0, whole - sum(parts)), whole])
    return table([f"{tasks} tasks per batch", *SECTIONS, "optimiser", "rest", "whole"], rows)
