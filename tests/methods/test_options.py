"""Options that make no sense are refused by name and value, and a method that was not built says so."""

import inspect
import math

import pytest
import torch
from torch import nn

import fewshot.methods
from fewshot.methods import GNN, MLPGradient
from fewshot.methods.options import check_above, check_at_least, check_choice, check_share


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (lambda: check_at_least(1, first=1, second=0), "second=0 but it is at least 1"),
        (lambda: check_at_least(0, share=float("nan")), "share=nan but it is at least 0"),
        (lambda: check_above(0, cost=0.0), "cost=0.0 but it is above 0"),
        (lambda: check_share(alpha=1.0), r"alpha=1.0 but it is in \[0, 1\)"),
        (lambda: check_choice(("sum", "mean"), reduction="max"), "reduction='max'; choose one of 'sum', 'mean'"),
    ],
)
def test_a_value_out_of_bounds_is_named(check, says):
    with pytest.raises(ValueError, match=says):
        check()


def test_what_is_left_out_and_what_is_on_the_bound_passes():
    check_at_least(1, n_steps=1, test_steps=None)
    check_above(0, prior_std=None)
    check_share(dropout=0.0)


ANY_SIGN = {"bias"}
REQUIRED = {"n_way": 4, "n_shot": 2, "gradient": MLPGradient(4), "n_latents": 4}


def numbers():
    """Class and name of every option of a method or of its parts that is a number."""
    for name in fewshot.methods.__all__:
        kind = getattr(fewshot.methods, name)
        if isinstance(kind, type) and issubclass(kind, nn.Module) and not inspect.isabstract(kind):
            for option in inspect.signature(kind).parameters.values():
                if option.annotation in ("int", "int | None", "float", "float | None") and option.name not in ANY_SIGN:
                    yield pytest.param(kind, option, id=f"{name}.{option.name}")


@pytest.mark.parametrize(("kind", "option"), list(numbers()))
def test_no_number_below_its_range_is_taken(kind, option):
    options = inspect.signature(kind).parameters
    needed = {name: REQUIRED[name] for name, one in options.items() if one.default is one.empty and name in REQUIRED}
    for value in (-1, -math.inf, math.nan) if "float" in option.annotation else (-1,):
        with pytest.raises(ValueError, match=rf"{option.name.removeprefix('initial_')}.*={value} but it is"):
            kind(**needed | {option.name: value})


def test_a_method_without_its_parts_says_that_build_makes_them():
    with pytest.raises(AttributeError, match=r"'embed'; what depends on the feature size is made by build"):
        GNN(2).classify(torch.ones(1, 2, 3), torch.tensor([[0, 1]]), torch.ones(1, 1, 3), 2)
