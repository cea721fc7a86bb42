"""Embeddings of classes drawn towards the rows of their classes, which lie in other directions than words do.

StatA says how far each row is of each class. It looks at both sides as they are, where classes without rows are left
alone; if nearly all classes have rows it looks again, at each side centred by its own mean, which is more exact.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fewshot.functional.features import normalized
from fewshot.methods import StatA

COUNTS_AS = 20
"""As how many of the rows that it is drawn towards an embedding counts."""
NEARLY_ALL = 0.85
"""Share of the classes that have rows."""
LOOKED_AT = 5000
"""Rows, at most; of more, labelled ones and a draw of the others by a fixed seed."""


def drawn(rows: Tensor, embeddings: Tensor, places: Tensor, centre: Tensor) -> Tensor:
    """Embeddings, each at length one about their mean, nearer to the rows of their classes.

    Args:
        rows: [n, D].
        embeddings: [N, D], of all classes in their order.
        places: [n] int64, the class of each row, -1 for none.
        centre: [D], what rows at length one are centred by.

    Returns:
        [N, D], at length one, among rows that are centred.
    """
    if len(rows) > LOOKED_AT:
        dealt = torch.from_numpy(np.random.default_rng(0).permutation(len(rows))).to(rows.device)
        dealt = torch.cat([dealt[places[dealt] >= 0], dealt[places[dealt] < 0]])[:LOOKED_AT]
        rows, places = rows[dealt], places[dealt]
    rows, embeddings = normalized(rows), normalized(embeddings)
    centred_rows, centred_embeddings = normalized(rows - centre), normalized(embeddings - embeddings.mean(0))
    shares = _shares(rows, embeddings + _gap(rows, embeddings, places), places)
    if len(shares.argmax(1).unique()) >= NEARLY_ALL * len(embeddings):
        shares = _shares(centred_rows, centred_embeddings, places)
    return normalized(shares.T @ centred_rows + COUNTS_AS * centred_embeddings)


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
