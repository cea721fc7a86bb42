"""Model-agnostic meta-learning (MAML), and its first-order variant.

Finn, Abbeel, Levine: Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks, ICML 2017, arXiv 1703.03400.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.profiler import record_function

from fewshot.episode import Episode
from fewshot.functional.inner_loop import GivenStatistics, OwnStatistics, StoredStatistics, gradient_steps
from fewshot.methods.base import Method, Refinement, in_full_precision


class MAML(Method):
    """A start of backbone and linear classifier from which a few gradient steps on the support suffice (algorithm 2).

    Each step descends the mean cross-entropy of the support; every task has weights of its own. Training descends the
    queries' cross-entropy after the last step with respect to the start, through the steps (equation 1) or, first
    order, as if their gradients were constants (section 5.2). With a frozen backbone, every task still adapts it; what
    is trained is the start of the classifier. On features, where there is no backbone to adapt, the classifier alone
    moves.

    What the queries tell of each other: with query_statistics="queries", as published, BatchNorm normalises the queries
    of a task together, so that their classification is transductive: which other queries there are changes it.
    "support" and "stored" are inductive.

    In training the queries are classified after the last step only, in evaluation after every step. The graph of all
    steps of all tasks of a batch is kept for the backward pass: where that is too much memory, lower
    data.tasks_per_batch and raise trainer.accumulate_grad_batches alike, which gives the same step. In mixed precision
    the steps are computed in float32, and the queries' pass through the backbone in half precision.

    Args:
        n_way: N, the outputs of the classifier.
        n_steps: gradient steps in training (published: 5).
        test_steps: in evaluation mode (published: 10); None takes n_steps.
        step_size: of the gradient averaged over the support (published: 0.01).
        first_order: whether the steps' gradients count as constants, which spares second derivatives.
        query_statistics: what BatchNorm normalises by. "queries": support and queries each by their own statistics.
            "support": both by the support's, under the weights at hand. "stored": both by the backbone's running
            statistics, which stay as they are; for a backbone that was pre-trained.
        chunk_size: how many tasks are computed at a time, which bounds the memory of an evaluation; None takes all.
    """

    on_features = False
    relabels = False

    def __init__(
        self,
        n_way: int,
        n_steps: int = 5,
        test_steps: int | None = 10,
        step_size: float = 0.01,
        first_order: bool = False,
        query_statistics: Literal["queries", "support", "stored"] = "queries",
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        counts = {"n_way": n_way, "n_steps": n_steps, "test_steps": test_steps, "chunk_size": chunk_size}
        for name, value in counts.items():
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} but it is at least 1")
        if not step_size > 0:
            raise ValueError(f"step_size={step_size} but it is above 0")
        if query_statistics not in ("queries", "support", "stored"):
            raise ValueError(f"query_statistics={query_statistics!r}; choose one of 'queries', 'support', 'stored'")
        self.n_way: int = n_way
        self.n_steps, self.test_steps, self.step_size = n_steps, test_steps, step_size
        self.first_order, self.query_statistics, self.chunk_size = first_order, query_statistics, chunk_size
        self.head: nn.Linear | None = None

    def build(self, n_features: int) -> None:
        self.head = nn.Linear(n_features, self.n_way)

    def refine(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Refinement:
        self.check_ways(n_way)
        return self._adapted(nn.Identity(), support, support_labels, query)

    def forward(self, backbone: nn.Module, episode: Episode) -> Refinement:
        """Logits of the queries under each task's own weights: [1, T, Q, N] in training, [K+1, T, Q, N] otherwise.

        Raises:
            ValueError: another number of ways; a backbone that is compiled, or has layers with statistics that nothing
                here can set.
        """
        self.check_ways(episode.n_way)
        if not episode.holds_features:
            check_backbone(backbone)
        else:
            backbone = nn.Identity()
        with record_function("method"):
            return self._adapted(backbone, episode.support, episode.support_labels, episode.query)

    def _adapted(self, backbone: nn.Module, support: Tensor, support_labels: Tensor, query: Tensor) -> Refinement:
        assert self.head is not None, "build comes first"
        network = _Classifier(backbone, self.head)
        own = StoredStatistics if self.query_statistics == "stored" else OwnStatistics

        def logits(parameters: dict[str, Tensor], pictures: Tensor, statistics: TorchFunctionMode) -> Tensor:
            # BatchNorm counts its batches, also where its statistics stay as they are; here it counts in a copy
            buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
            # fused attention has no second derivative
            with statistics, sdpa_kernel(SDPBackend.MATH):
                return functional_call(network, {**parameters, **buffers}, (pictures,))

        def of_task(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
            def loss(parameters: dict[str, Tensor]) -> Tensor:
                return F.cross_entropy(logits(parameters, support, own()), labels)

            def classified(parameters: dict[str, Tensor]) -> Tensor:
                if self.query_statistics != "support":
                    return logits(parameters, query, own())
                of_support = OwnStatistics()
                logits(parameters, support, of_support)
                return logits(parameters, query, GivenStatistics(of_support.seen))

            steps = gradient_steps(
                loss,
                dict(network.named_parameters()),
                n_steps=self.n_steps if self.training else self.evaluation_steps,
                step_size=self.step_size,
                first_order=self.first_order,
            )
            if not self.training:
                return torch.stack([classified(parameters) for parameters in steps])  # [K+1, Q, N]
            for parameters in steps:
                last = parameters
            return classified(last).unsqueeze(0)  # [1, Q, N]

        together = vmap(of_task, out_dims=1, randomness="different", chunk_size=self.chunk_size)
        return Refinement(together(support, support_labels, query))


class _Classifier(nn.Module):
    """Pictures [B, C, H, W], or what the backbone takes, to logits [B, N] in float32 or wider."""

    def __init__(self, backbone: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, pictures: Tensor) -> Tensor:
        features = in_full_precision(self.backbone(pictures))  # [B, D]
        with torch.autocast(device_type=features.device.type, enabled=False):
            return self.head(features)


def check_backbone(backbone: nn.Module) -> None:
    """Raise ValueError for a backbone that cannot be called with other weights within torch.func's transforms."""
    if getattr(backbone, "_compiled_call_impl", None) is not None:
        raise ValueError(
            "MAML calls the backbone with weights of its own for each task, within torch.func, where nothing can be "
            "called that torch.compile translated; set model.backbone.compile=false"
        )
    for name, module in backbone.named_modules():
        standard = isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
        if isinstance(getattr(module, "running_var", None), Tensor) and not standard:
            raise ValueError(
                f"MAML decides by which statistics BatchNorm normalises, but the backbone's '{name}' is a "
                f"{type(module).__name__}, which it cannot tell; choose a backbone with BatchNorm layers, or with none "
                "that keep statistics, and leave trainer.sync_batchnorm at false"
            )
