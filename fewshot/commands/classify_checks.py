"""What of the options of classify and suggest is refused before anything is read, or before anything is encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot.classification.adaptation import check_temperature
from fewshot.classification.classifier import FewShotClassifier
from fewshot.classification.clip import PROMPTS, check_prompts
from fewshot.classification.model import needs_training, untrained_names
from fewshot.classification.novelty import ALONE

OF_PICTURES = ("support", "query", "ckpt_path", "backbone", "weights", "image_size", "query_labels", "sorted")
OF_ROWS = ("id_column", "label_column", "text_column")
"""Options that go with pictures alone, and with --features alone."""
OF_MODEL = ("ckpt_path", "backbone", "weights", "image_size", "clip", "precision", "method")
"""Options that a run which is continued brings."""


def check_options(options: Any) -> None:
    """ValueError, before anything is read, for values that nothing can be done with."""
    check_inputs(options)
    check_clip(options)
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
    if options.features is None and options.get("continue") is not None:
        given |= dict.fromkeys(OF_ROWS)  # the earlier run says whether it was of rows
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
        if options.get("sorted") is not None and options.query is None:
            raise ValueError("sorted: only pictures of --query are sorted, and it is not given; give --query <folder>")
        return
    if options.features is not None:
        return
    if options.query is None:
        raise ValueError("nothing to classify; give --query <folder of pictures>, or --features <file>")
    if options.ckpt_path is None and options.backbone is None and options.clip is None:
        raise ValueError(
            "nothing encodes the pictures; give --ckpt_path <run or checkpoint>, or --backbone <timm name> (with "
            "--weights <file>, or timm's published ones), or --clip <model>"
        )


def check_columns_unused(options: Any) -> None:
    """ValueError where a column of rows is named for a run of pictures that is continued."""
    if named := [name for name in OF_ROWS if options.get(name) is not None]:
        raise ValueError(f"{named[0]}: it is about rows of features, and the earlier run was of pictures; leave it out")


def check_moved(support: Mapping[str, Sequence[Path]], root: Path | None, told: Mapping[str, str | None]) -> None:
    """ValueError where a table says another class of a labelled picture than the folder in which it lies now.

    Args:
        support: pictures of each class.
        root: the folder of these.
        told: what the table says.
    """
    if root is None:
        return
    for label, files in support.items():
        for file in files:
            name = f"support/{file.relative_to(root).as_posix()}"
            if told.get(name, label) != label:
                said = "none of these" if told[name] is None else repr(told[name])
                raise ValueError(f"labels: {name!r} is {said}, and lies in the folder of {label!r}; move the file")


def check_clip(options: Any) -> None:
    """ValueError where what is said of CLIP does not go together."""
    if options.clip is None:
        if options.class_names is not None:
            raise ValueError("class_names: names say something to CLIP alone; give --clip <model>")
        if list(options.prompts) != list(PROMPTS):
            raise ValueError("prompts: they say something to CLIP alone; give --clip <model>")
        return
    for name in ("ckpt_path", "backbone", "weights", "image_size", "class_embeddings"):
        if getattr(options, name) is not None:
            raise ValueError(f"clip and {name} given; CLIP brings its own: leave one out")
    if options.get("keep_classifier"):
        raise ValueError("keep_classifier: a classifier on CLIP cannot be kept; give --backbone <timm name>")
    if options.class_names is None and options.features is not None:
        raise ValueError("clip: rows of features have no folders that name classes; give --class_names")
    check_prompts(options.prompts)


def check_labelled(options: Any) -> None:
    """ValueError where nothing is labelled."""
    if options.get("continue") is not None:
        return
    if options.labels is not None or options.class_embeddings is not None or options.class_names is not None:
        return
    if options.features is not None and options.label_column is None:
        raise ValueError(
            "nothing is labelled; give --label_column <name>, --labels <file>, or --class_embeddings <file>"
        )
    if options.features is None and options.support is None:
        raise ValueError(
            "nothing is labelled; give --support <folder of class folders>, --labels <labels.csv>, "
            "--class_embeddings <file>, or --clip <model> with --class_names"
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
