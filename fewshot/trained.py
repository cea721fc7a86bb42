"""A trained model by the file it lies in, with everything that pictures need on their way into it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fewshot.backbones import resolve_weights
from fewshot.backbones.weights import read_checkpoint
from fewshot.data.transforms import Preprocessing
from fewshot.module import FewShotModule
from fewshot.module_from_file import module_from_checkpoint
from fewshot.saved_model import WEIGHTS, read_model


class Trained(NamedTuple):
    """A model of a run, ready for pictures that are not of its data set."""

    module: FewShotModule
    """In evaluation mode, on the CPU."""
    preprocessing: Preprocessing
    """How its pictures became tensors."""
    file: Path
    """The checkpoint, or the model.safetensors of a saved model."""


def load_trained(path: str | os.PathLike[str], packages: Sequence[str] = ()) -> Trained:
    """The model of a checkpoint of FewShotModule, or of a folder that `fewshot.saved_model.save_trained` wrote.

    Args:
        path: a checkpoint file, the folder of a run or experiment, whose best.ckpt is taken, or that of a saved model.
        packages: top-level packages besides this one whose classes the file may name; they are imported.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read, is of something else, or does not say how pictures became tensors.
    """
    file = resolve_weights(path)
    if file.name == WEIGHTS:
        return Trained(*read_model(file.parent, packages), file)
    content = read_checkpoint(file)
    if "method" not in (content.get("hyper_parameters") or {}):
        raise ValueError(
            f"{file} is no checkpoint of FewShotModule; weights of a backbone go to backbone.weights, with a method "
            "that needs no training"
        )
    preprocessing = recorded_preprocessing(content, file)
    module = module_from_checkpoint(content, file, FewShotModule, packages=packages)
    return Trained(module.eval(), preprocessing, file)


def recorded_preprocessing(content: Mapping[str, Any], file: str | os.PathLike[str]) -> Preprocessing:
    """How pictures became tensors, as a checkpoint of ours says; ValueError where it does not."""
    pictures = content.get("pictures")
    if not isinstance(pictures, Mapping):
        raise ValueError(
            f"{file} does not say how its pictures became tensors (size, mean, std); it was written before that was "
            "recorded: run its fit again"
        )
    try:
        return Preprocessing(**pictures)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} does not say how its pictures became tensors in a way known here: {error}") from error
