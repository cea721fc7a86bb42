"""Objects described by class_path and init_args."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import pytest
import torch
from torch import nn

from fewshot.backbones import BackboneConfig
from fewshot.methods import SIB, MLPGradient, ProtoNet
from fewshot.methods.class_path import import_path
from fewshot.methods.construction import Recorded, constructed, construction


class Leaf(Recorded):
    def __init__(self, size: int, name: str = "leaf") -> None:
        self.size, self.name = size, name


class Oak(Leaf):
    """Hands on what it does not know."""

    def __init__(self, age: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**{"size": 7, **kwargs})
        self.age = age


class Bush(Recorded):
    def __init__(self, *leaves: Leaf) -> None:
        self.leaves = leaves


@dataclasses.dataclass
class Branch:
    width: int


class Tree(Recorded):
    def __init__(
        self,
        branches: list[Branch] | None = None,
        leaves: tuple[Leaf, ...] = (),
        size: tuple[int, float] = (1, 1.0),
        limit: float | None = None,
    ) -> None:
        self.branches, self.leaves, self.size, self.limit = branches, leaves, size, limit


def test_plain_values_stay():
    value = {"a": [1, 2.5, "x", None, True], "b": (1, 2)}
    assert construction(value) == {"a": [1, 2.5, "x", None, True], "b": [1, 2]}


def test_given_arguments_are_recorded_by_name():
    path = f"{__name__}.Leaf"
    assert construction(Leaf(3)) == {"class_path": path, "init_args": {"size": 3}}
    assert construction(Leaf(size=3, name="x"))["init_args"] == {"size": 3, "name": "x"}


def test_nested_objects_are_described_too():
    described = construction(SIB(gradient=MLPGradient(n_way=7), n_steps=1))
    gradient = {"class_path": "fewshot.methods.MLPGradient", "init_args": {"n_way": 7}}
    assert described == {
        "class_path": "fewshot.methods.SIB",
        "init_args": {"gradient": gradient, "n_steps": 1},
    }


def test_later_changes_of_an_object_do_not_change_how_it_was_constructed():
    leaf = Leaf(3)
    leaf.size = 4
    assert construction(leaf)["init_args"] == {"size": 3}


def test_a_recorded_module_is_a_module_like_any_other():
    method = ProtoNet(learn_temperature=True)
    assert isinstance(method, nn.Module) and [name for name, _ in method.named_parameters()] == ["temperature"]
    assert "_arguments" not in method.state_dict()


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(TypeError, match="steps"):
        SIB(steps=3)  # type: ignore[call-arg]


def test_dataclasses_become_their_fields():
    fields = {"name": "conv4", "pretrained": False, "weights": None, "in_chans": 1, "image_size": 28}
    assert construction(BackboneConfig(in_chans=1, image_size=28)) == {**fields, "compile": False}


def test_partial_and_class():
    described = construction(functools.partial(torch.optim.SGD, lr=0.1, nesterov=True))
    assert described == {"class_path": import_path(torch.optim.SGD), "init_args": {"lr": 0.1, "nesterov": True}}
    assert construction(torch.optim.AdamW) == {"class_path": import_path(torch.optim.AdamW)}


@pytest.mark.parametrize("value", [lambda: 1, object(), torch.zeros(1)], ids=["lambda", "object", "tensor"])
def test_what_cannot_be_written_is_named(value):
    with pytest.raises(ValueError, match=r"optimizer.*cannot be written into a checkpoint"):
        construction({"optimizer": value}, "model")


def read_again(value: Any) -> Any:
    return constructed(construction(value), packages=[__name__.split(".")[0], "fewshot"])


def test_options_that_are_handed_on_are_recorded_and_read_by_their_names():
    assert construction(Oak(2.0, name="old"))["init_args"] == {"age": 2.0, "name": "old"}
    again = read_again(Oak(2.0, size=3, name="old"))
    assert (again.age, again.size, again.name) == (2.0, 3, "old")
    assert read_again(Oak()).size == 7
    with pytest.raises(ValueError, match="Oak has no option 'colour'"):
        constructed({"class_path": f"{__name__}.Oak", "init_args": {"colour": 1}}, packages=[__name__.split(".")[0]])


def test_options_without_a_name_are_refused_when_they_are_given():
    with pytest.raises(TypeError, match=r"Bush is given .* as \*leaves; give options by name"):
        Bush(Leaf(1))
    assert construction(Bush())["init_args"] == {}


def test_lists_of_dataclasses_and_objects_and_tuples_of_several_types_are_read():
    again = read_again(Tree([Branch(2), Branch(3)], (Leaf(1), Leaf(4)), (2, 0.25)))
    assert again.branches == [Branch(2), Branch(3)]
    assert [leaf.size for leaf in again.leaves] == [1, 4] and isinstance(again.leaves, tuple)
    assert again.size == (2, 0.25)
    described = construction(Tree(size=(2, 0.25)))
    for wrong in ([0.25, 2.5], [1], [1, 2.0, 3]):
        described["init_args"]["size"] = wrong
        with pytest.raises(ValueError, match=r"size=.* is not of the type tuple"):
            constructed(described, packages=[__name__.split(".")[0]])
    described = construction(Tree([Branch(2)]))
    described["init_args"]["branches"][0]["width"] = "wide"
    with pytest.raises(ValueError, match=r"branches\.0\.width='wide' is not of the type int"):
        constructed(described, packages=[__name__.split(".")[0]])


@pytest.mark.parametrize("limit", [math.inf, math.nan])
def test_numbers_that_no_checkpoint_gives_back_are_refused_when_it_would_be_written(limit):
    with pytest.raises(ValueError, match=r"value\.limit=(inf|nan) cannot be read from a checkpoint again"):
        construction(Tree(limit=limit))
