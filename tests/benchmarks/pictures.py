"""Picture files for benchmarks: real ones from FEWSHOT_DATA where they are, smooth random ones otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image


def real(name: str) -> Path | None:
    """The folder of a data set of real pictures below FEWSHOT_DATA, if it is there."""
    root = os.environ.get("FEWSHOT_DATA")
    folder = Path(root).expanduser() / name if root else None
    return folder if folder is not None and folder.is_dir() else None


def written(root: Path, *, side: int, classes: int, per_class: int, ending: str = "jpg") -> Path:
    """The folder `root` filled with <split>/<class>/<picture> of that side; returns it."""
    source = real("tiny_imagenet_fs")
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        folders = sorted((source / split).iterdir())[:classes] if source else []
        for c in range(classes):
            target = root / split / f"{split}-{c:03}"
            target.mkdir(parents=True)
            files = sorted(folders[c].iterdir())[:per_class] if c < len(folders) else []
            for i in range(per_class):
                picture = Image.open(files[i]).convert("RGB") if i < len(files) else smooth(rng)
                picture.resize((side, side), Image.Resampling.BICUBIC).save(target / f"{i:04}.{ending}", quality=90)
    return root


def smooth(rng: np.random.Generator) -> Image.Image:
    """A picture of 12 x 12 random colours: enlarged, it compresses about as a photograph does."""
    return Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))


def listed(folder: Path) -> tuple[list[str], list[np.ndarray]]:
    """Files of <folder>/<class>/<picture>, and which of them belong to each class."""
    files: list[str] = []
    by_class = []
    for class_folder in sorted(folder.iterdir()):
        names = sorted(str(path) for path in class_folder.iterdir())
        by_class.append(np.arange(len(files), len(files) + len(names)))
        files += names
    return files, by_class
