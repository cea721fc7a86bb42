"""An earlier run's answer, read from its predictions.csv, and what changed since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fewshot.classification.classified import Classified
from fewshot.classification.feature_files import read_table

MAX_BYTES = 2**31


def former_answer(folder: Path, option: str = "previous") -> dict[str, str]:
    """The class that every query of an earlier run was given, by the query's name.

    Args:
        folder: its output, with predictions.csv.
        option: by which it was named.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read.
    """
    file = folder / "predictions.csv"
    if not file.is_file():
        raise FileNotFoundError(f"{option}: {folder} holds no predictions.csv; name the output of an earlier classify")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{option}: {file} has {file.stat().st_size:,} bytes, and {MAX_BYTES:,} are read at most")
    try:
        columns = read_table(file, ["path", "predicted"], features=None).columns
    except ValueError as error:
        if "no column 'path'" not in str(error):
            raise
        columns = read_table(file, ["id", "predicted"], features=None).columns
    names, predicted = (columns[name] for name in columns)
    return {name: label for name, label in zip(names, predicted, strict=True) if name is not None and label is not None}


def compared(classified: Classified, former: Mapping[str, str]) -> Classified:
    """The answer beside an earlier one.

    Args:
        classified: the answer.
        former: classes by the queries' names.
    """
    known = [name.encode("utf-8", "backslashreplace").decode("utf-8") for name in classified.query_names]
    return replace(
        classified,
        former=tuple(former.get(name) for name in known),
        former_labelled=sum(name in former for name, _ in classified.given_labels),
    )
