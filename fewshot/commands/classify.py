"""python -m fewshot classify: pictures, or rows of features, after a few labelled ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.classification.class_embeddings import ClassEmbeddings
from fewshot.classification.classified import Classified, run_record, summary, write_predictions
from fewshot.classification.classifier import FewShotClassifier
from fewshot.classification.feature_rows import class_embeddings, feature_rows, feature_task
from fewshot.classification.folders import check_apart, encoded_folders, query_folder, support_folder
from fewshot.classification.notes import of_answer, of_pictures, trained_on
from fewshot.classification.report.page import write_report
from fewshot.classification.task import Task, classified_task, with_class_embeddings
from fewshot.commands.classify_options import check_alone, check_method, check_options, check_query_labels, parser
from fewshot.commands.parser import check_configs
from fewshot.commands.process import quietened, say
from fewshot.data.picture_files import left_out_below
from fewshot.files import check_replaceable, full_path, relative, versions, write_json, written_aside

__all__ = ["parser", "run"]

FILES = ("predictions.csv", "report.html", "run.json")


def run(arguments: list[str]) -> None:
    """Classify, write the output folder, and say what was found.

    Args:
        arguments: those after `classify`.

    Raises:
        Exception: of any kind; `fewshot.commands.refusals.refusal_of` tells those that a person can mend.
    """
    check_configs(arguments)
    with quietened(training=False):
        options = parser()
        given = options.parse_args(arguments)
        made = options.instantiate_classes(given, instantiate_groups=False)
        say(classify(made))


def classify(options: Any) -> str:
    """Run what is asked for; returns what to say about it.

    Args:
        options: as of `parser`, with the method made.
    """
    output = full_path(options.output)
    check_replaceable(output, overwrite=options.overwrite, known=FILES)
    check_options(options)
    for name in ("support", "query", "features", "labels", "class_embeddings"):
        given = getattr(options, name)
        setattr(options, name, None if given is None else Path(os.path.expanduser(given)))
    embeddings = None if options.class_embeddings is None else class_embeddings(options.class_embeddings)
    classified = (of_folders if options.features is None else of_rows)(options, embeddings)
    classified = replace(
        classified,
        settings={**classified.settings, **versions()},
        notes=(*classified.notes, *of_answer(classified, options.none_share)),
    )
    with written_aside(output, overwrite=options.overwrite, known=FILES) as folder:
        write_predictions(folder / "predictions.csv", classified)
        write_report(folder / "report.html", classified, max_pictures=options.report_pictures)
        write_json(folder / "run.json", run_record(classified))
    lines = summary(classified, options.query_labels)
    return "\n".join([*lines, f"written to {relative(str(output))}: {', '.join(FILES)}"])


def of_rows(options: Any, embeddings: ClassEmbeddings | None) -> Classified:
    """What comes of rows of features."""
    columns = {name: getattr(options, name) for name in ("labels", "id_column", "label_column", "text_column")}
    task = feature_task(feature_rows(options.features, **columns))
    names = {*task.class_names, *([] if embeddings is None else embeddings.class_names)}
    check_alone(options, np.bincount(task.support_labels, minlength=len(names)).tolist())
    classifier = made_classifier(options).prepare()
    check_method(classifier, len(names), options.none_of_these)
    width = task.query_features.shape[1]
    asked = {
        "support": f"{len(task.support)} rows of {len(task.class_names)} classes",
        "queries": f"{len(task.query)} rows in {shown(options.features)}",
        "features": f"{width} numbers a row",
    }
    return answered(options, classifier, task, embeddings, asked)


def of_folders(options: Any, embeddings: ClassEmbeddings | None) -> Classified:
    """What comes of folders of pictures."""
    support = {} if options.support is None else support_folder(options.support)
    query = query_folder(options.query)
    names = {*support, *([] if embeddings is None else embeddings.class_names)}
    check_apart(support, query)
    if options.query_labels:
        check_query_labels([path.relative_to(options.query).parts[0] for path in query], tuple(names))
    check_alone(options, [len(support.get(name, ())) for name in names])
    classifier = made_classifier(options).prepare()
    check_method(classifier, len(names), options.none_of_these)
    encoder, module = classifier.encoder, classifier.module
    assert encoder is not None
    task = encoded_folders(encoder, support, query, options.query, skip_broken=options.broken == "skip")
    where = "" if options.support is None else f" in {shown(options.support)}"
    asked = {
        "support": f"{sum(map(len, support.values()))} pictures of {len(support)} classes{where}",
        "queries": f"{len(query)} pictures in {shown(options.query)}",
        "checkpoint": "none" if options.ckpt_path is None else shown(options.ckpt_path),
        "backbone": options.backbone or type(encoder.backbone).__name__,
        "weights": shown(options.weights or "") or ("of the checkpoint" if options.ckpt_path else "published"),
        "picture size": f"{encoder.preprocessing.image_size} px",
    }
    asked |= {} if module is None else {"trained on": trained_on(module.trained_on, encoder.preprocessing)}
    classified = answered(options, classifier, task, embeddings, asked)
    left_out = [
        *(left_out_below(options.support, classes=True) if options.support else []),
        *left_out_below(options.query, classes=False),
    ]
    files = [Path(file) for file in (*task.support, *task.query)]
    about = () if module is None else of_pictures(files, module.trained_on, encoder.preprocessing)
    return replace(classified, skipped=(*classified.skipped, *left_out), notes=tuple(about))


def made_classifier(options: Any) -> FewShotClassifier:
    """The classifier that the options describe."""
    return FewShotClassifier(
        options.backbone,
        options.method,
        checkpoint=options.ckpt_path,
        packages=options.packages,
        weights=options.weights,
        image_size=options.image_size,
        chunk_size=options.chunk_size,
        temperature=options.temperature,
        batch_size=options.batch_size,
        device=options.device,
        precision=options.precision,
        store_features=options.store_features,
        class_embedding_weight=options.class_embedding_weight,
    )


def answered(
    options: Any,
    classifier: FewShotClassifier,
    task: Task,
    embeddings: ClassEmbeddings | None,
    asked: Mapping[str, str],
) -> Classified:
    """The task's answer, with what was asked for among its settings."""
    if embeddings is not None:
        task = with_class_embeddings(task, embeddings)
        weight = options.class_embedding_weight
        each = "one labelled one" if weight == 1 else f"{weight} labelled ones"
        asked = {**asked, "class embeddings": f"{len(embeddings.class_names)}, each as much as {each}"}
    classified = classified_task(classifier, task, measure=options.none_of_these, share=options.none_share)
    asked = {
        **asked,
        "method": type(classifier.method_).__name__,
        "refined together": f"{min(options.chunk_size, len(task.query))} queries at most",
    }
    return replace(classified, settings={**asked, **classified.settings})


def shown(path: str | Path) -> str:
    """The path below the working directory, or its last part alone: a report tells nobody where things lie here."""
    path = str(path)
    below = relative(path) if path else path
    return Path(below).name if os.path.isabs(below) else below
