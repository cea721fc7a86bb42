"""Logistic regression on inner products beside scikit-learn's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fewshot.functional.gram import gram_of
from fewshot.functional.logistic import logistic_weights


def problem(n_examples, n_way, n_features, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(n_way, n_features, generator=generator, dtype=torch.float64)
    labels = torch.arange(n_examples) % n_way
    noise = torch.randn(n_examples, n_features, generator=generator, dtype=torch.float64)
    return F.normalize(centres[labels] + 1.5 * noise, dim=-1), labels


@pytest.mark.parametrize("n_features", [30, 20])
@pytest.mark.parametrize(("cost", "n_iterations"), [(1.0, 20), (10.0, 50), (100.0, 300)])
def test_probabilities_are_scikit_learns(cost, n_iterations, n_features):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = problem(50, 5, n_features)
    fitted = linear_model.LogisticRegression(C=cost, fit_intercept=False, max_iter=5000, tol=1e-10)
    expected = fitted.fit(features.numpy(), labels.numpy()).predict_proba(features.numpy())
    gram = gram_of(features.unsqueeze(0))
    assert (gram.factor is not None) == (n_features == 20)
    found = logistic_weights(gram, F.one_hot(labels, 5).double().unsqueeze(0), 1 / cost, n_iterations)
    np.testing.assert_allclose(gram.scores(found)[0].softmax(-1).numpy(), expected, atol=2e-4)


def test_tasks_do_not_mix_and_have_penalties_of_their_own():
    examples, targets = [], []
    for seed in range(2):
        features, labels = problem(12, 3, 8, seed)
        examples.append(features)
        targets.append(F.one_hot(labels, 3).double())
    penalty = torch.tensor([0.1, 1.0], dtype=torch.float64).view(2, 1, 1)
    together = logistic_weights(gram_of(torch.stack(examples)), torch.stack(targets), penalty, 20)
    for place in range(2):
        alone = logistic_weights(gram_of(examples[place][None]), targets[place][None], float(penalty[place]), 20)
        torch.testing.assert_close(together[place : place + 1], alone)


@pytest.mark.parametrize("n_examples", [6, 9])
def test_gradients_are_those_of_finite_differences(n_examples):
    features, labels = problem(n_examples, 2, 4)
    one_hot = F.one_hot(labels, 2).double().unsqueeze(0)
    penalty = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def fitted(given, penalty):
        gram = gram_of(given.unsqueeze(0))
        assert (gram.factor is not None) == (n_examples == 9)
        return logistic_weights(gram, one_hot, penalty, 5)

    assert torch.autograd.gradcheck(fitted, (features.requires_grad_(), penalty))
