import pytest
import torch
from sklearn.linear_model import Ridge

from fewshot.functional.solvers import crammer_singer_dual, ridge_weights, with_ones


@pytest.mark.parametrize("n_support", [4, 6, 9])
def test_weights_are_scikit_learns(n_support: int) -> None:
    features = torch.randn(3, n_support, 6, dtype=torch.float64)
    targets = torch.randn(3, n_support, 2, dtype=torch.float64)
    weights = ridge_weights(features, targets, 0.3)
    for task in range(3):
        model = Ridge(alpha=0.3, fit_intercept=False).fit(features[task].numpy(), targets[task].numpy())
        torch.testing.assert_close(weights[task], torch.from_numpy(model.coef_.T.copy()))


def test_the_last_weight_is_the_offset() -> None:
    features = torch.randn(2, 5, 3)
    weights = torch.randn(2, 4, 2)
    expected = features @ weights[:, :3] + weights[:, 3:]
    torch.testing.assert_close(with_ones(features) @ weights, expected)


@pytest.mark.parametrize("n_support", [2, 5])
def test_gradients(n_support: int) -> None:
    features = torch.randn(2, n_support, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.randn(2, n_support, 2, dtype=torch.float64, requires_grad=True)
    regularizer = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ridge_weights, (features, targets, regularizer))


@pytest.mark.parametrize("size", [1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("n_features", [4, 64])
def test_large_and_repeated_examples_have_weights(n_features, size):
    torch.manual_seed(0)
    features = size * torch.rand(3, 25, n_features)
    features[:, 1] = features[:, 2] = features[:, 0]
    one_hot = torch.eye(5)[torch.arange(25) % 5].expand(3, -1, -1)
    for penalty in (1e-3, 50.0):
        assert ridge_weights(features, one_hot, penalty).isfinite().all()
    gram = torch.bmm(features.double(), features.double().transpose(1, 2))
    assert crammer_singer_dual(gram, one_hot, cost=0.1, n_iterations=15).isfinite().all()
