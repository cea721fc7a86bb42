"""The cache command: what it shows, what it clears, and what it leaves alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from fewshot.commands import main
from fewshot.commands.cache import readable_age, readable_size
from fewshot.data import images as images_module
from fewshot.data.cache import FEATURES, PICTURES, UNFINISHED, cached_file, cached_files

DAY = 86400


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with two files of pictures, one of features, two unfinished ones, and some of other people's."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("FEWSHOT_CACHE", str(cache))
    images_module.write_cached(images_module.cache_path("cifar_fs-train", {}), (9, 3, 4, 4), [np.zeros((9, 3, 4, 4))])
    images_module.write_cached(images_module.cache_path("omniglot-val", {}), (9, 1, 4, 4), [np.zeros((9, 1, 4, 4))])
    cached_file("cifar_fs-train", "f" * 64, features=True).write_bytes(b"x" * 5000)
    (cache / f".cifar_fs-val-{'a' * 20}-01234567.npy").touch()
    (cache / f".features-cifar_fs-val-{'a' * 32}-89abcdef.npy").touch()
    for name in ("notes.txt", "mine.npy", f"{'a' * 20}.npy", f"mine-{'a' * 21}.npy", ".hidden-0123.npy"):
        (cache / name).write_text("not ours")
    (tmp_path / "elsewhere.npy").write_text("not ours")
    (cache / f"link-{'a' * 20}.npy").symlink_to(tmp_path / "elsewhere.npy")
    (cache / f"folder-{'a' * 20}.npy").mkdir()
    for path in cache.iterdir():
        age = 40 * DAY if "omniglot" in path.name or "89abcdef" in path.name else 120
        os.utime(path, (time.time() - age,) * 2, follow_symlinks=False)
    return cache


OTHERS = {"notes.txt", "mine.npy", f"{'a' * 20}.npy", f"mine-{'a' * 21}.npy", ".hidden-0123.npy"}
OTHERS |= {f"link-{'a' * 20}.npy", f"folder-{'a' * 20}.npy"}


def left(folder: Path) -> set[str]:
    """What our files in the folder are called, after a check that nobody else's is gone."""
    names = {path.name for path in folder.iterdir()}
    assert names >= OTHERS and (folder.parent / "elsewhere.npy").exists()
    return {f"{file.kind} {file.name}" for file in cached_files(folder)}


EVERYTHING = {f"{PICTURES} cifar_fs-train", f"{PICTURES} omniglot-val", f"{FEATURES} cifar_fs-train"}
EVERYTHING |= {f"{UNFINISHED} cifar_fs-val"}


@pytest.mark.parametrize("arguments", [[], ["show"]])
def test_show(folder, capsys, arguments):
    main(["cache", *arguments])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and lines[0].split() == ["file", "what", "of", "size", "written"]
    assert lines[2].split()[1:] == ["decoded", "pictures", "cifar_fs-train", "592", "B", "2", "min", "ago"]
    assert lines[3].split()[1:] == ["decoded", "pictures", "omniglot-val", "304", "B", "40", "days", "ago"]
    assert lines[4].split()[1:] == ["features", "cifar_fs-train", "5.0", "kB", "2", "min", "ago"]
    assert lines[-1] == f"5 files, 5.9 kB, in {folder}"
    assert left(folder) == EVERYTHING


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (["--all"], EVERYTHING - {f"{UNFINISHED} cifar_fs-val"}),
        (["cifar_fs-train"], {f"{PICTURES} cifar_fs-train", f"{FEATURES} cifar_fs-train"}),
        (["cifar*"], {f"{PICTURES} cifar_fs-train", f"{FEATURES} cifar_fs-train"}),
        (["features-*"], {f"{FEATURES} cifar_fs-train"}),
        (["omniglot-*", "--older_than", "41"], set()),
        (["--older_than", "39.5"], {f"{PICTURES} omniglot-val"}),
        (["nothing"], set()),
    ],
)
def test_clear(folder, capsys, arguments, gone):
    main(["cache", "clear", *arguments])
    assert capsys.readouterr().out.startswith("cleared ")
    assert left(folder) == EVERYTHING - gone
    young = folder / f".cifar_fs-val-{'a' * 20}-01234567.npy"
    assert young.exists()  # somebody may be writing it
    assert (folder / f".features-cifar_fs-val-{'a' * 32}-89abcdef.npy").exists() != (
        arguments in (["--all"], ["cifar*"], ["--older_than", "39.5"])
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["clear"], "cache clear: say what to clear"),
        (["clear", "x", "--all"], "give names or --all, not both"),
        (["clear", "--older_than", "week"], "argument --older_than: invalid float value: 'week'"),
        (["remove"], "invalid choice: 'remove'"),
        (["show", "x"], "cache show takes no further argument"),
        (["--al"], "unrecognized arguments: --al"),
    ],
)
def test_what_is_not_understood_clears_nothing(folder, capsys, arguments, says):
    with pytest.raises(SystemExit) as exit_:
        main(["cache", *arguments])
    printed = capsys.readouterr()
    assert exit_.value.code == 2 and printed.err.startswith("error: cache") and says in printed.err
    assert len(printed.err.splitlines()) == 1 and left(folder) == EVERYTHING


def test_an_empty_or_missing_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "none"))
    main(["cache"])
    main(["cache", "clear", "--all"])
    assert capsys.readouterr().out == (
        f"0 files, 0 B, in {tmp_path / 'none'}\ncleared 0 files, 0 B, in {tmp_path / 'none'}\n"
    )
    assert not (tmp_path / "none").exists()


def test_help(capsys):
    main(["cache", "--help"])
    assert "clear [NAME ...]" in capsys.readouterr().out


def test_sizes_and_ages():
    sizes = [readable_size(size) for size in (0, 999, 1000, 999_949, 999_951, 10**12)]
    assert sizes == ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "1.0 TB"]
    ages = [readable_age(age) for age in (0, 3599, 3600, 2 * DAY - 1, 2 * DAY)]
    assert ages == ["0 min", "59 min", "1 h", "47 h", "2 days"]
