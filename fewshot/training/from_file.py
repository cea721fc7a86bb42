"""The one way from what a file says to a LightningModule: allowed classes alone, then weights that fit.

A file comes from anybody. Options of training are dropped unread, names of classes are compared with the allowed
packages before anything is imported, and the state is checked before it is taken over.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.nn.parameter import is_lazy

import fewshot.methods  # noqa: F401  (so that classes are there under their public names)
from fewshot.backbones import BackboneConfig
from fewshot.backbones.checkpoint_file import read_checkpoint
from fewshot.backbones.weights import listed, state_faults
from fewshot.files import resolve_weights
from fewshot.methods.base_classes import BaseClasses, StoredBaseClasses
from fewshot.methods.class_path import import_path, same_class
from fewshot.methods.construction import check_names, constructed, constructed_partial
from fewshot.training.metrics import LEAST_TEMPERATURE, MOST_TEMPERATURE

LIBRARY = "fewshot"
TRAINING_ALONE = (
    "optimizer",
    "lr_scheduler",
    "lr_interval",
    "freeze_backbone",
    "initial_loss_weight",
    "label_smoothing",
)
"""Options of the modules that no evaluation depends on."""
GONE = ("fresh_share",)
"""Options that modules of earlier versions had; none of them changed a model."""
DROPPED = (*TRAINING_ALONE, *GONE, "save_bad_episodes")
"""Options of the modules that are not taken from a file unless training is to go on."""
FACTORIES = {"optimizer": torch.optim.Optimizer, "lr_scheduler": torch.optim.lr_scheduler.LRScheduler}
"""Options of the modules that are classes with arguments, and what they are derived from."""
BACKBONE_KEYS = ("name", "in_chans", "image_size")
"""What a file says of the backbone. Where its first weights came from is never read: a file chooses no network."""
SMALL = 10_000_000
"""Weights that a module may have more than its file, as while it is built."""
MAX_IMAGE_SIZE = 1024
"""Pixels of the pictures of a file's backbone, through which one of them goes as it is built."""
Module = TypeVar("Module", bound=LightningModule)


def module_from_description(
    description: Any,
    kind: type[Module],
    state: Mapping[str, Any],
    *,
    packages: Sequence[str] = (),
    given: Mapping[str, Any] | None = None,
    training: bool = False,
) -> Module:
    """The module of a class_path with init_args, its weights drawn anew.

    Args:
        description: plain data.
        kind: the class that it is to be of.
        state: the weights that it is to have; what has many more is not built.
        packages: top-level packages besides this one whose classes may be named; they are imported.
        given: arguments that are made already and hold in place of described ones.
        training: whether options of training alone are wanted; otherwise they are dropped unread. Of the optimiser and
            its scheduler a file may name classes of torch.optim and of the packages, with plain values as arguments.

    Raises:
        ValueError: no such description, a class of another package, of another kind or with other arguments.
    """
    allowed = tuple(dict.fromkeys((LIBRARY, *packages)))
    import_packages(packages)
    if not isinstance(description, Mapping) or not isinstance(description.get("init_args"), Mapping):
        raise ValueError("model does not have the keys class_path and init_args")
    given = dict(given or {})
    dropped = {*given, *GONE, *(FACTORIES if training else DROPPED)}
    arguments = {key: value for key, value in description["init_args"].items() if key not in dropped}
    check_names({**description, "init_args": arguments}, allowed, "model")
    for key, factory in FACTORIES.items() if training else ():
        if key in description["init_args"] and key not in given:
            given[key] = constructed_partial(
                description["init_args"][key], factory, packages=("torch.optim", *allowed), name=key
            )
    if "backbone" not in given:
        backbone = arguments.get("backbone")
        if not isinstance(backbone, Mapping) or set(backbone) != set(BACKBONE_KEYS):
            raise ValueError("model.init_args.backbone does not have the keys name, in_chans and image_size")
        arguments["backbone"] = {key: backbone[key] for key in BACKBONE_KEYS}
        size = backbone["image_size"]
        if isinstance(size, int) and size > MAX_IMAGE_SIZE:
            raise ValueError(f"model.init_args.backbone.image_size={size}; a file may ask for {MAX_IMAGE_SIZE} at most")
        constructed(arguments["backbone"], BackboneConfig, packages=allowed, name="model.init_args.backbone")
    described = {"class_path": description.get("class_path"), "init_args": arguments}
    with no_larger_than(state):
        module = constructed(described, kind, packages=allowed, name="model", given=given)
    assert isinstance(module, kind)
    return module


def import_packages(packages: Sequence[str]) -> None:
    """Import what a person allows, which may register backbones with timm; ValueError for what there is not."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise ValueError(f"packages: {error}; give the names of packages that Python finds") from error


@contextmanager
def no_larger_than(state: Mapping[str, Any]) -> Iterator[None]:
    """ValueError where modules get many more weights than these, before memory is taken for them."""
    left = SMALL + 2 * sum(value.numel() for value in state.values() if isinstance(value, Tensor))

    def count(_: Any, name: str, value: Any) -> None:
        nonlocal left
        left -= value.numel() if isinstance(value, Tensor) and not is_lazy(value) else 0
        if left < 0:
            raise ValueError(f"the model that it describes has many more weights than the file, '{name}' among them")

    hooks = (register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def module_from_checkpoint(
    content: Mapping[str, Any],
    file: Path,
    kind: type[Module],
    *,
    packages: Sequence[str] = (),
    given: Mapping[str, Any] | None = None,
    training: bool = False,
) -> Module:
    """The module of a checkpoint with its weights, on the CPU; arguments as of `module_from_description`.

    Args:
        content: what the checkpoint holds, tensors and plain containers.
        file: what errors call it.
        kind: FewShotModule or PretrainModule, or a class derived from one.
        packages: as there.
        given: as there.
        training: as there.

    Raises:
        ValueError: it is of something else, names classes of other packages, or its weights do not fit.
    """
    options = content.get("hyper_parameters")
    if not isinstance(options, Mapping) or not isinstance(content.get("state_dict"), Mapping):
        raise ValueError(f"{file} is no checkpoint of {kind.__name__}: it holds no options with weights")
    arguments = {str(key): value for key, value in options.items() if not str(key).startswith("_")}
    backbone = arguments.get("backbone")
    if isinstance(backbone, Mapping):
        arguments["backbone"] = {key: backbone.get(key, getattr(BackboneConfig(), key)) for key in BACKBONE_KEYS}
    path = options.get("_class_path", import_path(kind))
    called = import_path(kind)
    own = (called.split(".")[0],) if same_class(str(path), called) else ()  # the caller names it by calling it
    try:
        module = module_from_description(
            {"class_path": path, "init_args": arguments},
            kind,
            content["state_dict"],
            packages=(*packages, *own),
            given=given,
            training=training,
        )
        load_state(module, content["state_dict"], source=str(file))
        check_facts(content.get("temperature"), content.get("preprocessing"), content.get("trained_on"))
        module.on_load_checkpoint(dict(content))
    except (ValueError, TypeError, AttributeError, KeyError) as error:  # constructors given strange values
        message = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{file} holds no {kind.__name__} that can be built here: {message}") from error
    return module


def is_of_few_shot_module(content: Mapping[str, Any]) -> bool:
    """Whether a checkpoint names a method, as those of FewShotModule do."""
    options = content.get("hyper_parameters")
    return isinstance(options, Mapping) and "method" in options


def loaded_module(
    kind: type[Module],
    checkpoint_path: str | os.PathLike[str],
    map_location: Any = None,
    hparams_file: None = None,
    strict: bool | None = None,
    weights_only: bool | None = None,
    *,
    packages: Sequence[str] = (),
    **given: Any,
) -> Module:
    """What `load_from_checkpoint` of the modules gives: Lightning's builds whatever class a checkpoint names.

    Args:
        kind: the class that was called.
        checkpoint_path: a checkpoint, or the folder of a run.
        map_location: the device that the module goes to; None for the CPU.
        hparams_file: not served.
        strict: not served but as True: weights fit, all of them.
        weights_only: not served but as True: nothing is unpickled but tensors and plain containers.
        packages: top-level packages besides this one whose classes the checkpoint may name; they are imported.
        given: arguments of the constructor that hold in place of the checkpoint's.

    Raises:
        FileNotFoundError: there is none.
        ValueError: as of `module_from_checkpoint`, or something that is not served is asked for.
    """
    asked = {"hparams_file": hparams_file is not None, "strict": strict is False, "weights_only": weights_only is False}
    if refused := [name for name, is_asked in asked.items() if is_asked]:
        raise ValueError(f"load_from_checkpoint: {refused[0]} is not served; leave it out, a file is never trusted")
    file = resolve_weights(checkpoint_path)
    module = module_from_checkpoint(read_checkpoint(file), file, kind, packages=packages, given=given, training=True)
    return module if map_location is None else module.to(map_location)


def load_state(module: nn.Module, state: Mapping[str, Any], *, source: str, n_features: int | None = None) -> None:
    """Put a state dict into the module; ValueError where an entry is missing, superfluous, misshapen or not finite.

    Args:
        module: a LightningModule, or a method.
        state: for it.
        source: what errors call the file.
        n_features: D; None takes that of the module's backbone.
    """
    backbone: Any = getattr(module, "backbone", None)
    faults = state_faults(_expected(module, state, n_features or backbone.num_features), state)
    if faults:
        raise ValueError(f"{source} does not fit the model: {listed(faults)}")
    module.load_state_dict(dict(state), strict=False)


def check_facts(temperature: Any, preprocessing: Any, trained_on: Any = None, *, source: str = "") -> None:
    """ValueError where a file's temperature, normalisation of its first weights or data set cannot be one."""
    is_number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    if temperature is not None and not (is_number and LEAST_TEMPERATURE <= temperature <= MOST_TEMPERATURE):
        raise ValueError(
            f"{source}temperature is {temperature!r}, not a number in {LEAST_TEMPERATURE:g}..{MOST_TEMPERATURE:g}"
        )
    if not isinstance(preprocessing, (Mapping, type(None))):
        raise ValueError(
            f"{source}the normalisation of the backbone's first weights is a {type(preprocessing).__name__}"
        )
    if trained_on is not None:
        found = trained_on if isinstance(trained_on, Mapping) else {}
        name, channels = found.get("data"), found.get("channels")
        if not (isinstance(name, str) and name.isprintable() and len(name) <= 200 and channels in (1, 3)):
            raise ValueError(f"{source}trained_on does not have data, a name, and channels, 1 or 3")


def _expected(module: nn.Module, state: Mapping[str, Any], width: int) -> dict[str, Tensor]:
    """The state dict that a file is to have: what is known of the training classes is as large as the file says."""
    expected = module.state_dict()
    for prefix, part in module.named_modules():
        for name in BaseClasses._fields if isinstance(part, StoredBaseClasses) else ():
            found = state.get(f"{prefix}.{name}")
            if not isinstance(found, Tensor):
                continue
            right = {"mean": (width,), "scale": ()}.get(name, (len(found) if found.ndim else 0, width))
            if found.shape != (0,):
                expected[f"{prefix}.{name}"] = torch.empty(right)
    return expected
