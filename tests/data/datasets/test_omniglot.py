"""Omniglot in both layouts, both divisions, with and without rotations."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from fewshot.data.datasets import Omniglot, omniglot
from fewshot.data.datasets.base import SPLITS, read_lists
from fewshot.data.transforms import evaluation_transform

LISTS = read_lists("omniglot.json")
VINYALS = {
    split: sorted(
        f"{alphabet}.character{n:02d}" for alphabet, numbers in LISTS["vinyals"][split].items() for n in numbers
    )
    for split in SPLITS
}
ALL = sorted(name for names in VINYALS.values() for name in names)


def draw(folder: Path, numbers: Iterable[int]) -> None:
    """Black ink in one corner of white paper, another length for each drawing."""
    folder.mkdir(parents=True)
    for number in numbers:
        pixels = np.full((105, 105), 255, dtype=np.uint8)
        pixels[:15, : 20 + number] = 0
        Image.fromarray(pixels).convert("1").save(folder / f"{number:02d}.png")


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One drawing of every character as split folders, and as torchvision unpacks them."""
    root = tmp_path_factory.mktemp("omniglot")
    draw(root / "one", [1])
    for split in SPLITS:
        for name in VINYALS[split]:
            alphabet, character = name.rsplit(".", 1)
            part = "images_evaluation" if alphabet in LISTS["background"]["test"] else "images_background"
            for folder in (Path("splits", split, name), Path("archive", "omniglot-py", part, alphabet, character)):
                (root / folder).mkdir(parents=True)
                os.link(root / "one" / "01.png", root / folder / "01.png")
    return {"splits": root / "splits", "archive": root / "archive"}


@pytest.fixture(autouse=True)
def one_drawing_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(omniglot, "DRAWINGS_PER_CHARACTER", 1)


def test_the_lists_divide_1623_characters() -> None:
    assert [len(VINYALS[split]) for split in SPLITS] == [1028, 172, 423] and len(set(ALL)) == 1623
    alphabets = [LISTS["background"][split] for split in SPLITS]
    assert [len(part) for part in alphabets] == [25, 5, 20]
    assert sorted(name for part in alphabets for name in part) == sorted({name.rsplit(".", 1)[0] for name in ALL})


@pytest.mark.parametrize(
    ("layout", "split_by", "sizes"),
    [("splits", "background", (813, 151, 659)), ("archive", "vinyals", (1028, 172, 423))],
)
def test_both_divisions_from_both_layouts(
    layout: str,
    split_by: Literal["vinyals", "background"],
    sizes: tuple[int, ...],
    layouts: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        omniglot, "load_images", lambda pictures, *_, **__: pictures
    )  # of what is found, nothing is read
    data = Omniglot(str(layouts[layout]), split_by=split_by, rotations=False)
    found = [data.images(split).class_names for split in SPLITS]
    assert tuple(map(len, found)) == sizes and sorted(name for names in found for name in names) == ALL


@pytest.mark.slow
def test_rotations_are_classes(layouts: dict[str, Path]) -> None:
    data = Omniglot(str(layouts["splits"]))
    assert [len(data.images(split).class_names) for split in SPLITS] == [4112, 688, 1692]
    images = data.images("val")
    pictures = images.read(np.arange(688)).view(4, 172, 28, 28)
    for turn in range(4):
        assert torch.equal(pictures[turn], pictures[0].rot90(turn, dims=(1, 2)))
        assert images.class_names[172 * turn] == f"{VINYALS['val'][0]}.rot{90 * turn:03d}"
    assert images.labels.tolist() == list(range(688)), "one drawing of each"
    assert images.names[-1] == f"{VINYALS['val'][-1]}.rot270/01.png"


def test_ink_is_bright(layouts: dict[str, Path]) -> None:
    picture = Omniglot(str(layouts["splits"])).images("val").read(np.array([0]))[0, 0]
    assert picture[:3, :4].min() == 255 and picture[5:].max() == 0


def test_drawings_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(omniglot, "DRAWINGS_PER_CHARACTER", 3)
    for name in VINYALS["val"]:
        draw(tmp_path / "val" / name, [2, 3, 1])
    images = Omniglot(str(tmp_path)).images("val")
    assert images.labels[:4].tolist() == [0, 0, 0, 1]
    ink = images.read(np.arange(3)).float().sum(dim=(1, 2, 3))
    assert ink[0] < ink[1] < ink[2]


def test_a_partial_copy_is_named(tmp_path: Path) -> None:
    for name in VINYALS["val"][1:]:
        draw(tmp_path / "val" / name, [1])
    with pytest.raises(
        ValueError, match=f"split 'val' of omniglot has 171 classes, expected 172: missing '{VINYALS['val'][0]}'"
    ):
        Omniglot(str(tmp_path)).images("val")
    assert len(Omniglot(str(tmp_path), complete=False, rotations=False).images("val")) == 171
    with pytest.raises(ValueError, match="split 'train' of omniglot has 0 classes, expected 1028"):
        Omniglot(str(tmp_path), complete=False).images("train")


def test_download_is_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fake(root: str, background: bool, download: bool) -> None:
        asked.append((root, background, download))
        if not background:
            raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(torchvision.datasets, "Omniglot", fake)
    with pytest.raises(ValueError, match=r"omniglot: torchvision could not fetch .*corrupted.* by hand"):
        Omniglot(str(tmp_path), download=True).images("val")
    assert asked == [(str(tmp_path), True, True), (str(tmp_path), False, True)]


def test_what_is_asked_wrongly(tmp_path: Path) -> None:
    wrong: Any = "lake"
    with pytest.raises(ValueError, match="split_by='lake'; choose 'vinyals' or 'background'"):
        Omniglot(split_by=wrong)
    with pytest.raises(FileNotFoundError, match="neither split folders nor omniglot-py/images_background"):
        Omniglot(str(tmp_path)).images("val")


@pytest.mark.slow
def test_real_drawings(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    data = Omniglot(str(data_root / "omniglot"))
    images = data.images("val")
    assert len(images) == 688 * 20
    values = evaluation_transform(images.read(np.arange(0, len(images), 7)), data.preprocessing)
    assert abs(float(values.mean())) < 0.1 and abs(float(values.std()) - 1) < 0.1
