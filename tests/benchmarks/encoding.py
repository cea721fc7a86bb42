"""Photographs to features: by classify, by fit, by timm's loader with the same network, and by the network alone.

python -m tests.benchmarks encoding [--pictures 100 --megapixels 12 --backbone tf_efficientnet_lite0 --workers 2]

The photographs are made for it, as JPEG. All ways take the network in the same state, with random weights: as fast as
trained ones.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data import ImageDataset, create_loader, resolve_model_data_config

from fewshot import FewShotModule
from fewshot.backbones import BackboneConfig
from fewshot.classification.encoder import PictureEncoder
from fewshot.classification.model import device_of
from fewshot.commands.process import keep_freed_memory
from fewshot.data.datasets import ImageFolderSplits
from fewshot.data.features import stored_features
from fewshot.data.transforms import Preprocessing, adapted_preprocessing
from fewshot.methods import NearestClassMean
from tests.benchmarks.measuring import Cost, machine, measured, medians, own_cache, quiet, say, table
from tests.benchmarks.pictures import smooth

TIMM, ALONE = "timm's loader", "the network alone, on tensors in memory"
GRAIN = 6.0
"""Standard deviation of the noise, of 255: a photograph of 12 megapixels takes about 4 MB with it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks encoding", description=__doc__)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--megapixels", type=float, default=12.0)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes of timm's loader")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=2, help="of which medians are taken, after one that warms up")
    options = parser.parse_args(arguments)
    before = machine()
    keep_freed_memory()
    with own_cache() as folder:
        say(f"{options.pictures} photographs of {options.megapixels:g} megapixels ...")
        size = photographs(folder / "photographs", options.pictures, options.megapixels)
        costs = medians(ways(options, folder / "photographs"), options.repeats)
    rows = [
        [name, cost.per_second, *(costs[other].wall / cost.wall for other in (TIMM, ALONE))]
        for name, cost in costs.items()
    ]
    print(f"{options.pictures} JPEG of {options.megapixels:g} megapixels, {size / 1e6:.1f} MB each, {options.backbone}")
    print(f"\n{before}\n\n{table(['way', 'pictures/s', 'times timm', 'times alone'], rows)}", flush=True)


def photographs(folder: Path, number: int, megapixels: float) -> float:
    """Make so many JPEG files <folder>/all/<picture>; returns their mean size in bytes."""
    (folder / "all").mkdir(parents=True)
    height = math.isqrt(round(megapixels * 1e6 * 3 / 4))

    def make(place: int) -> int:
        rng = np.random.default_rng(place)
        pixels = np.asarray(smooth(rng).resize((height * 4 // 3, height), Image.Resampling.BICUBIC), np.float32)
        grain = rng.standard_normal(pixels.shape[:2], dtype=np.float32)[..., None] * GRAIN
        file = folder / "all" / f"{place:05}.jpg"
        Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8)).save(file, quality=92)
        return file.stat().st_size

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return float(np.mean(list(pool.map(make, range(number)))))


def ways(options: argparse.Namespace, folder: Path) -> dict[str, Callable[[], Cost]]:
    """What is compared, by name."""
    torch.manual_seed(0)
    config = BackboneConfig(options.backbone)
    network, device = config.create().eval(), device_of(options.device)
    about = resolve_model_data_config(network)
    plain = Preprocessing(224, 224, (0.5,) * 3, (0.5,) * 3)
    preprocessing = adapted_preprocessing(plain, wanted=about)
    made = functools.partial(
        PictureEncoder, network, preprocessing, config, device=device, batch_size=options.batch_size
    )
    files = sorted((folder / "all").iterdir())
    network.to(device)

    def by_timm() -> None:
        loader = create_loader(
            ImageDataset(str(folder)),
            input_size=about["input_size"],
            batch_size=options.batch_size,
            num_workers=options.workers,
            crop_pct=about["crop_pct"],
            interpolation=about["interpolation"],
            mean=about["mean"],
            std=about["std"],
            device=device,
            use_prefetcher=device.type == "cuda",
            persistent_workers=False,
        )
        with torch.no_grad():
            for pictures, _ in loader:
                network(pictures.to(device, memory_format=torch.channels_last)).float().cpu()

    def network_alone() -> None:
        with torch.no_grad():
            for _ in range(0, len(files), len(in_memory)):
                network(in_memory.to(device, memory_format=torch.channels_last)).float().cpu()

    counted = itertools.count()
    dataset = ImageFolderSplits(
        str(folder.parent),
        train_folder=folder.name,
        image_size=preprocessing.image_size,
        stored_size=preprocessing.stored_size,
        interpolation=preprocessing.interpolation,
        max_cached_bytes=0,
    )
    module = FewShotModule(NearestClassMean(), config).to(device)

    def by_fit() -> None:
        with quiet():
            images = dataset.images("train")
            stored_features(module.encode, images, dataset.preprocessing, key=str(next(counted)), name="benchmark")

    in_memory = torch.randn(min(options.batch_size, len(files)), *about["input_size"])
    at_once = -(-len(files) // len(in_memory)) * len(in_memory)
    remembering = made()
    found = {
        "classify's encoder, nothing remembered": lambda: made(store_features=False).encode(files),
        "fit's encoder of a frozen backbone, decoded as it is read": by_fit,
        TIMM: by_timm,
        "classify's encoder, all remembered": lambda: remembering.encode(files),
        ALONE: network_alone,
    }
    numbers = {ALONE: at_once}
    return {name: functools.partial(measured, way, numbers.get(name, len(files))) for name, way in found.items()}


if __name__ == "__main__":
    main()
