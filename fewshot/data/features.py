"""Features of a frozen backbone: every picture of a split encoded once, read ever after as if it were the picture."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import record_function

from fewshot.data.cache import cached_file
from fewshot.data.feature_file import Features, found_features, write_features
from fewshot.data.images import Images
from fewshot.data.ranks import gathered, rank_and_world_size
from fewshot.data.transforms import Preprocessing, evaluation_transform, training_transform

Encoder = Callable[[Tensor], Tensor]
"""float [B, C, H, W], on the CPU -> [B, D], on any device."""

ENCODE_BATCH = 256


class PassingFeatures:
    """Features of all pictures of a split as a backbone in training gives them just now, in memory."""

    n_views = 1

    def __init__(self) -> None:
        self._rows: Tensor | None = None  # [n, D]

    def compute(self, encoder: Encoder, images: Images, preprocessing: Preprocessing) -> None:
        """Encode every picture anew, each rank its share; arguments as of stored_features."""
        rows = [torch.from_numpy(part) for parts in encoded(encoder, images, preprocessing) for part in parts]
        self._rows = torch.cat(rows)

    def read(self, index: np.ndarray, views: np.ndarray | None = None) -> Tensor:
        """float32 [*, D] for pictures index [*]; compute comes first."""
        assert self._rows is not None, "compute comes before read"
        return self._rows[torch.from_numpy(index)]


def stored_features(
    encoder: Encoder,
    images: Images,
    preprocessing: Preprocessing,
    *,
    key: str,
    name: str,
    views: int = 0,
    seed: int = 0,
) -> Features:
    """The features of all pictures, from the cache folder if they are there, computed and put there otherwise.

    The file's name is a hash of everything that the features depend on; picture files count by path, size and time of
    change. Several processes may ask at once: each writes aside, and the last to finish replaces equal contents.

    With torch.distributed every rank has to call this. Each encodes its share of the batches on its own device, and one
    rank of every cache folder writes them all, in the same order and to the last bit what a single rank would have
    written. Ranks that have other pictures (a copy with other times of change, say) encode theirs among themselves. An
    error on one rank is raised on all.

    Args:
        encoder: called without gradient, on up to 256 pictures at a time.
        images: the pictures.
        preprocessing: how they become the encoder's input.
        key: what the encoder is: changes with its architecture, weights and precision.
        name: of data set and split, for messages and the file's name.
        views: how many augmented views of each picture are stored; 0 stores one, the evaluation view.
        seed: of the augmented views.

    Raises ValueError where the encoder does not return [B, D], where a feature is not finite, and for a cache folder
    that is full or cannot be written to.
    """
    size = (max(views, 1), len(images))

    def look() -> tuple[Path, bool]:
        path = features_path(images, preprocessing, key=key, name=name, views=views, seed=seed)
        return path, found_features(path, size)

    answers = gathered(look)
    path = answers[rank_and_world_size()[0]][0]
    if not all(found for _, found in answers):
        partners = [rank for rank, (other, _) in enumerate(answers) if other.name == path.name]
        batches = encoded(encoder, images, preprocessing, views=views, seed=seed, partners=partners)
        write_features(path, batches, size, name=name, partners=partners)
    return Features(path)


def features_path(
    images: Images, preprocessing: Preprocessing, *, key: str, name: str, views: int = 0, seed: int = 0
) -> Path:
    """Where the features of these pictures lie, computed or not. Arguments as of stored_features."""
    described: dict[str, Any] = {
        "backbone": key,
        "preprocessing": asdict(preprocessing),
        "images": images.fingerprint,
        "views": [views, seed] if views else 0,
        "version": package_version(),
        "layout": 2,
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return cached_file(name, digest, features=True)


def package_version() -> str:
    """The installed version of fewshot; "unknown" in a source tree that is not installed."""
    try:
        return importlib.metadata.version("fewshot")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def encoded(
    encoder: Encoder,
    images: Images,
    preprocessing: Preprocessing,
    *,
    views: int = 0,
    seed: int = 0,
    partners: Sequence[int] | None = None,
) -> Iterator[list[np.ndarray]]:
    """Yields the features of all views of all pictures, in order: lists of float32 [B, D], one for each rank at work.

    Args:
        encoder: as of stored_features.
        images: as of stored_features.
        preprocessing: as of stored_features.
        views: as of stored_features.
        seed: as of stored_features.
        partners: the ranks that share these batches out; None is all of them. Ranks that are not among them have to
            call this too, with their own pictures.

    Raises on every rank where one cannot encode its share.
    """
    rank, world = rank_and_world_size()
    partners = range(world) if partners is None else partners
    batches = [(view, first) for view in range(max(views, 1)) for first in range(0, len(images), ENCODE_BATCH)]
    rounds = max(gathered(lambda: -(-len(batches) // len(partners))))
    for start in range(0, rounds * len(partners), len(partners)):

        def share(number: int = start + partners.index(rank)) -> np.ndarray | None:
            if number >= len(batches):
                return None
            view, first = batches[number]
            return _encoded_batch(encoder, images, preprocessing, view=view if views else None, first=first, seed=seed)

        shares = gathered(share)
        yield [part for partner in partners if (part := shares[partner]) is not None]


def _encoded_batch(
    encoder: Encoder, images: Images, preprocessing: Preprocessing, *, view: int | None, first: int, seed: int
) -> np.ndarray:
    """Features float32 [B, D] of up to 256 pictures from number `first` on, in an augmented view or as they are."""
    pictures = images.read(np.arange(first, min(first + ENCODE_BATCH, len(images))))
    with record_function("transform"):
        if view is None:
            inputs = evaluation_transform(pictures, preprocessing)
        else:
            generator = np.random.default_rng(np.random.SeedSequence([seed, view, first]))
            inputs = training_transform(pictures, preprocessing, generator)
    with torch.no_grad():
        features = encoder(inputs)
    if features.ndim != 2 or len(features) != len(inputs):
        raise ValueError(f"the encoder turns {list(inputs.shape)} into {list(features.shape)}; features are [B, D]")
    if not bool(features.isfinite().all()):
        name = images.names[first + int((~features.isfinite().all(dim=1)).nonzero()[0, 0])]
        raise ValueError(f"the feature of picture {name!r} is not finite; check the backbone")
    return features.detach().float().cpu().numpy()
