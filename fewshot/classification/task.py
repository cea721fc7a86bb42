"""A person's task as features: labelled rows, rows to classify, embeddings of the classes; and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewshot.classification.class_embeddings import ClassEmbeddings
from fewshot.classification.classified import Classified
from fewshot.classification.classifier import FewShotClassifier
from fewshot.classification.label_files import GivenLabels
from fewshot.classification.novelty import Told, novelty, threshold


class Task(NamedTuple):
    """Labelled rows and rows to classify, of pictures that could be read or of a file of features."""

    class_names: tuple[str, ...]
    support: tuple[Path | str, ...]
    """Files, or names of rows."""
    support_labels: np.ndarray
    """[S] int64 in 0..N-1."""
    support_features: Tensor
    """[S, D]."""
    query: tuple[Path | str, ...]
    """As the support."""
    query_names: tuple[str, ...]
    """As a table shows them."""
    query_features: Tensor
    """[Q, D]."""
    skipped: tuple[tuple[Path, str], ...] = ()
    """Files that could not be read, with the reason."""
    texts: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    """What stands in the place of pictures of support and queries; None where they are pictures."""
    class_embeddings: Mapping[int, Tensor] = {}
    """[D] of each class that has one, by its number."""
    given_labels: tuple[tuple[str, str | None], ...] = ()
    """What a table of labels says, name and class; None for none of the classes."""
    nones: tuple[Path | str, ...] = ()
    """Files, or names of rows, that are said to be none of the classes: neither support nor queries."""
    none_features: Tensor | None = None
    """[M, D] of those, in the order of `given_labels`."""
    corrected: int = 0
    """Labels of an earlier run that a table says otherwise."""


def with_labels(task: Task, given: GivenLabels) -> Task:
    """The task of pictures with some of its queries labelled, or taken away as none of the classes.

    Args:
        task: with all pictures of the folder as queries.
        given: by their names as a table shows them; what is not among the queries could not be read.

    Raises:
        ValueError: a class none of whose pictures could be read, or no query is left.
    """
    names = sorted({*task.class_names, *given.labelled.values()})
    places = {name: place for place, name in enumerate(names)}
    kept = {name: place for place, name in enumerate(task.query_names)}
    labelled = [(kept[name], places[label]) for name, label in given.labelled.items() if name in kept]
    numbers = [*(places[task.class_names[label]] for label in task.support_labels), *(label for _, label in labelled)]
    embeddings = {places[task.class_names[label]]: row for label, row in task.class_embeddings.items()}
    if empty := set(range(len(names))) - set(numbers) - set(embeddings):
        raise ValueError(f"labels: no picture of class {names[min(empty)]!r} can be read; label another one")
    taken, nones = [place for place, _ in labelled], [kept[name] for name in given.nones if name in kept]
    left = np.setdiff1d(np.arange(len(task.query)), [*taken, *nones])
    if not len(left):
        raise ValueError(f"labels: all {len(task.query)} pictures have labels; there is nothing left to classify")
    of_nones = task.query_features[:0] if task.none_features is None else task.none_features
    order = np.argsort(numbers, kind="stable")
    support = [*task.support, *(task.query[place] for place in taken)]
    return task._replace(
        class_names=tuple(names),
        support=tuple(support[place] for place in order),
        support_labels=np.array(numbers, dtype=np.int64)[order],
        support_features=torch.cat([task.support_features, task.query_features[taken]])[order],
        query=tuple(task.query[place] for place in left),
        query_names=tuple(task.query_names[place] for place in left),
        query_features=task.query_features[left],
        class_embeddings=embeddings,
        given_labels=(*task.given_labels, *((name, label) for name, label in given.classes.items() if name in kept)),
        nones=(*task.nones, *(task.query[place] for place in nones)),
        none_features=torch.cat([of_nones, task.query_features[nones]]),
    )


def with_class_embeddings(task: Task, given: ClassEmbeddings) -> Task:
    """The task with embeddings of its classes; those that have no labelled row come to it.

    Raises:
        ValueError: embeddings of another width than the rows, or fewer than two classes.
    """
    if (width := task.query_features.shape[1]) != given.features.shape[1]:
        raise ValueError(
            f"class_embeddings: they have {given.features.shape[1]} features and the rows {width}; both have to come "
            "from one model"
        )
    names = sorted({*task.class_names, *given.class_names})
    places = {name: place for place, name in enumerate(names)}
    moved = np.array([places[name] for name in task.class_names], dtype=np.int64)
    embeddings = {places[name]: row for name, row in zip(given.class_names, given.features, strict=True)}
    labels = moved[task.support_labels] if len(moved) else task.support_labels
    return task._replace(class_names=tuple(names), support_labels=labels, class_embeddings=embeddings)


def together(first: Tensor, second: Tensor) -> Tensor:
    """The rows [n, D] of two tensors in one; without a copy where the second lies right behind the first."""
    storage = first.untyped_storage()
    follows = first.storage_offset() + first.numel() == second.storage_offset()
    if follows and storage.data_ptr() == second.untyped_storage().data_ptr():
        if first.is_contiguous() and second.is_contiguous() and first.dtype == second.dtype:
            return torch.as_strided(first, (len(first) + len(second), first.shape[1]), first.stride())
    return torch.cat([first, second])


def classified_task(
    classifier: FewShotClassifier, task: Task, *, measure: Told | None = None, share: float | None = None
) -> Classified:
    """Adapt to the support, refine with the queries, and flag what is unlike every class.

    The result's settings say what was found out, not what was asked for.

    Args:
        classifier: whose encoder gave the features, if they are of pictures.
        task: what it gave.
        measure: of how unlike every class a query is; "learned" takes what the method says; None flags none.
        share: of the queries that is to be flagged; None asks the support's own pictures, or flags those that the
            method thinks are of no class rather than of one.

    Raises:
        ValueError: as of `FewShotClassifier.fit` and `fewshot.classification.novelty.threshold`.
    """
    of_support, of_query, numbers = task.support_features, task.query_features, task.support_labels
    labels = [*(task.class_names[number] for number in numbers), *[None] * len(of_query)]
    embeddings = {task.class_names[number]: row for number, row in task.class_embeddings.items()}
    classifier.fit_features(together(of_support, of_query), labels, class_embeddings=embeddings or None)
    assert len(classifier.classes_) == len(task.class_names), "both are sorted: the columns are in their order"
    unlike, limit = None, None
    if measure == "learned":
        unlike = classifier.strangers_
        assert unlike is not None, "asked of a method that tells"
        limit = 0.5 if share is None else float(np.quantile(unlike, 1 - share))
    elif measure is not None:
        strange = of_query[:0] if task.none_features is None else task.none_features
        given = (of_support, torch.from_numpy(numbers), torch.cat([of_query, strange]), len(task.class_names), measure)
        limit = threshold(*given, share=share, strange=len(strange))
        unlike = novelty(*given).numpy()[: len(of_query)]
    alone = classifier.later_features(of_query).argmax(1)
    agreement = float((alone == classifier.transduction_proba_.argmax(1)).mean())
    return Classified(
        class_names=task.class_names,
        support=task.support,
        support_labels=numbers,
        query=task.query,
        query_names=task.query_names,
        support_features=of_support.numpy(),
        query_features=of_query.numpy(),
        before=classifier.initial_proba_,
        probabilities=classifier.transduction_proba_,
        novelty=unlike,
        novelty_threshold=limit,
        skipped=task.skipped,
        settings={
            "temperature": f"{classifier.temperature_:.3g} ({classifier.temperature_from_})",
            "each classified alone afterwards": f"agrees on {100 * agreement:.1f} % of them",
            "none of these": "not asked" if limit is None else f"{measure} above {limit:.3g}",
            **({} if (view := classifier._adapted.view) is None else {"features are seen": str(view)}),
        },
        texts=task.texts,
        class_embeddings=len(task.class_embeddings),
        held_out=classifier.held_out_,
        given_labels=task.given_labels,
        nones=task.nones,
        corrected=task.corrected,
    )
