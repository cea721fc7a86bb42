"""EASE + SIAMESE against a loop over one task at a time, written from the formulas in numpy."""

import numpy as np
import pytest
import torch

from fewshot.functional.graph import principal_coordinates
from fewshot.methods import EaseSiamese

N_WAY, N_SHOT, N_QUERY = 3, 2, 5


def episode(n_features: int, n_tasks: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Support [T, S, D], labels [T, S], query [T, Q, D], positive, of overlapping classes."""
    centres = torch.rand(n_tasks, N_WAY, n_features, dtype=torch.float64)
    labels = torch.arange(N_WAY).repeat(N_SHOT).expand(n_tasks, -1)
    noise = torch.rand(n_tasks, N_WAY * (N_SHOT + N_QUERY), n_features, dtype=torch.float64)
    features = centres.repeat(1, N_SHOT + N_QUERY, 1) + 1.5 * noise
    return features[:, : N_WAY * N_SHOT], labels, features[:, N_WAY * N_SHOT :]


def lengths_one(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def normalised_graph(graph: np.ndarray) -> np.ndarray:
    np.fill_diagonal(graph, 0)
    degrees = graph.sum(1) + 1e-4
    return graph / np.sqrt(np.outer(degrees, degrees))


def by_loop(features: np.ndarray, labels: np.ndarray, proportions: np.ndarray, n_rounds: int) -> np.ndarray:
    """Assignment of the queries, [Q, N]; the support set back to its labels after every half sweep, as published."""
    n_support = len(labels)
    features = lengths_one((features + 1e-6) ** 0.5)
    features = np.linalg.qr(features.T)[1].T
    leading = np.linalg.svd(features)[0][:, :N_WAY]
    alike, all_pairs = normalised_graph(np.abs(leading @ leading.T)), normalised_graph(np.ones((len(features),) * 2))
    vectors = np.linalg.eigh(features.T @ (100 * all_pairs - alike) @ features)[1]
    features = lengths_one(features @ vectors[:, :4])
    known = np.eye(N_WAY)[labels]
    masses = proportions * (len(features) - n_support) + known.sum(0)
    centres = known.T @ features[:n_support] / known.sum(0)[:, None]

    def plan() -> np.ndarray:
        found = np.exp(-2 * ((features[:, None] - centres) ** 2).sum(2))
        for _ in range(1000):
            for axis, target in ((1, 1.0), (0, masses)):
                found = found * (target / found.sum(axis, keepdims=True))
                found[:n_support] = known
        return found

    for _ in range(n_rounds):
        centres = centres + 0.2 * (plan().T @ features / masses[:, None] - centres)
    return plan()[n_support:]


@pytest.mark.parametrize("n_features", [9, 30])
@pytest.mark.parametrize("prior", ["uniform", [0.2, 0.5, 0.3]])
def test_it_is_the_published_loop(n_features: int, prior: str | list[float]) -> None:
    support, labels, query = episode(n_features)
    method = EaseSiamese(power=0.5, n_dimensions=4, n_rounds=3, prior=prior, temperature=2, tolerance=1e-12)
    found = method.classify(support, labels, query, N_WAY).exp()
    proportions = np.full(N_WAY, 1 / N_WAY) if prior == "uniform" else np.array(prior)
    for task in range(2):
        features = torch.cat([support, query], dim=1)[task].numpy()
        expected = by_loop(features, labels[task].numpy(), proportions, 3)
        np.testing.assert_allclose(found[task].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 5, 8), (2, 8, 5)])
def test_principal_coordinates_are_the_singular_value_decompositions(shape: tuple[int, int, int]) -> None:
    features = torch.randn(shape, dtype=torch.float64)
    all_of_them = principal_coordinates(features, 100)
    torch.testing.assert_close(all_of_them @ all_of_them.transpose(1, 2), features @ features.transpose(1, 2))
    left, sizes, _ = torch.linalg.svd(features, full_matrices=False)
    three = principal_coordinates(features, 3)
    torch.testing.assert_close(three.abs(), (left * sizes.unsqueeze(1))[..., :3].abs())


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="n_dimensions=0"):
        EaseSiamese(n_dimensions=0)


def test_without_queries_there_are_no_answers():
    support, labels = torch.rand(2, 6, 8), (torch.arange(6) % 3).expand(2, -1)
    assert EaseSiamese().classify(support, labels, torch.rand(2, 0, 8), 3).shape == (2, 0, 3)
