"""Pictures of any kind, files, Pillow images, arrays or tensors, as features of a frozen backbone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fewshot.backbones import BackboneConfig
from fewshot.backbones.checkpoint_file import read_checkpoint, saved_model_beside
from fewshot.data.datasets.folder import IMAGENET_MEAN, IMAGENET_STD
from fewshot.data.images import DECODING_THREADS
from fewshot.data.pictures import open_picture, progress_bar, square_picture
from fewshot.data.transforms import Preprocessing, adapted_preprocessing, evaluation_transform
from fewshot.training.saved_model import recorded_preprocessing

Picture = Any
"""A path, a Pillow image, a numpy array [H, W], [H, W, 1] or [H, W, 3], or a tensor [1 or 3, H, W]; numbers are uint8,
or floating-point in 0..1."""


class Encoded(NamedTuple):
    """Features of the pictures that could be read, and the others."""

    features: Tensor
    """[n, D] float32 on the CPU, in the order of the pictures that could be read."""
    kept: np.ndarray
    """[n] int64, the places of those pictures among the ones given."""
    broken: list[tuple[int, str]]
    """Places of the others, with the reason."""


class PictureEncoder:
    """A backbone in evaluation mode with the preprocessing it was trained with.

    Args:
        backbone: pictures [B, C, S, S] to features [B, D].
        preprocessing: how pictures become its tensors.
        device: where it computes.
        batch_size: pictures at a time.
    """

    def __init__(
        self, backbone: Any, preprocessing: Preprocessing, *, device: torch.device | str = "cpu", batch_size: int = 64
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}; give 1 or more pictures")
        self.backbone = backbone.eval().to(device)
        self.preprocessing, self.device, self.batch_size = preprocessing, torch.device(device), batch_size

    def encode(self, pictures: Sequence[Picture], *, skip_broken: bool = False, what: str | None = None) -> Encoded:
        """Features of pictures, a batch at a time, so that memory does not grow with how many there are.

        Args:
            pictures: see Picture.
            skip_broken: go on without a picture that cannot be read, and report it.
            what: begins a line of progress on the error stream; None shows none.

        Raises:
            ValueError: a picture cannot be read, or is none, and skip_broken is off; names it.
        """
        parts, kept, broken = [], [], []
        bar = nullcontext() if what is None else progress_bar(what, len(pictures))
        with ThreadPoolExecutor(DECODING_THREADS) as pool, bar as progress:
            for first in range(0, len(pictures), self.batch_size):
                batch, squares = pictures[first : first + self.batch_size], []
                for place, found in enumerate(pool.map(self._square_or_fault, batch), start=first):
                    if isinstance(found, np.ndarray):
                        squares.append(found)
                        kept.append(place)
                    elif skip_broken:
                        broken.append((place, str(found)))
                    else:
                        raise ValueError(str(found) if _is_path(pictures[place]) else f"picture {place}: {found}")
                if squares:
                    parts.append(self.features_of(torch.from_numpy(np.stack(squares))))
                if progress is not None:
                    progress.update(len(batch))
        features = torch.cat(parts) if parts else torch.zeros(0, int(self.backbone.num_features))
        return Encoded(features, np.array(kept, dtype=np.int64), broken)

    @torch.no_grad()
    def features_of(self, squares: Tensor) -> Tensor:
        """Features [B, D], float32 on the CPU, of stored pictures uint8 [B, C, stored_size, stored_size]."""
        batch = evaluation_transform(squares, self.preprocessing).to(self.device, memory_format=torch.channels_last)
        return self.backbone(batch).float().cpu()

    def _square_or_fault(self, picture: Picture) -> np.ndarray | ValueError:
        try:
            name = str(picture) if _is_path(picture) else ""
            return square_picture(as_image(picture), self.preprocessing, name=name)
        except ValueError as error:
            return error


def encoder_of_backbone(name: str, *, weights: str | None, image_size: int | None) -> PictureEncoder:
    """An encoder by the name of a timm model, on the CPU.

    The normalisation is that of the weights: timm's for its published ones, what a checkpoint or saved model of ours
    recorded, or ImageNet's for plain weights that bring none.

    Args:
        name: any name timm knows.
        weights: a weight file or run folder; None fetches timm's published ones.
        image_size: side of the pictures in pixels; None takes the one of the weights, else of the model.
    """
    config = BackboneConfig(name=name, pretrained=weights is None, weights=weights, image_size=image_size).located()
    recorded = None
    if config.weights is not None:
        saved = saved_model_beside(Path(config.weights))
        content = read_checkpoint(config.weights) if saved is None else saved
        if saved is not None or "pytorch-lightning_version" in content:
            recorded = recorded_preprocessing(content, config.weights)
            config = BackboneConfig(
                name=name,
                weights=config.weights,
                in_chans=recorded.channels,
                image_size=recorded.image_size if image_size is None else image_size,
            )
    backbone: Any = config.create()
    size = backbone.image_size
    plain = Preprocessing(image_size=size, stored_size=size, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    wanted = backbone.preprocessing if recorded is None else recorded
    preprocessing = adapted_preprocessing(plain, channels=backbone.in_chans, wanted=wanted, image_size=image_size)
    return PictureEncoder(backbone, preprocessing)


def as_image(picture: Picture) -> Image.Image:
    """A picture of any kind as a Pillow image, of any mode.

    Raises:
        ValueError: it cannot be read, or is no picture; says what it is.
    """
    if _is_path(picture):
        return open_picture(picture)
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
    if _is_path(given) or isinstance(given, Image.Image):
        return [given]
    if isinstance(given, (np.ndarray, Tensor)) and given.ndim == 3 and given.dtype != object:
        return [given]
    if isinstance(given, np.ndarray) and given.dtype.kind in "US":
        return [str(path) for path in given.ravel()]
    try:
        return list(given)
    except TypeError:
        raise ValueError(f"{type(given).__name__} holds no pictures; give a list of them") from None


def _is_path(picture: Picture) -> bool:
    return isinstance(picture, (str, os.PathLike))
