"""Features of a task in the space that they span."""

import pytest
import torch

from fewshot.functional.features import in_own_span


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
