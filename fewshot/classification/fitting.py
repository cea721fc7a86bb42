"""What `FewShotClassifier.fit` does with features and labels: one task, adapted to."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewshot.classification.adaptation import Adapted, adapt
from fewshot.classification.class_embeddings import ClassEmbeddings, support_of
from fewshot.classification.conventions import numbered
from fewshot.classification.model import LoadedModel, takes_task_mean
from fewshot.methods import Method
from fewshot.methods.base_classes import of_own_pictures


class Given(NamedTuple):
    """All that a classifier was fitted on, by which it is fitted again when more comes."""

    rows: Tensor
    """[n, D]."""
    labels: list[Hashable]
    """n of them; -1 or None where there is none."""
    embeddings: ClassEmbeddings | None = None

    def with_more(self, more: Given) -> Given:
        """Both, in this order; a class that has an embedding in both has the later one."""
        embeddings = more.embeddings or self.embeddings
        if self.embeddings is not None and more.embeddings is not None:
            both = {**self.embeddings.by_name(), **more.embeddings.by_name()}
            embeddings = ClassEmbeddings(tuple(both), torch.stack(list(both.values())))
        return Given(torch.cat([self.rows, more.rows.to(self.rows)]), [*self.labels, *more.labels], embeddings)


class Fitted(NamedTuple):
    """What came of fitting."""

    classes: list[Hashable]
    """N labels."""
    adapted: Adapted
    transduced: np.ndarray
    """[n] int64, the class of every row."""


def fitted(
    model: LoadedModel,
    given: Given,
    *,
    device: torch.device,
    weight: int,
    chunk_size: int | None,
    temperature: float | None,
    check: bool,
) -> Fitted:
    """Adapt a method to labelled and unlabelled rows.

    Args:
        model: whose method it is, on the device.
        given: to what.
        device: where it computes.
        weight: as how many labelled rows each of them counts.
        chunk_size: as of `adapt`.
        temperature: as of `adapt`.
        check: as of `adapt`.

    Raises:
        ValueError: what does not go together.
    """
    embeddings = given.embeddings
    classes, places = numbered(given.labels, () if embeddings is None else embeddings.class_names)
    transduced = torch.from_numpy(places).to(device)
    task = support_of(given.rows.to(device), transduced, embeddings, classes, weight)
    method = model.method
    method.build(task.rows.shape[1])
    method.to(device)
    with _told_of_task(method, task.rows):
        adapted = adapt(
            method,
            task.features,
            task.labels,
            task.unlabelled,
            len(classes),
            chunk_size=chunk_size,
            temperature=temperature,
            n_embeddings=task.n_embeddings,
            embeddings_without=task.embeddings_without,
            check=check,
        )
    transduced[transduced < 0] = adapted.probabilities.argmax(1)
    return Fitted(classes, adapted._replace(view=task.view), transduced.cpu().numpy())


@contextmanager
def _told_of_task(method: Method, rows: Tensor) -> Iterator[None]:
    """Tell a method that asks for it the mean of the rows [n, D]; where what follows fails, it knows what it knew."""
    if not takes_task_mean(method):
        yield
        return
    known = method.base if method.is_prepared else None
    method.prepare(of_own_pictures(rows))
    try:
        yield
    except BaseException:
        if known is not None:
            method.prepare(known)
        raise
