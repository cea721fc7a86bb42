"""Synthetic information bottleneck (SIB): an initialiser from the support, a learned gradient from the queries.

Hu, Moreno, Xiao, Shen, Obozinski, Lawrence, Damianou: Empirical Bayes Transductive Meta-Learning with Synthetic
Gradients, ICLR 2020, arXiv 2004.12696. The symbols below are the paper's: theta are the class weights of one task,
lambda is the initialiser, xi the query-gradient network, eta the step size, K the number of steps.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fewshot.functional.cosine import (
    cosine_logits,
    cosine_weight_gradient,
    logit_gradient,
    moved,
    position,
    query_cosines,
)
from fewshot.functional.features import normalized
from fewshot.methods.base import Method, Refinement
from fewshot.methods.frozen_head import FrozenHead
from fewshot.methods.initializers import Initializer, ScaledClassMeans
from fewshot.methods.options import check_above, check_at_least, check_choice
from fewshot.methods.posterior import GaussianPosterior
from fewshot.methods.query_gradients import MLPGradient, QueryGradient

QUERIES_PER_CLASS = 32
"""Up to so many, a step works on the cosines between a task's queries, Q x Q numbers, rather than on features."""


class SIB(Method):
    """Class weights initialised from the support and moved K times down a gradient inferred from the queries.

    Features are L2-normalised, logits are s (b + cos(f, theta)) with learned s and b, and a step is (eq. 12 with a
    Dirac posterior, where the KL term is weight decay of the optimiser)

        theta <- theta - eta * sum_i xi(logits_i) . dlogits_i / dtheta,

    in closed form, batched over tasks and differentiable as it stands. The inner mathematics runs in float32 (or
    float64 where the features are) also under mixed precision.

    Args:
        initializer: lambda; None takes the published ScaledClassMeans.
        gradient: xi; None takes the published MLPGradient for 5 ways.
        n_steps: K in training; 0 is the initialiser alone.
        step_size: eta, applied to the gradient that `reduction` names.
        reduction: "sum" adds the gradient over the queries (published), "mean" averages it, so that the step does not
            grow with the number of queries.
        test_steps: K in evaluation mode; None takes n_steps.
        scale: what s starts at; it multiplies cosine and bias.
        bias: what b starts at.
        matching_weight: weight of an auxiliary training loss that pulls xi towards the true gradient, the mean squared
            difference over all steps; 0 (published) leaves it out.
        posterior: None is the published Dirac; a GaussianPosterior learns the weights' spread and prior too.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        initializer: Initializer | None = None,
        gradient: QueryGradient | None = None,
        n_steps: int = 3,
        step_size: float = 1e-3,
        reduction: Literal["sum", "mean"] = "sum",
        test_steps: int | None = None,
        scale: float = 10.0,
        bias: float = 0.0,
        matching_weight: float = 0.0,
        posterior: GaussianPosterior | None = None,
    ) -> None:
        super().__init__()
        check_at_least(0, n_steps=n_steps, test_steps=test_steps, matching_weight=matching_weight)
        check_above(0, step_size=step_size, scale=scale)
        check_choice(("sum", "mean"), reduction=reduction)
        self.initializer = ScaledClassMeans() if initializer is None else initializer
        self.gradient = MLPGradient() if gradient is None else gradient
        if n_steps == 0:
            self.gradient.requires_grad_(False)  # no loss reaches it, which DDP takes for an error
        self.posterior = posterior
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))
        self.n_steps: int = n_steps
        self.test_steps = test_steps
        self.step_size = step_size
        self.reduction = reduction
        self.matching_weight = matching_weight
        self.n_way: int | None = self.gradient.n_way
        self.relabels: bool = self.gradient.relabels

    def build(self, n_features: int) -> None:
        self.initializer.build(n_features)
        if self.posterior is not None:
            self.posterior.build(n_features)

    def refine(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Refinement:
        start = self.initializer(normalized(support), support_labels, n_way)  # [T, N, D]
        if self.posterior is not None:
            return self._descend_gaussian(start, normalized(query), self.posterior)
        if self.steps and query.shape[1] <= QUERIES_PER_CLASS * n_way:
            return self._descend_by_cosines(start, query)
        return self._descend(start, normalized(query))

    def freeze(
        self, support: Tensor, support_labels: Tensor, query: Tensor, logits: Tensor | None, n_way: int
    ) -> FrozenHead:
        """The class weights after the last step, which are all that SIB classifies with."""
        if self.posterior is not None:
            return super().freeze(support, support_labels, query, logits, n_way)
        support, query = normalized(support), normalized(query)
        weights = self.initializer(support, support_labels, n_way)  # [T, N, D]
        for _ in range(0 if logits is None else self.steps):
            gradient = self.gradient(self._logits(query, weights))
            weights = weights - self._eta(query) * cosine_weight_gradient(weights, query, gradient, self.scale)
        scale = self.scale.expand(len(weights))
        bias = (scale * self.bias).unsqueeze(1).expand(-1, n_way)
        return FrozenHead(weights, scale, bias, centre=torch.zeros_like(weights[:, 0]), power=1.0)

    def loss(self, refinement: Refinement, query_labels: Tensor) -> dict[str, Tensor]:
        terms = super().loss(refinement, query_labels)
        if self.matching_weight and refinement.gradients is not None:
            target = logit_gradient(refinement.logits[:-1].detach(), query_labels)  # [K, T, Q, N]
            terms["matching"] = self.matching_weight * (refinement.gradients - target).square().mean()
        return terms

    def _descend(self, weights: Tensor, query: Tensor) -> Refinement:
        logits, gradients = [self._logits(query, weights)], []
        for _ in range(self.steps):
            gradients.append(self.gradient(logits[-1]))
            weights = weights - self._eta(query) * cosine_weight_gradient(weights, query, gradients[-1], self.scale)
            logits.append(self._logits(query, weights))
        return Refinement(torch.stack(logits), torch.stack(gradients) if gradients else None)

    def _descend_by_cosines(self, weights: Tensor, query: Tensor) -> Refinement:
        """As _descend, on inner products alone: the weights after the start are never written down."""
        between_queries, inverse = query_cosines(query)
        place = position(weights, query, inverse)
        # A zero vector has no direction to turn to.
        step = self._eta(query) * self.scale * (place.length > 2e-12)  # [T, N, 1]
        logits, gradients = [self.scale * (place.cosines + self.bias)], []  # [T, N, Q]
        for _ in range(self.steps):
            gradients.append(self.gradient(logits[-1].transpose(1, 2)).transpose(1, 2))
            place = moved(place, between_queries, gradients[-1], step)
            logits.append(self.scale * (place.cosines + self.bias))
        return Refinement(torch.stack(logits).transpose(2, 3), torch.stack(gradients).transpose(2, 3))

    def _descend_gaussian(self, mean: Tensor, query: Tensor, posterior: GaussianPosterior) -> Refinement:
        log_std = posterior.log_std.expand_as(mean)  # [T, N, D]
        logits, gradients = [], []
        for _ in range(self.steps):
            noise = posterior.noise(mean)
            weights = mean + log_std.exp() * noise
            logits.append(self._logits(query, weights))
            gradients.append(self.gradient(logits[-1]))
            descent = cosine_weight_gradient(weights, query, gradients[-1], self.scale)
            mean, log_std = posterior.step(mean, log_std, noise, weight_gradient=descent, step_size=self._eta(query))
        logits.append(self._logits(query, mean + log_std.exp() * posterior.noise(mean)))
        divergence = posterior.kl_weight * posterior.divergence(mean, log_std).mean() / max(query.shape[1], 1)
        return Refinement(torch.stack(logits), torch.stack(gradients) if gradients else None, {"kl": divergence})

    def _logits(self, query: Tensor, weights: Tensor) -> Tensor:
        return cosine_logits(query, weights, self.scale, self.bias)

    def _eta(self, query: Tensor) -> float:
        """Step size that applies to the gradient summed over the queries."""
        return self.step_size if self.reduction == "sum" else self.step_size / max(query.shape[1], 1)
