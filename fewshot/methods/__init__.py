"""Few-shot methods, one paper a file. Each turns the features of a task into logits of its queries."""

from fewshot.methods.base import BaseClasses, Method, Refinement
from fewshot.methods.nearest_mean import NearestClassMean
from fewshot.methods.posterior import GaussianPosterior
from fewshot.methods.protonet import ProtoNet
from fewshot.methods.sib import (
    SIB,
    EquivariantGradient,
    Initializer,
    MLPGradient,
    QueryGradient,
    ScaledClassMeans,
)

__all__ = [
    "SIB",
    "BaseClasses",
    "EquivariantGradient",
    "GaussianPosterior",
    "Initializer",
    "MLPGradient",
    "Method",
    "NearestClassMean",
    "ProtoNet",
    "QueryGradient",
    "Refinement",
    "ScaledClassMeans",
]
