"""Small trees of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def make_tree() -> Callable[..., None]:
    """A function that writes tiny pictures <root>/<class>/<number>.png, each of another colour."""

    def make(root: Path, classes: Iterable[str], count: int, *, size: int = 8) -> None:
        for class_number, name in enumerate(classes):
            (root / name).mkdir(parents=True)
            for number in range(count):
                colour = (class_number % 256, number % 256, number // 256)
                Image.fromarray(np.full((size, size, 3), colour, dtype=np.uint8)).save(
                    root / name / f"{number:03d}.png"
                )

    return make


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads what another has decoded."""
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path_factory.mktemp("cache")))
