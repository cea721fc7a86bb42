"""CUB in its archive's layout and as split folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fewshot.data.datasets import CUB, cub
from fewshot.data.datasets.base import SPLITS, read_lists

MakeTree = Callable[..., None]

LISTS = read_lists("cub.json")
ALL = sorted(name for split in SPLITS for name in LISTS[split])


@pytest.fixture(autouse=True)
def two_pictures_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cub, "PICTURES_PER_CLASS", range(2, 4))


def test_the_lists_divide_two_hundred_species() -> None:
    assert [len(LISTS[split]) for split in SPLITS] == [100, 50, 50]
    assert [name[:4] for name in ALL] == [f"{number:03d}." for number in range(1, 201)]


@pytest.mark.parametrize("folder", ["CUB_200_2011/images", "images"])
def test_the_layout_of_the_archive(folder: str, tmp_path: Path, make_tree: MakeTree) -> None:
    make_tree(tmp_path / folder, ALL, 2)
    for split in SPLITS:
        images = CUB(str(tmp_path)).images(split)
        assert images.class_names == LISTS[split] and len(images) == 2 * len(LISTS[split])
    assert images.read(np.array([0])).shape == (1, 3, 96, 96)


def test_split_folders_and_a_wrong_split(tmp_path: Path, make_tree: MakeTree) -> None:
    make_tree(tmp_path / "val", LISTS["val"], 2)
    assert CUB(str(tmp_path)).images("val").class_names == LISTS["val"]
    make_tree(tmp_path / "test", LISTS["train"][:50], 2)
    with pytest.raises(
        ValueError, match=r"split 'test' of cub has 50 classes, expected 50: missing '004\..*; unexpected '001"
    ):
        CUB(str(tmp_path)).images("test")


def test_a_partial_copy_is_named(tmp_path: Path, make_tree: MakeTree) -> None:
    make_tree(tmp_path / "images", ALL[:-1], 2)
    missing = "200.Common_Yellowthroat"
    (split,) = [split for split in SPLITS if missing in LISTS[split]]
    with pytest.raises(ValueError, match=rf"split '{split}' of cub .*missing '{missing}'"):
        CUB(str(tmp_path)).images(split)
    (tmp_path / "images" / ALL[0] / "001.png").unlink()
    with pytest.raises(ValueError, match=rf"class '{ALL[0]}' in split 'train' of cub has 1 pictures, expected 2 to 3"):
        CUB(str(tmp_path)).images("train")
    (tmp_path / "images" / ALL[0] / "000.png").unlink()
    with pytest.raises(ValueError, match="has 0 pictures, expected at least 1"):
        CUB(str(tmp_path), complete=False).images("train")


def test_a_folder_with_neither_layout(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"neither split folders nor CUB_200_2011/images; unpack CUB_200_2011\.tgz"
    ):
        CUB(str(tmp_path)).images("train")
