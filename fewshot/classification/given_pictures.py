"""Pictures as a person may hand them over: files, Pillow images, arrays or tensors."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from fewshot.data.pictures import open_picture

Picture = Any
"""A path, a Pillow image, a numpy array [H, W], [H, W, 1] or [H, W, 3], or a tensor [1 or 3, H, W]; numbers are uint8,
or floating-point in 0..1."""


def as_image(picture: Picture, *, at_least: int | None = None) -> Image.Image:
    """A picture of any kind as a Pillow image, of any mode.

    Args:
        picture: see Picture.
        at_least: of a file, as of `open_picture`.

    Raises:
        ValueError: it cannot be read, or is no picture; says what it is.
    """
    if is_path(picture):
        return open_picture(picture, at_least=at_least)
    if isinstance(picture, Image.Image):
        try:
            picture.load()  # which may not have been done yet
            return ImageOps.exif_transpose(picture)
        except Exception as error:  # decoders raise many kinds, from SyntaxError to struct.error
            raise ValueError(f"cannot read picture {getattr(picture, 'filename', '')} ({error})") from error
    if isinstance(picture, Tensor):
        if picture.ndim != 3 or picture.shape[0] not in (1, 3):
            raise ValueError(f"a tensor of shape {list(picture.shape)} is no picture; give [1 or 3, H, W]")
        picture = picture.detach().cpu().permute(1, 2, 0)
        picture = (picture.float() if picture.is_floating_point() else picture).numpy()
    if not isinstance(picture, np.ndarray):
        raise ValueError(
            f"{type(picture).__name__} is no picture; give a path, a Pillow image, an array [H, W, 3] or a tensor "
            "[3, H, W]"
        )
    if picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] not in (1, 3)):
        raise ValueError(f"an array of shape {list(picture.shape)} is no picture; give [H, W], [H, W, 1] or [H, W, 3]")
    if not picture.size:
        raise ValueError(f"an array of shape {list(picture.shape)} is an empty picture")
    pixels = picture[..., 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture
    if pixels.dtype != np.uint8:
        if not np.issubdtype(pixels.dtype, np.floating):
            raise ValueError(f"a picture of {pixels.dtype}; give uint8, or floating-point numbers in 0..1")
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError("a floating-point picture has values outside 0..1; give it as it was before normalisation")
        pixels = (pixels * 255).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels))


def as_pictures(given: Any) -> list[Picture]:
    """A list of pictures: a sequence of them, one stack [n, H, W, C] (numpy) or [n, C, H, W] (tensor), or one alone."""
    if is_path(given) or isinstance(given, Image.Image):
        return [given]
    if isinstance(given, (np.ndarray, Tensor)) and given.ndim == 3 and given.dtype != object:
        return [given]
    if isinstance(given, np.ndarray) and given.dtype.kind in "US":
        return [str(path) for path in given.ravel()]
    try:
        return list(given)
    except TypeError:
        raise ValueError(f"{type(given).__name__} holds no pictures; give a list of them") from None


def is_path(picture: Picture) -> bool:
    return isinstance(picture, (str, os.PathLike))
