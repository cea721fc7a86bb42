"""From folders of labelled and of unlabelled pictures to what came of classifying them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewshot.classification.classifier import FewShotClassifier
from fewshot.classification.novelty import Measure, novelty, threshold
from fewshot.classification.picture_encoder import PictureEncoder
from fewshot.classified import Classified


class EncodedFolders(NamedTuple):
    """The pictures that could be read, with their features, and the others."""

    class_names: tuple[str, ...]
    support: tuple[Path, ...]
    support_labels: np.ndarray
    """[S] int64 in 0..N-1."""
    support_features: Tensor
    """[S, D]."""
    query: tuple[Path, ...]
    query_features: Tensor
    """[Q, D]."""
    skipped: tuple[tuple[Path, str], ...]
    """With the reason."""


def encoded_folders(
    encoder: PictureEncoder, support: Mapping[str, Sequence[Path]], query: Sequence[Path], *, skip_broken: bool
) -> EncodedFolders:
    """Features of labelled pictures by class, and of unlabelled ones.

    Args:
        encoder: what encodes them.
        support: pictures of each class.
        query: pictures to classify.
        skip_broken: go on without pictures that cannot be read.

    Raises:
        ValueError: a picture cannot be read and is not to be skipped; a class, or the queries, without one that can.
    """
    names = tuple(support)
    labelled = [path for files in support.values() for path in files]
    of_support, support_kept, broken = _encoded(encoder, labelled, skip_broken, "encoding the support")
    numbers = np.repeat(np.arange(len(names)), [len(files) for files in support.values()])[support_kept]
    for number, name in enumerate(names):
        if number not in numbers:
            reason = next(reason for path, reason in broken if path in support[name])
            raise ValueError(f"support: no picture of class {name!r} can be read; the first: {reason}")
    of_query, query_kept, more = _encoded(encoder, query, skip_broken, "encoding the queries")
    if not len(of_query):
        raise ValueError(f"query: none of the {len(query)} pictures can be read; the first: {more[0][1]}")
    return EncodedFolders(
        names,
        tuple(labelled[place] for place in support_kept),
        numbers,
        of_support,
        tuple(query[place] for place in query_kept),
        of_query,
        (*broken, *more),
    )


def classified_folders(
    classifier: FewShotClassifier,
    folders: EncodedFolders,
    query_root: Path,
    *,
    measure: Measure | None = None,
    share: float | None = None,
) -> Classified:
    """Adapt to the support, refine with the queries, and flag what is unlike every class.

    The result's settings say what was found out, not what was asked for.

    Args:
        classifier: whose encoder gave the features.
        folders: what it gave.
        query_root: the folder below which queries are named.
        measure: of how unlike every class a query is; None flags none.
        share: of the queries that is to be flagged; None asks the support's own pictures.

    Raises:
        ValueError: as of `FewShotClassifier.fit` and `fewshot.classification.novelty.threshold`.
    """
    of_support, of_query, numbers = folders.support_features, folders.query_features, folders.support_labels
    classifier.fit_features(torch.cat([of_support, of_query]), [*numbers.tolist(), *[None] * len(of_query)])
    unlike, limit = None, None
    if measure is not None:
        task = (of_support, torch.from_numpy(numbers), of_query, len(folders.class_names), measure)
        limit = threshold(*task, share=share)
        unlike = novelty(*task).numpy()
    alone = classifier.later_features(of_query).argmax(1)
    agreement = float((alone == classifier.transduction_proba_.argmax(1)).mean())
    return Classified(
        class_names=folders.class_names,
        support=folders.support,
        support_labels=numbers,
        query=folders.query,
        query_names=tuple(path.relative_to(query_root).as_posix() for path in folders.query),
        support_features=of_support.numpy(),
        query_features=of_query.numpy(),
        before=classifier.initial_proba_,
        probabilities=classifier.transduction_proba_,
        novelty=unlike,
        novelty_threshold=limit,
        skipped=folders.skipped,
        settings={
            "temperature": f"{classifier.temperature_:.3g}",
            "each query classified alone afterwards": f"agrees on {100 * agreement:.1f} % of them",
            "none of these": "not asked" if limit is None else f"{measure} above {limit:.3g}",
        },
    )


def _encoded(
    encoder: PictureEncoder, paths: Sequence[Path], skip_broken: bool, what: str
) -> tuple[Tensor, np.ndarray, list[tuple[Path, str]]]:
    """Features [n, D], places of the pictures that could be read, and the others with the reason."""
    try:
        found = encoder.encode(paths, skip_broken=skip_broken, what=what)
    except ValueError as error:
        raise ValueError(f"{error}; --broken skip goes on without it") from error
    return found.features, found.kept, [(paths[place], reason) for place, reason in found.broken]
