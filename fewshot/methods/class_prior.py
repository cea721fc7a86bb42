"""The class prior of methods that else assume as many queries of every class: one option, shared by all of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.functional.information import class_softmax
from fewshot.methods.options import check_at_least

PRIORS = ("uniform", "support", "queries")
Prior = str | list[float]
"""How a constructor takes it; see `ClassPrior`."""


class ClassPrior:
    """What share of a task's queries each class is assumed to have.

    - "uniform": all classes the same. It is what the papers take, and right where episodes are balanced; where they
      are not, a method that enforces it loses what it wins on balanced ones.
    - a list of N proportions: known from elsewhere; class c of every task has the c-th.
    - "support": the shares of the support, which tell something where it was drawn as the queries are.
    - "queries": estimated from the queries' own scores, by expectation maximisation of the proportions with the
      class-conditional densities fixed (Saerens, Latinne, Decaestecker: Adjusting the Outputs of a Classifier to New a
      Priori Probabilities, Neural Computation 2002, eqs. 2.8 to 2.10): the scores are taken for log-densities up to a
      constant for each query, soft counts c of the queries under the current proportions are added up, and the new
      proportions are (c + strength) / (Q + N strength), which is the mode under a Dirichlet(1 + strength) prior.

    Args:
        prior: one of these.
        strength: 0 or more, of the estimate from queries: so many queries of every class are taken to have been seen
            before. 0 is maximum likelihood; much more than Q/N is as good as "uniform".
        n_iterations: of expectation maximisation.

    Raises:
        ValueError: another word, or proportions that are none.
    """

    def __init__(self, prior: Prior = "uniform", strength: float = 2.0, n_iterations: int = 20) -> None:
        if isinstance(prior, str):
            if prior not in PRIORS:
                raise ValueError(f"prior={prior!r} is not known; choose one of {', '.join(PRIORS)}, or N proportions")
        elif prior is None or not len(prior) or min(prior) < 0 or not sum(prior) > 0:
            raise ValueError(
                f"prior={prior and list(prior)} are no proportions; give N numbers of 0 or more, not all 0"
            )
        check_at_least(0, prior_strength=strength)
        self.prior, self.strength, self.n_iterations = prior, strength, n_iterations

    @property
    def relabels(self) -> bool:
        """Whether it is the same for all numberings of the classes."""
        return isinstance(self.prior, str) or len(set(self.prior)) == 1

    def proportions(self, scores: Tensor, support_labels: Tensor) -> Tensor:
        """[T, N], each task's summing to one.

        Args:
            scores: [T, Q, N] of the queries, log-densities up to a constant for each query.
            support_labels: [T, S] int64.

        Raises ValueError where the proportions given are not N.
        """
        n_tasks, _, n_way = scores.shape
        if self.prior == "uniform":
            return scores.new_full((n_tasks, n_way), 1 / n_way)
        if self.prior == "support":
            return F.one_hot(support_labels, n_way).to(scores.dtype).mean(1)
        if self.prior == "queries":
            return estimated_proportions(scores, self.strength, self.n_iterations)
        if len(self.prior) != n_way:
            raise ValueError(
                f"prior has {len(self.prior)} proportions but the episodes have {n_way} ways; give {n_way}"
            )
        given = scores.new_tensor(list(self.prior))
        return (given / given.sum()).expand(n_tasks, n_way)


def estimated_proportions(scores: Tensor, strength: float, n_iterations: int) -> Tensor:
    """Class proportions of the queries by expectation maximisation, [T, N]; see `ClassPrior`.

    Args:
        scores: [T, Q, N], log-densities up to a constant for each query; Q may be 0.
        strength: 0 or more, queries of every class seen before.
        n_iterations: how many.
    """
    _, n_query, n_way = scores.shape
    log_proportions = scores.new_zeros(scores.shape[0], 1, n_way)
    proportions = scores.new_full((scores.shape[0], n_way), 1 / n_way)
    for _ in range(n_iterations if n_query or strength else 0):
        counts = class_softmax(scores + log_proportions).sum(1)  # [T, N]
        proportions = (counts + strength) / (n_query + n_way * strength)
        log_proportions = proportions.clamp_min(torch.finfo(scores.dtype).tiny).log().unsqueeze(1)
    return proportions
