"""One picture file, opened, made square and plain; and how far many of them have come."""

from __future__ import annotations

import importlib.util
import math
import os
import stat
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from fewshot.data.transforms import Preprocessing

SECONDS_BEFORE_PROGRESS = 3.0
FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "JPEG2000": (".jp2", ".j2k"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
}
"""The formats that are read, by Pillow's names, with their endings. For others Pillow may start a program."""
MAX_PIXELS = 89_478_485
"""Of a picture: as many as Pillow takes for no decompression bomb. One in colour takes 4 bytes a pixel as it is decoded
and, where its EXIF entry turns it upright, 4 more for a moment."""
MAX_COPIED = 2**22
"""Pixels of a picture of which a second copy may be made. Larger ones are resized along rows first, then along columns.
Pillow takes the cheaper way first, and so rounds between the two in another place."""
MAX_FILE_BYTES = 2**30
"""Of a picture."""
MOST_ENLARGED = 16
"""A picture is enlarged by this factor at most, and has two pixels a side or more: less shows nothing."""
LARGER = 2
"""A JPEG is decoded at a fraction of its size where that leaves so many times the pixels of a side, or more."""
DEEP = 4096
"""16-bit values that are all below it are taken for 12-bit ones: they would be almost black."""
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_PHOTOMETRIC = 262
"""The tag of a TIFF that says whether 0 is black; 0 says that it is white."""
_ROWS = 64


@cache
def readable_formats() -> dict[str, tuple[str, ...]]:
    """Those of FORMATS that this installation reads: HEIF where pillow-heif is there, AVIF where Pillow has it."""
    if importlib.util.find_spec("pillow_heif") is not None:
        from pillow_heif import register_heif_opener

        register_heif_opener()
    Image.init()
    return {name: endings for name, endings in FORMATS.items() if name in Image.OPEN}


@cache
def picture_endings() -> tuple[str, ...]:
    """Endings of the files that are read as pictures, in lower case."""
    return tuple(ending for endings in readable_formats().values() for ending in endings)


def open_picture(path: str | Path, *, at_least: int | None = None) -> Image.Image:
    """The decoded picture with 8 bits a channel, upright as its EXIF entry says, first frame of an animation.

    Its content tells its format, whatever its ending is; formats other than FORMATS are not read.

    Args:
        path: the file.
        at_least: a JPEG may be decoded at a half, a quarter or an eighth of its size, which is several times as fast,
            where both sides keep so many pixels or more; None decodes it whole.

    Raises:
        ValueError: it cannot be read, is no regular file, is larger than MAX_PIXELS or MAX_FILE_BYTES, or holds numbers
            whose range is not known; names the path.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")  # opening a named pipe would wait for ever
        if status.st_size > MAX_FILE_BYTES:
            raise ValueError(f"it has {status.st_size:,} bytes, and at most {MAX_FILE_BYTES:,} are read")
        with Image.open(path, formats=tuple(readable_formats())) as picture:
            check_pixels(picture)
            if at_least is not None:
                picture.draft(None, (at_least, at_least))
            inverted = getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == 0  # Pillow sees to 8 bits alone
            is_deep = any(mark in str(getattr(picture, "tile", "")) for mark in (";16", "65535"))
            picture.load()
            ImageOps.exif_transpose(picture, in_place=True)
            return in_8_bits(picture, was_deep=is_deep, zero_is_white=inverted)
    except Exception as error:  # decoders raise many kinds, from SyntaxError to struct.error
        unknown = f"it is damaged or none of {', '.join(readable_formats())}"
        reason = unknown if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"cannot read picture {path} ({reason}); replace or remove it") from error


def check_pixels(picture: Image.Image) -> None:
    """ValueError where a picture, which need not be decoded yet, has more than MAX_PIXELS."""
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"it has {width} x {height} pixels, and at most {MAX_PIXELS:,} are read; make it smaller")


def in_8_bits(picture: Image.Image, *, was_deep: bool = False, zero_is_white: bool = False) -> Image.Image:
    """The picture in a mode of 8 bits a channel: 16-bit grey and floating-point numbers in 0..1 are scaled to them.

    Args:
        picture: decoded, of any mode.
        was_deep: whether its file has 16 bits a channel, which Pillow brings to 8 itself where there is colour.
        zero_is_white: whether grey of more than 8 bits is reversed, as radiographs may be.

    Raises:
        ValueError: numbers of another range, which nobody can tell how to show; says which range was found.
    """
    mode = picture.mode
    if mode == "LAB":
        raise ValueError("its colours are CIELAB, mode LAB; convert it to RGB")
    if mode == "F" or mode.startswith("I"):
        low, high = (float(least([least(np.asarray(part)) for part in _strips(picture)])) for least in (np.min, np.max))
        kind = "floating-point numbers" if mode == "F" else "16-bit integers" if ";" in mode else "32-bit integers"
        found = f"it holds {kind} in {low:.6g}..{high:.6g}"
        if mode == "F" and not (low >= 0 and high <= 1):  # nor where they are not numbers
            raise ValueError(f"{found}, and 0..1 is read; scale them to 0..1, or save it with 8 bits a channel")
        if mode != "F" and (low < 0 or high > 65535 or 0 < high < DEEP):
            raise ValueError(
                f"{found}, and 0..65535 is read; scale what has fewer bits to 0..65535, or save it with 8 bits"
            )
        scale = np.float32(255 if mode == "F" else 255 / 65535)
        pixels, row = np.empty((picture.height, picture.width), np.uint8), 0
        transparent = picture.info.get("transparency")
        for part in _strips(picture):
            numbers, rows = np.asarray(part), slice(row, row + part.height)
            pixels[rows] = (numbers * scale).round()
            if zero_is_white:
                pixels[rows] = 255 - pixels[rows]
            if isinstance(transparent, int):
                pixels[rows][numbers == transparent] = 255
            row += part.height
        return Image.fromarray(pixels)
    if was_deep:
        bands = picture.getextrema()
        high = max(band[1] for band in (bands if isinstance(bands[0], tuple) else (bands,))[:3])
        if 0 < high <= DEEP // 256:
            raise ValueError(
                f"it holds 16-bit colours in 0..{256 * high}, and 0..65535 is read; scale what has fewer bits to "
                "0..65535, or save it with 8 bits"
            )
    return picture


def square_picture(picture: Image.Image, preprocessing: Preprocessing, *, name: str = "") -> np.ndarray:
    """uint8 [C, S, S] with S = stored_size: the shorter edge resized to S, the middle kept.

    Transparent parts become white, before intensities are reversed where `invert` says so.

    Args:
        picture: of any size and mode.
        preprocessing: stored_size, channels, interpolation and invert are used.
        name: what errors call the picture.

    Raises:
        ValueError: as of `in_8_bits`, or the picture is too small to show anything at that size.
    """
    size = preprocessing.stored_size
    width, height = picture.size
    short, least = min(width, height), max(2, -(-size // MOST_ENLARGED))
    try:
        if short < least:
            raise ValueError(
                f"it has {width} x {height} pixels, too few to be resized to {size}; its shorter side needs {least}"
            )
        picture = in_8_bits(picture)
    except ValueError as error:
        raise ValueError(f"cannot use picture{name and ' '}{name} ({error}); replace or remove it") from error
    resampling, left, top = _RESAMPLING[preprocessing.interpolation], (width - short) / 2, (height - short) / 2
    sides, mode = (left, left + short), "L" if preprocessing.channels == 1 else "RGB"
    if picture.mode != mode or picture.has_transparency_data or preprocessing.invert:
        if width * height <= MAX_COPIED:
            picture = _plain(picture, mode, invert=preprocessing.invert)
        else:  # a few rows at a time, made narrow at once
            if max(width, height) > 2 * short:
                picture, left, top = _middle(picture, short, left, top, margin=3 * short / size + 2)
                height = picture.height
            narrow, row = Image.new(mode, (size, height)), 0
            for part in _strips(picture):
                part = _plain(part, mode, invert=preprocessing.invert)
                part = part.resize((size, part.height), resampling, box=(left, 0, left + short, part.height))
                narrow.paste(part, (0, row))
                row += part.height
            picture, sides = narrow, (0, size)
    if picture.size != (size, size):
        picture = picture.resize((size, size), resampling, box=(sides[0], top, sides[1], top + short))
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _middle(
    picture: Image.Image, short: int, left: float, top: float, *, margin: float
) -> tuple[Image.Image, float, float]:
    """What lies in the middle square and so many pixels around it, and where the square begins in that."""
    (x, right), (y, bottom) = (
        (max(0, math.floor(edge - margin)), min(full, math.ceil(edge + short + margin)))
        for edge, full in zip((left, top), picture.size, strict=True)
    )
    return picture.crop((x, y, right, bottom)), left - x, top - y


def _plain(picture: Image.Image, mode: str, *, invert: bool) -> Image.Image:
    """The picture in that mode, transparent parts white, and its intensities reversed if `invert` says so."""
    if picture.has_transparency_data:
        picture = (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert(mode)
    return ImageOps.invert(picture) if invert else picture


def _strips(picture: Image.Image) -> Iterator[Image.Image]:
    """The picture from top to bottom, a few rows at a time: memory holds no second copy of a large one."""
    for top in range(0, picture.height, _ROWS):
        yield picture.crop((0, top, picture.width, min(top + _ROWS, picture.height)))


def progress_bar(what: str, total: int) -> tqdm[NoReturn]:
    """A bar on the error stream for so many pictures, once the work has taken longer than a few seconds.

    Call `update` with how many more are done, and `close`. A terminal's line is written over; a log file gets a line
    now and then.
    """
    seconds = 1.0 if sys.stderr.isatty() else 30.0
    return tqdm(total=total, desc=what, unit=" pictures", delay=SECONDS_BEFORE_PROGRESS, mininterval=seconds)
