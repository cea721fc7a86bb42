"""labels.csv: a table in which a person says of which class pictures or rows are, or that they are of none of them.

A column names them (`path` of pictures, the id of rows), `label` says the class, and `none_of_these`, which need not be
there, is true for those of none. The report writes such a table, and so does a spreadsheet.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from fewshot.classification.feature_files import column_names, read_table

NO_LABEL = (None, "", "-1")
"""Cells of rows without a label."""
NONE_OF_THESE = "none_of_these"
TRUE, FALSE = ("true", "yes", "1"), (None, "false", "no", "0")
"""Cells of that column, in small letters."""
MAX_BYTES = 2**28


class GivenLabels(NamedTuple):
    """What a person said."""

    classes: dict[str, str | None]
    """By name; None for one that is none of the classes."""

    @property
    def nones(self) -> list[str]:
        """Names of those that are none of the classes."""
        return [name for name, label in self.classes.items() if label is None]

    @property
    def labelled(self) -> dict[str, str]:
        """Classes of the others."""
        return {name: label for name, label in self.classes.items() if label is not None}


def read_labels(
    file: Path, keys: Sequence[str], label_column: str = "label", known: Collection[str] = ()
) -> GivenLabels | list[str | None]:
    """What a table says, in its order; where it has none of the columns that name rows, the cells of `label_column`.

    Lines without a label say nothing.

    Args:
        file: as `read_table` takes it.
        keys: columns that may name pictures or rows; the first that is there does.
        label_column: where the class is; an .npz may call that array `labels`, a .npy holds nothing else.
        known: classes, whose names are taken as they are, with blanks around them too.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read, or says of one name two things.
    """
    if not file.exists():
        raise FileNotFoundError(f"labels: {file} is not there; name the table of labels")
    if file.is_file() and file.stat().st_size > MAX_BYTES:
        raise ValueError(f"labels: {file} has {file.stat().st_size:,} bytes, and {MAX_BYTES:,} are read at most")
    found = column_names(file)
    key = next((name for name in keys if name in found), None)
    if key is None and NONE_OF_THESE in found:
        raise ValueError(f"labels: {file} has {NONE_OF_THESE} and no column {keys[0]!r}, which says of whom")
    if key is None:
        return [label_of(cell) for cell in read_table(file, [label_column], features=None).columns[label_column]]
    told = [NONE_OF_THESE] if NONE_OF_THESE in found else []
    columns = read_table(file, list(dict.fromkeys([key, label_column, *told])), features=None).columns
    classes: dict[str, str | None] = {}
    rows = zip(columns[key], columns[label_column], columns.get(NONE_OF_THESE, [None] * len(columns[key])), strict=True)
    for row, (name, cell_of_label, cell) in enumerate(rows):
        if key == "path":  # whose class may be a folder that is called 2.0
            label = cell_of_label if cell_of_label in known else (cell_of_label or "").strip() or None
        else:
            label = label_of(cell_of_label)
        is_none = label in NO_LABEL and label not in known
        where = f"labels: {file}: row {row}, counted from 0,"
        if name is None:
            raise ValueError(f"{where} has no {key}")
        answer = None if cell is None else cell.lower()
        if answer not in (*TRUE, *FALSE):
            raise ValueError(f"{where} has {cell!r} as {NONE_OF_THESE}; give true or false")
        if answer in TRUE and not is_none:
            raise ValueError(f"{where} says that {name!r} is {label!r} and none of these; take one of the two away")
        if answer in FALSE and is_none:
            continue
        said = None if answer in TRUE else label
        if classes.setdefault(name, said) != said:
            one, other = (_shown(each) for each in (classes[name], said))
            raise ValueError(f"labels: {file} says that {name!r} is {one}, and that it is {other}; keep one of the two")
    return GivenLabels(classes)


def label_of(cell: str | None) -> str | None:
    """The label of a row in a cell: without blanks around it, and a whole number as such, as which arrays give it too.

    pandas writes whole numbers as `2.0` where a column has empty cells, numpy.savetxt as `2.000000000000000000e+00`.
    """
    if cell is None:
        return None
    text = cell.strip()
    if re.fullmatch(r"-?\d+\.\d*([eE][-+]?\d{1,2})?", text) and (number := float(text)).is_integer():
        return str(int(number))
    return text or None


def labels_of_pictures(
    file: Path, names: Collection[str], folder: Path | str, classes: Collection[str] = ()
) -> GivenLabels:
    """What a table says of pictures.

    Args:
        file: with the column `path`: below the folder, with forward slashes, as predictions.csv writes it.
        names: of the pictures in the folder.
        folder: of the queries, or another word for where they are.
        classes: that are known otherwise.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as of `read_labels`; a path that leads elsewhere, or to no picture; nothing is said.
    """
    given = read_labels(file, ["path"], known=classes)
    if not isinstance(given, GivenLabels):
        raise ValueError(f"labels: {file} has no column 'path', which names pictures below {folder}")
    by_cell = {name.encode("utf-8", "backslashreplace").decode("utf-8"): name for name in names}
    for name in given.classes:
        if name in by_cell:
            continue
        if PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or ".." in PureWindowsPath(name).parts:
            raise ValueError(
                f"labels: {file} names {name!r}, which leads out of {folder}; give paths as in predictions.csv"
            )
        likely = [one for one in sorted(by_cell) if _numbers(one) == _numbers(name)] if len(by_cell) <= 10_000 else []
        close = difflib.get_close_matches(name, likely, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"labels: {file} names {name!r}, and there is no such picture in {folder}{hint}")
    if not given.classes:
        raise ValueError(f"labels: {file} labels nothing; give a class in the column 'label', or leave --labels out")
    return GivenLabels({by_cell[name]: label for name, label in given.classes.items()})


def _numbers(name: str) -> list[str]:
    """Those in a picture's name: one that differs by them alone is another picture, as a camera counts them."""
    return [digits.lstrip("0") for digits in re.findall("[0-9]+", PurePosixPath(name).stem)]


def check_labels(given: Mapping[str, str | None], labelled: Mapping[str, str]) -> None:
    """ValueError where a row that is labelled already is said to be of another class, or of none."""
    for name, label in given.items():
        if labelled.get(name, label) != label:
            raise ValueError(
                f"labels: {name!r} is {labelled[name]!r} beside the features, and {_shown(label)} in the table; "
                "correct one of the two"
            )


def _shown(label: str | None) -> str:
    return "none of these" if label is None else repr(label)
