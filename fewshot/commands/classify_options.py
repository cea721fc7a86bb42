"""The options of python -m fewshot classify: what is accepted, and what is refused before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from jsonargparse import ActionConfigFile

import fewshot.methods  # noqa: F401  (imported so that --method may name its classes without the path)
from fewshot.classification.adaptation import check_temperature
from fewshot.classification.classifier import FewShotClassifier
from fewshot.classification.encoder import PRECISIONS
from fewshot.classification.model import needs_training, untrained_names
from fewshot.classification.novelty import ALONE, Told
from fewshot.commands.parser import Parser, add_packages, add_switch
from fewshot.methods import Method

CHUNK = 2000
"""Queries that are refined together, unless told otherwise."""
OF_PICTURES = ("support", "query", "ckpt_path", "backbone", "weights", "image_size", "query_labels", "sorted")
OF_ROWS = ("id_column", "label_column", "text_column")
"""Options that go with pictures alone, and with --features alone."""


def parser() -> Parser:
    """The options of classify."""
    made = Parser(
        prog="python -m fewshot classify",
        description="Classify pictures or rows of features after a few labelled ones: a table and a report to look at.",
        parser_mode="omegaconf+",
    )
    made.add_argument("-c", "--config", action=ActionConfigFile, help="A YAML file of these options.")
    add_folders(made)
    add_answers(made)
    add_features(made)
    add_model(made)
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
    made.add_argument(
        "--check_refinement",
        type=bool,
        default=True,
        help="Hold labelled ones out in turn; where looking at the queries hurts, give the answer before.",
    )
    made.add_argument("--report_pictures", type=int, default=2000, help="Queries shown in report.html at most.")
    return made


def add_encoding(made: Parser) -> None:
    """Options that say how pictures are encoded."""
    made.add_argument("--batch_size", type=int, default=64, help="Pictures that a GPU encodes at a time.")
    made.add_argument("--device", type=str, default="auto", help="auto takes a GPU where there is one.")
    made.add_argument(
        "--precision",
        type=Literal[tuple(PRECISIONS)] | None,  # type: ignore[operator]
        default=None,
        help="Of the backbone; null takes 32-true, and 16-mixed needs a GPU.",
    )
    made.add_argument(
        "--store_features", type=bool, default=True, help="Remember encoded pictures in the cache folder."
    )


def add_folders(made: Parser) -> None:
    """Options that say what is read, and where the result goes."""
    made.add_argument(
        "--support", type=str | None, default=None, help="Labelled pictures, <support>/<class>/<picture>."
    )
    made.add_argument("--query", type=str | None, default=None, help="Pictures to classify, flat or in folders.")
    made.add_argument("--output", type=str, required=True, help="Folder for the table and the page.")
    add_switch(made, "--overwrite", help="Replace what is there.")
    made.add_argument("--broken", type=Literal["stop", "skip"], default="stop", help="A picture that cannot be read.")


OF_MODEL = ("ckpt_path", "backbone", "weights", "image_size", "precision", "method")
"""Options that a run which is continued brings."""


def add_answers(made: Parser) -> None:
    """Options that say what else is written, and which earlier run is gone on with or compared with."""
    add_switch(made, "--keep_classifier", help="Write the fitted classifier too, as <output>/classifier.")
    made.add_argument(
        "--continue",
        type=str | None,
        default=None,
        help="Output of a run with --keep_classifier: its model and all that it was given take part again.",
    )
    made.add_argument(
        "--sorted", type=str | None, default=None, help="Folder for copies of the pictures in class folders."
    )
    add_switch(made, "--link", help="Hard links in the place of those copies, which take no room.")
    made.add_argument(
        "--previous",
        type=str | None,
        default=None,
        help="Output of an earlier run, to say what changed since; null takes the one that is replaced.",
    )
    add_switch(made, "--query_labels", help="The queries' folders are named after their classes: state the accuracy.")


def add_features(made: Parser) -> None:
    """Options that say which rows of features are read in the place of pictures, and which embeddings of classes."""
    made.add_argument(
        "--features",
        type=str | None,
        default=None,
        help="Rows of features in the place of pictures: .npy, .npz, .csv, .parquet, or a folder of them.",
    )
    made.add_argument(
        "--labels",
        type=str | None,
        default=None,
        help="labels.csv of a report, or any table: path (of rows id), label, and none_of_these, beside --support or "
        "in its place; of rows also an array with one label each.",
    )
    made.add_argument("--id_column", type=str | None, default=None, help="Names of the rows; null numbers them.")
    made.add_argument(
        "--label_column", type=str | None, default=None, help="Labels, beside the features or in the file of --labels."
    )
    made.add_argument("--text_column", type=str | None, default=None, help="What the report shows of a row.")
    made.add_argument(
        "--class_embeddings",
        type=str | None,
        default=None,
        help="A row of features for each class, such as of CLIP's text side: extra support, or all of it.",
    )
    made.add_argument(
        "--class_embedding_weight", type=int, default=1, help="As how many labelled pictures or rows each counts."
    )


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
    made.add_argument("--chunk_size", type=int, default=CHUNK, help="Queries that are refined together at most.")
    add_encoding(made)


def check_options(options: Any) -> None:
    """ValueError, before anything is read, for values that nothing can be done with."""
    check_inputs(options)
    check_labelled(options)
    check_sizes(options, "report_pictures")
    if options.link and options.sorted is None:
        raise ValueError("link: it says how to sort, and not into which folder; give --sorted <folder>")
    check_temperature(options.temperature)
    if options.none_share is not None:
        if options.none_of_these is None:
            raise ValueError("none_share: it says how many to flag, but not by what; give --none_of_these distance")
        if not 0 < options.none_share < 1:
            raise ValueError(f"none_share={options.none_share}; give a share between 0 and 1")


def check_sizes(options: Any, *names: str) -> None:
    """ValueError where one of these, or of the sizes of the model, is not above 0."""
    for name in ("chunk_size", "batch_size", "class_embedding_weight", *names):
        if getattr(options, name) < 1:
            raise ValueError(f"{name}={getattr(options, name)}; give 1 or more")


def check_inputs(options: Any) -> None:
    """ValueError where it is not said what is read and by what it is encoded, or said twice."""
    given = {name: options.get(name) for name in (*OF_PICTURES, *OF_ROWS)}
    wrong = [
        name for name in (OF_ROWS if options.features is None else OF_PICTURES) if given[name] not in (None, False)
    ]
    if wrong and options.features is None:
        raise ValueError(f"{wrong[0]}: it is about rows of features; give --features <file>, or leave it out")
    if wrong:
        raise ValueError(f"{wrong[0]}: it is about pictures, and --features brings rows of features; leave one out")
    if options.get("continue") is not None:
        if brought := [name for name in OF_MODEL if getattr(options, name) is not None]:
            raise ValueError(f"continue: the earlier run brings its model; leave {brought[0]} out")
        if options.features is None and options.query is None and options.labels is None and options.support is None:
            raise ValueError("continue: nothing is new; give --query, --support, --labels, or --features")
        return
    if options.features is not None:
        return
    if options.query is None:
        raise ValueError("nothing to classify; give --query <folder of pictures>, or --features <file>")
    if options.ckpt_path is None and options.backbone is None:
        raise ValueError(
            "nothing encodes the pictures; give --ckpt_path <run or checkpoint>, or --backbone <timm name> (with "
            "--weights <file>, or timm's published ones)"
        )


def check_labelled(options: Any) -> None:
    """ValueError where nothing is labelled."""
    if options.get("continue") is not None:
        return
    if options.labels is not None or options.class_embeddings is not None:
        return
    if options.features is not None and options.label_column is None:
        raise ValueError(
            "nothing is labelled; give --label_column <name>, --labels <file>, or --class_embeddings <file>"
        )
    if options.features is None and options.support is None:
        raise ValueError(
            "nothing is labelled; give --support <folder of class folders>, --labels <labels.csv>, or "
            "--class_embeddings <file>"
        )


def check_alone(options: Any, counts: Sequence[int]) -> None:
    """ValueError where --none_of_these has too few labelled ones to compare with.

    Args:
        options: all.
        counts: how many labelled ones each class has.
    """
    if options.get("none_of_these") not in ("distance", "energy"):
        return
    if min(counts, default=0) < 1:
        raise ValueError(
            f"none_of_these: {options.none_of_these} compares with labelled ones, and there is a class without any; "
            "give learned"
        )
    if options.none_share is None and max(counts) < 2:
        raise ValueError(f"none_of_these: {ALONE}")


def check_method(classifier: FewShotClassifier, n_way: int, none_of_these: str | None, *, named: bool = True) -> None:
    """ValueError, before anything is encoded, where the method is not trained or cannot do what is asked of it.

    Args:
        classifier: whose method it is.
        n_way: classes that it is to tell apart.
        none_of_these: how queries of no class are told.
        named: whether the method may have come by its name alone, and not from a file.
    """
    method = classifier.method_
    name = type(method).__name__
    if named and classifier.method is not None and needs_training(method):
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
    if n_way > 1 and method.n_way not in (None, n_way):
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
