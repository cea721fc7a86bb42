import pytest
import torch

from fewshot.methods.class_prior import ClassPrior, estimated_proportions

LABELS = torch.tensor([[0, 1, 2, 2], [0, 0, 1, 2]])


def test_uniform_given_and_counted():
    scores = torch.randn(2, 6, 3, dtype=torch.float64)
    uniform, given, support = (ClassPrior(p).proportions(scores, LABELS) for p in ("uniform", [1, 2, 1], "support"))
    torch.testing.assert_close(uniform, torch.full((2, 3), 1 / 3, dtype=torch.float64))
    torch.testing.assert_close(given, torch.tensor([[0.25, 0.5, 0.25]] * 2, dtype=torch.float64))
    torch.testing.assert_close(support, torch.tensor([[0.25, 0.25, 0.5], [0.5, 0.25, 0.25]], dtype=torch.float64))


def test_estimate_finds_the_proportions_of_a_mixture_and_has_the_largest_likelihood():
    true = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    labels = torch.multinomial(true, 4000, replacement=True)
    centres = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    queries = centres[labels] + torch.randn(4000, 2, dtype=torch.float64)
    scores = -0.5 * torch.cdist(queries, centres).square().unsqueeze(0)
    found = estimated_proportions(scores, 0.0, 500)
    torch.testing.assert_close(found[0], true, rtol=0, atol=0.04)

    def likelihood(proportions):
        return (scores[0].exp() @ proportions).log().mean()

    for direction in torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0], [-1.0, 0.0, 1.0]], dtype=torch.float64):
        assert likelihood(found[0]) > max(likelihood(found[0] + 1e-3 * s * direction) for s in (-1, 1))


def test_strength_pulls_to_uniform():
    scores = torch.zeros(1, 10, 3)
    scores[..., 0] = 50
    torch.testing.assert_close(estimated_proportions(scores, 0.0, 20), torch.tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(estimated_proportions(scores, 5.0, 20), torch.tensor([[15.0, 5.0, 5.0]]) / 25)
    torch.testing.assert_close(estimated_proportions(scores[:, :0], 0.0, 20), torch.full((1, 3), 1 / 3))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("balanced",), "uniform, support, queries"),
        (([0.5, -0.5],), "0 or more"),
        (("queries", -1.0), "prior_strength"),
    ],
)
def test_what_is_no_prior_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        ClassPrior(*arguments)


def test_proportions_of_another_number_of_ways_are_refused():
    with pytest.raises(ValueError, match="2 proportions but the episodes have 3 ways"):
        ClassPrior([1.0, 1.0]).proportions(torch.zeros(1, 2, 3), LABELS[:1])
