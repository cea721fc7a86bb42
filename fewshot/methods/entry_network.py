"""Small networks shared by all (query, class) entries of a task: what learned query gradients are made of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fewshot.methods.options import check_at_least


class EntryNetwork(nn.Module):
    """A perceptron on every entry, whose second layer adds the hidden units' means over queries and over classes.

    Permuting queries or classes permutes the result (the idea of Zaheer et al.: Deep Sets, NeurIPS 2017, along both
    axes); any number of either is served, and no statistic becomes undefined with few queries.

    Args:
        n_inputs: numbers that an entry sees.
        width: hidden units per entry.
    """

    def __init__(self, n_inputs: int, width: int) -> None:
        super().__init__()
        check_at_least(1, width=width)
        self.entry = nn.Linear(n_inputs, width)
        self.hidden = nn.Linear(width, width)
        self.over_queries = nn.Linear(width, width, bias=False)
        self.over_classes = nn.Linear(width, width, bias=False)
        self.readout = nn.Linear(width, 1)

    def combined(self, entries: Tensor) -> Tensor:
        """One number for each entry, [T, Q, N] from [T, Q, N, n_inputs]."""
        first = self.entry(entries).relu()  # [T, Q, N, H]
        context = self.over_queries(first.mean(1, keepdim=True)) + self.over_classes(first.mean(2, keepdim=True))
        second = (self.hidden(first) + context).relu()
        return self.readout(second).squeeze(-1)


class Evidence(NamedTuple):
    """What a network sees of a batch of tasks, by what it belongs to."""

    entries: Tensor
    """[T, Q, N, E], of every query with every class."""
    queries: Tensor
    """[T, Q, F]."""
    classes: Tensor
    """[T, N, G]."""
    tasks: Tensor
    """[T, H]."""


class Conclusion(NamedTuple):
    """What it makes of that."""

    entries: Tensor
    """[T, Q, N]."""
    queries: Tensor
    """[T, Q, n_says]."""


class DeepEntryNetwork(nn.Module):
    """Entries that learn of their class, their query and the whole task, twice over; all outputs start at zero.

    Every layer adds the hidden units' means over queries, over what a class is assigned of them, over classes, and over
    everything. Permuting queries or classes permutes the result, and any number of either is served.

    Args:
        sizes: how many numbers an entry, a query, a class and a task are seen by.
        width: hidden units of an entry.
        n_says: numbers that are said of every query.
    """

    def __init__(self, sizes: tuple[int, int, int, int], width: int, n_says: int) -> None:
        super().__init__()
        self.width = width
        of_entry, of_query, of_class, of_task = sizes
        self.entry = nn.Linear(of_entry, width)
        self.query, self.one_class, self.task = (
            nn.Linear(size, width, bias=False) for size in (of_query, of_class, of_task)
        )
        self.layers = nn.ModuleList(_Layer(width) for _ in range(2))
        self.readout, self.said = nn.Linear(width, 1), nn.Linear(2 * width, n_says)
        for last in (self.readout, self.said):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, evidence: Evidence, plan: Tensor) -> Conclusion:
        """What is concluded of every entry and of every query.

        Args:
            evidence: Q is at least 1.
            plan: [T, Q, N], how much of a query each class is assigned; rows sum to one.
        """
        # in place here and below: with many classes, it is memory that takes the time
        hidden = self.entry(evidence.entries)  # [T, Q, N, W]
        hidden.add_((self.query(evidence.queries) + self.task(evidence.tasks).unsqueeze(1)).unsqueeze(2))
        hidden = hidden.add_(self.one_class(evidence.classes).unsqueeze(1)).relu_()
        of_class = plan / (plan.sum(1, keepdim=True) + 1)
        for layer in self.layers:
            hidden = layer(hidden, of_class)
        pooled = torch.cat([hidden.mean(2), (hidden * plan.unsqueeze(-1)).sum(2)], dim=-1)  # [T, Q, 2W]
        return Conclusion(self.readout(hidden).squeeze(-1), self.said(pooled))


class _Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.Linear(width, width)
        self.over_queries, self.over_assigned, self.over_classes, self.over_all = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )

    def forward(self, hidden: Tensor, of_class: Tensor) -> Tensor:
        """[T, Q, N, W] from the same; of_class [T, Q, N] weighs the queries of a class."""
        over_queries = hidden.mean(1, keepdim=True)  # [T, 1, N, W]
        assigned = torch.einsum("tqn,tqnw->tnw", of_class, hidden).unsqueeze(1)
        context = self.over_queries(over_queries) + self.over_assigned(assigned)
        context = context + self.over_all(over_queries.mean(2, keepdim=True))
        moved = self.own(hidden).add_(context).add_(self.over_classes(hidden.mean(2, keepdim=True))).relu_()
        return hidden + moved
