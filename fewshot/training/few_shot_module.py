"""FewShotModule: meta-trains and evaluates any method on episodes. It knows Method and no paper."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, Literal

import timm
import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from fewshot.backbones import BackboneConfig
from fewshot.data.episodic_datamodule import EpisodicDataModule
from fewshot.episode import Episode
from fewshot.functional.cosine import logit_gradient
from fewshot.methods.base import Method, Refinement, encoded
from fewshot.methods.nearest_mean import NearestClassMean
from fewshot.training.base import BackboneModule, prediction
from fewshot.training.base_classes import base_classes
from fewshot.training.divergence import divergence
from fewshot.training.metrics import (
    AccuracyInterval,
    CalibrationError,
    CalibrationTemperature,
    EpisodeAccuracy,
    EpisodeCounts,
    EpisodeLoss,
    correct_queries,
    paired_difference,
)


class FewShotModule(BackboneModule):
    """A method on a backbone, trained and evaluated on episodes.

    Logged: train/loss with its terms, train/accuracy, and for methods with refinement steps the norm of the synthetic
    gradient and its cosine with the true one; under val/ and test/ loss, accuracy, accuracy_ci95, accuracy_step_<k> for
    k = 0..K, and accuracy_nearest_mean, the yardstick on the same features. Accuracies are fractions of one. Every
    validation fits `temperature`, by which logits are divided where probabilities are to be believed; checkpoints hold
    it, and test/ece is the calibration error that it leaves, a fraction of one.

    Args:
        method: features of a task to logits, see fewshot.methods.
        backbone: pictures to features.
        freeze_backbone: keep the backbone in evaluation mode, without gradient and with its statistics untouched. Its
            features are then computed once for every picture rather than once for every episode.
        optimizer: of the trained parameters; None takes the paper's SGD (learning rate 1e-3, Nesterov momentum 0.9,
            weight decay 5e-4).
        lr_scheduler: of the optimiser; None keeps the rate fixed, as in the paper.
        lr_interval: whether the scheduler moves every optimiser step or every epoch.
        initial_loss_weight: weight of the cross-entropy before refinement beside the one after it. 0 (published) trains
            for the last step alone; where the backbone is trained too, more than 0 keeps the initialiser good.
        save_bad_episodes: write the episodes into the run folder whose loss is not finite; it stops the run either way.
    """

    DEFAULT_OPTIMIZER: ClassVar[dict[str, Any]] = {
        "lr": 1e-3,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
    }

    accuracies: Any
    losses: Any
    calibration_errors: Any

    def __init__(
        self,
        method: Method,
        backbone: BackboneConfig = BackboneConfig(),  # noqa: B008  (frozen)
        freeze_backbone: bool = True,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["step", "epoch"] = "epoch",
        initial_loss_weight: float = 0.0,
        save_bad_episodes: bool = False,
    ) -> None:
        super().__init__()
        backbone = backbone.located()
        self.record(locals())
        self.method = method
        self.set_up(backbone, optimizer=optimizer, lr_scheduler=lr_scheduler, lr_interval=lr_interval)
        self.method.build(self.backbone.num_features)
        self.method.build_on(self.backbone)
        self.freeze_backbone = freeze_backbone
        if freeze_backbone:
            self.backbone.requires_grad_(False)
            self.backbone.eval()
        self.initial_loss_weight = initial_loss_weight
        self.save_bad_episodes = save_bad_episodes
        self.yardstick = NearestClassMean()
        self.accuracies = nn.ModuleDict(
            {
                f"{split}_{name}": EpisodeAccuracy()
                for split in ("val", "test")
                for name in (
                    *(str(step) for step in range(self.method.evaluation_steps + 1)),
                    *(["nearest_mean"] if self.method.on_features else []),
                )
            }
        )
        self.losses = nn.ModuleDict({split: EpisodeLoss() for split in ("val", "test")})
        self.calibration = CalibrationTemperature()
        self.calibration_errors = nn.ModuleDict({name: CalibrationError() for name in ("ece", "ece_uncalibrated")})
        self.test_counts = EpisodeCounts()
        self.temperature: float | None = None  # of calibrated probabilities, once validation has found it

    def forward(self, episode: Episode) -> Refinement:
        """Logits of the queries before and after every refinement step."""
        return self.method(self.backbone, episode)

    def train(self, mode: bool = True) -> FewShotModule:
        """Set training mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.freeze_backbone:
            self.backbone.eval()
        return self

    def setup(self, stage: str) -> None:
        """Tell the data module what the backbone receives, and let it store the features of a frozen one.

        Raises:
            ValueError: the data module gives no episodes, or episodes of more or fewer ways than the method serves; a
                precision that is not supported.
        """
        super().setup(stage)
        data = self.data
        if data is None:
            return
        if not isinstance(data, EpisodicDataModule):
            raise ValueError(
                f"FewShotModule needs episodes but data is {type(data).__name__}; set data to EpisodicDataModule, or "
                "model to PretrainModule"
            )
        ways = {data.n_way} | (set(data.train_n_way) if stage == "fit" else set())
        if self.method.n_way is not None and ways != {self.method.n_way}:
            raise ValueError(
                f"the method was made for n_way={self.method.n_way} but the episodes have {sorted(ways)} ways; set "
                "both alike, or use a method for any number of ways"
            )
        if not self.method.on_features:
            data.carry_pictures()
        elif self.freeze_backbone:
            data.use_features(self.encode, self.backbone_key)
        else:
            data.expect_features("val", "test")

    def backbone_key(self) -> str:
        """SHA-256 of what decides the features: the backbone's architecture, every one of its weights, the precision.

        With it timm's version, whose networks may change under the same name and weights. The device is left out:
        features of two kinds of device differ by rounding, and whose are there are used.
        """
        config, trainer = self.backbone_config, self.attached_trainer
        precision = "32-true" if trainer is None else trainer.precision
        described = f"{config.name} {config.image_size} {precision} {config.compile} timm {timm.__version__}"
        digest = hashlib.sha256(described.encode())
        for name, tensor in self.backbone.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def training_step(self, episode: Episode, batch_idx: int) -> Tensor:
        """Loss of a batch of episodes."""
        labels = episode.known_query_labels()
        refinement = self(episode)
        terms = self.method.loss(refinement, labels)
        if self.initial_loss_weight:
            if self.method.n_steps and len(refinement.logits) == 1:
                raise ValueError(
                    f"initial_loss_weight={self.initial_loss_weight} but {type(self.method).__name__} classifies the "
                    "queries after its last step alone in training; set model.initial_loss_weight=0"
                )
            initial = F.cross_entropy(refinement.logits[0].flatten(0, 1), labels.flatten())
            terms = {**terms, "initial": self.initial_loss_weight * initial}
        loss = torch.stack(list(terms.values())).sum()
        if not bool(loss.isfinite()):
            raise divergence(self, loss, episode, refinement.logits, save=self.save_bad_episodes)
        if self.is_logged(batch_idx):
            self._log_training(loss, terms, refinement, labels)
        return loss

    def on_train_start(self) -> None:
        self.prepare_method()

    def on_validation_epoch_start(self) -> None:
        self._reset("val")
        self.prepare_method()
        self.compute_features("val")

    def on_test_epoch_start(self) -> None:
        self._reset("test")
        self.prepare_method()
        self.compute_features("test")

    def on_predict_epoch_start(self) -> None:
        self.prepare_method()
        self.compute_features("test")

    def validation_step(self, episode: Episode, batch_idx: int) -> None:
        self._evaluate(episode, "val")

    def test_step(self, episode: Episode, batch_idx: int) -> None:
        self._evaluate(episode, "test")

    def on_validation_epoch_end(self) -> None:
        self._log_accuracies("val")

    def on_test_epoch_end(self) -> None:
        self._log_accuracies("test")

    def predict_step(self, episode: Episode, batch_idx: int) -> dict[str, Tensor | None]:
        """Probabilities [T, Q, N] of the queries before and after refinement, beside the episode's own numbers."""
        refinement = self(episode)
        return prediction(episode, before=refinement.logits[0], after=refinement.logits[-1])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the temperature of calibrated probabilities to what every module's checkpoint holds."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["temperature"] = self.temperature

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the temperature too."""
        self.temperature = checkpoint.get("temperature")
        super().on_load_checkpoint(checkpoint)

    def prepare_method(self) -> None:
        """Tell the method about the training classes of the data module, where it asks and does not know yet.

        A checkpoint brings what its method was told, so that this follows the loading of one. The pictures of the train
        split are encoded as they are, once, and stored like all features.

        Raises:
            ValueError: the backbone is trained too, so that what the method is told would not stay true.
        """
        data = self.data
        if self.method.is_prepared or not isinstance(data, EpisodicDataModule):
            return
        if not self.freeze_backbone:
            raise ValueError(
                f"{type(self.method).__name__} is told the training classes' features once, but freeze_backbone=false "
                "changes them; set model.freeze_backbone=true"
            )
        with torch.inference_mode(False), torch.no_grad():
            features, labels = data.plain_features("train", self.encode, self.backbone_key())
            self.method.prepare(base_classes(features, labels, self.backbone_config.weights))
            self.method.base_classes.to(self.device)

    def _evaluate(self, episode: Episode, split: str) -> None:
        labels = episode.known_query_labels()
        counts = {}
        if self.method.on_features:
            support, query = encoded(self.backbone, episode)
            episode = episode._replace(support=support, query=query)
            nearest = self.yardstick.classify(support, episode.support_labels, query, episode.n_way)
            counts["nearest_mean"] = correct_queries(nearest, labels)
        refinement = self(episode)
        if len(refinement.logits) != self.method.evaluation_steps + 1:
            raise ValueError(
                f"{type(self.method).__name__}.refine gives logits of {len(refinement.logits)} steps, before the first "
                f"one and after each, but its evaluation_steps is {self.method.evaluation_steps}; set n_steps to K"
            )
        counts |= {str(step): correct for step, correct in enumerate(correct_queries(refinement.logits, labels))}
        loss = F.cross_entropy(refinement.logits[-1].flatten(0, 1), labels.flatten())
        if self.trainer.world_size > 1 and episode.is_padding:
            episode, labels = episode._replace(numbers=labels.new_zeros(0)), labels[:0]
            counts = {name: correct[:0] for name, correct in counts.items()}
        for name, correct in counts.items():
            self.accuracies[f"{split}_{name}"].update(correct, labels)
        self._calibrate(refinement.logits[-1][: len(labels)], labels, split)
        if split == "test" and episode.numbers is not None:
            self.test_counts.update(episode.numbers, list(counts.values()), labels)
        self.losses[split].update(loss, len(labels))

    def _calibrate(self, logits: Tensor, labels: Tensor, split: str) -> None:
        if split == "val":
            self.calibration.update(logits, labels)
            return
        for name, temperature in (("ece", self.temperature or 1.0), ("ece_uncalibrated", 1.0)):
            self.calibration_errors[name].update((logits / temperature).softmax(-1), labels)

    def _reset(self, split: str) -> None:
        self.losses[split].reset()
        for metric in (self.calibration, *self.calibration_errors.values()):
            metric.reset()
        for name, metric in self.accuracies.items():
            if name.startswith(f"{split}_"):
                metric.reset()
        if split == "test":
            self.test_counts.reset()

    def _log_accuracies(self, split: str) -> None:
        steps = [self._accuracy(f"{split}_{step}") for step in range(self.method.evaluation_steps + 1)]
        results = {
            "accuracy": steps[-1].accuracy,
            "ci95": steps[-1].ci95,
            "n_episodes": steps[-1].n_episodes,
            "accuracy_per_step": [step.accuracy for step in steps],
            "ci95_per_step": [step.ci95 for step in steps],
        }
        logged = {f"{split}/accuracy": steps[-1].accuracy, f"{split}/accuracy_ci95": steps[-1].ci95}
        logged[f"{split}/loss"] = self.losses[split].compute()
        logged |= {f"{split}/accuracy_step_{k}": step.accuracy for k, step in enumerate(steps)}
        if self.method.on_features:
            nearest = self._accuracy(f"{split}_nearest_mean")
            logged[f"{split}/accuracy_nearest_mean"] = nearest.accuracy
            results |= {"accuracy_nearest_mean": nearest.accuracy, "ci95_nearest_mean": nearest.ci95}
        if split == "val":
            results["temperature"] = self.temperature = self.calibration.compute()
        if split == "test":
            errors = {name: metric.compute() for name, metric in self.calibration_errors.items()}
            results |= {"temperature": self.temperature, **errors}
            logged["test/ece"] = errors["ece"]
            results |= self._paired(n_query=int(self.accuracies["test_0"].n_query))
        self.results[split] = results
        self.log(f"{split}/accuracy", logged.pop(f"{split}/accuracy"), prog_bar=True)
        self.log_dict(logged)  # every rank has computed the same values over all ranks

    def _accuracy(self, name: str) -> AccuracyInterval:
        return self.accuracies[name].compute()

    def _paired(self, n_query: int) -> dict[str, Any]:
        """Correct queries of every test episode, and what the last step gains over what it is compared with."""
        rows = self.test_counts.compute()  # [n, 1 + M]
        if not len(rows):
            return {}
        names = [f"step_{step}" for step in range(self.method.evaluation_steps + 1)]
        if rows.shape[1] == len(names) + 2:
            names = ["nearest_mean", *names]
        gains = {}
        for column, name in enumerate(names[:-1], start=1):
            if name in ("nearest_mean", "step_0"):
                gain = paired_difference(rows[:, -1], rows[:, column], n_query)
                gains[name] = {"difference": gain.accuracy, "ci95": gain.ci95}
        return {"gain_over": gains, "episodes": {"columns": ["episode", *names], "rows": rows.tolist()}}

    def _log_training(self, loss: Tensor, terms: dict[str, Tensor], refinement: Refinement, labels: Tensor) -> None:
        accuracy = (refinement.logits[-1].detach().argmax(-1) == labels).float().mean()
        values = {"train/loss": loss.detach(), "train/accuracy": accuracy}
        if len(terms) > 1:
            values |= {f"train/{name}": value.detach() for name, value in terms.items()}
        if refinement.gradients is not None:
            synthetic = refinement.gradients.detach().flatten(2)  # [K, T, Q*N]
            true = logit_gradient(refinement.logits[:-1].detach(), labels).flatten(2)
            values["train/gradient_norm"] = synthetic.norm(dim=-1).mean()
            values["train/gradient_cosine"] = F.cosine_similarity(synthetic, true, dim=-1).mean()
        self.log("train/loss", values.pop("train/loss"), prog_bar=True, batch_size=labels.shape[0])
        self.log_dict(values, batch_size=labels.shape[0])
