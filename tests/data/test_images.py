"""Decoding, caching and reading pictures."""

from __future__ import annotations

import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as reference

from fewshot.data import images as subject
from fewshot.data.cache import cache_dir
from fewshot.data.images import Images, PictureFiles, load_images
from fewshot.data.pictures import open_picture, square_picture
from fewshot.data.transforms import Preprocessing

COLOUR = Preprocessing(8, 8, (0.5,) * 3, (0.5,) * 3)
GREY = COLOUR.with_channels(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Six pictures of two classes."""
    generator = np.random.default_rng(0)
    paths = []
    for class_name in ("cat", "dog"):
        (tmp_path / "set" / class_name).mkdir(parents=True)
        for number in range(3):
            paths.append(tmp_path / "set" / class_name / f"{number}.png")
            Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(paths[-1])
    return paths


def load(files: list[Path], preprocessing: Preprocessing = COLOUR, **options: int) -> Images:
    labels = np.array([0, 0, 0, 1, 1, 1])
    return load_images(PictureFiles(files), labels, ["cat", "dog"], preprocessing, key="set-train", **options)


def pixels(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(path)).transpose(2, 0, 1).copy())


@pytest.mark.parametrize("limit", [subject.MAX_CACHED_BYTES, 0])
def test_pictures_labels_and_names(files: list[Path], limit: int) -> None:
    images = load(files, max_cached_bytes=limit)
    assert len(images) == 6 and images.class_names == ["cat", "dog"] and images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.labels.dtype == np.int64
    assert list(images.names) == ["cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png", "dog/2.png"]
    result = images.read(np.array([5, 0, 5]))
    assert result.dtype == torch.uint8 and result.shape == (3, 3, 8, 8)
    assert torch.equal(result, torch.stack([pixels(files[number]) for number in (5, 0, 5)]))
    assert images.memory_mapped == bool(limit)
    result.zero_()
    assert images.read(np.array([5])).any(), "what read returns is a copy"


def test_the_second_time_nothing_is_decoded(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    first = load(files)
    assert [path.suffix for path in own_cache.iterdir()] == [".npy"]
    monkeypatch.setattr(subject, "open_picture", lambda path: pytest.fail("decoded again"))
    second = load(files)
    assert first.fingerprint == second.fingerprint
    assert torch.equal(first.read(np.arange(6)), second.read(np.arange(6)))


def test_of_two_that_ask_at_once_one_decodes(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    decoded = []

    def slowly(path: str) -> Image.Image:
        decoded.append(path)
        time.sleep(0.1)
        return open_picture(path)

    monkeypatch.setattr(subject, "open_picture", slowly)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(load, [files, files])
    assert sorted(decoded) == sorted(map(str, files))
    assert torch.equal(first.read(np.arange(6)), second.read(np.arange(6)))
    assert [path.suffix for path in own_cache.iterdir()] == [".npy"]


def test_a_changed_picture_is_decoded_again(files: list[Path]) -> None:
    first = load(files)
    Image.new("RGB", (8, 8), "red").save(files[2])
    os.utime(files[2], ns=(1, 1))
    second = load(files)
    assert first.fingerprint != second.fingerprint
    assert second.read(np.array([2]))[0, :, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    "preprocessing", [GREY, COLOUR.with_image_size(9), Preprocessing(8, 9, *[(0.5,) * 3] * 2, interpolation="nearest")]
)
def test_other_preprocessing_has_another_file(files: list[Path], own_cache: Path, preprocessing: Preprocessing) -> None:
    load(files, COLOUR)
    shape = tuple(load(files, preprocessing).read(np.array([0])).shape[1:])
    assert shape == (preprocessing.channels, preprocessing.stored_size, preprocessing.stored_size)
    assert len(list(own_cache.iterdir())) == 2


def test_a_broken_cached_array_is_made_again(files: list[Path], own_cache: Path) -> None:
    expected = load(files).fingerprint
    (path,) = own_cache.iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    assert load(files).fingerprint == expected
    path.write_bytes(b"")
    assert load(files).fingerprint == expected


def test_nothing_is_left_behind_when_decoding_fails(files: list[Path], own_cache: Path) -> None:
    files[4].write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"cannot read picture .*dog.1\.png .*replace or remove"):
        load(files)
    assert list(own_cache.iterdir()) == []


def test_on_demand_an_unreadable_picture_is_named_when_read(files: list[Path]) -> None:
    files[4].write_bytes(files[4].read_bytes()[:60])
    images = load(files, max_cached_bytes=0)
    images.read(np.array([0, 3]))
    with pytest.raises(ValueError, match=r"dog.1\.png"):
        images.read(np.array([0, 4]))


def test_a_cache_that_cannot_be_written_is_named(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ValueError, match="set FEWSHOT_CACHE to another folder"):
        load(files)


def test_cache_folder_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEWSHOT_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "fewshot"


@pytest.mark.parametrize("limit", [subject.MAX_CACHED_BYTES, 0])
def test_workers_receive_the_file_and_not_its_contents(files: list[Path], limit: int) -> None:
    images = load(files, COLOUR.with_image_size(64), max_cached_bytes=limit)
    message = pickle.dumps(images)
    assert len(message) < 4000 < 6 * 3 * 64 * 64
    copy = pickle.loads(message)
    assert torch.equal(copy.read(np.arange(6)), images.read(np.arange(6))) and copy.fingerprint == images.fingerprint


def test_fingerprint_sees_labels_and_names(files: list[Path]) -> None:
    array = load(files).read(np.arange(6)).numpy()
    made = [
        Images(array, np.array(labels), classes, ["?"] * 6).fingerprint
        for labels, classes in (([0, 0, 0, 1, 1, 1], "ab"), ([0, 0, 1, 1, 1, 1], "ab"), ([0, 0, 0, 1, 1, 1], "ac"))
    ]
    assert len(set(made)) == 3 and all(len(value) == 64 for value in made)


def test_reading_a_few_hundred_small_pictures_takes_less_than_a_millisecond(tmp_path: Path) -> None:
    path = subject.cache_path("speed", {})
    array = subject.write_cached(path, (20000, 3, 32, 32), [np.zeros((20000, 3, 32, 32), np.uint8)])
    images = Images(array, np.zeros(20000, np.int64), ["a"], ["a/b"] * 20000)
    index = np.random.default_rng(0).integers(0, 20000, 300)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        images.read(index)
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3


def test_a_long_decoding_says_how_far_it_is(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load(files)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("fewshot.data.pictures.SECONDS_BEFORE_PROGRESS", 0.0)
    load(files, GREY)
    assert "6/6" in capsys.readouterr().err


class TestDecoding:
    """Modes, rotation and sizes."""

    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "I"])
    @pytest.mark.parametrize("preprocessing", [COLOUR, GREY])
    def test_any_mode_becomes_the_wanted_channels(
        self, mode: str, preprocessing: Preprocessing, tmp_path: Path
    ) -> None:
        endings = {"CMYK": "jpg", "YCbCr": "jpg"}
        path = tmp_path / f"picture.{endings.get(mode, 'png')}"
        if mode.startswith("I"):
            picture = Image.fromarray(np.full((12, 16), 65535, dtype=np.uint16))
        else:
            picture = Image.new("RGB", (16, 12), "white").convert(mode)
        picture.save(path)
        result = square_picture(open_picture(path), preprocessing)
        assert result.shape == (preprocessing.channels, 8, 8) and result.dtype == np.uint8
        assert result.min() >= 254

    def test_sixteen_bit_grey_keeps_its_steps(self, tmp_path: Path) -> None:
        values = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "deep.png")
        result = square_picture(open_picture(tmp_path / "deep.png"), GREY)[0]
        assert np.array_equal(result, np.round(values / 257).astype(np.uint8))

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
    def test_behind_transparency_is_white(self, mode: str, tmp_path: Path) -> None:
        clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
        if mode == "P":
            picture = Image.new("P", (8, 8), 0)
            picture.putpalette([10, 20, 30, 40, 50, 60])
            picture.save(tmp_path / "picture.png", transparency=0)
        else:
            clear.convert(mode).save(tmp_path / "picture.png")
        assert square_picture(open_picture(tmp_path / "picture.png"), COLOUR).min() == 255

    def test_exif_rotation_is_applied(self, tmp_path: Path) -> None:
        picture = Image.new("L", (8, 8), 0)
        picture.paste(255, (0, 0, 8, 4))  # bright above
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise by 90 degrees for viewing
        picture.save(tmp_path / "turned.jpg", exif=exif, quality=100)
        result = square_picture(open_picture(tmp_path / "turned.jpg"), GREY)[0]
        assert result[:, 5:].min() > 200 and result[:, :3].max() < 50, "above has become right"

    @pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
    @pytest.mark.parametrize("size", [(64, 32), (32, 64), (48, 48), (8, 8), (4, 4)])
    def test_resize_is_torchvisions_shorter_edge_and_middle(self, interpolation: str, size: tuple[int, int]) -> None:
        generator = np.random.default_rng(0)
        picture = Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        preprocessing = Preprocessing(8, 8, COLOUR.mean, COLOUR.std, interpolation=interpolation)
        mode = reference.InterpolationMode(interpolation)
        expected = reference.center_crop(reference.resize(picture, 8, mode), [8, 8])
        result = square_picture(picture, preprocessing).transpose(1, 2, 0)
        # Pillow rounds to 8 bits between rows and columns, and cutting first may change which comes first.
        assert np.abs(result.astype(int) - np.asarray(expected)).max() <= (interpolation != "nearest")

    def test_a_very_long_picture_is_not_blown_up(self) -> None:
        assert square_picture(Image.new("RGB", (6, 20000)), COLOUR.with_image_size(84)).shape == (3, 84, 84)

    @pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n" + b"\0" * 20])
    def test_what_is_no_picture_is_named(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "broken.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot read picture .*broken\.png"):
            open_picture(tmp_path / "broken.png")
