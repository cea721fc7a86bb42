"""What the LightningModules share."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import asdict
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.profiler import record_function

from fewshot.backbones import BackboneConfig
from fewshot.backbones.checkpoint_file import read_checkpoint, state_dict_of
from fewshot.data.ranks import rank_and_world_size
from fewshot.episode import Episode
from fewshot.functional.features import class_means
from fewshot.methods.base import BaseClasses
from fewshot.methods.class_path import import_path
from fewshot.methods.construction import construction

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")


def hand_over_preprocessing(backbone: Any, config: BackboneConfig, trainer: Trainer | None) -> None:
    """Tell the trainer's data module how many channels, what size and which normalisation the backbone wants.

    A size is asked for where the config names one, and where the network takes no other; else the pictures keep the
    size that the data set or the published weights say.
    """
    datamodule: Any = getattr(trainer, "datamodule", None)
    if hasattr(datamodule, "adapt"):
        size = config.image_size
        if size is None and not backbone.takes_any_size:
            size = backbone.image_size
        datamodule.adapt(channels=backbone.in_chans, preprocessing=backbone.preprocessing, image_size=size)


def record_pictures(checkpoint: dict[str, Any], module: Any) -> None:
    """Write into a checkpoint how its pictures became tensors, so that it serves pictures without its data set."""
    preprocessing = getattr(getattr(module._trainer, "datamodule", None), "preprocessing", None)
    checkpoint["pictures"] = module.pictures if preprocessing is None else asdict(preprocessing)


def encode(module: Any, pictures: Tensor) -> Tensor:
    """Features [B, D] of pictures [B, C, H, W], in float32, by the module's backbone on its own device.

    They are computed in the trainer's precision (float32 without a trainer), so that features computed once are those
    which the same run would compute for every episode. They are kept in float32 in any precision.
    """
    trainer = module._trainer
    with (
        record_function("encode"),
        contextlib.nullcontext() if trainer is None else trainer.precision_plugin.forward_context(),
    ):
        pictures = pictures.to(module.device, module.dtype, memory_format=torch.channels_last)
        return module.backbone(pictures).float()


def compute_features(module: Any, split: str) -> None:
    """Let the data module encode a split's pictures with the backbone as it is now.

    Where the backbone is trained, this replaces encoding every picture once for each episode it occurs in. All ranks
    take the first one's batch-norm statistics before, those that its checkpoint holds.
    """
    share_buffers(module.backbone)
    datamodule: Any = getattr(module.trainer, "datamodule", None)
    if hasattr(datamodule, "compute_features"):
        datamodule.compute_features(split, functools.partial(encode, module))


def check_precision(trainer: Trainer) -> None:
    """Raise ValueError for a precision in which methods do not work.

    With weights of 16 bits a step of 1e-3 is mostly rounded away. Mixed precision keeps them in 32 bits.
    """
    if trainer.precision not in PRECISIONS:
        raise ValueError(
            f"trainer.precision={trainer.precision} is not supported: the weights themselves would lose what a small "
            f"step changes; choose one of {', '.join(PRECISIONS)}"
        )


def hand_over_base_classes(module: Any) -> None:
    """Tell the module's method about the training classes of the data module, where it asks and does not know yet.

    A checkpoint brings what its method was told, so that this follows the loading of one. The pictures of the train
    split are encoded as they are, once, and stored like all features.

    Raises:
        ValueError: the backbone is trained too, so that what the method is told would not stay true.
    """
    method = module.method
    datamodule: Any = getattr(module.trainer, "datamodule", None)
    if method.is_prepared or not hasattr(datamodule, "plain_features"):
        return
    if not module.freeze_backbone:
        raise ValueError(
            f"{type(method).__name__} is told the training classes' features once, but freeze_backbone=false changes "
            "them; set model.freeze_backbone=true"
        )
    with torch.inference_mode(False), torch.no_grad():
        features, labels = datamodule.plain_features("train", module.encode, module.backbone_key())
        means = class_means(features.unsqueeze(0), labels.unsqueeze(0), int(labels.max()) + 1)[0]  # [C, D]
        weights, scale = _pretraining_classifier(module.backbone_config.weights, features.shape[-1])
        method.prepare(BaseClasses(features.mean(0), means, weights, scale))
        method.base_classes.to(module.device)


def _pretraining_classifier(path: str | None, n_features: int) -> tuple[Tensor | None, Tensor | None]:
    """Weights [C, D] and scale of the classifier in a checkpoint of PretrainModule; None for any other file."""
    state = {} if path is None else state_dict_of(read_checkpoint(path))
    weights, scale = state.get("classifier.weight"), state.get("classifier.scale")
    if weights is None or scale is None or weights.ndim != 2 or weights.shape[1] != n_features:
        return None, None
    return weights.float(), scale.float()


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


def record_hyperparameters(module: LightningModule, arguments: dict[str, Any]) -> None:
    """Save a LightningModule's constructor arguments as plain data, from which load_from_checkpoint builds it again.

    Args:
        module: where `save_hyperparameters` is called; its class is recorded too.
        arguments: the constructor's arguments by name.

    Raises:
        ValueError: an argument that is no plain data and cannot be described by it.
    """
    plain = {name: construction(value, name) for name, value in arguments.items()}
    module.save_hyperparameters({"_class_path": import_path(type(module)), **plain})


def share_buffers(module: torch.nn.Module) -> None:
    """Give every rank the first rank's buffers, such as the statistics of batch normalisation.

    DistributedDataParallel does so before a training step only, so that after it each rank has counted its own batch
    in; without this, ranks would validate different networks, and none the one in the checkpoint but the first.
    """
    if rank_and_world_size()[1] > 1:
        for buffer in module.buffers():
            first = buffer.contiguous()
            torch.distributed.broadcast(first, src=0)
            buffer.copy_(first)
