import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC

from fewshot.methods import MetaOptNetRidge, MetaOptNetSVM

LABELS = torch.arange(3).repeat(4).expand(2, -1)


def draw() -> tuple[torch.Tensor, torch.Tensor]:
    centres = 2 * torch.randn(2, 3, 6, dtype=torch.float64)
    return centres.repeat(1, 4, 1) + torch.randn(2, 12, 6, dtype=torch.float64), torch.randn(2, 5, 6).double()


def test_ridge_is_scikit_learns_on_labels_of_two() -> None:
    support, query = draw()
    found = MetaOptNetRidge(regularizer=7.0, scale=1.5).double().classify(support, LABELS, query, 3)
    for task in range(2):
        model = Ridge(alpha=7.0, fit_intercept=False)
        model.fit(support[task].numpy(), 2 * F.one_hot(LABELS[task]).double().numpy())
        torch.testing.assert_close(found[task], torch.from_numpy(1.5 * model.predict(query[task].numpy())))


def test_svm_is_liblinears() -> None:
    support, query = draw()
    found = MetaOptNetSVM(cost=0.1, scale=1.5).double().classify(support, LABELS, query, 3)
    for task in range(2):
        model = LinearSVC(C=0.1, multi_class="crammer_singer", fit_intercept=False, tol=1e-10, max_iter=100_000)
        model.fit(support[task].numpy(), LABELS[task].numpy())
        expected = 1.5 * model.decision_function(query[task].numpy())
        np.testing.assert_allclose(found[task].detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("width", "n_way", "n_shot"), [(6, 3, 13), (32, 5, 20)])
def test_svm_of_more_examples_than_their_features_span(width: int, n_way: int, n_shot: int) -> None:
    labels = torch.arange(n_way * n_shot).unsqueeze(0) % n_way
    support = (0.7 * torch.randn(n_way, width)[labels] + torch.randn(1, n_way * n_shot, width)).relu()
    query = torch.randn(1, 5, width)
    found, exact = (
        MetaOptNetSVM().classify(s, labels, q, n_way) for s, q in ((support, query), (support.double(), query.double()))
    )
    torch.testing.assert_close(found.double(), exact.double(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", [MetaOptNetRidge, MetaOptNetSVM])
def test_features_receive_the_gradient_of_finite_differences(make: type) -> None:
    support, query = draw()
    method, labels = make().double(), LABELS[:1, :6]  # no more examples than features: the dual is unique
    inputs = (support[:1, :6].requires_grad_(), query[:1, :2].requires_grad_())
    assert torch.autograd.gradcheck(lambda s, q: method.classify(s, labels, q, 3), inputs, atol=1e-5)


def test_one_class_and_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="n_way=1"):
        MetaOptNetSVM().classify(torch.ones(1, 2, 3), torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2, 3), 1)
    with pytest.raises(ValueError, match="cost=0"):
        MetaOptNetSVM(cost=0)
    with pytest.raises(ValueError, match="regularizer=-1"):
        MetaOptNetRidge(regularizer=-1)
