"""A trained model as a folder of the Hugging Face Hub's layout: JSON and safetensors, nothing that is unpickled.

- config.json: how the model is built (class_path and init_args), how pictures become tensors, the temperature of its
  probabilities, the versions that wrote it, the number of this format;
- model.safetensors: the whole state dict, with what the method was told of the training classes;
- README.md: a model card.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from torch import Tensor

from fewshot.backbones.checkpoint_file import read_checkpoint
from fewshot.data.transforms import Preprocessing
from fewshot.files import full_path, resolve_weights, written_aside
from fewshot.methods.construction import constructed, warn_of_changes
from fewshot.training.few_shot_module import FewShotModule
from fewshot.training.from_file import (
    BACKBONE_KEYS,
    DROPPED,
    LIBRARY,
    check_facts,
    is_of_few_shot_module,
    load_state,
    module_from_checkpoint,
    module_from_description,
)
from fewshot.training.model_card import model_card
from fewshot.training.versions import versions

FORMAT = 1
"""Of what is saved; raised whenever an older reader would misunderstand it."""
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FILES = (CONFIG, WEIGHTS, CARD)
KEYS = {
    "format": "number of this format",
    "library_name": "what reads it",
    "model": "class_path and init_args of the LightningModule, without options of training alone",
    "preprocessing": "how a picture becomes the tensor that the backbone receives",
    "backbone_preprocessing": "the normalisation that came with the backbone's first weights, as timm says it, or null",
    "trained_on": "the data set of its training, and the channels of its pictures, 1 or 3; null or absent: unknown",
    "temperature": "probabilities are softmax(logits / temperature); null means 1",
    "versions": "of the packages that wrote it",
}
"""What config.json holds."""
ADDED = ("trained_on", "feature_names")
"""Of these and of a saved classifier's, what files of earlier versions lack."""


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
    about = {
        "model": described_model(module),
        "preprocessing": asdict(preprocessing),
        "backbone_preprocessing": module.backbone.preprocessing,
        "trained_on": module.trained_on,
        "temperature": module.temperature,
    }
    write_described(folder, CONFIG, WEIGHTS, about, state)
    card = model_card(about["model"]["init_args"], preprocessing, license=license, results=results)
    (folder / CARD).write_text(card, encoding="utf-8")


def write_described(
    folder: Path, description: str, weights: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write tensors into a folder, and JSON about them, which gets the format, the library and the versions too.

    Args:
        folder: where; it is there.
        description: the name of the JSON file.
        weights: the name of the file of tensors.
        about: what it says, all numbers finite.
        tensors: by name.
    """
    whole = {"format": FORMAT, "library_name": LIBRARY, **about, "versions": versions()}
    text = json.dumps(whole, indent=2, allow_nan=False, ensure_ascii=False)
    # a name that is no Unicode text, as of a folder that was named in another encoding, becomes an escape of JSON
    (folder / description).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    (folder / weights).write_bytes(safetensors.torch.save(plain, metadata={"format": "pt"}))


def read_described(
    folder: Path, description: str, weights: str, keys: Collection[str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `write_described` wrote: what the JSON says, and the tensors.

    Args:
        folder: where.
        description: the name of the JSON file.
        weights: the name of the file of tensors.
        keys: of the JSON; it has all of them and no others.

    Raises:
        FileNotFoundError: one of the two files is not there.
        ValueError: one that is damaged, altered, of another library or of another format; says which and what.
    """
    for name in (description, weights):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}; what is saved has {description} and {weights}")
    file = folder / description
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        json.dumps(about, allow_nan=False)  # numbers are finite
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON as it was saved: {error}") from error
    if not isinstance(about, dict) or about.get("library_name") != LIBRARY:
        raise ValueError(f"{file} is not of this package: its library_name is not '{LIBRARY}'")
    if about.get("format") != FORMAT:
        raise ValueError(
            f"{file} has the format {about.get('format')!r} and this fewshot reads {FORMAT}; take the fewshot that "
            "wrote it, or save it again"
        )
    faults = [f"missing '{key}'" for key in keys if key not in about and key not in ADDED]
    faults += [f"superfluous '{key}'" for key in about if key not in keys]
    if faults:
        raise ValueError(f"{file} is damaged or altered: {'; '.join(faults)}")
    return about, read_checkpoint(folder / weights)


def described_model(module: FewShotModule) -> dict[str, Any]:
    """The module's class_path and init_args, without options of training and without where weights came from."""
    warn_of_changes(module.method, module.made_with)
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
    config, state = read_described(folder, CONFIG, WEIGHTS, KEYS)
    try:
        check_facts(config["temperature"], config["backbone_preprocessing"], config.get("trained_on"))
        preprocessing = constructed(config["preprocessing"], Preprocessing, packages=(), name="preprocessing")
        module = module_from_description(config["model"], FewShotModule, state, packages=packages)
        if (found := preprocessing.channels) != (taken := module.backbone.in_chans):
            raise ValueError(f"preprocessing.channels is {found} but the backbone takes {taken}")
    except (ValueError, TypeError, AttributeError) as error:  # the latter two from constructors given strange values
        raise ValueError(f"{folder / CONFIG} does not describe a model: {error}") from error
    load_state(module, state, source=str(folder / WEIGHTS))
    module.temperature, module.pictures = config["temperature"], asdict(preprocessing)
    module.trained_on = config.get("trained_on")
    module.backbone.preprocessing = config["backbone_preprocessing"]
    return module.eval(), preprocessing


def plain_backbone(module: FewShotModule) -> Any:
    """The module's backbone in evaluation mode, not translated by torch.compile."""
    config, backbone = module.backbone_config, module.backbone
    if config.compile:
        backbone = replace(config, compile=False, pretrained=False, weights=None).create()
        backbone.load_state_dict(module.backbone.state_dict())
    return backbone.eval()


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
    if not is_of_few_shot_module(content):
        raise ValueError(
            f"{file} is no checkpoint of FewShotModule; give weights of a backbone as backbone and weights, with a "
            "method that needs no training"
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
