"""Folders that are there whole or not at all: where nothing can be written, that is said before the work is done."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from pathlib import Path
from typing import Literal

import pytest

from fewshot.files import (
    WholeFile,
    check_place,
    csv_line,
    full_path,
    read_csv,
    write_json,
    written_aside,
)


def test_a_place_where_no_folder_can_be_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for below in ("out", "further/out"):
        with pytest.raises(ValueError, match=r"out cannot be made: .*file is a file; name another folder"):
            check_place(tmp_path / "file" / below)
    check_place(tmp_path / "new" / "out")
    check_place(Path("/"))
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(ValueError, match="nothing may be written into"):
        check_place(tmp_path / "new" / "out")


def test_a_folder_that_cannot_be_made_after_all_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with (
        pytest.raises(ValueError, match="out cannot be made: Permission denied"),
        written_aside(tmp_path / "out", overwrite=False, known=()),
    ):
        pass


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="out cannot be written: No space left"),
        written_aside(tmp_path / "out", overwrite=False, known=()) as folder,
    ):
        (folder / "half").touch()
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_mounted_volume_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "volume").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "volume")
    with pytest.raises(ValueError, match=r"volume is a mounted volume, .* name a folder in it"):
        with written_aside(tmp_path / "volume", overwrite=True, known=()):
            pytest.fail("nothing is to be written")


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_comes_while_a_folder_is_written_is_not_replaced(overwrite: bool, tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(ValueError, match=r"is there already|holds mine\.txt, which nothing here wrote"):
        with written_aside(target, overwrite=overwrite, known=("a.txt",)) as folder:
            (folder / "a.txt").write_text("later")
            target.mkdir()
            (target / "mine.txt").write_text("mine")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (target / "mine.txt").read_text() == "mine"


def test_home_and_variables_are_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RUN", "three")
    assert full_path("~/$RUN/out") == (tmp_path / "three" / "out").resolve()


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_a_file_is_there_whole_or_not_at_all(mode: Literal["w", "wb"], tmp_path: Path) -> None:
    path, old, new = tmp_path / "deep" / "x.txt", "old", "new"
    content = {"w": str, "wb": str.encode}[mode]
    with WholeFile(path, mode) as file:
        file.write(content(old))
        assert not path.exists()
    assert path.read_text() == old
    with pytest.raises(KeyboardInterrupt), WholeFile(path, mode) as file:
        file.write(content(new))
        raise KeyboardInterrupt
    assert path.read_text() == old and os.listdir(path.parent) == ["x.txt"]
    whole = WholeFile(path, mode)
    whole.open().write(content(new))
    whole.finish()
    whole.discard()
    assert path.read_text() == new and os.listdir(path.parent) == ["x.txt"]


def test_a_full_disk_leaves_the_file_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_json(tmp_path / "x.json", {"a": float("nan"), "b": [1]})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_json(tmp_path / "x.json", {"a": 1})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": None, "b": [1]}
    assert os.listdir(tmp_path) == ["x.json"]


def test_what_a_kill_left_goes_with_the_next_writing(tmp_path: Path) -> None:
    killed = WholeFile(tmp_path / "x.txt")
    killed.open().write("half")
    killed._file.close()  # type: ignore[union-attr]
    assert os.listdir(tmp_path) == [".x.txt.partial"]
    with WholeFile(tmp_path / "x.txt") as file:
        file.write("whole")
    assert os.listdir(tmp_path) == ["x.txt"] and (tmp_path / "x.txt").read_text() == "whole"


CELLS = [
    *("=1+1", "+1-1", "-cmd|' /C calc'!A0", "@SUM(1)", "\t=1", "\r=1", "\n=1", "＝1", "'=1", "''@x", "-"),
    *("'quoted'", 'say "x"', "a,b", "a;=1", "a|b", "two\nlines", "", "plain", "ünï", "-1.5", "+2e-3", "-inf", "nan"),
]


def test_no_cell_of_a_csv_file_is_a_formula_and_all_are_read_back() -> None:
    text = csv_line(CELLS) + csv_line([None, 1, -2.5, *CELLS[3:]], "\r\n")
    assert read_csv(text) == [CELLS, ["", "1", "-2.5", *CELLS[3:]]]
    seen = next(csv.reader(io.StringIO(text, newline="")))  # what a spreadsheet has in its cells
    formulas = [cell for cell in seen if cell[:1] and cell[0] in "=+-@\t\r\n＝"]
    assert formulas == ["-1.5", "+2e-3", "-inf"]
    assert '"a;=1"' in text, "no other separator begins a cell of its own"
    assert csv_line(["plain", "0.5", 3]) == "plain,0.5,3\n"
