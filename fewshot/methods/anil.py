"""ANIL (almost no inner loop): MAML whose inner loop moves the classifier alone.

Raghu, Raghu, Bengio, Vinyals: Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of MAML,
ICLR 2020, arXiv 1909.09157.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap

from fewshot.functional.inner_loop import gradient_steps
from fewshot.methods.base import Method, Refinement


class ANIL(Method):
    """A start of a linear classifier from which a few gradient steps on the support's features suffice (section 4).

    Each step descends the mean cross-entropy of the support. Training descends the queries' cross-entropy after the
    last step with respect to the classifier's start and, unless frozen, the backbone, which every task uses as it is.

    Departure: in the published code BatchNorm normalises the queries of a task together, at test too. Here the backbone
    is called as for every method on features: its BatchNorm layers take the statistics of the whole batch in training
    and running statistics at test. Inductive: every query is classified alone.

    Args:
        n_way: N, the outputs of the classifier.
        n_steps: gradient steps in training (published: 5).
        test_steps: in evaluation mode (published: 10); None takes n_steps.
        step_size: of the gradient averaged over the support (published: 0.01).
        first_order: whether the steps' gradients count as constants.
    """

    transductive = False
    relabels = False

    def __init__(
        self,
        n_way: int,
        n_steps: int = 5,
        test_steps: int | None = 10,
        step_size: float = 0.01,
        first_order: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("n_way", n_way), ("n_steps", n_steps), ("test_steps", test_steps)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} but it is at least 1")
        if not step_size > 0:
            raise ValueError(f"step_size={step_size} but it is above 0")
        self.n_way: int = n_way
        self.n_steps: int = n_steps
        self.test_steps, self.step_size, self.first_order = test_steps, step_size, first_order
        self.head: nn.Linear | None = None

    def build(self, n_features: int) -> None:
        self.head = nn.Linear(n_features, self.n_way)

    def refine(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Refinement:
        assert self.head is not None, "build comes first"
        self.check_ways(n_way)
        start = dict(self.head.named_parameters())

        def of_task(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
            steps = gradient_steps(
                lambda head: F.cross_entropy(F.linear(support, **head), labels),
                start,
                n_steps=self.n_steps if self.training else self.evaluation_steps,
                step_size=self.step_size,
                first_order=self.first_order,
            )
            return torch.stack([F.linear(query, **head) for head in steps])  # [K+1, Q, N]

        return Refinement(vmap(of_task, out_dims=1)(support, support_labels, query))
