"""The dotted paths by which checkpoints, saved models and configs name classes: public ones, and those of before."""

from __future__ import annotations

import re
import sys
from typing import Any

FORMER = {
    "fewshot.module": "fewshot",
    "fewshot.pretrain.PretrainModule": "fewshot.PretrainModule",
    "fewshot.pretrain": "fewshot.training.schedules",
    "fewshot.rotation": "fewshot.training.rotation",
    "fewshot.mixup": "fewshot.training.mixup",
    "fewshot.backbones.config": "fewshot.backbones",
    "fewshot.data.datamodule": "fewshot.data.episodic_datamodule",
    "fewshot.data.sets": "fewshot.data.datasets",
    "fewshot.methods.sib.ScaledClassMeans": "fewshot.methods.ScaledClassMeans",
    "fewshot.methods.sib.MLPGradient": "fewshot.methods.MLPGradient",
    "fewshot.methods.sib.EquivariantGradient": "fewshot.methods.EquivariantGradient",
}
"""Modules and classes of version 0.1.0 that a file may name, and where they are now; the first that fits holds."""

_FORMER = re.compile(rf"(?<![\w./\\-])({'|'.join(map(re.escape, FORMER))})(?![\w/\\-])")
"""As a dotted path stands in a text: a folder or file that happens to be called so is not one."""


def with_present_paths(text: str) -> str:
    """The text, a path or a whole config, with present paths in place of former ones."""
    return _FORMER.sub(lambda found: FORMER[found[1]], text)


def import_path(target: Any) -> str:
    """The dotted path of a class or function: by the nearest package that exports it, else by the module it lies in."""
    module, name = target.__module__, target.__qualname__
    package = module.rpartition(".")[0]
    while package:
        if name in getattr(sys.modules.get(package), "__all__", ()):
            return f"{package}.{name}"
        package = package.rpartition(".")[0]
    return f"{module}.{name}"


def same_class(one: str, other: str) -> bool:
    """Whether two paths name the same class: of one top-level package and of one name, wherever it lies in it."""
    return one.split(".")[0] == other.split(".")[0] and one.rpartition(".")[2] == other.rpartition(".")[2]
