"""python -m fewshot cache: show what the cache folder holds, or clear it."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Iterable
from typing import NoReturn

from fewshot.data.cache import UNFINISHED, CachedFile, cache_dir, cached_files
from fewshot.runs.tables import text_table

SECONDS_BEFORE_ABANDONED = 3600.0
"""An unfinished file that nothing was written to for so long belongs to a process that was killed."""
HELP = """usage: python -m fewshot cache [show]
       python -m fewshot cache clear [NAME ...] [--all] [--older_than DAYS]

Show what the cache folder holds, or clear it. What is cleared is computed again when it is needed.

  NAME               files of these data sets and splits, such as cifar_fs-train or 'cifar_fs*', or by the file's name
  --all              files of every name
  --older_than DAYS  of these, or of all where no name is given, only files written so many days ago or earlier

Nothing is asked. Only what this package wrote is ever deleted; an unfinished file only once nothing has been written
to it for an hour. The folder is ~/.cache/fewshot, or what the environment variable FEWSHOT_CACHE says.
"""


def table(files: Iterable[CachedFile]) -> str:
    """One line a file: its name, what it is, of which data set and split, its size and age."""
    rows = [[f.path.name, f.kind, f.name, readable_size(f.size), f"{readable_age(f.age)} ago"] for f in files]
    return text_table(["file", "what", "of", "size", "written"], [rows])


def readable_size(size: int) -> str:
    """Bytes in the unit that leaves one to three digits before the point."""
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"


def readable_age(seconds: float) -> str:
    """Seconds in whole minutes, hours or days."""
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // (24 * 60)} days"


def chosen(files: Iterable[CachedFile], *, names: list[str], older_than: float | None) -> list[CachedFile]:
    """The files to be cleared: of one of the names (of any, where there is none), and so many days old or older."""
    return [
        file
        for file in files
        if (not names or any(fnmatch.fnmatchcase(text, name) for name in names for text in (file.name, file.path.name)))
        and (older_than is None or file.age >= older_than * 86400)
        and (file.kind != UNFINISHED or file.age >= SECONDS_BEFORE_ABANDONED)
    ]


def run(arguments: list[str]) -> None:
    """`python -m fewshot cache`: show the cache folder, or clear it.

    Args:
        arguments: those that follow `cache`.

    Raises:
        ValueError: arguments that are not understood, or a file that cannot be deleted.
    """
    if "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return
    parser = _Parser(prog="cache", add_help=False, allow_abbrev=False)
    parser.add_argument("action", nargs="?", choices=["show", "clear"], default="show")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--older_than", type=float, metavar="DAYS")
    options = parser.parse_args(arguments)
    folder = cache_dir()
    files = cached_files(folder)
    if options.action == "show":
        if options.names or options.all or options.older_than is not None:
            raise ValueError("cache show takes no further argument; cache clear does")
        print(table(files) if files else "", end="")
        print(f"{_count(files)} in {folder}")
        return
    if options.all and options.names:
        raise ValueError("cache clear: give names or --all, not both")
    if not (options.names or options.all or options.older_than is not None):
        raise ValueError("cache clear: say what to clear: a name such as 'cifar_fs*', --older_than DAYS, or --all")
    cleared = chosen(files, names=options.names, older_than=options.older_than)
    for file in cleared:
        try:
            file.path.unlink(missing_ok=True)
        except OSError as error:
            raise ValueError(f"cannot delete {file.path} ({error.strerror}); check who owns it") from error
    print(f"cleared {_count(cleared)} in {folder}")


class _Parser(argparse.ArgumentParser):
    """Raises ValueError rather than printing its usage and ending the process."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"cache: {message} (python -m fewshot cache --help)")


def _count(files: list[CachedFile]) -> str:
    return f"{len(files)} file{'' if len(files) == 1 else 's'}, {readable_size(sum(file.size for file in files))},"
