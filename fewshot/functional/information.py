"""Entropies of predictions, Shannon's and Tsallis's, and descent of losses made of them in closed form."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.functional.euclidean import adam_descent, euclidean_logits, euclidean_weight_gradient
from fewshot.functional.features import class_means, normalized

CACHE_BYTES = 2**22
"""Of the tasks that descend together on a CPU: every iteration reads their features twice."""
MOST_SLOPE = 1e15
"""Of the support's part with respect to a logit, whose square Adam keeps in float32."""


def class_softmax(logits: Tensor) -> Tensor:
    """softmax(-1) of [T, n, N], with the n of a class side by side in memory.

    For the few classes of a task that is some twenty times as fast on a CPU, and so are sums over classes of what comes
    out.

    Args:
        logits: [T, n, N].
    """
    return logits.transpose(1, 2).softmax(1).transpose(1, 2)


def logit_gradient_of(probability_gradient: Tensor, probabilities: Tensor) -> Tensor:
    """Gradient with respect to logits from that with respect to their softmax, [..., N].

    Args:
        probability_gradient: [..., N].
        probabilities: [..., N], the softmax.
    """
    weighted = probabilities * probability_gradient
    return weighted - probabilities * weighted.sum(-1, keepdim=True)


def tsallis_slope(probabilities: Tensor, alpha: float) -> Tensor:
    """Derivative of Tsallis's entropy with respect to every probability, up to a constant for all classes, [..., N].

    The entropy is (1 - sum_c p_c^alpha) / (alpha - 1), in nats, and Shannon's at alpha = 1. The constant has no effect
    on a gradient with respect to logits.

    Args:
        probabilities: [..., N].
        alpha: above 0.
    """
    above_zero = probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny)
    if alpha == 1:
        return -above_zero.log()
    return above_zero.pow(alpha - 1) * (-alpha / (alpha - 1))


def tasks_in_cache(features: Tensor) -> int:
    """How many tasks of [T, n, D] descend together, 1 or more: as many as a CPU's cache keeps, all on other devices."""
    if features.device.type != "cpu" or not features.numel():
        return max(1, len(features))
    return max(1, CACHE_BYTES // (features[0].numel() * features.element_size()))


class InformationDescent(NamedTuple):
    """Adam down a loss of the class weights: a term of the support, less the queries' information on their classes.

    The queries' part is - marginal_weight H(mean_i p_i) + conditional_weight mean_i H(p_i), H being Tsallis's entropy;
    at alpha = 1 with equal weights it is minus the mutual information. The support's part is the mean of
    (p_y^(1 - alpha) - 1) / (alpha - 1), y the true class: at alpha = 1 the cross-entropy -log p_y.
    """

    n_iterations: int
    learning_rate: float
    temperature: float
    """Of the `euclidean_logits`."""
    support_weight: float = 1.0
    """Of the support's part."""
    marginal_weight: float = 1.0
    """Of the entropy of the mean prediction, which is to be large."""
    conditional_weight: float = 1.0
    """Of the mean entropy of the predictions, which is to be small."""
    alpha: float = 1.0
    """Order of the queries' entropies, above 0; 1 is Shannon's."""
    support_alpha: float = 1.0
    """Order of the support's part."""

    def logits(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """[2, T, Q, N] of the queries, by the support's means and by where the descent leads from these.

        Features are scaled to length one. The weights are constants to autograd.

        Args:
            support: [T, S, D].
            support_labels: [T, S] int64.
            query: [T, Q, D].
            n_way: N.
        """
        support, query = normalized(support), normalized(query)
        start = class_means(support, support_labels, n_way)  # [T, N, D]
        target = F.one_hot(support_labels, n_way).to(support.dtype)  # [T, S, N]
        examples = torch.cat([support, query], dim=1).detach()
        parts = zip(*(of_tasks.split(tasks_in_cache(examples)) for of_tasks in (start, examples, target)), strict=True)
        end = torch.cat([self._descended(*part) for part in parts])
        return torch.stack([euclidean_logits(query, weights, self.temperature) for weights in (start, end)])

    def _descended(self, start: Tensor, examples: Tensor, target: Tensor) -> Tensor:
        """The weights [T, N, D] at the end; examples [T, S+Q, D], of which the first have the target [T, S, N]."""

        def gradient(weights: Tensor) -> Tensor:
            probabilities = class_softmax(euclidean_logits(examples, weights, self.temperature))  # [T, S+Q, N]
            of_support, of_query = probabilities.tensor_split([target.shape[1]], dim=1)
            slope = torch.cat([self.support_gradient(of_support, target), self.query_gradient(of_query)], dim=1)
            return euclidean_weight_gradient(examples, weights, slope, self.temperature)

        return adam_descent(start, gradient, learning_rate=self.learning_rate, n_iterations=self.n_iterations)

    def query_gradient(self, probabilities: Tensor) -> Tensor:
        """Gradient of the queries' part with respect to the logits whose softmax is p, [T, Q, N]."""
        marginal = probabilities.mean(1, keepdim=True)  # [T, 1, N]
        slope = self.conditional_weight * tsallis_slope(probabilities, self.alpha)
        slope = slope - self.marginal_weight * tsallis_slope(marginal, self.alpha)
        return logit_gradient_of(slope, probabilities) / max(probabilities.shape[1], 1)

    def support_gradient(self, probabilities: Tensor, target: Tensor) -> Tensor:
        """Gradient of the support's part with respect to the logits whose softmax is p, [T, S, N]; the target too."""
        difference = probabilities - target
        if self.support_alpha != 1:
            true = (probabilities * target).sum(-1, keepdim=True)
            difference = true.clamp_min(1e-12).pow(1 - self.support_alpha).clamp_max(MOST_SLOPE) * difference
        return difference * (self.support_weight / target.shape[1])
