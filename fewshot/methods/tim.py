"""TIM-GD: class weights that make the queries' predictions informative.

Boudiaf, Ziko, Rony, Dolz, Piantanida, Ben Ayed: Transductive Information Maximization for Few-Shot Learning,
NeurIPS 2020, arXiv 2008.11297.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.functional.euclidean import euclidean_descent, euclidean_logits
from fewshot.functional.features import class_means, normalized
from fewshot.functional.information import class_softmax, information_gradient
from fewshot.methods.base import Method, Refinement


class TIM(Method):
    """Class weights from the support's means, moved by Adam down cross-entropy less mutual information (section 2).

    Features are L2-normalised, logits are -(temperature / 2) |z - w_c|^2 and the loss of a task is

        ce_weight CE(support) - marginal_weight H(mean p) + conditional_weight mean H(p), p of the queries.

    Its gradient is taken in closed form, so that tasks are descended together and inside torch.inference_mode. The
    descent itself is not differentiated through: a backbone that is trained sees the weights as constants.

    Assumes of the queries: the entropy of the mean prediction, Shannon's, is largest for as many queries of every
    class; a pull, not an equality. AlphaTIM pulls less.

    Args:
        n_iterations: of Adam (published: 1000).
        learning_rate: of Adam (published: 1e-4).
        temperature: of the logits (published: 15).
        ce_weight: of the support's cross-entropy, averaged over the support (published: 0.1).
        marginal_weight: of the entropy of the mean prediction (published: 1).
        conditional_weight: of the mean entropy of the predictions (published: 0.1).
    """

    n_steps = 1
    """The weights before and after all iterations."""

    def __init__(
        self,
        n_iterations: int = 1000,
        learning_rate: float = 1e-4,
        temperature: float = 15.0,
        ce_weight: float = 0.1,
        marginal_weight: float = 1.0,
        conditional_weight: float = 0.1,
    ) -> None:
        super().__init__()
        self.n_iterations, self.learning_rate, self.temperature = n_iterations, learning_rate, temperature
        self.ce_weight, self.marginal_weight = ce_weight, marginal_weight
        self.conditional_weight = conditional_weight

    def refine(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Refinement:
        """Before and after the descent."""
        support, query = normalized(support), normalized(query)
        start = class_means(support, support_labels, n_way)  # [T, N, D]
        target = F.one_hot(support_labels, n_way).to(support.dtype)  # [T, S, N]

        def logit_gradient(logits: Tensor) -> Tensor:
            probabilities = class_softmax(logits)  # [T, S+Q, N]
            of_support, of_query = probabilities.split([target.shape[1], query.shape[1]], dim=1)
            with_support = (of_support - target) * (self.ce_weight / target.shape[1])
            with_query = information_gradient(
                of_query, marginal_weight=self.marginal_weight, conditional_weight=self.conditional_weight
            )
            return torch.cat([with_support, with_query], dim=1)

        weights = euclidean_descent(
            start,
            torch.cat([support, query], dim=1),
            logit_gradient,
            temperature=self.temperature,
            learning_rate=self.learning_rate,
            n_iterations=self.n_iterations,
        )
        logits = [euclidean_logits(query, weights, self.temperature) for weights in (start, weights)]
        return Refinement(torch.stack(logits))
