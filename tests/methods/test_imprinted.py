import pytest
import torch
import torch.nn.functional as F

from fewshot.methods import ImprintedWeights, NearestClassMean


def draw() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    support, query = torch.randn(2, 6, 5, dtype=torch.float64), torch.randn(2, 4, 5, dtype=torch.float64)
    return support, torch.tensor([[0, 1, 2, 0, 1, 2], [2, 2, 1, 0, 0, 1]]), query


def test_imprinting_predicts_what_the_nearest_mean_does() -> None:
    support, labels, query = draw()
    found = ImprintedWeights(scale=10.0).double().classify(support, labels, query, 3)
    torch.testing.assert_close(found, NearestClassMean(10.0).classify(support, labels, query, 3))


def test_fine_tuning_is_gradient_descent_on_the_support() -> None:
    support, labels, query = draw()
    method = ImprintedWeights(scale=4.0, n_steps=3, step_size=0.5).double()
    found = method.refine(support, labels, query, 3).logits
    for task in range(2):
        features = F.normalize(support[task], dim=1)
        weights = F.normalize(torch.stack([features[labels[task] == c].mean(0) for c in range(3)]), dim=1)
        for step in range(4):
            expected = 4 * F.normalize(query[task], dim=1) @ weights.T
            torch.testing.assert_close(found[step, task], expected)
            weights = weights.detach().requires_grad_()
            loss = F.cross_entropy(4 * features @ F.normalize(weights, dim=1).T, labels[task])
            (gradient,) = torch.autograd.grad(loss, weights)
            weights = F.normalize(weights.detach() - 0.5 * gradient, dim=1)


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="n_steps=-1"):
        ImprintedWeights(n_steps=-1)
