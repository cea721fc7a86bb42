"""What `FewShotClassifier.fit` does with features and labels: one task, adapted to."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewshot.classification.adaptation import Adapted, adapt
from fewshot.classification.class_embeddings import as_class_embeddings, support_of
from fewshot.classification.conventions import numbered
from fewshot.classification.model import LoadedModel, takes_task_mean
from fewshot.methods.base_classes import of_own_pictures


class Fitted(NamedTuple):
    """What came of fitting."""

    classes: list[Hashable]
    """N labels."""
    adapted: Adapted
    transduced: np.ndarray
    """[n] int64, the class of every row."""


def fitted(
    model: LoadedModel,
    features: Tensor,
    labels: list[Hashable],
    class_embeddings: Any,
    *,
    weight: int,
    chunk_size: int | None,
    temperature: float | None,
    check: bool,
) -> Fitted:
    """Adapt a method to labelled and unlabelled rows.

    Args:
        model: whose method it is, on the device of the features.
        features: [n, D].
        labels: n of them; -1 or None where there is none.
        class_embeddings: as `FewShotClassifier.fit` takes them.
        weight: as how many labelled rows each of them counts.
        chunk_size: as of `adapt`.
        temperature: as of `adapt`.
        check: as of `adapt`.

    Raises:
        ValueError: what does not go together.
    """
    given = None if class_embeddings is None else as_class_embeddings(class_embeddings, features.shape[1])
    classes, places = numbered(labels, () if given is None else given.class_names)
    transduced = torch.from_numpy(places).to(features.device)
    task = support_of(features, transduced, given, classes, weight)
    method = model.method
    method.build(task.rows.shape[1])
    method.to(features.device)
    if takes_task_mean(method):
        method.prepare(of_own_pictures(task.rows))
    adapted = adapt(
        method,
        task.features,
        task.labels,
        task.unlabelled,
        len(classes),
        chunk_size=chunk_size,
        temperature=temperature,
        n_embeddings=task.n_embeddings,
        check=check,
    )
    transduced[transduced < 0] = adapted.probabilities.argmax(1)
    return Fitted(classes, adapted._replace(centre=task.centre), transduced.cpu().numpy())
