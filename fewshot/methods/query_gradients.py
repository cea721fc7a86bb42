"""Query gradients: networks that infer from the logits of unlabelled queries what their labels would have asked for.

The published one is of Hu et al.: Empirical Bayes Transductive Meta-Learning with Synthetic Gradients, ICLR 2020,
arXiv 2004.12696.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.methods.construction import Recorded
from fewshot.methods.entry_network import EntryNetwork
from fewshot.methods.options import check_at_least


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
        check_at_least(1, n_way=n_way, expansion=expansion)
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
