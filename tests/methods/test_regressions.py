"""Logistic and ridge regression choose their penalties as they say."""

import pytest
import torch
import torch.nn.functional as F

from fewshot.methods import LogisticRegression, RidgeRegression
from fewshot.methods.logistic_regression import COSTS, centred_directions
from fewshot.methods.ridge_regression import PENALTIES

N_WAY = 3


@pytest.fixture
def task():
    torch.manual_seed(4)
    centres = torch.randn(2, N_WAY, 10, dtype=torch.float64)
    labels = torch.stack([torch.randperm(12) % N_WAY for _ in range(2)])

    def draw(of):
        return centres.gather(1, of.unsqueeze(-1).expand(-1, -1, 10)) + 1.5 * torch.randn(*of.shape, 10).double()

    return draw(labels), labels, draw(torch.arange(30).expand(2, -1) % N_WAY)


def test_the_cost_has_the_least_held_out_cross_entropy(task):
    support, labels, query = task
    found = LogisticRegression().classify(support, labels, query, N_WAY)
    for t in range(2):
        features, _ = centred_directions(support, labels, query, N_WAY, centre=True)
        sums = support[t].sum(-1)
        place = [int((sums[labels[t] == labels[t, i]] < sums[i]).sum()) for i in range(12)]  # among those of its class
        errors = []
        for cost in COSTS:
            total = 0.0
            for fold in range(4):
                held = torch.tensor([p == fold for p in place])
                kept, others = features[t, ~held][None], features[t, held][None]
                fitted = LogisticRegression(cost, centre=False)
                logits = fitted.classify(kept, labels[t, ~held][None], others, N_WAY)
                total += float(F.cross_entropy(logits[0], labels[t, held], reduction="sum"))
            errors.append(total)
        best = COSTS[min(range(len(COSTS)), key=errors.__getitem__)]
        one = (support[t : t + 1], labels[t : t + 1], query[t : t + 1])
        torch.testing.assert_close(found[t : t + 1], LogisticRegression(best, n_iterations=100).classify(*one, N_WAY))


@pytest.mark.parametrize("method", [LogisticRegression, RidgeRegression])
def test_what_is_chosen_does_not_depend_on_the_order_of_the_support(method):
    torch.manual_seed(0)
    labels = (torch.arange(25) % 5).expand(40, -1)
    support = 1.2 * torch.randn(40, 5, 16).double().repeat(1, 5, 1) + 1.5 * torch.randn(40, 25, 16).double()
    query, order = torch.randn(40, 30, 16).double(), torch.randperm(25)
    found = method().classify(support, labels, query, 5)
    torch.testing.assert_close(method().classify(support[:, order], labels[:, order], query, 5), found)


def test_the_penalty_has_the_least_error_on_what_is_left_out(task):
    support, labels, query = task
    found = RidgeRegression().classify(support, labels, query, N_WAY)
    for t in range(2):
        features, _ = centred_directions(support, labels, query, N_WAY, centre=True)
        targets = F.one_hot(labels[t], N_WAY).double() - 1 / N_WAY
        errors = []
        for penalty in PENALTIES:
            total = 0.0
            for out in range(12):
                kept = torch.arange(12) != out
                rows = features[t, kept]
                system = rows.T @ rows + penalty * torch.eye(10).double()
                weights = torch.linalg.solve(system, rows.T @ targets[kept])
                total += float((features[t, out] @ weights - targets[out]).square().sum())
            errors.append(total)
        best = PENALTIES[min(range(len(PENALTIES)), key=errors.__getitem__)]
        one = (support[t : t + 1], labels[t : t + 1], query[t : t + 1])
        torch.testing.assert_close(found[t : t + 1], RidgeRegression(best).classify(*one, N_WAY))


@pytest.mark.parametrize("made", [lambda: LogisticRegression(cost=0), lambda: RidgeRegression(penalty=-1)])
def test_a_penalty_that_is_none_is_refused(made):
    with pytest.raises(ValueError, match="but it is above 0"):
        made()


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("method", [LogisticRegression, RidgeRegression])
def test_features_that_are_all_alike_have_gradients(method, value):
    support = torch.full((1, 6, 4), value, requires_grad=True)
    labels = (torch.arange(6) % N_WAY).unsqueeze(0)
    logits = method().classify(support, labels, torch.full((1, 2, 4), value), N_WAY)
    F.cross_entropy(logits[0], torch.tensor([0, 1])).backward()
    assert logits.isfinite().all() and support.grad.isfinite().all()


@pytest.mark.parametrize("penalty", [1e-3, 1e-8, 1e-30])
def test_a_penalty_beside_which_rounding_is_large_gives_numbers(penalty):
    support, labels = torch.rand(2, 12, 4), (torch.arange(12) % N_WAY).expand(2, -1)
    support[:, 3] = support[:, 0]
    assert RidgeRegression(penalty).classify(support, labels, torch.rand(2, 3, 4), N_WAY).isfinite().all()
