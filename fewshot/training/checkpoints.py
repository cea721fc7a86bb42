"""Whether a checkpoint belongs to the model that a config builds: what is refused, and which options differ from it.

Refused is what would run and measure something else, or not run at all: another kind of module, another backbone or one
built for another image size, another method or another part of one, weights of other names or shapes. Options that
change no weight, such as the number of steps or their size, may be set anew; they are told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import nn

from fewshot.backbones.checkpoint_file import read_checkpoint
from fewshot.backbones.create import like_with_image_size
from fewshot.backbones.weights import check_recorded, listed, state_faults
from fewshot.methods.class_path import import_path, same_class
from fewshot.training.from_file import TRAINING_ALONE, check_facts

FROM_CHECKPOINT = ("optimizer", "lr_scheduler")
"""Options whose values come with the optimiser's state where training goes on."""


def check_checkpoint(model: LightningModule, file: Path, *, training: bool) -> dict[str, dict[str, Any]]:
    """Options of the model with another value in the checkpoint: by dotted key the values `here` and `there`, and
    a `note` on which of them holds.

    Args:
        model: as the config builds it.
        file: the checkpoint.
        training: whether training goes on from it, so that options of training count too.

    Raises:
        ValueError: the checkpoint cannot be read, or is of another model; names the file, both, and what to do.
    """
    content = read_checkpoint(file)
    state, theirs = content.get("state_dict"), content.get("hyper_parameters") or {}
    if "pytorch-lightning_version" not in content or not isinstance(state, Mapping) or not isinstance(theirs, Mapping):
        raise ValueError(
            f"ckpt_path: {file} holds weights but is no checkpoint of a run; weights of a backbone go to "
            "--model.backbone.weights"
        )
    check_facts(content.get("temperature"), content.get("preprocessing"), source=f"ckpt_path: {file}: ")
    check_class(type(model), theirs.get("_class_path"), file)
    config, backbone = getattr(model, "backbone_config", None), getattr(model, "backbone", None)
    if config is not None and isinstance(backbone, nn.Module):
        check_recorded(
            theirs.get("backbone"),
            backbone,
            name=config.name,
            source=f"ckpt_path: {file}",
            build=partial(like_with_image_size, backbone, config.name),
        )
    ours, theirs = dict(flattened(dict(model.hparams))), dict(flattened(theirs))
    check_parts(ours, theirs, file, training=training)
    differences: dict[str, dict[str, Any]] = {}
    for key in sorted(ours.keys() & theirs.keys()):
        here, there = ours[key], theirs[key]
        named = isinstance(here, ClassName) and isinstance(there, ClassName)
        is_same = same_class(here, there) if named else here == there
        if not is_same and is_told(key, here, there, training=training):
            differences[key] = {"here": here, "there": there, "note": note_on(model, key)}
    check_state(model, state, file, differences)
    return differences


def check_class(here: type, there: Any, file: Path) -> None:
    """ValueError where the checkpoint is of another LightningModule."""
    if not isinstance(there, str) or same_class(there, import_path(here)):
        return
    hint = "a pre-trained backbone goes to --model.backbone.weights, " if there.endswith("PretrainModule") else ""
    raise ValueError(
        f"ckpt_path: {file} is a checkpoint of {short(there)} but the config builds {here.__name__}; "
        f"{hint}{own_config(file)}"
    )


def check_parts(ours: Mapping[str, Any], theirs: Mapping[str, Any], file: Path, *, training: bool) -> None:
    """ValueError where the checkpoint is of another method, or of one made of other parts; in training also where
    its optimiser or scheduler is another.
    """
    for key in ours.keys() & theirs.keys():
        here, there = class_named(key, ours[key]), class_named(key, theirs[key])
        if not (isinstance(here, ClassName) and isinstance(there, ClassName)) or same_class(here, there):
            continue
        if key.split(".")[0] in TRAINING_ALONE:
            if training:
                raise ValueError(
                    f"ckpt_path: {file} was trained with {key} {short(there)} but model.{key} is {short(here)}, which "
                    f"cannot go on from its state; {own_config(file)}"
                )
            continue
        raise ValueError(
            f"ckpt_path: {file} was trained with {key} {short(there)} but model.{key} is {short(here)}; "
            f"{own_config(file)}; to measure another method on its backbone, give the file to --model.backbone.weights"
        )


def check_state(
    model: LightningModule, state: Mapping[str, Any], file: Path, differences: Mapping[str, Mapping[str, Any]]
) -> None:
    """ValueError where weights are missing or superfluous, have another shape or are not finite; with the options that
    may be why.
    """
    faults = state_faults(model.state_dict(), state) if model.strict_loading else []
    if not faults:
        return
    options = ", ".join(f"model.{key} is {one['here']}, there {one['there']}" for key, one in differences.items())
    raise ValueError(
        f"ckpt_path: the checkpoint does not fit the model of this config: {file}: "
        f"{f'{options}: ' if options else ''}{listed(faults)}; {own_config(file)}"
    )


def is_told(key: str, here: Any, there: Any, *, training: bool) -> bool:
    """Whether another value of this option in the checkpoint is worth knowing."""
    if key.startswith("backbone."):  # the rest of it is compared by `check_recorded`
        return key == "backbone.image_size" and None not in (here, there)
    return training or key.split(".")[0] not in TRAINING_ALONE


class ClassName(str):
    """The dotted path of a class in flattened hyper-parameters."""


def class_named(key: str, value: Any) -> Any:
    """The value, but for the class that an optimizer left out stands for."""
    return ClassName(import_path(torch.optim.SGD)) if key == "optimizer" and value is None else value


def flattened(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Hyper-parameters by dotted key; an object gives its class under its own key, then its arguments below it."""
    if not isinstance(value, Mapping):
        yield key, value
        return
    if "class_path" in value:
        yield key, ClassName(value["class_path"])
        value = value.get("init_args") or {}
    for name, item in value.items():
        if not str(name).startswith("_"):
            yield from flattened(item, f"{key}.{name}" if key else str(name))


def note_on(model: LightningModule, key: str) -> str:
    """Which of two values holds, where it is not the one given here."""
    if key.split(".")[0] in FROM_CHECKPOINT:
        return " (which goes on: it comes with the optimiser's state)"
    place: Any = model
    for name in key.split("."):
        place = getattr(place, name, None)
    return " (which only says where training began: the trained value holds)" if isinstance(place, nn.Parameter) else ""


def short(class_path: str) -> str:
    """The class of a dotted path."""
    return class_path.rsplit(".", 1)[-1]


def own_config(file: Path) -> str:
    """What to do: take the config that the checkpoint's run wrote, where it lies beside it."""
    config = file.parent.parent / "config.yaml"
    return f"its own config is {config}" if config.is_file() else "take the config that it was trained with"
