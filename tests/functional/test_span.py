"""Features of a task in the space that they span."""

import pytest
import torch

from fewshot.functional.features import in_own_span
from fewshot.methods import PADDLE, PTMAP


@pytest.mark.parametrize("repeats", [False, True])
def test_the_space_that_a_task_spans_keeps_all_inner_products(repeats):
    support, query = torch.randn(3, 4, 40, dtype=torch.float64), torch.randn(3, 7, 40, dtype=torch.float64)
    if repeats:
        query[:, 3:] = query[:, :1]
    turned = torch.cat(in_own_span(support, query), dim=1)
    examples = torch.cat([support, query], dim=1)
    assert turned.shape == (3, 11, 11)
    torch.testing.assert_close(turned @ turned.mT, examples @ examples.mT)


def test_features_that_are_few_stay_as_they_are():
    support, query = torch.randn(3, 4, 21), torch.randn(3, 7, 21)
    assert all(there is here for there, here in zip(in_own_span(support, query), (support, query), strict=True))


@pytest.mark.parametrize("method", [PTMAP(n_rounds=2), PADDLE(n_iterations=3)], ids=lambda made: type(made).__name__)
def test_what_is_learned_beneath_gets_its_gradient_and_the_answer_is_the_same(method):
    support, query = torch.randn(2, 3, 40, dtype=torch.float64), torch.randn(2, 8, 40, dtype=torch.float64)
    labels = torch.arange(3).expand(2, -1)
    turned = method.refine(support, labels, query, 3).logits
    straight = method.refine(support, labels, query.requires_grad_(), 3).logits
    plans_tolerance = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(straight.detach().softmax(-1), turned.softmax(-1), **plans_tolerance)
    straight[-1].square().sum().backward()
    assert query.grad is not None and bool(query.grad.isfinite().all()) and bool(query.grad.any())
