"""Transductive fine-tuning: cross-entropy on the support and entropy on the queries, in turns.

Dhillon, Chaudhari, Ravichandran, Soatto: A Baseline for Few-Shot Image Classification, ICLR 2020, arXiv 1909.02729.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.functional.euclidean import adam_descent
from fewshot.functional.features import class_means, normalized
from fewshot.methods.base import Method, Refinement
from fewshot.methods.options import check_above, check_at_least


class Head(NamedTuple):
    """What is fine-tuned, each task its own."""

    classifier: Tensor
    """[T, C, D], the pre-training classifier's weights."""
    weights: Tensor
    """[T, N, C]."""
    bias: Tensor
    """[T, N]."""


class TransductiveFineTuning(Method):
    """A classifier on the pre-training classifier's logits, fine-tuned together with it (section 3).

    The logits of the C training classes go through a ReLU and are L2-normalised, the class weights start at the
    normalised class means of these, the biases at zero. Each round is an Adam step down the support's cross-entropy and
    one down the mean entropy of the queries' predictions.

    Assumes of the queries: that they belong to the classes of the support; nothing about proportions. With little
    support nothing keeps the entropy from being lowered towards the wrong class.

    Departure: the published method tunes the whole network; here the backbone stays as it is and everything on top of
    it, the pre-training classifier's weights included, is tuned. That runs on stored features, all tasks together,
    and moves less.

    Args:
        n_rounds: of two steps (published: 25).
        learning_rate: of Adam (published: 5e-5).
        temperature: multiplies the logits of the new classifier (published: 1).

    Raises:
        ValueError: an option out of its range.
    """

    needs_base = "classifier"
    n_steps = 1

    def __init__(self, n_rounds: int = 25, learning_rate: float = 5e-5, temperature: float = 1.0) -> None:
        super().__init__()
        check_at_least(0, n_rounds=n_rounds)
        check_above(0, learning_rate=learning_rate, temperature=temperature)
        self.n_rounds, self.learning_rate, self.temperature = n_rounds, learning_rate, temperature

    def refine(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Refinement:
        """Before and after fine-tuning; the tuned weights are constants to autograd."""
        support, query = normalized(support), normalized(query)
        start = self._start(support, support_labels, n_way)
        end = self._tuned(start, support, support_labels, query)
        return Refinement(torch.stack([self._logits(query, head) for head in (start, end)]))

    def _start(self, support: Tensor, support_labels: Tensor, n_way: int) -> Head:
        classifier = self.base.weights
        assert classifier is not None  # `prepare` refuses without
        classifier = classifier.to(support.dtype).expand(len(support), *classifier.shape)
        means = class_means(self._responses(support, classifier), support_labels, n_way)  # [T, N, C]
        return Head(classifier, normalized(means), means.new_zeros(means.shape[:2]))

    def _responses(self, features: Tensor, classifier: Tensor) -> Tensor:
        """L2-normalised logits of the training classes after a ReLU, [T, n, C]; their scale cancels."""
        return normalized(torch.bmm(features, normalized(classifier).transpose(1, 2)).relu())

    def _logits(self, features: Tensor, head: Head) -> Tensor:
        responses = self._responses(features, head.classifier)
        return self.temperature * torch.baddbmm(head.bias.unsqueeze(1), responses, head.weights.transpose(1, 2))

    def _tuned(self, start: Head, support: Tensor, support_labels: Tensor, query: Tensor) -> Head:
        """The head after all rounds."""
        shapes = [part.shape[1:] for part in start]
        sizes = [shape.numel() for shape in shapes]

        def unpacked(flat: Tensor) -> Head:
            return Head(*(part.view(-1, *shape) for part, shape in zip(flat.split(sizes, dim=1), shapes, strict=True)))

        with torch.inference_mode(False):  # clones made here can be differentiated, also inside Trainer.test
            support, labels, query = support.detach().clone(), support_labels.clone(), query.detach().clone()
            flat = torch.cat([part.detach().clone().flatten(1) for part in start], dim=1)  # [T, P]
            n_steps_made = 0

            def gradient(flat: Tensor) -> Tensor:
                nonlocal n_steps_made
                on_support, n_steps_made = n_steps_made % 2 == 0, n_steps_made + 1
                with torch.enable_grad():
                    flat = flat.detach().requires_grad_()
                    if on_support:
                        logits = self._logits(support, unpacked(flat)).transpose(1, 2)  # [T, N, S]
                        loss = F.cross_entropy(logits, labels, reduction="none").mean(1).sum()
                    else:
                        log_probabilities = self._logits(query, unpacked(flat)).log_softmax(-1)
                        loss = -(log_probabilities.exp() * log_probabilities).sum(-1).mean(1).sum()
                    return torch.autograd.grad(loss, flat)[0]

            tuned = adam_descent(flat, gradient, learning_rate=self.learning_rate, n_iterations=2 * self.n_rounds)
        return unpacked(tuned)
