"""python -m fewshot classify: a folder of pictures after a few labelled ones."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jsonargparse import ActionConfigFile
from torch import Tensor

import fewshot.methods  # noqa: F401  (imported so that --method may name its classes without the path)
from fewshot.aside import check_replaceable, written_aside
from fewshot.classification.classifier import FewShotClassifier
from fewshot.classification.folders import check_apart, query_folder, support_folder
from fewshot.classification.novelty import ALONE, novelty, threshold
from fewshot.classification.picture_encoder import PictureEncoder
from fewshot.classification.untrained import untrained_names
from fewshot.classified import Classified
from fewshot.methods import Method
from fewshot.noise import quietened
from fewshot.refusals import Parser, check_configs
from fewshot.report.page import write_report
from fewshot.results import relative, versions, write_json

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
    made.add_argument("--support", type=str, required=True, help="Labelled pictures, <support>/<class>/<picture>.")
    made.add_argument("--query", type=str, required=True, help="Pictures to classify, flat or in folders.")
    made.add_argument("--output", type=str, required=True, help="Folder for predictions.csv and report.html.")
    made.add_argument("--overwrite", type=bool, nargs="?", const=True, default=False, help="Replace what is there.")
    made.add_argument(
        "--ckpt_path",
        type=str | None,
        default=None,
        help="Checkpoint or run folder of a trained model, or a saved one.",
    )
    made.add_argument("--backbone", type=str | None, default=None, help="A timm name, in place of a checkpoint.")
    made.add_argument(
        "--weights", type=str | None, default=None, help="Of the backbone; null fetches timm's published ones."
    )
    made.add_argument("--image_size", type=int | None, default=None, help="Pixels; null takes that of the weights.")
    made.add_subclass_arguments(
        Method,
        "method",
        required=False,
        help="In place of the checkpoint's; without one null takes PTMAP with class proportions from the queries.",
    )
    made.add_argument("--chunk_size", type=int, default=CHUNK, help="Queries that are refined together at most.")
    made.add_argument("--temperature", type=float | None, default=None, help="Of probabilities; null fits it.")
    made.add_argument("--broken", type=Literal["stop", "skip"], default="stop", help="A picture that cannot be read.")
    made.add_argument(
        "--none_of_these",
        type=Literal["distance", "energy"] | None,  # type: ignore[operator]
        default=None,
        help="Flag queries unlike every class, by their distance to the support or their energy.",
    )
    made.add_argument(
        "--none_share", type=float | None, default=None, help="Share to flag; null asks the support's own pictures."
    )
    made.add_argument(
        "--query_labels",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="The queries' folders are named after their classes: state the accuracy.",
    )
    made.add_argument("--report_pictures", type=int, default=2000, help="Queries shown in report.html at most.")
    made.add_argument("--batch_size", type=int, default=64, help="Pictures that are encoded at a time.")
    made.add_argument("--device", type=str, default="auto", help="auto takes a GPU where there is one.")
    return made


def run(arguments: list[str]) -> None:
    """Classify, write the output folder, and say what was found.

    Args:
        arguments: those after `classify`.

    Raises:
        Exception: of any kind; `fewshot.refusals.refusal_of` tells those that a person can mend.
    """
    check_configs(arguments)
    with quietened(training=False):
        options = parser()
        given = options.parse_args(arguments)
        made = options.instantiate_classes(given, instantiate_groups=False)
        print(classify(made))


def classify(options: Any) -> str:
    """Run what is asked for; returns what to say about it.

    Args:
        options: as of `parser`, with the method made.
    """
    output = Path(os.path.expanduser(options.output)).resolve()
    check_replaceable(output, overwrite=options.overwrite, known=FILES)
    check_options(options)
    options.support, options.query = (os.path.expanduser(folder) for folder in (options.support, options.query))
    support, query = support_folder(Path(options.support)), query_folder(Path(options.query))
    check_apart(support, query)
    if options.query_labels:
        check_query_labels([path.relative_to(options.query).parts[0] for path in query], tuple(support))
    if options.none_of_these and options.none_share is None and max(map(len, support.values())) < 2:
        raise ValueError(f"none_of_these: {ALONE}")
    classifier = FewShotClassifier(
        options.backbone,
        options.method,
        checkpoint=options.ckpt_path,
        weights=options.weights,
        image_size=options.image_size,
        chunk_size=options.chunk_size,
        temperature=options.temperature,
        batch_size=options.batch_size,
        device=options.device,
    ).prepare()
    check_method(classifier, len(support))
    classified = classified_folders(classifier, support, query, options)
    with written_aside(output, overwrite=options.overwrite, known=FILES) as folder:
        write_predictions(folder / "predictions.csv", classified)
        write_report(folder / "report.html", classified, max_pictures=options.report_pictures)
        write_json(folder / "run.json", run_record(classified))
    lines = summary(classified, options.query_labels)
    return "\n".join([*lines, f"written to {relative(str(output))}: {', '.join(FILES)}"])


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


def check_method(classifier: FewShotClassifier, n_way: int) -> None:
    """ValueError, before anything is encoded, where the method is not trained or does not serve so many classes."""
    method = classifier._method
    name = type(method).__name__
    if classifier.method is not None and any(True for _ in method.parameters()):
        raise ValueError(
            f"--method {name} has to be trained first; give the checkpoint of its run as --ckpt_path without --method, "
            f"or one that needs no training: {', '.join(untrained_names())}"
        )
    if not method.on_features or not method.is_prepared:
        what = "adapts the backbone to every task" if not method.on_features else "asks for the training classes"
        raise ValueError(f"{name} {what}, which classify does not do; choose {', '.join(untrained_names())}")
    if method.n_way not in (None, n_way):
        raise ValueError(
            f"{name} of this checkpoint serves {method.n_way} classes alone, and the support has "
            f"{n_way}; give --method PTMAP (or another that needs no training), or a model for any number of classes"
        )


def classified_folders(
    classifier: FewShotClassifier, support: dict[str, list[Path]], query: Sequence[Path], options: Any
) -> Classified:
    """Encode, adapt, and flag what is unlike every class."""
    encoder = classifier.encoder
    assert encoder is not None
    labelled = [path for files in support.values() for path in files]
    of_support, support_kept, broken = _encoded(encoder, labelled, options.broken, "encoding the support")
    numbers = np.repeat(np.arange(len(support)), [len(files) for files in support.values()])[support_kept]
    names = tuple(support)
    for number, name in enumerate(names):
        if number not in numbers:
            raise ValueError(
                f"support: no picture of class {name!r} can be read; the first: "
                f"{next(reason for path, reason in broken if path in support[name])}"
            )
    of_query, query_kept, more = _encoded(encoder, query, options.broken, "encoding the queries")
    if not len(of_query):
        raise ValueError(f"query: no picture of {options.query} can be read; the first: {more[0][1]}")
    classifier.fit_features(torch.cat([of_support, of_query]), [*numbers.tolist(), *[None] * len(of_query)])
    unlike, limit = None, None
    if options.none_of_these is not None:
        task = (of_support, torch.from_numpy(numbers), of_query, len(names), options.none_of_these)
        limit = threshold(*task, share=options.none_share)
        unlike = novelty(*task).numpy()
    root = Path(options.query)
    alone = classifier.later_features(of_query).argmax(1)
    agreement = float((alone == classifier.transduction_proba_.argmax(1)).mean())
    settings = {
        "support": f"{len(labelled)} pictures of {len(names)} classes in {options.support}",
        "queries": f"{len(query)} pictures in {options.query}",
        "checkpoint": "none" if options.ckpt_path is None else relative(options.ckpt_path),
        "backbone": options.backbone or type(encoder.backbone).__name__,
        "weights": options.weights or ("of the checkpoint" if options.ckpt_path else "published"),
        "method": type(classifier._method).__name__,
        "refined together": f"{min(options.chunk_size, len(of_query))} queries at most",
        "temperature": f"{classifier.temperature_:.3g}",
        "each query classified alone afterwards": f"agrees on {100 * agreement:.1f} % of them",
        "picture size": f"{encoder.preprocessing.image_size} px",
        "none of these": "not asked" if limit is None else f"{options.none_of_these} above {limit:.3g}",
        **versions(),
    }
    return Classified(
        class_names=names,
        support=tuple(labelled[place] for place in support_kept),
        support_labels=numbers,
        query=tuple(query[place] for place in query_kept),
        query_names=tuple(query[place].relative_to(root).as_posix() for place in query_kept),
        support_features=of_support.numpy(),
        query_features=of_query.numpy(),
        before=classifier.initial_proba_,
        probabilities=classifier.transduction_proba_,
        novelty=unlike,
        novelty_threshold=limit,
        skipped=tuple((*broken, *more)),
        settings=settings,
    )


def _encoded(
    encoder: PictureEncoder, paths: Sequence[Path], broken: str, what: str
) -> tuple[Tensor, np.ndarray, list[tuple[Path, str]]]:
    """Features [n, D], places of the pictures that could be read, and the others with the reason."""
    try:
        found = encoder.encode(paths, skip_broken=broken == "skip", what=what)
    except ValueError as error:
        raise ValueError(f"{error}; --broken skip goes on without it") from error
    return found.features, found.kept, [(paths[place], reason) for place, reason in found.broken]


def write_predictions(file: Path, classified: Classified) -> None:
    """One line for each query: path, predicted class, probability, margin, class before refinement, whether it is
    flagged as none of the classes, and for every class its probability after and before refinement.
    """
    names, best = classified.class_names, classified.probabilities.max(1)
    asked = classified.novelty is not None
    header = ["path", "predicted", "probability", "margin", "predicted_before"]
    header += ["novelty", "none_of_these"] if asked else []
    header += [f"probability {name}" for name in names] + [f"before {name}" for name in names]
    with file.open("w", newline="", encoding="utf-8") as opened:
        table = csv.writer(opened)
        table.writerow(header)
        for row, path in enumerate(classified.query_names):
            cells: list[Any] = [path, names[classified.predicted[row]], f"{best[row]:.6f}"]
            cells += [f"{classified.margins[row]:.6f}", names[classified.predicted_before[row]]]
            if classified.novelty is not None:
                cells += [f"{classified.novelty[row]:.6f}", str(bool(classified.flagged[row])).lower()]
            cells += [f"{value:.6f}" for value in (*classified.probabilities[row], *classified.before[row])]
            table.writerow(cells)


def run_record(classified: Classified) -> dict[str, Any]:
    """What was run, for a JSON file."""
    return {
        "settings": dict(classified.settings),
        "classes": list(classified.class_names),
        "n_support": len(classified.support),
        "n_query": len(classified.query),
        "n_changed": int((classified.predicted != classified.predicted_before).sum()),
        "n_none_of_these": int(classified.flagged.sum()) if classified.novelty is not None else None,
        "skipped": [{"picture": str(path), "reason": reason} for path, reason in classified.skipped],
    }


def summary(classified: Classified, labels_in_folders: bool) -> list[str]:
    """Lines that say what was found."""
    changed = int((classified.predicted != classified.predicted_before).sum())
    lines = [
        f"{len(classified.query)} pictures classified after {len(classified.support)} labelled ones of "
        f"{len(classified.class_names)} classes; {changed} changed class through refinement"
    ]
    if classified.novelty is not None:
        lines.append(f"{int(classified.flagged.sum())} flagged as none of these")
    lines += [f"skipped: {reason}" for _, reason in classified.skipped]
    if labels_in_folders:
        lines.append(accuracy_line(classified))
    return lines


def check_query_labels(folders: Sequence[str], names: Sequence[str]) -> None:
    """ValueError where none of the queries' folders is named after a class."""
    if not set(folders) & set(names):
        raise ValueError(
            f"query_labels: no folder of the queries is named after a class ({', '.join(names[:5])}); leave "
            "--query_labels out"
        )


def accuracy_line(classified: Classified) -> str:
    """Accuracy by the names of the queries' folders, before refinement and after."""
    numbers = {name: number for number, name in enumerate(classified.class_names)}
    labels = np.array([numbers.get(name.split("/")[0], -1) for name in classified.query_names])
    known = labels >= 0
    right = [100 * (p[known] == labels[known]).mean() for p in (classified.predicted_before, classified.predicted)]
    return (
        f"accuracy on {known.sum()} queries of known class: {right[0]:.2f} % before refinement, {right[1]:.2f} % after"
    )
