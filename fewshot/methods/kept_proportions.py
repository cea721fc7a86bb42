"""UniversalSIB's last step: a plan that keeps to class proportions, told ones, or equal ones where it looks like them.

Rounds as of PT-MAP (Hu, Gripon, Pateux, ICANN 2021, arXiv 2006.03806), begun at what the head has found, give a second
opinion. The two are averaged, and the average is brought to the proportions. Nothing of it is trained. Its numbers were
chosen on validation classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fewshot.functional.gram import CentredProducts
from fewshot.functional.information import class_softmax
from fewshot.functional.transport import relaxed_sinkhorn_potentials

ROUNDS, RATE = 10, 0.4
"""Of class means that move towards what is assigned to them."""
SHARPNESS = 10.0
"""Of squared distances between vectors of length one."""
SWEEPS, LAST_SWEEPS = 12, 50
"""Of the relaxed transport, in every round and at the end."""
TOLD_STRICTNESS = 0.999
"""Where a person says the proportions."""
UNEQUAL = 0.0085
"""Share of the largest possible divergence from equal proportions at which those found count as unequal."""


def balance_of(logits: Tensor, known: Tensor) -> Tensor:
    """How much the queries look balanced, [T, 1, 1] in 0..1, by the proportions that the head finds.

    exp(-(d / 0.0085 log N)^2), d the Kullback-Leibler divergence of the found proportions from equal ones, in nats.

    Args:
        logits: [T, Q, N].
        known: [T, Q], how likely each query is of one of the classes at all.
    """
    n_way = logits.shape[-1]
    held = (class_softmax(logits) * known.unsqueeze(-1)).sum(1) / known.sum(1, keepdim=True).clamp_min(1e-3)  # [T, N]
    divergence = (held * (held * n_way).clamp_min(1e-12).log()).sum(-1).view(-1, 1, 1)
    return (-((divergence / (UNEQUAL * math.log(max(n_way, 2)))) ** 2)).exp()


def inferred_strictness(n_query: int, n_way: int) -> float:
    """How strictly Q queries of N classes that look balanced are held to it, 0..1: few look so by chance.

    r^2 / (r^2 + 15) with r = Q / N queries a class: 0.06 at one, 0.94 at fifteen.
    """
    per_class = n_query / n_way
    return per_class**2 / (per_class**2 + 15)


def kept_to(
    proportions: Tensor, products: CentredProducts, one_hot: Tensor, logits: Tensor, known: Tensor, strictness: float
) -> Tensor:
    """Logarithms of the queries' probabilities, [T, Q, N], that tend to the proportions.

    The second opinion counts as one part in one plus the shots: the more labelled examples, the better is the first.

    Args:
        proportions: [T, N], above 0.
        products: of S + Q examples about their centre.
        one_hot: [T, S, N].
        logits: [T, Q, N], the first opinion.
        known: [T, Q], how likely each query is of one of the classes at all.
        strictness: 0..1.
    """
    n_support, n_way = one_hot.shape[1:]
    strict = torch.full_like(proportions[:, :1], strictness)

    def planned(scores: Tensor, n_sweeps: int = SWEEPS) -> Tensor:
        potentials = relaxed_sinkhorn_potentials(scores, proportions, strict, n_sweeps, row_masses=known)
        return scores + potentials.unsqueeze(1)

    def means(scores: Tensor) -> Tensor:  # coefficients [T, S+Q, N] of the examples
        assigned = torch.cat([one_hot, class_softmax(planned(scores)) * known.unsqueeze(-1)], dim=1)
        return assigned / assigned.sum(1, keepdim=True)

    def distances(weights: Tensor) -> Tensor:  # minus the squared ones [T, Q, N], but for what all classes share
        along = products.weights_products(weights)
        return SHARPNESS * (2 * along[:, n_support:] - (weights * along).sum(1, keepdim=True))

    weights = means(logits)
    for _ in range(ROUNDS):
        weights = weights + RATE * (means(distances(weights)) - weights)
    share = n_way / n_support
    second = planned(distances(weights)).log_softmax(-1)
    return planned((logits.log_softmax(-1) + share * second) / (1 + share), LAST_SWEEPS).log_softmax(-1)
