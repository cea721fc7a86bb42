"""Cosines about a centre from inner products, beside those of the vectors themselves."""

import pytest
import torch
import torch.nn.functional as F

from fewshot.functional.gram import CentredProducts, RegularizedInverse, gram_of, of_length_one
from fewshot.functional.solvers import inverse


@pytest.mark.parametrize(("n_examples", "through"), [(7, False), (13, True)])
def test_weights_and_solutions_are_those_of_the_matrix(n_examples, through):
    torch.manual_seed(0)
    gram = gram_of(torch.randn(2, n_examples, 5, dtype=torch.float64))
    assert (gram.factor is not None) == through
    right = torch.randn(2, n_examples, 3, dtype=torch.float64)
    torch.testing.assert_close(gram.times(right), torch.bmm(gram.matrix, right))
    for penalty in (0.1, torch.tensor([0.1, 2.0], dtype=torch.float64).view(2, 1, 1)):
        expected = torch.linalg.inv(gram.matrix + penalty * torch.eye(n_examples))
        inverted = RegularizedInverse(gram, penalty)
        solved = inverted.times(gram.weights(right))
        coefficients = torch.bmm(expected, right)
        torch.testing.assert_close(gram.scores(solved), torch.bmm(gram.matrix, coefficients))
        without = right - coefficients / expected.diagonal(dim1=1, dim2=2).unsqueeze(-1)
        torch.testing.assert_close(inverted.left_out(right, solved), without)


def test_a_small_penalty_costs_no_digits_through_features():
    torch.manual_seed(0)
    features = F.normalize(torch.randn(1, 400, 20), dim=-1)
    targets = F.one_hot(torch.randint(4, (1, 400)), 4).float()
    gram, exact = gram_of(features), gram_of(features.double())
    assert gram.factor is not None

    def scores(gram, targets):
        return gram.scores(RegularizedInverse(gram, 1e-4).times(gram.weights(targets)))

    torch.testing.assert_close(scores(gram, targets).double(), scores(exact, targets.double()), atol=1e-4, rtol=0)


def test_an_exported_graph_serves_any_number_of_examples():
    class Times(torch.nn.Module):
        def forward(self, features, coefficients):
            return gram_of(features).times(coefficients)

    def given(n_examples):
        return torch.randn(1, n_examples, 5), torch.randn(1, n_examples, 3)

    several = {1: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Times(), given(7), dynamic_shapes=(several, several))
    for n_examples in (7, 30):
        features, coefficients = given(n_examples)
        expected = torch.bmm(torch.bmm(features, features.mT), coefficients)
        torch.testing.assert_close(program.module()(features, coefficients), expected)


@pytest.mark.parametrize("width", [5, 3])
def test_products_are_those_of_the_centred_vectors(width):
    torch.manual_seed(0)
    vectors = F.normalize(torch.randn(2, 7, width, dtype=torch.float64), dim=-1)
    centre = torch.rand(2, 7, dtype=torch.float64)
    centre = centre / centre.sum(1, keepdim=True)
    coefficients = torch.randn(2, 7, 3, dtype=torch.float64)
    products = CentredProducts(gram_of(vectors), centre)
    centred = F.normalize(vectors - torch.bmm(centre.unsqueeze(1), vectors), dim=-1)
    weights = torch.bmm(coefficients.transpose(1, 2), centred)  # [T, N, D]
    torch.testing.assert_close(products.weights_products(coefficients), torch.bmm(centred, weights.transpose(1, 2)))
    torch.testing.assert_close(
        products.cosines(slice(2, 7), slice(0, 4)), torch.bmm(centred[:, 2:], centred[:, :4].transpose(1, 2))
    )
    scaled, cosines = of_length_one(coefficients, products.weights_products(coefficients))
    directions = F.normalize(weights, dim=-1)
    torch.testing.assert_close(torch.bmm(scaled.transpose(1, 2), centred), directions)
    torch.testing.assert_close(cosines, torch.bmm(centred, directions.transpose(1, 2)))


def test_an_example_at_the_centre_has_no_direction():
    vectors = F.normalize(torch.randn(1, 1, 6), dim=-1).expand(1, 4, 6)
    products = CentredProducts(gram_of(vectors), torch.full((1, 4), 0.25))
    scaled, cosines = of_length_one(torch.ones(1, 4, 2), products.weights_products(torch.ones(1, 4, 2)))
    assert not scaled.any() and not cosines.any() and not products.cosines(slice(0, 4), slice(0, 4)).any()


def test_an_exported_inverse_is_the_inverse(monkeypatch):
    torch.manual_seed(0)
    factor = torch.randn(2, 20, 6)
    matrices = torch.bmm(factor, factor.transpose(1, 2)) + 0.05 * torch.eye(20)  # a condition of some 1,000
    expected = inverse(matrices)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(inverse(matrices), expected, rtol=1e-3, atol=1e-3)
