"""Class weights moved down a query gradient, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.functional.prototypes import normalized


def cosine_weight_gradient(weights: Tensor, query: Tensor, logit_gradient: Tensor, scale: Tensor | float) -> Tensor:
    """Gradient of a loss with respect to the class weights, from its gradient with respect to cosine logits, [T, N, D].

    With logits_ic = s (b + cos(f_i, theta_c)), u_c = theta_c / |theta_c| and f_i of length one,

        grad_c = (s / |theta_c|) (I - u_c u_c^T) sum_i g_ic f_i.

    The sum runs over the queries of each task: the result belongs to the summed loss. It is an ordinary expression, so
    it can be differentiated again without an inner backward pass.

    Args:
        weights: theta, [T, N, D]; a zero vector has no direction to turn to, and its gradient is zero.
        query: f, [T, Q, D], each of length one.
        logit_gradient: g, [T, Q, N].
        scale: s, the factor between cosine and logit.
    """
    length = weights.square().sum(-1, keepdim=True).clamp_min(1e-24).sqrt()  # [T, N, 1], differentiable at zero too
    direction = weights / length
    pull = torch.bmm(logit_gradient.transpose(1, 2), query)  # [T, N, D]
    tangent = pull - direction * (direction * pull).sum(-1, keepdim=True)
    return torch.where(weights.any(-1, keepdim=True), scale * tangent / length, 0.0)


def cosine_logits(query: Tensor, weights: Tensor, scale: Tensor | float, bias: Tensor | float) -> Tensor:
    """Cosine logits s (b + cos(f, theta)), [T, Q, N].

    Args:
        query: f, [T, Q, D], each of length one.
        weights: theta, [T, N, D], of any length.
        scale: s, multiplies cosine and bias.
        bias: b, one number shared by all classes.
    """
    return scale * (torch.bmm(query, normalized(weights).transpose(1, 2)) + bias)


def logit_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """True gradient of the summed cross-entropy with respect to the logits: softmax minus one-hot, [..., Q, N].

    Args:
        logits: [..., Q, N].
        labels: [..., Q] int64, broadcast over leading dimensions of logits.
    """
    probabilities = logits.softmax(-1)
    target = torch.nn.functional.one_hot(labels, logits.shape[-1]).to(logits.dtype)
    return probabilities - target
