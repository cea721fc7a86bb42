"""Entropies of predictions, Shannon's and Tsallis's, and the gradients of losses made of them in closed form."""

from __future__ import annotations

import torch
from torch import Tensor


def logit_gradient_of(probability_gradient: Tensor, probabilities: Tensor) -> Tensor:
    """Gradient with respect to logits from that with respect to their softmax, [..., N].

    Args:
        probability_gradient: [..., N].
        probabilities: [..., N], the softmax.
    """
    weighted = probabilities * probability_gradient
    return weighted - probabilities * weighted.sum(-1, keepdim=True)


def tsallis_entropy(probabilities: Tensor, alpha: float) -> Tensor:
    """(1 - sum_c p_c^alpha) / (alpha - 1), in nats, [...]; Shannon's -sum_c p_c log p_c at alpha = 1.

    Args:
        probabilities: [..., N].
        alpha: above 0.
    """
    if alpha == 1:
        return torch.special.entr(probabilities).sum(-1)
    return (1 - probabilities.pow(alpha).sum(-1)) / (alpha - 1)


def tsallis_slope(probabilities: Tensor, alpha: float) -> Tensor:
    """Derivative of `tsallis_entropy` with respect to every probability, up to a constant for all classes, [..., N].

    The constant has no effect on a gradient with respect to logits.

    Args:
        probabilities: [..., N].
        alpha: above 0.
    """
    if alpha == 1:
        return -probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
    return probabilities.pow(alpha - 1) * (-alpha / (alpha - 1))


def information_gradient(
    probabilities: Tensor,
    *,
    marginal_weight: float = 1.0,
    conditional_weight: float = 1.0,
    alpha: float = 1.0,
) -> Tensor:
    """Gradient with respect to the logits of minus the queries' mutual information with their classes, [T, Q, N].

    The loss of each task is - marginal_weight H(mean_i p_i) + conditional_weight mean_i H(p_i), H being Tsallis's
    entropy; at alpha = 1 with equal weights it is minus the mutual information.

    Args:
        probabilities: p, [T, Q, N], the softmax of the logits.
        marginal_weight: of the entropy of the mean prediction, which is to be large.
        conditional_weight: of the mean entropy of the predictions, which is to be small.
        alpha: above 0; 1 is Shannon's entropy.
    """
    marginal = probabilities.mean(1, keepdim=True)  # [T, 1, N]
    slope = conditional_weight * tsallis_slope(probabilities, alpha)
    slope = slope - marginal_weight * tsallis_slope(marginal, alpha)
    return logit_gradient_of(slope, probabilities) / max(probabilities.shape[1], 1)


def tsallis_cross_entropy_gradient(probabilities: Tensor, target: Tensor, alpha: float) -> Tensor:
    """Gradient with respect to the logits of (p_y^(1 - alpha) - 1) / (alpha - 1), y the true class, [..., N].

    At alpha = 1 that is the cross-entropy -log p_y, and its gradient p - target.

    Args:
        probabilities: p, [..., N], the softmax of the logits.
        target: [..., N], one-hot.
        alpha: above 0.
    """
    difference = probabilities - target
    if alpha == 1:
        return difference
    true = (probabilities * target).sum(-1, keepdim=True)
    return true.clamp_min(1e-12).pow(1 - alpha) * difference
