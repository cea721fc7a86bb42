"""The options of python -m fewshot classify, those that it shares with suggest among them."""

from __future__ import annotations

from typing import Literal

from jsonargparse import ActionConfigFile

import fewshot.methods  # noqa: F401  (imported so that --method may name its classes without the path)
from fewshot.classification.clip import PROMPTS
from fewshot.classification.encoder import PRECISIONS
from fewshot.classification.novelty import Told
from fewshot.commands.parser import Parser, add_packages, add_switch
from fewshot.methods import Method

CARRIED = {"chunk_size": 2000, "batch_size": 64, "class_embedding_weight": 1, "temperature": None}
"""Options that a run which is continued hands on unless they are said anew, with what they are if nothing is said."""


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
    made.add_argument(
        "--batch_size", type=int, default=CARRIED["batch_size"], help="Pictures that a GPU encodes at a time."
    )
    made.add_argument("--device", type=str, default="auto", help="auto takes a GPU where there is one.")
    made.add_argument(
        "--precision",
        type=Literal[tuple(PRECISIONS)] | None,  # type: ignore[operator]
        default=None,
        help="Of the backbone; null takes 32-true, and 16-mixed needs a GPU.",
    )
    made.add_argument(
        "--store_features",
        type=bool,
        default=True,
        help="Remember encoded pictures, and small ones for the report, in the cache folder.",
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
        "--class_embedding_weight",
        type=int,
        default=CARRIED["class_embedding_weight"],
        help="As how many labelled pictures or rows each counts.",
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
    made.add_argument(
        "--clip",
        type=str | None,
        default=None,
        help="A model of CLIP in the place of a backbone, which knows classes by their names too: its name on the "
        "Hugging Face Hub, such as openai/clip-vit-base-patch32, or a folder (extra `clip`).",
    )
    made.add_argument(
        "--class_names",
        type=list[str] | None,
        default=None,
        help="What --clip is to tell apart, with labelled pictures or without; null takes the folders in --support.",
    )
    made.add_argument(
        "--prompts", type=list[str], default=list(PROMPTS), help="What --clip is told of a class, {} being its name."
    )
    made.add_subclass_arguments(
        Method,
        "method",
        required=False,
        help="In place of the checkpoint's; without one null takes UniversalSIB.",
    )
    made.add_argument(
        "--chunk_size", type=int, default=CARRIED["chunk_size"], help="Queries that are refined together at most."
    )
    add_encoding(made)
