"""Schedules of the learning rate that torch has not."""

from __future__ import annotations

from bisect import bisect_right

import torch


class WarmupMultiStepLR(torch.optim.lr_scheduler.LambdaLR):
    """The paper's schedule: a linear rise to the optimiser's rate, then a factor at each milestone.

    Args:
        optimizer: whose rate is set.
        warmup_steps: optimiser steps until the full rate is reached (published: 6,000).
        milestones: optimiser steps at which the rate is multiplied by gamma (published: after 50 of 60 epochs).
        gamma: that factor (published: 0.1).
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        warmup_steps: int = 6000,
        milestones: list[int] | None = None,
        gamma: float = 0.1,
    ) -> None:
        ordered = sorted(milestones or [])

        def factor(step: int) -> float:
            return min(1.0, (step + 1) / max(warmup_steps, 1)) * gamma ** bisect_right(ordered, step)

        super().__init__(optimizer, factor)
