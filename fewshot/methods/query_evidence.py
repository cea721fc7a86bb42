"""What UniversalSIB's network sees of a task: logits, plan, neighbours and statistics, all without the feature size."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.functional.gram import CentredProducts, Gram, of_length_one
from fewshot.functional.information import class_softmax
from fewshot.methods.entry_network import Evidence
from fewshot.methods.support_mixture import SupportAnswer, among_queries

SIZES = (11, 14, 4, 11)
"""How many numbers an entry, a query, a class and a task are seen by."""
N_STATISTICS = 10
LIMIT = 15.0
"""Logits are shown to the network within this."""
LEAST_SPREAD = 0.02
"""Cosines are taken to differ by this at least."""
FEW_QUERIES = 4
"""So many count for the size of all cosines in how much those with the class means differ."""


class Told(NamedTuple):
    """What a person knows of the queries' class proportions."""

    proportions: Tensor
    """[T, N], each task's summing to one; uniform where nothing is known."""
    known: Tensor
    """[T, 1], 1 or 0."""


class Task(NamedTuple):
    """What stays the same through all steps of a batch of tasks."""

    answer: SupportAnswer
    one_hot: Tensor
    """[T, S, N]."""
    neighbours: Tensor
    """[T, Q, S+Q], how much a query heeds each example; rows sum to one."""
    nearness: Tensor
    """[T, Q], mean cosine with the three nearest examples, in units of all cosines' size."""
    clearness: Tensor
    """[T, Q, 9], how near each query is to any class, by itself and among the queries."""
    unlikeness: Tensor
    """[T, Q], energy among the queries: what the logit of a stranger starts from."""
    spread: Tensor
    """[T, 1, 1], how much cosines with the class means differ over the queries."""
    statistics: Tensor
    """[T, 10]."""
    told: Told


class Seen(NamedTuple):
    """What is there at one step."""

    logits: Tensor
    """[T, Q, N]."""
    cosines: Tensor
    """[T, Q, N], of the queries with the class weights."""
    stranger: Tensor
    """[T, Q], logit of the look before that a query is of none of the classes."""


ENERGY_SHARPNESS = 10.0
"""What cosines are multiplied by, as in the novelty that is measured without training."""


def energy_and_distance(gram: Gram, one_hot: Tensor) -> tuple[Tensor, Tensor]:
    """How unlike all classes each query is, [T, Q] twice; larger is more so. About the mean of all examples.

    The energy is less the logarithm of the mean over classes of exp(10 cosine with the class mean) (Liu, Wang, Owens,
    Li: Energy-based Out-of-distribution Detection, NeurIPS 2020, arXiv 2010.03759, on cosines); the distance one less
    the largest cosine with an example of the support.

    Args:
        gram: of S + Q examples of length one, the support first.
        one_hot: [T, S, N].
    """
    n_support, n_way = one_hot.shape[1:]
    tasks, n_examples = gram.matrix.shape[:2]
    products = CentredProducts(gram, one_hot.new_full((tasks, n_examples), 1 / n_examples))
    weights = F.pad(one_hot / one_hot.sum(1, keepdim=True), (0, 0, 0, n_examples - n_support))
    cosines = of_length_one(weights, products.weights_products(weights))[1][:, n_support:]  # [T, Q, N]
    energy = math.log(n_way) - (ENERGY_SHARPNESS * cosines).logsumexp(-1)
    nearest = products.cosines(slice(n_support, n_examples), slice(0, n_support)).amax(-1)
    return energy, 1 - nearest


def first_centre(one_hot: Tensor, n_query: int, centring: Tensor) -> Tensor:
    """Shares of the examples in the centre, [T, S+Q]: between the mean of class means and that of everything.

    Args:
        one_hot: [T, S, N].
        n_query: Q.
        centring: [3], a constant and factors of the logarithms of shots and of queries a class; their sum is the logit
            of the support's share.
    """
    n_support, n_way = one_hot.shape[1:]
    of_support = F.pad((one_hot / one_hot.sum(1, keepdim=True)).mean(-1), (0, n_query))
    constant, of_shots, of_queries = centring
    shots, queries = (constant.new_full((), n / n_way).log() for n in (n_support, n_query))
    share = constant + of_shots * shots + of_queries * queries
    everything = torch.full_like(of_support, 1 / (n_support + n_query))
    return everything + torch.sigmoid(share) * (of_support - everything)


def task_of(
    products: CentredProducts, cosines: Tensor, answer: SupportAnswer, one_hot: Tensor, told: Told, sharpness: Tensor
) -> Task:
    """What stays the same through all steps.

    Args:
        products: of support and queries about their first centre.
        cosines: [T, Q, N], of the queries with the class means.
        answer: of the support.
        one_hot: [T, S, N].
        told: what is known of the proportions.
        sharpness: one number, what cosines in units of their size are multiplied by for neighbours.
    """
    n_support, n_way = one_hot.shape[1:]
    n_query = cosines.shape[1]
    total = n_support + n_query
    between = products.cosines(slice(n_support, total), slice(0, total))  # [T, Q, S+Q]
    itself = F.pad(torch.eye(n_query, dtype=torch.bool, device=cosines.device), (n_support, 0))
    others = between.masked_fill(itself, 0)
    square = (others.square().sum((1, 2)) / (n_query * (total - 1))).clamp_min(LEAST_SPREAD**2)  # [T]
    size = square.sqrt().view(-1, 1, 1)
    neighbours = (sharpness / size * between).masked_fill(itself, -torch.inf).softmax(-1)
    nearest = between.masked_fill(itself, -1).topk(3, dim=-1).values.mean(-1) / size.squeeze(-1)
    # few queries, or alike ones, say little of how much cosines differ
    spread = cosines.var(1, unbiased=False).mean(-1) * n_query + FEW_QUERIES * square
    spread = (spread / (n_query + FEW_QUERIES)).sqrt()
    best = cosines.topk(min(2, n_way), dim=-1).values
    margin = (best[..., 0] - best[..., -1]).mean(1) / spread
    pairs = spread.new_full((), n_query * (n_query - 1)).clamp_min(1)
    overlap = others[:, :, n_support:].square().sum((1, 2)) / pairs
    rank = -(overlap + 1 / n_query).clamp_min(1e-6).log()
    shots, queries, ways = (torch.full_like(spread, n).log() for n in (n_support / n_way, n_query / n_way, n_way))
    found = [spread.log() + 2, rank - 3, margin - 1, shots, queries - 2, ways - 1.5]
    found += [told.known.squeeze(-1), class_softmax(answer.logits).amax(-1).mean(1), *answer.certainty.unbind(-1)]
    energy, distance = energy_and_distance(products.gram, one_hot)
    unlikeness = among_queries(energy)
    told_apart = torch.stack([unlikeness, among_queries(distance), energy / 3, distance], dim=-1)
    clearness = torch.cat(
        [cosines.amax(-1, keepdim=True) / spread.view(-1, 1, 1), answer.clearness, told_apart], dim=-1
    )
    statistics = torch.stack(found, dim=-1)
    return Task(answer, one_hot, neighbours, nearest, clearness, unlikeness, spread.view(-1, 1, 1), statistics, told)


def evidence_of(task: Task, seen: Seen, plan: Tensor, potentials: Tensor, progress: float) -> Evidence:
    """What the network sees at one step.

    Args:
        task: what stays the same.
        seen: what is there.
        plan: [T, Q, N], by transport.
        potentials: [T, N], of the transport.
        progress: the step's number, as a share of all of them.
    """
    logits, n_way = seen.logits, seen.logits.shape[-1]
    stranger = seen.stranger.sigmoid()  # [T, Q]
    log_probabilities = logits.log_softmax(-1)
    probabilities = log_probabilities.exp()
    belonging = torch.cat([task.one_hot, plan * (1 - stranger).unsqueeze(-1)], dim=1)  # [T, S+Q, N]
    around = torch.bmm(task.neighbours, belonging)  # [T, Q, N]
    entropy = -(probabilities * log_probabilities).sum(-1) / math.log(max(n_way, 2))  # [T, Q]
    share = probabilities.mean(1) * n_way  # [T, N]
    cosines = seen.cosines / task.spread
    best = cosines.amax(-1)  # [T, Q]
    support_logits = task.answer.logits - task.answer.logits.mean(-1, keepdim=True)
    entries = [
        (logits - logits.mean(-1, keepdim=True)).clamp(-LIMIT, LIMIT) / 3,
        probabilities * n_way / 3,
        log_probabilities.clamp_min(-LIMIT) / 3,
        plan * n_way / 3,
        (plan * n_way + 1e-3).log() / 3,
        around * n_way / 3,
        (around * n_way + 1e-2).log() / 3,
        support_logits.clamp(-LIMIT, LIMIT) / 3,
        class_softmax(task.answer.logits) * n_way / 3,
        cosines,
        cosines - best.unsqueeze(-1),
    ]
    queries = [entropy, best, task.nearness / 3, stranger, around.sum(-1), *task.clearness.unbind(-1)]
    told = task.told.known * (task.told.proportions * n_way + 1e-2).log()
    return Evidence(
        torch.stack(entries, dim=-1),
        torch.stack(queries, dim=-1),
        torch.stack([share, (share + 1e-2).log(), told, potentials], dim=-1),
        F.pad(task.statistics, (0, 1), value=progress),
    )
