"""Ridge regression on the support, with the penalty chosen by leaving one example out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.functional.solvers import ridge_weights
from fewshot.methods.base import Method
from fewshot.methods.logistic_regression import centred_directions
from fewshot.methods.options import check_above

PENALTIES = (0.01, 0.1, 1.0, 10.0)
"""Those that are tried."""
ONE_SHOT_PENALTY = 1.0
SCALE = 10.0
"""From scores, which are near 0 and 1, to logits."""


class RidgeRegression(Method):
    """Ridge regression to one-hot labels, on features of length one about the mean of the class means.

    The frozen counterpart of R2-D2 (Bertinetto, Henriques, Torr, Vedaldi: Meta-learning with Differentiable Closed-form
    Solvers, ICLR 2019, arXiv 1805.08136). Inductive, nothing is trained.

    Args:
        penalty: lambda, beside the summed squared error. None takes, for every task, the one of 0.01, 0.1, 1 and 10
            whose squared error is least where each example is left out in turn, which has a closed form; where a class
            has one example alone, 1.

    Raises:
        ValueError: a penalty that is not above 0.
    """

    transductive = False

    def __init__(self, penalty: float | None = None) -> None:
        super().__init__()
        if penalty is not None:
            check_above(0, penalty=penalty)
        self.penalty = penalty

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        support, query = centred_directions(support, support_labels, query, n_way, centre=True)
        one_hot = F.one_hot(support_labels, n_way).to(support.dtype)  # [T, S, N]
        targets = one_hot - 1 / n_way
        penalty = self._best_penalty(support, targets, one_hot) if self.penalty is None else self.penalty
        return SCALE * torch.bmm(query, ridge_weights(support, targets, penalty))

    @torch.no_grad()
    def _best_penalty(self, support: Tensor, targets: Tensor, one_hot: Tensor) -> Tensor:
        """Lambda of every task, [T, 1, 1], by leaving out each example of its support."""
        values, directions = torch.linalg.eigh(torch.bmm(support, support.transpose(1, 2)))  # [T, S], [T, S, S]
        turned = torch.bmm(directions.transpose(1, 2), targets)
        errors = []
        for penalty in PENALTIES:
            inverse = 1 / (values.clamp_min(0) + penalty).unsqueeze(-1)  # [T, S, 1]
            own = torch.bmm(directions.square(), inverse)  # [T, S, 1], the diagonal of the inverse
            errors.append((torch.bmm(directions, inverse * turned) / own).square().sum((1, 2)))
        best = support.new_tensor(PENALTIES)[torch.stack(errors).argmin(0)]  # [T]
        return best.where(one_hot.sum(1).amin(-1) > 1, ONE_SHOT_PENALTY).view(-1, 1, 1)
