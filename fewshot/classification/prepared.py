"""An estimator whose options name a model: loaded when it is first needed, and moved where it computes."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

from fewshot.classification.adaptation import Adapted, moved
from fewshot.classification.conventions import Estimator
from fewshot.classification.encoder import PictureEncoder
from fewshot.classification.model import LoadedModel, device_of, loaded_model
from fewshot.methods import Method
from fewshot.training.few_shot_module import FewShotModule

Made = TypeVar("Made", bound="PreparedEstimator")
MODEL_OPTIONS = ("backbone", "method", "checkpoint", "packages", "weights", "preprocessing", "image_size")
"""What says which model is loaded; the other options say how it is used."""
ENCODER_OPTIONS = ("batch_size", "precision", "store_features")


class PreparedEstimator(Estimator):
    """What is loaded by the options of the constructor, and what was fitted with it."""

    device: str
    _model: LoadedModel
    _device: torch.device
    _adapted: Adapted
    _fitted_with: dict[str, Any]

    def prepare(self: Made) -> Made:
        """Load backbone and method now rather than in `fit`, which does nothing again that was done here.

        They stay loaded until an option changes that says which they are.

        Raises:
            FileNotFoundError: no such checkpoint or weights.
            ValueError: options that do not go together, or a model that cannot be built.
        """
        device = device_of(self.device)
        asked = self._asked()
        model = self._model if getattr(self, "_loaded_for", None) == asked else loaded_model(**asked)
        self._model = model.placed(device, **{name: getattr(self, name) for name in ENCODER_OPTIONS})
        self._loaded_for = asked
        if hasattr(self, "_adapted") and self._device != device:
            self._adapted = moved(self._adapted, device)
        self._device = device
        return self

    def _asked(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in MODEL_OPTIONS}

    def _check_fitted(self) -> None:
        super()._check_fitted()
        asked = self._asked()
        if changed := [name for name in MODEL_OPTIONS if asked[name] != self._fitted_with[name]]:
            was = ", ".join(f"{name}={self._fitted_with[name]!r}" for name in changed)
            raise ValueError(f"this {type(self).__name__} was fitted with {was}, which was changed since; fit it again")

    @property
    def encoder(self) -> PictureEncoder | None:
        """What turns pictures into features; None where rows are features already."""
        self.prepare()
        return self._model.encoder

    @property
    def module(self) -> FewShotModule | None:
        """The checkpoint's; None without one."""
        self.prepare()
        return self._model.module

    @property
    def method_(self) -> Method:
        """The method that classifies: the one given, else the checkpoint's, else the one that needs no training."""
        self.prepare()
        return self._model.method
