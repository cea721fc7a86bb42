"""Synthetic information bottleneck (SIB): an initialiser from the support, a learned gradient from the queries.

Hu, Moreno, Xiao, Shen, Obozinski, Lawrence, Damianou: Empirical Bayes Transductive Meta-Learning with Synthetic
Gradients, ICLR 2020, arXiv 2004.12696. The symbols below are the paper's: theta are the class weights of one task,
lambda is the initialiser, xi the query-gradient network, eta the step size, K the number of steps.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.functional.cosine import (
    cosine_logits,
    cosine_weight_gradient,
    logit_gradient,
    moved,
    position,
    query_cosines,
)
from fewshot.functional.features import class_means, normalized
from fewshot.methods.base import Method, Refinement, check_width
from fewshot.methods.construction import Recorded
from fewshot.methods.entry_network import EntryNetwork
from fewshot.methods.frozen_head import FrozenHead
from fewshot.methods.posterior import GaussianPosterior

QUERIES_PER_CLASS = 32
"""Up to so many, a step works on the cosines between a task's queries, Q x Q numbers, rather than on features."""


class Initializer(Recorded, nn.Module, ABC):
    """lambda: turns a support set into the class weights that refinement starts from."""

    def build(self, n_features: int) -> None:
        """Make the parameters whose shape depends on the feature size D = n_features."""

    @abstractmethod
    def forward(self, support: Tensor, support_labels: Tensor, n_way: int) -> Tensor:
        """theta0 [T, N, D] from features [T, S, D] of length one and labels [T, S]."""


class ScaledClassMeans(Initializer):
    """The published initialiser: class means of the normalised support features times a learned vector (section 4.1).

    Args:
        n_features: D; None leaves it to `build`. The learned vector starts at one.
    """

    def __init__(self, n_features: int | None = None) -> None:
        super().__init__()
        self.weight: nn.Parameter | nn.UninitializedParameter = nn.UninitializedParameter()
        if n_features is not None:
            self.build(n_features)

    def build(self, n_features: int) -> None:
        if not isinstance(self.weight, nn.UninitializedParameter):
            check_width("initialiser", self.weight, n_features)
            return
        self.weight = nn.Parameter(torch.ones(n_features))

    def forward(self, support: Tensor, support_labels: Tensor, n_way: int) -> Tensor:
        return class_means(support, support_labels, n_way) * self.weight


class QueryGradient(Recorded, nn.Module, ABC):
    """xi: infers from the logits of a task's queries the gradient that their labels would have given."""

    n_way: int | None = None
    """The only number of ways this network serves, or None where it serves any."""
    relabels: bool = True
    """Whether renumbering the classes permutes the columns of the result."""

    @abstractmethod
    def forward(self, logits: Tensor) -> Tensor:
        """Stand-in for the gradient of each query's loss with respect to its logits, [T, Q, N] from [T, Q, N]."""


class QueryNorm(nn.Module):
    """Normalisation over the queries of each episode, in training and at test, with a learned scale and shift.

    This is what BatchNorm in training mode does in the original program, which sees one episode a batch. Statistics
    pooled over several episodes, or running ones, destroy the method. Biased variance, eps 1e-5.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_channels))
        self.bias = nn.Parameter(torch.zeros(n_channels))

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, Q, H] to [T, Q, H]."""
        variance, mean = torch.var_mean(hidden, dim=1, correction=0, keepdim=True)  # [T, 1, H]
        return (hidden - mean) * (torch.rsqrt(variance + 1e-5) * self.weight) + self.bias


class MLPGradient(QueryGradient):
    """The published query-gradient network: a three-layer perceptron on each query's logits, 8N wide (section 4.1).

    It serves one number of ways and is not equivariant to relabelling. Its statistics are over the queries of an
    episode: with a single query every hidden unit is normalised to a constant that says nothing about the query, so the
    gradient is then zero, the prediction that of the initialiser, and a warning says so.

    Args:
        n_way: N, the number of classes.
        expansion: hidden width as a multiple of N.
    """

    relabels = False

    def __init__(self, n_way: int = 5, expansion: int = 8) -> None:
        super().__init__()
        if n_way < 1 or expansion < 1:
            raise ValueError(f"n_way={n_way} and expansion={expansion}; both are at least 1")
        self.n_way: int = n_way
        width = expansion * n_way
        self.layers = nn.Sequential(
            nn.Linear(n_way, width),
            nn.ReLU(),
            QueryNorm(width),
            nn.Linear(width, width),
            nn.ReLU(),
            QueryNorm(width),
            nn.Linear(width, n_way),
        )

    def forward(self, logits: Tensor) -> Tensor:
        _, n_query, n_way = logits.shape
        if n_way != self.n_way:
            raise ValueError(
                f"this MLPGradient was made for n_way={self.n_way} but the episode has {n_way} ways; train one with "
                f"n_way={n_way}, or use EquivariantGradient, which serves any number"
            )
        if n_query < 2:
            warnings.warn(
                f"MLPGradient normalises over the queries of an episode and got {n_query}; nothing is refined",
                stacklevel=2,
            )
            return torch.zeros_like(logits)
        # What self.layers(logits) says, in fewer passes: queries last, a norm's scale and shift in the layer after it.
        layers: Any = self.layers
        first, _, first_norm, second, _, second_norm, last = layers
        hidden = _on_queries(first, logits.transpose(1, 2)).relu_()  # [T, H, Q]
        hidden = _on_queries(second, F.layer_norm(hidden, (n_query,)), after=first_norm).relu_()
        return _on_queries(last, F.layer_norm(hidden, (n_query,)), after=second_norm).transpose(1, 2)


def _on_queries(linear: nn.Linear, hidden: Tensor, after: QueryNorm | None = None) -> Tensor:
    """The linear layer on each query, [T, H', Q] from [T, H, Q], with the scale and shift of the norm before it."""
    weight: Tensor = linear.weight
    bias: Tensor = linear.bias
    if after is not None:
        weight, bias = weight * after.weight, torch.addmv(bias, weight, after.bias)
    return torch.baddbmm(bias.unsqueeze(-1), weight.expand(len(hidden), -1, -1), hidden)


class EquivariantGradient(EntryNetwork, QueryGradient):
    """A query-gradient network for any number of ways, an EntryNetwork. Not in the paper, whose network fixes N.

    Every entry sees its logit (less the query's mean), its probability, the probability's logarithm, the class's mean
    probability over the queries and the query's entropy.

    Args:
        width: hidden units per entry.
    """

    N_INPUTS = 5

    def __init__(self, width: int = 32) -> None:
        super().__init__(self.N_INPUTS, width)

    def forward(self, logits: Tensor) -> Tensor:
        n_way = logits.shape[-1]
        log_probabilities = logits.log_softmax(-1)  # [T, Q, N]
        probabilities = log_probabilities.exp()
        entropy = -(probabilities * log_probabilities).sum(-1, keepdim=True)  # [T, Q, 1]
        marginal = probabilities.mean(1, keepdim=True)  # [T, 1, N]
        entries = torch.stack(
            [
                logits - logits.mean(-1, keepdim=True),
                probabilities * n_way,
                log_probabilities,
                (marginal * n_way).expand_as(logits),
                entropy.expand_as(logits),
            ],
            dim=-1,
        )  # [T, Q, N, 5]
        return self.combined(entries)


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
        for name, steps in (("n_steps", n_steps), ("test_steps", test_steps)):
            if steps is not None and steps < 0:
                raise ValueError(f"{name}={steps} is negative; 0 is the initialiser alone")
        if not step_size > 0:
            raise ValueError(f"step_size={step_size}; it is above 0")
        if reduction not in ("sum", "mean"):
            raise ValueError(f"reduction={reduction!r} is not known; choose 'sum' or 'mean'")
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
        support, query = normalized(support), query
        start = self.initializer(support, support_labels, n_way)  # [T, N, D]
        if self.posterior is not None:
            return self._descend_gaussian(start, normalized(query), self.posterior)
        if self._steps and query.shape[1] <= QUERIES_PER_CLASS * n_way:
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
        for _ in range(0 if logits is None else self._steps):
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
        for _ in range(self._steps):
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
        for _ in range(self._steps):
            gradients.append(self.gradient(logits[-1].transpose(1, 2)).transpose(1, 2))
            place = moved(place, between_queries, gradients[-1], step)
            logits.append(self.scale * (place.cosines + self.bias))
        return Refinement(torch.stack(logits).transpose(2, 3), torch.stack(gradients).transpose(2, 3))

    def _descend_gaussian(self, mean: Tensor, query: Tensor, posterior: GaussianPosterior) -> Refinement:
        log_std = posterior.log_std.expand_as(mean)  # [T, N, D]
        logits, gradients = [], []
        for _ in range(self._steps):
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

    @property
    def _steps(self) -> int:
        return self.n_steps if self.training else self.evaluation_steps
