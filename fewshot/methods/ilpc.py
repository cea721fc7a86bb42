"""Iterative label cleaning (iLPC).

Lazarou, Stathaki, Avrithis: Iterative Label Cleaning for Transductive and Semi-supervised Few-shot Learning, ICCV 2021,
arXiv 2012.07962.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.functional.features import centred, normalized, signed_power
from fewshot.functional.graph import cosine_affinities, propagated, symmetrically_normalized
from fewshot.functional.transport import sinkhorn_plan
from fewshot.methods.base import Method
from fewshot.methods.class_prior import ClassPrior, Prior
from fewshot.methods.options import check_above, check_at_least, check_share

NEVER = -1e4
"""Score of what is not to be assigned; finite, so that an empty column has a logarithm of its sum."""
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4
"""Of the linear head that tells clean labels from others, as in the published code."""


class ILPC(Method):
    """Log-assignment of the queries, of which the cleanest of every class join the support, round after round.

    A round propagates the labels known so far over a graph of nearest neighbours, balances the result by Sinkhorn to
    what each class has left, and trains a linear head on everything, queries with the labels just predicted; the
    queries of each class with the lowest loss, averaged over the head's training, join the support. It ends for a task
    when fewer than `least_joining` would join; the others have their latest label. Transductive. It assumes that
    queries are balanced (`prior` says otherwise). Nothing is meta-trained, and nothing can be differentiated through.

    The head is linear, its gradient a formula: all tasks descend at once, on the coefficients of the examples that its
    weights are made of, which needs the inner products of the task alone.

    Departures: labels are propagated by a solve, where the published code stops conjugate gradients at 20 iterations or
    1e-6, whichever comes first; negative cosines have no weight in the graph (as in the paper, not in its code); the
    head's offset starts at zero rather than at random; classes with nothing left get nothing.

    Args:
        power: exponent of the signed power transform, after which features are centred by their task's mean; None
            leaves both out. The published code has 0.5 for wide ResNets and neither for ResNet-12.
        n_neighbours: of the graph; 15 in the published code for small backbones, 20 for wide ResNets.
        alpha: how far labels spread, 0.8 in the published code.
        sharpening: exponent of the propagated labels before Sinkhorn, 3 in the published code.
        n_joining: queries of each class that join in a round, 3 in the published code.
        least_joining: fewest queries of a task with which it goes on, 5 in the published code.
        n_head_steps: of the linear head, 1000 in the published code.
        prior: what share of the queries each class has; see ClassPrior. The scores are the first round's.
        prior_strength: of prior="queries"; see ClassPrior.

    Raises:
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        power: float | None = 0.5,
        n_neighbours: int = 15,
        alpha: float = 0.8,
        sharpening: float = 3.0,
        n_joining: int = 3,
        least_joining: int = 5,
        n_head_steps: int = 1000,
        prior: Prior = "uniform",
        prior_strength: float = 5.0,
    ) -> None:
        super().__init__()
        check_at_least(
            1, n_head_steps=n_head_steps, n_neighbours=n_neighbours, n_joining=n_joining, least_joining=least_joining
        )
        check_above(0, power=power, sharpening=sharpening)
        check_share(alpha=alpha)
        self.power, self.n_neighbours, self.alpha, self.sharpening = power, n_neighbours, alpha, sharpening
        self.n_joining, self.least_joining, self.n_head_steps = n_joining, least_joining, n_head_steps
        self.prior = ClassPrior(prior, prior_strength)
        self.relabels = self.prior.relabels

    @torch.no_grad()
    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        features = signed_power(torch.cat([support, query], dim=1), self.power)  # [T, n, D]
        features = normalized(features) if self.power is None else normalized(centred(normalized(features)))
        graph = symmetrically_normalized(cosine_affinities(features, self.n_neighbours, 3.0))
        one_of_each = torch.eye(graph.shape[-1], dtype=graph.dtype, device=graph.device).expand_as(graph)
        reach = propagated(graph, one_of_each, self.alpha)  # [T, n, n]: the graph stays, the labels grow
        gram = torch.bmm(features, features.transpose(1, 2))
        known = F.one_hot(support_labels, n_way).to(features.dtype)
        labels = F.pad(known, (0, 0, 0, query.shape[1]))  # [T, n, N], zero rows for queries that have not joined
        scores = self._spread(reach, labels)[:, support.shape[1] :]
        budget = self.prior.proportions(scores, support_labels) * query.shape[1]  # [T, N]
        return self._cleaned(reach, gram, labels, budget)

    def _cleaned(self, reach: Tensor, gram: Tensor, labels: Tensor, budget: Tensor) -> Tensor:
        """Log-assignment [T, Q, N] of the queries, each as it was when it joined, or when its task ended."""
        n_support = int(labels[0].any(-1).sum())
        n_query = labels.shape[1] - n_support
        result = labels.new_zeros(len(labels), n_query, labels.shape[-1])
        joined = labels[:, n_support:].any(-1)  # [T, Q]
        running = torch.arange(len(labels), device=labels.device)
        while len(running) and n_query:  # at least `least_joining` queries of every running task join in each round
            open_, reference = ~joined[running], labels[running]
            plan = self._plan(self._spread(reach[running], reference)[:, n_support:], open_, budget[running])
            result[running] = torch.where(open_.unsqueeze(-1), plan, result[running])
            guesses = F.one_hot(plan.argmax(-1), labels.shape[-1]).to(labels.dtype) * open_.unsqueeze(-1)  # [R, Q, N]
            loss = self._mean_loss(gram[running], reference, F.pad(guesses, (0, 0, n_support, 0)))[:, n_support:]
            chosen = self._cleanest(loss, guesses)  # [R, Q, N]
            going = chosen.sum((1, 2)) >= self.least_joining
            running, chosen = running[going], chosen[going]
            labels[running, n_support:] += chosen
            budget[running] = (budget[running] - chosen.sum(1)).clamp_min(0)
            joined[running] |= chosen.any(-1)
            running = running[~joined[running].all(-1)]
        return result.clamp_min(torch.finfo(result.dtype).tiny).log()

    def _spread(self, reach: Tensor, labels: Tensor) -> Tensor:
        """Logarithm of the propagated labels, each row's shares to the power of `sharpening`, [R, n, N]."""
        spread = torch.bmm(reach, labels).clamp_min(torch.finfo(labels.dtype).tiny)
        return self.sharpening * (spread / spread.sum(-1, keepdim=True)).log()

    def _plan(self, scores: Tensor, open_: Tensor, budget: Tensor) -> Tensor:
        """Sinkhorn plan of the open queries to what classes have left, [R, Q, N]; rows of the others mean nothing.

        Tasks have different numbers of open queries: the others go to a column of their own that holds just them.
        """
        n_open = open_.sum(-1, keepdim=True)  # [R, 1]
        left = budget * (n_open / budget.sum(-1, keepdim=True))
        closed = ~open_.unsqueeze(-1)  # [R, Q, 1]
        scores = torch.cat(
            [scores.masked_fill(closed, NEVER), torch.where(closed, 0.0, NEVER).to(scores.dtype)], dim=-1
        )
        masses = torch.cat([left, open_.shape[1] - n_open], dim=-1)
        return sinkhorn_plan(scores, masses)[..., :-1]

    def _mean_loss(self, gram: Tensor, known: Tensor, guesses: Tensor) -> Tensor:
        """Cross-entropy of each example [R, n], averaged over the training of a linear head on these labels.

        The head is x^T W + b with W the normalised class means of the known examples, b zero, and SGD on the mean
        cross-entropy. After any number of steps W = decay W_0 + X^T A and b = 1^T A, so that the logits are those of
        decay X W_0 + (X X^T + 1) A and the gradient with respect to A is that of the logits.
        """
        n = gram.shape[-1]
        target = (known + guesses).transpose(1, 2).contiguous()  # [R, N, n]: sums over classes run along memory
        imprinted = known.transpose(1, 2)
        squares = (torch.bmm(imprinted, gram) * imprinted).sum(-1, keepdim=True)  # [R, N, 1]
        start = torch.bmm(imprinted * squares.clamp_min(torch.finfo(gram.dtype).tiny).rsqrt(), gram)  # [R, N, n]
        kernel = gram + 1
        coefficients, velocity, total = (torch.zeros_like(target) for _ in range(3))
        decay, decay_velocity = 1.0, 0.0
        for _ in range(self.n_head_steps):
            log_probabilities = torch.baddbmm(start, coefficients, kernel, beta=decay).log_softmax(1)
            total += log_probabilities
            velocity.mul_(MOMENTUM).add_(log_probabilities.exp_().sub_(target), alpha=1 / n)
            velocity.add_(coefficients, alpha=WEIGHT_DECAY)
            coefficients.sub_(velocity, alpha=LEARNING_RATE)
            decay_velocity = MOMENTUM * decay_velocity + WEIGHT_DECAY * decay
            decay -= LEARNING_RATE * decay_velocity
        return -(total * target).sum(1) / self.n_head_steps

    def _cleanest(self, loss: Tensor, guesses: Tensor) -> Tensor:
        """One-hot of the open queries with the lowest losses of each class guessed, [R, Q, N]; zero for all others."""
        losses = loss.unsqueeze(-1).masked_fill(guesses == 0, torch.inf)  # [R, Q, N]
        lowest = losses.topk(min(self.n_joining, loss.shape[1]), dim=1, largest=False).indices
        return torch.zeros_like(guesses).scatter_(1, lowest, 1.0) * guesses
