"""TPN against a loop over one task at a time, written from the formulas."""

import pytest
import torch
import torch.nn.functional as F

from fewshot.methods import TPN

N_WAY, K, ALPHA = 3, 4, 0.9


def by_loop(features: torch.Tensor, labels: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Propagated labels of support and queries, [S+Q, N]."""
    n = len(features)
    scaled = features / lengths
    weights = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            weights[i, j] = torch.exp(-((scaled[i] - scaled[j]) ** 2).sum() / 2)
    near = [set(weights[i].argsort(descending=True)[:K].tolist()) for i in range(n)]
    for i in range(n):
        for j in range(n):
            if j not in near[i] and i not in near[j]:
                weights[i, j] = 0
    degrees = weights.sum(1)
    normalised = weights / torch.outer(degrees, degrees).sqrt()
    known = F.pad(F.one_hot(labels, N_WAY).double(), (0, 0, 0, n - len(labels)))
    return torch.linalg.inv(torch.eye(n, dtype=torch.float64) - ALPHA * normalised) @ known


def test_labels_and_loss_are_the_loops() -> None:
    labels = torch.tensor([[0, 1, 2, 1, 0, 2], [2, 1, 0, 0, 1, 2]])
    query_labels = torch.randint(N_WAY, (2, 7))
    support, query = torch.randn(2, 6, 5, dtype=torch.float64), torch.randn(2, 7, 5, dtype=torch.float64)
    method = TPN(n_neighbours=K, alpha=ALPHA)
    method.build(5)
    method.double()
    refinement = method.refine(support, labels, query, N_WAY)
    entropies = []
    for task in range(2):
        features = torch.cat([support, query], dim=1)[task]
        sizes = features.norm(dim=1, keepdim=True)
        lengths = sizes * (F.softplus(method.length_scale(features / sizes) - 1.05) + 1e-3)
        expected = by_loop(features, labels[task], lengths)
        torch.testing.assert_close(refinement.logits[-1][task], expected[6:])
        entropies.append(F.cross_entropy(expected, torch.cat([labels[task], query_labels[task]])))
    total = torch.stack(list(method.loss(refinement, query_labels).values())).sum()
    torch.testing.assert_close(total * 7 / 13, torch.stack(entropies).mean())  # means over Q, and over S+Q


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"alpha=1\.0"):
        TPN(alpha=1.0)
