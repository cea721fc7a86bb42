"""How an object was constructed, as class_path and init_args: what checkpoints hold instead of pickled objects."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any

from pytorch_lightning import LightningModule


class Recorded:
    """Base of classes that remember the arguments they were constructed with.

    A checkpoint of a module that was built in Python then holds plain values, exactly as one that was built from a
    YAML file does, and is loaded without unpickling anything.
    """

    _arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        instance = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        bound = signature.bind_partial(instance, *args, **kwargs)
        # straight into __dict__: nn.Module refuses submodules before its own __init__ has run
        instance.__dict__["_arguments"] = dict(list(bound.arguments.items())[1:])
        return instance


def construction(value: Any, name: str = "value") -> Any:
    """Plain data (None, numbers, strings, lists, dicts) from which jsonargparse constructs `value` again.

    Args:
        value: plain data, a `Recorded` object, a dataclass, a class, or a functools.partial of a class or function.
        name: what to call the value in an error.

    Raises:
        ValueError: for anything else, naming it and what could be given instead.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [construction(item, name) for item in value]
    if isinstance(value, dict):
        return {key: construction(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, Recorded):
        arguments = {key: construction(item, f"{name}.{key}") for key, item in value._arguments.items()}
        return {"class_path": import_path(type(value)), "init_args": arguments}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: construction(getattr(value, field.name), f"{name}.{field.name}") for field in fields}
    if isinstance(value, functools.partial) and (not value.args or isinstance(value.args[-1], type)):
        # a person writes partial(the class, keywords), jsonargparse partial(its own functions, the class, keywords)
        target = value.args[-1] if value.args else value.func
        arguments = {key: construction(item, f"{name}.{key}") for key, item in value.keywords.items()}
        return {"class_path": import_path(target), "init_args": arguments}
    if isinstance(value, type):
        return {"class_path": import_path(value)}
    raise ValueError(
        f"{name}={value!r} cannot be written into a checkpoint; give a class, a functools.partial of a class with "
        "keyword arguments, or an object whose class derives from fewshot.construction.Recorded"
    )


def import_path(target: Any) -> str:
    """Dotted path under which a class or function is imported."""
    return f"{target.__module__}.{target.__qualname__}"


def record_hyperparameters(module: LightningModule, arguments: dict[str, Any]) -> None:
    """Save a LightningModule's constructor arguments as plain data, from which load_from_checkpoint builds it again.

    Args:
        module: where `save_hyperparameters` is called; its class is recorded too.
        arguments: the constructor's arguments by name.

    Raises:
        ValueError: an argument that is no plain data and cannot be described by it.
    """
    plain = {name: construction(value, name) for name, value in arguments.items()}
    instantiator = "pytorch_lightning.cli.instantiate_module"
    module.save_hyperparameters({"_class_path": import_path(type(module)), "_instantiator": instantiator, **plain})
