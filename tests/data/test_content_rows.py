"""Features found by what a picture's file holds: kept, shared, checked, and never in the way."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from fewshot.data import content_rows as subject
from fewshot.data.cache import FEATURES, cached_files
from fewshot.data.content_rows import ContentFeatures, ContentRows, content_of, state_of

KEY = "a1" * 32


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def content(number: int) -> bytes:
    return number.to_bytes(32, "big")


def row(number: int) -> np.ndarray:
    return np.float32([number, number + 0.1, -number])


def remember(*numbers: int, key: str = KEY, backbone: str = "resnet18.a1_in1k") -> None:
    with ContentFeatures(backbone, key, 3) as known:
        for number in numbers:
            known.add(content(number), row(number))


def found(*numbers: int, key: str = KEY, backbone: str = "resnet18.a1_in1k") -> list[bool]:
    known = ContentFeatures(backbone, key, 3)
    rows = [known.row_of(content(number)) for number in numbers]
    assert all(one is None or np.array_equal(one, row(number)) for one, number in zip(rows, numbers, strict=True))
    return [one is not None for one in rows]


def test_what_is_added_is_found_by_content_and_key_and_listed(folder: Path) -> None:
    remember(1, 2)
    remember(3)
    assert found(1, 2, 3, 4) == [True, True, True, False]
    assert found(1, key="a1" * 8 + "b2" * 24) == found(1, backbone="resnet34") == [False]
    assert [(file.kind, file.name) for file in cached_files(folder)] == [(FEATURES, f"resnet18.a1_in1k-{KEY[:16]}")] * 2
    remember(5, backbone="hf-hub:owner/" + "x" * 90)
    assert found(5, backbone="hf-hub:owner/" + "x" * 90) == [True] and len(cached_files(folder)) == 3


def test_many_files_are_put_together_and_nothing_is_lost(folder: Path) -> None:
    other = ContentFeatures("resnet18.a1_in1k", KEY, 3)  # opened before, and still reads
    for number in range(subject.MOST_FILES + 1):
        remember(number, number + 1)
    numbers = range(subject.MOST_FILES + 2)
    assert len(cached_files(folder)) == 1 and all(found(*numbers))
    early = ContentFeatures("resnet18.a1_in1k", KEY, 3)
    remember(*range(100, 103))
    with other:
        other.add(content(99), row(99))
    assert early.row_of(content(5)) is not None and all(found(*numbers, 99, 101))


def test_two_that_put_together_at_once_harm_nobody() -> None:
    for number in range(subject.MOST_FILES):
        remember(number)
    one, two = (ContentFeatures("resnet18.a1_in1k", KEY, 3) for _ in range(2))
    with one, two:
        one.add(content(50), row(50))
        two.add(content(51), row(51))
    assert all(found(*range(subject.MOST_FILES), 50, 51))


def test_a_damaged_file_is_said_and_made_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    remember(1)
    remember(2)
    file = cached_files(folder)[0].path
    whole = file.read_bytes()
    file.write_bytes(whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])
    with caplog.at_level(logging.WARNING):
        assert sorted(found(1, 2)) == [False, True]
    assert caplog.text.count("is damaged (its numbers are not those that were written); it is made again") == 1
    remember(1, 2)
    assert found(1, 2) == [True, True]
    array = np.load(file, mmap_mode="r", allow_pickle=False) if file.exists() else None
    assert array is None or len(array) in (1, 2)


def test_numbers_that_are_not_finite_are_neither_kept_nor_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with ContentFeatures("net", KEY, 3) as known:
        known.add(content(1), np.float32([1, np.nan, 2]))
    assert not cached_files(folder)
    with ContentFeatures("net", KEY, 3) as known:
        ContentRows.add(known, content(1), np.float32([1, np.inf, 2]).view(np.uint8))
    assert ContentFeatures("net", KEY, 3).row_of(content(1)) is None and "not finite" in caplog.text


def test_a_folder_that_cannot_be_written_is_said_once(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "_unwritable", set())
    folder.write_text("a file")
    for _ in range(2):
        remember(1)
    assert caplog.text.count("features are not remembered: cannot write to") == 1
    assert "store_features to false" in caplog.text and found(1) == [False]


def test_a_long_run_writes_what_it_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "SECONDS_BETWEEN_FILES", -1.0)
    known = ContentFeatures("net", KEY, 3)
    known.add(content(1), row(1))
    assert len(cached_files(folder)) == 1


def test_content_is_that_of_regular_files(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 3_000_000)
    (tmp_path / "two").write_bytes(b"x" * 3_000_000)
    one, two = content_of(tmp_path / "one"), content_of(tmp_path / "two")
    assert one is not None and two is not None and one[0] == two[0] and one[1] == state_of(tmp_path / "one") != two[1]
    assert content_of(tmp_path) is None and content_of(tmp_path / "none") is None
