"""iLPC against a loop over one task at a time: neighbours sorted, the head a module trained by torch's SGD."""

import pytest
import torch
import torch.nn.functional as F

from fewshot.methods import ILPC, ilpc

N_WAY, N_SHOT, N_QUERY, NEIGHBOURS, STEPS = 3, 1, 7, 6, 40


def episode(n_tasks: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Support [T, S, 8], labels [T, S], query [T, Q, 8] of any sign, of overlapping classes."""
    centres = torch.randn(n_tasks, N_WAY, 8, dtype=torch.float64)
    labels = torch.arange(N_WAY).repeat(N_SHOT).expand(n_tasks, -1)
    noise = torch.randn(n_tasks, N_WAY * (N_SHOT + N_QUERY), 8, dtype=torch.float64)
    features = centres.repeat(1, N_SHOT + N_QUERY, 1) + noise
    return features[:, : N_WAY * N_SHOT], labels, features[:, N_WAY * N_SHOT :]


def graph_of(features: torch.Tensor) -> torch.Tensor:
    cosine = features @ features.T
    weights = torch.zeros_like(cosine)
    for i in range(len(features)):
        others = sorted((j for j in range(len(features)) if j != i), key=lambda j: -float(cosine[i, j]))
        for j in others[:NEIGHBOURS]:
            weights[i, j] = cosine[i, j].clamp_min(0) ** 3
    weights = weights + weights.T
    return weights / (weights.sum(1)[:, None] * weights.sum(0)[None]).sqrt()


def swept(matrix: torch.Tensor, masses: torch.Tensor) -> torch.Tensor:
    for _ in range(5_000):  # a thousand leave 2e-4 to go
        matrix = matrix * torch.where(masses > 0, masses / matrix.sum(0), 0.0)
        matrix = matrix / matrix.sum(1, keepdim=True)
    return matrix


def mean_losses(
    features: torch.Tensor, targets: torch.Tensor, known: list[int], weight_decay: float = 5e-4
) -> torch.Tensor:
    head = torch.nn.Linear(features.shape[1], N_WAY).double()
    with torch.no_grad():
        for label in range(N_WAY):
            mean = features[[i for i in known if targets[i] == label]].mean(0)
            head.weight[label] = mean / mean.norm()
        head.bias.zero_()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=weight_decay)
    total = torch.zeros(len(features), dtype=torch.float64)
    for _ in range(STEPS):
        losses = F.cross_entropy(head(features), targets, reduction="none")
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        total += losses.detach() / STEPS
    return total


def by_loop(
    features: torch.Tensor, labels: torch.Tensor, budget: torch.Tensor, power: float | None
) -> tuple[torch.Tensor, int]:
    """Assignment of each query as it joined or was left over, [Q, N], and the number of rounds."""
    if power is not None:
        features = F.normalize(features.sign() * (features.abs() + 1e-6) ** power, dim=1)
        features = features - features.mean(0)
    features = F.normalize(features, dim=1)
    n_support, n = len(labels), len(features)
    reach = torch.linalg.inv(torch.eye(n, dtype=torch.float64) - 0.8 * graph_of(features))
    targets = torch.cat([labels, torch.zeros(n - n_support, dtype=torch.int64)])
    known, result = list(range(n_support)), torch.zeros(n - n_support, N_WAY, dtype=torch.float64)
    rounds = 0
    while len(known) < n:
        rounds += 1
        left = [i for i in range(n) if i not in known]
        one_hot = torch.zeros(n, N_WAY, dtype=torch.float64)
        one_hot[known] = F.one_hot(targets[known], N_WAY).double()
        spread = (reach @ one_hot)[left]
        plan = swept((spread / spread.sum(1, keepdim=True)) ** 3, budget * (len(left) / budget.sum()))
        result[[i - n_support for i in left]] = plan
        targets[left] = plan.argmax(1)
        losses = mean_losses(features, targets, known)
        joining = []
        for label in range(N_WAY):
            joining += sorted((i for i in left if targets[i] == label), key=lambda i: float(losses[i]))[:3]
        if len(joining) < 5:
            break
        known += joining
        budget = (budget - torch.bincount(targets[joining], minlength=N_WAY)).clamp_min(0)
    return result, rounds


@pytest.mark.parametrize(
    ("prior", "power"),
    [
        ("uniform", 0.5),
        pytest.param([0.2, 0.5, 0.3], 0.5, marks=pytest.mark.slow),
        pytest.param("uniform", None, marks=pytest.mark.slow),
    ],
)
def test_it_is_the_published_loop(prior: str | list[float], power: float | None) -> None:
    support, labels, query = episode()
    method = ILPC(power, n_neighbours=NEIGHBOURS, n_head_steps=STEPS, prior=prior)
    with torch.inference_mode():
        found = method.classify(support, labels, query, N_WAY).exp()
    proportions = torch.tensor([1 / 3] * 3 if prior == "uniform" else prior, dtype=torch.float64)
    rounds = []
    for task in range(3):
        features = torch.cat([support, query], dim=1)[task]
        expected, n_rounds = by_loop(features, labels[task], proportions * N_WAY * N_QUERY, power)
        torch.testing.assert_close(found[task], expected, atol=1e-4, rtol=0)
        rounds.append(n_rounds)
    assert max(rounds) >= 3, rounds


def test_the_heads_weights_decay_as_sgds_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ilpc, "WEIGHT_DECAY", 0.3)  # the published one changes little within few steps
    features = F.normalize(torch.randn(1, 8, 5, dtype=torch.float64), dim=-1)
    targets = torch.tensor([0, 1, 2, 1, 0, 0, 2, 1])
    one_hot = F.one_hot(targets, N_WAY).double().unsqueeze(0)
    known = one_hot * (torch.arange(8) < 4).unsqueeze(-1)
    gram = features @ features.transpose(1, 2)
    found = ILPC(n_head_steps=STEPS)._mean_loss(gram, known, one_hot - known)
    torch.testing.assert_close(found[0], mean_losses(features[0], targets, [0, 1, 2, 3], weight_decay=0.3))


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="n_joining=0"):
        ILPC(n_joining=0)
    with pytest.raises(ValueError, match=r"alpha=1\.0"):
        ILPC(alpha=1.0)
