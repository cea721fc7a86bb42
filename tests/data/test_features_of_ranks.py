"""Stored features with two processes: asked for at once, shared out, and an error of one that ends both."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from two_ranks import join, meet, on_two_ranks, raised

from fewshot.data import feature_file
from fewshot.data.features import PassingFeatures, stored_features
from fewshot.data.images import Images, PictureFiles, load_images
from fewshot.data.ranks import gathered
from fewshot.data.transforms import Preprocessing
from fewshot.training.base import share_buffers

pytestmark = pytest.mark.slow

PREPROCESSING = Preprocessing(8, 8, (0.5,) * 3, (0.25,) * 3, crop_padding=2, colour_jitter=0.4, flip=True)
N_PICTURES = 1100  # five batches, the last one not full: three for one rank, two for the other


def pictures(seed: int = 0) -> Images:
    """Random pictures of 3 classes."""
    array = np.random.default_rng(seed).integers(0, 256, (N_PICTURES, 3, 8, 8), dtype=np.uint8)
    labels = np.arange(N_PICTURES) % 3
    return Images(array, labels, ["a", "b", "c"], [f"{i % 3}/{i}" for i in range(N_PICTURES)])


class Encoder:
    """A convolution, whose sums depend on how many pictures come at once if anything does; counts the pictures."""

    def __init__(self) -> None:
        self.seen = 0
        self.weight = torch.randn(16, 3, 3, 3, generator=torch.Generator().manual_seed(0))

    def __call__(self, inputs: Tensor) -> Tensor:
        self.seen += len(inputs)
        return torch.nn.functional.conv2d(inputs, self.weight).mean((2, 3))


def asked(folder: Path, images: Images | None = None, encoder: Any = None, **options: int) -> dict[str, Any]:
    """Ask for the features in a cache folder; what became of it."""
    os.environ["FEWSHOT_CACHE"] = str(folder)
    encoder = encoder or Encoder()
    features = stored_features(encoder, images or pictures(), PREPROCESSING, key="k", name="toys-train", **options)
    digest = hashlib.sha256(features.path.read_bytes()).hexdigest()
    return {"sha256": digest, "seen": getattr(encoder, "seen", 0), "name": features.path.name}


def everything(rank: int, folder: Path) -> dict[str, Any]:
    """All that is tried, in one pair of processes, for starting them takes longest."""
    found: dict[str, Any] = {}
    meet(rank, "start")
    found["at once"] = asked(folder / "at once")
    join(rank)
    found["one folder"] = asked(folder / "one", views=2)
    found["again"] = asked(folder / "one", views=2)
    found["two folders"] = asked(folder / f"own{rank}")
    if rank == 1:
        shutil.rmtree(folder / "own1")
    found["one has it"] = asked(folder / f"own{rank}")
    found["other pictures"] = asked(folder / "other", pictures(seed=rank))
    passing = PassingFeatures()
    encoder = Encoder()
    passing.compute(encoder, pictures(), PREPROCESSING)
    rows = passing.read(np.arange(N_PICTURES))
    found["passing"] = (encoder.seen, hashlib.sha256(rows.numpy().tobytes()).hexdigest())
    found["errors"] = errors(rank, folder)
    norm = torch.nn.BatchNorm1d(2)
    norm.running_mean += 1 + rank
    share_buffers(norm)
    found["buffers"] = norm.running_mean.tolist()
    return found


def errors(rank: int, folder: Path) -> dict[str, str]:
    """What each kind of failure of one rank looks like on this one."""

    def not_finite(inputs: Tensor) -> Tensor:
        return inputs.mean((2, 3)) / (0.0 if rank == 1 else 1.0)

    def out_of_memory(inputs: Tensor) -> Tensor:
        if rank == 0:
            raise MemoryError("no more")
        return inputs.mean((2, 3))

    found = {"not finite": raised(lambda: asked(folder / "full", encoder=not_finite))}
    found["any"] = raised(lambda: asked(folder / "full", encoder=out_of_memory))
    files = sorted((folder / f"pictures{rank}").rglob("*.png"))
    found["unreadable"] = raised(lambda: asked(folder / "full", on_demand(files)))
    real = shutil.disk_usage
    if rank == 0:  # the one that writes

        class Usage:
            free = 10

        feature_file.shutil.disk_usage = lambda path: Usage  # type: ignore[assignment,return-value]
    found["disk full"] = raised(lambda: asked(folder / "full"))
    feature_file.shutil.disk_usage = real
    (folder / "file").touch()
    found["not writable"] = raised(lambda: asked(folder / "file" / "cache" if rank == 1 else folder / "full"))
    found["no file"] = raised(lambda: gathered(lambda: (folder / "nothing").read_text() if rank == 1 else ""))
    return found


def on_demand(files: list[Path]) -> Images:
    """Pictures that are decoded when they are read."""
    labels = np.zeros(len(files), dtype=np.int64)
    return load_images(PictureFiles(files), labels, ["a"], PREPROCESSING, key="toys", max_cached_bytes=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two copies of 300 pictures, of which the second rank's is damaged."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("ranks")
    for rank in range(2):
        (folder / f"pictures{rank}" / "a").mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"pictures{rank}" / "a" / f"{number}.png")
    (folder / "pictures1" / "a" / "2.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """What the two processes found."""
    return on_two_ranks(everything, folder)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The same asked for by this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSHOT_CACHE", "")
        folder = tmp_path_factory.mktemp("alone")
        answers = {"plain": asked(folder), "views": asked(folder, views=2), "other": asked(folder, pictures(seed=1))}
    torch.set_num_threads(threads)
    return answers


def test_two_processes_may_ask_at_once(found, alone, folder):
    for mine in found:
        assert mine["at once"] == alone["plain"]
    assert [path.name for path in (folder / "at once").iterdir()] == [alone["plain"]["name"]]


def test_ranks_share_the_pictures_out_and_write_the_same_file(found, alone, folder):
    for mine in found:
        assert mine["one folder"]["sha256"] == alone["views"]["sha256"]
    assert [mine["one folder"]["seen"] for mine in found] == [N_PICTURES, N_PICTURES]  # of twice as many views
    assert [mine["again"]["seen"] for mine in found] == [0, 0]
    assert [path.name for path in (folder / "one").iterdir()] == [alone["views"]["name"]]


def test_each_folder_gets_its_file_though_every_picture_is_encoded_once(found, alone, folder):
    for rank, mine in enumerate(found):
        assert mine["two folders"]["sha256"] == mine["one has it"]["sha256"] == alone["plain"]["sha256"]
        assert [path.name for path in (folder / f"own{rank}").iterdir()] == [alone["plain"]["name"]]
    assert sum(mine["two folders"]["seen"] for mine in found) == N_PICTURES


def test_ranks_with_other_pictures_encode_their_own(found, alone):
    assert found[0]["other pictures"] == alone["plain"]
    assert found[1]["other pictures"] == alone["other"]


def test_passing_features_are_shared_out(found, alone):
    (first, one), (second, other) = (mine["passing"] for mine in found)
    assert (first, second) == (588, 512) and one == other


def test_an_error_on_one_rank_ends_both(found):
    mine, theirs = (each["errors"] for each in found)
    assert theirs["not finite"].startswith("ValueError: the feature of picture '1/256' is not finite")
    assert mine["not finite"].startswith("ValueError: rank 1: the feature of picture '1/256' is not finite")
    assert mine["any"] == "MemoryError: no more" and theirs["any"] == "RuntimeError: rank 0: MemoryError: no more"
    assert theirs["unreadable"].startswith("ValueError: cannot read picture")
    assert mine["unreadable"].startswith("ValueError: rank 1: cannot read picture")
    assert "but the disk is full (10 bytes are free)" in mine["disk full"]
    assert theirs["disk full"] == mine["disk full"].replace("ValueError: ", "ValueError: rank 0: ")
    assert theirs["not writable"].startswith("ValueError: cannot write features to")
    assert mine["not writable"].startswith("ValueError: rank 1: cannot write features to")
    assert theirs["no file"].startswith("FileNotFoundError: [Errno 2]")
    assert mine["no file"].startswith("FileNotFoundError: rank 1: [Errno 2]")


def test_errors_leave_nothing_behind(found, folder):
    assert list((folder / "full").iterdir()) == []


def test_ranks_take_the_first_ones_buffers(found):
    assert [mine["buffers"] for mine in found] == [[1.0, 1.0], [1.0, 1.0]]
