"""SimpleShot: nearest class mean after centring by the training classes' mean.

Wang, Chao, Weinberger, van der Maaten: SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning,
2019, arXiv 1911.04623.
"""

from __future__ import annotations

from torch import Tensor

from fewshot.functional.features import class_means, normalized, squared_distances
from fewshot.methods.base import Method
from fewshot.methods.options import check_above


class SimpleShot(Method):
    """Nearest class mean by Euclidean distance, of features centred by the training classes' mean and L2-normalised.

    The paper's CL2N (section 3, "Feature transformations"): z <- (z - mean of the training pictures), z <- z / |z|.
    Inductive: every query is classified by itself, nothing is assumed about the others.

    Args:
        scale: multiplies minus the squared distance; it changes the probabilities, not the predicted class.

    Raises:
        ValueError: an option out of its range.
    """

    transductive = False
    needs_base = "features"

    def __init__(self, scale: float = 10.0) -> None:
        super().__init__()
        check_above(0, scale=scale)
        self.scale = scale

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        centre = self.base.mean
        support = normalized(support - centre)
        query = normalized(query - centre)
        return -self.scale * squared_distances(query, class_means(support, support_labels, n_way))
