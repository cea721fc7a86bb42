"""A fitted FewShotClassifier as a folder: that of its model, and two files about its task. Nothing is unpickled.

- config.json, model.safetensors, README.md: the model (fewshot.training.saved_model); absent where rows are features;
- classifier.json: labels, options, and the method where there is no model;
- classifier.safetensors: the support, what classifies later pictures, what was found out about the unlabelled.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from fewshot.backbones.checkpoint_file import read_checkpoint
from fewshot.backbones.weights import load_strictly
from fewshot.classification.adaptation import Adapted
from fewshot.data.transforms import Preprocessing
from fewshot.files import full_path, versions, written_aside
from fewshot.methods import Method
from fewshot.methods.construction import constructed, construction
from fewshot.methods.frozen_head import FrozenHead
from fewshot.training.few_shot_module import FewShotModule
from fewshot.training.saved_model import CONFIG, LIBRARY, read_model, write_model
from fewshot.training.saved_model import FILES as MODEL_FILES

FORMAT = 1
ABOUT, TENSORS = "classifier.json", "classifier.safetensors"
FILES = (*MODEL_FILES, ABOUT, TENSORS)
OPTIONS = ("chunk_size", "batch_size", "device")
"""Of the classifier's constructor: how it goes on being used."""
METHOD = "method."
HEAD = "head."
"""What names of tensors of the method and of the head begin with."""


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
    if strange := [label for label in fitted.classes if not isinstance(label, (str, int, float))]:
        raise ValueError(f"the label {strange[0]!r} is a {type(strange[0]).__name__}; save text or numbers as labels")
    tensors: dict[str, Tensor] = {
        "support": adapted.support,
        "support_labels": adapted.support_labels,
        "before": adapted.before,
        "probabilities": adapted.probabilities,
        "transduced": torch.from_numpy(fitted.transduced),
    }
    if adapted.head is not None:
        tensors |= {HEAD + name: value for name, value in adapted.head._asdict().items() if name != "power"}
    if fitted.module is None:
        tensors |= {METHOD + name: value for name, value in fitted.method.state_dict().items()}
    about = {
        "format": FORMAT,
        "library_name": LIBRARY,
        "classes": fitted.classes,
        "temperature": adapted.temperature,
        "power": None if adapted.head is None else adapted.head.power,
        "options": fitted.options,
        "method": construction(fitted.method, "method") if fitted.module is None else None,
        "versions": versions(),
    }
    with written_aside(folder, overwrite=overwrite, known=FILES) as aside:
        if fitted.module is not None and fitted.preprocessing is not None:
            write_model(fitted.module, fitted.preprocessing, aside)
        text = json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False)
        # a label that is no Unicode text, as of a folder with such a name, becomes an escape of JSON
        (aside / ABOUT).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
        plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        safetensors.torch.save_file(plain, aside / TENSORS)
        (aside / TENSORS).chmod((aside / ABOUT).stat().st_mode & 0o777)  # safetensors lets nobody else read it


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
    for name in (ABOUT, TENSORS):
        if not (place / name).is_file():
            raise FileNotFoundError(f"{place} holds no {name}; FewShotClassifier.save writes it")
    about = _about(place / ABOUT)
    tensors = read_checkpoint(place / TENSORS)
    try:
        adapted = _adapted(about, tensors)
        module, preprocessing = None, None
        if (place / CONFIG).is_file():
            module, preprocessing = read_model(place, packages)
            method = module.method
        else:
            method = constructed(about["method"], Method, packages=(LIBRARY, *packages), name="method")
            method.build(adapted.support.shape[-1])
            state = {key.removeprefix(METHOD): value for key, value in tensors.items() if key.startswith(METHOD)}
            load_strictly(method, state, source=str(place / TENSORS))
        transduced = tensors["transduced"].numpy()
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{place}: {ABOUT} and {TENSORS} do not go together: {error!r}") from error
    if (
        transduced.ndim != 1
        or transduced.dtype != np.int64
        or not ((transduced >= 0) & (transduced < adapted.n_way)).all()
    ):
        raise ValueError(f"{place / TENSORS}: 'transduced' names classes that are not there")
    return FittedClassifier(
        about["classes"], adapted, transduced, method.eval(), module, preprocessing, about["options"]
    )


def _about(file: Path) -> dict[str, Any]:
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON of a saved classifier: {error}") from error
    if not isinstance(about, dict) or about.get("library_name") != LIBRARY or about.get("format") != FORMAT:
        raise ValueError(f"{file} is of another package or format; this fewshot reads format {FORMAT}")
    classes, options = about.get("classes"), about.get("options")
    temperature, power = about.get("temperature"), about.get("power")
    faults = {
        "classes": not isinstance(classes, list) or not all(isinstance(label, (str, int, float)) for label in classes),
        "options": not isinstance(options, dict) or set(options) != set(OPTIONS),
        "temperature": not isinstance(temperature, float) or not 0 < temperature < math.inf,
        "power": power is not None and (not isinstance(power, float) or not 0 < power < math.inf),
    }
    if any(faults.values()):
        named = ", ".join(name for name, is_wrong in faults.items() if is_wrong)
        raise ValueError(f"{file} is damaged or altered: not as it was written: {named}")
    return about


def _adapted(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Adapted:
    n_way, width = len(about["classes"]), tensors["support"].shape[-1]
    head = None
    if about["power"] is not None:
        head = FrozenHead(
            **{name: tensors[HEAD + name] for name in FrozenHead._fields if name != "power"}, power=about["power"]
        )
    labels = tensors["support_labels"]
    if (
        tensors["support"].ndim != 3
        or labels.shape != tensors["support"].shape[:2]
        or labels.dtype != torch.int64
        or not bool(((labels >= 0) & (labels < n_way)).all())
        or tensors["probabilities"].shape[1:] != (n_way,)
        or (head is not None and head.weights.shape != (1, n_way, width))
        or not all(bool(value.isfinite().all()) for value in tensors.values())
    ):
        raise ValueError(f"{TENSORS} does not fit {n_way} classes of {width} features, or holds values not finite")
    return Adapted(
        tensors["support"],
        labels,
        n_way,
        head,
        about["temperature"],
        tensors["before"],
        tensors["probabilities"],
    )
