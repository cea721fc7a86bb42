"""Objects described by class_path and init_args."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from fewshot.backbones import BackboneConfig
from fewshot.methods import SIB, MLPGradient, ProtoNet
from fewshot.methods.class_path import import_path
from fewshot.methods.construction import Recorded, construction


class Leaf(Recorded):
    def __init__(self, size: int, name: str = "leaf") -> None:
        self.size, self.name = size, name


class Tree(Recorded):
    def __init__(self, *leaves: Leaf, depth: int = 1) -> None:
        self.leaves, self.depth = leaves, depth


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
