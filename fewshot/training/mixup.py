"""Mixup: pairs of pictures, or of their maps at a hidden layer, mixed together with their labels.

Zhang, Cisse, Dauphin, Lopez-Paz: mixup: Beyond Empirical Risk Minimization, ICLR 2018, arXiv 1710.09412. Verma et al.:
Manifold Mixup: Better Representations by Interpolating Hidden States, ICML 2019, arXiv 1806.05236. For few shots:
Mangla et al.: Charting the Right Manifold: Manifold Mixup for Few-shot Learning, WACV 2020, arXiv 1907.12087 (S2M2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUT = "input"
"""What the pictures themselves are called among the layers."""


class Mixing(NamedTuple):
    """How one batch is mixed."""

    share: float
    """Lambda, what a row keeps of itself, 0..1."""
    partner: Tensor
    """[B] int64, the row that it gets the rest from; its own where nothing is mixed in."""
    layer: str
    """Whose output is mixed."""

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows [B, ...] mixed; a row whose partner is itself stays the same to the last bit."""
        return torch.lerp(rows[self.partner], rows, self.share)

    def dominant(self, labels: Tensor) -> Tensor:
        """[B], the label of what a mixed row has more of, from the labels [B] of the rows."""
        return labels if self.share >= 0.5 else labels[self.partner]


@dataclass(frozen=True)
class Mixup:
    """Which layers may be mixed, and how strongly.

    Each batch draws one layer, one share from Beta(alpha, alpha) and one permutation.

    Departure: S2M2 first trains with rotation alone and then with mixup beside it; here one run does either or both,
    and a second one goes on from the first where backbone.weights names it.

    Attributes:
        alpha: of the Beta distribution (published: 2 for hidden layers and S2M2, 1 and less for pictures).
        layers: what may be mixed: "input" for the pictures, and names of the backbone's modules for their outputs. S2M2
            takes the pictures and each of the three stages of its WRN.

    Raises:
        ValueError: alpha is not above 0, or no layers are given.
    """

    alpha: float = 1.0
    layers: list[str] = field(default_factory=lambda: [INPUT])

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < math.inf:
            raise ValueError(f"mixup.alpha={self.alpha}; give a number above 0, or leave mixup out")
        if not self.layers:
            raise ValueError("mixup.layers=[]; name what is to be mixed, such as ['input'], or leave mixup out")

    def check(self, backbone: nn.Module, *, compiled: bool) -> None:
        """Raise ValueError where the backbone has no such layers, or is compiled and would pass over them."""
        hidden = [name for name in self.layers if name != INPUT]
        unknown = [name for name in hidden if name not in dict(backbone.named_modules())]
        if unknown:
            children = ", ".join([INPUT, *(name for name, _ in backbone.named_children())])
            raise ValueError(
                f"mixup.layers names {', '.join(unknown)}, which the backbone has not; choose from {children}, or "
                "modules inside of these by dotted names"
            )
        if hidden and compiled:
            raise ValueError(
                f"mixup.layers names {', '.join(hidden)}, but a compiled backbone lets nobody change what its layers "
                "give; set backbone.compile=false, or mix the input alone"
            )

    def draw(self, n_mixed: int, n_rows: int, device: torch.device) -> Mixing:
        """How the next batch is mixed, from torch's global random state: its first `n_mixed` rows among themselves."""
        share = float(torch.distributions.Beta(self.alpha, self.alpha).sample())
        layer = self.layers[int(torch.randint(len(self.layers), ()))]
        partner = torch.arange(n_rows)
        partner[:n_mixed] = torch.randperm(n_mixed)
        return Mixing(share, partner.to(device), layer)


@contextmanager
def mixed_inside(backbone: nn.Module, mixing: Mixing) -> Iterator[None]:
    """Within it, what the backbone's layer of that name gives is mixed before the next one receives it.

    Raises:
        ValueError: that layer was not run exactly once, or does not give a row a picture.
    """
    calls = 0

    def mix(_: nn.Module, __: Any, output: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if not isinstance(output, Tensor) or len(output) != len(mixing.partner):
            found = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"mixup.layers: '{mixing.layer}' gives {found} for {len(mixing.partner)} pictures; name a layer that "
                "gives a tensor with one row a picture"
            )
        return mixing(output)

    handle = backbone.get_submodule(mixing.layer).register_forward_hook(mix)
    try:
        yield
    finally:
        handle.remove()
    if calls != 1:
        raise ValueError(f"mixup.layers: '{mixing.layer}' is run {calls} times for a picture; name one that runs once")


def mixed_cross_entropy(logits: Tensor, labels: Tensor, mixing: Mixing, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits [B, C] with the mixed one-hot labels.

    Args:
        logits: of the mixed rows.
        labels: [B] int64, of the rows before they were mixed; -100 for rows that do not count and are not mixed.
        mixing: of these rows.
        label_smoothing: share of every target that is spread over all classes.
    """
    own = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    partners = F.cross_entropy(logits, labels[mixing.partner], label_smoothing=label_smoothing)
    return mixing.share * own + (1 - mixing.share) * partners
