"""Shipped configs in seconds: options that make everything few, and a few pictures in the place of each data set."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from fewshot.data.datasets.base import SPLITS, read_lists

N_QUERY = 3
PICTURES_PER_CLASS = 5 + N_QUERY
N_EPISODES = 2
FEW_STEPS = {"n_iterations": 5, "n_rounds": 2, "n_head_steps": 5}
INCOMPLETE = "--data.dataset.init_args.complete=false"


@cache
def load(config: Path) -> DictConfig:
    """A config as OmegaConf reads it, not to be changed; interpolations are filled in when a value is asked for."""
    loaded = OmegaConf.load(config)
    assert isinstance(loaded, DictConfig)
    OmegaConf.set_readonly(loaded, True)
    return loaded


def cifar_fs_classes(split: str) -> list[str]:
    """All of the training classes, for pre-training counts them, and as many of the others as an episode needs."""
    names = sorted(read_lists("cifar100.json")["cifar_fs"][split])
    return names if split == "train" else names[:5]


def mini_imagenet_classes(split: str) -> list[str]:
    """As cifar_fs_classes."""
    names = sorted(read_lists("mini_imagenet.json")[split])
    return names if split == "train" else names[:5]


def omniglot_classes(split: str) -> list[str]:
    """Five characters, which turned four times make twenty classes."""
    lists = read_lists("omniglot.json")["vinyals"][split]
    return [f"{alphabet}.character{number:02d}" for alphabet in lists for number in lists[alphabet]][:5]


def tiny_imagenet_classes(split: str) -> list[str]:
    """As cifar_fs_classes; the folders' names are free."""
    return [f"{split}{number:02d}" for number in range(64 if split == "train" else 5)]


SMALL_COPIES: dict[str, tuple[str, int, Callable[[str], list[str]]]] = {
    "CIFARFS": ("cifar_fs", 32, cifar_fs_classes),
    "MiniImageNet": ("mini_imagenet", 84, mini_imagenet_classes),
    "Omniglot": ("omniglot", 28, omniglot_classes),
    "ImageFolderSplits": ("tiny_imagenet_fs", 64, tiny_imagenet_classes),
}
"""What a data set's folder is called, how large its pictures are, and the classes that each split gets."""


def write_pictures(root: Path, size: int, classes_of: Callable[[str], list[str]]) -> None:
    """A tree <root>/<split>/<class>/<picture> of coarse noise, around a shade of the class's own."""
    generator = np.random.default_rng(0)
    for split in SPLITS:
        for name in classes_of(split):
            (root / split / name).mkdir(parents=True)
            shade = generator.integers(64, 192, 3)
            for number in range(PICTURES_PER_CLASS):
                pixels = shade + generator.integers(-64, 64, (4, 4, 3))
                picture = Image.fromarray(pixels.astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST)
                picture.save(root / split / name / f"{number:02d}.png")


def small(config: Path, workplace: Path) -> list[str]:
    """Options that leave a config as it is but make everything few; writes the pictures it needs, if not yet there."""
    loaded = load(config)
    data, dataset = loaded.data.init_args, loaded.data.init_args.dataset
    options = ["max_epochs=1", "log_every_n_steps=1", "enable_progress_bar=false", "enable_model_summary=false"]
    changes = [f"--trainer.{option}" for option in (*options, "accelerator=cpu", "devices=1")]
    changes += [f"--data.n_query={N_QUERY}", f"--data.val_episodes={N_EPISODES}", f"--data.test_episodes={N_EPISODES}"]
    method = loaded.model.init_args.get("method", {}).get("init_args", {})
    changes += [f"--model.method.init_args.{name}={few}" for name, few in FEW_STEPS.items() if name in method]
    if data.get("train_n_query"):
        changes += ["--data.train_n_shot=[1,5]", f"--data.train_n_query=[2,{N_QUERY}]"]
    if data.get("augmented_views"):
        changes.append("--data.augmented_views=2")
    if data.get("num_workers"):
        changes.append("--data.num_workers=0")
    if dataset.class_path == "Glyphs":
        return [*changes, f"--data.dataset.init_args.pictures_per_class={data.n_shot + N_QUERY}"]
    if dataset.class_path not in SMALL_COPIES:
        pytest.fail(f"{config.name} uses {dataset.class_path}; give it a small copy in SMALL_COPIES")
    spaces = data.get("spaces", [])
    folders = [Path(one.init_args.root).name for one in (dataset, *(space.dataset for space in spaces))]
    copies = {folder: (size, classes_of) for folder, size, classes_of in SMALL_COPIES.values()}
    for folder in folders:
        if not (workplace / "data" / folder).exists():
            write_pictures(workplace / "data" / folder, *copies.get(folder, (64, tiny_imagenet_classes)))
    if loaded.model.init_args.backbone.get("pretrained"):  # nothing is fetched
        changes.append("--model.backbone.pretrained=false")
    if spaces:
        written = OmegaConf.to_container(loaded, resolve=True)["data"]["init_args"]["spaces"]  # type: ignore[call-overload,index]
        few = [{**space, "backbone": {**space["backbone"], "pretrained": False}} for space in written[:2]]
        changes.append(f"--data.spaces={json.dumps(few)}")
    return changes if dataset.class_path == "ImageFolderSplits" else [*changes, INCOMPLETE]
