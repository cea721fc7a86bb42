"""Options of a method that make no sense, refused by name; None, an option that is left out, always passes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def check_at_least(least: float, **options: float | None) -> None:
    """Raise ValueError where an option is below the bound, or no number."""
    for name, value in options.items():
        if value is not None and not value >= least:
            raise ValueError(f"{name}={value} but it is at least {least}")


def check_above(bound: float, **options: float | None) -> None:
    """Raise ValueError where an option is not above the bound."""
    for name, value in options.items():
        if value is not None and not value > bound:
            raise ValueError(f"{name}={value} but it is above {bound}")


def check_share(**options: float) -> None:
    """Raise ValueError where an option is not in [0, 1)."""
    for name, value in options.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name}={value} but it is in [0, 1)")


def check_choice(choices: Sequence[str], **options: str) -> None:
    """Raise ValueError where an option is none of the words."""
    for name, value in options.items():
        if value not in choices:
            raise ValueError(f"{name}={value!r}; choose one of {', '.join(map(repr, choices))}")


def check_width(part: str, made: Tensor, n_features: int) -> None:
    """Raise ValueError where a part of a method was made for another feature size D than the backbone gives."""
    if made.numel() != n_features:
        raise ValueError(
            f"the {part} was made for n_features={made.numel()} but the backbone gives {n_features}; leave n_features "
            "out to take the backbone's"
        )
