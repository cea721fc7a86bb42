"""Pictures are encoded once: the same features, to the last digit, from wherever they come."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewshot import FewShotClassifier
from fewshot.backbones import BackboneConfig
from fewshot.classification import encoder as subject
from fewshot.classification.encoder import PictureEncoder, in_threads
from fewshot.data.cache import cached_files
from fewshot.data.pictures import open_picture, square_picture
from fewshot.data.transforms import Preprocessing

CONFIG = BackboneConfig("test_efficientnet", image_size=32)
PREPROCESSING = Preprocessing(32, 36, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def backbone() -> torch.nn.Module:
    torch.manual_seed(0)
    return CONFIG.create()


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{number}.png" for number in range(19)]
    for number, file in enumerate(files):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 44, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(file)
    return files


class Counting(PictureEncoder):
    """Says how many pictures the network was given."""

    encoded = 0

    def features_of(self, squares: torch.Tensor) -> torch.Tensor:
        self.encoded += len(squares)
        return super().features_of(squares)


def test_features_depend_neither_on_the_cache_nor_on_the_other_pictures(
    backbone: torch.nn.Module, paths: list[Path]
) -> None:
    without = Counting(backbone, PREPROCESSING, CONFIG, store_features=False)
    wanted = without.encode(paths).features
    made = Counting(backbone, PREPROCESSING, CONFIG)
    assert torch.equal(made.encode(paths[:5]).features, wanted[:5]) and made.encoded == 5
    assert torch.equal(made.encode(paths[::-1]).features, wanted.flip(0)) and made.encoded == 19
    assert torch.equal(made.encode(paths).features, wanted) and made.encoded == 19
    assert torch.equal(made.encode([Image.open(path) for path in paths[7:9]]).features, wanted[7:9])
    assert without.encoded == 19 and wanted.std(0).max() > 0


def test_only_what_is_new_is_encoded_whatever_it_is_called(backbone: torch.nn.Module, paths: list[Path]) -> None:
    made = Counting(backbone, PREPROCESSING, CONFIG)
    before = made.encode(paths).features
    moved = paths[0].parent / "moved"
    moved.mkdir()
    for path in paths[:4]:
        path.rename(moved / path.name)
    paths[4].write_bytes(paths[5].read_bytes())
    made = Counting(backbone, PREPROCESSING, CONFIG)
    new = paths[0]
    Image.new("RGB", (50, 50), (9, 200, 30)).save(new)
    after = made.encode([moved / "0.png", paths[4], new]).features
    assert made.encoded == 1 and torch.equal(after[:2], before[[0, 5]]) and not torch.equal(after[2], before[0])


@pytest.mark.parametrize("change", ["weights", "preprocessing", "precision", "network of one's own", "off"])
def test_what_decides_features_decides_what_is_remembered(
    change: str, backbone: torch.nn.Module, paths: list[Path], cache: Path
) -> None:
    if change in ("network of one's own", "off"):
        config = CONFIG if change == "off" else None
        Counting(backbone, PREPROCESSING, config, store_features=change != "off").encode(paths[:2])
        assert not cached_files(cache)
        return
    Counting(backbone, PREPROCESSING, CONFIG).encode(paths[:2])
    torch.manual_seed(1)
    other = CONFIG.create() if change == "weights" else backbone
    preprocessing = replace(PREPROCESSING, std=(0.3,) * 3) if change == "preprocessing" else PREPROCESSING
    precision = "bf16-mixed" if change == "precision" else "32-true"
    made = Counting(other, preprocessing, CONFIG, precision=precision)
    made.encode(paths[:2])
    assert made.encoded == 2 and len(cached_files(cache)) == 2
    made.encode(paths[:2])
    assert made.encoded == 2
    same = Counting(other, replace(preprocessing, flip=True, crop_padding=2), CONFIG, precision=precision)
    same.encode(paths[:2])
    assert same.encoded == 0  # what training alone does


def test_half_precision_is_near_and_what_is_not_there_is_refused(backbone: torch.nn.Module, paths: list[Path]) -> None:
    single, half = (
        PictureEncoder(backbone, PREPROCESSING, CONFIG, precision=precision).encode(paths[:3]).features
        for precision in ("32-true", "bf16-mixed")
    )
    assert half.dtype == torch.float32 and 0 < (single - half).norm() / single.norm() < 0.05
    with pytest.raises(ValueError, match="precision='16-true'; choose one of 32-true, bf16-mixed, 16-mixed"):
        FewShotClassifier(backbone, preprocessing=PREPROCESSING, precision="16-true").prepare()
    with pytest.raises(ValueError, match="needs a GPU"):
        FewShotClassifier(backbone, preprocessing=PREPROCESSING, precision="16-mixed", device="cpu").prepare()


@pytest.mark.gpu
def test_half_precision_on_a_gpu_is_near(backbone: torch.nn.Module, paths: list[Path]) -> None:
    made = [
        PictureEncoder(copy.deepcopy(backbone), PREPROCESSING, CONFIG, precision=precision, device="cuda")
        for precision in ("32-true", "16-mixed")
    ]
    single, half = (encoder.encode(paths).features for encoder in made)
    assert half.dtype == torch.float32 and 0 < (single - half).norm() / single.norm() < 0.05


def test_broken_pictures_keep_the_places_of_the_others(backbone: torch.nn.Module, paths: list[Path]) -> None:
    made = PictureEncoder(backbone, PREPROCESSING, CONFIG)
    wanted = made.encode(paths).features
    paths[3].write_bytes(b"nothing")
    paths[18].unlink()
    for _ in range(2):
        found = made.encode(paths, skip_broken=True)
        assert [place for place, _ in found.broken] == [3, 18] and len(found.kept) == 17
        assert torch.equal(found.features, wanted[torch.from_numpy(found.kept)])
    with pytest.raises(ValueError, match=r"cannot read picture .*3\.png"):
        made.encode(paths)
    assert not len(made.encode([]).features)


def test_what_was_encoded_before_an_error_is_remembered(backbone: torch.nn.Module, paths: list[Path]) -> None:
    paths[18].write_bytes(b"nothing")
    made = Counting(backbone, PREPROCESSING, CONFIG)
    with pytest.raises(ValueError, match="cannot read"):
        made.encode(paths)
    encoded = made.encoded
    made.encode(paths[:encoded])
    assert made.encoded == encoded >= 16


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    backbone: torch.nn.Module, paths: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changing(path: Path, **options: int) -> Image.Image:
        Path(path).write_bytes(paths[1].read_bytes() + b" ")
        return open_picture(path, **options)

    monkeypatch.setattr("fewshot.classification.given_pictures.open_picture", changing)
    PictureEncoder(backbone, PREPROCESSING, CONFIG).encode(paths[:1])
    assert not cached_files(cache)


def test_a_large_jpeg_is_decoded_at_a_fraction_and_shows_the_same(tmp_path: Path) -> None:
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3)).astype(np.uint8))
    smooth.resize((1200, 896), Image.Resampling.BICUBIC).save(tmp_path / "large.jpg", quality=95)
    whole, part = (open_picture(tmp_path / "large.jpg", at_least=size) for size in (None, subject.LARGER * 36))
    assert (whole.size, part.size) == ((1200, 896), (150, 112))
    squares = [square_picture(picture, PREPROCESSING).astype(int) for picture in (whole, part)]
    assert np.abs(squares[0] - squares[1]).mean() < 1


def test_threads_are_a_bounded_number_of_pictures_ahead_and_stop() -> None:
    begun, lock = [], threading.Lock()

    def look(item: int) -> int:
        with lock:
            begun.append(item)
        return item * item

    results = in_threads(look, range(1000), 5)
    assert [next(results) for _ in range(10)] == [item * item for item in range(10)]
    assert max(begun) <= 10 + 5
    results.close()
    assert max(begun) <= 10 + 5


def test_a_fitted_classifier_reads_what_is_remembered(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(BackboneConfig("conv4_32", image_size=16).create().state_dict(), tmp_path / "weights.pth")
    options = {"backbone": "conv4_32", "weights": str(tmp_path / "weights.pth"), "image_size": 16}
    labels: Sequence[object] = ["a", "b", "a", "b", *[None] * 15]
    first = FewShotClassifier(**options, method="SimpleShot", precision="bf16-mixed").fit(paths, labels)
    first.save(tmp_path / "saved")
    monkeypatch.setattr(PictureEncoder, "features_of", lambda *_: pytest.fail("it encodes"))
    second = FewShotClassifier(**options, method="PTMAP", precision="bf16-mixed").fit(paths, ["b", *labels[1:]])
    assert second.transduction_.shape == (19,)
    loaded = FewShotClassifier.load(tmp_path / "saved")
    assert loaded.precision == "bf16-mixed"
    assert np.array_equal(loaded.predict_proba(paths[4:]), first.predict_proba(paths[4:]))
