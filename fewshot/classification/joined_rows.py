"""The rows of a run that is continued and those that are read now: which are the same, and whose word counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewshot.classification.continued import Earlier, in_table, row_names
from fewshot.classification.task import Task

SAME = 0.02
"""Rows of one name are the same where they differ by less than this, of how far rows are from their mean."""


def joined(task: Task, earlier: Earlier, roots: Mapping[str, Path], told: Mapping[str, str | None]) -> Task:
    """The task with the rows of an earlier one before its own.

    A row that is there again, under its name and with its features, counts once, and keeps a label that it had. One of
    the same name and of other features is another row; the earlier one is then called `earlier/NAME`. A picture that
    was moved into the folder of a class counts once too, as of that class.

    Args:
        task: what was read now.
        earlier: what was there.
        roots: as of `row_names`.
        told: what a table says now, by names in a table; of a row that was there it counts in the place of its label.

    Raises:
        ValueError: features of another width, no row is without a label, or a picture lies in the folder of one class
            and was said to be of another.
    """
    width, had = task.query_features.shape[1], earlier.features.shape[1]
    if width != had:
        raise ValueError(f"continue: rows have {width} features, and the earlier ones {had}; they are not of one model")
    of_nones = task.query_features[:0] if task.none_features is None else task.none_features
    none_names = [f"query/{name}" for name, label in task.given_labels if label is None]
    now = {name: place for place, name in enumerate([*row_names(task, roots), *none_names])}
    features = torch.cat([task.support_features, task.query_features, of_nones])
    same = _same(earlier, now, features)
    earlier, kept, said, corrected = _agreed(task, earlier, now, same, told)
    labels = dict(zip(earlier.names, earlier.labels, strict=True))
    first, end = len(task.support), len(task.support) + len(task.query)
    old = [place for place in kept if earlier.labels[place] is not None]
    strange = [place for place in kept if earlier.names[place] in earlier.nones]
    new = sorted({*kept} - {*old, *strange})
    queries = {now[name] - first: name for name, is_same in same.items() if is_same and first <= now[name] < end}
    again = {place: labels[name] for place, name in queries.items() if labels[name] is not None}
    aside = [place for place, name in queries.items() if name in earlier.nones]
    left = np.setdiff1d(np.arange(len(task.query)), [*again, *aside])
    if not new and not len(left):
        raise ValueError("labels: all that is there has labels; there is nothing left to classify")

    names = _free_names(earlier.names, {name for name in same if not same[name]}, now)
    classes = tuple(sorted({*task.class_names, *filter(None, earlier.labels), *earlier.class_embeddings}))
    places = {name: place for place, name in enumerate(classes)}
    numbers = [places[label] for label in (earlier.labels[place] for place in old) if label is not None]
    numbers += [places[task.class_names[label]] for label in task.support_labels]
    numbers += [places[label] for label in again.values() if label is not None]
    order = np.argsort(numbers, kind="stable")
    of_support = torch.cat([earlier.features[old], task.support_features, task.query_features[list(again)]])
    is_rows = task.texts is not None
    support = [*_shown(names, old, all_of_it=not is_rows), *task.support, *(task.query[place] for place in again)]
    remembered = _shown(names, new)
    embeddings = {places[name]: row for name, row in earlier.class_embeddings.items()}
    embeddings |= {places[task.class_names[label]]: row for label, row in task.class_embeddings.items()}
    none_now = [*(in_table(names[place]) for place in strange), *(task.query_names[place] for place in aside)]
    return task._replace(
        class_names=classes,
        support=tuple(support[place] for place in order),
        support_labels=np.array(numbers, dtype=np.int64)[order],
        support_features=of_support[order],
        query=(*_shown(names, new, all_of_it=not is_rows), *(task.query[place] for place in left)),
        query_names=(*remembered, *(task.query_names[place] for place in left)),
        query_features=torch.cat([earlier.features[new], task.query_features[left]]),
        texts=_texts(task, _shown(names, old), remembered, list(again), left, order),
        class_embeddings=embeddings,
        given_labels=_given_labels(task, said, none_now),
        nones=(*task.nones, *_shown(names, strange, all_of_it=not is_rows), *(task.query[place] for place in aside)),
        none_features=torch.cat([of_nones, earlier.features[strange], task.query_features[aside]]),
        corrected=corrected,
    )


def _agreed(
    task: Task, earlier: Earlier, now: Mapping[str, int], same: Mapping[str, bool], told: Mapping[str, str | None]
) -> tuple[Earlier, list[int], dict[str, str | None], int]:
    """The earlier rows as a person sees them now.

    Args:
        task: what was read now.
        earlier: what was there.
        now: places in the task, by name.
        same: as `_same` gives it.
        told: as of `joined`.

    Returns:
        The earlier rows with the labels of now, the places of those that are not there again, what the table says of
        them by their names, and how many were corrected.
    """
    by_table = earlier.by_table()
    said = {by_table[name]: label for name, label in told.items() if same.get(by_table.get(name, ""), name in by_table)}
    corrected, earlier = earlier.n_corrected(said), earlier.relabelled(said)
    labels = dict(zip(earlier.names, earlier.labels, strict=True))
    if task.texts is None:
        lies = {
            name: task.class_names[task.support_labels[now[name]]]
            for name in same
            if same[name] and now[name] < len(task.support)
        }
        _check_folders(lies, labels)
    kept = [place for place, name in enumerate(earlier.names) if not same.get(name, False)]
    moved = _moved(task, earlier, kept)
    corrected += sum(labels[name] != label for name, label in moved.items() if labels[name] or name in earlier.nones)
    return earlier, [place for place in kept if earlier.names[place] not in moved], said, corrected


def _texts(
    task: Task, old: Sequence[str], new: Sequence[str], again: Sequence[int], left: np.ndarray, order: np.ndarray
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """What is shown of labelled rows and of the others; None of pictures.

    Args:
        task: what was read now.
        old: what is shown of earlier rows that are labelled.
        new: what is shown of the other earlier ones.
        again: places of queries that had a label before.
        left: places of the other queries.
        order: in which the labelled rows are given.
    """
    if task.texts is None:
        return None
    labelled = [*old, *task.texts[0], *(task.texts[1][place] for place in again)]
    return tuple(labelled[place] for place in order), (*new, *(task.texts[1][place] for place in left))


def _given_labels(
    task: Task, said: Mapping[str, str | None], nones: Sequence[str]
) -> tuple[tuple[str, str | None], ...]:
    """What tables say: of this run's rows, of earlier ones, and of those that are none of the classes."""
    known = dict(task.given_labels)
    given = {in_table(name): label for name, label in said.items() if label is not None}
    earlier = [(name, label) for name, label in given.items() if name not in known]
    return (*task.given_labels, *earlier, *((name, None) for name in nones))


def _same(earlier: Earlier, now: Mapping[str, int], features: Tensor) -> dict[str, bool]:
    """Whether the earlier rows that are there by name are the same rows, by name.

    Args:
        earlier: what was there.
        now: places among `features`, by name.
        features: [m, D], of all that is there now.
    """
    places = [place for place, name in enumerate(earlier.names) if name in now]
    names = [earlier.names[place] for place in places]
    before, after = earlier.features[places], features[[now[name] for name in names]]
    spread = earlier.features.var(0, correction=0).sum().sqrt()
    rounding = torch.finfo(before.dtype).eps * before.norm(dim=1)
    return dict(zip(names, ((after - before).norm(dim=1) <= SAME * spread + 10 * rounding).tolist(), strict=True))


def _moved(task: Task, earlier: Earlier, kept: Sequence[int]) -> dict[str, str]:
    """The classes of earlier pictures that lie in a folder of a class under another name now, by their earlier name.

    A picture is known by its features, which files of the same content have to the last bit. Rows of features may be
    equal and are others all the same.

    Args:
        task: what is there now.
        earlier: what was there.
        kept: places of what is not there under its name.
    """
    if task.texts is not None:
        return {}
    pairs = zip(task.support_features, task.support_labels, strict=True)
    labelled = {row.numpy().tobytes(): task.class_names[label] for row, label in pairs}
    contents = {earlier.names[place]: earlier.features[place].numpy().tobytes() for place in kept}
    return {name: labelled[content] for name, content in contents.items() if content in labelled}


def _check_folders(lies: Mapping[str, str], labels: Mapping[str, str | None]) -> None:
    """ValueError where a picture lies in the folder of another class than a table said in an earlier run."""
    for name, label in lies.items():
        if labels[name] != label:
            said = "none of these" if labels[name] is None else repr(labels[name])
            raise ValueError(
                f"continue: {name} was said to be {said} in the earlier run, and lies in the folder of {label!r}; move "
                "the file, or leave --support out, which the earlier run knows"
            )


def _free_names(names: Sequence[str], taken: Collection[str], now: Collection[str]) -> list[str]:
    """The names, of which those that are taken by other rows now become `KIND/earlier/REST`."""
    found, used = [], {*names, *now}
    for name in names:
        if name in taken:
            kind, _, rest = name.partition("/")
            while name in used:
                rest = f"earlier/{rest}"
                name = f"{kind}/{rest}"
            used.add(name)
        found.append(name)
    return found


def _shown(names: list[str], places: list[int], *, all_of_it: bool = False) -> list[str]:
    """Names as a table shows them, without what they begin with."""
    return [names[place] if all_of_it else names[place].partition("/")[2] for place in places]
