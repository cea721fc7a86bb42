"""Stored features: what they are, when they are computed again, and what happens when they cannot be written."""

from __future__ import annotations

import errno
import os
import pickle
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot.data import feature_file
from fewshot.data import features as features_module
from fewshot.data.cache import FEATURES, UNFINISHED, cached_files
from fewshot.data.features import Features, features_path, stored_features
from fewshot.data.images import Images
from fewshot.data.transforms import Preprocessing, evaluation_transform

PREPROCESSING = Preprocessing(8, 8, (0.5,) * 3, (0.25,) * 3, crop_padding=2, colour_jitter=0.4, flip=True)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for every test."""
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))
    return tmp_path


def pictures(n: int = 300, seed: int = 0) -> Images:
    """Random pictures of 3 classes."""
    array = np.random.default_rng(seed).integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)
    return Images(array, np.arange(n) % 3, ["a", "b", "c"], [f"{i % 3}/{i}" for i in range(n)])


class Encoder:
    """Three numbers a picture; counts the pictures that it has seen."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, inputs: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.seen += len(inputs)
        return torch.stack([inputs.mean((1, 2, 3)), inputs[:, 0, 0, 0], inputs[:, 2, 3, 4]], dim=1)


def test_features_are_those_of_the_evaluation_view(cache):
    images, encoder = pictures(), Encoder()
    features = stored_features(encoder, images, PREPROCESSING, key="k", name="toys-val")
    with torch.no_grad():
        expected = Encoder()(evaluation_transform(images.read(np.arange(300)), PREPROCESSING))
    index = np.array([[4, 299, 0], [7, 7, 256]])
    torch.testing.assert_close(features.read(index), expected[index], rtol=0, atol=0)
    assert (features.n_views, features.n_pictures, features.width) == (1, 300, 3)
    assert [path.name for path in cache.iterdir()] == [features.path.name]
    np.testing.assert_array_equal(np.load(features.path, allow_pickle=False)[0], expected)


def test_features_are_computed_once():
    encoder = Encoder()
    for _ in range(3):
        stored_features(encoder, pictures(), PREPROCESSING, key="k", name="toys-val")
    assert encoder.seen == 300


def test_several_views_are_stored():
    features = stored_features(Encoder(), pictures(), PREPROCESSING, key="k", name="toys-train", views=4)
    index = np.arange(300)
    views = [features.read(index, np.full(300, view)) for view in range(4)]
    assert all((a != b).any(dim=1).float().mean() > 0.9 for i, a in enumerate(views) for b in views[:i])
    mixed = features.read(index, index % 4)
    torch.testing.assert_close(mixed[5], views[1][5], rtol=0, atol=0)


def test_whatever_matters_gives_another_file(monkeypatch):
    images = pictures()
    plain = {"key": "k", "name": "toys"}
    paths = [features_path(images, PREPROCESSING, **plain)]
    paths.append(features_path(images, PREPROCESSING, key="another weight", name="toys"))
    paths.append(features_path(images, replace(PREPROCESSING, mean=(0.4, 0.5, 0.5)), **plain))
    paths.append(features_path(images, PREPROCESSING, **plain, views=2))
    paths.append(features_path(images, PREPROCESSING, **plain, views=2, seed=1))
    changed = images.read(np.arange(300)).numpy()
    changed[17, 0, 3, 3] ^= 1
    paths.append(
        features_path(Images(changed, images.labels, images.class_names, images.names), PREPROCESSING, **plain)
    )
    monkeypatch.setattr(features_module, "package_version", lambda: "0.0.0")
    paths.append(features_path(images, PREPROCESSING, **plain))
    assert len(set(paths)) == len(paths)
    monkeypatch.undo()
    assert features_path(pictures(), PREPROCESSING, **plain) == features_path(images, PREPROCESSING, **plain)


@pytest.mark.parametrize("field", [field.name for field in fields(Preprocessing)])
def test_every_option_of_the_transform_gives_another_file(field):
    other = {
        **{"image_size": 7, "stored_size": 9, "mean": (0.4, 0.5, 0.5), "std": (0.2, 0.25, 0.25), "channels": 1},
        **{"interpolation": "nearest", "crop_padding": 3, "colour_jitter": 0.3, "invert": True, "flip": False},
    }
    if field == "channels":
        changed = PREPROCESSING.with_channels(1)
    else:
        changed = replace(PREPROCESSING, **{field: other[field]})
    images = pictures()
    assert features_path(images, changed, key="k", name="toys") != features_path(
        images, PREPROCESSING, key="k", name="toys"
    )


@pytest.mark.parametrize("name", ["../../toys", "/etc/toys", "..", "a b\n:*?", "ü" * 300, ""])
def test_a_name_cannot_leave_the_cache_folder(cache, name):
    features = stored_features(Encoder(), pictures(), PREPROCESSING, key="k", name=name)
    assert [path for path in cache.rglob("*") if path.is_file()] == [features.path]
    assert [(file.path, file.kind) for file in cached_files(cache)] == [(features.path, FEATURES)]


def test_what_is_not_whole_is_not_found(cache):
    seen = []

    def watching(inputs: Tensor) -> Tensor:
        path = features_path(pictures(), PREPROCESSING, key="k", name="toys")
        seen.append((path.exists(), [file.kind for file in cached_files(cache)]))
        return inputs.mean((2, 3))

    features = stored_features(watching, pictures(), PREPROCESSING, key="k", name="toys")
    assert seen == [(False, [UNFINISHED])] * 2
    assert [(file.path, file.kind) for file in cached_files(cache)] == [(features.path, FEATURES)]


def test_a_half_encoded_set_leaves_nothing_behind(cache):
    def fails(inputs: Tensor) -> Tensor:
        if len(inputs) < 256:
            raise RuntimeError("killed")
        return inputs.mean((2, 3))

    with pytest.raises(RuntimeError, match="killed"):
        stored_features(fails, pictures(), PREPROCESSING, key="k", name="toys")
    assert list(cache.iterdir()) == []


def test_a_damaged_file_is_computed_again():
    features = stored_features(Encoder(), pictures(), PREPROCESSING, key="k", name="toys")
    path, expected = features.path, features.read(np.arange(300))
    del features
    os.truncate(path, 1000)
    encoder = Encoder()
    again = stored_features(encoder, pictures(), PREPROCESSING, key="k", name="toys")
    assert encoder.seen == 300
    torch.testing.assert_close(again.read(np.arange(300)), expected, rtol=0, atol=0)


def test_a_pickled_object_array_is_not_loaded(tmp_path):
    path = tmp_path / "features.npy"
    np.save(path, np.array([[["text"]]], dtype=object))
    with pytest.raises(ValueError, match="Python objects"):
        Features(path)


def test_workers_receive_the_path_and_not_the_numbers():
    features = stored_features(Encoder(), pictures(), PREPROCESSING, key="k", name="toys")
    text = pickle.dumps(features)
    assert len(text) < 1000
    index = np.arange(10)
    torch.testing.assert_close(pickle.loads(text).read(index), features.read(index), rtol=0, atol=0)


def test_a_full_disk_is_a_clear_error(cache, monkeypatch):
    class Usage:
        free = 10

    monkeypatch.setattr(feature_file.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(
        ValueError, match=r"features-toys-\w+\.npy needs 3,760 bytes but the disk is full \(10 bytes are"
    ):
        stored_features(Encoder(), pictures(), PREPROCESSING, key="k", name="toys")
    assert list(cache.iterdir()) == []


def test_a_disk_that_fills_up_while_writing_is_a_clear_error(cache, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="needs 3,760 bytes but the disk is full"):
        stored_features(Encoder(), pictures(), PREPROCESSING, key="k", name="toys")
    assert list(cache.iterdir()) == []


def test_a_cache_folder_that_cannot_be_written_to_is_a_clear_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ValueError, match=r"cannot write features to .*file.cache .*set FEWSHOT_CACHE to another"):
        stored_features(Encoder(), pictures(), PREPROCESSING, key="k", name="toys")


def test_features_that_are_not_numbers_name_the_picture():
    def broken(inputs: Tensor) -> Tensor:
        features = inputs.mean((2, 3))
        features[3, 1] = float("nan")
        return features

    with pytest.raises(ValueError, match="feature of picture '0/3' is not finite"):
        stored_features(broken, pictures(), PREPROCESSING, key="k", name="toys")


def test_an_encoder_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"turns \[256, 3, 8, 8\] into \[256, 3, 8\]; features are \[B, D\]"):
        stored_features(lambda inputs: inputs.mean(3), pictures(), PREPROCESSING, key="k", name="toys")


def test_a_long_encoding_shows_its_progress(monkeypatch, capsys):
    monkeypatch.setattr("fewshot.data.pictures.SECONDS_BEFORE_PROGRESS", -1.0)
    stored_features(Encoder(), pictures(), PREPROCESSING, key="k", name="toys-val")
    assert "300/300" in capsys.readouterr().err
