"""The backbone that a checkpoint of ours says its weights are of, beside the one that they are wanted for.

Weights fit wherever names and shapes agree, also where the network does something else with them: a wide ResNet chooses
its strides by the size of the pictures, and models of two names may differ in their padding alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn


def check_recorded(
    recorded: Any, network: Any, *, name: str, source: str, build: Callable[[int], nn.Module]
) -> int | None:
    """Compare name, channels and image size; returns the recorded size where it differs and nothing depends on it.

    Args:
        recorded: hyper_parameters.backbone of a checkpoint; anything but a mapping says nothing.
        network: what `create_backbone` builds.
        name: of the network.
        source: what errors call the file.
        build: a network like this one for pictures of another size in pixels.

    Raises:
        ValueError: the weights are of another backbone, or of this one built for another size; names both.
    """
    if not isinstance(recorded, Mapping) or not isinstance(recorded.get("name"), str):
        return None
    theirs = recorded["name"]
    if not on_the_hub(theirs) and not on_the_hub(name) and without_tag(theirs) != without_tag(name):
        raise ValueError(
            f"{source} holds weights of backbone '{theirs}' but model.backbone.name is '{name}'; set it to '{theirs}', "
            f"or take weights of '{name}'"
        )
    channels, size = recorded.get("in_chans"), recorded.get("image_size")
    if isinstance(channels, int) and channels != network.in_chans:
        raise ValueError(
            f"{source} holds weights of '{theirs}' for pictures of {channels} channel(s) but model.backbone.in_chans "
            f"is {network.in_chans}; set it to {channels}"
        )
    size = usual_size(network) if size is None else size
    if not isinstance(size, int) or size == network.image_size:
        return None
    with torch.device("meta"):  # layers alone: nothing is computed
        same_layers = repr(build(size)) == repr(network)
    if same_layers and network.takes_any_size:
        return size
    raise ValueError(
        f"{source} holds weights of '{theirs}' for pictures of {size} px but model.backbone.image_size is "
        f"{network.image_size}, for which '{name}' is built otherwise; set it to {size}, or take weights trained at "
        f"{network.image_size} px"
    )


def on_the_hub(name: str) -> bool:
    """Whether a name is an address on the Hugging Face hub, which tells nothing of the architecture."""
    return name.startswith(("hf-hub:", "hf_hub:"))


def without_tag(name: str) -> str:
    """The architecture of a timm name: resnet18 of resnet18.a1_in1k."""
    return name.split(".")[0]


def usual_size(network: Any) -> int:
    """The side in pixels for which timm builds a network where none is asked for."""
    config = getattr(network, "pretrained_cfg", None) or {}
    return int((config.get("input_size") or (3, 224, 224))[-1])
