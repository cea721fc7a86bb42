"""What the two LightningModules share: a backbone, an optimiser, and how they meet their data module."""

from __future__ import annotations

import contextlib
import functools
import logging
from dataclasses import asdict
from typing import Any, ClassVar, Literal

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, Timer
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.profiler import record_function

from fewshot.backbones import BackboneConfig
from fewshot.data.datasets.base import FewShotDataset, Split
from fewshot.data.interface import PictureData, data_of
from fewshot.data.ranks import rank_and_world_size
from fewshot.episode import Episode
from fewshot.methods.class_path import import_path
from fewshot.methods.construction import construction
from fewshot.training.encoding import wanted_pictures
from fewshot.training.from_file import loaded_module
from fewshot.training.schedules import WarmupMultiStepLR

logger = logging.getLogger(__name__)
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")


class BackboneModule(LightningModule):
    """A LightningModule around a backbone; base of FewShotModule and PretrainModule.

    It says what the backbone receives to the data module, what is trained to the optimiser, and what is needed beside
    weights to the checkpoint. A class derived from it calls `record` and `set_up` in its constructor.
    """

    DEFAULT_OPTIMIZER: ClassVar[dict[str, Any]]
    """Arguments of torch.optim.SGD, where no optimiser is given."""

    backbone: Any
    backbone_config: BackboneConfig

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **options: Any) -> Any:
        """The module of a checkpoint, see `fewshot.training.from_file.loaded_module`."""
        return loaded_module(cls, checkpoint_path, *args, **options)

    def record(self, arguments: dict[str, Any]) -> None:
        """Keep the constructor's arguments as plain data: what checkpoints hold in place of pickled objects.

        Raises:
            ValueError: an argument that is no plain data and cannot be described by it.
        """
        plain = {
            name: construction(value, name) for name, value in arguments.items() if name not in ("self", "__class__")
        }
        self.save_hyperparameters({"_class_path": import_path(type(self)), **plain})

    def set_up(
        self,
        backbone: BackboneConfig,
        *,
        optimizer: OptimizerCallable | None,
        lr_scheduler: LRSchedulerCallable | None,
        lr_interval: Literal["step", "epoch"],
    ) -> None:
        """Make the backbone, and keep how it is trained."""
        self.backbone_config = backbone
        self.backbone = backbone.create()
        default: Any = functools.partial(torch.optim.SGD, **self.DEFAULT_OPTIMIZER)
        self.optimizer: OptimizerCallable = optimizer or default
        self.lr_scheduler, self.lr_interval = lr_scheduler, lr_interval
        self.results: dict[str, dict[str, Any]] = {}
        self.pictures: dict[str, Any] | None = None  # how they become tensors, once a checkpoint has told
        self.trained_on: dict[str, Any] | None = None  # which pictures these were: `data`, a name, and `channels`

    @property
    def attached_trainer(self) -> Trainer | None:
        """The trainer; None before there is one, where `trainer` raises an error."""
        return self._trainer

    @property
    def data(self) -> PictureData | None:
        """The trainer's data module, where it is one of pictures."""
        return data_of(self.attached_trainer)

    def setup(self, stage: str) -> None:
        """Tell the data module what the backbone receives.

        Raises:
            ValueError: a precision that is not supported.
        """
        check_precision(self.trainer)
        self.adapt_data()

    def adapt_data(self) -> None:
        """Tell the data module how many channels, what size and which normalisation the backbone wants."""
        if self.data is not None:
            self.data.adapt(**wanted_pictures(self.backbone, self.backbone_config))

    def configure_optimizers(self) -> Any:
        """The optimiser of the parameters that are trained, and its scheduler if one was given.

        Raises:
            ValueError: nothing is trained, or the optimiser or scheduler refuses a value.
        """
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not parameters:
            raise ValueError(
                "nothing to train: the method has no trained parameters and the backbone is frozen; "
                "use `test` instead of `fit`, or set freeze_backbone=false"
            )
        try:
            optimizer = self.optimizer(parameters)
        except (ValueError, TypeError) as error:
            raise ValueError(f"optimizer: {error}") from error
        if self.lr_scheduler is None:
            return optimizer
        try:
            scheduler = self.lr_scheduler(optimizer)
        except (ValueError, TypeError) as error:
            raise ValueError(f"lr_scheduler: {error}") from error
        monitor = getattr(scheduler, "monitor", "val/accuracy")
        check_schedule(scheduler, monitor, self.lr_interval)
        described = {"scheduler": scheduler, "interval": self.lr_interval, "monitor": monitor}
        return {"optimizer": optimizer, "lr_scheduler": described}

    def on_train_start(self) -> None:
        """Say where a one-cycle schedule and training end at different steps, before the first rather than at the last.

        Raises:
            ValueError: training takes more steps than the schedule has, which it would end at.
        """
        trainer: Any = self.trainer
        asked = trainer.estimated_stepping_batches
        may_end_early = any(isinstance(callback, (EarlyStopping, Timer)) for callback in trainer.callbacks)
        for described in trainer.lr_scheduler_configs:
            if described.interval != "step" or not isinstance(described.scheduler, OneCycleLR) or may_end_early:
                continue
            ends = described.scheduler.total_steps
            said = (
                f"the schedule of the learning rate has total_steps={ends} but training takes {asked} optimiser steps"
            )
            if ends < asked < float("inf"):
                raise ValueError(
                    f"{said}; set model.lr_scheduler.init_args.total_steps={asked}, or train for less. A run that is "
                    "continued keeps the schedule of its checkpoint"
                )
            if asked < ends:
                logger.warning("%s, so that the rate does not come down to its end", said)

    def is_logged(self, batch_idx: int) -> bool:
        """Whether Lightning writes what is logged at this training step: every n-th, and an epoch's last.

        What is costly to compute for the log alone is computed at these steps only.
        """
        trainer: Any = self.trainer
        every, last = trainer.log_every_n_steps, trainer.num_training_batches
        return (bool(every) and (self.global_step + 1) % every == 0) or batch_idx + 1 == last

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Features [B, D] of pictures [B, C, H, W], in float32, by the backbone in evaluation mode on its own device.

        They are computed in the trainer's precision (float32 without a trainer), so that features computed once are
        those which the same run would compute for every episode. They are kept in float32 in any precision.
        """
        trainer, training = self.attached_trainer, self.backbone.training
        self.backbone.eval()
        precision = contextlib.nullcontext() if trainer is None else trainer.precision_plugin.forward_context()
        with record_function("encode"), precision:
            dtype: Any = self.dtype
            pictures = pictures.to(self.device, dtype, memory_format=torch.channels_last)
            features = self.backbone(pictures).float()
        self.backbone.train(training)
        return features

    def compute_features(self, split: Split) -> None:
        """Let the data module encode a split's pictures with the backbone as it is now.

        Where the backbone is trained, this replaces encoding every picture once for each episode it occurs in. All
        ranks take the first one's batch-norm statistics before, those that its checkpoint holds.
        """
        share_buffers(self.backbone)
        if self.data is not None:
            self.data.compute_features(split, self.encode)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what weights do not say: how pictures become tensors, so that they serve without the data set.

        Where the backbone's first weights came from is left out: the checkpoint holds the weights themselves, so
        loading it must neither need that file nor download anything.
        """
        options = checkpoint["hyper_parameters"]
        options["backbone"] = {**options["backbone"], "pretrained": False, "weights": None}
        checkpoint["preprocessing"] = self.backbone.preprocessing
        checkpoint["pictures"] = self.pictures if self.data is None else asdict(self.data.preprocessing)
        dataset = getattr(self.data, "dataset", None)
        if isinstance(dataset, FewShotDataset):
            self.trained_on = {"data": dataset.name, "channels": dataset.preprocessing.channels}
        checkpoint["trained_on"] = self.trained_on

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the normalisation that came with the backbone's first weights; Lightning calls setup before."""
        self.backbone.preprocessing = checkpoint.get("preprocessing")
        self.pictures, self.trained_on = checkpoint.get("pictures"), checkpoint.get("trained_on")
        self.adapt_data()


def prediction(episode: Episode, *, before: Tensor, after: Tensor) -> dict[str, Tensor | None]:
    """What a predict_step returns: the episode's own numbers, and the queries' probabilities [T, Q, N].

    Args:
        episode: T tasks.
        before: [T, Q, N] logits before refinement.
        after: [T, Q, N] logits after it.
    """
    return {
        "numbers": episode.numbers,
        "support_index": episode.support_index,
        "support_labels": episode.support_labels,
        "query_index": episode.query_index,
        "query_labels": episode.query_labels,
        "before": before.float().softmax(-1),
        "after": after.float().softmax(-1),
    }


def check_schedule(scheduler: Any, monitor: str, interval: str) -> None:
    """Raise ValueError for a schedule that would count or look at something else than it is meant to.

    Args:
        scheduler: which.
        monitor: what a schedule that waits for a plateau looks at.
        interval: what it counts, "step" or "epoch".
    """
    kind = type(scheduler).__name__
    if isinstance(scheduler, ReduceLROnPlateau):
        if interval == "step":
            raise ValueError(f"lr_interval=step but {kind} looks at {monitor} after an epoch; set lr_interval=epoch")
        if "accuracy" in monitor and scheduler.mode == "min":
            raise ValueError(
                f"lr_scheduler: {kind} with mode=min lowers the rate where {monitor} rises; set mode=max, or "
                "lightning's ReduceLROnPlateau with monitor=val/loss"
            )
    if isinstance(scheduler, WarmupMultiStepLR) and interval == "epoch":
        raise ValueError(f"lr_interval=epoch but {kind} counts optimiser steps; set lr_interval=step")


def check_precision(trainer: Trainer) -> None:
    """Raise ValueError for a precision in which methods do not work.

    With weights of 16 bits a step of 1e-3 is mostly rounded away. Mixed precision keeps them in 32 bits.
    """
    if trainer.precision not in PRECISIONS:
        raise ValueError(
            f"trainer.precision={trainer.precision} is not supported: the weights themselves would lose what a small "
            f"step changes; choose one of {', '.join(PRECISIONS)}"
        )


def share_buffers(module: nn.Module) -> None:
    """Give every rank the first rank's buffers, such as the statistics of batch normalisation.

    DistributedDataParallel does so before a training step only, so that after it each rank has counted its own batch
    in; without this, ranks would validate different networks, and none the one in the checkpoint but the first.
    """
    if rank_and_world_size()[1] > 1:
        for buffer in module.buffers():
            first = buffer.contiguous()
            torch.distributed.broadcast(first, src=0)
            buffer.copy_(first)
