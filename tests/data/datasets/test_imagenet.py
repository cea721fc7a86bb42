"""mini-ImageNet and tiered-ImageNet on small trees with their class names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fewshot.data.datasets import MiniImageNet, TieredImageNet, imagenet
from fewshot.data.datasets.base import SPLITS, read_lists
from fewshot.data.transforms import evaluation_transform, training_transform

MakeTree = Callable[..., None]

LISTS = read_lists("mini_imagenet.json")


@pytest.fixture
def mini(tmp_path: Path, make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(imagenet, "MINI_PICTURES_PER_CLASS", 2)
    for split in SPLITS:
        make_tree(tmp_path / split, LISTS[split], 2)
    return tmp_path


def test_the_lists_are_a_hundred_wnids() -> None:
    assert [len(LISTS[split]) for split in SPLITS] == [64, 16, 20]
    wnids = [wnid for split in SPLITS for wnid in LISTS[split]]
    assert len(set(wnids)) == 100 and all(len(wnid) == 9 and wnid[0] == "n" for wnid in wnids)
    # Ravi and Larochelle's split: a class of each as a spot check.
    assert "n01532829" in LISTS["train"] and "n02114548" in LISTS["val"] and "n01930112" in LISTS["test"]


def test_mini_is_stored_at_84_and_used_at_80(mini: Path) -> None:
    data = MiniImageNet(str(mini))
    for split, count in zip(SPLITS, (64, 16, 20), strict=True):
        images = data.images(split)
        assert images.class_names == sorted(LISTS[split]) and len(images) == 2 * count
    pictures = images.read(np.arange(4))
    assert pictures.shape == (4, 3, 84, 84)
    assert evaluation_transform(pictures, data.preprocessing).shape == (4, 3, 80, 80)
    trained = training_transform(pictures, data.preprocessing, torch.Generator())
    assert trained.shape == (4, 3, 80, 80) and data.preprocessing.crop_padding == 8


def test_a_partial_copy_of_mini_is_named(mini: Path) -> None:
    (mini / "val" / "n01855672" / "001.png").unlink()
    with pytest.raises(
        ValueError, match="class 'n01855672' in split 'val' of mini_imagenet has 1 pictures, expected 2"
    ):
        MiniImageNet(str(mini)).images("val")
    shutil.rmtree(mini / "test" / "n01930112")
    with pytest.raises(
        ValueError, match="split 'test' of mini_imagenet has 19 classes, expected 20: missing 'n01930112'"
    ):
        MiniImageNet(str(mini)).images("test")
    assert len(MiniImageNet(str(mini), complete=False).images("test").class_names) == 19


def test_mini_says_which_files_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train/n01532829/<picture>.*64 \+ 16 \+ 20 folders of 600"):
        MiniImageNet(str(tmp_path / "nowhere")).images("train")


def test_tiered_counts_its_classes(tmp_path: Path, make_tree: MakeTree) -> None:
    for split, count, first in (("train", 351, 0), ("val", 97, 400), ("test", 159, 600)):
        make_tree(tmp_path / split, [f"n{number:08d}" for number in range(first, first + count)], 1)
    data = TieredImageNet(str(tmp_path))
    assert len(data.images("train").class_names) == 351 and len(data.images("val").class_names) == 97
    assert data.images("val").read(np.array([0])).shape == (1, 3, 84, 84)
    with pytest.raises(ValueError, match="split 'test' of tiered_imagenet has 159 classes, expected 160"):
        data.images("test")
    assert len(TieredImageNet(str(tmp_path), complete=False).images("test")) == 159
    make_tree(tmp_path / "test", ["n00000400"], 1)
    with pytest.raises(ValueError, match="splits 'test' and 'val' share 1 classes, such as 'n00000400'"):
        data.images("test")


def test_a_split_with_too_many_classes_is_refused_even_for_trials(tmp_path: Path, make_tree: MakeTree) -> None:
    make_tree(tmp_path / "val", [f"n{number:08d}" for number in range(98)], 1)
    with pytest.raises(ValueError, match="split 'val' of tiered_imagenet has 98 classes, expected 97"):
        TieredImageNet(str(tmp_path), complete=False).images("val")
