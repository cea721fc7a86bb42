"""How unlike every class a query is, for pictures that are of none of them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fewshot.functional.features import class_means, normalized, signed_power

Measure = Literal["distance", "energy"]
Told = Literal["distance", "energy", "learned"]
"""A measure, or what the method itself says of every query."""

ALONE = (
    "no class has two support pictures, so that how unlike each other they are is not known; say which share of the "
    "queries to flag (--none_share 0.1)"
)
POWER = 0.5
"""Of the features' transform, as in PT-MAP."""


def novelty(support: Tensor, support_labels: Tensor, query: Tensor, n_way: int, measure: Measure) -> Tensor:
    """Larger is less like any class, [Q].

    Features are power-transformed, of length one, centred on support and queries, and of length one again.
    "distance" is one less the largest cosine with a support picture; "energy" is less the logarithm of the summed
    exponentials of ten times the cosines with the class means (Liu, Wang, Owens, Li: Energy-based Out-of-distribution
    Detection, NeurIPS 2020, arXiv 2010.03759, on cosines rather than on the logits of a trained classifier). Both look
    at the support and not at refined classes, which pictures of no class have moved too.

    Args:
        support: [S, D].
        support_labels: [S] int64 in 0..N-1.
        query: [Q, D].
        n_way: N.
        measure: which.
    """
    labelled, seen = _seen(support, query)
    return _measured(labelled, support_labels, seen, n_way, measure)


def support_novelty(support: Tensor, support_labels: Tensor, query: Tensor, n_way: int, measure: Measure) -> Tensor:
    """The same of support pictures, each beside the support without itself, [n]; those alone in their class left out.

    Args: as of `novelty`.
    """
    labelled, _ = _seen(support, query)
    found = []
    for place in range(len(labelled)):
        stays = torch.arange(len(labelled), device=labelled.device) != place
        if bool((support_labels[stays] == support_labels[place]).any()):
            one = labelled[place : place + 1]
            found.append(_measured(labelled[stays], support_labels[stays], one, n_way, measure))
    return torch.cat(found) if found else labelled.new_zeros(0)


def threshold(
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    n_way: int,
    measure: Measure,
    *,
    share: float | None = None,
    quantile: float = 0.95,
    strange: int = 0,
) -> float:
    """Above it a query is of none of the classes.

    Args:
        support: as of `novelty`.
        support_labels: as of `novelty`.
        query: as of `novelty`.
        n_way: as of `novelty`.
        measure: as of `novelty`.
        share: of the queries that is to be flagged, in 0..1; None takes the support's own novelties.
        quantile: of those of the support, each beside the others.
        strange: how many of the queries, the last ones, are known to be of no class. With some, and share None, it is
            where the shares of them below it and of the support above it have the smallest sum.

    Raises:
        ValueError: a share or quantile outside 0..1, or a support of one picture a class with share None.
    """
    for name, value in (("share", share), ("quantile", quantile)):
        if value is not None and not 0 < value < 1:
            raise ValueError(f"{name}={value}; give a number between 0 and 1")
    scores = None if share is None and not strange else novelty(support, support_labels, query, n_way, measure)
    if share is not None and scores is not None:
        return float(scores[: len(query) - strange].quantile(1 - share))
    own = support_novelty(support, support_labels, query, n_way, measure)
    if not len(own):
        raise ValueError(ALONE)
    if scores is None:
        return float(own.quantile(quantile))
    return _between(own, scores[len(query) - strange :])


def _between(own: Tensor, strange: Tensor) -> float:
    """Between two neighbours of all these numbers, where the fewest are on the wrong side; of several the largest."""
    every = torch.cat([own, strange]).unique()  # sorted
    cuts = torch.cat([every[:1] - 1, (every[1:] + every[:-1]) / 2, every[-1:]])
    wrong = (own > cuts.unsqueeze(1)).double().mean(1) + (strange <= cuts.unsqueeze(1)).double().mean(1)
    return float(cuts[len(cuts) - 1 - int(wrong.flip(0).argmin())])


def _seen(support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    features = normalized(signed_power(torch.cat([support, query]), POWER))
    seen = normalized(features - features.mean(0))
    return seen[: len(support)], seen[len(support) :]


def _measured(support: Tensor, labels: Tensor, query: Tensor, n_way: int, measure: Measure) -> Tensor:
    if measure == "distance":
        return 1 - (query @ support.T).amax(1)
    means = normalized(class_means(support.unsqueeze(0), labels.unsqueeze(0), n_way)[0])
    return -(10 * query @ means.T).logsumexp(1)
