"""One task from beginning to end: a few labelled features, many unlabelled ones, and what comes after them."""

from __future__ import annotations

import functools
import numbers
from typing import NamedTuple

import torch
from pytorch_lightning.utilities import move_data_to_device
from torch import Tensor

from fewshot.classification.held_out import EmbeddingsWithout, HeldOut, held_out_logits
from fewshot.classification.refinement import refined
from fewshot.classification.row_view import RowView
from fewshot.methods.base import Method
from fewshot.methods.frozen_head import FrozenHead
from fewshot.training.metrics import BOUND, LEAST_TEMPERATURE, MOST_TEMPERATURE, is_bound

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
    """[Q, N] after it; those before where refinement was seen to hurt."""
    fitted_on: int | None = None
    """Support pictures that the temperature was fitted on, 0 where none could be held out; None where it was given."""
    held_out: HeldOut | None = None
    """What became of labelled ones held out; None where that was not asked for."""
    strangers: Tensor | None = None
    """[Q] probabilities that an unlabelled one is of none of the classes, from methods that tell; on the CPU."""
    view: RowView | None = None
    """How later pictures are seen before they are classified; None where they are taken as they are."""


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
    embeddings_without: EmbeddingsWithout | None = None,
    check: bool = False,
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
        temperature: what logits are divided by; None finds it on labelled ones held out.
        n_embeddings: how many of the support, its last ones, are no pictures but embeddings of classes.
        embeddings_without: gives these as they would be without the labels of some of the others; None where they do
            not depend on labels.
        check: whether labelled ones are held out to see if refinement helps; where it hurts by more than chance, the
            answer before it is given.

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
    if chunk_size is not None and (not isinstance(chunk_size, numbers.Integral) or chunk_size < 1):
        raise ValueError(f"chunk_size={chunk_size}; give 1 or more pictures, or None for all together")
    check_temperature(temperature)
    bounds = [bound for bound in (chunk_size, method.most_together) if bound is not None]
    chunk_size = min(bounds, default=None)
    with torch.inference_mode():
        labelled, labels = support.unsqueeze(0), support_labels.unsqueeze(0)
        check = check and method.transductive
        held_out, fitted_on = None, None
        if check or temperature is None:
            logits = held_out_logits(
                method,
                support,
                support_labels,
                unlabelled,
                n_way,
                chunk_size=chunk_size,
                n_embeddings=n_embeddings,
                embeddings_without=embeddings_without,
            )
            held_out = logits.counted() if check else None
        hurts = held_out is not None and held_out.hurts
        if temperature is None:
            temperature, fitted_on = logits.temperature(before=hurts), len(logits.labels)
        before, after, strangers = refined(method, labelled, labels, unlabelled, n_way, chunk_size)
        after = before if hurts else after
        head = None
        if method.transductive:
            freeze = method.freeze
            if hurts or (chunk_size is not None and len(unlabelled) > chunk_size):
                freeze = functools.partial(Method.freeze, method)  # no one set of weights, as of several chunks: a head
            head = freeze(labelled, labels, unlabelled.unsqueeze(0), after.unsqueeze(0) if len(after) else None, n_way)
    before, after = ((logits / temperature).softmax(-1) for logits in (before, after))
    return Adapted(labelled, labels, n_way, head, temperature, before, after, fitted_on, held_out, strangers)


def check_temperature(temperature: float | None) -> None:
    """ValueError for one that makes nothing of probabilities; None always passes."""
    if temperature is not None and not LEAST_TEMPERATURE <= temperature <= MOST_TEMPERATURE:
        raise ValueError(
            f"temperature={temperature}; give a number in {LEAST_TEMPERATURE:g}..{MOST_TEMPERATURE:g}, or None to have "
            "it found"
        )


def moved(adapted: Adapted, device: torch.device) -> Adapted:
    """The same task with what later pictures are classified by on a device; probabilities stay where they are."""
    of_task = (adapted.support, adapted.support_labels, adapted.head, adapted.view)
    support, labels, head, view = move_data_to_device(of_task, device)
    return adapted._replace(support=support, support_labels=labels, head=head, view=view)


def later(method: Method, adapted: Adapted, query: Tensor) -> Tensor:
    """Probabilities [Q, N] of pictures that come after refinement, each classified alone.

    Args:
        method: the one that was adapted.
        adapted: what `adapt` gave.
        query: [Q, D].
    """
    found = torch.empty(len(query), adapted.n_way, device=query.device)  # in one place: between parts it would scatter
    with torch.inference_mode():
        for first in range(0, len(query), AT_ONCE):
            part = query[first : first + AT_ONCE]
            part = part if adapted.view is None else adapted.view.of(part)
            if adapted.head is not None:
                logits = adapted.head.logits(part.unsqueeze(0))
            else:
                logits = method.classify(adapted.support, adapted.support_labels, part.unsqueeze(0), adapted.n_way)
            found[first : first + AT_ONCE] = (logits[0].float() / adapted.temperature).softmax(-1)
    return found


def origin(adapted: Adapted, of_model: float | None) -> str:
    """Where the temperature of a task comes from, in words.

    Args:
        adapted: the task.
        of_model: the one that the model brought, if any.
    """
    if adapted.fitted_on is None:
        found = "of the model, from its training" if adapted.temperature == of_model else "given"
    elif adapted.fitted_on:
        found = f"fitted on {adapted.fitted_on} predictions of labelled pictures held out"
    else:
        found = "not fitted: too few labelled pictures to hold one out, so that probabilities are not calibrated"
    return f"{found}; {BOUND}" if is_bound(adapted.temperature) else found
