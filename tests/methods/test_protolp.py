"""protoLP against a loop over one task at a time, written from the formulas in numpy."""

import numpy as np
import pytest
import torch

from fewshot.methods import ProtoLP

N_WAY, N_SHOT, N_QUERY, ROUNDS = 3, 2, 5, 4


def episode(n_tasks: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Support [T, S, 10], labels [T, S], query [T, Q, 10], positive, of overlapping classes."""
    centres = torch.rand(n_tasks, N_WAY, 10, dtype=torch.float64)
    labels = torch.arange(N_WAY).repeat(N_SHOT).expand(n_tasks, -1)
    noise = torch.rand(n_tasks, N_WAY * (N_SHOT + N_QUERY), 10, dtype=torch.float64)
    features = centres.repeat(1, N_SHOT + N_QUERY, 1) + 1.5 * noise
    return features[:, : N_WAY * N_SHOT], labels, features[:, N_WAY * N_SHOT :]


def lengths_one(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def by_loop(features: np.ndarray, labels: np.ndarray, proportions: np.ndarray) -> np.ndarray:
    """Assignment of the queries, [Q, N]; the support set back to its labels after every sweep, as published."""
    n_support = len(labels)
    features = lengths_one((features + 1e-6) ** 0.5)
    features = features @ np.linalg.svd(features)[2][:4].T
    features = lengths_one(features - features.mean(0))
    known = np.eye(N_WAY)[labels]
    masses = proportions * (len(features) - n_support)
    prototypes = lengths_one(known.T @ features[:n_support] / known.sum(0)[:, None])

    def swept(found: np.ndarray, masses: np.ndarray, clamped: bool) -> np.ndarray:
        for _ in range(1000):
            found = found / found.sum(1, keepdims=True)
            found = found * (masses / found.sum(0))
            if clamped:
                found[:n_support] = known
        return found

    def plan() -> np.ndarray:
        distances = ((features[n_support:, None] - prototypes) ** 2).sum(2)
        return np.concatenate([known, swept(np.exp(-2 * distances), masses, False)])

    for _ in range(ROUNDS):
        assigned = plan()
        laplacian = np.eye(N_WAY) - assigned.T @ assigned @ np.diag(1 / assigned.sum(0))
        anchors = np.linalg.inv(known.T @ known + laplacian) @ known.T @ known
        spread = swept(assigned @ anchors, masses + known.sum(0), True)
        weights = np.clip(0.6 * spread + 0.4 * assigned, 0, 1)
        prototypes = prototypes + 0.2 * (weights.T @ features / weights.sum(0)[:, None] - prototypes)
    return plan()[n_support:]


@pytest.mark.parametrize("prior", ["uniform", [0.2, 0.5, 0.3]])
def test_it_is_the_published_loop(prior: str | list[float]) -> None:
    support, labels, query = episode()
    method = ProtoLP(n_dimensions=4, n_rounds=ROUNDS, prior=prior, temperature=2, tolerance=1e-12)
    found = method.classify(support, labels, query, N_WAY).exp()
    proportions = np.full(N_WAY, 1 / N_WAY) if prior == "uniform" else np.array(prior)
    for task in range(2):
        expected = by_loop(torch.cat([support, query], dim=1)[task].numpy(), labels[task].numpy(), proportions)
        np.testing.assert_allclose(found[task].numpy(), expected, atol=1e-6)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="n_rounds=-1"):
        ProtoLP(n_rounds=-1)
