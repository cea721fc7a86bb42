"""Multinomial logistic regression on inner products, one regression for every task of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.functional.gram import Gram, RegularizedInverse


def logistic_weights(gram: Gram, one_hot: Tensor, regularizer: Tensor | float, n_iterations: int = 50) -> Tensor:
    """Weights theta of the classes in the form that `gram` has them, without offsets.

    They minimise sum_i CE(softmax(x_i . theta), y_i) + lambda/2 sum_c |theta_c|^2, logistic regression with lambda =
    1/C in the words of scikit-learn. Every iteration solves the regression with the curvature's upper bound I/2 in
    place of the curvature (Böhning: Multinomial Logistic Regression Algorithm, Annals of the Institute of Statistical
    Mathematics 1992), so that one inverse serves all of them and no step size is needed; Nesterov's
    momentum makes fewer of them do. Differentiable through all iterations.

    Args:
        gram: of the examples x_i.
        one_hot: Y, [T, S, N]; rows sum to one, and may be soft.
        regularizer: lambda, above 0; one number, or [T, 1, 1].
        n_iterations: of the solver; on unit features 50 reach 1e-3 in the probabilities for lambda of 0.1 or more, and
            so many as grow with the root of 1/lambda for a smaller one.
    """
    curvature = RegularizedInverse(gram, 2 * regularizer)  # half of what the bound I/2 asks for
    weights = torch.zeros_like(gram.weights(one_hot))
    ahead, momentum = weights, 1.0
    for _ in range(n_iterations):
        descent = gram.weights(gram.scores(ahead).softmax(-1) - one_hot) + regularizer * ahead
        moved = ahead - 2 * curvature.times(descent)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = moved + (momentum - 1) / following * (moved - weights)
        weights, momentum = moved, following
    return weights
