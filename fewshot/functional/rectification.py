"""Class means rectified by the queries that look alike."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.functional.features import class_means, normalized


def shifted_queries(support: Tensor, query: Tensor) -> Tensor:
    """The queries [T, Q, D] moved so that their mean is the support's [T, S, D]."""
    return query + (support.mean(1, keepdim=True) - query.mean(1, keepdim=True))


def rectified_means(
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    n_way: int,
    temperature: float,
    over: Literal["classes", "examples"] = "classes",
) -> Tensor:
    """Means of all examples that look like a class, weighted by how much they do, [T, N, D].

    Every example, support or query, belongs to the class whose mean over the support it has the largest cosine with,
    and weighs what a softmax of temperature times the cosines says for it. A class to which nothing belongs keeps the
    mean of its support.

    Args:
        support: [T, S, D].
        support_labels: [T, S] int64.
        query: [T, Q, D], shifted already.
        n_way: N.
        temperature: multiplies the cosines.
        over: what the softmax is over: the classes, or the examples that belong to one class.
    """
    means = class_means(support, support_labels, n_way)  # [T, N, D]
    examples = torch.cat([support, query], dim=1)  # [T, S+Q, D]
    cosines = torch.bmm(normalized(examples), normalized(means).transpose(1, 2))  # [T, S+Q, N]
    members = F.one_hot(cosines.argmax(-1), n_way).to(cosines.dtype)
    if over == "classes":
        weights = members * (temperature * cosines).softmax(-1)
    else:  # up to a factor for each class, by which the total is divided
        own = cosines.masked_fill(members == 0, -1.0)
        weights = members * (temperature * (own - own.amax(1, keepdim=True))).exp()
    total = weights.sum(1).unsqueeze(-1)  # [T, N, 1]
    rectified = torch.bmm(weights.transpose(1, 2), examples) / total.clamp_min(torch.finfo(total.dtype).tiny)
    return torch.where(total > 0, rectified, means)
