"""Pictures as features of a frozen backbone; those of files are remembered."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import PIL
import torch
from torch import Tensor

from fewshot.backbones import BackboneConfig
from fewshot.backbones.checkpoint_file import read_checkpoint, saved_model_beside
from fewshot.classification.given_pictures import Picture, as_image, is_path
from fewshot.data.content_rows import ContentFeatures, content_of, state_of
from fewshot.data.datasets.folder import IMAGENET_MEAN, IMAGENET_STD
from fewshot.data.images import CACHE_FORMAT, DECODING_THREADS
from fewshot.data.pictures import LARGER, progress_bar, square_picture
from fewshot.data.transforms import Preprocessing, adapted_preprocessing, evaluation_transform
from fewshot.training.encoding import backbone_key
from fewshot.training.saved_model import recorded_preprocessing

PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""What the network computes in, by the Trainer's names; features are float32 in all of them."""
PROCESSOR_BATCH = 8
"""Pictures that a CPU encodes at a time: as fast as more, and a single picture does not cost many blank ones."""
Item = TypeVar("Item")
Result = TypeVar("Result")


class Encoded(NamedTuple):
    """Features of the pictures that could be read, and the others."""

    features: Tensor
    """[n, D] float32 on the CPU, in the order of the pictures that could be read."""
    kept: np.ndarray
    """[n] int64, the places of those pictures among the ones given."""
    broken: list[tuple[int, str]]
    """Places of the others, with the reason."""


class Read(NamedTuple):
    """A picture that was looked at: its features, or what they are made of, or why there are none."""

    row: np.ndarray | None = None
    """[D], where they are remembered."""
    square: np.ndarray | None = None
    """uint8 [C, stored_size, stored_size]."""
    content: bytes | None = None
    """SHA-256 of the file that it was decoded from; None where features are not to be remembered."""
    fault: str = ""


class PictureEncoder:
    """A backbone in evaluation mode with the preprocessing it was trained with.

    The network is always given as many pictures at a time, blank ones where there are fewer, so that the features of a
    picture do not depend on the others, to the last digit: what is remembered is what would be computed.

    Args:
        backbone: pictures [B, C, S, S] to features [B, D].
        preprocessing: how pictures become its tensors.
        config: what it was built from; None for a network of a person's own, whose features are not remembered.
        device: where it computes.
        batch_size: pictures at a time. A CPU takes PROCESSOR_BATCH at most, which is as fast.
        precision: one of PRECISIONS.
        store_features: whether features of picture files are remembered in the cache folder.

    Raises:
        ValueError: a batch size below 1, or a precision that is not known or not possible on the device.
    """

    def __init__(
        self,
        backbone: Any,
        preprocessing: Preprocessing,
        config: BackboneConfig | None = None,
        *,
        device: torch.device | str = "cpu",
        batch_size: int = 64,
        precision: str = "32-true",
        store_features: bool = True,
    ) -> None:
        self.backbone = backbone.eval().to(device)
        self.preprocessing, self.config, self.device = preprocessing, config, torch.device(device)
        self.batch_size, self.precision, self.store_features = batch_size, precision, store_features
        check_encoding(self.device, batch_size=batch_size, precision=precision)

    @property
    def together(self) -> int:
        """Pictures that the network is given at a time."""
        return min(self.batch_size, PROCESSOR_BATCH) if self.device.type == "cpu" else self.batch_size

    def encode(self, pictures: Sequence[Picture], *, skip_broken: bool = False, what: str | None = None) -> Encoded:
        """Features of pictures; files are read and decoded by threads while the network computes.

        Memory grows with the features alone. Features of files that were encoded before, under whatever name, are read
        from the cache folder.

        Args:
            pictures: see Picture.
            skip_broken: go on without a picture that cannot be read, and report it.
            what: begins a line of progress on the error stream; None shows none.

        Raises:
            ValueError: a picture cannot be read, or is none, and skip_broken is off; names it.
        """
        known = self._known() if any(is_path(picture) for picture in pictures) else None
        features = torch.zeros(len(pictures), int(self.backbone.num_features))
        kept: list[int] = []
        broken: list[tuple[int, str]] = []
        waiting: list[tuple[int, Read, np.ndarray]] = []
        bar = nullcontext() if what is None else progress_bar(what, len(pictures))
        look, ahead = functools.partial(self._look, known=known), self.together + 2 * DECODING_THREADS
        with contextlib.closing(in_threads(look, pictures, ahead)) as found, bar as progress, known or nullcontext():
            for place, read in enumerate(found):
                if read.fault and not skip_broken:
                    raise ValueError(read.fault if is_path(pictures[place]) else f"picture {place}: {read.fault}")
                if read.fault:
                    broken.append((place, read.fault))
                else:
                    kept.append(place)
                if read.row is not None:
                    features[place] = torch.from_numpy(read.row)
                if read.square is not None:
                    waiting.append((place, read, read.square))
                if len(waiting) == self.together or (waiting and place == len(pictures) - 1):
                    self._fill(features, waiting, known)
                    waiting.clear()
                if progress is not None:
                    progress.update()
        places = np.array(kept, dtype=np.int64)
        return Encoded(features if not broken else features[torch.from_numpy(places)], places, broken)

    @torch.no_grad()
    def features_of(self, squares: Tensor) -> Tensor:
        """Features [B, D], float32 on the CPU, of stored pictures uint8 [B, C, stored_size, stored_size]."""
        parts = [torch.zeros(0, int(self.backbone.num_features))]
        for part in squares.split(self.together):
            blank = part.new_zeros(self.together - len(part), *part.shape[1:])
            batch = evaluation_transform(torch.cat([part, blank]).to(self.device), self.preprocessing)
            with mixed(self.precision, self.device):
                found = self.backbone(batch.to(memory_format=torch.channels_last))
            parts.append(found[: len(part)].float().cpu())
        return torch.cat(parts)

    def _fill(
        self, features: Tensor, waiting: Sequence[tuple[int, Read, np.ndarray]], known: ContentFeatures | None
    ) -> None:
        """Encode what waits, put it in its places of features [n, D], and remember it."""
        rows = self.features_of(torch.from_numpy(np.stack([square for *_, square in waiting])))
        for (place, read, _), row in zip(waiting, rows, strict=True):
            features[place] = row
            if known is not None and read.content is not None:
                known.add(read.content, row.numpy())

    def _look(self, picture: Picture, known: ContentFeatures | None) -> Read:
        found = content_of(picture) if is_path(picture) and known is not None else None
        if known is not None and found is not None and (row := known.row_of(found[0])) is not None:
            return Read(row)
        try:
            image = as_image(picture, at_least=LARGER * self.preprocessing.stored_size)
            square = square_picture(image, self.preprocessing, name=str(picture) if is_path(picture) else "")
        except ValueError as error:
            return Read(fault=str(error))
        if found is None or state_of(picture) != found[1]:  # written to since
            return Read(square=square)
        return Read(square=square, content=found[0])

    def _known(self) -> ContentFeatures | None:
        """What is remembered of this backbone, as it is now."""
        if self.config is None or not self.store_features:
            return None
        plain = replace(self.config, pretrained=False, weights=None, image_size=None)
        described = {
            "backbone": backbone_key(self.backbone, plain, self.precision),
            "preprocessing": self.preprocessing.of_evaluation(),
            "computed": [self.backbone.image_size, self.device.type, self.together, torch.__version__],
            "decoded": [CACHE_FORMAT, LARGER, PIL.__version__],
        }
        key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
        return ContentFeatures(self.config.name, key, int(self.backbone.num_features))


def in_threads(function: Callable[[Item], Result], items: Sequence[Item], ahead: int) -> Generator[Result]:
    """The function of each item, in order, by threads that are at most so many items ahead of who takes the results."""
    pool, futures = ThreadPoolExecutor(DECODING_THREADS), deque[Future[Result]]()
    try:
        for item in items:
            futures.append(pool.submit(function, item))
            if len(futures) > ahead:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def check_encoding(device: torch.device, *, batch_size: int, precision: str) -> None:
    """ValueError for a size below 1, or a precision that is not one of PRECISIONS or not one of the device's."""
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}; give 1 or more pictures")
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}; choose one of {', '.join(PRECISIONS)}")
    if precision == "16-mixed" and device.type == "cpu":
        raise ValueError("precision='16-mixed' needs a GPU; give bf16-mixed or 32-true")


def mixed(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """In which the network computes in that precision."""
    kind = PRECISIONS[precision]
    return nullcontext() if kind is None else torch.autocast(device.type, kind)


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
    return PictureEncoder(backbone, preprocessing, config)
