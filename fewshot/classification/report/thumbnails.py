"""Pictures as small squares inside a page: data URIs of JPEG, or of WebP where that is smaller."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, features

from fewshot.data.images import DECODING_THREADS
from fewshot.data.pictures import open_picture, progress_bar, square_picture
from fewshot.data.transforms import Preprocessing

SIDE = 96
"""Pixels at most; smaller pictures stay as they are."""
QUALITY = 72


def thumbnails(paths: Sequence[Path]) -> list[str | None]:
    """A data URI for each file, in order; None for one that is gone or cannot be read."""
    progress = progress_bar("small pictures for the report", len(paths))
    found = []
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        for uri in pool.map(thumbnail, paths):
            found.append(uri)
            progress.update(1)
    progress.close()
    return found


def thumbnail(path: Path) -> str | None:
    """The upright middle square of a picture as a data URI; None where it is gone or cannot be read.

    It is cut as the backbone sees it: the shorter edge whole, the longer one cut on both sides.
    """
    try:
        picture = open_picture(path, at_least=2 * SIDE)
    except ValueError:
        return None
    side = min(SIDE, *picture.size)
    cut = Preprocessing(image_size=side, stored_size=side, mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bicubic")
    small = Image.fromarray(square_picture(picture, cut).transpose(1, 2, 0).copy())
    encoded = [("jpeg", _encoded(small, "JPEG"))]
    if features.check("webp"):
        encoded.append(("webp", _encoded(small, "WEBP")))
    kind, content = min(encoded, key=lambda entry: len(entry[1]))
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _encoded(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, quality=QUALITY, optimize=True)
    return file.getvalue()
