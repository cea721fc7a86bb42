"""One small network shared by all (query, class) entries of a task: what learned query gradients are made of."""

from __future__ import annotations

from torch import Tensor, nn


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
