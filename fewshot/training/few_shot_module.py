"""FewShotModule: meta-trains and evaluates any method on episodes. It knows Method and no paper."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fewshot.backbones import BackboneConfig
from fewshot.data.episodic_datamodule import EpisodicDataModule
from fewshot.episode import STRANGER, Episode
from fewshot.functional.cosine import logit_gradient
from fewshot.methods.base import Method, Refinement, encoded, known_cross_entropy
from fewshot.methods.construction import plain_options, warn_of_changes
from fewshot.methods.nearest_mean import NearestClassMean
from fewshot.methods.options import check_at_least
from fewshot.training.base import BackboneModule, prediction
from fewshot.training.base_classes import base_classes
from fewshot.training.divergence import divergence
from fewshot.training.encoding import backbone_key
from fewshot.training.evaluation import Evaluation, warn_of_undefined
from fewshot.training.threads import FewThreads

SPLITS = ("val", "test")
"""Those that are evaluated."""


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

    evaluations: Any

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
        unbuilt = shapes_of(method)
        self.method.build(self.backbone.num_features)
        self._serves_any_width = shapes_of(method) == unbuilt
        self.method.build_on(self.backbone)
        self.freeze_backbone = freeze_backbone
        if freeze_backbone:
            self.backbone.requires_grad_(False)
            self.backbone.eval()
        check_at_least(0, initial_loss_weight=initial_loss_weight)
        self.initial_loss_weight = initial_loss_weight
        self.save_bad_episodes = save_bad_episodes
        self.yardstick = NearestClassMean()
        self.made_with = plain_options(method)
        steps, on_features = method.evaluation_steps, method.on_features
        self.evaluations = nn.ModuleDict(
            {split: Evaluation(steps, nearest_mean=on_features, fits_temperature=split == "val") for split in SPLITS}
        )
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

    def configure_callbacks(self) -> list[FewThreads]:
        """What the trainer calls beside its own; it may have been given that before."""
        callbacks: Any = self.trainer.callbacks  # type: ignore[attr-defined]
        return [] if any(isinstance(one, FewThreads) for one in callbacks) else [FewThreads()]

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
        """What stored features of the backbone are known by, see `fewshot.training.encoding.backbone_key`."""
        trainer = self.attached_trainer
        return backbone_key(
            self.backbone, self.backbone_config, "32-true" if trainer is None else str(trainer.precision)
        )

    def training_step(self, episode: Episode, batch_idx: int) -> Tensor:
        """Loss of a batch of episodes."""
        labels = episode.known_query_labels()
        self._check_width(episode)
        refinement = self(episode)
        terms = self.method.loss(refinement, labels)
        if self.initial_loss_weight:
            if self.method.n_steps and len(refinement.logits) == 1:
                raise ValueError(
                    f"initial_loss_weight={self.initial_loss_weight} but {type(self.method).__name__} classifies the "
                    "queries after its last step alone in training; set model.initial_loss_weight=0"
                )
            initial = known_cross_entropy(refinement.logits[0], labels)
            terms = {**terms, "initial": self.initial_loss_weight * initial}
        loss = torch.stack(list(terms.values())).sum()
        if not bool(loss.isfinite()):
            raise divergence(self, loss, episode, refinement.logits, save=self.save_bad_episodes)
        if self.is_logged(batch_idx):
            self._log_training(loss, terms, refinement, labels)
        return loss

    def _check_width(self, episode: Episode) -> None:
        """ValueError for features of another width than the backbone's, where the method was built for that."""
        width, own = episode.support.shape[-1], self.backbone.num_features
        if episode.holds_features and width != own and not self._serves_any_width:
            raise ValueError(
                f"{type(self.method).__name__} has weights for the {own} features of model.backbone, and a training "
                f"task has {width}; take a method whose weights do not depend on it, such as UniversalSIB, or spaces "
                "by the model's own backbone alone"
            )

    def on_train_start(self) -> None:
        super().on_train_start()
        self.prepare_method()

    def on_validation_epoch_start(self) -> None:
        self.evaluations["val"].reset(self.method.evaluation_steps)
        self.prepare_method()
        self.compute_features("val")

    def on_test_epoch_start(self) -> None:
        self.evaluations["test"].reset(self.method.evaluation_steps)
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
        self._log_results("val")

    def on_test_epoch_end(self) -> None:
        self._log_results("test")

    def predict_step(self, episode: Episode, batch_idx: int) -> dict[str, Tensor | None]:
        """Probabilities [T, Q, N] of the queries before and after refinement, beside the episode's own numbers."""
        refinement = self(episode)
        return prediction(episode, before=refinement.logits[0], after=refinement.logits[-1])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the temperature of calibrated probabilities to what every module's checkpoint holds."""
        super().on_save_checkpoint(checkpoint)
        warn_of_changes(self.method, self.made_with)
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
        nearest = None
        if self.method.on_features:
            support, query = encoded(self.backbone, episode)
            episode = episode._replace(support=support, query=query)
            nearest = self.yardstick.classify(support, episode.support_labels, query, episode.n_way)
        logits = self(episode).logits
        if len(logits) != self.method.evaluation_steps + 1:
            raise ValueError(
                f"{type(self.method).__name__}.refine gives logits of {len(logits)} steps, before the first one and "
                f"after each, but its evaluation_steps is {self.method.evaluation_steps}; set n_steps to K"
            )
        self.evaluations[split].update(
            logits,
            episode.known_query_labels(),
            nearest=nearest,
            numbers=episode.numbers,
            temperature=self.temperature,
            counted=0 if self.trainer.world_size > 1 and episode.is_padding else episode.n_tasks,
        )

    def _log_results(self, split: str) -> None:
        results = self.results[split] = self.evaluations[split].results(self.temperature)
        warn_of_undefined(results, split, type(self.method).__name__)
        if split == "val" and not self.trainer.sanity_checking:  # whose weights are not trained
            self.temperature = results["temperature"]
        logged = {"accuracy_ci95": results["ci95"], "loss": self.evaluations[split].loss.compute()}
        logged |= {f"accuracy_step_{k}": accuracy for k, accuracy in enumerate(results["accuracy_per_step"])}
        logged |= {key: results[key] for key in ("accuracy_nearest_mean", "ece") if key in results}
        self.log(f"{split}/accuracy", results["accuracy"], prog_bar=True)
        # every rank has computed the same values over all ranks
        self.log_dict({f"{split}/{key}": value for key, value in logged.items()})

    def _log_training(self, loss: Tensor, terms: dict[str, Tensor], refinement: Refinement, labels: Tensor) -> None:
        known = labels != STRANGER
        accuracy = (refinement.logits[-1].detach().argmax(-1) == labels)[known].float().mean()
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


def shapes_of(method: Method) -> dict[str, Any]:
    """The shapes of a method's weights by name; None of those that `build` has still to make."""
    return {name: None if is_lazy(value) else value.shape for name, value in method.named_parameters()}
