"""Few-shot methods, one paper a file. Each turns the features of a task into logits of its queries."""

from fewshot.methods.alpha_tim import AlphaTIM
from fewshot.methods.base import BaseClasses, Method, Refinement
from fewshot.methods.bd_cspn import BDCSPN
from fewshot.methods.laplacian_shot import LaplacianShot
from fewshot.methods.nearest_mean import NearestClassMean
from fewshot.methods.paddle import PADDLE
from fewshot.methods.posterior import GaussianPosterior
from fewshot.methods.protonet import ProtoNet
from fewshot.methods.pt_map import PTMAP
from fewshot.methods.sib import (
    SIB,
    EquivariantGradient,
    Initializer,
    MLPGradient,
    QueryGradient,
    ScaledClassMeans,
)
from fewshot.methods.simpleshot import SimpleShot
from fewshot.methods.tim import TIM
from fewshot.methods.transductive_finetuning import TransductiveFineTuning

__all__ = [
    "BDCSPN",
    "PADDLE",
    "PTMAP",
    "SIB",
    "TIM",
    "AlphaTIM",
    "BaseClasses",
    "EquivariantGradient",
    "GaussianPosterior",
    "Initializer",
    "LaplacianShot",
    "MLPGradient",
    "Method",
    "NearestClassMean",
    "ProtoNet",
    "QueryGradient",
    "Refinement",
    "ScaledClassMeans",
    "SimpleShot",
    "TransductiveFineTuning",
]
