"""Weight files: where they are, what is in them, and putting them into a network without a silent gap."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

_BEST = Path("checkpoints") / "best.ckpt"
_HEADS = ("fc", "classifier", "head", "heads", "head_dist")


def resolve_weights(path: str | os.PathLike[str]) -> Path:
    """The weight file that `path` stands for.

    A file stands for itself. A run's folder (`runs/<experiment>/version_3`) stands for its checkpoints/best.ckpt, an
    experiment's folder (`runs/<experiment>`) for that of its newest version which has one, and a downloaded
    model's folder for its model.safetensors. `~` and environment variables are expanded.

    Raises:
        FileNotFoundError: nothing is there; says where it looked.
    """
    asked = Path(os.path.expandvars(os.path.expanduser(os.fspath(path))))
    if asked.is_file():
        return asked
    looked = [asked]
    if asked.is_dir():
        numbered = [(re.fullmatch(r"version_(\d+)", folder.name), folder) for folder in asked.iterdir()]
        versions = [folder for _, folder in sorted((int(match[1]), folder) for match, folder in numbered if match)]
        looked = [asked / _BEST, asked / "best.ckpt", asked / "model.safetensors"]
        looked += [folder / _BEST for folder in reversed(versions)] or [asked / "version_*" / _BEST]
        for candidate in looked:
            if candidate.is_file():
                logger.info("weights %s: using %s", path, candidate)
                return candidate
    raise FileNotFoundError(
        f"weights '{os.fspath(path)}' not found; looked for {', '.join(map(str, looked))}. If a pre-training run is "
        "to write them, run its config first (python -m fewshot fit --config <the pre-training config>)"
    )


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a weight file holds, unpickling nothing but tensors and plain containers.

    `.safetensors` is read as such, anything else by `torch.load(weights_only=True)`.

    Raises:
        FileNotFoundError: as `resolve_weights`.
        ValueError: the file is damaged, holds code or other objects, or holds no dictionary.
    """
    file = resolve_weights(path)
    try:
        if zipfile.is_zipfile(file):  # torch itself does not compare checksums
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"the checksum of its part {damaged} is wrong")
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(file)
        else:
            with warnings.catch_warnings():  # what torch warns of in a file that it then refuses
                warnings.simplefilter("ignore")
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle, zipfile and safetensors raise a dozen types for a bad file
        raise ValueError(f"weight file {file} cannot be read: {reading_fault(error)}") from None
    if not isinstance(content, Mapping):
        raise ValueError(f"weight file {file} holds a {type(content).__name__}; expected a dictionary of tensors")
    return dict(content)


def reading_fault(error: Exception) -> str:
    """Why a weight file cannot be read, and what to do, from what its reader raised.

    torch's own words are not repeated where it refuses code: they tell how to have it executed.
    """
    if found := re.search(r"(?:GLOBAL|global:?) `?([\w.]+\.[\w.]+)", str(error)):
        return (
            f"it asks for {found[1]}, which is more than tensors and plain containers and is never executed; save the "
            "weights alone (torch.save(model.state_dict(), file)), and be wary of where it comes from"
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if type(error).__name__ == "UnpicklingError":
        reason = "a pickle of something else"
    return (
        f"it is damaged or incomplete, or holds more than tensors and plain containers, which is never executed "
        f"({type(error).__name__}: {reason}); copy or download it again, or name another file"
    )


def state_dict_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The weights inside what a file holds: itself, or its entry 'state_dict' or 'model', without the prefixes of
    torch.compile ('_orig_mod.') and DistributedDataParallel ('module.').
    """
    for name in ("state_dict", "model"):
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    state = {key.replace("_orig_mod.", ""): value for key, value in content.items()}
    while state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def timm_config_beside(file: Path) -> dict[str, Any] | None:
    """The pretrained configuration of a config.json beside the weight file, as timm writes it; None without one."""
    return _config_beside(file).get("pretrained_cfg")


def saved_model_beside(file: Path) -> dict[str, Any] | None:
    """What a checkpoint would say of the backbone, where the weight file is that of a saved model of this package.

    Returns `hyper_parameters`, `preprocessing` and `pictures`, see `fewshot.saved_model`; None for any other file.
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
    except ValueError as error:
        raise ValueError(f"{config}, beside the weight file {file.name}, is not valid JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def load_backbone_weights(network: nn.Module, state: Mapping[str, Any], *, source: str) -> None:
    """Put `state` into `network`, every entry of it.

    Of a checkpoint of PretrainModule or FewShotModule the entries under 'backbone.' are taken; classifier layers of
    timm's files are left out; older layouts that timm knows for the architecture are translated by its own function.

    Args:
        network: any timm network, built with num_classes=0.
        state: names and tensors, as `state_dict_of` gives them.
        source: what errors call the file.

    Raises:
        ValueError: entries are missing, superfluous, misshapen or not finite; all are named.
    """
    wanted = network.state_dict()
    state = dict(state)
    if any(key.startswith("backbone.") for key in state) and not any(key.startswith("backbone.") for key in wanted):
        state = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
        state = {key.removeprefix("module."): value for key, value in state.items()}
    state = _without_head(state, network)
    if state_faults(wanted, state):
        translate = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
        if translate is not None:
            try:
                translated = _without_head(dict(translate(dict(state), network)), network)
            except Exception:  # not a layout it knows: the names as they stand tell more
                translated = state
            state = translated if len(state_faults(wanted, translated)) < len(state_faults(wanted, state)) else state
    load_strictly(network, state, source=source)


def load_strictly(
    network: nn.Module, state: Mapping[str, Any], *, source: str, names: Mapping[str, str] | None = None
) -> None:
    """Put exactly `state` into `network`; ValueError names every entry missing, superfluous, misshapen or not finite.

    Batch-norm counters (num_batches_tracked), which older files lack and nothing uses, may be missing.

    Args:
        network: the network to fill.
        state: tensors under the network's own names.
        source: what errors call the file.
        names: what errors call the network's entries, where the file had other names for them.
    """
    faults = state_faults(network.state_dict(), state, names or {})
    if faults:
        listed = "; ".join(faults[:12]) + (f"; and {len(faults) - 12} more" if len(faults) > 12 else "")
        raise ValueError(f"{source} does not fit {type(network).__name__}: {listed}")
    network.load_state_dict(dict(state), strict=False)


def _without_head(state: dict[str, Any], network: nn.Module) -> dict[str, Any]:
    declared = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or ()
    heads = {*_HEADS, *([declared] if isinstance(declared, str) else declared)}
    wanted = network.state_dict().keys()
    return {
        key: value
        for key, value in state.items()
        if key in wanted or not any(key.startswith(f"{head}.") for head in heads)
    }


def state_faults(
    wanted: Mapping[str, Tensor], state: Mapping[str, Any], names: Mapping[str, str] | None = None
) -> list[str]:
    """Every entry of `state` that is missing, superfluous, misshapen or not finite, in words; arguments as of
    `load_strictly`.
    """
    called = {key: (names or {}).get(key, key) for key in wanted}
    faults = [
        f"missing '{called[key]}' {list(value.shape)}"
        for key, value in wanted.items()
        if key not in state and not key.endswith("num_batches_tracked")
    ]
    for key, value in state.items():
        if key not in wanted:
            faults.append(f"superfluous '{key}'")
        elif not isinstance(value, Tensor):
            faults.append(f"'{called[key]}' is a {type(value).__name__}, not a tensor")
        elif value.shape != wanted[key].shape:
            faults.append(f"misshapen '{called[key]}' {list(value.shape)}, expected {list(wanted[key].shape)}")
        elif value.is_floating_point() and not bool(value.isfinite().all()):
            faults.append(f"'{called[key]}' holds values that are not finite")
    return faults
