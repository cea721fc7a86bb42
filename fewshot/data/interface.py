"""What LightningModules and callbacks ask of a data module: the Protocol that EpisodicDataModule and ClassDataModule
fulfil, and with them one of a person's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from pytorch_lightning import Trainer

from fewshot.data.datasets.base import Split
from fewshot.data.features import Encoder
from fewshot.data.images import Images
from fewshot.data.transforms import Preprocessing


@runtime_checkable
class PictureData(Protocol):
    """Pictures in splits, delivered as a backbone wants them, or as features where that saves work."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How pictures become tensors."""

    def images(self, split: Split) -> Images:
        """The pictures of one split."""

    def describe(self, split: Split) -> dict[str, Any]:
        """What a result has to state about the episodes it was measured on; plain values for a JSON file."""

    def adapt(
        self,
        channels: int | None = None,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
        image_size: int | None = None,
    ) -> None:
        """Deliver pictures as the backbone wants them, from the next loader on."""

    def expect_features(self, *splits: Split) -> None:
        """Let episodes of these splits carry what `compute_features` computed last, wherever that saves work."""

    def compute_features(self, split: Split, encoder: Encoder) -> None:
        """Encode the split's pictures, each once, by a backbone that is still being trained."""


def data_of(trainer: Trainer | None) -> PictureData | None:
    """The trainer's data module; None without one, or where it does not fulfil `PictureData`."""
    found = getattr(trainer, "datamodule", None)
    return found if isinstance(found, PictureData) else None
