"""Cosine classifier with imprinted weights.

Qi, Brown, Lowe: Low-Shot Learning with Imprinted Weights, CVPR 2018, arXiv 1712.07136.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewshot.functional.cosine import cosine_logits, cosine_weight_gradient, logit_gradient
from fewshot.functional.features import class_means, normalized
from fewshot.methods.base import Method, Refinement
from fewshot.methods.options import check_above, check_at_least


class ImprintedWeights(Method):
    """Cosine to the mean of each class's L2-normalised support features, times a learned scale.

    With n_steps the imprinted weights are the start of fine-tuning on the support ("Imprinting + FT" in the paper's
    tables): descent of the support's mean cross-entropy with respect to the weights' direction, in closed form, all
    tasks at once. Inductive: every query is classified alone. Departures: the paper fine-tunes the whole network, here
    the weights alone move, which is what features allow; and it classifies novel classes beside the base classes, here
    among themselves. Without steps the predicted classes are NearestClassMean's, while the scale, trained, gives
    probabilities. The weight generator with attention over base classes of Gidaris and Komodakis (CVPR 2018,
    arXiv 1804.09458) is another method.

    Args:
        scale: what the learned factor s of the cosine starts at.
        n_steps: fine-tuning steps, in training and evaluation; 0 leaves the weights as imprinted.
        step_size: of the gradient averaged over the support.

    Raises:
        ValueError: an option out of its range.
    """

    transductive = False

    def __init__(self, scale: float = 10.0, n_steps: int = 0, step_size: float = 0.1) -> None:
        super().__init__()
        check_at_least(0, n_steps=n_steps)
        check_above(0, step_size=step_size, scale=scale)
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.n_steps: int = n_steps
        self.scales_only = n_steps == 0
        self.step_size = step_size

    def refine(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Refinement:
        support, query = normalized(support), normalized(query)
        weights = normalized(class_means(support, support_labels, n_way))  # [T, N, D]
        logits = [cosine_logits(query, weights, self.scale, 0.0)]
        for _ in range(self.n_steps):
            error = logit_gradient(cosine_logits(support, weights, self.scale, 0.0), support_labels)  # [T, S, N]
            step = cosine_weight_gradient(weights, support, error / support.shape[1], self.scale)
            weights = normalized(weights - self.step_size * step)
            logits.append(cosine_logits(query, weights, self.scale, 0.0))
        return Refinement(torch.stack(logits))
