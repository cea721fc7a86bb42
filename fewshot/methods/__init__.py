"""Few-shot methods, one paper a file. Each turns the features of a task into logits of its queries."""

from fewshot.methods.activations_to_parameters import ActivationsToParameters
from fewshot.methods.alpha_tim import AlphaTIM
from fewshot.methods.anil import ANIL
from fewshot.methods.base import Method, Refinement
from fewshot.methods.base_classes import BaseClasses
from fewshot.methods.bd_cspn import BDCSPN
from fewshot.methods.ctm import CTM
from fewshot.methods.ease_siamese import EaseSiamese
from fewshot.methods.gnn import GNN
from fewshot.methods.ilpc import ILPC
from fewshot.methods.imprinted import ImprintedWeights
from fewshot.methods.initializers import Initializer, ScaledClassMeans
from fewshot.methods.laplacian_shot import LaplacianShot
from fewshot.methods.leo import LEO
from fewshot.methods.logistic_regression import LogisticRegression
from fewshot.methods.maml import MAML
from fewshot.methods.matching import FullContextEmbedding, MatchingNetworks
from fewshot.methods.metaoptnet import MetaOptNetRidge, MetaOptNetSVM
from fewshot.methods.nearest_mean import NearestClassMean
from fewshot.methods.paddle import PADDLE
from fewshot.methods.posterior import GaussianPosterior
from fewshot.methods.protolp import ProtoLP
from fewshot.methods.protonet import ProtoNet
from fewshot.methods.pt_map import PTMAP
from fewshot.methods.query_gradients import EquivariantGradient, MLPGradient, QueryGradient
from fewshot.methods.r2d2 import R2D2
from fewshot.methods.relation import RelationNetwork
from fewshot.methods.ridge_regression import RidgeRegression
from fewshot.methods.sib import SIB
from fewshot.methods.simpleshot import SimpleShot
from fewshot.methods.snail import SNAIL
from fewshot.methods.stat_a import StatA
from fewshot.methods.tadam import TADAM
from fewshot.methods.tim import TIM
from fewshot.methods.tpn import TPN
from fewshot.methods.transductive_finetuning import TransductiveFineTuning
from fewshot.methods.transport_sib import TransportSIB
from fewshot.methods.unem import UNEM
from fewshot.methods.universal_sib import UniversalSIB

__all__ = [
    "ANIL",
    "BDCSPN",
    "CTM",
    "GNN",
    "ILPC",
    "LEO",
    "MAML",
    "PADDLE",
    "PTMAP",
    "R2D2",
    "SIB",
    "SNAIL",
    "TADAM",
    "TIM",
    "TPN",
    "UNEM",
    "ActivationsToParameters",
    "AlphaTIM",
    "BaseClasses",
    "EaseSiamese",
    "EquivariantGradient",
    "FullContextEmbedding",
    "GaussianPosterior",
    "ImprintedWeights",
    "Initializer",
    "LaplacianShot",
    "LogisticRegression",
    "MLPGradient",
    "MatchingNetworks",
    "MetaOptNetRidge",
    "MetaOptNetSVM",
    "Method",
    "NearestClassMean",
    "ProtoLP",
    "ProtoNet",
    "QueryGradient",
    "Refinement",
    "RelationNetwork",
    "RidgeRegression",
    "ScaledClassMeans",
    "SimpleShot",
    "StatA",
    "TransductiveFineTuning",
    "TransportSIB",
    "UniversalSIB",
]
