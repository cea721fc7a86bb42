"""Whether plain data, as a file holds them, are of the type that an option has."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself; none for Any."""
    if hint is Any or hint is inspect.Parameter.empty:
        return ()
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def item_hints(kind: Any, n_items: int) -> tuple[Any, ...] | None:
    """The type of each item of a list or tuple of that type; None where it is no such type, or of another length."""
    origin, of = get_origin(kind) or kind, get_args(kind)
    if origin not in (list, tuple, Sequence):
        return None
    if origin is tuple and of and of[-1] is not Ellipsis:
        return of if len(of) == n_items else None
    return (of[0] if of else Any,) * n_items


def fits(value: Any, hint: Any) -> bool:
    """Whether plain data is of a type; numbers are finite, and an int is a float too."""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if hint is Any:
        return value is None or isinstance(value, (bool, int, float, str, list, tuple, Mapping))
    for kind in alternatives(hint):
        origin = get_origin(kind) or kind
        if origin is Literal:
            if any(value == choice and type(value) is type(choice) for choice in get_args(kind)):
                return True
        elif origin is float:
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return True
        elif origin in (list, tuple, Sequence):
            hints = item_hints(kind, len(value)) if isinstance(value, (list, tuple)) else None
            if hints is not None and all(map(fits, value, hints)):
                return True
        elif origin in (None, type(None)):
            if value is None:
                return True
        elif isinstance(origin, type) and isinstance(value, origin) and (origin is bool or not isinstance(value, bool)):
            return True
    return False


def type_name(hint: Any) -> str:
    """How an error calls a type."""
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
