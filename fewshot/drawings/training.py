"""What there is to see of a training: the episodes or batches of its data module, and one episode by its module."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from fewshot.data.class_datamodule import ClassDataModule
from fewshot.data.datasets.base import Split
from fewshot.data.picture_datamodule import PictureDataModule
from fewshot.drawings.contact_sheet import N_IN_A_BATCH, batch_sheet, episode_sheet
from fewshot.drawings.feature_map import feature_map_figure, mapped_episode
from fewshot.episode import Episode
from fewshot.methods.base import encoded


def episode_picture(data: PictureDataModule, split: Split, number: int) -> Image.Image:
    """The contact sheet of one episode, of epoch 0 in training."""
    return episode_sheet(
        data.picture_episode(split, number),
        data.images(split),
        data.preprocessing,
        title=f"{data.dataset.name} · {split} · episode {number}",
        note=f"{'augmented' if data.augments(split) else 'not augmented'}, seed {data.seed_of(split)}",
    )


def batch_picture(data: ClassDataModule) -> Image.Image:
    """The contact sheet of the first batch of whole-class training."""
    pictures, labels = data.picture_batch(N_IN_A_BATCH)
    return batch_sheet(
        pictures,
        labels.tolist(),
        data.images("train"),
        data.preprocessing,
        title=f"{data.dataset.name} · train · first batch",
        note=f"batches of {data.batch_size}, augmented, seed {data.seed}",
    )


def taken_of_a_class(data: PictureDataModule, split: Split) -> int | None:
    """The most pictures of one class that episodes of the split take; None where batches or unbalanced queries do."""
    if split == "train" and isinstance(data, ClassDataModule):
        return None
    sizes = data.sizes(split)
    return (
        max(sizes["n_shot"]) + max(sizes["n_query"]) if {*sizes["dirichlet"], *sizes["long_tail"]} == {None} else None
    )


@torch.no_grad()
def feature_map(model: Any, precision: Any, episode: Episode, data: PictureDataModule) -> Any:
    """The map of one test episode, a figure: features by the backbone as it is, classes as `predict` gives them.

    Args:
        model: a FewShotModule or PretrainModule in evaluation mode.
        precision: the trainer's precision plugin, in whose precision is computed.
        episode: one task, T = 1, on the model's device, of the test split.
        data: whose episode it is.
    """
    assert episode.numbers is not None
    with torch.random.fork_rng(), precision.forward_context():
        support, query = encoded(model.backbone, episode)
        prediction = model.predict_step(episode, 0)
    mapped = mapped_episode(
        episode,
        support,
        query,
        before=prediction["before"],
        after=prediction["after"],
        images=data.images("test"),
    )
    title = f"{data.dataset.name} · test · episode {int(episode.numbers[0])} · features scaled to length one"
    return feature_map_figure(mapped, title=title)
