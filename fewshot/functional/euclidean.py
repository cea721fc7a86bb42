"""Classifiers by squared Euclidean distance to a class weight, moved down a gradient of their logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fewshot.functional.adam import adam_descent


def euclidean_logits(features: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """-(temperature / 2) |z_i - w_c|^2 without its part that all classes share, [T, n, N].

    That is temperature (z_i . w_c - |w_c|^2 / 2): the same softmax.

    Args:
        features: z, [T, n, D].
        weights: w, [T, N, D].
        temperature: multiplies half the squared distance.
    """
    offsets = (-temperature / 2) * weights.square().sum(-1).unsqueeze(1)  # [T, 1, N]
    return torch.baddbmm(offsets, features, weights.transpose(1, 2), alpha=temperature)


def euclidean_weight_gradient(features: Tensor, weights: Tensor, logit_gradient: Tensor, temperature: float) -> Tensor:
    """Gradient with respect to the weights from that with respect to `euclidean_logits`, [T, N, D].

    It is temperature (sum_i g_ic z_i - w_c sum_i g_ic).

    Args:
        features: z, [T, n, D].
        weights: w, [T, N, D].
        logit_gradient: g, [T, n, N].
        temperature: of the logits.
    """
    pulled = weights * (-temperature * logit_gradient.sum(1)).unsqueeze(-1)
    return torch.baddbmm(pulled, logit_gradient.transpose(1, 2), features, alpha=temperature)


def euclidean_descent(
    start: Tensor,
    features: Tensor,
    logit_gradient: Callable[[Tensor], Tensor],
    *,
    temperature: float,
    learning_rate: float,
    n_iterations: int,
) -> Tensor:
    """The class weights [T, N, D] that Adam leads to from `start`, down a loss of the `euclidean_logits`.

    Args:
        start: [T, N, D].
        features: z, [T, n, D], whose logits the loss is made of.
        logit_gradient: from logits [T, n, N] to the gradient of every task's loss with respect to them.
        temperature: of the logits.
        learning_rate: of Adam.
        n_iterations: of Adam.
    """
    features = features.detach()

    def gradient(weights: Tensor) -> Tensor:
        slope = logit_gradient(euclidean_logits(features, weights, temperature))
        return euclidean_weight_gradient(features, weights, slope, temperature)

    return adam_descent(start, gradient, learning_rate=learning_rate, n_iterations=n_iterations)
