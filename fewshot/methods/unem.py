"""UNEM: expectation maximisation of a Gaussian mixture, whose class balance and temperature are learned by iteration.

Zhou, Shakeri, Sadraoui, Kaaniche, Pesquet, Ben Ayed: UNEM: UNrolled Generalized EM for Transductive Few-Shot Learning,
CVPR 2025, arXiv 2412.16739.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.functional.features import class_means, member_means, normalized, signed_power, squared_distances
from fewshot.functional.information import class_softmax
from fewshot.methods.base import Method, Refinement
from fewshot.methods.options import check_above, check_at_least


class UNEM(Method):
    """UNEM-Gaussian: generalised EM, every iteration a layer with a balance and a temperature of its own.

    The log-likelihood of class c is l_ic = -(scale / 2) |z_i - w_c|^2. Layer after layer, from the assignments u of the
    layer before it,

        w_c = (sum_i u_ic z_i + sum of the support of class c) / (sum_i u_ic + number of the support of class c),
        u_i = softmax((l_i + balance log(mean_i u_i)) / temperature).

    With the same balance and temperature in all layers, no layer increases

        -sum_ic u_ic l_ic + balance Q H(mean_i u_i) + temperature sum_ic u_ic log u_ic,

    the first sum being over the support too. Balance 1 and temperature 1 are EM of a mixture with free proportions;
    balance 0 favours as many queries of every class, a larger one fewer classes. Training minimises the cross-entropy
    of the last assignment; there are two numbers a layer to learn, which serve any number of ways, shots and queries.

    Assumes of the queries: proportions such as it was trained on. Untrained, any proportions, rather few of the
    classes: what the layers start at is EM with free proportions, at half the scale.

    Departures: the paper's lambda is balance times Q, so that what is learned does not depend on how many queries there
    are. Features are of length one, and the scale of the log-likelihood is fixed; the published program takes them as
    they are and learns one. The update of the means is derived from the objective. The assignments that the first layer
    starts from are softmax(l / temperature) at the support's means; the published program counts them as a layer, so
    that its 10 are 9 here. `power`, for features with a long tail.

    Args:
        n_steps: layers, the paper's L (published: 10, which counts the start).
        scale: of the log-likelihood; fixed.
        balance: what lambda / Q of every layer starts at, above 0 (published: 1.31).
        temperature: what that of every layer starts at, above 1; as published it stays there (published: 2.31).
        power: exponent of a power transform before features are scaled to length one; None leaves it out.
    """

    def __init__(
        self,
        n_steps: int = 10,
        scale: float = 80.0,
        balance: float = 2.0,
        temperature: float = 2.0,
        power: float | None = None,
    ) -> None:
        super().__init__()
        check_at_least(1, n_steps=n_steps)
        check_above(0, scale=scale, balance=balance, power=power)
        check_above(1, temperature=temperature)
        self.n_steps: int = n_steps
        self.scale, self.power = scale, power
        self.balance = nn.Parameter(torch.full((n_steps,), _inverse_softplus(balance)))
        self.temperature = nn.Parameter(torch.full((n_steps,), _inverse_softplus(temperature - 1)))

    def refine(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Refinement:
        """Before: the log-likelihoods by the support's means, at the first temperature; then after every layer."""
        support, query = (normalized(signed_power(z, self.power)) for z in (support, query))
        examples = torch.cat([support, query], dim=1)  # [T, S+Q, D]
        known = F.one_hot(support_labels, n_way).to(support.dtype)  # [T, S, N]
        balances, temperatures = F.softplus(self.balance), 1 + F.softplus(self.temperature)
        likelihoods = self._likelihoods(query, class_means(support, support_labels, n_way))
        shown = [likelihoods / temperatures[0]]
        for balance, temperature in zip(balances, temperatures, strict=True):
            assignments = class_softmax(shown[-1])  # [T, Q, N]
            means = member_means(torch.cat([known, assignments], dim=1), examples)
            shown.append((self._likelihoods(query, means) + balance * _log_shares(shown[-1])) / temperature)
        return Refinement(torch.stack(shown))

    def _likelihoods(self, query: Tensor, means: Tensor) -> Tensor:
        """Their logarithms, less what all classes share, [T, Q, N]."""
        return (-0.5 * self.scale) * squared_distances(query, means)


def _log_shares(logits: Tensor) -> Tensor:
    """Logarithm of the mean of softmax(logits) over queries, up to what all classes share, [T, 1, N].

    Without the mean itself, which may be too small a number for a class that has no query.
    """
    return logits.transpose(1, 2).log_softmax(1).logsumexp(2).unsqueeze(1)


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))
