"""Versions of Python and of the packages that decide a result."""

from __future__ import annotations

import functools
import importlib.metadata
import platform

PACKAGES = (
    *("fewshot", "torch", "torchvision", "pytorch-lightning", "torchmetrics", "timm", "jsonargparse", "omegaconf"),
    *("safetensors", "numpy", "pillow", "wandb"),
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {package: installed_version(package) for package in PACKAGES}
    return {"python": platform.python_version(), **{name: number for name, number in found.items() if number}}


@functools.cache
def installed_version(package: str) -> str | None:
    """That of an installed package; read once, for a dozen take longer than a small model is saved in."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
