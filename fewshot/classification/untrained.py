"""Methods that serve as they are, by name."""

from __future__ import annotations

import inspect

import fewshot.methods
from fewshot.methods import PTMAP, Method

PRIOR_STRENGTH = 30.0
"""Chosen on validation classes of Tiny ImageNet among 2, 10, 30 and 100: tasks of 5 and 10 ways, 1 and 5 shots, 400 and
800 queries, balanced and not; from 10 on it gains in all of them."""


def untrained_method(given: str | Method | None) -> Method:
    """The method of that name; PTMAP with class proportions estimated from the queries where there is none.

    The estimate counts with PRIOR_STRENGTH queries of every class beside it: with as few as PTMAP's own default it
    runs away on folders of hundreds of queries.

    Args:
        given: the name of a class of fewshot.methods, or a method, which is given back.

    Raises:
        ValueError: no such class, or one that needs training or options.
    """
    if isinstance(given, Method):
        return given
    if given is None:
        return PTMAP(prior="queries", prior_strength=PRIOR_STRENGTH)
    found = getattr(fewshot.methods, given, None)
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ValueError(f"method={given!r} is no class of fewshot.methods; {_choices()}")
    try:
        made = found()
        made.build(8)
    except Exception as error:
        raise ValueError(f"method={given!r} cannot be made without options ({error}); give an instance") from error
    if any(True for _ in made.parameters()) or made.needs_base is not None:
        raise ValueError(f"method={given!r} has to be trained first; give checkpoint=..., or {_choices()}")
    return found()


def _choices() -> str:
    return f"choose one of {', '.join(untrained_names())}"


def untrained_names() -> list[str]:
    """Names of methods that serve as they are."""
    found = []
    for name in fewshot.methods.__all__:
        kind = getattr(fewshot.methods, name)
        if isinstance(kind, type) and issubclass(kind, Method) and not inspect.isabstract(kind):
            try:
                made = kind()
                made.build(8)
            except Exception:  # needs options
                continue
            if made.on_features and made.needs_base is None and not any(True for _ in made.parameters()):
                found.append(name)
    return sorted(found)
