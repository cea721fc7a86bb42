"""A fitted FewShotClassifier as a folder: that of its model, and two files about its task. Nothing is unpickled.

- config.json, model.safetensors, README.md: the model (fewshot.training.saved_model); absent where rows are features;
- classifier.json: labels, options, and the method where there is no model;
- classifier.safetensors: the support, what classifies later pictures, what was found out about the unlabelled.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewshot.backbones.weights import value_fault
from fewshot.classification.adaptation import Adapted
from fewshot.classification.class_embeddings import ClassEmbeddings
from fewshot.classification.encoder import PRECISIONS
from fewshot.classification.fitting import Given
from fewshot.classification.row_view import RowView
from fewshot.data.transforms import Preprocessing
from fewshot.files import full_path, written_aside
from fewshot.methods import Method
from fewshot.methods.construction import MAX_INTEGER, constructed, construction
from fewshot.methods.frozen_head import FrozenHead
from fewshot.training.few_shot_module import FewShotModule
from fewshot.training.from_file import LIBRARY, check_facts, load_state, no_larger_than
from fewshot.training.saved_model import CARD, CONFIG, read_described, read_model, write_described, write_model
from fewshot.training.saved_model import FILES as MODEL_FILES

ABOUT, TENSORS = "classifier.json", "classifier.safetensors"
FILES = (*MODEL_FILES, ABOUT, TENSORS)
KEYS = ("format", "library_name", "classes", "temperature", "power", "options", "method", "versions", "feature_names")
"""What classifier.json holds."""
ADDED = ("precision", "temperature", "class_embedding_weight", "check_refinement")
"""Options that files of earlier versions lack."""
OPTIONS = ("chunk_size", "batch_size", "device", *ADDED)
"""Of the classifier's constructor: how it goes on being used."""
OF_TASK = ("support", "support_labels", "before", "probabilities")
OF_HEAD = ("weights", "scale", "bias", "centre")
"""Tensors of Adapted and of FrozenHead."""
LABELS = ("support_labels", "transduced", "given_labels", "embedding_labels")
METHOD, HEAD = "method.", "head."
"""What names of tensors of the method and of the head begin with."""
CARD_OF_CLASSIFIER = """
With `classifier.json` and `classifier.safetensors` it is a fitted classifier, which knows its classes:

```python
from fewshot import FewShotClassifier

classifier = FewShotClassifier.load("the folder of this file")
print(classifier.classes_, classifier.predict(["a picture.jpg"]))
```
"""


class FittedClassifier(NamedTuple):
    """What a classifier is after `fit`."""

    classes: list[Any]
    """N labels: text, numbers or truth values."""
    adapted: Adapted
    transduced: np.ndarray
    """[n] int64, the class of every row that it was fitted on."""
    method: Method
    module: FewShotModule | None
    """Backbone and method; None where rows are features."""
    preprocessing: Preprocessing | None
    """How pictures become tensors; None where rows are features."""
    options: dict[str, Any]
    """Of the constructor, plain values."""
    given: Given | None = None
    """All that it was fitted on; None where that is not saved."""
    feature_names: list[str] | None = None
    """Of the columns that it was fitted on; None where they had none."""


def write_classifier(fitted: FittedClassifier, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a fitted classifier into a new folder, all of it or nothing; `read_classifier` reads it.

    Args:
        fitted: what is written.
        folder: where; made with its parents.
        overwrite: whether such a folder that is there is replaced.

    Raises:
        ValueError: labels that JSON has not, or the folder is there.
    """
    adapted = fitted.adapted
    if strange := [label for label in fitted.classes if not _is_plain(label)]:
        kind = type(strange[0]).__name__
        raise ValueError(f"the label {strange[0]!r} is a {kind}; save text or finite numbers as labels")
    tensors = {name: getattr(adapted, name) for name in OF_TASK} | {"transduced": torch.from_numpy(fitted.transduced)}
    if adapted.strangers is not None:
        tensors["strangers"] = adapted.strangers
    if adapted.view is not None:
        tensors |= {name: value for name, value in adapted.view._asdict().items() if value is not None}
    if adapted.head is not None:
        tensors |= {HEAD + name: getattr(adapted.head, name) for name in OF_HEAD}
    if fitted.module is None:
        tensors |= {METHOD + name: value for name, value in fitted.method.state_dict().items()}
    tensors |= _tensors_of(fitted)
    about = {
        "classes": fitted.classes,
        "temperature": adapted.temperature,
        "power": None if adapted.head is None else adapted.head.power,
        "options": {name: _plain_option(value) for name, value in fitted.options.items()},
        "method": construction(fitted.method, "method") if fitted.module is None else None,
        "feature_names": fitted.feature_names,
    }
    with written_aside(folder, overwrite=overwrite, known=FILES) as aside:
        if fitted.module is not None and fitted.preprocessing is not None:
            write_model(fitted.module, fitted.preprocessing, aside)
            with (aside / CARD).open("a", encoding="utf-8") as card:
                card.write(CARD_OF_CLASSIFIER)
        write_described(aside, ABOUT, TENSORS, about, tensors)


def read_classifier(folder: str | os.PathLike[str], packages: Sequence[str] = ()) -> FittedClassifier:
    """The classifier of a folder that `write_classifier` wrote, on the CPU.

    Args:
        folder: which.
        packages: top-level packages besides this one whose classes it may name; they are imported.

    Raises:
        FileNotFoundError: one of its files is not there.
        ValueError: a file that is damaged, altered or of another format; says which and what.
    """
    place = full_path(folder)
    about, tensors = read_described(place, ABOUT, TENSORS, KEYS)
    classes, options = about["classes"], about["options"]
    right = {
        "classes": isinstance(classes, list) and all(isinstance(label, (str, int, float)) for label in classes),
        "options": isinstance(options, dict) and set(options) | set(ADDED) == set(OPTIONS) and _are_usable(**options),
        "temperature": about["temperature"] is not None,
        "power": about["power"] is None or (isinstance(about["power"], float) and about["power"] > 0),
        "feature_names": _are_names(about.get("feature_names"), tensors),
    }
    if wrong := [name for name, is_right in right.items() if not is_right]:
        raise ValueError(f"{place / ABOUT} is damaged or altered: not as it was written: {', '.join(wrong)}")
    try:
        check_facts(about["temperature"], None, source=f"{place / ABOUT}: ")
        adapted, transduced = _adapted(about, tensors), tensors["transduced"]
        given = _given(classes, tensors)
        module, preprocessing = read_model(place, packages) if (place / CONFIG).is_file() else (None, None)
        if module is not None:
            method = module.method
        else:
            with no_larger_than(tensors):
                method = constructed(about["method"], Method, packages=(LIBRARY, *packages), name="method")
                method.build(adapted.support.shape[-1])
            state = {key.removeprefix(METHOD): value for key, value in tensors.items() if key.startswith(METHOD)}
            load_state(method, state, source=str(place / TENSORS), n_features=adapted.support.shape[-1])
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{place}: {ABOUT} and {TENSORS} do not go together: {error!r}") from error
    return FittedClassifier(
        classes,
        adapted,
        transduced.numpy(),
        method.eval(),
        module,
        preprocessing,
        options,
        given,
        about.get("feature_names"),
    )


def _plain_option(value: Any) -> Any:
    """An option of the constructor as JSON holds it: a number of NumPy as Python's, a device by its name."""
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, torch.device) else value


def _are_names(names: Any, tensors: Mapping[str, Tensor]) -> bool:
    """Whether these may be the names of the features, one for each; None where they have none."""
    return names is None or (
        isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and "support" in tensors
        and len(names) == tensors["support"].shape[-1]
    )


def _is_plain(label: Any) -> bool:
    """Whether JSON has it: text, or a finite number."""
    return isinstance(label, (str, int)) or (isinstance(label, float) and math.isfinite(label))


def _tensors_of(fitted: FittedClassifier) -> dict[str, Tensor]:
    """What it was fitted on, if that is to be saved: labels as places among the classes, -1 for none."""
    if fitted.given is None:
        return {}
    rows, labels, embeddings = fitted.given
    places = {label: place for place, label in enumerate(fitted.classes)}
    found = {"rows": rows, "given_labels": torch.tensor([places.get(label, -1) for label in labels])}
    if embeddings is not None:
        found["embeddings"] = embeddings.features
        found["embedding_labels"] = torch.tensor([places[name] for name in embeddings.class_names])
    return found


def _given(classes: list[Any], tensors: Mapping[str, Tensor]) -> Given | None:
    """What `_tensors_of` gave; ValueError where the tensors do not fit each other."""
    if "rows" not in tensors:
        return None
    rows, labels, width, embeddings = tensors["rows"], tensors["given_labels"], tensors["support"].shape[-1], None
    fits = [rows.shape == (len(tensors["transduced"]), width), _are_places(labels, len(rows), -1, len(classes))]
    if "embeddings" in tensors:
        features, of_classes = tensors["embeddings"], tensors["embedding_labels"]
        fits += [features.shape[1:] == (width,), _are_places(of_classes, len(features), 0, len(classes))]
        fits += [len(set(of_classes.tolist())) == len(of_classes)]
    if not all(fits):
        raise ValueError(f"the rows of {TENSORS} do not fit {len(classes)} classes of {width} features")
    if "embeddings" in tensors:
        embeddings = ClassEmbeddings(tuple(classes[place] for place in of_classes.tolist()), features)
    return Given(rows, [None if place < 0 else classes[place] for place in labels.tolist()], embeddings)


def _are_places(labels: Tensor, number: int, least: int, n_way: int) -> bool:
    is_right = labels.dtype == torch.int64 and labels.shape == (number,)
    return is_right and bool(((labels >= least) & (labels < n_way)).all())


def _are_usable(
    chunk_size: Any,
    batch_size: Any,
    device: Any,
    precision: Any = "32-true",
    temperature: Any = None,
    class_embedding_weight: Any = 1,
    check_refinement: Any = False,
) -> bool:
    """Whether these are options of a classifier; how far memory goes is not a file's to say."""
    sizes = [class_embedding_weight, *(size for size in (chunk_size, batch_size) if size is not None)]
    return (
        isinstance(device, str)
        and re.fullmatch("auto|cpu|mps|cuda(:[0-9]+)?", device) is not None
        and precision in PRECISIONS
        and (temperature is None or (type(temperature) in (int, float) and 0 < temperature < math.inf))
        and isinstance(check_refinement, bool)
        and all(type(size) is int and 0 < size <= MAX_INTEGER for size in sizes)
    )


def _adapted(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Adapted:
    """The task; ValueError where the tensors do not fit each other and the classes."""
    n_way, width = len(about["classes"]), tensors["support"].shape[-1]
    head = None
    if about["power"] is not None:
        head = FrozenHead(**{name: tensors[HEAD + name] for name in OF_HEAD}, power=about["power"])
    support, support_labels, before, probabilities = (tensors[name] for name in OF_TASK)
    task = Adapted(
        support,
        support_labels,
        n_way,
        head,
        about["temperature"],
        before,
        probabilities,
        strangers=tensors.get("strangers"),
        view=RowView(tensors["centre"], tensors.get("whitening")) if "centre" in tensors else None,
    )
    labels = (task.support_labels, tensors["transduced"])
    if (
        task.support.ndim != 3
        or len(task.support) != 1
        or not task.support.numel()
        or len(set(about["classes"])) != n_way
        or task.support_labels.shape != task.support.shape[:2]
        or tensors["transduced"].ndim != 1
        or not all(each.dtype == torch.int64 and bool(((each >= 0) & (each < n_way)).all()) for each in labels)
        or task.probabilities.shape[1:] != (n_way,)
        or task.before.shape != task.probabilities.shape
        or (task.strangers is not None and task.strangers.shape != task.probabilities.shape[:1])
        or (task.view is not None and not task.view.fits(width))
        or (head is not None and [part.shape for part in head[:4]] != [(1, n_way, width), (1,), (1, n_way), (1, width)])
        or any(value_fault(value, torch.float32) for name, value in tensors.items() if name not in LABELS)
        or bool(((task.probabilities < 0) | (task.probabilities > 1)).any())
    ):
        raise ValueError(f"{TENSORS} does not fit {n_way} classes of {width} features, or holds values not finite")
    return task
