"""alpha-TIM: TIM with entropies that do not insist on balanced classes.

Veilleux, Boudiaf, Piantanida, Ben Ayed: Realistic Evaluation of Transductive Few-Shot Learning, NeurIPS 2021,
arXiv 2204.11181.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.functional.euclidean import euclidean_descent, euclidean_logits
from fewshot.functional.features import class_means, normalized
from fewshot.functional.information import class_softmax, information_gradient, tsallis_cross_entropy_gradient
from fewshot.methods.base import Method, Refinement


class AlphaTIM(Method):
    """TIM whose entropies of the queries are Tsallis's of order alpha (section 4).

    H_alpha(p) = (1 - sum_c p_c^alpha) / (alpha - 1). With alpha above 1 the entropy of the mean prediction is flatter
    around the uniform one than Shannon's: confident predictions that are unbalanced cost less. Features, logits, start
    and descent are TIM's.

    Assumes of the queries: still a pull towards as many of every class, weaker the larger alpha.

    Args:
        alpha: order of the entropies, above 0; published: 2 at one shot, 7 from five shots; 1 is Shannon's.
        support_entropy: the support's term: "shannon" is the cross-entropy; "tsallis" the divergence of the same order,
            (p_y^(1 - alpha) - 1) / (alpha - 1), whose gradient grows without bound as p_y falls.
        n_iterations: of Adam (published: 1000).
        learning_rate: of Adam (published: 1e-4).
        temperature: of the logits, which are -(temperature / 2) |z - w|^2 (published: 15).
        ce_weight: of the support's term, averaged over the support (published: 1).
        marginal_weight: of the entropy of the mean prediction (published: 1).
        conditional_weight: of the mean entropy of the predictions (published: 1).
    """

    n_steps = 1
    """The weights before and after all iterations."""

    def __init__(
        self,
        alpha: float = 2.0,
        support_entropy: Literal["shannon", "tsallis"] = "shannon",
        n_iterations: int = 1000,
        learning_rate: float = 1e-4,
        temperature: float = 15.0,
        ce_weight: float = 1.0,
        marginal_weight: float = 1.0,
        conditional_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not alpha > 0:
            raise ValueError(f"alpha={alpha}; the order of an entropy is above 0")
        if support_entropy not in ("shannon", "tsallis"):
            raise ValueError(f"support_entropy={support_entropy!r} is not known; choose 'shannon' or 'tsallis'")
        self.alpha, self.support_alpha = alpha, alpha if support_entropy == "tsallis" else 1.0
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
            with_support = tsallis_cross_entropy_gradient(of_support, target, self.support_alpha)
            with_query = information_gradient(
                of_query,
                marginal_weight=self.marginal_weight,
                conditional_weight=self.conditional_weight,
                alpha=self.alpha,
            )
            return torch.cat([with_support * (self.ce_weight / target.shape[1]), with_query], dim=1)

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
