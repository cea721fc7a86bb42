"""Logistic regression on the support: what people fit on features of a frozen backbone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.functional.features import class_means, normalized
from fewshot.functional.gram import Gram
from fewshot.functional.logistic import logistic_weights
from fewshot.methods.base import Method
from fewshot.methods.options import check_above, check_at_least

COSTS = (0.1, 1.0, 10.0, 100.0)
"""Those that are tried."""
ONE_SHOT_COST = 10.0
MOST_FOLDS = 5
ITERATIONS = 100


class LogisticRegression(Method):
    """Multinomial logistic regression on features of length one about the mean of the class means.

    Few-shot learning by it on frozen features: Tian, Wang, Krishnan, Tenenbaum, Isola: Rethinking Few-Shot Image
    Classification: a Good Embedding Is All You Need?, ECCV 2020, arXiv 2003.11539, which does not centre. Inductive,
    nothing is trained. There is no offset: the features are centred.

    Args:
        cost: C of scikit-learn, the inverse of the ridge penalty lambda/2 |W|^2 beside the summed cross-entropy. None
            takes, for every task, the one of 0.1, 1, 10 and 100 whose held-out cross-entropy is least, in up to five
            folds that hold out a part of every class; where a class has one example alone, 10. Examples are dealt to
            folds by the sum of their features, so that the order in which they come does not matter.
        centre: whether features are centred.
        n_iterations: of the solver. None takes 100, and 100 sqrt(cost / 10) for a cost above 10 that is given. Where C
            is chosen, probabilities are within 0.01 of the exact ones at 100, and 0.001 at the others.

    Raises:
        ValueError: an option out of its range.
    """

    transductive = False

    def __init__(self, cost: float | None = None, centre: bool = True, n_iterations: int | None = None) -> None:
        super().__init__()
        if cost is not None:
            check_above(0, cost=cost)
        check_at_least(1, n_iterations=n_iterations)
        if n_iterations is None:
            n_iterations = round(ITERATIONS * max(1.0, (cost or 0.0) / 10) ** 0.5)
        self.cost, self.centre, self.n_iterations = cost, centre, n_iterations

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        order = support.sum(-1).argsort(-1)  # [T, S]
        support, support_labels = (
            support.gather(1, order.unsqueeze(-1).expand_as(support)),
            support_labels.gather(1, order),
        )
        support, query = centred_directions(support, support_labels, query, n_way, centre=self.centre)
        one_hot = F.one_hot(support_labels, n_way).to(support.dtype)  # [T, S, N]
        gram = torch.bmm(support, support.transpose(1, 2))  # [T, S, S]
        cost = self._best_cost(gram, one_hot) if self.cost is None else self.cost
        coefficients = logistic_weights(Gram(gram), one_hot, 1 / cost, self.n_iterations)
        return torch.bmm(torch.bmm(query, support.transpose(1, 2)), coefficients)

    def _best_cost(self, gram: Tensor, one_hot: Tensor) -> Tensor:
        """C of every task, [T, 1, 1], by cross-validation on its support."""
        tasks = len(gram)
        folds_of = one_hot.sum(1).amin(-1).clamp_max(MOST_FOLDS)  # [T]
        folds = int(folds_of.max())
        if folds < 2:
            return gram.new_full((tasks, 1, 1), ONE_SHOT_COST)
        place = (one_hot.cumsum(1) * one_hot).sum(-1) - 1  # [T, S], of an example within its class
        turn = place % folds_of.clamp_min(2).unsqueeze(1)  # which fold holds it out
        held = turn.unsqueeze(0) == torch.arange(folds, device=gram.device).view(-1, 1, 1)  # [F, T, S]
        kept = (~held).to(gram.dtype).flatten(0, 1).unsqueeze(-1)  # [F*T, S, 1]
        grams, targets = gram.repeat(folds, 1, 1), one_hot.repeat(folds, 1, 1)
        # what is held out has no inner product with the others, hence no part in their regression
        without = Gram(grams * kept * kept.transpose(1, 2))
        errors = []
        for cost in COSTS:
            fitted = logistic_weights(without, targets, 1 / cost, self.n_iterations)
            said = torch.bmm(grams, fitted * kept).log_softmax(-1)
            error = -((said * targets).sum(-1, keepdim=True) * (1 - kept)).sum((1, 2))  # [F*T]
            errors.append(error.view(folds, tasks).sum(0))
        best = gram.new_tensor(COSTS)[torch.stack(errors).argmin(0)]  # [T]
        return best.where(folds_of >= 2, ONE_SHOT_COST).view(-1, 1, 1)


def centred_directions(
    support: Tensor, support_labels: Tensor, query: Tensor, n_way: int, *, centre: bool
) -> tuple[Tensor, Tensor]:
    """Support [T, S, D] and queries [T, Q, D] of length one; where asked, about the mean of the class means.

    Args:
        support: [T, S, D].
        support_labels: [T, S] int64.
        query: [T, Q, D].
        n_way: N.
        centre: whether they are centred, and made of length one again.
    """
    support, query = normalized(support), normalized(query)
    if not centre:
        return support, query
    middle = class_means(support, support_labels, n_way).mean(1, keepdim=True)  # [T, 1, D]
    return normalized(support - middle), normalized(query - middle)
