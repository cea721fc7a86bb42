"""Refinement of many unlabelled rows, in chunks where there are too many for one."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fewshot.methods.base import Method


def refined(
    method: Method, support: Tensor, labels: Tensor, unlabelled: Tensor, n_way: int, chunk_size: int | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits [Q, N] before and after refinement, and probabilities [Q] of strangers from methods that tell.

    Args: support [1, S, D], labels [1, S], unlabelled [Q, D].
    """
    total = len(unlabelled)
    before = after = unlabelled.new_zeros(total, n_way, dtype=torch.float32)
    strangers = unlabelled.new_zeros(total, dtype=torch.float32)
    tells = False
    if not total:
        return before, after, None
    after = before.clone()
    for places in chunks(total, chunk_size):
        refinement = method.refine(support, labels, unlabelled[places].unsqueeze(0), n_way)
        before[places], after[places] = refinement.logits[0, 0].float(), refinement.logits[-1, 0].float()
        if tells := refinement.strangers is not None:
            strangers[places] = refinement.strangers[-1, 0].sigmoid().float()
    return before, after, strangers.cpu() if tells else None


def chunks(total: int, chunk_size: int | None) -> list[Tensor]:
    """Places of so many unlabelled that are refined together, of about equal size, dealt at random by a fixed seed.

    Args:
        total: how many there are.
        chunk_size: the most of a chunk; None takes one for all, in their order.
    """
    number = 1 if chunk_size is None else max(1, math.ceil(total / chunk_size))
    order = np.arange(total) if number == 1 else np.random.default_rng(0).permutation(total)
    return [torch.from_numpy(part) for part in np.array_split(order, number)]
