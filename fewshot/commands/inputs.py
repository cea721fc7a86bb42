"""What classify and suggest read: folders of pictures or files of features, with their labels, as one task."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fewshot.classification.class_embeddings import ClassEmbeddings
from fewshot.classification.classifier import FewShotClassifier
from fewshot.classification.clip import Clip, clip
from fewshot.classification.continued import Earlier, earlier_run
from fewshot.classification.conventions import check_numbered
from fewshot.classification.decided import of_preprocessing
from fewshot.classification.feature_rows import (
    class_embeddings,
    columns_in_all,
    feature_rows,
    feature_task,
    labels_of_rows,
)
from fewshot.classification.folders import check_alike, check_apart, encoded_folders, query_folder, support_folder
from fewshot.classification.joined_rows import joined
from fewshot.classification.label_files import GivenLabels, labels_of_pictures
from fewshot.classification.notes import of_pictures, trained_on
from fewshot.classification.task import Task, with_class_embeddings, with_labels
from fewshot.commands.classify_checks import (
    OF_ROWS,
    check_alone,
    check_columns_unused,
    check_method,
    check_moved,
    check_query_labels,
)
from fewshot.commands.classify_options import CARRIED
from fewshot.commands.process import keep_freed_memory
from fewshot.data.picture_files import LeftOut, left_out_below
from fewshot.files import expanded, relative

PATHS = ("support", "query", "features", "labels", "class_embeddings")
"""Options that name what is read."""


class Inputs(NamedTuple):
    """What was read, and by what it is classified."""

    task: Task
    classifier: FewShotClassifier
    asked: dict[str, str]
    """What was asked for, by name, in words."""
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    columns: Mapping[str, str] = {}
    """Where ids, labels and texts of rows stand, by the name of the option."""


def inputs_of(options: Any) -> Inputs:
    """Read what the options name, encode pictures, and load the classifier.

    Args:
        options: as of `fewshot.commands.classify_options.parser`, checked; those of classify alone may be missing.
    """
    for name in PATHS:
        given = getattr(options, name)
        setattr(options, name, None if given is None else expanded(given))
    loaded = None if options.clip is None else clip(options.clip)
    continued, earlier = _earlier(options)
    embeddings = embeddings_of(options, loaded)
    classifier = made_classifier(options, loaded) if continued is None else continued
    of_rows = options.features is not None or _labels_of_rows_alone(options, continued)
    if of_rows:
        keep_freed_memory(large=False)
    found = (_of_rows if of_rows else _of_folders)(options, embeddings, classifier, earlier)
    if embeddings is None:
        return found
    weight = found.classifier.class_embedding_weight
    each = "one labelled one" if weight == 1 else f"{weight} labelled ones"
    if list(embeddings.class_names) == [str(number) for number in range(len(embeddings.class_names))]:
        check_numbered(found.task.class_names, embeddings.class_names, "name them, as the documents say")
    told = f"{len(embeddings.class_names)}, each as much as {each}"
    told += "" if loaded is None else f", by {', '.join(options.prompts)}"
    return found._replace(
        task=with_class_embeddings(found.task, embeddings), asked={**found.asked, "class embeddings": told}
    )


def embeddings_of(options: Any, loaded: Clip | None) -> ClassEmbeddings | None:
    """Embeddings of classes, of a file or by CLIP; None where none are asked for.

    Args:
        options: all; CLIP knows the classes that are named, else the folders of labelled pictures.
        loaded: CLIP, if it is asked for.
    """
    if loaded is None:
        return None if options.class_embeddings is None else class_embeddings(options.class_embeddings)
    names = options.class_names
    if names is None and options.support is not None:
        names = sorted(support_folder(options.support))
    return None if names is None else loaded.class_embeddings(names, options.prompts)


def _labels_of_rows_alone(options: Any, continued: FewShotClassifier | None) -> bool:
    return continued is not None and continued.encoder is None and options.query is None and options.support is None


def _of_rows(
    options: Any, embeddings: ClassEmbeddings | None, classifier: FewShotClassifier, earlier: Earlier | None
) -> Inputs:
    if earlier is not None and classifier.encoder is not None:
        raise ValueError("continue: the earlier run was of pictures; give --query <folder> in place of --features")
    columns = columns_of_rows(options, earlier)
    names = {} if earlier is None else earlier.by_table()
    if options.features is None:
        assert earlier is not None and options.labels is not None, "as check_inputs has it"
        label_column = columns["label_column"]
        needed = options.label_column is not None
        told = labels_of_rows(options.labels, list(names), columns["id_column"], label_column, needed=needed)
        task = Task((), (), np.zeros(0, np.int64), earlier.features[:0], (), (), earlier.features[:0], (), ((), ()))
    else:
        rows = feature_rows(options.features, labels=options.labels, **columns, elsewhere=names)
        told = rows.given
        classifier.check_feature_names(rows.feature_names, fits=earlier is None)
        task = feature_task(rows, alone=earlier is None)
    task = task if earlier is None else joined(task, earlier, {}, told.classes)
    classes = {*task.class_names, *([] if embeddings is None else embeddings.class_names)}
    _check_several(options, classes, earlier)
    check_alone(options, np.bincount(task.support_labels, minlength=len(classes)).tolist())
    check_method(classifier.prepare(), len(classes), options.get("none_of_these"), named=earlier is None)
    since = [] if earlier is None else ["the earlier run"]
    asked = {
        "labelled": f"{len(task.support)} rows of {len(task.class_names)} classes",
        "to classify": f"{len(task.query)} rows{_places(*since, options.features)}",
        "features": f"{task.query_features.shape[1]} numbers a row",
    }
    kept = {name: column for name, column in columns.items() if column is not None}
    return Inputs(task, classifier, asked, columns=kept if earlier is None else {**earlier.columns, **kept})


def columns_of_rows(options: Any, earlier: Earlier | None) -> dict[str, str | None]:
    """Where ids, labels and texts of rows stand: as given, else as the earlier run was told, where they are there."""
    columns: dict[str, str | None] = {name: getattr(options, name) for name in OF_ROWS}
    if earlier is None:
        return columns
    told = {name: column for name, column in earlier.columns.items() if columns.get(name, "") is None}
    if options.features is not None and told:
        there = columns_in_all(options.features)
        told = {name: column for name, column in told.items() if name == "id_column" or column in there}
    return columns | told


def _of_folders(
    options: Any, embeddings: ClassEmbeddings | None, classifier: FewShotClassifier, earlier: Earlier | None
) -> Inputs:
    if earlier is not None and classifier.encoder is None:
        raise ValueError(
            "continue: the earlier run was of rows of features; give --features <file> in place of --query"
        )
    if earlier is not None:
        check_columns_unused(options)
    query = [] if options.query is None else query_folder(options.query)
    query_names = [path.relative_to(options.query).as_posix() for path in query]
    rows = {} if earlier is None else earlier.by_table()
    told, here = GivenLabels({}), set(query_names)
    support = {} if options.support is None else support_folder(options.support)
    if options.labels is not None:
        where = " or ".join(
            [*([] if options.query is None else [str(options.query)]), *["the earlier run"] * bool(rows)]
        )
        known = {*support, *(() if earlier is None else filter(None, earlier.labels))}
        told = labels_of_pictures(options.labels, {*query_names, *rows}, where, known)
    check_moved(support, options.support, told.classes)
    by_row = {rows[name]: label for name, label in told.classes.items() if name in rows}
    counts = Counter(label for name, label in told.labelled.items() if name not in rows)
    aside = set(told.classes)
    if earlier is not None:
        now = earlier.relabelled(by_row)
        counts += Counter(label for label in now.labels if label is not None)
        aside |= set(now.none_names())
    names = {*support, *counts, *(() if embeddings is None else embeddings.class_names)}
    names |= set() if earlier is None else set(earlier.class_embeddings)
    _check_several(options, names, earlier)
    check_alike(support, {options.query / name: label for name, label in told.classes.items() if name in here})
    check_apart(support, [path for path, name in zip(query, query_names, strict=True) if name not in aside])
    if options.get("query_labels"):
        check_query_labels([name.split("/")[0] for name in query_names], tuple(names))
    check_alone(options, [len(support.get(name, ())) + counts[name] for name in names])
    check_method(classifier.prepare(), len(names), options.get("none_of_these"), named=earlier is None)
    encoder, module = classifier.encoder, classifier.module
    assert encoder is not None
    task = encoded_folders(encoder, support, query, options.query, skip_broken=options.broken == "skip")
    task = task if earlier is None else joined(task, earlier, roots_of(options), told.classes)
    task = with_labels(task, told) if told.classes else task
    asked = _asked_of_pictures(options, task, classifier, since=[] if earlier is None else ["the earlier run"])
    left_out = [
        *(left_out_below(options.support, classes=True) if options.support else []),
        *(left_out_below(options.query, classes=False) if options.query else []),
    ]
    files = [file for file in (*task.support, *task.query) if isinstance(file, Path)]
    about = () if module is None else of_pictures(files, module.trained_on, encoder.preprocessing)
    return Inputs(task, classifier, asked, tuple(left_out), tuple(about))


def _asked_of_pictures(
    options: Any, task: Task, classifier: FewShotClassifier, *, since: Sequence[str]
) -> dict[str, str]:
    """What was asked for, by name, in words.

    Args:
        options: all.
        task: what was read.
        classifier: of pictures.
        since: where things are besides the folders given, in words.
    """
    encoder, module = classifier.encoder, classifier.module
    assert encoder is not None
    labelled = _places(*since, options.support, options.labels)
    asked = {
        "labelled": f"{len(task.support)} pictures of {len(task.class_names)} classes{labelled}",
        "to classify": f"{len(task.query)} pictures{_places(*since, options.query)}",
        "checkpoint": "none" if options.ckpt_path is None else shown(options.ckpt_path),
        "backbone": options.backbone or options.clip or type(encoder.backbone).__name__,
        "weights": shown(options.weights or "") or ("of the checkpoint" if options.ckpt_path else "published"),
        "preprocessing": of_preprocessing(encoder.preprocessing),
    }
    if module is not None:
        asked["trained on"] = trained_on(module.trained_on, encoder.preprocessing)
    return asked


def _places(*given: str | Path | None) -> str:
    """Where things are, as in `6 pictures in photos and labels.csv`."""
    found = [shown(place) for place in given if place is not None]
    return f" in {' and '.join(found)}" if found else ""


def _check_several(options: Any, names: Collection[str], earlier: Earlier | None) -> None:
    """ValueError where there is one class alone, and it is not asked what to label next."""
    if len(names) != 1 or options.get("number") or (options.features is not None and earlier is None):
        return
    where = "labels: there is" if options.support is None else f"support: {options.support} has"
    raise ValueError(
        f"{where} one class alone, {next(iter(names))!r}; there is nothing to tell apart with fewer than two classes"
    )


def roots_of(options: Any) -> dict[str, Path]:
    """The folders that pictures are read from, by the name of their option."""
    return {name: getattr(options, name) for name in ("query", "support") if getattr(options, name) is not None}


def _earlier(options: Any) -> tuple[FewShotClassifier | None, Earlier | None]:
    """The classifier of the run that is continued, if any, and what it was fitted on."""
    if options.get("continue") is None:
        return None, None
    place = expanded(options.get("continue"))
    classifier, earlier = earlier_run(place, packages=options.packages, device=options.device)
    own = {name: options.get(name) for name in ("check_refinement", "store_features")}
    own |= {name: options.get(name) for name, usual in CARRIED.items() if options.get(name) not in (usual, None)}
    return classifier.set_params(**own), earlier


def made_classifier(options: Any, loaded: Clip | None = None) -> FewShotClassifier:
    """The classifier that the options describe; of pictures on CLIP, where that is loaded."""
    of_clip = None if loaded is None or options.features is not None else loaded
    return FewShotClassifier(
        options.backbone if of_clip is None else of_clip.backbone,
        options.method,
        preprocessing=None if of_clip is None else of_clip.preprocessing,
        checkpoint=options.ckpt_path,
        packages=options.packages,
        weights=options.weights,
        image_size=options.image_size,
        chunk_size=options.chunk_size,
        temperature=options.get("temperature"),
        batch_size=options.batch_size,
        device=options.device,
        precision=options.precision or "32-true",
        store_features=options.store_features,
        class_embedding_weight=options.class_embedding_weight,
        check_refinement=bool(options.get("check_refinement")),
    )


def shown(path: str | Path) -> str:
    """The path below the working directory, or its last part alone: a report tells nobody where things lie here."""
    path = str(path)
    below = relative(path) if path else path
    return Path(below).name if os.path.isabs(below) else below
