"""Category traversal (CTM).

Li, Eigen, Dodge, Zeiler, Wang: Finding Task-Relevant Features for Few-Shot Learning by Category Traversal, CVPR 2019,
arXiv 1905.11116.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewshot.functional.cosine import cosine_logits
from fewshot.functional.features import class_means, normalized
from fewshot.methods.base import Method
from fewshot.methods.options import check_above, check_at_least


class CTM(Method):
    """Nearest class mean by cosine, on those feature dimensions that matter for the task (section 3 of the paper).

    A concentrator looks at each support example and is averaged over those of a class: what they have in common. A
    projector sees the classes side by side, in the order of their labels, and gives a mask over feature dimensions, a
    softmax. A reshaper brings support and queries to the mask's size, and the metric sees them times the mask. As the
    classes stand side by side, it serves one number of ways, and renumbering them changes more than the order of the
    logits. Inductive: every query is classified alone.

    Departures: the three are perceptrons on feature vectors, where the paper has convolutional blocks with BatchNorm on
    maps, for the reasons given for RelationNetwork. The metric is the cosine to the class's mean with a learned scale,
    which the mask's size does not change; the paper puts its module before several metrics.

    Args:
        n_way: N, the only number of ways it serves.
        width: features of the concentrator and hidden units of the projector.
        n_masked: features that the reshaper makes and the mask weighs.
        scale: what the learned factor of the cosine starts at.

    Raises:
        ValueError: an option out of its range.
    """

    transductive = False
    relabels = False
    concentrator: nn.Sequential
    reshaper: nn.Linear

    def __init__(self, n_way: int = 5, width: int = 64, n_masked: int = 256, scale: float = 10.0) -> None:
        super().__init__()
        check_at_least(2, n_way=n_way)
        check_at_least(1, width=width, n_masked=n_masked)
        check_above(0, scale=scale)
        self.n_way: int = n_way
        self.width, self.n_masked = width, n_masked
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.projector = nn.Sequential(nn.Linear(n_way * width, width), nn.ReLU(), nn.Linear(width, n_masked))

    def build(self, n_features: int) -> None:
        self.concentrator = nn.Sequential(nn.Linear(n_features, self.width), nn.ReLU())
        self.reshaper = nn.Linear(n_features, self.n_masked)

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        self.check_ways(n_way)
        concentrated = class_means(self.concentrator(support), support_labels, n_way)  # [T, N, width]
        mask = self.projector(concentrated.flatten(1)).softmax(-1).unsqueeze(1)  # [T, 1, M]
        means = class_means(mask * self.reshaper(support), support_labels, n_way)  # [T, N, M]
        return cosine_logits(normalized(mask * self.reshaper(query)), means, self.scale, 0.0)
