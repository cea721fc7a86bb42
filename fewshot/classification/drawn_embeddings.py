"""Embeddings of classes drawn towards the rows of their classes, which lie in other directions than words do.

StatA says how far each row is of each class. It looks at both sides as they are, where classes without rows are left
alone. If nearly all classes have rows, it looks again at each side centred by its own mean, which is more exact;
UniversalSIB says from there how far each row is of each class, and both sides are whitened by that.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.classification.refinement import refined
from fewshot.classification.row_view import RowView, whitening_of
from fewshot.functional.features import normalized
from fewshot.methods import StatA, UniversalSIB

COUNTS_AS = 20
"""As how many of the rows that it is drawn towards an embedding counts."""
NEARLY_ALL = 0.85
"""Share of the classes that have rows."""
MOST_FEATURES = 2048
"""Of rows that are whitened; time and memory grow with the cube and the square of their number."""
LOOKED_AT = 5000
"""Rows, at most; of more, labelled ones and a draw of the others by a fixed seed."""


class DrawnEmbeddings:
    """Embeddings of all classes among rows, and how both are seen. Letters: n rows, N classes, D features.

    The labels of rows draw embeddings; how rows are seen does not depend on them, so that some can be held out.

    Args:
        rows: [n, D].
        embeddings: [N, D], of all classes in their order.
        places: [n] int64, the class of each row, -1 for none.
        centre: [D], what rows at length one are centred by.
    """

    view: RowView
    """Of rows."""

    def __init__(self, rows: Tensor, embeddings: Tensor, places: Tensor, centre: Tensor) -> None:
        self.looked_at = _looked_at(places)
        self.rows, self.embeddings = normalized(rows[self.looked_at]), normalized(embeddings)
        self.view = RowView(centre)
        self.of_classes = RowView(self.embeddings.mean(0))
        self.centred, self.words = self.view.of(self.rows), self.of_classes.of(self.embeddings)
        unlabelled = torch.full_like(places[self.looked_at], -1)
        self.unlabelled_shares, nearly_all = self._by_stat_a(unlabelled)
        self.whitens = nearly_all and rows.shape[1] <= MOST_FEATURES
        if self.whitens:
            self.unlabelled_shares = self._by_head(self.unlabelled_shares, unlabelled)
            whitening = whitening_of(self.centred, self.unlabelled_shares)
            self.view, self.of_classes = (seen._replace(whitening=whitening) for seen in (self.view, self.of_classes))

    def drawn(self, places: Tensor) -> Tensor:
        """[N, D], of length one, among rows that are seen by `view`.

        Args:
            places: [n] int64, the class of each row, -1 for none or one that is held out.
        """
        places = places[self.looked_at]
        shares = self.unlabelled_shares
        if bool((places >= 0).any()):
            shares, _ = self._by_stat_a(places)
            shares = self._by_head(shares, places) if self.whitens else shares
        return _towards(shares, self.view.of(self.rows), self.of_classes.of(self.embeddings))

    def _by_stat_a(self, places: Tensor) -> tuple[Tensor, bool]:
        """How far each row is of each class, [n, N], and whether nearly all classes have rows."""
        shares = _shares(self.rows, self.embeddings + _gap(self.rows, self.embeddings, places), places)
        if nearly_all := len(shares.argmax(1).unique()) >= NEARLY_ALL * len(self.embeddings):
            shares = _shares(self.centred, self.words, places)
        return shares, nearly_all

    @torch.no_grad()
    def _by_head(self, shares: Tensor, places: Tensor) -> Tensor:
        """How far each row is of each class, [n, N], from embeddings that are drawn by what StatA found of it."""
        known, n_way = places >= 0, len(self.words)
        support = torch.cat([_towards(shares, self.centred, self.words), self.centred[known]])
        labels = torch.cat([torch.arange(n_way, device=places.device), places[known]])
        head = UniversalSIB().eval().to(support.device)
        _, logits, _ = refined(
            head, support.unsqueeze(0), labels.unsqueeze(0), self.centred[~known], n_way, head.most_together
        )
        found = F.one_hot(places.clamp_min(0), n_way).to(shares)
        found[~known] = logits.softmax(-1).to(shares)
        return found


def _towards(shares: Tensor, rows: Tensor, embeddings: Tensor) -> Tensor:
    """Embeddings [N, D] nearer to the rows [n, D] of their classes, by shares [n, N]."""
    return normalized(shares.T @ rows + COUNTS_AS * embeddings)


def _looked_at(places: Tensor) -> Tensor:
    """Places [m] of the rows that are looked at."""
    if len(places) <= LOOKED_AT:
        return torch.arange(len(places), device=places.device)
    dealt = torch.from_numpy(np.random.default_rng(0).permutation(len(places))).to(places.device)
    return torch.cat([dealt[places[dealt] >= 0], dealt[places[dealt] < 0]])[:LOOKED_AT]


def _gap(rows: Tensor, embeddings: Tensor, places: Tensor) -> Tensor:
    """[D], from words to rows, by the classes that have labelled rows; 0 where none has."""
    labelled = places[places >= 0].unique()
    gaps = [rows[places == place].mean(0) - embeddings[place] for place in labelled]
    return torch.stack(gaps).mean(0) if gaps else torch.zeros_like(embeddings[0])


def _shares(rows: Tensor, embeddings: Tensor, places: Tensor) -> Tensor:
    """[n, N], how far each row is of each class."""
    known = places >= 0
    support = torch.cat([embeddings, rows[known]]).unsqueeze(0)
    labels = torch.cat([torch.arange(len(embeddings), device=rows.device), places[known]]).unsqueeze(0)
    found = StatA(counts="soft").refine(support, labels, rows.unsqueeze(0), len(embeddings))
    return found.logits[-1, 0].softmax(-1)
