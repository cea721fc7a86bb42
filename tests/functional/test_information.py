import pytest
import torch
import torch.nn.functional as F

from fewshot.functional.euclidean import adam_descent, euclidean_logits, euclidean_weight_gradient
from fewshot.functional.information import (
    InformationDescent,
    class_softmax,
    tasks_in_cache,
    tsallis_slope,
)


@pytest.mark.parametrize("alpha", [0.5, 1, 2.0, 7.0])
def test_gradients_in_closed_form_are_autograds(alpha):
    logits = torch.randn(3, 8, 4, dtype=torch.float64, requires_grad=True)
    probabilities = logits.softmax(-1)
    target = F.one_hot(torch.randint(4, (3, 8)), 4).double()

    def entropy(p):  # written out, not the function under test
        return -(p * p.log()).sum(-1) if alpha == 1 else (1 - (p**alpha).sum(-1)) / (alpha - 1)

    loss = -0.7 * entropy(probabilities.mean(1)).sum() + 0.3 * entropy(probabilities).mean(1).sum()
    terms = InformationDescent(1, 0.1, 15.0, 8.0, 0.7, 0.3, alpha, alpha)
    torch.testing.assert_close(
        terms.query_gradient(probabilities), torch.autograd.grad(loss, logits, retain_graph=True)[0]
    )
    true = (probabilities * target).sum(-1)
    support_loss = (-true.log() if alpha == 1 else (true ** (1 - alpha) - 1) / (alpha - 1)).sum()
    expected = torch.autograd.grad(support_loss, logits)[0]
    torch.testing.assert_close(terms.support_gradient(probabilities, target), expected)


def test_tsallis_of_order_one_is_the_limit_and_nothing_is_undefined_at_the_corners():
    probabilities = torch.randn(1, 5, 4, dtype=torch.float64).softmax(-1)
    near, limit = (
        InformationDescent(1, 0.1, 15.0, alpha=alpha).query_gradient(probabilities) for alpha in (1 + 1e-7, 1.0)
    )
    torch.testing.assert_close(near, limit, rtol=1e-5, atol=1e-5)
    certain = torch.tensor([[1.0, 0.0]])
    assert tsallis_slope(certain, 1).isfinite().all()
    assert InformationDescent(1, 0.1, 15.0).query_gradient(certain.unsqueeze(0)).isfinite().all()


def test_euclidean_logits_and_their_weight_gradient():
    features, weights = torch.randn(2, 6, 5, dtype=torch.float64), torch.randn(2, 3, 5, dtype=torch.float64)
    weights.requires_grad_()
    distances = (features.unsqueeze(2) - weights.unsqueeze(1)).square().sum(-1)
    logits = euclidean_logits(features, weights, 15.0)
    torch.testing.assert_close(logits.softmax(-1), (-7.5 * distances).softmax(-1))
    upstream = torch.randn(2, 6, 3, dtype=torch.float64)
    expected = torch.autograd.grad((logits * upstream).sum(), weights)[0]
    torch.testing.assert_close(euclidean_weight_gradient(features, weights, upstream, 15.0), expected)


@pytest.mark.parametrize("kept_bytes", [1, 1000, 2**22])
def test_tasks_that_descend_in_parts_end_where_they_do_together(kept_bytes, monkeypatch):
    support, query = torch.randn(5, 6, 8), torch.randn(5, 9, 8)
    labels = torch.arange(3).repeat(2).expand(5, -1)
    descent = InformationDescent(20, 0.01, 15.0)
    expected = torch.cat(
        [descent.logits(*(part[t : t + 1] for part in (support, labels, query)), 3) for t in range(5)], 1
    )
    monkeypatch.setattr("fewshot.functional.information.CACHE_BYTES", kept_bytes)
    assert tasks_in_cache(torch.cat([support, query], 1)) == {1: 1, 1000: 2, 2**22: 8738}[kept_bytes]
    torch.testing.assert_close(descent.logits(support, labels, query, 3), expected)


def test_adam_is_torchs():
    start, centre = torch.randn(3, 4, 5, dtype=torch.float64), torch.randn(3, 4, 5, dtype=torch.float64)
    parameter = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([parameter], lr=0.02)
    for _ in range(25):
        optimizer.zero_grad()
        ((parameter - centre) ** 4).sum().backward()
        optimizer.step()
    before = start.clone()
    found = adam_descent(start, lambda w: 4 * (w - centre) ** 3, learning_rate=0.02, n_iterations=25)
    torch.testing.assert_close(found, parameter.detach(), rtol=1e-10, atol=1e-10)
    assert torch.equal(start, before)


def test_class_softmax_is_softmax_with_the_queries_side_by_side():
    logits = torch.randn(2, 7, 3)
    torch.testing.assert_close(class_softmax(logits), logits.softmax(-1))
    assert class_softmax(logits).stride() == (21, 1, 7)


@pytest.mark.parametrize(
    ("alpha", "support_alpha"), [(0.5, 1.0), (0.1, 0.5), (2.0, 2.0), (7.0, 7.0), (12.0, 12.0)], ids=str
)
def test_descent_is_finite_where_probabilities_vanish(alpha, support_alpha):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(5).repeat(5).expand(2, -1)
    support = F.one_hot(labels, 16) + 0.1 * torch.randn(2, 25, 16, generator=generator)
    wrong = labels.clone()
    wrong[:, 0] = 1  # an example whose label is wrong, so that p_y is 0 in float32
    descent = InformationDescent(50, 1e-3, 200.0, alpha=alpha, support_alpha=support_alpha)
    after = descent.logits(support, wrong, support[:, ::2], 5)[1]
    assert after.isfinite().all()
    assert (after.argmax(-1) == labels[:, ::2]).float().mean() > 0.9
