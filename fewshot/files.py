"""Files and folders that are there whole or not at all, and where the files of a run lie. Standard library only."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import logging
import math
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CANNOT_WRITE = (*NO_ROOM, errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def written_aside(folder: str | os.PathLike[str], *, overwrite: bool, known: Collection[str]) -> Iterator[Path]:
    """An empty folder to write into, which becomes `folder` when this ends, and goes where it ends by an exception.

    Args:
        folder: where the result goes; made with its parents. `~` and environment variables are filled in.
        overwrite: whether a folder that is there may be replaced; an empty one may always.
        known: names of the files that may be written; a folder that holds anything else is never replaced.

    Raises:
        ValueError: the folder is there and may not be replaced, is a file, cannot be made, or the disk is full.
    """
    target = full_path(folder)
    check_replaceable(target, overwrite=overwrite, known=known)
    aside = target.parent / f".{target.name}.{secrets.token_hex(4)}.partial"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
    except OSError as error:
        raise ValueError(f"{target} cannot be made: {error.strerror}; name another folder") from error
    try:
        yield aside
        check_replaceable(target, overwrite=overwrite, known=known)  # something may have come meanwhile
        _rename(aside, target)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise ValueError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_replaceable(target: Path, *, overwrite: bool, known: Collection[str]) -> None:
    """Raise ValueError where `written_aside` would; arguments as there, but for a path that is resolved."""
    check_place(target)
    if not target.exists():
        return
    if not target.is_dir():
        raise ValueError(f"{target} is a file; name a folder")
    if target.is_mount():
        raise ValueError(f"{target} is a mounted volume, which no folder can take the place of; name a folder in it")
    found = sorted(os.listdir(target))
    if found and not overwrite:
        raise ValueError(
            f"{target} is there already; name another folder, or allow overwriting it (--overwrite, in Python "
            "overwrite=True)"
        )
    if others := [name for name in found if name not in known]:
        named = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise ValueError(f"{target} is not overwritten: it holds {named}, which nothing here wrote; name another one")


def check_place(target: Path) -> None:
    """Raise ValueError where nothing could be written at this path, which is resolved."""
    above = next((place for place in target.parents if os.path.lexists(place)), target)  # the root has none
    if not above.is_dir():
        raise ValueError(f"{target} cannot be made: {above} is a file; name another folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(f"{target} cannot be made: nothing may be written into {above}; name another folder")


def full_path(given: str | os.PathLike[str]) -> Path:
    """The path, absolute, with `~` and environment variables filled in and links followed."""
    return expanded(given).resolve()


def expanded(given: str | os.PathLike[str]) -> Path:
    """The path with `~` and environment variables filled in."""
    return Path(os.path.expandvars(os.path.expanduser(os.fspath(given))))


def _rename(aside: Path, target: Path) -> None:
    """Put the folder in the place of the other, which comes back where that fails."""
    if not target.exists():
        aside.rename(target)
        return
    old = aside.with_suffix(".old")
    target.rename(old)
    try:
        aside.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def relative(path: str) -> str:
    """The path as seen from the working directory, where it lies below it."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return path


class WholeFile:
    """A file that is there whole or not at all: written aside, synced to the disk, then renamed.

        with WholeFile(path) as file:
            file.write("...")

    An exception or a kill leaves the file of before. Without `with`, call `open`, and `finish` or `discard`.

    Args:
        path: where it goes; its folder is made.
        mode: "w" for text in UTF-8 or "wb" for bytes. What is no Unicode text, as of a file that was named in another
            encoding, is escaped.
        aside: where it is written before, in the same folder; None takes .<name>.partial, which the next writing
            replaces where a kill has left one. Where several processes may write the same file, each needs its own.
    """

    def __init__(self, path: Path, mode: Literal["w", "wb"] = "w", *, aside: Path | None = None) -> None:
        self.path, self.mode = path, mode
        self.aside = aside or path.with_name(f".{path.name}.partial")
        self._file: IO[Any] | None = None

    def open(self) -> IO[Any]:
        """The file to write to."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.mode == "wb":
            self._file = open(self.aside, "wb")
        else:
            self._file = open(self.aside, "w", encoding="utf-8", errors="backslashreplace", newline="")
        return self._file

    def finish(self) -> None:
        """Give it its name."""
        assert self._file is not None
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self.aside, self.path)
        except OSError as error:
            error.filename = str(self.path)
            raise
        self._file = None

    def discard(self) -> None:
        """Leave nothing behind, unless it has got its name."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # closing writes what is left, and the disk may be full
                self._file.close()
            with contextlib.suppress(OSError):
                self.aside.unlink()
            self._file = None

    def __enter__(self) -> IO[Any]:
        return self.open()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.discard()
        if isinstance(error, OSError):
            error.filename = error.filename or str(self.path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all, with null where a number is not finite."""
    with WholeFile(path) as file:
        file.write(json.dumps(plain(content), indent=2, ensure_ascii=False) + "\n")


def plain(value: Any) -> Any:
    """The value with null where a number is not finite, such as the interval of a single episode: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""How text begins that a spreadsheet takes for a formula, or that `csv_line` has put an apostrophe before."""
PLAIN_NUMBER = re.compile(r"[-+]?((\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|inf|nan)")


def csv_line(cells: Iterable[object], end: str = "\n") -> str:
    """A line of a CSV file in which no cell is a formula; None is an empty cell. `read_csv` gives the cells back.

    As OWASP advises against CSV injection: text that begins with = + - @, a tab or a line break gets an apostrophe
    before it, unless it is a plain number, and what holds a separator of any spreadsheet or a quote is quoted.
    """
    written = []
    for cell in cells:
        text = "" if cell is None else str(cell)
        if FORMULA.match(text) and not PLAIN_NUMBER.fullmatch(text):
            text = f"'{text}"
        if re.search("[\t\r\n,;|'\"]", text):
            text = '"' + text.replace('"', '""') + '"'
        written.append(text)
    return ",".join(written) + end


def read_csv(text: str) -> list[list[str]]:
    """The cells of every line that `csv_line` wrote, without its apostrophes."""
    return [[plain_cell(cell) for cell in line] for line in csv.reader(io.StringIO(text, newline=""))]


def plain_cell(cell: str) -> str:
    """The text of a cell without the apostrophe that `csv_line` put before a formula."""
    return cell[1:] if cell[:1] == "'" and FORMULA.match(cell) else cell


UNFINISHED = "unfinished"
"""The file that stands in a run folder from the start of `fit` until everything the command asked for is done."""
LAST = Path("checkpoints") / "last.ckpt"


def checkpoints_of(folder: Path) -> list[Path]:
    """What a run can be continued from, the oldest first: last.ckpt, and what Lightning saves where SLURM requeues."""
    found = [path for path in (folder / LAST, *folder.glob("hpc_ckpt_*.ckpt")) if path.is_file()]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def run_versions(experiment: Path) -> list[tuple[int, Path]]:
    """Number and folder of every version of an experiment."""
    found = [(re.fullmatch(r"version_(\d+)", folder.name), folder) for folder in experiment.glob("version_*")]
    return [(int(match[1]), folder) for match, folder in found if match]


logger = logging.getLogger(__name__)
_BEST = Path("checkpoints") / "best.ckpt"


def resolve_weights(path: str | os.PathLike[str]) -> Path:
    """The weight file that `path` stands for.

    A file stands for itself. A run's folder (`runs/<experiment>/version_3`) stands for its checkpoints/best.ckpt, an
    experiment's folder (`runs/<experiment>`) for that of its newest finished version which has one, or else of its
    newest, which is said, and a downloaded model's folder for its model.safetensors. `~` and environment variables are
    expanded.

    Raises:
        FileNotFoundError: nothing is there; says where it looked.
    """
    asked = expanded(path)
    if asked.is_file():
        return asked
    looked, advice = [asked], "If a pre-training run is to write them, run its config first (python -m fewshot fit)"
    if asked.is_dir():
        advice = f"{asked} holds no checkpoint, which only `fit` writes"
        newest = [folder for _, folder in sorted(run_versions(asked), reverse=True)]
        unfinished = [folder for folder in newest if (folder / UNFINISHED).is_file()]
        newest.sort(key=unfinished.__contains__)
        looked = [asked / _BEST, asked / "best.ckpt", asked / "model.safetensors"]
        looked += [folder / _BEST for folder in newest] or [asked / "version_*" / _BEST]
        for candidate in looked:
            if candidate.is_file():
                said = "".join(f"; {folder.name} is not finished" for folder in unfinished)
                logger.log(logging.WARNING if said else logging.INFO, "weights %s: using %s%s", path, candidate, said)
                return candidate
    raise FileNotFoundError(f"weights '{path}' not found; looked for {', '.join(map(str, looked))}. {advice}")
