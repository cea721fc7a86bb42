"""What a few-shot method is: features of a task in, logits of its queries out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from fewshot.episode import STRANGER, Episode
from fewshot.functional.features import in_full_precision
from fewshot.functional.information import class_softmax
from fewshot.methods.base_classes import BaseClasses, StoredBaseClasses
from fewshot.methods.construction import Recorded
from fewshot.methods.frozen_head import FrozenHead, distilled_head


class Refinement(NamedTuple):
    """What a method makes of a batch of tasks, step by step."""

    logits: Tensor
    """[K+1, T, Q, N], before the first step and after each of the K steps; K = 0 for methods that take no steps. Where
    every one of them is costly, [1, T, Q, N] in training: those after the last step alone."""
    gradients: Tensor | None = None
    """[K, T, Q, N], what stood in for the gradient of the loss with respect to the logits at each step, if anything."""
    losses: dict[str, Tensor] = {}  # noqa: RUF012  (a NamedTuple's default; never written to)
    """Extra loss terms by name, one number each, already weighted; added to the cross-entropy in training."""
    strangers: Tensor | None = None
    """[K+1, T, Q], logits that a query is of none of the classes, from methods that tell."""


class Method(Recorded, nn.Module):
    """Base of all methods. To add one, write `classify` in a file of your own and name the class in a config.

    A method works on features and on a whole batch of tasks at once: what it gives for T tasks is what it gives for
    each of them alone. Nothing is left on self between calls. Parameters whose shape depends on the feature size D are
    declared in the class and made in `build`. A method that moves in steps writes `refine` in place of `classify`.

    `classify`, `refine` and `freeze` receive features in float32 or wider and run outside of autocast, also in mixed
    precision: small steps and differences of similar logits do not survive half precision.
    """

    n_way: int | None = None
    """The only number of ways this instance serves, or None where it serves any."""
    n_steps: int = 0
    """K, refinement steps in training."""
    test_steps: int | None = None
    """K in evaluation mode where it differs; None takes n_steps."""
    transductive: bool = True
    """Whether which other queries there are changes what is said of one; False classifies each of them alone."""
    most_together: int | None = None
    """Queries that are to be refined together at most, where memory grows with their square; None for any number."""
    comes_trained: bool = False
    """Whether its weights come with the package, and its probabilities are as they were trained to be believed."""
    tells_strangers: bool = False
    """Whether `refine` says of every query how likely it is of none of the classes."""
    on_features: bool = True
    """Whether `classify` on features is all there is to it; False for a method that needs the backbone's weights."""
    relabels: bool = True
    """Whether renumbering the classes of a task permutes the columns of its logits and changes nothing else."""
    scales_only: bool = False
    """Whether its parameters scale its logits and do nothing else: classes are the same before training."""
    needs_base: Literal["features", "classifier"] | None = None
    """What `classify` reads from `base`: features of the training classes, their pre-training classifier too, or
    nothing."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in ("classify", "refine", "freeze"):
            if name in cls.__dict__:
                setattr(cls, name, _in_full_precision(cls.__dict__[name]))

    def __init__(self) -> None:
        super().__init__()
        if type(self).classify is Method.classify and type(self).refine is Method.refine:
            raise TypeError(f"{type(self).__name__} defines neither classify nor refine; a method has one of the two")
        if self.needs_base is not None:
            self.base_classes = StoredBaseClasses()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            raise AttributeError(f"{error}; what depends on the feature size is made by build(n_features)") from None

    def prepare(self, base: BaseClasses) -> None:
        """Take over what is to be known of the training classes; it goes into checkpoints and comes back with them.

        FewShotModule calls it before the first episode where `needs_base` asks for it.

        Raises:
            ValueError: the method needs the pre-training classifier and there is none.
        """
        if self.needs_base is None:
            return
        if self.needs_base == "classifier" and (base.weights is None or base.scale is None):
            raise ValueError(
                f"{type(self).__name__} needs the classifier that the backbone was pre-trained with, and the backbone "
                "brings none; set model.backbone.weights to a checkpoint of PretrainModule"
            )
        self.base_classes.fill(base)

    @property
    def is_prepared(self) -> bool:
        """Whether `base` can be read, or need not be."""
        return self.needs_base is None or self.base_classes.read() is not None

    @property
    def base(self) -> BaseClasses:
        """What `prepare` was given, for methods that say so by `needs_base`; ValueError before."""
        found = None if self.needs_base is None else self.base_classes.read()
        if found is None:
            raise ValueError(
                f"{type(self).__name__} has been told nothing of the training classes; test it by FewShotModule with "
                "EpisodicDataModule, or call its prepare(BaseClasses(...)) first"
            )
        return found

    def build(self, n_features: int) -> None:
        """Make the parameters whose shape depends on D; called once, before training, by FewShotModule.

        Args:
            n_features: D, the width of the features that `classify` will receive.
        """

    def build_on(self, backbone: nn.Module) -> None:
        """Make the parameters whose shape depends on the backbone's layers; called after `build`, by FewShotModule.

        Args:
            backbone: pictures [B, C, H, W] to features [B, D]; not to be kept.

        Raises:
            ValueError: the backbone is not of the kind that the method needs.
        """

    def check_ways(self, n_way: int) -> None:
        """Raise ValueError where an episode has another number of ways than the only one that the method serves."""
        if self.n_way not in (None, n_way):
            raise ValueError(
                f"this {type(self).__name__} was made for n_way={self.n_way} but the episode has {n_way} ways; set "
                "both alike"
            )

    @property
    def evaluation_steps(self) -> int:
        """K in evaluation mode."""
        return self.n_steps if self.test_steps is None else self.test_steps

    @property
    def steps(self) -> int:
        """K in the mode that the method is in."""
        return self.n_steps if self.training else self.evaluation_steps

    def classify(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """Logits of the queries, [T, Q, N].

        Args:
            support: [T, S, D] features.
            support_labels: [T, S] int64 in 0..N-1.
            query: [T, Q, D] features.
            n_way: N.
        """
        return self.refine(support, support_labels, query, n_way).logits[-1]

    def refine(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Refinement:
        """Logits before and after every refinement step; the last ones are what `classify` returns.

        Args: as in `classify`.
        """
        return Refinement(self.classify(support, support_labels, query, n_way).unsqueeze(0))

    def freeze(
        self, support: Tensor, support_labels: Tensor, query: Tensor, logits: Tensor | None, n_way: int
    ) -> FrozenHead:
        """The classifier that a transductive method leaves behind, for pictures that come after refinement.

        A linear head that repeats what the method said of the queries, see `distilled_head`; a method whose own
        weights are such a head overrides this.

        Args:
            support: [T, S, D] features.
            support_labels: [T, S] int64 in 0..N-1.
            query: [T, Q, D] features.
            logits: [T, Q, N], what `classify` gave; None where there were no queries to refine with.
            n_way: N.
        """
        if logits is None:
            query = query[:, :0]
            logits = query.new_zeros(len(query), 0, n_way)
        return distilled_head(
            in_full_precision(support),
            support_labels,
            in_full_precision(query),
            class_softmax(in_full_precision(logits)),
        )

    def loss(self, refinement: Refinement, query_labels: Tensor) -> dict[str, Tensor]:
        """Named terms whose sum is the training loss: the queries' cross-entropy after the last step, and the extras.

        Args:
            refinement: what `refine` returned.
            query_labels: [T, Q] int64; STRANGER counts in no cross-entropy.
        """
        logits = refinement.logits[-1]
        return {"cross_entropy": known_cross_entropy(logits, query_labels), **refinement.losses}

    def forward(self, backbone: nn.Module, episode: Episode) -> Refinement:
        """Encode the episode and refine; a method that needs the backbone's weights overrides this.

        Args:
            backbone: pictures [B, C, H, W] to features [B, D]; not called where the episode holds features already.
            episode: T tasks.
        """
        support, query = encoded(backbone, episode)
        with record_function("method"):
            refinement = self.refine(support, episode.support_labels, query, episode.n_way)
        found, needed = tuple(refinement.logits.shape[1:]), (*query.shape[:2], episode.n_way)
        if found != needed:
            raise ValueError(
                f"{type(self).__name__} gives logits {list(found)} of an episode whose tasks, queries and classes are "
                f"{list(needed)}; return [T, Q, N] from classify, [K + 1, T, Q, N] in the Refinement of refine"
            )
        return refinement


def known_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the queries whose class is known; 0 where there are none, as in a batch of strangers alone.

    Args:
        logits: [..., N].
        labels: [...] int64, or STRANGER.
    """
    total = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=STRANGER, reduction="sum")
    return total / (labels != STRANGER).sum().clamp_min(1)


def encoded(backbone: nn.Module, episode: Episode) -> tuple[Tensor, Tensor]:
    """Features of support [T, S, D] and query [T, Q, D], all pictures of all tasks in one pass through the backbone.

    Args:
        backbone: pictures [B, C, H, W] to features [B, D].
        episode: T tasks; one that holds features already is passed through.
    """
    if episode.holds_features:
        return episode.support, episode.query
    tasks, n_support = episode.support_labels.shape
    pictures = torch.cat([episode.support, episode.query], dim=1)  # [T, S+Q, C, H, W]
    with record_function("encode"):
        pictures = pictures.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features = backbone(pictures).unflatten(0, (tasks, -1))  # [T, S+Q, D]
    return features[:, :n_support], features[:, n_support:]


def _in_full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a task outside of autocast, on features in float32 or wider; without queries, without logits."""

    @functools.wraps(function)
    def guarded(self: Method, support: Tensor, support_labels: Tensor, query: Tensor, *rest: Any, **named: Any) -> Any:
        if query.shape[1] == 0 and function.__name__ != "freeze":
            none = in_full_precision(query).new_zeros(len(query), 0, named["n_way"] if "n_way" in named else rest[0])
            return none if function.__name__ == "classify" else Refinement(none.expand(self.steps + 1, -1, -1, -1))
        with torch.autocast(device_type=query.device.type, enabled=False):
            return function(self, in_full_precision(support), support_labels, in_full_precision(query), *rest, **named)

    return guarded
