"""What is known of the training classes: their features by a frozen backbone, and its pre-training classifier."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.backbones.checkpoint_file import read_checkpoint, state_dict_of
from fewshot.backbones.weights import value_fault
from fewshot.functional.features import class_means
from fewshot.methods.base_classes import BaseClasses


def base_classes(features: Tensor, labels: Tensor, weights: str | None) -> BaseClasses:
    """What `Method.prepare` takes.

    Args:
        features: [n, D] of all training pictures as they are.
        labels: [n] int64, their classes 0..C-1.
        weights: the file that the backbone started from; a checkpoint of PretrainModule brings its classifier.
    """
    means = class_means(features.unsqueeze(0), labels.unsqueeze(0), int(labels.max()) + 1)[0]  # [C, D]
    return BaseClasses(features.mean(0), means, *_pretraining_classifier(weights, features.shape[-1]))


def _pretraining_classifier(path: str | None, n_features: int) -> tuple[Tensor | None, Tensor | None]:
    """Weights [C, D] and scale of the classifier in a checkpoint of PretrainModule; None for any other file."""
    state = {} if path is None else state_dict_of(read_checkpoint(path))
    weights, scale = state.get("classifier.weight"), state.get("classifier.scale")
    if (
        not isinstance(weights, Tensor)
        or not isinstance(scale, Tensor)
        or weights.ndim != 2
        or weights.shape[1] != n_features
    ):
        return None, None
    for name, value in (("weight", weights), ("scale", scale)):
        if fault := value_fault(value, torch.float32):
            raise ValueError(f"weight file {path}: 'classifier.{name}' {fault}")
    return weights.float(), scale.float()
