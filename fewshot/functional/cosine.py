"""Class weights moved down a query gradient, in closed form: themselves, or only what the queries see of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fewshot.functional.features import normalized


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
    """Cosine logits s (b + cos(f, theta)), [T, Q, N], those of a class side by side in memory.

    Args:
        query: f, [T, Q, D], each of length one.
        weights: theta, [T, N, D], of any length.
        scale: s, multiplies cosine and bias; or broadcast to the result.
        bias: b, one number shared by all classes.
    """
    cosines = torch.bmm(normalized(weights), query.transpose(1, 2))  # [T, N, Q]: twice as fast on a CPU
    return scale * (cosines.transpose(1, 2) + bias)


class Position(NamedTuple):
    """Class weights theta as far as cosine logits and their gradient need them: D does not occur any more."""

    cosines: Tensor
    """z_ci = cos(theta_c, f_i), [T, N, Q]."""
    length: Tensor
    """|theta_c|, [T, N, 1]; at least 1e-12."""


def query_cosines(query: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines between all queries of a task, G [T, Q, Q], and the inverse of each query's length, [T, 1, Q].

    Args:
        query: [T, Q, D], of any length; a zero vector has cosine 0 with everything.
    """
    products = torch.bmm(query, query.transpose(1, 2))  # [T, Q, Q]
    inverse = products.diagonal(dim1=1, dim2=2).clamp_min(1e-24).rsqrt().unsqueeze(1)  # [T, 1, Q]
    return products * inverse * inverse.transpose(1, 2), inverse


def position(weights: Tensor, query: Tensor, inverse_length: Tensor) -> Position:
    """Where class weights [T, N, D] stand as seen from queries [T, Q, D] whose inverse lengths are [T, 1, Q]."""
    length = weights.square().sum(-1, keepdim=True).clamp_min(1e-24).sqrt()  # [T, N, 1]
    return Position(torch.bmm(weights, query.transpose(1, 2)) * inverse_length / length, length)


def moved(start: Position, query_cosines: Tensor, logit_gradient: Tensor, step: Tensor | float) -> Position:
    """The position after theta <- theta - (step / s) * cosine_weight_gradient(theta, f, g, s).

    With c = step / |theta|, h = sum_i g_i f_i and r = h . u, the weights become theta - c (h - r u). What the queries
    see of that are z and inner products of queries alone, h . f_j = sum_i g_i G_ij and |h|^2 = g G g; as the step is at
    right angles to theta, |theta|^2 grows by c^2 (|h|^2 - r^2). For a few steps on a task of the usual size this moves
    an eighth of the numbers that the weights themselves take, and where features need no gradient, the backward pass
    meets no D either.

    Args:
        start: where theta stands.
        query_cosines: G, [T, Q, Q].
        logit_gradient: g, [T, N, Q], of the summed loss.
        step: step size times s; one number, or [T, N, 1] with 0 for classes that stay.
    """
    cosines, length = start
    rate = step / length  # [T, N, 1]
    pull = torch.bmm(logit_gradient, query_cosines)  # [T, N, Q]
    along = (logit_gradient * cosines).sum(-1, keepdim=True)  # [T, N, 1]
    across = (logit_gradient * pull).sum(-1, keepdim=True) - along.square()
    new_length = (length.square() + rate.square() * across).sqrt()
    return Position((cosines * (length + rate * along) - rate * pull) / new_length, new_length)


def logit_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """True gradient of the summed cross-entropy with respect to the logits: softmax minus one-hot, [..., Q, N].

    Args:
        logits: [..., Q, N].
        labels: [..., Q] int64, broadcast over leading dimensions of logits; one below 0 has no cross-entropy, and zero
            for its gradient.
    """
    known = (labels >= 0).unsqueeze(-1)
    target = torch.nn.functional.one_hot(labels.clamp_min(0), logits.shape[-1]).to(logits.dtype)
    return (logits.softmax(-1) - target) * known
