"""Features of a frozen backbone: every picture of a split encoded once, read ever after as if it were the picture."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot.data.images import Images, cache_dir
from fewshot.data.progress import Progress
from fewshot.data.sampler import rank_and_world_size
from fewshot.data.transforms import Preprocessing, evaluation_transform, training_transform

Encoder = Callable[[Tensor], Tensor]
"""float [B, C, H, W], on the CPU -> [B, D], on any device."""

ENCODE_BATCH = 256


class Features:
    """Features of all pictures of a split, memory-mapped.

    Workers and ranks share the pages of the file; pickling one passes its path on, not its contents.

    Args:
        path: a float32 .npy file [V, n, D]: V views of n pictures.

    Raises ValueError where the file holds anything else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        # Copy on write: the same pages as read-only, but torch takes the array without a warning.
        array = np.load(self.path, mmap_mode="c", allow_pickle=False)
        if array.ndim != 3 or array.dtype != np.float32:
            raise ValueError(f"{path} holds {array.dtype} {list(array.shape)}, not float32 [views, pictures, width]")
        self.n_views, self.n_pictures, self.width = array.shape
        self._rows = torch.from_numpy(array.reshape(-1, self.width))  # [V*n, D]

    def read(self, index: np.ndarray, views: np.ndarray | None = None) -> Tensor:
        """float32 [*, D] for pictures index [*], each in the view of the same place in views [*] (view 0 if None)."""
        rows = index if views is None else views * self.n_pictures + index
        chosen = self._rows.index_select(0, torch.from_numpy(np.ascontiguousarray(rows).reshape(-1)))
        return chosen.view(*rows.shape, self.width)

    def __reduce__(self) -> tuple[type[Features], tuple[Path]]:
        """Map the file again on the other side."""
        return Features, (self.path,)


class PassingFeatures:
    """Features of all pictures of a split as a backbone in training gives them just now, in memory."""

    n_views = 1

    def __init__(self) -> None:
        self._rows: Tensor | None = None  # [n, D]

    def compute(self, encoder: Encoder, images: Images, preprocessing: Preprocessing) -> None:
        """Encode every picture anew; arguments as of stored_features."""
        parts = [torch.from_numpy(features) for _, _, features in encoded(encoder, images, preprocessing)]
        self._rows = torch.cat(parts)

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

    The file's name is a hash of everything that the features depend on, so that a stale one is never found. Several
    processes may ask at once: each writes aside, and the last to finish replaces equal contents. With
    torch.distributed, rank 0 computes while the others wait.

    Args:
        encoder: called without gradient, on up to 256 pictures at a time.
        images: the pictures.
        preprocessing: how they become the encoder's input.
        key: what the encoder is: changes with its architecture, weights and precision.
        name: of data set and split, for messages and the file's name.
        views: how many augmented views of each picture are stored; 0 stores one, the evaluation view.
        seed: of the augmented views.

    Raises ValueError where the encoder does not return [B, D], where a feature is not finite and for a full disk.
    """
    path = features_path(images, preprocessing, key=key, name=name, views=views, seed=seed)

    def found_or_computed() -> Features:
        found = _found(path)
        if found is None:
            _write(path, encoder, images, preprocessing, name=name, views=views, seed=seed)
        return found or Features(path)

    rank, world = rank_and_world_size()
    if world == 1:
        return found_or_computed()
    if rank == 0:
        found_or_computed()
    torch.distributed.barrier()
    return found_or_computed()  # computed once more only where nodes do not share the cache folder


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
        "layout": 1,
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return cache_dir() / f"features-{name}-{digest[:32]}.npy"


def package_version() -> str:
    """The installed version of fewshot; "unknown" in a source tree that is not installed."""
    try:
        return importlib.metadata.version("fewshot")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def encoded(
    encoder: Encoder, images: Images, preprocessing: Preprocessing, *, views: int = 0, seed: int = 0
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields (view, first picture, features float32 [B, D]) for all views of all pictures, in order."""
    for view in range(max(views, 1)):
        for first in range(0, len(images), ENCODE_BATCH):
            pictures = images.read(np.arange(first, min(first + ENCODE_BATCH, len(images))))
            if views:
                generator = np.random.default_rng(np.random.SeedSequence([seed, view, first]))
                inputs = training_transform(pictures, preprocessing, generator)
            else:
                inputs = evaluation_transform(pictures, preprocessing)
            with torch.no_grad():
                features = encoder(inputs)
            if features.ndim != 2 or len(features) != len(inputs):
                raise ValueError(
                    f"the encoder turns {list(inputs.shape)} into {list(features.shape)}; features are [B, D]"
                )
            if not bool(features.isfinite().all()):
                name = images.names[first + int((~features.isfinite().all(dim=1)).nonzero()[0, 0])]
                raise ValueError(f"the feature of picture {name!r} is not finite; check the backbone")
            yield view, first, features.detach().float().cpu().numpy()


def _found(path: Path) -> Features | None:
    """The features of that file; None where there is none, or a damaged one (the disk failed: we only rename)."""
    try:
        return Features(path)
    except (FileNotFoundError, ValueError, EOFError):
        return None


def _write(
    path: Path,
    encoder: Encoder,
    images: Images,
    preprocessing: Preprocessing,
    *,
    name: str,
    views: int,
    seed: int,
) -> None:
    """Encode everything into a file aside, then give it its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".npy")
    progress = Progress(f"encoding {name} once", max(views, 1) * len(images))
    needed = 0
    try:
        with os.fdopen(handle, "wb") as file:
            for view, first, features in encoded(encoder, images, preprocessing, views=views, seed=seed):
                if not view and not first:
                    shape = (max(views, 1), len(images), features.shape[1])
                    needed = int(np.prod(shape)) * 4 + 128
                    free = shutil.disk_usage(path.parent).free
                    if needed > free:
                        raise OSError(errno.ENOSPC, f"{free:,} bytes are free")
                    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(np.ascontiguousarray(features, dtype="<f4").data)
                progress.advance(len(features))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ValueError(
            f"{path} needs {needed:,} bytes but the disk is full ({error.strerror}); "
            "make room, set FEWSHOT_CACHE to another folder, or set data.store_features=false"
        ) from error
    finally:
        progress.close()
        if os.path.exists(aside):
            os.unlink(aside)
