"""How an object was constructed, as class_path and init_args: what checkpoints hold instead of pickled objects."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, get_origin, get_type_hints

from fewshot.methods.class_path import import_path, with_present_paths
from fewshot.methods.type_hints import alternatives, fits, item_hints, type_name

MAX_INTEGER = 10_000
"""Of what a file says: steps, layers, ways, widths. More would take all time or memory."""
COUNTED = ("n_classes",)
"""Numbers that may be larger, since weights of the file go with them."""


class Recorded:
    """Base of classes that remember the arguments they were constructed with.

    A checkpoint of a module that was built in Python then holds plain values, exactly as one that was built from a
    YAML file does, and is loaded without unpickling anything.
    """

    by_person: tuple[str, ...] = ()
    """Arguments that a person gives and a file never does, such as the place of another file; left out in reading."""
    _arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        instance = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind_partial(instance, *args, **kwargs)
        # straight into __dict__: nn.Module refuses submodules before its own __init__ has run
        instance.__dict__["_arguments"] = _by_name(bound, cls.__name__)
        return instance


def _by_name(bound: inspect.BoundArguments, of: str) -> dict[str, Any]:
    """What a constructor was given, `self` left out; TypeError for arguments that have no name."""
    found: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL and value:
            raise TypeError(f"{of} is given {value!r} as *{name}; give options by name, so that a checkpoint can")
        if kind is inspect.Parameter.VAR_KEYWORD:
            found |= value
        elif kind is not inspect.Parameter.VAR_POSITIONAL:
            found[name] = value
    return found


def construction(value: Any, name: str = "value") -> Any:
    """Plain data (None, numbers, strings, lists, dicts) from which jsonargparse constructs `value` again.

    Args:
        value: plain data, a `Recorded` object, a dataclass, a class, or a functools.partial of a class or function.
        name: what to call the value in an error.

    Raises:
        ValueError: for anything else, naming it and what could be given instead.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}={value} cannot be read from a checkpoint again; give a finite number, or None")
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
        "keyword arguments, or an object whose class derives from fewshot.methods.construction.Recorded"
    )


def plain_options(value: Recorded) -> dict[str, Any]:
    """Attributes that are numbers, text or truth values and have the names of the constructor's options."""
    names = inspect.signature(type(value).__init__).parameters  # type: ignore[misc]
    found = {name: vars(value).get(name) for name in names}
    return {name: one for name, one in found.items() if isinstance(one, (bool, int, float, str))}


def warn_of_changes(value: Recorded, before: Mapping[str, Any]) -> None:
    """Warn of attributes that were set anew since `plain_options` gave these; what is recorded is of before."""
    for name, now in plain_options(value).items():
        if name in before and now != before[name]:
            warnings.warn(
                f"{name} of {type(value).__name__} was set to {now!r}, and what is saved has what it was made with; "
                "make it anew with the other value",
                stacklevel=2,
            )


def constructed(
    value: Any,
    hint: Any = Any,
    *,
    packages: Sequence[str],
    name: str = "value",
    given: Mapping[str, Any] | None = None,
) -> Any:
    """What `construction` described, made again, by classes of the given packages and no others.

    This is the only way from a file to an object. Every name in the description is looked at before anything is
    imported, and nothing is imported but the classes that a `class_path` names: what comes from elsewhere chooses no
    code.

    Args:
        value: plain data as `construction` gives it.
        hint: the type that the result is to have; Any takes all.
        packages: top-level packages whose classes may be named.
        name: what to call the value in an error.
        given: arguments of the outermost class that are made already and hold in place of described ones.

    Raises:
        ValueError: a class of another package, one that does not exist or is of another kind, arguments that it does
            not take, that are missing or have another type.
    """
    check_names(value, packages, name)
    return _constructed(value, hint, packages, name, given or {})


def constructed_partial(value: Any, kind: type, *, packages: Sequence[str], name: str = "value") -> Any:
    """A functools.partial that `construction` described, of a class and plain keyword arguments.

    Args:
        value: plain data as `construction` gives it; None and a class without arguments too.
        kind: the class that the described one is derived from.
        packages: packages whose classes may be named, as dotted paths of any depth.
        name: what to call the value in an error.

    Raises:
        ValueError: a class of another package or kind, or arguments that are no plain values.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping) or not set(value) <= {"class_path", "init_args"} or "class_path" not in value:
        raise ValueError(f"{name}={value!r} does not have the keys class_path and init_args")
    path, arguments = value["class_path"], value.get("init_args") or {}
    check_name(path, packages, name)
    if not isinstance(arguments, Mapping) or not all(_is_plain(item) for item in arguments.values()):
        raise ValueError(f"{name}: the arguments of {path} are not plain values; give {name}=... yourself")
    found = _imported(path, name)
    if not issubclass(found, kind):
        raise ValueError(f"{name}: {path} is no {kind.__name__}")
    return functools.partial(found, **arguments)


def _is_plain(value: Any) -> bool:
    """Whether it is a number, text, truth value or null, or a list of them."""
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


def check_names(value: Any, packages: Sequence[str], name: str = "value") -> None:
    """ValueError where a description names a class, however deep, that is no dotted path into one of the packages."""
    if isinstance(value, Mapping):
        if "class_path" in value:
            check_name(value["class_path"], packages, name)
        for key, item in value.items():
            check_names(item, packages, name if key == "init_args" else f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            check_names(item, packages, name)


def _constructed(value: Any, hint: Any, packages: Sequence[str], name: str, given: Mapping[str, Any]) -> Any:
    kinds = [kind for kind in alternatives(hint) if isinstance(kind, type)]
    if isinstance(value, Mapping) and "class_path" in value:
        if set(value) != {"class_path", "init_args"} or not isinstance(value["init_args"], Mapping):
            raise ValueError(f"{name} has the keys {', '.join(map(str, value))}; expected class_path and init_args")
        target = _imported(value["class_path"], name)
        if kinds and not issubclass(target, tuple(kinds)):
            raise ValueError(f"{name}: {value['class_path']} is no {' or '.join(kind.__name__ for kind in kinds)}")
        return _called(target, value["init_args"], packages, name, given)
    records = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    if isinstance(value, Mapping) and records:
        return _called(records[0], value, packages, name, given)
    if isinstance(value, Mapping) and dict in (get_origin(kind) or kind for kind in alternatives(hint)):
        return {key: _constructed(item, Any, packages, f"{name}.{key}", {}) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
        for kind in alternatives(hint):
            if (hints := item_hints(kind, len(value))) is not None:
                items = [
                    _constructed(item, item_hint, packages, f"{name}.{place}", {})
                    for place, (item, item_hint) in enumerate(zip(value, hints, strict=True))
                ]
                return tuple(items) if get_origin(kind) is tuple else items
    if not fits(value, hint):
        raise ValueError(f"{name}={value!r} is not of the type {type_name(hint)}")
    if isinstance(value, int) and abs(value) > MAX_INTEGER and name.rpartition(".")[2] not in COUNTED:
        raise ValueError(f"{name}={value} but a file may ask for {MAX_INTEGER} at most")
    sequence = next((get_origin(kind) or kind for kind in alternatives(hint)), None)
    return tuple(value) if isinstance(value, list) and sequence is tuple else value


def _called(
    target: type, arguments: Mapping[str, Any], packages: Sequence[str], name: str, given: Mapping[str, Any]
) -> Any:
    """The class called with plain arguments and those given; ValueError where it does not take them."""
    not_read = (*given, *getattr(target, "by_person", ()))
    arguments = {key: item for key, item in arguments.items() if key not in not_read}
    hints, needed = _options(target)
    unknown = [str(key) for key in (*arguments, *given) if key not in hints]
    missing = [key for key in needed if key not in arguments and key not in given]
    faults = [f"has no option '{key}'" for key in unknown] + [f"needs '{key}'" for key in missing]
    if faults:
        raise ValueError(f"{name}: {target.__name__} {'; '.join(faults)}")
    return target(
        **{
            key: _constructed(item, hints.get(key, Any), packages, f"{name}.{key}", {})
            for key, item in arguments.items()
        },
        **given,
    )


def _options(target: type) -> tuple[dict[str, Any], list[str]]:
    """Type hints of what a class is constructed with, by name, and which names it needs.

    Where a constructor hands **kwargs on, those of its parents are among them.
    """
    found: dict[str, Any] = {}
    needed: list[str] | None = None
    for kind in target.__mro__[:-1]:
        if "__init__" not in vars(kind):
            continue
        constructor: Any = kind.__init__  # type: ignore[misc]
        parameters = list(inspect.signature(constructor).parameters.values())[1:]
        named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        hints = get_type_hints(constructor)
        found = {**{one.name: hints.get(one.name, Any) for one in named}, **found}
        if needed is None:
            needed = [one.name for one in named if one.default is one.empty]
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            break
    return found, needed or []


def check_name(path: Any, packages: Sequence[str], name: str) -> None:
    """ValueError where this is no dotted path into one of the packages."""
    if not isinstance(path, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", path):
        raise ValueError(f"{name}: class_path is {path!r}; expected the dotted path of a class")
    if not any(path.startswith(f"{package}.") for package in packages):
        raise ValueError(
            f"{name} asks for {path}, and only classes of {', '.join(packages)} are imported; if you trust it, allow "
            f"'{path.split('.')[0]}' by the option packages (--packages '[{path.split('.')[0]}]')"
        )


def _imported(path: str, name: str) -> type:
    """The class of a dotted path that was looked at; it is not reached through what its module imports."""
    path = with_present_paths(path)
    module, _, last = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), last, None)
    except ImportError as error:
        raise ValueError(f"{name}: {path} cannot be imported ({error}); another version wrote it?") from error
    if not isinstance(found, type) or path not in (import_path(found), f"{found.__module__}.{found.__qualname__}"):
        raise ValueError(f"{name}: there is no class {path} here; another version wrote it?")
    return found
