"""One task from beginning to end: a few labelled features, many unlabelled ones, and what comes after them."""

from __future__ import annotations

import functools
import math
import warnings
from typing import NamedTuple

import numpy as np
import torch
from pytorch_lightning.utilities import move_data_to_device
from torch import Tensor

from fewshot.classification.class_embeddings import centred
from fewshot.methods.base import Method
from fewshot.methods.frozen_head import FrozenHead
from fewshot.training.metrics import (
    BOUND,
    LEAST_TEMPERATURE,
    MOST_TEMPERATURE,
    CalibrationTemperature,
    is_bound,
)

MAX_FOLDS = 5
"""Times that a picture of every class is taken out of the support to see how far probabilities can be believed."""
AT_ONCE = 4096
"""Later queries that are classified at a time."""


class Adapted(NamedTuple):
    """A method told what one task is about. Letters: N classes, S support, Q unlabelled."""

    support: Tensor
    """[1, S, D]."""
    support_labels: Tensor
    """[1, S] int64."""
    n_way: int
    head: FrozenHead | None
    """What classifies later pictures; None for a method that classifies each of them by the support."""
    temperature: float
    """What logits are divided by for probabilities."""
    before: Tensor
    """[Q, N] probabilities of the unlabelled before refinement."""
    probabilities: Tensor
    """[Q, N] after it."""
    held_out: int | None = None
    """Support pictures that the temperature was fitted on, 0 where none could be held out; None where it was given."""
    strangers: Tensor | None = None
    """[Q] probabilities that an unlabelled one is of none of the classes, from methods that tell; on the CPU."""
    centre: Tensor | None = None
    """[D], what later pictures are centred by before they are classified; None where they are taken as they are."""


def adapt(
    method: Method,
    support: Tensor,
    support_labels: Tensor,
    unlabelled: Tensor,
    n_way: int,
    *,
    chunk_size: int | None = None,
    temperature: float | None = None,
    n_embeddings: int = 0,
) -> Adapted:
    """Tell a method the task: classify the unlabelled jointly, and keep what later pictures are classified by.

    Args:
        method: in evaluation mode.
        support: [S, D].
        support_labels: [S] int64 in 0..N-1, every class at least once.
        unlabelled: [Q, D], none or more.
        n_way: N.
        chunk_size: how many unlabelled are refined together at most; they are dealt to chunks of about equal size
            at random (by a fixed seed), so that every chunk has the mixture of the whole. None takes all together, or
            as many as the method bears.
        temperature: what logits are divided by; None finds it by `support_temperature`.
        n_embeddings: how many of the support, its last ones, are no pictures but embeddings of classes.

    Raises:
        ValueError: the method does not serve so many ways, is none on features, or was not told of training classes.
    """
    if not method.on_features:
        raise ValueError(
            f"{type(method).__name__} adapts the backbone itself to every task and has no classifier of features; use "
            "a method that works on features, such as SIB or PTMAP"
        )
    if not method.is_prepared:
        raise ValueError(
            f"{type(method).__name__} has to be told of the training classes; take one from a checkpoint of its run, "
            "or a method that needs none"
        )
    method.check_ways(n_way)
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size}; give 1 or more pictures, or None for all together")
    check_temperature(temperature)
    bounds = [bound for bound in (chunk_size, method.most_together) if bound is not None]
    chunk_size = min(bounds, default=None)
    with torch.inference_mode():
        labelled, labels = support.unsqueeze(0), support_labels.unsqueeze(0)
        held_out = None
        if temperature is None:
            temperature, held_out = support_temperature(
                method, support, support_labels, unlabelled, n_way, chunk_size=chunk_size, n_embeddings=n_embeddings
            )
        before, after, strangers = _refined(method, labelled, labels, unlabelled, n_way, chunk_size)
        head = None
        if method.transductive:
            freeze = method.freeze
            if chunk_size is not None and len(unlabelled) > chunk_size:
                freeze = functools.partial(Method.freeze, method)  # several chunks, several sets of weights: one head
            head = freeze(labelled, labels, unlabelled.unsqueeze(0), after.unsqueeze(0) if len(after) else None, n_way)
    before, after = ((logits / temperature).softmax(-1) for logits in (before, after))
    return Adapted(labelled, labels, n_way, head, temperature, before, after, held_out, strangers)


def check_temperature(temperature: float | None) -> None:
    """ValueError for one that makes nothing of probabilities; None always passes."""
    if temperature is not None and not LEAST_TEMPERATURE <= temperature <= MOST_TEMPERATURE:
        raise ValueError(
            f"temperature={temperature}; give a number in {LEAST_TEMPERATURE:g}..{MOST_TEMPERATURE:g}, or None to have "
            "it found"
        )


def moved(adapted: Adapted, device: torch.device) -> Adapted:
    """The same task with what later pictures are classified by on a device; probabilities stay where they are."""
    of_task = (adapted.support, adapted.support_labels, adapted.head, adapted.centre)
    support, labels, head, centre = move_data_to_device(of_task, device)
    return adapted._replace(support=support, support_labels=labels, head=head, centre=centre)


def later(method: Method, adapted: Adapted, query: Tensor) -> Tensor:
    """Probabilities [Q, N] of pictures that come after refinement, each classified alone.

    Args:
        method: the one that was adapted.
        adapted: what `adapt` gave.
        query: [Q, D].
    """
    parts = []
    with torch.inference_mode():
        for part in query.split(AT_ONCE) if len(query) else [query]:
            part = part if adapted.centre is None else centred(part, adapted.centre)
            if adapted.head is not None:
                logits = adapted.head.logits(part.unsqueeze(0))
            else:
                logits = method.classify(adapted.support, adapted.support_labels, part.unsqueeze(0), adapted.n_way)
            parts.append((logits[0].float() / adapted.temperature).softmax(-1))
    return torch.cat(parts)


def support_temperature(
    method: Method,
    support: Tensor,
    support_labels: Tensor,
    unlabelled: Tensor,
    n_way: int,
    *,
    chunk_size: int | None = None,
    n_embeddings: int = 0,
) -> tuple[float, int]:
    """The temperature with which probabilities of support pictures held out, one a class and fold, say their labels.

    With it comes how many were held out. They are classified jointly with the unlabelled. Embeddings of classes and the
    only one of a class are not held out; where fewer than two can be, the temperature is 1 and none was. One at a bound
    is warned of.

    Args: as of `adapt`.
    """
    places = [(support_labels == c).nonzero().flatten() for c in range(n_way)]
    pictures = len(support) - n_embeddings
    folds = min(MAX_FOLDS, max(len(one) for one in places))
    metric = CalibrationTemperature().to(support.device)
    counted = 0
    for fold in range(folds):
        out = [int(one[fold]) for one in places if len(one) >= 2 and fold < len(one) and int(one[fold]) < pictures]
        if len(out) < 2:
            continue
        held = torch.tensor(out, device=support.device)
        stays = torch.ones(len(support), dtype=torch.bool, device=support.device)
        stays[held] = False
        logits = _refined(
            method,
            support[stays].unsqueeze(0),
            support_labels[stays].unsqueeze(0),
            torch.cat([support[held], unlabelled[chunks(len(unlabelled), chunk_size)[0]]]),
            n_way,
            method.most_together,
        )[1]
        metric.update(logits[: len(held)], support_labels[held])
        counted += len(held)
    if not counted:
        return 1.0, 0
    temperature = metric.compute()
    if is_bound(temperature):
        warnings.warn(f"temperature {temperature:.3g}, {BOUND}", stacklevel=5)
    return temperature, counted


def origin(adapted: Adapted, of_model: float | None) -> str:
    """Where the temperature of a task comes from, in words.

    Args:
        adapted: the task.
        of_model: the one that the model brought, if any.
    """
    if adapted.held_out is None:
        found = "of the model, from its training" if adapted.temperature == of_model else "given"
    elif adapted.held_out:
        found = f"fitted on {adapted.held_out} predictions of labelled pictures held out"
    else:
        found = "not fitted: too few labelled pictures to hold one out, so that probabilities are not calibrated"
    return f"{found}; {BOUND}" if is_bound(adapted.temperature) else found


def chunks(total: int, chunk_size: int | None) -> list[Tensor]:
    """Places of so many unlabelled that are refined together, of about equal size, dealt at random by a fixed seed.

    Args:
        total: how many there are.
        chunk_size: the most of a chunk; None takes one for all, in their order.
    """
    number = 1 if chunk_size is None else max(1, math.ceil(total / chunk_size))
    order = np.arange(total) if number == 1 else np.random.default_rng(0).permutation(total)
    return [torch.from_numpy(part) for part in np.array_split(order, number)]


def _refined(
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
