"""TIM-GD: class weights that make the queries' predictions informative.

Boudiaf, Ziko, Rony, Dolz, Piantanida, Ben Ayed: Transductive Information Maximization for Few-Shot Learning,
NeurIPS 2020, arXiv 2008.11297.
"""

from __future__ import annotations

from torch import Tensor

from fewshot.functional.information import InformationDescent
from fewshot.methods.base import Method, Refinement
from fewshot.methods.options import check_above, check_at_least


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

    Raises:
        ValueError: an option out of its range.
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
        check_at_least(
            0,
            n_iterations=n_iterations,
            ce_weight=ce_weight,
            marginal_weight=marginal_weight,
            conditional_weight=conditional_weight,
        )
        check_above(0, learning_rate=learning_rate, temperature=temperature)
        weights = ce_weight, marginal_weight, conditional_weight
        self.descent = InformationDescent(n_iterations, learning_rate, temperature, *weights)

    def refine(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Refinement:
        """Before and after the descent."""
        return Refinement(self.descent.logits(support, support_labels, query, n_way))
