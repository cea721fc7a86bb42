"""What a parser accepts, in the words of a config: its options, and the values, classes and types of each."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin

from fewshot.commands.parser import Parser


def short_key(key: str) -> str:
    """A key as it is written on the command line: without the command, class_path and init_args."""
    parts = [part for part in key.split(".") if part not in ("init_args", "dict_kwargs", "")]
    return ".".join(parts[1:] if parts[:1] and parts[0] in ("fit", "validate", "test", "predict") else parts)


def parser_of(command: str, parser: Parser | None) -> Parser | None:
    """The parser of a subcommand's own options; the parser itself where it has no such subcommand."""
    found: Parser | None = getattr(getattr(parser, "_subcommands_action", None), "choices", {}).get(command, parser)
    return found


def option_names(parser: Parser | None) -> list[str]:
    """The options of a parser, in its order."""
    if parser is None:
        return []
    dests = [action.dest for action in parser._actions if action.option_strings]
    return [dest for dest in dests if dest != "help" and not dest.startswith("print_") and not dest.endswith(".help")]


def type_hint(parser: Parser | None, key: str) -> Any:
    """The type that a parser's option was declared with, if it tells."""
    for action in parser._actions if parser is not None else ():
        if action.dest in (key, short_key(key)):
            return getattr(action, "_typehint", None)
    return None


def accepted_classes(hint: Any) -> list[str]:
    """Names of the concrete classes that a type hint admits, as far as they are imported."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return [name for part in get_args(hint) for name in accepted_classes(part)]
    if origin is not None and isinstance(origin, type) and issubclass(origin, Callable):  # type: ignore[arg-type]
        return accepted_classes(get_args(hint)[-1]) if get_args(hint) else []
    if not inspect.isclass(hint) or hint.__module__ in ("builtins", "typing", "collections.abc"):
        return []
    found: dict[str, None] = {}
    waiting = [hint]
    while waiting:
        candidate = waiting.pop(0)
        waiting.extend(candidate.__subclasses__())
        public = not candidate.__name__.startswith("_") and "._" not in candidate.__module__
        if public and not inspect.isabstract(candidate) and (candidate is not hint or not hint.__subclasses__()):
            found[candidate.__name__] = None
    return list(found)


def type_name(hint: Any) -> str:
    """A type in the words of a config."""
    if hint in (None, type(None)):
        return "null"
    if hint is bool:
        return "true or false"
    if get_origin(hint) is Literal:
        return " or ".join(repr(choice) for choice in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(type_name(part) for part in get_args(hint))
    return hint.__name__ if inspect.isclass(hint) and not get_args(hint) else str(hint).replace("typing.", "")
