"""Matching networks.

Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra: Matching Networks for One Shot Learning, NeurIPS 2016,
arXiv 1606.04080.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.functional.features import normalized
from fewshot.methods.base import Method
from fewshot.methods.construction import Recorded
from fewshot.methods.options import check_above, check_at_least


class FullContextEmbedding(Recorded, nn.Module):
    """Embeds support and queries in view of the whole support set (section 2.1.2 and appendix A).

    The support goes through a bidirectional LSTM, g_i = h_i forwards + h_i backwards + z_i. A query z is the input of
    an LSTM whose state h, starting at z, gets z added after every step, and which reads the support at every step: the
    read is the mean of the g weighted by softmax(h^T g). Departure: the result depends on the order of the support,
    which the paper leaves open; here it is ordered by the sum of each example's features, so that the order in which
    a task arrives does not matter.

    Args:
        n_steps: how often a query reads the support. Implementations take the size of the support; a fixed number
            serves any number of shots.
    """

    support_lstm: nn.LSTM
    query_lstm: nn.LSTMCell

    def __init__(self, n_steps: int = 5) -> None:
        super().__init__()
        check_at_least(1, n_steps=n_steps)
        self.n_steps = n_steps

    def build(self, n_features: int) -> None:
        """Make the two LSTMs for features of size D = n_features."""
        self.support_lstm = nn.LSTM(n_features, n_features, batch_first=True, bidirectional=True)
        self.query_lstm = nn.LSTMCell(2 * n_features, n_features)

    def forward(self, support: Tensor, support_labels: Tensor, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Support [T, S, D] and its labels [T, S] in the order they were read in, and the queries [T, Q, D]."""
        order = support.sum(-1).argsort(-1)  # [T, S]
        support = support.gather(1, order.unsqueeze(-1).expand_as(support))
        forwards, backwards = self.support_lstm(support)[0].chunk(2, dim=-1)
        support = support + forwards + backwards
        hidden, cell = query, torch.zeros_like(query)
        for _ in range(self.n_steps):
            attention = torch.bmm(hidden, support.transpose(1, 2)).softmax(-1)  # [T, Q, S]
            read = torch.cat([query, torch.bmm(attention, support)], dim=-1)  # [T, Q, 2D]
            states = self.query_lstm(read.flatten(0, 1), (hidden.flatten(0, 1), cell.flatten(0, 1)))
            hidden, cell = (state.view_as(query) for state in states)
            hidden = hidden + query
        return support, support_labels.gather(1, order), hidden


class MatchingNetworks(Method):
    """Log-probability of each class: how much attention a query pays to its support examples (eq. 1, section 2.1.1).

    Attention is the softmax over the support of the cosine between query and example. Inductive: every query is
    classified alone. Departure: the cosine is multiplied by a scale. With the paper's 1, attention is nearly uniform
    over the support however alike two pictures are; published implementations leave the queries unnormalised instead.

    Args:
        scale: multiplies the cosine; 1 is the paper's equation.
        learn_scale: whether the scale is trained, from the value given.
        context: full context embeddings; None compares the features as they are.

    Raises:
        ValueError: an option out of its range.
    """

    transductive = False

    def __init__(
        self, scale: float = 10.0, learn_scale: bool = True, context: FullContextEmbedding | None = None
    ) -> None:
        super().__init__()
        check_above(0, scale=scale)
        self.scale = nn.Parameter(torch.tensor(float(scale))) if learn_scale else float(scale)
        self.context = context

    def build(self, n_features: int) -> None:
        if self.context is not None:
            self.context.build(n_features)

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        if self.context is not None:
            support, support_labels, query = self.context(support, support_labels, query)
        cosine = torch.bmm(normalized(query), normalized(support).transpose(1, 2))  # [T, Q, S]
        log_attention = (self.scale * cosine).log_softmax(-1).unsqueeze(-2)  # [T, Q, 1, S]
        member = F.one_hot(support_labels, n_way).transpose(1, 2).unsqueeze(1).bool()  # [T, 1, N, S]
        return log_attention.masked_fill(~member, -torch.inf).logsumexp(-1)
