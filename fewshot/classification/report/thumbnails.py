"""Pictures as small squares inside a page: data URIs of JPEG, or of WebP where that is smaller."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, features

from fewshot.data.content_rows import ContentRows, content_of, state_of
from fewshot.data.images import CACHE_FORMAT, DECODING_THREADS
from fewshot.data.pictures import LARGER, open_picture, progress_bar, square_picture
from fewshot.data.transforms import Preprocessing

SIDE = 96
"""Pixels at most; smaller pictures stay as they are."""
QUALITY = 72
LENGTH_BYTES, ROW_BYTES = 2, 6144
"""Of the cache folder's rows: how long a small picture is, then itself. One that does not fit is made every time."""


def thumbnails(paths: Sequence[Path], *, remember: bool = False) -> list[str | None]:
    """A data URI for each file, in order; None for one that is gone or cannot be read.

    Args:
        paths: files.
        remember: in the cache folder, by the files' content.
    """
    found = []
    known = _known() if remember else None
    with (
        ThreadPoolExecutor(DECODING_THREADS) as pool,
        progress_bar("small pictures for the report", len(paths)) as progress,
        known or nullcontext(),
    ):
        for content, small in pool.map(functools.partial(_looked_up, known=known), paths):
            if known is not None and content is not None and small is not None:
                _add(known, content, small)
            found.append(None if small is None else _uri(small))
            progress.update(1)
    return found


def _known() -> ContentRows:
    made = f"{SIDE} {QUALITY} {LARGER} {features.check('webp')} {CACHE_FORMAT} {PIL.__version__}"
    return ContentRows("small-pictures", hashlib.sha256(made.encode()).hexdigest(), ROW_BYTES)


def _add(known: ContentRows, content: bytes, small: bytes) -> None:
    if len(small) <= ROW_BYTES - LENGTH_BYTES:
        row = (len(small).to_bytes(LENGTH_BYTES, "little") + small).ljust(ROW_BYTES, b"\0")
        known.add(content, np.frombuffer(row, np.uint8))


def _looked_up(path: Path, known: ContentRows | None) -> tuple[bytes | None, bytes | None]:
    """A file's content, where its small picture is new and to be remembered, and its small picture."""
    found = None if known is None else content_of(path)
    if known is None or found is None:
        return None, thumbnail(path)
    if (row := known.row_of(found[0])) is not None:
        return None, row[LENGTH_BYTES:][: int.from_bytes(row[:LENGTH_BYTES].tobytes(), "little")].tobytes()
    small = thumbnail(path)
    is_same = small is not None and state_of(path) == found[1]  # not written to since
    return (found[0] if is_same else None), small


def thumbnail(path: Path) -> bytes | None:
    """The upright middle square of a picture as JPEG or WebP; None where it is gone or cannot be read.

    It is cut as the backbone sees it: the shorter edge whole, the longer one cut on both sides.
    """
    try:
        picture = open_picture(path, at_least=LARGER * SIDE)
    except ValueError:
        return None
    side = min(SIDE, *picture.size)
    cut = Preprocessing(image_size=side, stored_size=side, mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bicubic")
    small = Image.fromarray(square_picture(picture, cut).transpose(1, 2, 0).copy())
    encoded = [_encoded(small, "JPEG")]
    if features.check("webp"):
        encoded.append(_encoded(small, "WEBP"))
    return min(encoded, key=len)


def _encoded(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, quality=QUALITY, optimize=True)
    return file.getvalue()


def _uri(small: bytes) -> str:
    kind = "webp" if small[:4] == b"RIFF" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(small).decode('ascii')}"
