"""What is left of a task once its queries have been refined: a classifier for pictures that come later, one by one."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.functional.features import normalized, signed_power
from fewshot.functional.information import class_softmax

SCALES = torch.logspace(0, 2.5, 41)
"""Factors between cosine and logit that are tried, 1 to 316."""
SHARE_SWEEPS = 20
"""Of moving the biases to where the classes' shares agree."""
AT_ONCE = 8192
"""Queries that are transformed at a time, so that few copies of them are in memory."""
FITTED_ON = 20_000
"""Queries, evenly over all, that scale and biases are fitted on at most."""


class FrozenHead(NamedTuple):
    """Logits scale cos(z - centre, weights) + bias of features z that went through a power transform and have length
    one. Each query is classified alone.
    """

    weights: Tensor
    """[T, N, D]."""
    scale: Tensor
    """[T]."""
    bias: Tensor
    """[T, N]."""
    centre: Tensor
    """[T, D]."""
    power: float
    """Of the signed power transform; 1 leaves features as they are."""

    def logits(self, query: Tensor) -> Tensor:
        """Logits [T, Q, N] of features [T, Q, D]."""
        cosines = torch.bmm(directions(query, self.centre, self.power), normalized(self.weights).transpose(1, 2))
        return self.scale[:, None, None] * cosines + self.bias.unsqueeze(1)


def directions(features: Tensor, centre: Tensor, power: float) -> Tensor:
    """Features [T, Q, D] of length one, seen from the centre [T, D], of length one again."""
    return normalized(_of_length_one(features, power) - centre.unsqueeze(1))


def _of_length_one(features: Tensor, power: float) -> Tensor:
    return normalized(features if power == 1.0 else signed_power(features, power))


def distilled_head(
    support: Tensor, support_labels: Tensor, query: Tensor, probabilities: Tensor, *, power: float = 0.5
) -> FrozenHead:
    """A linear head that says of the queries what a transductive method has said of them.

    Not of any paper: a method without weights of its own (label propagation, an assignment) leaves probabilities and
    nothing that a later picture could be compared with. The weights are the means of what belongs to a class, by its
    label or its probability, of centred features; scale and biases are those with which the head's probabilities come
    closest to the given ones (least cross-entropy) while every class keeps its share of the queries.

    Args:
        support: [T, S, D].
        support_labels: [T, S] int64.
        query: [T, Q, D]; without queries the means are the support's, the scale is 10 and the biases are 0.
        probabilities: [T, Q, N], rows sum to one.
        power: of the signed power transform; 1 leaves features as they are.
    """
    n_way, tasks, n_query = probabilities.shape[-1], len(support), query.shape[1]
    n_examples = support.shape[1] + n_query
    parts = (support, *query.split(AT_ONCE, dim=1))
    centre = torch.stack([_of_length_one(part, power).sum(1) for part in parts]).sum(0) / n_examples  # [T, D]
    members = (F.one_hot(support_labels, n_way).to(centre.dtype), *probabilities.split(AT_ONCE, dim=1))  # [T, *, N]
    sums = torch.zeros(tasks, n_way, support.shape[2], dtype=centre.dtype, device=centre.device)
    step, first, kept = max(1, -(-n_query // FITTED_ON)), 0, []
    for place, (part, belongs) in enumerate(zip(parts, members, strict=True)):
        seen = directions(part, centre, power)
        sums = sums + torch.bmm(belongs.transpose(1, 2), seen)
        if place:
            kept.append(seen[:, -first % step :: step].clone())  # and not a view, which would keep all of it
            first += part.shape[1]
    weights = sums / torch.stack([belongs.sum(1) for belongs in members]).sum(0).unsqueeze(-1)
    if not n_query:
        return FrozenHead(weights, weights.new_full((tasks,), 10.0), weights.new_zeros(tasks, n_way), centre, power)
    probabilities = probabilities[:, ::step]
    cosines = torch.bmm(torch.cat(kept, dim=1), normalized(weights).transpose(1, 2))  # [T, Q, N]
    wanted = probabilities.mean(1).clamp_min(1e-6).log()  # [T, N]
    best = weights.new_full((tasks,), torch.inf)
    scale, bias = weights.new_full((tasks,), 1.0), weights.new_zeros(tasks, n_way)
    for tried in SCALES.tolist():
        shift = torch.zeros_like(bias)
        for _ in range(SHARE_SWEEPS):
            shift = shift + wanted - class_softmax(tried * cosines + shift.unsqueeze(1)).mean(1).clamp_min(1e-6).log()
        said = (tried * cosines + shift.unsqueeze(1)).log_softmax(-1)
        error = -(probabilities * said).sum(-1).mean(1)  # [T]
        better = error < best
        best = torch.where(better, error, best)
        scale = torch.where(better, tried, scale)
        bias = torch.where(better.unsqueeze(1), shift, bias)
    return FrozenHead(weights, scale, bias, centre, power)
