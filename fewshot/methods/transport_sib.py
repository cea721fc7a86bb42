"""SIB combined with optimal transport, neighbourhoods and the support's own gradient.

SIB (Hu et al., ICLR 2020, arXiv 2004.12696) infers from the logits of unlabelled queries the gradient that their labels
would have given, by a network that sees one query at a time and starts from nothing. Here the inferred gradient starts
as that of the cross-entropy towards an assignment by optimal transport (as in PT-MAP: Hu, Gripon, Pateux, ICANN 2021,
arXiv 2006.03806), and the network learns what to correct in it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.functional.cosine import cosine_logits, cosine_weight_gradient
from fewshot.functional.features import member_means, normalized, signed_power
from fewshot.functional.information import class_softmax
from fewshot.functional.transport import relaxed_sinkhorn_potentials
from fewshot.methods.base import Method, Refinement, known_cross_entropy
from fewshot.methods.entry_network import EntryNetwork
from fewshot.methods.initializers import Initializer, ScaledClassMeans
from fewshot.methods.options import check_above, check_at_least

SWEEPS = 8
"""Of the relaxed transport, in every step."""


class Evidence(NamedTuple):
    """What is known of the queries at one step."""

    logits: Tensor
    """[T, Q, N]."""
    assignment: Tensor
    """[T, Q, N], by relaxed transport; rows sum to one."""
    neighbourhood: Tensor
    """[T, Q, N], the mean label of a query's neighbours among support and queries; rows sum to one."""
    shots: float
    """Support examples a class, on average."""


class AssignmentCorrection(EntryNetwork):
    """What to add to the gradient towards the assignment, or to the last logits, an EntryNetwork; it starts at zero.

    Every entry sees its logit less the query's mean, probability, assignment and neighbourhood with their logarithms,
    the class's share of the queries, the query's entropy, and the logarithms of how many shots and queries a class has.

    Args:
        width: hidden units of an entry.
    """

    N_INPUTS = 11

    def __init__(self, width: int = 32) -> None:
        super().__init__(self.N_INPUTS, width)
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)

    def forward(self, evidence: Evidence) -> Tensor:
        """[T, Q, N]."""
        logits, assignment, neighbourhood, shots = evidence
        n_way = logits.shape[-1]
        log_probabilities = logits.log_softmax(-1)
        probabilities = log_probabilities.exp()
        entropy = -(probabilities * log_probabilities).sum(-1, keepdim=True) / math.log(max(n_way, 2))  # [T, Q, 1]
        share = probabilities.mean(1, keepdim=True) * n_way  # [T, 1, N]
        entries = torch.stack(
            [
                logits - logits.mean(-1, keepdim=True),
                probabilities * n_way,
                log_probabilities,
                assignment * n_way,
                (assignment * n_way + 1e-3).log(),
                neighbourhood * n_way,
                (neighbourhood * n_way + 1e-3).log(),
                share.expand_as(logits),
                entropy.expand_as(logits),
                torch.full_like(logits, shots).log(),
                torch.full_like(logits, logits.shape[1] / n_way).log(),
            ],
            dim=-1,
        )  # [T, Q, N, 11]
        return self.combined(entries)


class TransportSIB(Method):
    """Class weights moved by a learned query gradient that starts as the gradient towards an optimal assignment.

    SIB's frame is kept: an initialiser gives theta from the support, and K steps in closed form move it by a gradient
    that a network infers from the queries. What is taken in from elsewhere:

    - features are power-transformed, of length one, centred, and of length one again. The centre starts between the
      mean of support and queries and that of the support, a learned share of the way, and follows the mean of the class
      means under the plan: the mean of unbalanced queries lies towards the classes that have most of them;
    - the query gradient of step k is softmax(logits) - plan + correction, where the plan is the assignment of queries
      to classes by unbalanced optimal transport from a uniform class prior, and the correction is a network that is
      equivariant in classes and queries;
    - how strictly the prior holds is learned, and so is how that changes with the imbalance of the predictions;
    - the network also sees the mean label of each query's neighbours among support and queries;
    - the exact gradient of the support's cross-entropy is added, with a learned weight;
    - theta moves a learned share of the way to the mean of what is assigned to a class, support included (PT-MAP's
      move): the gradient is at rest as soon as predictions agree with the plan, the mean goes on to where features are;
    - step sizes and these weights are learned for every step;
    - a second correction is added to the logits after the last step. It can do what no theta can, favour a class, and
      it is what tells balanced queries from unbalanced ones where training has met both: relaxed transport only ever
      takes from classes that are predicted often.

    The logits after a step include the plan's column potentials, so that their softmax is the plan. One set of weights
    serves any number of ways, shots and queries, and what it assumes of the queries' proportions is what it was trained
    on: mix sizes and distributions in training (EpisodicDataModule's train_n_way, train_n_shot, train_n_query and
    train_dirichlet); the corrections see how many shots and queries a class has. Transductive.
    The training loss is the cross-entropy after the last step, plus `deep_weight` times the mean of that after the
    earlier ones.

    Args:
        initializer: lambda; None takes SIB's ScaledClassMeans.
        n_steps: K.
        width: hidden units of the correction.
        power: exponent of the power transform; 1 leaves features as they are.
        scale: what the factor s between cosine and logit starts at.
        deep_weight: weight of the losses before the last step.
        transport: whether the gradient starts towards the plan; without, only the learned correction is left.
        correction: whether the learned correction is added to the gradient.
        last_correction: whether one is added to the last logits.
        mean_pull: whether theta is pulled towards the means of what is assigned.
        recentre: whether the centre is learned; without, it is the mean of support and queries in every step.
        support_gradient: whether the support's gradient is added.
        neighbourhood: whether the corrections see the neighbours.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        initializer: Initializer | None = None,
        n_steps: int = 6,
        width: int = 32,
        power: float = 0.65,
        scale: float = 10.0,
        deep_weight: float = 0.5,
        transport: bool = True,
        correction: bool = True,
        last_correction: bool = True,
        mean_pull: bool = True,
        recentre: bool = True,
        support_gradient: bool = True,
        neighbourhood: bool = True,
    ) -> None:
        super().__init__()
        check_at_least(1, n_steps=n_steps, width=width)
        check_at_least(0, deep_weight=deep_weight)
        check_above(0, power=power, scale=scale)
        self.initializer = ScaledClassMeans() if initializer is None else initializer
        self.correction = AssignmentCorrection(width) if correction else None
        self.last_correction = AssignmentCorrection(width) if last_correction else None
        self.n_steps: int = n_steps
        self.power, self.deep_weight = power, deep_weight
        self.transport = transport
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.log_step = nn.Parameter(torch.full((n_steps,), math.log(0.5)))
        self.log_support = nn.Parameter(torch.full((n_steps,), math.log(0.2))) if support_gradient else None
        self.pull = nn.Parameter(torch.full((n_steps,), -2.0)) if mean_pull else None
        self.log_pull_sharpness = nn.Parameter(torch.zeros(n_steps)) if mean_pull else None
        self.centring = nn.Parameter(torch.tensor([-1.0, 0.5, 0.0])) if recentre else None
        self.recentring = nn.Parameter(torch.full((n_steps,), -1.0)) if recentre else None
        self.strictness = nn.Parameter(torch.full((n_steps + 1,), 2.0)) if transport else None
        self.strictness_slope = nn.Parameter(torch.zeros(n_steps + 1)) if transport else None
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(10.0))) if neighbourhood else None

    def build(self, n_features: int) -> None:
        self.initializer.build(n_features)

    def refine(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Refinement:
        n_support = support.shape[1]
        examples = self._transformed(support, query)
        centre = self._first_centre(examples, n_support, n_way)
        support, query = _centred(examples, centre, n_support)
        weights = self.initializer(support, support_labels, n_way)  # [T, N, D]
        known = F.one_hot(support_labels, n_way).to(support.dtype)  # [T, S, N]
        neighbours = self._neighbours(support, query)
        shown, gradients = [], []
        for step in range(self.n_steps):
            logits = cosine_logits(query, weights, self.scale, 0.0)
            potentials = self._potentials(logits, step)
            shown.append(logits + potentials if step else logits)
            gradients.append(self._query_gradient(logits, potentials, known, neighbours))
            direction = self._direction(weights, support, known, query, gradients[-1], step)
            weights = self._pulled(weights, support, known, query, logits + potentials, step)
            weights = weights - self.log_step[step].exp() * direction
            if self.recentring is not None:
                members = torch.cat([known, class_softmax(logits + potentials)], dim=1)  # [T, S+Q, N]
                balanced = member_means(members, examples).mean(1, keepdim=True)
                centre = centre + torch.sigmoid(self.recentring[step]) * (balanced - centre)
                support, query = _centred(examples, centre, n_support)
        logits = cosine_logits(query, weights, self.scale, 0.0)
        planned = logits + self._potentials(logits, self.n_steps)
        if self.last_correction is not None:
            evidence = self._evidence(logits, class_softmax(planned), known, neighbours)
            planned = planned + self.last_correction(evidence)
        shown.append(planned)
        return Refinement(torch.stack(shown), torch.stack(gradients))

    def loss(self, refinement: Refinement, query_labels: Tensor) -> dict[str, Tensor]:
        terms = super().loss(refinement, query_labels)
        if self.deep_weight:
            earlier = refinement.logits[:-1]  # [K, T, Q, N]
            labels = query_labels.expand(len(earlier), -1, -1)
            terms["earlier"] = self.deep_weight * known_cross_entropy(earlier, labels)
        return terms

    def _transformed(self, support: Tensor, query: Tensor) -> Tensor:
        """Support and queries, [T, S + Q, D], of length one, not yet centred."""
        return normalized(signed_power(torch.cat([support, query], dim=1), self.power))

    def _first_centre(self, examples: Tensor, n_support: int, n_way: int) -> Tensor:
        """[T, 1, D]."""
        joint = examples.mean(1, keepdim=True)
        if self.centring is None:
            return joint
        shots, queries = n_support / n_way, (examples.shape[1] - n_support) / n_way
        constant, of_shots, of_queries = self.centring
        share = constant + of_shots * joint.new_full((), shots).log() + of_queries * joint.new_full((), queries).log()
        of_support = examples[:, :n_support].mean(1, keepdim=True)
        return joint + torch.sigmoid(share) * (of_support - joint)

    def _neighbours(self, support: Tensor, query: Tensor) -> Tensor | None:
        """How much each query [T, Q, S + Q] heeds the others, itself left out; rows sum to one."""
        if self.log_sharpness is None:
            return None
        cosines = torch.bmm(query, torch.cat([support, query], dim=1).transpose(1, 2))  # [T, Q, S+Q]
        itself = torch.eye(query.shape[1], dtype=torch.bool, device=query.device)
        itself = F.pad(itself, (support.shape[1], 0))
        return class_softmax((self.log_sharpness.exp() * cosines).masked_fill(itself, -torch.inf))

    def _potentials(self, logits: Tensor, step: int) -> Tensor:
        """Column potentials of the transport, [T, 1, N]; zero without it."""
        if self.strictness is None or self.strictness_slope is None:
            return logits.new_zeros(len(logits), 1, logits.shape[-1])
        n_way = logits.shape[-1]
        share = class_softmax(logits).mean(1)  # [T, N]
        imbalance = (share * (share * n_way).clamp_min(1e-12).log()).sum(-1, keepdim=True)  # [T, 1]
        strictness = torch.sigmoid(self.strictness[step] - self.strictness_slope[step] * imbalance)
        uniform = logits.new_ones(n_way)
        return relaxed_sinkhorn_potentials(logits, uniform, strictness, SWEEPS).unsqueeze(1)

    def _query_gradient(self, logits: Tensor, potentials: Tensor, known: Tensor, neighbours: Tensor | None) -> Tensor:
        """What stands in for the gradient with respect to the logits, [T, Q, N]."""
        probabilities, assignment = class_softmax(logits), class_softmax(logits + potentials)
        gradient = probabilities - assignment if self.transport else torch.zeros_like(logits)
        if self.correction is None:
            return gradient
        return gradient + self.correction(self._evidence(logits, assignment, known, neighbours))

    def _evidence(self, logits: Tensor, assignment: Tensor, known: Tensor, neighbours: Tensor | None) -> Evidence:
        around = torch.full_like(assignment, 1 / logits.shape[-1])
        if neighbours is not None:
            around = torch.bmm(neighbours, torch.cat([known, assignment], dim=1))
        return Evidence(logits, assignment, around, shots=known.shape[1] / known.shape[2])

    def _pulled(
        self, weights: Tensor, support: Tensor, known: Tensor, query: Tensor, planned: Tensor, step: int
    ) -> Tensor:
        """The weights [T, N, D] moved towards the means of support and queries under the plan, made sharper."""
        if self.pull is None or self.log_pull_sharpness is None:
            return weights
        assignment = class_softmax(planned * self.log_pull_sharpness[step].exp())  # [T, Q, N]
        means = member_means(torch.cat([known, assignment], dim=1), torch.cat([support, query], dim=1))
        return weights + torch.sigmoid(self.pull[step]) * (means - weights)

    def _direction(
        self, weights: Tensor, support: Tensor, known: Tensor, query: Tensor, gradient: Tensor, step: int
    ) -> Tensor:
        """Gradient with respect to the weights [T, N, D], per class and in units of the logits' scale."""
        n_way = known.shape[-1]
        direction = cosine_weight_gradient(weights, query, gradient, 1.0) * (n_way / query.shape[1])
        if self.log_support is not None:
            error = class_softmax(cosine_logits(support, weights, self.scale, 0.0)) - known
            of_support = cosine_weight_gradient(weights, support, error, 1.0) * (n_way / support.shape[1])
            direction = direction + self.log_support[step].exp() * of_support
        return direction


def _centred(examples: Tensor, centre: Tensor, n_support: int) -> tuple[Tensor, Tensor]:
    """Support and queries about the centre, of length one."""
    centred = normalized(examples - centre)
    return centred[:, :n_support], centred[:, n_support:]
