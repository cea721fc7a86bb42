"""What an offline W&B run holds, read from the file that it would be uploaded from; and W&B without settings or key.

The file is a header of seven bytes, then blocks of 32 KiB of records: checksum, length, whether the record is whole or
which part it is of one, and the bytes of a protocol buffer. wandb 0.18 and before had a reader of its own in Python.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32768, 7
WHOLE, LAST = 1, 4


def forget_wandb(patch: pytest.MonkeyPatch, path: Path) -> None:
    """No environment variable of W&B's, and nowhere to find an API key."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        patch.delenv(name)
    patch.setenv("HOME", str(path / "home"))
    patch.setenv("NETRC", str(path / "netrc"))
    patch.setenv("CI", "true")


class OfflineRun:
    """Config, history, summary, tables and artifacts of the one offline run in <folder>/wandb.

    Args:
        folder: a run's folder; with several runs in it, the newest.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = max((folder / "wandb").glob("offline-run-*"))
        (file,) = self.folder.glob("*.wandb")
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.artifacts: list[Any] = []
        self.run: Any = None
        self.exit_code: int | None = None
        for record in records(file):
            self._take(record)

    def _take(self, record: Any) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self.run = record.run
            update(self.config, record.run.config.update)
        elif kind == "config":
            update(self.config, record.config.update)
        elif kind == "summary":
            update(self.summary, record.summary.update)
        elif kind == "history":
            self.history.append({})
            update(self.history[-1], record.history.item)
        elif kind == "artifact":
            self.artifacts.append(record.artifact)
        elif kind == "exit":
            self.exit_code = record.exit.exit_code

    def values(self, metric: str) -> list[float]:
        """All that was logged of a metric, in order."""
        return [row[metric] for row in self.history if metric in row]

    def files(self, kind: str) -> dict[str, list[tuple[str, Path]]]:
        """(name, file) of the contents of each artifact of a type, by its alias, or its name where it has none."""
        found = {}
        for artifact in self.artifacts:
            if artifact.type == kind:
                for alias in set(artifact.aliases) - {"latest"} or {artifact.name}:
                    found[alias] = [(entry.path, Path(entry.local_path)) for entry in artifact.manifest.contents]
        return found

    def table(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table, each by column; a picture is the path of its file."""
        (logged,) = (row[name] for row in self.history if name in row)
        assert logged["_type"] == "table-file"
        ((_, entries),) = self.files("run_table").items()
        pictures = dict(entries)
        content = json.loads(pictures[f"{name}.table.json"].read_text(encoding="utf-8"))
        rows = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
        for row in rows:
            for column, cell in row.items():
                if isinstance(cell, dict) and cell.get("_type") == "image-file":
                    row[column] = pictures[cell["path"]]
        return rows


def update(target: dict[str, Any], items: Any) -> None:
    """Set what these items say; the key of one that is inside another is a list."""
    for item in items:
        *outer, last = item.nested_key or [item.key]
        inner = target
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)


def records(file: Path) -> Iterator[Any]:
    """Every record of the file."""
    data = file.read_bytes()
    assert data[:4] == b":W&B"
    place, parts = HEADER, b""
    while place < len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, place)
        part = data[place + HEADER : place + HEADER + length]
        assert zlib.crc32(part, zlib.crc32(bytes([kind]))) == checksum
        place, parts = place + HEADER + length, parts + part
        if kind in (WHOLE, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record
