"""Ridge regression as the last layer (R2-D2).

Bertinetto, Henriques, Torr, Vedaldi: Meta-learning with Differentiable Closed-form Solvers, ICLR 2019,
arXiv 1805.08136.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.functional.solvers import ridge_weights, with_ones
from fewshot.methods.base import Method
from fewshot.methods.options import check_above


class R2D2(Method):
    """Logits a x^T W + b of the ridge regression W that fits the support's one-hot labels (section 3.2).

    W = X^T (X X^T + S lambda I)^-1 Y, with a column of ones in X for the offset; scale a, bias b and regulariser
    lambda are meta-learned with the features, lambda through its logarithm. As in the published code, examples and
    labels are divided by sqrt(S), hence the factor S: lambda means the same at one shot and at many. Inductive: every
    query is classified alone.

    Departure: the published code starts the scale at 1e-4, for a network that is trained from scratch and may grow its
    features; on features that are good already, logits that small would first have to grow. The shared bias b changes
    no probability; it is kept because the paper has it.

    Args:
        regularizer: what lambda starts at; 50 in the published code.
        scale: what a starts at.
        bias: what b starts at.

    Raises:
        ValueError: an option out of its range.
    """

    transductive = False

    def __init__(self, regularizer: float = 50.0, scale: float = 10.0, bias: float = 0.0) -> None:
        super().__init__()
        check_above(0, regularizer=regularizer, scale=scale)
        self.log_regularizer = nn.Parameter(torch.tensor(math.log(regularizer)))
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        support, query = with_ones(support), with_ones(query)
        one_hot = F.one_hot(support_labels, n_way).to(support.dtype)
        weights = ridge_weights(support, one_hot, support.shape[1] * self.log_regularizer.exp())  # [T, D+1, N]
        return self.scale * torch.bmm(query, weights) + self.bias
