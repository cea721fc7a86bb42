"""What a weight file may ask of its reader: how much memory, which names, and how deep its containers lie.

torch unpickles tensors and plain containers alone. Even so a small file could ask for gigabytes: by packed records, by
calls such as bytearray(2000000000), by one number that stands for a large tensor, by lists that hold a list twice.
"""

from __future__ import annotations

import io
import os
import pickletools
import re
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MAX_PICKLE_BYTES = 4 * 2**20
"""Of what describes the tensors of a file; a ResNet with the state of its optimiser has a tenth of it."""
MAX_ENTRIES = 300_000
"""Of all containers of a file, counted as often as they are reached."""
MAX_DEPTH = 50
ALLOWED = re.compile(
    r"collections (OrderedDict|Counter)"
    r"|torch ((?!Untyped|Typed)\w+Storage|Size|device|strided)"
    r"|torch (b?float\w*|double|half|u?int\d+|short|long|bool|complex\d+)"
    r"|torch\.nn\.parameter Parameter|torch\.serialization _get_layout"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|parameter|parameter_with_state)"
)
"""What a pickle may name. torch allows more, some of which makes memory out of a number."""
PICKLES_IN_A_ROW = 5
"""How many a file of before torch 1.6, which is no zip archive, begins with: three heads, the content, the keys."""
TRUSTED_BY_MANY = {"argparse.Namespace": "the options of a training program, as timm's"}


class RefusedError(ValueError):
    """A file is whole and asks for what is never given."""


def check_limits(file: Path) -> None:
    """Look at a weight file before anything of it is unpickled.

    Raises:
        RefusedError: it asks for more than tensors and plain containers, or for more memory than it has bytes.
        ValueError: it is damaged.
    """
    with open(file, "rb") as opened:
        head = opened.read(MAX_PICKLE_BYTES)
        if not head.startswith(b"PK\x03\x04"):
            check_names(head, PICKLES_IN_A_ROW, file)
            return
        with zipfile.ZipFile(opened) as archive:
            records = archive.infolist()
            if packed := [record.filename for record in records if record.compress_type != zipfile.ZIP_STORED]:
                raise RefusedError(f"its part {packed[0]} is packed, which torch never does; save it by torch.save")
            different = {record.filename for record in records}
            if len(different) < len(records) or sum(record.file_size for record in records) > os.path.getsize(file):
                raise ValueError("its parts overlap or have the same name")
            if (damaged := archive.testzip()) is not None:  # torch itself does not compare checksums
                raise ValueError(f"the checksum of its part {damaged} is wrong")
            for record in records:
                if record.filename.endswith(".pkl"):
                    if record.file_size > MAX_PICKLE_BYTES:
                        raise RefusedError(
                            f"what describes its tensors has {record.file_size:,} bytes, at most {MAX_PICKLE_BYTES:,} "
                            "are read; save the weights alone"
                        )
                    check_names(archive.read(record), 1, file)


def check_sizes(file: Path, storages: Sequence[int]) -> None:
    """RefusedError where tensors say that they have other sizes than the parts of the archive: torch believes them.

    Args:
        file: a weight file that was looked at.
        storages: bytes of everything that torch read from it.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            parts = [record.file_size for record in archive.infolist() if "/data/" in record.filename]
        if sorted(parts) != sorted(storages):
            raise RefusedError(f"its tensors take {sum(storages):,} bytes, and its parts have {sum(parts):,}")


def check_names(pickles: bytes, count: int, file: Path) -> None:
    """RefusedError where one of so many pickles names what is not allowed, ValueError without them; nothing is run."""
    opened = io.BytesIO(pickles)
    for _ in range(count):
        words: list[str] = []
        for operation, argument, _ in pickletools.genops(opened):
            if operation.name in ("GLOBAL", "INST") and not ALLOWED.fullmatch(str(argument)):
                raise RefusedError(named(str(argument).replace(" ", "."), file))
            if operation.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                raise RefusedError(named(".".join(words[-2:]) or "an object", file))
            if isinstance(argument, str):
                words.append(argument)


def named(name: str, file: Path) -> str:
    """That a file asks for more than tensors and plain containers, and how such a file is converted."""
    refused = f"it asks for {name}, which is more than tensors and plain containers and is never executed; "
    if name in TRUSTED_BY_MANY:
        module = name.rpartition(".")[0]
        program = (
            f"import {module}, torch; torch.serialization.add_safe_globals([{name}]); "
            f"c = torch.load({str(file)!r}, map_location='cpu', weights_only=True); "
            f"torch.save(c.get('model', c.get('state_dict')), {f'{file.stem}_weights.pth'!r})"
        )
        command = shlex.join(["python", "-c", program])  # whoever named the file chooses nothing that a shell runs
        return (
            f"{refused}these are {TRUSTED_BY_MANY[name]}. To keep the weights alone of a file that you trust: {command}"
        )
    return refused + (
        "save the weights alone (torch.save(model.state_dict(), file)), and be wary of where it comes from"
    )


def check_content(content: Any) -> None:
    """RefusedError where containers are nested without end, or a tensor is more than the numbers that it holds."""
    entries, waiting = 0, [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        entries += 1
        if entries > MAX_ENTRIES or depth > MAX_DEPTH:
            raise RefusedError(f"its containers are deeper than {MAX_DEPTH} or hold more than {MAX_ENTRIES:,} entries")
        if isinstance(value, Mapping):
            waiting += ((item, depth + 1) for item in value.values())
        elif isinstance(value, (list, tuple)):
            waiting += ((item, depth + 1) for item in value)
        elif isinstance(value, Tensor):
            check_tensor(value)


def check_tensor(value: Tensor) -> None:
    """RefusedError where a tensor is not a plain one, or one number stands for many in it."""
    if value.layout is not torch.strided or value.is_quantized or value.is_meta or value.is_nested:
        raise RefusedError("it holds a tensor that is sparse, quantized, nested or without numbers")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise RefusedError(f"a tensor of shape {list(value.shape)} holds fewer numbers than it says")
