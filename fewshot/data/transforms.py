"""From stored uint8 pictures to what a backbone receives: sizes, crops, jitter, normalisation, in one place.

Everything works on a whole batch at once, with parameters drawn for every picture by itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

PROCESSOR_CACHE = 2**20
"""Bytes of pictures that are augmented at a time."""

MAX_SIDE = 2048
"""Pixels of a stored picture."""

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")

# Weights of red, green and blue in the grey value (ITU-R 601-2), the ones Pillow and torchvision use.
GREY_WEIGHTS = (0.2989, 0.587, 0.114)


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the tensor that the backbone receives.

    Attributes:
        image_size: side of what the backbone receives, in pixels.
        stored_size: side, in pixels, of the square uint8 pictures that are kept: the shorter edge is resized to it and
            the middle is kept. At least image_size; what it has more is what crops move in.
        mean: per channel, of intensities in 0..1.
        std: per channel, of intensities in 0..1.
        channels: 3 turns pictures into RGB, 1 into grey.
        interpolation: nearest, bilinear, bicubic or lanczos, for the resize to stored_size.
        crop_padding: training crops are cut from the stored picture with so many pixels of zero around it.
        colour_jitter: training factors of brightness, contrast and saturation are uniform in 1 - this .. 1 + this.
        flip: training pictures are mirrored left to right with probability 1/2.
        invert: intensities are reversed as a picture is read, 255 becoming 0: dark ink on white paper becomes bright.

    Raises:
        ValueError: sizes, channels and statistics that cannot belong together.
    """

    image_size: int
    stored_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int = 3
    interpolation: str = "bilinear"
    crop_padding: int = 0
    colour_jitter: float = 0.0
    flip: bool = False
    invert: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        if self.channels not in (1, 3):
            raise ValueError(f"channels={self.channels}; pictures have 1 (grey) or 3 (RGB) channels")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(
                f"channels={self.channels} but mean has {len(self.mean)} and std {len(self.std)} values; "
                "give one of each per channel"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std={self.std}; every value must be above 0")
        if not 1 <= self.image_size <= self.stored_size <= MAX_SIDE:
            raise ValueError(
                f"image_size={self.image_size} and stored_size={self.stored_size}; "
                f"need 1 <= image_size <= stored_size <= {MAX_SIDE}, in pixels"
            )
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation={self.interpolation!r}; choose one of {', '.join(INTERPOLATIONS)}")
        if self.crop_padding < 0:
            raise ValueError(f"crop_padding={self.crop_padding}; give 0 or more pixels")
        if not 0.0 <= self.colour_jitter <= 1.0:
            raise ValueError(f"colour_jitter={self.colour_jitter}; give a number in 0..1")

    @property
    def augments(self) -> bool:
        """Whether training pictures differ from evaluation's."""
        cropped = self.crop_padding > 0 or self.stored_size > self.image_size
        return cropped or self.flip or self.colour_jitter > 0

    def of_evaluation(self) -> dict[str, Any]:
        """What it does outside of training, as plain values."""
        kept = ("image_size", "stored_size", "channels", "interpolation", "mean", "std", "invert")
        return {name: getattr(self, name) for name in kept}

    def with_channels(self, channels: int) -> Preprocessing:
        """The same with 1 or 3 channels: statistics are averaged over colours, or repeated for each."""
        if channels == self.channels:
            return self
        mean = (sum(self.mean) / self.channels,) * channels
        std = (sum(self.std) / self.channels,) * channels
        return replace(self, channels=channels, mean=mean, std=std)

    def with_image_size(self, image_size: int) -> Preprocessing:
        """The same for another size in pixels: stored_size and crop_padding keep their proportion to image_size."""
        scale = image_size / self.image_size
        return replace(
            self,
            image_size=image_size,
            stored_size=max(image_size, round(self.stored_size * scale)),
            crop_padding=round(self.crop_padding * scale),
        )


def adapted_preprocessing(
    own: Preprocessing,
    *,
    channels: int | None = None,
    wanted: Preprocessing | Mapping[str, Any] | None = None,
    image_size: int | None = None,
) -> Preprocessing:
    """A data set's preprocessing changed to what a backbone wants.

    Args:
        own: the data set's.
        channels: 1 or 3; None keeps what there is.
        wanted: replaces it altogether, or (a mapping) in mean, std, interpolation, size and crop_pct, as timm says
            them: the crop that the backbone receives is so large a part of the stored picture. Its crop is always the
            middle: where timm squashes pictures or puts borders around them (crop_mode), a warning says so.
        image_size: side in pixels; None keeps what there is.
    """
    if isinstance(wanted, Preprocessing):
        own = wanted
    elif wanted is not None and "stored_size" in wanted:
        own = Preprocessing(**wanted)
    elif wanted is not None:
        if (mode := wanted.get("crop_mode", "center")) != "center":
            warnings.warn(
                f"this network was published for pictures cropped by {mode!r}; here the middle of a picture is taken, "
                "so that what is not square is seen otherwise",
                stacklevel=2,
            )
        size = int(wanted["input_size"][-1])
        mean, std = tuple(wanted["mean"]), tuple(wanted["std"])
        own = replace(
            own.with_image_size(size),
            stored_size=max(size, int(size / wanted.get("crop_pct", 1.0))),
            interpolation=wanted.get("interpolation", own.interpolation),
            channels=len(mean),
            mean=mean,
            std=std,
        )
    if channels is not None:
        own = own.with_channels(channels)
    return own if image_size is None else own.with_image_size(image_size)


def evaluation_transform(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Middle crop, normalised. [B, C, H, W] uint8 -> [B, C, image_size, image_size] float32."""
    size = preprocessing.image_size
    _check_pictures(images, preprocessing)
    top, left = (round((side - size) / 2) for side in images.shape[-2:])
    return _normalised(images[..., top : top + size, left : left + size].float().div_(255), preprocessing)


def training_transform(
    images: Tensor, preprocessing: Preprocessing, generator: torch.Generator | np.random.Generator
) -> Tensor:
    """Random crop, flip and colour jitter, normalised. [B, C, H, W] uint8 -> [B, C, image_size, image_size] float32.

    Each picture draws its own nine numbers: two for the crop, one for the flip, three jitter factors and three for the
    order in which brightness, contrast and saturation are applied. The crop comes before the jitter, so that pixels of
    padding count in the mean grey that contrast is measured against, as in torchvision's pipeline.
    """
    _check_pictures(images, preprocessing)
    uniform = _uniform(len(images), 9, generator).to(images.device)  # [B, 9]
    size = preprocessing.image_size
    if images.is_cuda or len(images) * images.shape[1] * size**2 * 4 <= PROCESSOR_CACHE:
        return _augmented(images, preprocessing, uniform)
    # A dozen passes over a few pictures that stay in the processor's cache take half the time of as many over all.
    result = torch.empty(len(images), images.shape[1], size, size, device=images.device)
    at_once = max(1, PROCESSOR_CACHE // (images.shape[1] * size**2 * 4))
    for first in range(0, len(images), at_once):
        part = slice(first, first + at_once)
        result[part] = _augmented(images[part], preprocessing, uniform[part])
    return result


def _augmented(images: Tensor, preprocessing: Preprocessing, uniform: Tensor) -> Tensor:
    """See training_transform; uniform: [B, 9] random numbers in 0..1."""
    offsets, flipped = uniform[:, :2], uniform[:, 2] < 0.5
    if not preprocessing.flip:
        flipped = torch.zeros_like(flipped)
    pictures = random_crop(
        images, preprocessing.image_size, padding=preprocessing.crop_padding, offsets=offsets, flipped=flipped
    )
    intensities = pictures.float().div_(255)
    if preprocessing.colour_jitter:
        factors = 1 + preprocessing.colour_jitter * (2 * uniform[:, 3:6] - 1)  # [B, 3]
        intensities = colour_jitter(intensities, factors, uniform[:, 6:9].argsort(dim=1))
    return _normalised(intensities, preprocessing)


def random_crop(images: Tensor, size: int, *, padding: int, offsets: Tensor, flipped: Tensor) -> Tensor:
    """Crops [B, C, size, size] out of pictures [B, C, H, W] with `padding` pixels of zero around them.

    Args:
        images: any type.
        size: side of the crop in pixels.
        padding: pixels added on each side.
        offsets: [B, 2] in 0..1, down and right: 0 is the first possible place and just below 1 the last.
        flipped: [B] bool, which crops are mirrored left to right.
    """
    if padding:
        images = torch.nn.functional.pad(images, (padding, padding, padding, padding))
    height, width = images.shape[-2:]
    places = torch.tensor([height - size + 1, width - size + 1], device=images.device)
    start = (offsets * places).long().minimum(places - 1)  # [B, 2]
    steps = torch.arange(size, device=images.device)
    rows = start[:, :1] + steps  # [B, size]
    columns = start[:, 1:] + torch.where(flipped[:, None], steps.flip(0), steps)  # [B, size]
    pixels = rows[:, None, :, None] * width + columns[:, None, None, :]  # [B, 1, size, size]
    flat = images.flatten(2)  # [B, C, HW]
    chosen = flat.gather(2, pixels.expand(-1, images.shape[1], -1, -1).flatten(2))
    return chosen.unflatten(2, (size, size))


def colour_jitter(intensities: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Pictures [B, C, H, W] with brightness, contrast and saturation scaled, each picture in its own order.

    All three blend a picture with a reference, factor * picture + (1 - factor) * reference, cut to 0..1: black for
    brightness, its mean grey for contrast, its grey picture for saturation. So one pass per place in the order serves
    every picture, whichever of the three it is at. Agrees with torchvision's adjust_brightness, adjust_contrast and
    adjust_saturation on float pictures.

    Args:
        intensities: float in 0..1, C = 1 (saturation then changes nothing) or 3.
        factors: [B, 3] for brightness, contrast, saturation.
        order: [B, 3] int64, a permutation of 0, 1, 2 in each row: which of the three comes first, second, third.
    """
    for place in range(3):
        kind = order[:, place]  # [B]
        factor = factors.gather(1, kind[:, None])[:, :, None, None]  # [B, 1, 1, 1]
        grey = _grey(intensities)  # [B, 1, H, W]
        keeps_grey = (kind == 2)[:, None, None, None]
        is_black = (kind == 0)[:, None, None, None]
        flat_grey = grey.mean(dim=(1, 2, 3), keepdim=True).masked_fill(is_black, 0)  # [B, 1, 1, 1]
        reference = torch.where(keeps_grey, grey, flat_grey).mul_(1 - factor)  # [B, 1, H, W]
        intensities = torch.addcmul(reference, intensities, factor).clamp_(0, 1)
    return intensities


def _grey(intensities: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, 1, H, W]."""
    if intensities.shape[1] == 1:
        return intensities
    red, green, blue = intensities.unbind(dim=1)
    weights = GREY_WEIGHTS
    return (red * weights[0]).add_(green, alpha=weights[1]).add_(blue, alpha=weights[2]).unsqueeze(1)


def _normalised(intensities: Tensor, preprocessing: Preprocessing) -> Tensor:
    """In place: minus mean, divided by std, per channel."""
    mean = torch.tensor(preprocessing.mean, device=intensities.device)[:, None, None]
    std = torch.tensor(preprocessing.std, device=intensities.device)[:, None, None]
    return intensities.sub_(mean).div_(std)


def _uniform(rows: int, columns: int, generator: torch.Generator | np.random.Generator) -> Tensor:
    """[rows, columns] float32 in 0..1 (1 excluded)."""
    if isinstance(generator, torch.Generator):
        return torch.rand(rows, columns, generator=generator, device=generator.device)
    return torch.from_numpy(generator.random((rows, columns), dtype=np.float32))


def _check_pictures(images: Tensor, preprocessing: Preprocessing) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != preprocessing.channels:
        raise ValueError(
            f"pictures of type {images.dtype} and shape {list(images.shape)}; "
            f"need uint8 [B, {preprocessing.channels}, H, W]"
        )
    if min(images.shape[-2:]) < preprocessing.image_size:
        raise ValueError(
            f"pictures of {images.shape[-2]} x {images.shape[-1]} pixels but image_size={preprocessing.image_size}; "
            "store them larger"
        )
