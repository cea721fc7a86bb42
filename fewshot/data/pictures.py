"""One picture file, opened, made square and plain; and how far many of them have come."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from fewshot.data.transforms import Preprocessing

SECONDS_BEFORE_PROGRESS = 3.0
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def open_picture(path: str | Path, *, at_least: int | None = None) -> Image.Image:
    """The decoded picture, upright as its EXIF entry says, first frame of an animation.

    Args:
        path: the file.
        at_least: a JPEG may be decoded at a half, a quarter or an eighth of its size, which is several times as fast,
            where both sides keep so many pixels or more; None decodes it whole.

    Raises:
        ValueError: it cannot be read; names the path.
    """
    try:
        with Image.open(path) as picture:
            if at_least is not None:
                picture.draft(None, (at_least, at_least))
            picture.load()
            return ImageOps.exif_transpose(picture)
    except Exception as error:  # decoders raise many kinds, from SyntaxError to struct.error
        raise ValueError(f"cannot read picture {path} ({error}); replace or remove it") from error


def square_picture(picture: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """uint8 [C, S, S] with S = stored_size: the shorter edge resized to S, the middle kept.

    Transparent parts become white, before intensities are reversed where `invert` says so. 16-bit grey is brought to 8
    bits.
    """
    picture = _plain(picture).convert("L" if preprocessing.channels == 1 else "RGB")
    if preprocessing.invert:
        picture = ImageOps.invert(picture)
    size = preprocessing.stored_size
    if picture.size != (size, size):
        width, height = picture.size
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        picture = picture.resize(
            (size, size), _RESAMPLING[preprocessing.interpolation], box=(left, top, left + short, top + short)
        )
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _plain(picture: Image.Image) -> Image.Image:
    """Without transparency and with 8 bits a channel."""
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would cut every value above 255
        return Image.fromarray((np.asarray(picture).clip(0, 65535) / 257).round().astype(np.uint8))
    if picture.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(paper, picture)
    return picture


def progress_bar(what: str, total: int) -> tqdm[NoReturn]:
    """A bar on the error stream for so many pictures, once the work has taken longer than a few seconds.

    Call `update` with how many more are done, and `close`. A terminal's line is written over; a log file gets a line
    now and then.
    """
    seconds = 1.0 if sys.stderr.isatty() else 30.0
    return tqdm(total=total, desc=what, unit=" pictures", delay=SECONDS_BEFORE_PROGRESS, mininterval=seconds)
