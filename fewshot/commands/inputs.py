"""What classify and suggest read: folders of pictures or files of features, with their labels, as one task."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fewshot.classification.class_embeddings import ClassEmbeddings
from fewshot.classification.classifier import FewShotClassifier
from fewshot.classification.clip import Clip, clip
from fewshot.classification.continued import Earlier, earlier_run, joined
from fewshot.classification.decided import of_preprocessing
from fewshot.classification.feature_rows import class_embeddings, feature_rows, feature_task
from fewshot.classification.folders import check_alike, check_apart, encoded_folders, query_folder, support_folder
from fewshot.classification.label_files import GivenLabels, labels_of_pictures
from fewshot.classification.notes import of_pictures, trained_on
from fewshot.classification.task import Task, with_class_embeddings, with_labels
from fewshot.commands.classify_checks import check_alone, check_method, check_query_labels
from fewshot.data.picture_files import LeftOut, left_out_below
from fewshot.files import relative

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
    nones: tuple[str, ...] = ()
    """What the run that is continued knew to be none of the classes."""


def inputs_of(options: Any) -> Inputs:
    """Read what the options name, encode pictures, and load the classifier.

    Args:
        options: as of `fewshot.commands.classify_options.parser`, checked; those of classify alone may be missing.
    """
    for name in PATHS:
        given = getattr(options, name)
        setattr(options, name, None if given is None else Path(os.path.expanduser(given)))
    loaded = None if options.clip is None else clip(options.clip)
    read = _of_folders if options.features is None else _of_rows
    embeddings = embeddings_of(options, loaded)
    found = read(options, embeddings, loaded)
    if embeddings is None:
        return found
    weight = options.class_embedding_weight
    each = "one labelled one" if weight == 1 else f"{weight} labelled ones"
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


def _of_rows(options: Any, embeddings: ClassEmbeddings | None, loaded: Clip | None) -> Inputs:
    columns = {name: getattr(options, name) for name in ("labels", "id_column", "label_column", "text_column")}
    continued, earlier = _earlier(options)
    if continued is not None and continued.encoder is not None:
        raise ValueError("continue: the earlier run was of pictures; give --query <folder> in place of --features")
    task = feature_task(feature_rows(options.features, **columns))
    task = task if earlier is None else joined(task, earlier, {})
    names = {*task.class_names, *([] if embeddings is None else embeddings.class_names)}
    check_alone(options, np.bincount(task.support_labels, minlength=len(names)).tolist())
    classifier = (continued or made_classifier(options, loaded)).prepare()
    check_method(classifier, len(names), options.get("none_of_these"), named=continued is None)
    width = task.query_features.shape[1]
    asked = {
        "labelled": f"{len(task.support)} rows of {len(task.class_names)} classes",
        "to classify": f"{len(task.query)} rows in {shown(options.features)}",
        "features": f"{width} numbers a row",
    }
    return Inputs(task, classifier, asked)


def _of_folders(options: Any, embeddings: ClassEmbeddings | None, loaded: Clip | None) -> Inputs:
    continued, earlier = _earlier(options)
    if continued is not None and continued.encoder is None:
        raise ValueError(
            "continue: the earlier run was of rows of features; give --features <file> in place of --query"
        )
    query = [] if options.query is None else query_folder(options.query)
    query_names = [path.relative_to(options.query).as_posix() for path in query]
    told = GivenLabels({})
    if options.labels is not None:
        known = [*query_names, *([] if earlier is None else earlier.queries())]
        told = labels_of_pictures(options.labels, known, options.query or "the earlier run")
    here = set(query_names)
    if earlier is not None:
        told = GivenLabels({**{name: None for name in earlier.nones if name in here}, **told.classes})
    others = {*told.labelled.values(), *(() if embeddings is None else embeddings.class_names)}
    others |= set() if earlier is None else earlier.classes()
    support = {} if options.support is None else support_folder(options.support)
    names = {*support, *others}
    if len(names) == 1 and not options.get("number"):
        where = "labels: there is" if options.support is None else f"support: {options.support} has"
        raise ValueError(
            f"{where} one class alone, {next(iter(names))!r}; there is nothing to tell apart with "
            "fewer than two classes"
        )
    check_alike(support, {options.query / name: label for name, label in told.classes.items() if name in here})
    check_apart(support, [path for path, name in zip(query, query_names, strict=True) if name not in told.classes])
    if options.get("query_labels"):
        check_query_labels([name.split("/")[0] for name in query_names], tuple(names))
    counts = Counter(told.labelled.values())
    check_alone(options, [len(support.get(name, ())) + counts[name] for name in names])
    classifier = (continued or made_classifier(options, loaded)).prepare()
    check_method(classifier, len(names), options.get("none_of_these"), named=continued is None)
    encoder, module = classifier.encoder, classifier.module
    assert encoder is not None
    task = encoded_folders(encoder, support, query, options.query, skip_broken=options.broken == "skip")
    task = task if earlier is None else joined(task, earlier, roots_of(options))
    task = with_labels(task, told) if told.classes else task
    where = " and ".join(shown(given) for given in (options.support, options.labels) if given is not None)
    where = f" in {where}" if where else ""
    since = "" if options.query is None else f" in {shown(options.query)}"
    since += "" if earlier is None else f", {len(task.query) - len(query)} more than read now"
    asked = {
        "labelled": f"{len(task.support)} pictures of {len(task.class_names)} classes{where}",
        "to classify": f"{len(task.query)} pictures{since}",
        "checkpoint": "none" if options.ckpt_path is None else shown(options.ckpt_path),
        "backbone": options.backbone or options.clip or type(encoder.backbone).__name__,
        "weights": shown(options.weights or "") or ("of the checkpoint" if options.ckpt_path else "published"),
        "preprocessing": of_preprocessing(encoder.preprocessing),
    }
    asked |= {} if module is None else {"trained on": trained_on(module.trained_on, encoder.preprocessing)}
    left_out = [
        *(left_out_below(options.support, classes=True) if options.support else []),
        *(left_out_below(options.query, classes=False) if options.query else []),
    ]
    files = [file for file in (*task.support, *task.query) if isinstance(file, Path)]
    about = () if module is None else of_pictures(files, module.trained_on, encoder.preprocessing)
    nones = () if earlier is None else earlier.nones
    return Inputs(task, classifier, asked, tuple(left_out), tuple(about), nones)


def roots_of(options: Any) -> dict[str, Path]:
    """The folders that pictures are read from, by the name of their option."""
    return {name: getattr(options, name) for name in ("query", "support") if getattr(options, name) is not None}


def _earlier(options: Any) -> tuple[FewShotClassifier | None, Earlier | None]:
    """The classifier of the run that is continued, if any, and what it was fitted on."""
    if options.get("continue") is None:
        return None, None
    place = Path(options.get("continue")).expanduser()
    classifier, earlier = earlier_run(place, packages=options.packages, device=options.device)
    names = ("temperature", "class_embedding_weight", "check_refinement", "store_features")
    own = {name: options.get(name) for name in names}
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
