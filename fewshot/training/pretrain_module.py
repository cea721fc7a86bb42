"""PretrainModule: whole-class training of a backbone, watched by few-shot episodes."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.profiler import record_function

from fewshot.backbones import BackboneConfig
from fewshot.data.class_datamodule import ClassDataModule
from fewshot.episode import Episode
from fewshot.functional.features import normalized
from fewshot.methods.base import encoded
from fewshot.methods.nearest_mean import NearestClassMean
from fewshot.methods.options import check_at_least, check_share
from fewshot.training.base import BackboneModule, prediction
from fewshot.training.metrics import EpisodeAccuracy
from fewshot.training.mixup import INPUT, Mixing, Mixup, mixed_cross_entropy, mixed_inside
from fewshot.training.rotation import N_TURNS, Rotation, counted_accuracy


class CosineClassifier(nn.Module):
    """Logits s cos(f, w_c) of whole-class training, with learned weights w and a learned scale s.

    Gidaris, Komodakis: Dynamic Few-Shot Visual Learning without Forgetting, CVPR 2018, arXiv 1804.09458 (section 3.2).

    Args:
        n_features: D.
        n_classes: number of classes.
        scale: what s starts at; it multiplies the cosine.
    """

    def __init__(self, n_features: int, n_classes: int, scale: float = 10.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_classes, n_features) * (2.0 / n_features) ** 0.5)
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def forward(self, features: Tensor) -> Tensor:
        """[B, D] to [B, n_classes]."""
        return self.scale * normalized(features) @ normalized(self.weight).t()


class PretrainModule(BackboneModule):
    """A backbone trained to tell all training classes apart; its checkpoint is what FewShotModule starts from.

    Validation and test are few-shot episodes classified by nearest class mean on the features. Logged: train/loss,
    train/accuracy (over the classes), val/accuracy, val/accuracy_ci95 and the same under test/; with rotation also
    train/rotation_loss, not yet weighted, and train/rotation_accuracy. A mixed picture's class is that of its larger
    part.

    Args:
        n_classes: number of training classes.
        backbone: pictures to features.
        scale: what the classifier's learned scale starts at.
        label_smoothing: share of the target spread over all classes; the paper uses none.
        optimizer: None takes the paper's SGD (learning rate 0.1, Nesterov momentum 0.9, weight decay 5e-4).
        lr_scheduler: None keeps the rate fixed; the paper's is WarmupMultiStepLR.
        lr_interval: whether the scheduler moves every optimiser step or every epoch.
        rotation: the auxiliary task of telling turned pictures apart; None leaves it out.
        mixup: mixing of pictures or hidden layers with their labels; None leaves it out. Where both are given, what is
            turned is not mixed, as in S2M2.

    Raises:
        ValueError: the backbone has no such layers to mix.
    """

    DEFAULT_OPTIMIZER: ClassVar[dict[str, Any]] = {
        "lr": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
    }

    accuracies: Any

    def __init__(
        self,
        n_classes: int,
        backbone: BackboneConfig = BackboneConfig(),  # noqa: B008  (frozen)
        scale: float = 10.0,
        label_smoothing: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["step", "epoch"] = "step",
        rotation: Rotation | None = None,
        mixup: Mixup | None = None,
    ) -> None:
        super().__init__()
        check_at_least(1, n_classes=n_classes)
        check_share(label_smoothing=label_smoothing)
        backbone = backbone.located()
        self.record(locals())
        self.set_up(backbone, optimizer=optimizer, lr_scheduler=lr_scheduler, lr_interval=lr_interval)
        self.classifier = CosineClassifier(self.backbone.num_features, n_classes, scale)
        self.rotation, self.mixup = rotation, mixup
        if rotation is not None:
            self.rotation_classifier = CosineClassifier(self.backbone.num_features, N_TURNS, scale)
        if mixup is not None:
            mixup.check(self.backbone, compiled=backbone.compile)
        self.n_classes = n_classes
        self.label_smoothing = label_smoothing
        self.nearest_mean = NearestClassMean()
        self.accuracies = nn.ModuleDict({"val": EpisodeAccuracy(), "test": EpisodeAccuracy()})

    def forward(self, pictures: Tensor) -> Tensor:
        """Features [B, D] of pictures [B, C, H, W]."""
        with record_function("encode"):
            return self.backbone(pictures.contiguous(memory_format=torch.channels_last))

    def setup(self, stage: str) -> None:
        """Tell the data module what the backbone receives; check its number of classes."""
        super().setup(stage)
        data = self.data
        if data is None:
            return
        data.expect_features("val", "test")
        if stage != "fit":
            return
        if not isinstance(data, ClassDataModule):
            raise ValueError(
                f"PretrainModule trains on single pictures but data is {type(data).__name__}; set data to "
                "ClassDataModule, or model to FewShotModule"
            )
        if data.n_classes != self.n_classes:
            raise ValueError(
                f"n_classes={self.n_classes} but the train split has {data.n_classes} classes; "
                f"set model.n_classes to {data.n_classes}"
            )

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of a batch of pictures [B, C, H, W] with class labels [B], and the rotation loss if asked for.

        The turned copies go through the backbone together with the batch.
        """
        pictures, labels = batch
        n_pictures, turns, mixing = len(pictures), None, None
        if self.rotation is not None:
            pictures, labels, turns = self.rotation.extended(pictures, labels, upright=self.mixup is None)
        if self.mixup is not None:
            mixing = self.mixup.draw(n_pictures, len(pictures), pictures.device)
        features = self._features(pictures, mixing)
        logits = self.classifier(features)
        if mixing is None:
            loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        else:
            loss = mixed_cross_entropy(logits, labels, mixing, label_smoothing=self.label_smoothing)
        accuracies = {"train/accuracy": (logits, labels if mixing is None else mixing.dominant(labels))}
        if self.rotation is not None and turns is not None:
            turn_logits = self.rotation_classifier(features)
            rotation_loss = F.cross_entropy(turn_logits, turns)
            loss = loss + self.rotation.weight * rotation_loss
            accuracies["train/rotation_accuracy"] = (turn_logits, turns)
        if not bool(loss.isfinite()):
            raise ValueError(
                f"the loss is {float(loss.detach())} at step {self.global_step}, epoch {self.current_epoch}, pictures "
                f"of classes {sorted(set(batch[1].tolist()))}; lower the learning rate, or warm it up over more steps"
            )
        if self.is_logged(batch_idx):
            self.log("train/loss", loss.detach(), prog_bar=True)
            if turns is not None:
                self.log("train/rotation_loss", rotation_loss.detach())
            for name, (predicted, targets) in accuracies.items():
                self.log(name, counted_accuracy(predicted.detach(), targets), prog_bar=True)
        return loss

    def _features(self, pictures: Tensor, mixing: Mixing | None) -> Tensor:
        """Features [B, D] of pictures [B, C, H, W], mixed on the way if asked for."""
        if mixing is None:
            return self(pictures)
        if mixing.layer == INPUT:
            return self(mixing(pictures))
        with mixed_inside(self.backbone, mixing):
            return self(pictures)

    def on_validation_epoch_start(self) -> None:
        self.accuracies["val"].reset()
        self.compute_features("val")

    def on_test_epoch_start(self) -> None:
        self.accuracies["test"].reset()
        self.compute_features("test")

    def validation_step(self, episode: Episode, batch_idx: int) -> None:
        self._evaluate(episode, "val")

    def test_step(self, episode: Episode, batch_idx: int) -> None:
        self._evaluate(episode, "test")

    def on_predict_epoch_start(self) -> None:
        self.compute_features("test")

    def predict_step(self, episode: Episode, batch_idx: int) -> dict[str, Tensor | None]:
        """Probabilities [T, Q, N] of the queries by nearest class mean, which takes no refinement steps."""
        support, query = encoded(self.backbone, episode)
        logits = self.nearest_mean.classify(support, episode.support_labels, query, episode.n_way)
        return prediction(episode, before=logits, after=logits)

    def on_validation_epoch_end(self) -> None:
        self._log_accuracy("val")

    def on_test_epoch_end(self) -> None:
        self._log_accuracy("test")

    def _evaluate(self, episode: Episode, split: str) -> None:
        support, query = encoded(self.backbone, episode)
        logits = self.nearest_mean.classify(support, episode.support_labels, query, episode.n_way)
        counted = 0 if self.trainer.world_size > 1 and episode.is_padding else episode.n_tasks
        self.accuracies[split].update(logits[:counted], episode.known_query_labels()[:counted])

    def _log_accuracy(self, split: str) -> None:
        value = self.accuracies[split].compute()
        self.results[split] = {
            "accuracy": value.accuracy,
            "ci95": value.ci95,
            "n_episodes": value.n_episodes,
            "accuracy_per_step": [value.accuracy],
        }
        self.log(f"{split}/accuracy", value.accuracy, prog_bar=True)
        self.log(f"{split}/accuracy_ci95", value.ci95)
