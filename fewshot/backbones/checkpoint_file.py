"""What is in a weight file and beside it, read without unpickling anything but tensors and plain containers; and one
written whole or not at all.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from fewshot.backbones.checkpoint_limits import RefusedError, check_content, check_limits, check_sizes
from fewshot.files import WholeFile, resolve_weights


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a weight file holds, unpickling nothing but tensors and plain containers.

    `.safetensors` is read as such, anything else by `torch.load(weights_only=True)`.

    Raises:
        FileNotFoundError: as `resolve_weights`.
        ValueError: the file is damaged, holds code or other objects, or holds no dictionary.
    """
    file, sizes = resolve_weights(path), []

    def on_cpu(storage: Any, _: str) -> Any:
        sizes.append(storage.nbytes())
        return storage

    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(file)
        else:
            check_limits(file)
            with warnings.catch_warnings():  # what torch warns of in a file that it then refuses
                warnings.simplefilter("ignore")
                content = torch.load(file, map_location=on_cpu, weights_only=True)
            check_sizes(file, sizes)
        check_content(content)
    except Exception as error:  # torch, pickle, zipfile and safetensors raise a dozen types for a bad file
        raise ValueError(f"weight file {file} cannot be read: {reading_fault(error)}") from None
    if not isinstance(content, Mapping):
        raise ValueError(f"weight file {file} holds a {type(content).__name__}; expected a dictionary of tensors")
    return dict(content)


def reading_fault(error: Exception) -> str:
    """Why a weight file cannot be read, and what to do, from what its reader raised.

    torch's own words are not repeated where it refuses code: they tell how to have it executed.
    """
    if isinstance(error, RefusedError):
        return str(error)
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if type(error).__name__ == "UnpicklingError":
        reason = "a pickle of something else"
    return (
        f"it is damaged or incomplete, or holds more than tensors and plain containers, which is never executed "
        f"({type(error).__name__}: {reason}); copy or download it again, or name another file"
    )


def state_dict_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The weights inside what a file holds: itself, or an entry, as timm looks for it: averaged weights come first.

    They come without the prefixes of torch.compile ('_orig_mod.') and DistributedDataParallel ('module.').
    """
    for name in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    state = {str(key).replace("_orig_mod.", ""): value for key, value in content.items()}
    while state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def timm_config_beside(file: Path) -> dict[str, Any] | None:
    """The pretrained configuration of a config.json beside the weight file, as timm writes it; None without one."""
    found = _config_beside(file).get("pretrained_cfg")
    if not isinstance(found, (Mapping, type(None))):
        raise ValueError(f"the pretrained_cfg of {file.with_name('config.json')} is no mapping; remove it or that file")
    return None if found is None else dict(found)


def saved_model_beside(file: Path) -> dict[str, Any] | None:
    """What a checkpoint would say of the backbone, where the weight file is that of a saved model of this package.

    Returns `hyper_parameters`, `preprocessing` and `pictures`, see fewshot.training.saved_model;
    None for any other file.
    """
    config = _config_beside(file)
    model = config.get("model")
    if config.get("library_name") != "fewshot" or not isinstance(model, Mapping):
        return None
    return {
        "hyper_parameters": model.get("init_args"),
        "preprocessing": config.get("backbone_preprocessing"),
        "pictures": config.get("preprocessing"),
    }


def _config_beside(file: Path) -> dict[str, Any]:
    config = file.with_name("config.json")
    if not config.is_file():
        return {}
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{config}, beside the weight file {file.name}, is not valid JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def save_whole(path: Path, content: Any) -> None:
    """Write a file by torch.save, whole or not at all.

    Raises OSError where the disk fails, after torch has ended: its writer of zip files would turn an error of the disk
    into another one that does not tell the cause, or end the process.
    """
    with WholeFile(path, "wb") as file:
        unfailing = _Unfailing(file)
        torch.save(content, unfailing)
        if unfailing.error is not None:
            raise unfailing.error


class _Unfailing:
    """Takes bytes for a file, and keeps the first error of the disk instead of raising it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, content: Any) -> int:
        try:
            if self.error is None:
                self._file.write(content)
        except OSError as error:
            self.error = error
        return len(content)
