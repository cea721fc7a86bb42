import pytest
import torch
from torch import nn

from fewshot.methods import RelationNetwork

LABELS = torch.tensor([0, 1, 2, 2, 0, 1])


def test_scores_are_easyfsls_with_the_same_comparator() -> None:
    easyfsl = pytest.importorskip("easyfsl.methods")
    method = RelationNetwork(8)
    method.build(6)
    pair = nn.Linear(12, 8)
    pair.weight.data = torch.cat([method.of_class.weight, method.of_query.weight], dim=1)
    pair.bias.data = method.of_class.bias.data
    comparator = nn.Sequential(nn.Flatten(), pair, *method.comparison, nn.Sigmoid())
    theirs = easyfsl.RelationNetworks(nn.Unflatten(1, (6, 1, 1)), feature_dimension=6, relation_module=comparator)
    support, query = torch.randn(2, 6, 6), torch.randn(2, 4, 6)
    found = method.classify(support, LABELS.expand(2, -1), query, 3).sigmoid()
    for task in range(2):
        theirs.process_support_set(support[task], LABELS)
        torch.testing.assert_close(found[task], theirs(query[task]))


def test_the_loss_is_the_squared_error_of_the_scores() -> None:
    method = RelationNetwork(8)
    method.build(6)
    labels = torch.tensor([[0, 1, 2, 1]])
    refinement = method.refine(torch.randn(1, 6, 6), LABELS[None], torch.randn(1, 4, 6), 3)
    scores = torch.sigmoid(refinement.logits[-1])
    expected = sum((scores[0, i, c] - float(labels[0, i] == c)) ** 2 for i in range(4) for c in range(3)) / 12
    assert method.loss(refinement, labels).keys() == {"squared_error"}
    torch.testing.assert_close(method.loss(refinement, labels)["squared_error"], expected)


def test_no_hidden_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="width=0"):
        RelationNetwork(0)
