"""CIFAR-FS and FC100, from folders and from torchvision's CIFAR-100."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from fewshot.data.datasets import CIFARFS, FC100, cifar
from fewshot.data.datasets.base import SPLITS, read_lists
from fewshot.data.transforms import evaluation_transform

MakeTree = Callable[..., None]

LISTS = read_lists("cifar100.json")
SIZES = {CIFARFS: (64, 16, 20), FC100: (60, 20, 20)}


def class_names(kind: Any, split: str) -> list[str]:
    if kind is CIFARFS:
        return LISTS["cifar_fs"][split]
    return sorted(c for c, s in LISTS["superclass_of"].items() if s in LISTS["fc100_superclasses"][split])


@pytest.fixture
def tree(tmp_path: Path, make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All hundred classes as CIFAR-FS, three pictures each, which are made to count as complete."""
    monkeypatch.setattr(cifar, "PICTURES_PER_CLASS", 3)
    for split in SPLITS:
        make_tree(tmp_path / split, LISTS["cifar_fs"][split], 3)
    return tmp_path


def test_the_lists_divide_the_hundred_classes() -> None:
    assert len(LISTS["superclass_of"]) == 100 and len(set(LISTS["superclass_of"].values())) == 20
    for kind, sizes in SIZES.items():
        parts = [class_names(kind, split) for split in SPLITS]
        assert tuple(map(len, parts)) == sizes
        assert sorted(name for part in parts for name in part) == sorted(LISTS["superclass_of"])
    assert [len(LISTS["fc100_superclasses"][split]) for split in SPLITS] == [12, 4, 4]


@pytest.mark.parametrize("kind", [CIFARFS, FC100])
@pytest.mark.parametrize("split", SPLITS)
def test_both_read_the_folders_of_cifar_fs(kind: Any, split: str, tree: Path) -> None:
    images = kind(str(tree)).images(split)
    assert images.class_names == sorted(class_names(kind, split))
    assert np.bincount(images.labels).tolist() == [3] * len(images.class_names)
    assert all(
        name.startswith(images.class_names[k] + "/") for name, k in zip(images.names, images.labels, strict=True)
    )
    assert images.read(np.array([0])).shape == (1, 3, 32, 32)


def test_the_class_train_inside_the_split_train(tree: Path) -> None:
    images = CIFARFS(str(tree)).images("train")
    assert "train" in images.class_names and (tree / "train" / "train").is_dir()
    assert "train" in FC100(str(tree)).images("train").class_names


def test_a_missing_class_is_named(tree: Path) -> None:
    shutil.rmtree(tree / "train" / "apple")
    message = "split 'train' of cifar_fs has 63 classes, expected 64: missing 'apple'; "
    with pytest.raises(ValueError, match=re.escape(message)):
        CIFARFS(str(tree)).images("train")
    assert len(CIFARFS(str(tree), complete=False).images("train").class_names) == 63
    with pytest.raises(ValueError, match="split 'train' of fc100 has 59 classes, expected 60: missing 'apple'"):
        FC100(str(tree)).images("train")
    FC100(str(tree)).images("val")


def test_another_split_and_missing_pictures_are_named(tree: Path) -> None:
    (tree / "val" / "otter" / "002.png").unlink()
    with pytest.raises(ValueError, match="class 'otter' in split 'val' of cifar_fs has 2 pictures, expected 3"):
        CIFARFS(str(tree)).images("val")
    assert len(CIFARFS(str(tree), complete=False).images("val")) == 47
    (tree / "test" / "baby").rename(tree / "val" / "baby")
    for complete in (True, False):
        with pytest.raises(ValueError, match="has 17 classes, expected 16: unexpected 'baby'"):
            CIFARFS(str(tree), complete=complete).images("val")


class FakeCIFAR100:
    """Stands in for torchvision's: eight pictures of each class in both parts together, colour = class and number."""

    def __init__(self, root: str, train: bool, download: bool) -> None:
        self.class_to_idx = {name: number for number, name in enumerate(sorted(LISTS["superclass_of"]))}
        self.targets = list(np.random.default_rng(0).permutation(np.repeat(np.arange(100), 6 if train else 2)))
        self.data = np.zeros((len(self.targets), 32, 32, 3), dtype=np.uint8)
        self.data[..., 0] = np.array(self.targets)[:, None, None]
        self.data[..., 1] = 255 * train

    def __len__(self) -> int:
        return len(self.targets)


@pytest.mark.parametrize("kind", [CIFARFS, FC100])
@pytest.mark.parametrize("split", SPLITS)
def test_built_from_torchvisions_archive(
    kind: Any, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision.datasets, "CIFAR100", FakeCIFAR100)
    (tmp_path / "cifar-100-python").mkdir()
    for data in (kind(str(tmp_path)), kind(str(tmp_path / "new"), download=True)):
        images = data.images(split)
        assert images.class_names == sorted(class_names(kind, split))
        assert np.bincount(images.labels).tolist() == [8] * len(images.class_names)
        number = {name: n for n, name in enumerate(sorted(LISTS["superclass_of"]))}
        pixels = images.read(np.arange(len(images)))[:, :, 5, 5]
        assert pixels[:, 0].tolist() == [number[images.class_names[label]] for label in images.labels]
        assert ["train" in name.split("/")[1] for name in images.names] == (pixels[:, 1] == 255).tolist()
        assert len(set(images.names)) == len(images)


def test_an_archive_of_another_md5_is_not_opened(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test", "meta"):
        (folder / name).write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    with pytest.raises(ValueError, match=r"cifar_fs: torchvision could not fetch or verify .*cifar-100-python"):
        CIFARFS(str(tmp_path)).images("val")
    assert not Path("opened").exists()


def test_a_folder_with_neither_layout_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has neither split folders nor cifar-100-python; .*download=true"):
        FC100(str(tmp_path)).images("val")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [CIFARFS, FC100])
def test_real_pictures(kind: Any, data_root: Path) -> None:
    data = kind(str(data_root / "cifar_fs"))
    images = data.images("val")
    assert len(images) == 600 * SIZES[kind][1]
    values = evaluation_transform(images.read(np.arange(0, len(images), 10)), data.preprocessing)
    assert values.mean(dim=(0, 2, 3)).abs().max() < 0.3 and (values.std(dim=(0, 2, 3)) - 1).abs().max() < 0.2
    assert torch.isfinite(values).all()
