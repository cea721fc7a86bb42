"""What the support alone says of a query: a learned mixture of classifiers in closed form, for any feature size."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fewshot.functional.features import normalized
from fewshot.functional.gram import Gram, RegularizedInverse, gram_of
from fewshot.functional.logistic import logistic_weights

N_CLASSIFIERS = 9
FIRST_WEIGHTS = (5.0, 1.0, 1.0, 1.0, 3.0, 1.0, 1.0, 3.0, 1.0)
"""Of the classifiers, in the order of `SupportMixture`; their logits are of about equal size then."""
PENALTY = 0.1
"""lambda of the logistic regressions; C = 10."""
ITERATIONS = 20


class SupportAnswer(NamedTuple):
    """What is known before the queries are looked at together."""

    logits: Tensor
    """[T, Q, N], of each query by itself."""
    cosines: Tensor
    """[T, Q, N], with the class means about the support's centre."""
    clearness: Tensor
    """[T, Q, 4], how near each query is to any class: among the queries by cosines, by cosines of features as they are
    and by logits, and beside the support's examples."""
    certainty: Tensor
    """[T, 2], the share of the support that the other examples classify rightly, by ridge regression and by class
    means; 0 at one shot."""


class _View(NamedTuple):
    """A task in one of the ways in which features can be seen."""

    support: Gram
    query: Tensor
    """What the support's weights are multiplied with: inner products [T, Q, S], or features [T, Q, D]."""

    def scores(self, weights: Tensor) -> Tensor:
        """Of the queries, [T, Q, N]."""
        return torch.bmm(self.query, weights)


class SupportMixture(nn.Module):
    """Logits of every query by itself: closed-form classifiers of the support, weighted by a small network.

    The classifiers: class means on powered and centred features, ridge and logistic regression on them; class means and
    ridge regression on powered features without centring; class means and logistic regression on features as they are,
    centred and not. Which of them to believe, and how sharply, the network reads from the number of shots and ways, the
    support's effective rank, how well the support's examples are classified by the others, and how clear the query is.
    No parameter's shape depends on the feature size.

    Args:
        width: hidden units of the network.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.weigh = small_network(11, N_CLASSIFIERS, width)
        self.log_penalties = nn.Parameter(torch.zeros(2))

    def forward(self, powered: Tensor, plain: Tensor, one_hot: Tensor) -> SupportAnswer:
        """Classify the queries.

        Args:
            powered: [T, S+Q, D], power-transformed and of length one, the support first.
            plain: [T, S+Q, D], of length one.
            one_hot: [T, S, N], the support's labels.
        """
        members = one_hot / one_hot.sum(1, keepdim=True)  # [T, S, N]
        views = [view for features in (powered, plain) for view in _views(features, members)]
        powered_centred, powered_plain, centred, as_it_is = views
        penalties = self.log_penalties.exp()
        ridge, left_out = _ridge(powered_centred, one_hot, penalties[0])
        first = _mean_cosines(powered_centred, members)
        found = [
            first,
            ridge,
            _logistic(powered_centred, one_hot),
            _mean_cosines(powered_plain, members),
            _ridge(powered_plain, one_hot, penalties[1])[0],
            _mean_cosines(centred, members),
            _logistic(centred, one_hot),
            _mean_cosines(as_it_is, members),
            _logistic(as_it_is, one_hot),
        ]
        logits = torch.stack(found, dim=-1)  # [T, Q, N, 9]
        logits = logits - logits.mean(2, keepdim=True)
        about_task = self._about_task(powered_centred, members, one_hot, left_out)  # [T, 6]
        about_query = _about_query(first, logits)  # [T, Q, 5]
        told = torch.cat([about_task.unsqueeze(1).expand(-1, logits.shape[1], -1), about_query], dim=-1)
        weights = self.weigh(told).clamp(-6, 6).exp() * (logits.new_tensor(FIRST_WEIGHTS) / 3)  # [T, Q, 9]
        answer = (logits * weights.unsqueeze(2)).sum(-1)
        best, best_plain = first.amax(-1), found[7].amax(-1)  # [T, Q]
        within = (_mean_cosines(as_it_is._replace(query=as_it_is.support.rows), members) * one_hot).sum((1, 2))
        beside = best_plain - (within / one_hot.shape[1]).unsqueeze(-1)
        clear = [*map(among_queries, (best, best_plain, answer.logsumexp(-1))), beside / _spread(best_plain) / 3]
        return SupportAnswer(answer, first, torch.stack(clear, dim=-1), about_task[:, 3:5])

    @staticmethod
    def _about_task(view: _View, members: Tensor, one_hot: Tensor, left_out: Tensor) -> Tensor:
        """[T, 6]: log shots, log ways, effective rank, how often ridge and class means are right about the support."""
        n_support, n_way = one_hot.shape[1:]
        counts = one_hot.sum(1, keepdim=True)  # [T, 1, N]
        means, own = view.support.times(members), view.support.matrix  # [T, S, N], of each example with all of a class
        without = (means - one_hot * own.diagonal(dim1=1, dim2=2).unsqueeze(-1) / counts) * (
            counts / (counts - 1).clamp_min(1)
        )
        several = (counts.mean((1, 2)) > 1).to(means.dtype)  # [T]
        of_own = torch.where(one_hot > 0, without, means)
        right = one_hot.argmax(-1)
        shares = [several * (guess.argmax(-1) == right).to(means.dtype).mean(1) for guess in (left_out, of_own)]
        trace = own.diagonal(dim1=1, dim2=2).sum(-1)
        rank = trace.square() / own.square().sum((1, 2)).clamp_min(1e-6) / n_support
        within = (without * one_hot).sum((1, 2)) / n_support
        sizes = [torch.full_like(rank, size).log() for size in (n_support / n_way, n_way)]
        return torch.stack([*sizes, rank.clamp_min(1e-6).log(), *shares, within], dim=-1)


def small_network(n_inputs: int, n_outputs: int, width: int) -> nn.Sequential:
    """A perceptron with two hidden layers whose outputs start at zero."""
    network = nn.Sequential(
        nn.Linear(n_inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, n_outputs)
    )
    last = network[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return network


def _views(features: Tensor, members: Tensor) -> tuple[_View, _View]:
    """Inner products about the mean of the class means, of length one again; and as they are."""
    n_support = members.shape[1]
    centre = torch.bmm(members.transpose(1, 2), features[:, :n_support]).mean(1, keepdim=True)  # [T, 1, D]
    found = []
    for seen in (normalized(features - centre), features):
        support, query = seen[:, :n_support], seen[:, n_support:]
        gram = gram_of(support)
        found.append(_View(gram, torch.bmm(query, support.transpose(1, 2)) if gram.factor is None else query))
    return found[0], found[1]


def _mean_cosines(view: _View, members: Tensor) -> Tensor:
    """Cosines of the queries with the class means, [T, Q, N]."""
    weights = view.support.weights(members)
    square = (members * view.support.scores(weights)).sum(1, keepdim=True)  # [T, 1, N]
    return view.scores(weights) * square.clamp_min(1e-6).rsqrt()


def _ridge(view: _View, one_hot: Tensor, penalty: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression's scores of the queries [T, Q, N], and of each support example fitted without it [T, S, N]."""
    targets = one_hot - 1 / one_hot.shape[-1]
    inverted = RegularizedInverse(view.support, penalty)
    weights = inverted.times(view.support.weights(targets))
    return view.scores(weights), inverted.left_out(targets, weights)


def _logistic(view: _View, one_hot: Tensor) -> Tensor:
    """Logistic regression's logits of the queries, [T, Q, N]; there is nothing in it to be learned but the features."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and view.query.requires_grad):
        return view.scores(logistic_weights(view.support, one_hot, PENALTY, ITERATIONS))


def _about_query(cosines: Tensor, logits: Tensor) -> Tensor:
    """[T, Q, 5]: how clear each query is."""
    best = cosines.topk(min(2, cosines.shape[-1]), dim=-1).values
    probability = logits[..., 6].softmax(-1).amax(-1)
    ridge = logits[..., 4].amax(-1)
    spread = cosines.var(-1, unbiased=False).clamp_min(1e-12).sqrt()
    return torch.stack([spread, best[..., 0], best[..., 0] - best[..., -1], probability, ridge], dim=-1)


def among_queries(values: Tensor) -> Tensor:
    """[T, Q] less their mean over the queries, in units of their standard deviation."""
    return (values - values.mean(1, keepdim=True)) / _spread(values)


def _spread(values: Tensor) -> Tensor:
    """Standard deviation over the queries, [T, 1] from [T, Q]; at least 0.02."""
    return values.var(1, unbiased=False, keepdim=True).clamp_min(4e-4).sqrt()
