"""LEO against the paper's algorithm written for one task, with autograd for the inner gradients and no torch.func."""

import math

import pytest
import torch
import torch.nn.functional as F

from fewshot.methods import LEO

N_WAY, N_FEATURES = 3, 6
LABELS = torch.tensor([[0, 1, 2, 1, 0, 2], [2, 2, 0, 1, 0, 1]])


def built(**options: float) -> LEO:
    method = LEO(4, latent_steps=2, weight_steps=2, weight_step_size=0.3, scale=2.0, **options)  # type: ignore[arg-type]
    method.build(N_FEATURES)
    return method.double()


def draw() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 6, N_FEATURES, dtype=torch.float64), torch.randn(2, 5, N_FEATURES, dtype=torch.float64)


def one_task(method: LEO, support: torch.Tensor, labels: torch.Tensor, query: torch.Tensor) -> list[torch.Tensor]:
    """Logits [Q, N] before the first step and after each, in evaluation."""
    support, query = method.scale * F.normalize(support, dim=1), method.scale * F.normalize(query, dim=1)
    codes = [method.encoder(x) for x in support]
    related = [sum(method.relation(torch.cat([a, b])) for b in codes) / len(codes) for a in codes]
    members = [[r for r, label in zip(related, labels, strict=True) if label == c] for c in range(N_WAY)]
    latents = torch.stack([torch.stack(of_class).mean(0)[:4] for of_class in members])

    def loss(weights: torch.Tensor) -> torch.Tensor:
        return sum(F.cross_entropy((weights @ x)[None], y[None]) for x, y in zip(support, labels, strict=True)) / 2

    def decoded(latents: torch.Tensor) -> torch.Tensor:
        return latents @ method.decoder.weight[:N_FEATURES].T  # type: ignore[union-attr]

    logits = [query @ decoded(latents).T]
    for _ in range(2):
        (slope,) = torch.autograd.grad(loss(decoded(latents)), latents, create_graph=True)
        latents = latents - method.latent_rates * slope
        logits.append(query @ decoded(latents).T)
    weights = decoded(latents)
    for _ in range(2):
        (slope,) = torch.autograd.grad(loss(weights), weights, create_graph=True)
        weights = weights - method.weight_rates * slope
        logits.append(query @ weights.T)
    return logits


def test_every_step_and_its_outer_gradient_are_those_of_single_tasks() -> None:
    method = built().eval()
    support, query = draw()
    found = method.refine(support, LABELS, query, N_WAY).logits
    expected = torch.stack([torch.stack(one_task(method, support[t], LABELS[t], query[t])) for t in range(2)], dim=1)
    torch.testing.assert_close(found, expected)
    cotangent = torch.randn_like(expected[-1])
    trained = [p for p in method.parameters()]
    ours = torch.autograd.grad((found[-1] * cotangent).sum(), trained)
    theirs = torch.autograd.grad((expected[-1] * cotangent).sum(), trained)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_without_a_graph_the_steps_are_the_same() -> None:
    method = built().eval()
    support, query = draw()
    expected = method.classify(support, LABELS, query, N_WAY)
    with torch.no_grad():
        torch.testing.assert_close(method.classify(support, LABELS, query, N_WAY), expected)
    with torch.inference_mode():
        torch.testing.assert_close(method.classify(support, LABELS, query, N_WAY), expected)


def test_the_extra_losses() -> None:
    method = built(dropout=0.0, kl_weight=0.5, encoder_weight=0.25, orthogonality_weight=2.0).eval()
    support, query = draw()
    losses = method.refine(support, LABELS, query, N_WAY).losses
    mean, deviation = method._codes(2 * F.normalize(support, dim=-1), LABELS, N_WAY)
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, deviation), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(losses["kl"], 0.5 * divergence.mean())
    rows = method.decoder.weight.T
    correlation = [[F.cosine_similarity(rows[i], rows[j], dim=0) - float(i == j) for j in range(4)] for i in range(4)]
    total = sum(value**2 for row in correlation for value in row)
    torch.testing.assert_close(losses["orthogonality"], 2.0 * total / 16)
    still = built(encoder_weight=0.25).eval()
    still.latent_rates.data.zero_()
    assert still.refine(support, LABELS, query, N_WAY).losses["encoder"] == 0 < losses["encoder"]


def test_training_draws_codes_and_weights_with_the_spread_they_are_said_to_have() -> None:
    method = built(dropout=0.0)
    method.latent_steps = method.weight_steps = 0
    method.decoder.weight.data.zero_()
    support, query = torch.randn(4000, 6, N_FEATURES).double(), F.normalize(torch.randn(1, 1, N_FEATURES)).double()
    logits = method.refine(support, LABELS[:1].expand(4000, -1), query.expand(4000, -1, -1), N_WAY).logits
    assert logits.std().item() == pytest.approx(2.0 * math.sqrt(2 / (N_FEATURES + N_WAY)), rel=0.03)


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="latent_steps=-1"):
        LEO(latent_steps=-1)
