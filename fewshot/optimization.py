"""Optimisers and schedulers of the LightningModules, and at which of their steps training is logged."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable

from fewshot.sections import end, measuring


def configured_optimizer(
    module: LightningModule,
    optimizer: OptimizerCallable,
    lr_scheduler: LRSchedulerCallable | None,
    *,
    interval: str,
) -> Any:
    """What `configure_optimizers` returns: the optimiser of the parameters that are trained, and its scheduler.

    Raises:
        ValueError: nothing is trained, or the optimiser or scheduler refuses a value.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(
            "nothing to train: the method has no trained parameters and the backbone is frozen; "
            "use `test` instead of `fit`, or set freeze_backbone=false"
        )
    try:
        built = optimizer(parameters)
    except (ValueError, TypeError) as error:
        raise ValueError(f"optimizer: {error}") from error
    if measuring():
        built.register_step_post_hook(lambda *_: end("optimiser"))  # the modules begin it, after the backward pass
    if lr_scheduler is None:
        return built
    try:
        scheduled = lr_scheduler(built)
    except (ValueError, TypeError) as error:
        raise ValueError(f"lr_scheduler: {error}") from error
    scheduler = {"scheduler": scheduled, "interval": interval, "monitor": "val/accuracy"}
    return {"optimizer": built, "lr_scheduler": scheduler}


def is_logged(module: LightningModule, batch_idx: int) -> bool:
    """Whether Lightning writes what is logged at this training step: every n-th, and an epoch's last.

    What is costly to compute for the log alone is computed at these steps only.
    """
    trainer: Any = module.trainer
    return (module.global_step + 1) % trainer.log_every_n_steps == 0 or batch_idx + 1 == trainer.num_training_batches
