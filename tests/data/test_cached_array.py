"""Arrays of the cache: a file whose numbers are not those that were written is never read, and that is said."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewshot.data.cached_array import CachedArray, read_array
from fewshot.data.features import stored_features
from fewshot.data.images import Images, Pictures, load_images
from fewshot.data.transforms import Preprocessing

PREPROCESSING = Preprocessing(8, 8, (0.5,) * 3, (0.5,) * 3)
LABELS = np.arange(6) % 2
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)


def rewritten(path: Path, change: Callable[[np.ndarray], Any]) -> None:
    """What another program would leave: the same name, changed numbers."""
    np.save(path, change(np.load(path, allow_pickle=False)))


def in_place(path: Path, start: float, content: bytes) -> None:
    """Numbers replaced from this share of them on; the header is of 128 bytes and the digest of 32."""
    with path.open("r+b") as file:
        file.seek(128 + int(start * (path.stat().st_size - 160)))
        file.write(content)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "the second half is zeros": (
        lambda path: in_place(path, 0.5, bytes((path.stat().st_size - 160) // 2)),
        "not those",
    ),
    "one row is changed": (lambda path: in_place(path, 0.6, b"\xff\xff\xff\xff"), "not those"),
    "a row of NaN": (lambda path: in_place(path, 0.5, np.full(3, np.nan, "<f4").tobytes()), "not those"),
    "one row too many": (lambda path: rewritten(path, lambda a: np.concatenate([a, a[:, :1]], axis=1)), "it holds"),
    "one row too few": (lambda path: rewritten(path, lambda a: a[..., :-1, :]), "it holds"),
    "another type": (lambda path: rewritten(path, lambda a: a.astype(np.float64)), "it holds float64"),
    "no digest": (lambda path: rewritten(path, lambda a: a), "bytes, not"),
    "bytes behind it": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "bytes, not"),
    "cut": (lambda path: os.truncate(path, 150), ""),
    "empty": (lambda path: os.truncate(path, 0), ""),
    "objects": (lambda path: rewritten(path, lambda a: np.array({})), "Python objects"),
}


class Encoder:
    """Three numbers a picture."""

    calls = 0

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        Encoder.calls += 1
        return inputs.mean((2, 3))


class Drawn(Pictures):
    """Six pictures in memory."""

    names = tuple(f"{i % 2}/{i}" for i in range(6))
    opened = 0

    def open(self, number: int) -> Any:
        from PIL import Image

        Drawn.opened += 1
        return Image.fromarray(PIXELS[number].transpose(1, 2, 0))

    def stamp(self) -> list[str]:
        return ["1"]


def features(images: Images) -> torch.Tensor:
    found = stored_features(Encoder(), images, PREPROCESSING, key="k", name="toys-val")
    return found.read(np.arange(6))


def pictures(images: Images) -> torch.Tensor:
    return load_images(Drawn(), LABELS, ["a", "b"], PREPROCESSING, key="toys-val").read(np.arange(6))


@pytest.mark.parametrize("kind", [features, pictures])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_again_and_said(
    damage: str,
    kind: Callable[[Images], torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))
    images = Images(PIXELS, LABELS, ["a", "b"], Drawn.names)
    expected = kind(images)
    (path,) = tmp_path.iterdir()
    harm, says = DAMAGES[damage]
    harm(path)
    os.utime(path, ns=(1, 1))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(kind(images), expected)
    (message,) = caplog.messages
    assert message.startswith(f"{path} is damaged (") and says in message and message.endswith("made again")
    caplog.clear()
    assert torch.equal(kind(images), expected) and not caplog.messages
    assert list(tmp_path.iterdir()) == [path]


def test_a_digest_is_compared_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"toys-{'a' * 20}.npy"
    whole = CachedArray(path, "u1")
    whole.open()
    whole.begin((4, 2))
    for start in (0, 2):
        whole.append(np.arange(8).reshape(4, 2)[start : start + 2])
    whole.finish()
    array = read_array(path, "u1", (4, None))
    assert array is not None and array.tolist() == np.arange(8).reshape(4, 2).tolist()
    monkeypatch.setattr("fewshot.data.cached_array.READ_AT_ONCE", 0)  # reading would not come to its end
    assert read_array(path, "u1", (None, 2)) is not None
    assert read_array(tmp_path / "none.npy", "u1", (4, 2)) is None


def test_of_every_damaged_file_a_line_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, other = tmp_path / "one.npy", tmp_path / "other.npy"
    one.write_bytes(b"cut")
    os.link(one, other)  # as where a new file gets the number of one that was deleted
    for _ in range(2):
        assert read_array(one, "u1", (4, None)) is None and read_array(other, "u1", (4, None)) is None
    assert [message.split()[0] for message in caplog.messages] == [str(one), str(other)]
