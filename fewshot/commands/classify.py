"""python -m fewshot classify: a folder of pictures after a few labelled ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ActionConfigFile

import fewshot.methods  # noqa: F401  (imported so that --method may name its classes without the path)
from fewshot.classification.classified import run_record, summary, write_predictions
from fewshot.classification.classifier import FewShotClassifier
from fewshot.classification.folders import (
    check_apart,
    classified_folders,
    encoded_folders,
    query_folder,
    support_folder,
)
from fewshot.classification.model import needs_training, untrained_names
from fewshot.classification.notes import of_answer, of_pictures, trained_on
from fewshot.classification.novelty import ALONE, Told
from fewshot.classification.report.page import write_report
from fewshot.commands.parser import Parser, add_packages, add_switch, check_configs
from fewshot.commands.process import quietened, say
from fewshot.data.picture_files import left_out_below
from fewshot.files import check_replaceable, full_path, relative, versions, write_json, written_aside
from fewshot.methods import Method

FILES = ("predictions.csv", "report.html", "run.json")
CHUNK = 2000
"""Queries that are refined together, unless told otherwise."""


def parser() -> Parser:
    """The options of classify."""
    made = Parser(
        prog="python -m fewshot classify",
        description="Classify a folder of pictures after a few labelled ones: a table, and a report to look at.",
        parser_mode="omegaconf+",
    )
    made.add_argument("-c", "--config", action=ActionConfigFile, help="A YAML file of these options.")
    add_folders(made)
    add_model(made)
    made.add_argument("--chunk_size", type=int, default=CHUNK, help="Queries that are refined together at most.")
    made.add_argument("--temperature", type=float | None, default=None, help="Of probabilities; null fits it.")
    made.add_argument(
        "--none_of_these",
        type=Told | None,  # type: ignore[operator]
        default=None,
        help="Flag queries unlike every class, by distance to the support, by energy, or as the method has learned it.",
    )
    made.add_argument(
        "--none_share", type=float | None, default=None, help="Share to flag; null asks the support's own pictures."
    )
    made.add_argument("--report_pictures", type=int, default=2000, help="Queries shown in report.html at most.")
    made.add_argument("--batch_size", type=int, default=64, help="Pictures that are encoded at a time.")
    made.add_argument("--device", type=str, default="auto", help="auto takes a GPU where there is one.")
    return made


def add_folders(made: Parser) -> None:
    """Options that say what is read, and where the result goes."""
    made.add_argument("--support", type=str, required=True, help="Labelled pictures, <support>/<class>/<picture>.")
    made.add_argument("--query", type=str, required=True, help="Pictures to classify, flat or in folders.")
    made.add_argument("--output", type=str, required=True, help="Folder for predictions.csv and report.html.")
    add_switch(made, "--overwrite", help="Replace what is there.")
    add_switch(made, "--query_labels", help="The queries' folders are named after their classes: state the accuracy.")
    made.add_argument("--broken", type=Literal["stop", "skip"], default="stop", help="A picture that cannot be read.")


def add_model(made: Parser) -> None:
    """Options that say what encodes the pictures and what classifies them."""
    made.add_argument(
        "--ckpt_path",
        type=str | None,
        default=None,
        help="Checkpoint or run folder of a trained model, or a saved one.",
    )
    add_packages(made)
    made.add_argument("--backbone", type=str | None, default=None, help="A timm name, in place of a checkpoint.")
    made.add_argument(
        "--weights", type=str | None, default=None, help="Of the backbone; null fetches timm's published ones."
    )
    made.add_argument("--image_size", type=int | None, default=None, help="Pixels; null takes that of the weights.")
    made.add_subclass_arguments(
        Method,
        "method",
        required=False,
        help="In place of the checkpoint's; without one null takes UniversalSIB.",
    )


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
    options.support, options.query = (os.path.expanduser(folder) for folder in (options.support, options.query))
    support, query = support_folder(Path(options.support)), query_folder(Path(options.query))
    check_apart(support, query)
    if options.query_labels:
        check_query_labels([path.relative_to(options.query).parts[0] for path in query], tuple(support))
    if (
        options.none_of_these in ("distance", "energy")
        and options.none_share is None
        and max(map(len, support.values())) < 2
    ):
        raise ValueError(f"none_of_these: {ALONE}")
    classifier = FewShotClassifier(
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
    ).prepare()
    check_method(classifier, len(support), options.none_of_these)
    encoder, module = classifier.encoder, classifier.module
    assert encoder is not None
    folders = encoded_folders(encoder, support, query, skip_broken=options.broken == "skip")
    classified = classified_folders(
        classifier, folders, Path(options.query), measure=options.none_of_these, share=options.none_share
    )
    asked = {
        "support": f"{sum(map(len, support.values()))} pictures of {len(support)} classes in {shown(options.support)}",
        "queries": f"{len(query)} pictures in {shown(options.query)}",
        "checkpoint": "none" if options.ckpt_path is None else shown(options.ckpt_path),
        "backbone": options.backbone or type(encoder.backbone).__name__,
        "weights": shown(options.weights or "") or ("of the checkpoint" if options.ckpt_path else "published"),
        "method": type(classifier.method_).__name__,
        "refined together": f"{min(options.chunk_size, len(classified.query))} queries at most",
        "picture size": f"{encoder.preprocessing.image_size} px",
    }
    left_out = [
        *left_out_below(Path(options.support), classes=True),
        *left_out_below(Path(options.query), classes=False),
    ]
    asked |= {} if module is None else {"trained on": trained_on(module.trained_on, encoder.preprocessing)}
    notes = (
        []
        if module is None
        else of_pictures([*folders.support, *folders.query], module.trained_on, encoder.preprocessing)
    )
    classified = replace(
        classified,
        skipped=(*classified.skipped, *left_out),
        settings={**asked, **classified.settings, **versions()},
        notes=(*notes, *of_answer(classified, options.none_share)),
    )
    with written_aside(output, overwrite=options.overwrite, known=FILES) as folder:
        write_predictions(folder / "predictions.csv", classified)
        write_report(folder / "report.html", classified, max_pictures=options.report_pictures)
        write_json(folder / "run.json", run_record(classified))
    lines = summary(classified, options.query_labels)
    return "\n".join([*lines, f"written to {relative(str(output))}: {', '.join(FILES)}"])


def shown(path: str) -> str:
    """The path below the working directory, or its last part alone: a report tells nobody where things lie here."""
    below = relative(path) if path else path
    return Path(below).name if os.path.isabs(below) else below


def check_options(options: Any) -> None:
    """ValueError, before anything is read, for values that nothing can be done with."""
    if options.ckpt_path is None and options.backbone is None:
        raise ValueError(
            "nothing encodes the pictures; give --ckpt_path <run or checkpoint>, or --backbone <timm name> (with "
            "--weights <file>, or timm's published ones)"
        )
    for name in ("chunk_size", "batch_size", "report_pictures"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name}={getattr(options, name)}; give 1 or more pictures")
    if options.temperature is not None and not options.temperature > 0:
        raise ValueError(f"temperature={options.temperature}; give a number above 0, or null to have it fitted")
    if options.none_share is not None:
        if options.none_of_these is None:
            raise ValueError("none_share: it says how many to flag, but not by what; give --none_of_these distance")
        if not 0 < options.none_share < 1:
            raise ValueError(f"none_share={options.none_share}; give a share between 0 and 1")


def check_method(classifier: FewShotClassifier, n_way: int, none_of_these: str | None) -> None:
    """ValueError, before anything is encoded, where the method is not trained or cannot do what is asked of it."""
    method = classifier.method_
    name = type(method).__name__
    if classifier.method is not None and needs_training(method):
        raise ValueError(
            f"--method {name} has to be trained first; give the checkpoint of its run as --ckpt_path without --method, "
            f"or one that needs no training: {', '.join(untrained_names())}"
        )
    if not method.on_features or (method.needs_base == "classifier" and not method.is_prepared):
        what = "asks for the classifier of the training classes"
        what = what if method.on_features else "adapts the backbone to every task"
        raise ValueError(f"{name} {what}, which classify does not do; choose {', '.join(untrained_names())}")
    if none_of_these == "learned" and not method.tells_strangers:
        raise ValueError(
            f"none_of_these: {name} does not tell pictures of no class; give distance or energy, or leave --method out"
        )
    if method.n_way not in (None, n_way):
        raise ValueError(
            f"{name} of this checkpoint serves {method.n_way} classes alone, and the support has "
            f"{n_way}; give --method UniversalSIB (or another that needs no training), or a model for any number"
        )


def check_query_labels(folders: Sequence[str], names: Sequence[str]) -> None:
    """ValueError where none of the queries' folders is named after a class."""
    if not set(folders) & set(names):
        raise ValueError(
            f"query_labels: no folder of the queries is named after a class ({', '.join(names[:5])}); leave "
            "--query_labels out"
        )
