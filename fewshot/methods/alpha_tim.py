"""alpha-TIM: TIM with entropies that do not insist on balanced classes.

Veilleux, Boudiaf, Piantanida, Ben Ayed: Realistic Evaluation of Transductive Few-Shot Learning, NeurIPS 2021,
arXiv 2204.11181.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from fewshot.functional.information import InformationDescent
from fewshot.methods.base import Method, Refinement
from fewshot.methods.options import check_above, check_at_least, check_choice


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

    Raises:
        ValueError: an option out of its range.
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
        check_at_least(
            0,
            n_iterations=n_iterations,
            ce_weight=ce_weight,
            marginal_weight=marginal_weight,
            conditional_weight=conditional_weight,
        )
        check_above(0, alpha=alpha, learning_rate=learning_rate, temperature=temperature)
        check_choice(("shannon", "tsallis"), support_entropy=support_entropy)
        support_alpha = alpha if support_entropy == "tsallis" else 1.0
        weights = ce_weight, marginal_weight, conditional_weight
        self.descent = InformationDescent(n_iterations, learning_rate, temperature, *weights, alpha, support_alpha)

    def refine(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Refinement:
        """Before and after the descent."""
        return Refinement(self.descent.logits(support, support_labels, query, n_way))
