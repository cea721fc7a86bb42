"""GNN against the paper's equations, one graph at a time and every edge of every layer written out."""

import pytest
import torch

from fewshot.methods import GNN

N_WAY = 3


def logits_of_one_graph(method: GNN, support: torch.Tensor, labels: list[int], query: torch.Tensor) -> torch.Tensor:
    """[N], of support [S, D] and one query [D], by loops over all ordered pairs of nodes."""
    nodes = []
    for picture, label in zip([*support, query], [*labels, None], strict=True):
        part = torch.full((N_WAY,), 1 / N_WAY) if label is None else torch.eye(N_WAY)[label]
        nodes.append(torch.cat([method.embed(picture), part.double()]))
    for layer, score in enumerate(method.edges):
        gathered = []
        for i, node in enumerate(nodes):
            others = [other for j, other in enumerate(nodes) if j != i]
            weights = torch.stack([score((node - other).abs())[0] for other in others]).exp()
            message = sum(w * other for w, other in zip(weights / weights.sum(), others, strict=True))
            gathered.append(torch.cat([node, message]))
        if layer < len(method.convolutions):
            nodes = [torch.cat([x, method.convolutions[layer](g)]) for x, g in zip(nodes, gathered, strict=True)]
    return method.readout(gathered[-1])


@pytest.mark.parametrize("n_layers", [1, 2])
def test_logits_are_those_of_one_graph_a_query(n_layers: int) -> None:
    method = GNN(N_WAY, n_layers=n_layers, width=4, embedding=5)
    method.build(6)
    method.double()
    support, query = torch.randn(2, 4, 6, dtype=torch.float64), torch.randn(2, 3, 6, dtype=torch.float64)
    labels = torch.tensor([[0, 1, 2, 1], [2, 2, 0, 1]])
    found = method.classify(support, labels, query, N_WAY)
    for task in range(2):
        for q in range(3):
            expected = logits_of_one_graph(method, support[task], labels[task].tolist(), query[task, q])
            torch.testing.assert_close(found[task, q], expected)


def test_a_query_does_not_see_the_others() -> None:
    method = GNN(N_WAY, width=4, embedding=5)
    method.build(6)
    support, labels, query = torch.randn(1, 3, 6), torch.tensor([[0, 1, 2]]), torch.randn(1, 4, 6)
    alone = method.classify(support, labels, query[:, :1], N_WAY)
    torch.testing.assert_close(method.classify(support, labels, query, N_WAY)[:, :1], alone)


def test_other_ways_and_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="n_layers=0"):
        GNN(n_layers=0)
    method = GNN(5, width=4, embedding=5)
    method.build(6)
    with pytest.raises(ValueError, match="made for n_way=5 but the episode has 3 ways"):
        method.classify(torch.randn(1, 3, 6), torch.tensor([[0, 1, 2]]), torch.randn(1, 4, 6), 3)
