import numpy as np
import pytest
import torch
from sklearn.neighbors import kneighbors_graph
from sklearn.semi_supervised import LabelSpreading

from fewshot.functional.features import normalized, squared_distances
from fewshot.functional.graph import cosine_affinities, nearest, propagated, symmetrically_normalized, without_diagonal


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_nearest_are_scikit_learns() -> None:
    features = draw(2, 9, 4)
    mask = nearest(-squared_distances(features, features).diagonal_scatter(torch.full((2, 9), 1e9), 0, 1, 2), 3)
    for task in range(2):
        expected = kneighbors_graph(features[task].numpy(), 3, include_self=False).toarray()
        assert np.array_equal(mask[task].numpy(), expected.astype(bool))


def test_nearest_takes_all_where_there_are_fewer() -> None:
    assert nearest(draw(2, 4, 3), 20).all()


def test_cosine_affinities_equal_a_loop() -> None:
    features, k = normalized(draw(2, 7, 3)), 3
    expected = torch.zeros(2, 7, 7, dtype=torch.float64)
    for t in range(2):
        for i in range(7):
            others = sorted((j for j in range(7) if j != i), key=lambda j: -float(features[t, i] @ features[t, j]))
            for j in others[:k]:
                weight = max(float(features[t, i] @ features[t, j]), 0.0) ** 3
                expected[t, i, j] += weight / 2
                expected[t, j, i] += weight / 2
    torch.testing.assert_close(cosine_affinities(features, k, 3.0), expected)


def test_a_single_example_has_no_neighbour() -> None:
    alone = cosine_affinities(normalized(draw(2, 1, 3)), 5, 3.0)
    assert not alone.any()
    assert torch.equal(propagated(symmetrically_normalized(alone), torch.ones_like(alone), 0.9), torch.ones_like(alone))


def test_normalised_affinities_equal_a_loop_and_leave_the_lonely_alone() -> None:
    affinities = draw(2, 5, 5).abs()
    affinities = without_diagonal(affinities + affinities.transpose(1, 2))
    assert not affinities.diagonal(dim1=1, dim2=2).any()
    affinities[:, 3], affinities[:, :, 3] = 0, 0
    for floor in (0.0, 1e-4):
        found = symmetrically_normalized(affinities, floor)
        for t in range(2):
            degrees = affinities[t].sum(1) + floor
            for i in range(5):
                for j in range(5):
                    weight = affinities[t, i, j]
                    expected = weight / (degrees[i] * degrees[j]).sqrt() if weight else torch.zeros_like(weight)
                    torch.testing.assert_close(found[t, i, j], expected)


def test_propagation_is_scikit_learns_label_spreading() -> None:
    features, labels = draw(2, 12, 3), torch.tensor([0, 1, 2] + 9 * [-1])
    affinities = without_diagonal(torch.exp(-0.7 * squared_distances(features, features)))
    one_hot = torch.zeros(2, 12, 3, dtype=torch.float64)
    one_hot[:, range(3), range(3)] = 1
    spread = propagated(symmetrically_normalized(affinities), one_hot, 0.8)
    for task in range(2):
        model = LabelSpreading(kernel="rbf", gamma=0.7, alpha=0.8, max_iter=2000, tol=1e-12)
        model.fit(features[task].numpy(), labels.numpy())
        torch.testing.assert_close(normalized_rows(spread[task]), torch.from_numpy(model.label_distributions_))


def normalized_rows(matrix: torch.Tensor) -> torch.Tensor:
    return matrix / matrix.sum(-1, keepdim=True)


def test_gradients() -> None:
    features = draw(2, 5, 3).requires_grad_()
    labels = draw(2, 5, 2).requires_grad_()

    def spread(features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        affinities = cosine_affinities(normalized(features), 2, 3.0)
        return propagated(symmetrically_normalized(affinities), labels, 0.9)

    assert torch.autograd.gradcheck(spread, (features, labels))


@pytest.mark.parametrize("floor", [0.0, 1e-4])
def test_the_gradient_of_a_row_without_neighbours_is_finite(floor: float) -> None:
    affinities = torch.zeros(1, 3, 3, requires_grad=True)
    symmetrically_normalized(affinities, floor).sum().backward()
    assert affinities.grad is not None and affinities.grad.isfinite().all()
