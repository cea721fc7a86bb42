"""SIB for features that it was not trained on: one set of weights for any backbone, data set and class proportions.

SIB (Hu et al., ICLR 2020, arXiv 2004.12696) moves class weights down a query gradient that a network infers. Nothing in
that needs the feature size; here nothing in the initialiser does either, every scale comes from the task itself, and
the network is trained on many feature spaces and on tasks of every kind, see
`fewshot.training.feature_spaces.FeatureSpacesDataModule`.
"""

from __future__ import annotations

import os
from importlib.resources import as_file, files
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.episode import STRANGER, Episode
from fewshot.files import full_path
from fewshot.functional.features import normalized, signed_power
from fewshot.functional.gram import CentredProducts, gram_of, of_length_one
from fewshot.functional.information import class_softmax
from fewshot.functional.transport import relaxed_sinkhorn_potentials
from fewshot.methods.base import Method, Refinement, encoded, known_cross_entropy
from fewshot.methods.class_prior import ClassPrior
from fewshot.methods.entry_network import DeepEntryNetwork
from fewshot.methods.head_files import read_head, write_head
from fewshot.methods.kept_proportions import TOLD_STRICTNESS, balance_of, inferred_strictness, kept_to
from fewshot.methods.options import check_above, check_at_least, check_choice
from fewshot.methods.query_evidence import N_STATISTICS, SIZES, Seen, Task, Told, evidence_of, first_centre, task_of
from fewshot.methods.support_mixture import SupportMixture, small_network

SWEEPS = 6
"""Of the relaxed transport, in every step."""
LEAST_PROPORTION = 1e-4
"""Of a class that is told to have no query."""
TOLD = 0.2
"""Share of the training tasks that are told their queries' proportions."""


class Look(NamedTuple):
    """What is made of the queries at one step."""

    planned: Tensor
    """[T, Q, N], logits of the inferred assignment: those seen, the transport's potentials and the correction."""
    stranger: Tensor
    """[T, Q], logit that a query is of none of the classes."""
    trust: Tensor
    """[T, Q], logit of how far refinement is followed."""


def _tenths(number: int, start: float) -> nn.Parameter:
    return nn.Parameter(torch.full((number,), start / 10))


class UniversalSIB(Method):
    """Class weights moved by a learned query gradient, in inner products alone, from a mixture of support classifiers.

    The frame is SIB's: an initialiser gives theta from the support, and K steps in closed form move it down a gradient
    that an equivariant network infers from the queries. What differs:

    - K = 0 is `SupportMixture`, each query by itself: class means, ridge and logistic regression, mixed by a small
      network. With one query alone this is the answer, and with few the K steps count for (Q - 1) / (Q - 1 + c);
    - theta_c = sum_i A_ic u_i are the class means' directions; steps move A, so that D does not occur. A step adds the
      inferred gradient of the logits at the queries, and draws theta towards the means of what is assigned to a class;
    - the inferred gradient starts towards a plan of relaxed transport. How strictly the plan keeps equal classes is
      learned, and follows what the task looks like: unequal or absent classes make it loose;
    - a last step, which is not trained, keeps to the proportions that `prior` says, or to equal ones as far as those
      that were found look like them (`kept_to`);
    - the network sees for every (query, class) entry the logits, plan, neighbours, cosines and the task's statistics,
      and says a correction of the gradient, whether a query is of none of the classes, and how far the steps are to be
      trusted.

    Args:
        n_steps: K.
        width: hidden units of an entry.
        power: of the signed power transform of features.
        prior: what is known of the proportions of these very queries: None nothing, "uniform", or N proportions.
        deep_weight: weight of the losses before the last step.
        stranger_weight: weight of the loss of telling strangers.
        trained: whether the weights that come with the package are taken, which have their own n_steps, width and
            power; False starts anew, for training.
        weights: a file that `save` wrote, whose weights are taken instead.

    Raises:
        ValueError: an option out of its range, or a file that holds no such weights.
    """

    most_together = 2000
    by_person = ("weights",)
    tells_strangers = True

    def __init__(
        self,
        n_steps: int = 6,
        width: int = 32,
        power: float = 0.5,
        prior: str | list[float] | None = None,
        deep_weight: float = 0.3,
        stranger_weight: float = 1.0,
        trained: bool = True,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        check_at_least(1, n_steps=n_steps, width=width)
        check_at_least(0, deep_weight=deep_weight, stranger_weight=stranger_weight)
        check_above(0, power=power)
        if isinstance(prior, str):
            check_choice(("uniform",), prior=prior)
        self.n_steps: int = n_steps
        self.power, self.prior = power, None if prior is None else ClassPrior(prior)
        self.relabels: bool = self.prior is None or self.prior.relabels
        self.deep_weight, self.stranger_weight = deep_weight, stranger_weight
        self.initializer = SupportMixture(width)
        self.network = DeepEntryNetwork(SIZES, width, n_says=2)
        self.scales = small_network(N_STATISTICS, 2 * n_steps + 4, width)
        # in tenths, so that the network's learning rate serves them too
        self.log_step = _tenths(n_steps, -0.7)
        self.pull = _tenths(n_steps, -1.0)
        self.log_pull_sharpness = _tenths(n_steps, 0.0)
        self.recentring = _tenths(n_steps, -1.0)
        self.not_told, self.where_told = _tenths(n_steps + 1, 0.5), _tenths(n_steps + 1, 3.0)
        self.strictness_slope = _tenths(n_steps + 1, 0.0)
        self.centring = nn.Parameter(torch.tensor([-0.1, 0.05, 0.0]))
        self.log_sharpness, self.log_few, self.stranger_bias = (_tenths(1, start) for start in (1.0, 1.0, -2.0))
        self.stranger_slope = _tenths(1, 1.0)
        self.comes_trained = trained or weights is not None
        if weights is not None:
            self._arguments = {**self._arguments, "trained": False}  # for files, which have the weights themselves
            read_head(self, self._sizes(), full_path(weights), weights)
        elif trained:
            with as_file(files("fewshot.methods") / "universal_sib.safetensors") as path:
                read_head(self, self._sizes(), path, "what comes with the package")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the weights as the package brings them: safetensors, with the sizes that they are for."""
        write_head(self, self._sizes(), full_path(path))

    def _sizes(self) -> dict[str, float]:
        """The options that weights are for."""
        return {"n_steps": self.n_steps, "width": self.network.width, "power": self.power}

    def refine(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Refinement:
        told = self._told(query, n_way)
        return self._refined(support, support_labels, query, n_way, told, keeps=True)

    def forward(self, backbone: nn.Module, episode: Episode) -> Refinement:
        """Encode and refine; in training some tasks are told their queries' proportions, as a person might know."""
        if not self.training or episode.query_labels is None:
            return super().forward(backbone, episode)
        support, query = encoded(backbone, episode)
        known = torch.rand(episode.n_tasks, 1, device=query.device) < TOLD
        counts = F.one_hot(episode.query_labels.clamp_min(0), episode.n_way).to(support.dtype)
        counts = (counts * (episode.query_labels != STRANGER).unsqueeze(-1)).sum(1)  # [T, N]
        known = known & (counts.sum(-1, keepdim=True) > 0)
        shares = counts / counts.sum(-1, keepdim=True).clamp_min(1)
        told = Told(torch.where(known, shares, 1 / episode.n_way), known.to(support.dtype))
        return self._refined(support, episode.support_labels, query, episode.n_way, told)

    def loss(self, refinement: Refinement, query_labels: Tensor) -> dict[str, Tensor]:
        terms = super().loss(refinement, query_labels)
        first, earlier = refinement.logits[:1], refinement.logits[:-1]
        if self.deep_weight:
            labels = query_labels.expand(len(earlier), -1, -1)
            each = [known_cross_entropy(part, labels[: len(part)]) for part in (first, earlier)]
            terms["earlier"] = self.deep_weight * (each[0] + each[1])
        if self.stranger_weight and refinement.strangers is not None:
            strange = (query_labels == STRANGER).to(first.dtype).expand_as(refinement.strangers)
            last = F.binary_cross_entropy_with_logits(refinement.strangers[-1], strange[-1])
            before = F.binary_cross_entropy_with_logits(refinement.strangers[:-1], strange[:-1])
            terms["strangers"] = self.stranger_weight * (last + 0.4 * before)
        return terms

    def _told(self, query: Tensor, n_way: int) -> Told:
        """What the option `prior` says, for every task; ValueError for proportions that are not N."""
        tasks = len(query)
        if self.prior is None:
            return Told(query.new_full((tasks, n_way), 1 / n_way), query.new_zeros(tasks, 1))
        nothing = query.new_zeros(tasks, 0, n_way)
        return Told(self.prior.proportions(nothing, nothing[..., 0].long()), query.new_ones(tasks, 1))

    def _refined(
        self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int, told: Told, *, keeps: bool = False
    ) -> Refinement:
        n_support, n_query, n_tasks = support.shape[1], query.shape[1], len(query)
        one_hot = F.one_hot(support_labels, n_way).to(support.dtype)  # [T, S, N]
        examples = torch.cat([support, query], dim=1)
        powered = normalized(signed_power(examples, self.power))
        answer = self.initializer(powered, normalized(examples), one_hot)
        shown, gradients, strangers = [answer.logits], [], []
        gram = gram_of(powered)  # [T, S+Q, S+Q]
        centre = first_centre(one_hot, n_query, 10 * self.centring)  # [T, S+Q]
        seen = CentredProducts(gram, centre)
        weights = torch.cat([one_hot / one_hot.sum(1, keepdim=True), one_hot.new_zeros(n_tasks, n_query, n_way)], dim=1)
        weights, cosines = of_length_one(weights, seen.weights_products(weights))
        sharpness = (10 * self.log_sharpness).exp()
        task = task_of(seen, cosines[:, n_support:], answer, one_hot, told, sharpness)
        few = (n_query - 1) / (n_query - 1 + (10 * self.log_few).exp())
        scales = self.scales(task.statistics).clamp(-5, 5)  # [T, 2K+4]
        from_support, from_weights = scales[:, : self.n_steps + 1].sigmoid(), scales[:, self.n_steps + 1 : -2].exp()
        step_size, strictness = scales[:, -2].exp().view(-1, 1, 1), scales[:, -1:]
        stranger = (10 * self.stranger_bias).expand(n_tasks, n_query)
        for step in range(self.n_steps + 1):
            of_query = cosines[:, n_support:]  # [T, Q, N]
            logits = from_support[:, step].view(-1, 1, 1) * answer.logits
            logits = logits + from_weights[:, step].view(-1, 1, 1) / task.spread * of_query
            look = self._look(task, Seen(logits, of_query, stranger), strictness, step)
            stranger = look.stranger
            strangers.append(stranger)
            if step:
                trusted = look.trust.sigmoid().unsqueeze(-1) * (look.planned - answer.logits)
                shown.append(answer.logits + few * trusted)
            if step == self.n_steps:
                break
            known = (1 - stranger.sigmoid()).unsqueeze(-1)  # [T, Q, 1]
            assigned = class_softmax(look.planned)
            gradients.append((class_softmax(logits) - assigned) * known)
            sharp = class_softmax(look.planned * (10 * self.log_pull_sharpness[step]).exp())
            sharp = torch.cat([one_hot, sharp * known], dim=1)  # [T, S+Q, N]
            weights = self._moved(seen, weights, of_query, gradients[-1], sharp, step_size, step)
            balanced = torch.cat([one_hot, assigned * known], dim=1)
            balanced = (balanced / balanced.sum(1, keepdim=True)).mean(-1)  # [T, S+Q]
            centre = centre + torch.sigmoid(10 * self.recentring[step]) * (balanced - centre)
            seen = CentredProducts(gram, centre)
            weights, cosines = of_length_one(weights, seen.weights_products(weights))
        if keeps:
            masses, known = told.proportions.clamp_min(LEAST_PROPORTION), 1 - stranger.sigmoid()
            strictness = inferred_strictness(n_query, n_way) if self.prior is None else TOLD_STRICTNESS
            kept = kept_to(masses, seen, one_hot, shown[-1], known, strictness)
            alone, found = answer.logits.log_softmax(-1), shown[-1].log_softmax(-1)
            share = balance_of(found, known) if self.prior is None else 1.0
            shown[-1] = found + share * (alone + few * (kept - alone) - found)
        return Refinement(torch.stack(shown), torch.stack(gradients), strangers=torch.stack(strangers))

    def _look(self, task: Task, seen: Seen, strictness: Tensor, step: int) -> Look:
        """What the transport and the network make of the queries.

        Args:
            task: what stays the same.
            seen: what is there at this step.
            strictness: [T, 1], what the task's statistics add to it.
            step: which.
        """
        logits, n_way = seen.logits, seen.logits.shape[-1]
        known = (1 - seen.stranger.sigmoid()).unsqueeze(-1)  # [T, Q, 1]
        probabilities = class_softmax(logits)
        held = (probabilities * known).sum(1) / known.sum(1).clamp_min(1e-3)  # [T, N]
        imbalance = (held * (held * n_way).clamp_min(1e-12).log()).sum(-1, keepdim=True)  # [T, 1]
        strict = self.not_told[step] + task.told.known * (self.where_told[step] - self.not_told[step])
        strict = torch.sigmoid(10 * (strict - self.strictness_slope[step] * imbalance) + strictness)
        masses = task.told.proportions.clamp_min(LEAST_PROPORTION)
        potentials = relaxed_sinkhorn_potentials(logits, masses, strict, SWEEPS)  # [T, N]
        plan = class_softmax(logits + potentials.unsqueeze(1))
        said = self.network(evidence_of(task, seen, plan, potentials, step / self.n_steps), plan)
        planned = logits + potentials.unsqueeze(1) + said.entries
        stranger = said.queries[..., 0] + 10 * (self.stranger_bias + self.stranger_slope * task.unlikeness)
        return Look(planned, stranger, said.queries[..., 1] + 2)

    def _moved(
        self,
        products: CentredProducts,
        weights: Tensor,
        cosines: Tensor,
        gradient: Tensor,
        assigned: Tensor,
        step_size: Tensor,
        step: int,
    ) -> Tensor:
        """Coefficients [T, S+Q, N] after a step down the gradient and towards the means of what is assigned.

        Args:
            products: about the centre.
            weights: A, [T, S+Q, N], of class weights of length one.
            cosines: [T, Q, N], of the queries with them.
            gradient: [T, Q, N], with respect to logits.
            assigned: [T, S+Q, N], how much of each example belongs to a class.
            step_size: [T, 1, 1], of the gradient's mean over the queries of a class.
            step: which.
        """
        n_query, n_way = gradient.shape[1:]
        n_support = weights.shape[1] - n_query
        means = assigned / assigned.sum(1, keepdim=True)
        means, _ = of_length_one(means, products.weights_products(means))
        along = (gradient * cosines).sum(1, keepdim=True)  # [T, 1, N]; a step is at right angles to the weights
        direction = F.pad(gradient, (0, 0, n_support, 0)) - along * weights
        towards = torch.sigmoid(10 * self.pull[step]) * (means - weights)
        return weights + towards - (10 * self.log_step[step]).exp() * step_size * (n_way / n_query) * direction
