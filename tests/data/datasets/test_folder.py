"""ImageFolderSplits, and what every data set has in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import pytest
import torch
from PIL import Image

from fewshot.data.datasets import (
    CIFARFS,
    CUB,
    FC100,
    FewShotDataset,
    ImageFolderSplits,
    MiniImageNet,
    Omniglot,
    TieredImageNet,
)
from fewshot.data.picture_files import files_below

MakeTree = Callable[..., None]

FROM_FILES = (CIFARFS, CUB, FC100, ImageFolderSplits, MiniImageNet, Omniglot, TieredImageNet)


@pytest.fixture
def tree(tmp_path: Path, make_tree: MakeTree) -> Path:
    for split, classes in (("train", "cab"), ("val", "d"), ("test", "ef")):
        make_tree(tmp_path / "mine" / split, classes, 3)
    return tmp_path / "mine"


def test_pictures_in_the_order_of_their_names(tree: Path) -> None:
    data = ImageFolderSplits(str(tree), image_size=4)
    images = data.images("train")
    assert data.name == "mine" and images.class_names == ["a", "b", "c"]
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert list(images.names)[:4] == ["a/000.png", "a/001.png", "a/002.png", "b/000.png"]
    # make_tree numbers classes in the order given: c is 0, a is 1, b is 2.
    assert images.read(np.arange(9))[:, :2, 0, 0].tolist() == [[k, n] for k in (1, 2, 0) for n in range(3)]


def test_folders_by_other_names(tree: Path) -> None:
    (tree / "val").rename(tree / "novel")
    data = ImageFolderSplits(str(tree), 4, val_folder="novel", name="my birds/2024")
    assert data.images("val").class_names == ["d"] and data.name == "my birds/2024"
    with pytest.raises(FileNotFoundError, match=r"named: split 'test' has no folder .*elsewhere"):
        ImageFolderSplits(str(tree), 4, test_folder="elsewhere", name="named").images("test")


def test_endings_in_any_case_nested_folders_and_what_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "a"
    (folder / "deeper" / "still").mkdir(parents=True)
    (tmp_path / "train" / ".hidden").mkdir()
    names = ["1.png", "2.JPG", "3.jpeg", "4.WebP", "5.BMP", "6.tif", "7.TIFF", "8.gif", "9.ppm", "deeper/still/9.pgm"]
    for name in (*names, ".6.png", "../loose.png"):
        Image.new("L" if name.endswith("pgm") else "RGB", (4, 4)).save(folder / name)
    for name in ("notes.txt", "Thumbs.db", "no ending", "x.heics", "raw.NEF", "raw.nef"):
        (folder / name).write_text("no picture")
    with pytest.warns(UserWarning, match="split 'train': 7 files are left out") as told:
        images = ImageFolderSplits(str(tmp_path), 4).images("train")
    assert "2 .nef" in str(told[0].message) and "1 without ending" in str(told[0].message)
    assert str(told[0].message).endswith(f"the first: {tmp_path}/train/loose.png: it lies in no class folder")
    assert list(images.names) == [f"a/{name}" for name in names]
    assert images.class_names == ["a"] and len(images.read(np.arange(len(names)))) == len(names)


def test_a_link_to_nothing_and_a_pipe_are_named(tree: Path) -> None:
    (tree / "val" / "d" / "gone.png").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"cannot read picture .*gone\.png"):
        ImageFolderSplits(str(tree), 4).images("val")
    (tree / "val" / "d" / "gone.png").unlink()
    os.mkfifo(tree / "val" / "d" / "pipe.jpg")
    with pytest.raises(ValueError, match=r"pipe\.jpg \(it is no regular file\)"):
        ImageFolderSplits(str(tree), 4).images("val")


def test_preprocessing_is_the_sets_own_or_the_one_asked_for(tree: Path) -> None:
    data = ImageFolderSplits(str(tree), 4, stored_size=6, channels=1)
    assert data.preprocessing.mean == pytest.approx((0.449,))
    index = np.array([0, 1])
    assert data.images("test").read(index).shape == (2, 1, 6, 6)
    asked = data.preprocessing.with_channels(3).with_image_size(8)
    assert data.images("test", asked).read(index).shape == (2, 3, 12, 12)


def test_large_splits_are_decoded_when_read(tree: Path) -> None:
    held, on_demand = (ImageFolderSplits(str(tree), 4, max_cached_bytes=limit).images("train") for limit in (2**30, 0))
    assert held.memory_mapped and not on_demand.memory_mapped
    assert torch.equal(held.read(np.arange(9)), on_demand.read(np.arange(9)))


def test_home_and_variables_in_root(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tree.parent))
    monkeypatch.setenv("WHERE", str(tree.parent))
    for root in ("~/mine", "$WHERE/mine", "${WHERE}/mine"):
        data = ImageFolderSplits(root, 4)
        assert data.name == "mine" and len(data.images("val")) == 3


@pytest.mark.parametrize("kind", FROM_FILES)
def test_constructing_touches_no_file_and_a_missing_root_says_what_to_do(kind: Any, tmp_path: Path) -> None:
    data = kind(root=str(tmp_path / "nowhere"))
    for split in ("train", "val", "test"):
        with pytest.raises(FileNotFoundError, match=rf"no folder {tmp_path}/nowhere \(root=.*(put|unpack) ") as error:
            data.images(split)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="has no split 'valid'; choose one of train, val, test"):
        data.images("valid")


@pytest.mark.parametrize("kind", FROM_FILES)
def test_every_set_is_built_by_its_bare_name(kind: Any) -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--dataset", type=FewShotDataset)
    parsed = parser.parse_object({"dataset": {"class_path": kind.__name__, "init_args": {"root": "there"}}})
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # renamed in jsonargparse 4.5x
    data = instantiate(parsed).dataset
    assert type(data) is kind and data.root == "there" and data.preprocessing.image_size >= 28
    assert kind.__doc__ and (kind is ImageFolderSplits or "20" in kind.__doc__), "cites its paper"


def test_shared_classes_are_named(tree: Path, make_tree: MakeTree) -> None:
    make_tree(tree / "test", "b", 1)
    with pytest.raises(ValueError, match=r"splits 'train' and 'test' share 1 classes, such as 'b' \(.*test.b\)"):
        ImageFolderSplits(str(tree), 4).images("train")
    ImageFolderSplits(str(tree), 4).images("val")


def test_an_empty_split_and_an_empty_class_are_named(tree: Path) -> None:
    (tree / "val" / "e").mkdir()
    with pytest.raises(
        ValueError, match=r"class 'e' of split 'val' has no picture; .*val.e needs files ending in \.png"
    ):
        ImageFolderSplits(str(tree), 4).images("val")
    for path in (tree / "test").rglob("*.png"):
        path.unlink()
    for path in (tree / "test").iterdir():
        path.rmdir()
    with pytest.raises(ValueError, match=r"split 'test' is empty; .*test has no class folder"):
        ImageFolderSplits(str(tree), 4).images("test")


def test_an_unreadable_picture_is_named(tree: Path) -> None:
    (tree / "val" / "d" / "001.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"cannot read picture .*val.d.001\.png"):
        ImageFolderSplits(str(tree), 4).images("val")


@pytest.mark.slow
def test_real_pictures_grey_ones_among_them(data_root: Path) -> None:
    data = ImageFolderSplits(str(data_root / "tiny_imagenet_fs"), image_size=84)
    images = data.images("val")
    assert len(images) == 16 * 150 and images.read(np.arange(0, 2400, 100)).shape == (24, 3, 84, 84)


def test_a_folder_that_goes_while_it_is_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "gone").mkdir(parents=True)
    listed = os.scandir

    def scandir(place: str) -> object:
        if str(place).endswith("gone"):
            raise OSError(5, "Input/output error", str(place))
        return listed(place)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ValueError, match=r"gone cannot be read \(Input/output error\)"):
        list(files_below(tmp_path / "a"))
