import pytest
import torch
import torch.nn.functional as F

from fewshot.methods import ActivationsToParameters, NearestClassMean

LABELS = torch.tensor([[0, 1, 2, 0, 1, 2], [2, 2, 1, 0, 0, 1]])


def test_it_starts_as_the_nearest_mean() -> None:
    method = ActivationsToParameters(scale=7.0)
    method.build(5)
    support, query = torch.rand(2, 6, 5), torch.rand(2, 4, 5)
    found = method.classify(support, LABELS, query, 3)
    for task in range(2):
        means = torch.stack([support[task][LABELS[task] == c].mean(0) for c in range(3)])
        expected = [[7 * F.cosine_similarity(q, m, dim=0) for m in means] for q in query[task]]
        torch.testing.assert_close(found[task], torch.tensor(expected))


@pytest.mark.parametrize("n_layers", [1, 2])
def test_the_weights_are_phi_of_the_mean_activations(n_layers: int) -> None:
    method = ActivationsToParameters(n_layers, scale=2.0)
    method.build(5)
    for parameter in method.phi.parameters():
        torch.nn.init.normal_(parameter)
    support, query = torch.randn(2, 6, 5), torch.randn(2, 4, 5)
    found = method.classify(support, LABELS, query, 3)
    weights = [parameter.detach() for parameter in method.phi.parameters()]
    for task in range(2):
        for c in range(3):
            mean = support[task][LABELS[task] == c].mean(0)
            made = weights[0] @ (mean / mean.norm()) + weights[1]
            if n_layers == 2:
                made = weights[2] @ made.clamp(min=0) + weights[3]
            expected = [2 * (q @ made) / (q.norm() * made.norm()) for q in query[task]]
            torch.testing.assert_close(found[task, :, c], torch.stack(expected))


def test_phi_learns_a_mapping_that_the_nearest_mean_misses() -> None:
    method = ActivationsToParameters(scale=10.0)
    method.build(4)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.02)
    labels = torch.arange(3).expand(64, -1)

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        kind = torch.randn(64, 3, 1)  # two dimensions tell the classes apart, two others are large and tell nothing
        return tuple(
            torch.cat([1 + 0.1 * kind, 1 - 0.1 * kind, 1 + 2 * torch.rand(64, 3, 2)], dim=-1) for _ in range(2)
        )  # type: ignore[return-value]

    for _ in range(150):
        support, query = draw()
        loss = method.loss(method.refine(support, labels, query, 3), labels)["cross_entropy"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    support, query = draw()
    accuracy = [
        (m.classify(support, labels, query, 3).argmax(-1) == labels).float().mean()
        for m in (method, NearestClassMean())
    ]
    assert accuracy[0] > accuracy[1] + 0.1


def test_phi_without_a_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="n_layers=0"):
        ActivationsToParameters(0)
