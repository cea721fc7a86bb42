"""A trained model as a folder of the Hugging Face Hub's layout: JSON and safetensors, nothing that is unpickled.

- config.json: how the model is built (class_path and init_args), how pictures become tensors, the temperature of its
  probabilities, the versions that wrote it, the number of this format;
- model.safetensors: the whole state dict, with what the method was told of the training classes;
- README.md: a model card.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch

from fewshot.backbones.checkpoint_file import read_checkpoint
from fewshot.data.transforms import Preprocessing
from fewshot.files import full_path, resolve_weights, versions, written_aside
from fewshot.methods.construction import constructed
from fewshot.training.few_shot_module import FewShotModule
from fewshot.training.from_file import (
    BACKBONE_KEYS,
    DROPPED,
    LIBRARY,
    check_facts,
    load_state,
    module_from_checkpoint,
    module_from_description,
)
from fewshot.training.model_card import model_card

FORMAT = 1
"""Of config.json; raised whenever an older reader would misunderstand it."""
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FILES = (CONFIG, WEIGHTS, CARD)
KEYS = {
    "format": "number of this format",
    "library_name": "what reads it",
    "model": "class_path and init_args of the LightningModule, without options of training alone",
    "preprocessing": "how a picture becomes the tensor that the backbone receives",
    "backbone_preprocessing": "the normalisation that came with the backbone's first weights, as timm says it, or null",
    "temperature": "probabilities are softmax(logits / temperature); null means 1",
    "versions": "of the packages that wrote it",
}
"""What config.json holds."""


def save_trained(
    module: FewShotModule,
    preprocessing: Preprocessing,
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    license: str | None = None,
    results: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model into a new folder, which `load_trained` reads; all of it or nothing. Returns the folder.

    Args:
        module: the model.
        preprocessing: how its pictures become tensors.
        folder: where; made with its parents.
        overwrite: whether such a folder that is there is replaced.
        license: the Hub's word for a licence (mit, apache-2.0), for the model card.
        results: of a test, as in results.json, for the model card; without them it has no figures.

    Raises:
        ValueError: the folder is there, or the model cannot be written; names what.
    """
    with written_aside(folder, overwrite=overwrite, known=FILES) as aside:
        write_model(module, preprocessing, aside, license=license, results=results)
    return full_path(folder)


def write_model(
    module: FewShotModule,
    preprocessing: Preprocessing,
    folder: Path,
    *,
    license: str | None = None,
    results: Mapping[str, Any] | None = None,
) -> None:
    """Write the three files into a folder that is there; arguments and errors as of `save_trained`."""
    state = module.state_dict()
    bad = [key for key, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise ValueError(f"'{bad[0]}' of the model holds values that are not finite; it is not saved")
    config = {
        "format": FORMAT,
        "library_name": LIBRARY,
        "model": described_model(module),
        "preprocessing": asdict(preprocessing),
        "backbone_preprocessing": module.backbone.preprocessing,
        "temperature": module.temperature,
        "versions": versions(),
    }
    text = json.dumps(config, indent=2, allow_nan=False, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    whole = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    safetensors.torch.save_file(whole, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode & 0o777)  # safetensors lets nobody else read it
    card = model_card(config["model"]["init_args"], preprocessing, license=license, results=results)
    (folder / CARD).write_text(card, encoding="utf-8")


def described_model(module: FewShotModule) -> dict[str, Any]:
    """The module's class_path and init_args, without options of training and without where weights came from."""
    recorded = dict(module.hparams)
    arguments = {key: value for key, value in recorded.items() if not key.startswith("_") and key not in DROPPED}
    backbone = {key: arguments["backbone"].get(key) for key in BACKBONE_KEYS}
    return {"class_path": recorded["_class_path"], "init_args": {**arguments, "backbone": backbone}}


def read_model(folder: Path, packages: Sequence[str] = ()) -> tuple[FewShotModule, Preprocessing]:
    """The model of such a folder, in evaluation mode, on the CPU, and how its pictures become tensors.

    Args:
        folder: what `save_trained` wrote.
        packages: top-level packages besides this one whose classes config.json may name; they are imported.

    Raises:
        FileNotFoundError: one of the two files is not there.
        ValueError: a file that is damaged, altered or of another format; says where and what.
    """
    file = folder / CONFIG
    for path in (file, folder / WEIGHTS):
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no {path.name}; a saved model has {CONFIG} and {WEIGHTS}")
    config = read_config(file)
    try:
        preprocessing, module = _built(config, packages)
    except (ValueError, TypeError, AttributeError) as error:  # the latter two from constructors given strange values
        raise ValueError(f"{file} does not describe a model: {error}") from error
    load_state(module, read_checkpoint(folder / WEIGHTS), source=str(folder / WEIGHTS))
    module.temperature, module.pictures = config["temperature"], asdict(preprocessing)
    module.backbone.preprocessing = config["backbone_preprocessing"]
    return module.eval(), preprocessing


def read_config(file: Path) -> dict[str, Any]:
    """What config.json holds, as far as it can be told without building the model; ValueError says what is wrong."""

    def not_a_number(text: str) -> float:
        raise ValueError(f"{text} is not a finite number")

    def finite(text: str) -> float:
        return value if abs(value := float(text)) < float("inf") else not_a_number(text)

    try:
        text = file.read_text(encoding="utf-8")
        config = json.loads(text, parse_constant=not_a_number, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON of a saved model: {error}") from error
    if not isinstance(config, dict) or config.get("library_name") != LIBRARY:
        raise ValueError(f"{file} is not of this package: its library_name is not '{LIBRARY}'")
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{file} has the format {config.get('format')!r} and this fewshot reads {FORMAT}; take the fewshot that "
            "wrote it, or save the model again"
        )
    faults = [f"missing '{key}'" for key in KEYS if key not in config]
    faults += [f"superfluous '{key}'" for key in config if key not in KEYS]
    try:
        check_facts(config.get("temperature"), config.get("backbone_preprocessing"))
    except ValueError as error:
        faults.append(str(error))
    if faults:
        raise ValueError(f"{file} is damaged or altered: {'; '.join(faults)}")
    return config


def _built(config: Mapping[str, Any], packages: Sequence[str]) -> tuple[Preprocessing, FewShotModule]:
    preprocessing = constructed(config["preprocessing"], Preprocessing, packages=(), name="preprocessing")
    module = module_from_description(config["model"], FewShotModule, packages=packages)
    if preprocessing.channels != module.backbone.in_chans:
        raise ValueError(
            f"preprocessing.channels is {preprocessing.channels} but the backbone takes {module.backbone.in_chans}"
        )
    return preprocessing, module


class Trained(NamedTuple):
    """A model of a run, ready for pictures that are not of its data set."""

    module: FewShotModule
    """In evaluation mode, on the CPU."""
    preprocessing: Preprocessing
    """How its pictures became tensors."""
    file: Path
    """The checkpoint, or the model.safetensors of a saved model."""


def load_trained(path: str | os.PathLike[str], packages: Sequence[str] = ()) -> Trained:
    """The model of a checkpoint of FewShotModule, or of a folder that `save_trained` wrote.

    Args:
        path: a checkpoint file, the folder of a run or experiment, whose best.ckpt is taken, or that of a saved model.
        packages: top-level packages besides this one whose classes the file may name; they are imported.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read, is of something else, or does not say how pictures became tensors.
    """
    file = resolve_weights(path)
    if file.name == WEIGHTS:
        return Trained(*read_model(file.parent, packages), file)
    content = read_checkpoint(file)
    if "method" not in (content.get("hyper_parameters") or {}):
        raise ValueError(
            f"{file} is no checkpoint of FewShotModule; weights of a backbone go to backbone.weights, with a method "
            "that needs no training"
        )
    preprocessing = recorded_preprocessing(content, file)
    module = module_from_checkpoint(content, file, FewShotModule, packages=packages)
    return Trained(module.eval(), preprocessing, file)


def recorded_preprocessing(content: Mapping[str, Any], file: str | os.PathLike[str]) -> Preprocessing:
    """How pictures became tensors, as a checkpoint of ours says; ValueError where it does not."""
    pictures = content.get("pictures")
    if not isinstance(pictures, Mapping):
        raise ValueError(
            f"{file} does not say how its pictures became tensors (size, mean, std); it was written before that was "
            "recorded: run its fit again"
        )
    try:
        return Preprocessing(**pictures)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} does not say how its pictures became tensors in a way known here: {error}") from error
