"""A convex classifier as the last layer (MetaOptNet): ridge regression, or a multi-class support vector machine.

Lee, Maji, Ravichandran, Soatto: Meta-Learning with Differentiable Convex Optimization, CVPR 2019, arXiv 1904.03758.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.functional.solvers import crammer_singer_dual, ridge_weights
from fewshot.methods.base import Method
from fewshot.methods.options import check_above


class MetaOptNetRidge(Method):
    """Scores of the ridge regression of the support's labels, times a learned scale.

    The published dual, minimise 1/2 a^T (K + lambda I) a - 2 y^T a, has a closed solution, a = 2 (K + lambda I)^-1 y;
    no iterative solver is needed. There is no offset. Inductive: every query is classified alone.

    Args:
        regularizer: lambda, not learned; 50 in the published code.
        scale: what the learned factor of the scores starts at; 1 in the published code.

    Raises:
        ValueError: an option out of its range.
    """

    transductive = False

    def __init__(self, regularizer: float = 50.0, scale: float = 1.0) -> None:
        super().__init__()
        check_above(0, regularizer=regularizer, scale=scale)
        self.regularizer = regularizer
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        one_hot = F.one_hot(support_labels, n_way).to(support.dtype)
        weights = ridge_weights(support, 2 * one_hot, self.regularizer)  # [T, D, N]
        return self.scale * torch.bmm(query, weights)


class MetaOptNetSVM(Method):
    """Scores of Crammer and Singer's multi-class machine on the support, times a learned scale.

    The dual is solved for all tasks together and differentiated at the solution, as the published code does with a
    quadratic-programming layer of its own. There is no offset. Inductive: every query is classified alone. Departure:
    the published training smooths the query labels by 0.1; the loss here is the plain cross-entropy.

    Args:
        cost: C, not learned; 0.1 in the published code.
        n_iterations: Newton steps of the interior-point solver, 15 in the paper; accuracy is no longer changed by more.
        scale: what the learned factor of the scores starts at; 1 in the published code.

    Raises:
        ValueError: an option out of its range.
    """

    transductive = False

    def __init__(self, cost: float = 0.1, n_iterations: int = 15, scale: float = 1.0) -> None:
        super().__init__()
        check_above(0, cost=cost, n_iterations=n_iterations, scale=scale)
        self.cost, self.n_iterations = cost, n_iterations
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        if n_way < 2:
            raise ValueError(
                f"a multi-class support vector machine needs 2 classes and n_way={n_way}; raise data.n_way"
            )
        transposed = support.transpose(1, 2)  # [T, D, S]
        one_hot = F.one_hot(support_labels, n_way)
        # in float32 what is zero of its spectrum lies a little below, where the solver has no solution
        gram = torch.bmm(support.double(), transposed.double())  # [T, S, S]
        dual = crammer_singer_dual(gram, one_hot, cost=self.cost, n_iterations=self.n_iterations)  # [T, S, N]
        dual = dual.to(support.dtype)
        return self.scale * torch.bmm(torch.bmm(query, transposed), dual)
