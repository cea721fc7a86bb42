import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.svm import LinearSVC

from fewshot.functional.solvers import crammer_singer_dual


def problem(n_tasks: int, n_way: int, n_shot: int, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features [T, S, 6] and labels [T, S] of overlapping classes."""
    labels = torch.arange(n_way).repeat(n_shot).expand(n_tasks, -1)
    centres = torch.randn(n_tasks, n_way, 6, dtype=torch.float64)
    noise = torch.randn(n_tasks, n_way * n_shot, 6, dtype=torch.float64)
    return scale * (centres[:, labels[0]] + noise), labels


def solved(features: torch.Tensor, labels: torch.Tensor, cost: float, n_iterations: int = 15) -> torch.Tensor:
    one_hot = torch.nn.functional.one_hot(labels)
    gram = features @ features.transpose(1, 2)
    return crammer_singer_dual(gram, one_hot, cost=cost, n_iterations=n_iterations)


@pytest.mark.parametrize(("n_shot", "scale", "cost"), [(1, 1.0, 0.1), (3, 1.0, 0.1), (3, 5.0, 1.0), (2, 0.05, 0.1)])
def test_the_dual_is_scipys(n_shot: int, scale: float, cost: float) -> None:
    features, labels = problem(2, 3, n_shot, scale)
    found = solved(features, labels, cost)
    for task in range(2):
        gram = (features[task] @ features[task].T).numpy()
        bound = cost * np.eye(3)[labels[task]]

        def objective(flat: np.ndarray, gram: np.ndarray = gram, bound: np.ndarray = bound) -> tuple[float, np.ndarray]:
            dual = flat.reshape(bound.shape)
            gradient = gram @ dual - bound / cost
            return float((dual * (gram @ dual)).sum() / 2 - (dual * bound).sum() / cost), gradient.ravel()

        constraint = {"type": "eq", "fun": lambda flat: flat.reshape(-1, 3).sum(1)}
        bounds = [(None, upper) for upper in bound.ravel()]
        options = {"ftol": 1e-14, "maxiter": 1000}
        start = np.zeros(bound.size)
        expected = minimize(objective, start, jac=True, bounds=bounds, constraints=constraint, options=options)
        ours = found[task].numpy()
        assert np.abs(ours.sum(1)).max() < 1e-6 and (ours <= bound + 1e-6).all()
        assert objective(ours.ravel())[0] == pytest.approx(expected.fun, abs=1e-7)
        np.testing.assert_allclose(gram @ ours, gram @ expected.x.reshape(ours.shape), atol=2e-4)


@pytest.mark.filterwarnings("ignore:Liblinear failed")  # scikit-learn 1.6 and 1.7 do not set the count
def test_the_classifier_is_liblinears() -> None:
    features, labels = problem(2, 4, 5)
    weights = features.transpose(1, 2) @ solved(features, labels, 0.1)  # [T, D, N]
    for task in range(2):
        model = LinearSVC(C=0.1, multi_class="crammer_singer", fit_intercept=False, tol=1e-10, max_iter=100_000)
        model.fit(features[task].numpy(), labels[task].numpy())
        np.testing.assert_allclose(weights[task].numpy(), model.coef_.T, atol=1e-5)


def test_further_iterations_change_nothing() -> None:
    features, labels = problem(3, 5, 5)
    fifteen, sixty = (features.transpose(1, 2) @ solved(features, labels, 0.1, n) for n in (15, 60))
    torch.testing.assert_close(fifteen, sixty, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_gradients_are_those_of_the_solution() -> None:
    features, labels = problem(1, 3, 2)
    assert torch.autograd.gradcheck(lambda x: solved(x, labels, 0.1, 30), features.requires_grad_(), atol=1e-5)
    dual = solved(features, labels, 0.1)
    assert (dual.detach() < 0.1 - 1e-6).any() and (dual.detach() > 0.1 - 1e-6).any()  # bound and free ones


def test_float32_comes_back_as_float32() -> None:
    features, labels = problem(2, 3, 2)
    single = solved(features.float(), labels, 0.1)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, solved(features, labels, 0.1).float(), atol=1e-4, rtol=1e-4)
