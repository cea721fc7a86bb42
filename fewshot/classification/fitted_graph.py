"""A fitted classifier as one network from pictures to probabilities, to be written as a graph for other programs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fewshot.classification.row_view import RowView
from fewshot.classification.saved_classifier import FittedClassifier
from fewshot.data.transforms import evaluation_transform
from fewshot.methods.frozen_head import FrozenHead
from fewshot.training.saved_model import plain_backbone


class FittedGraph(nn.Module):
    """Probabilities of each picture by itself, as `FewShotClassifier.predict_proba` says them, in float32 on the CPU.

    Args:
        fitted: what `read_classifier` gave.
    """

    centre: Tensor | None
    whitening: Tensor | None
    support: Tensor
    support_labels: Tensor
    head_weights: Tensor
    head_scale: Tensor
    head_bias: Tensor
    head_centre: Tensor

    def __init__(self, fitted: FittedClassifier) -> None:
        super().__init__()
        adapted, head = fitted.adapted, fitted.adapted.head
        self.backbone: Any = None if fitted.module is None else plain_backbone(fitted.module)
        self.preprocessing = fitted.preprocessing
        self.method = fitted.method if head is None else None
        self.n_way, self.temperature = adapted.n_way, adapted.temperature
        self.power = 1.0 if head is None else head.power
        kept: dict[str, Any] = {"centre": None, "whitening": None}
        if adapted.view is not None:
            kept = adapted.view._asdict()
        if head is None:
            kept |= {"support": adapted.support, "support_labels": adapted.support_labels}
        else:
            kept |= {f"head_{name}": value for name, value in head._asdict().items() if name != "power"}
        for name, value in kept.items():
            self.register_buffer(name, value)

    def forward(self, rows: Tensor) -> Tensor:
        """Probabilities [B, N] of stored pictures uint8 [B, C, stored_size, stored_size], or of features [B, D]."""
        if self.preprocessing is not None:
            rows = self.backbone(evaluation_transform(rows, self.preprocessing)).float()
        if self.centre is not None:
            rows = RowView(self.centre, self.whitening).of(rows)
        if self.method is not None:
            logits = self.method.classify(self.support, self.support_labels, rows.unsqueeze(0), self.n_way)
        else:
            head = FrozenHead(self.head_weights, self.head_scale, self.head_bias, self.head_centre, self.power)
            logits = head.logits(rows.unsqueeze(0))
        return (logits[0].float() / self.temperature).softmax(-1)
