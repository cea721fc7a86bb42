"""Weights of a file in a network: whose they are, and every one of them in its place."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

LISTED = 3
"""Entries of a state dict that an error names, of each kind of fault."""
_HEADS = ("fc", "classifier", "head", "heads", "head_dist")


def load_backbone_weights(network: nn.Module, state: Mapping[str, Any], *, source: str) -> None:
    """Put `state` into `network`, every entry of it.

    Of a checkpoint of PretrainModule or FewShotModule the entries under 'backbone.' are taken; classifier layers of
    timm's files are left out; a prefix that all names have, such as 'model.' or 'encoder.', is taken off where they fit
    without it; older layouts that timm knows for the architecture are translated by its own function.

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
    prefix = next(iter(state), "").partition(".")[0] + "."
    if state_faults(wanted, state) and all(key.startswith(prefix) for key in state):
        within = _without_head({key.removeprefix(prefix): value for key, value in state.items()}, network)
        state = within if not state_faults(wanted, within) else state
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
    check_fits(network, state, source=source, names=names)
    network.load_state_dict(dict(state), strict=False)


def check_fits(
    network: nn.Module, state: Mapping[str, Any], *, source: str, names: Mapping[str, str] | None = None
) -> None:
    """The errors of `load_strictly`, and nothing else; the network may be without numbers."""
    faults = state_faults(network.state_dict(), state, names or {})
    if faults:
        raise ValueError(f"{source} does not fit {type(network).__name__}: {listed(faults)}")


def listed(faults: Sequence[str]) -> str:
    """The faults of `state_faults` in one line: of each kind the first few, and how many there are more."""
    kinds: dict[str, list[str]] = {}
    for fault in faults:
        kinds.setdefault(fault.split(" ")[0] if fault[0] != "'" else "", []).append(fault)
    return "; ".join(
        "; ".join(kind[:LISTED]) + (f" and {len(kind) - LISTED} more" if len(kind) > LISTED else "")
        for kind in kinds.values()
    )


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
    """Every entry of `state` that is missing, superfluous, misshapen, of another kind of number or not finite, in
    words; arguments as of `load_strictly`.
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
        elif fault := value_fault(value, wanted[key].dtype):
            faults.append(f"'{called[key]}' {fault}")
    return faults


def value_fault(value: Tensor, wanted: torch.dtype) -> str | None:
    """What is wrong with numbers that are to become a dtype, or None: the one check for every file."""
    found = value.dtype
    if (
        found.is_floating_point != wanted.is_floating_point
        or found.is_complex
        or (found == torch.bool) != (wanted == torch.bool)
    ):
        return f"holds {str(found).removeprefix('torch.')}, not {str(wanted).removeprefix('torch.')}"
    if found.is_floating_point and not bool(value.to(wanted).isfinite().all()):
        return "holds values that are not finite" + ("" if found == wanted else f" in {wanted}".replace("torch.", ""))
    return None


def check_recorded(
    recorded: Any, network: Any, *, name: str, source: str, build: Callable[[int], nn.Module]
) -> int | None:
    """Compare name, channels and image size; returns the recorded size where it differs and nothing depends on it.

    Args:
        recorded: hyper_parameters.backbone of a checkpoint; anything but a mapping says nothing.
        network: what `create_backbone` builds.
        name: of the network.
        source: what errors call the file.
        build: a network like this one for pictures of another size in pixels.

    Raises:
        ValueError: the weights are of another backbone, or of this one built for another size; names both.
    """
    if not isinstance(recorded, Mapping) or not isinstance(recorded.get("name"), str):
        return None
    theirs = recorded["name"]
    if not on_the_hub(theirs) and not on_the_hub(name) and without_tag(theirs) != without_tag(name):
        raise ValueError(
            f"{source} holds weights of backbone '{theirs}' but model.backbone.name is '{name}'; set it to '{theirs}', "
            f"or take weights of '{name}'"
        )
    channels, size = recorded.get("in_chans"), recorded.get("image_size")
    if isinstance(channels, int) and channels != network.in_chans:
        raise ValueError(
            f"{source} holds weights of '{theirs}' for pictures of {channels} channel(s) but model.backbone.in_chans "
            f"is {network.in_chans}; set it to {channels}"
        )
    size = usual_size(network) if size is None else size
    if not isinstance(size, int) or size == network.image_size:
        return None
    with torch.device("meta"):  # layers alone: nothing is computed
        same_layers = repr(build(size)) == repr(network)
    if same_layers and network.takes_any_size:
        return size
    raise ValueError(
        f"{source} holds weights of '{theirs}' for pictures of {size} px but model.backbone.image_size is "
        f"{network.image_size}, for which '{name}' is built otherwise; set it to {size}, or take weights trained at "
        f"{network.image_size} px"
    )


def on_the_hub(name: str) -> bool:
    """Whether a name is an address on the Hugging Face hub, which tells nothing of the architecture."""
    return name.startswith(("hf-hub:", "hf_hub:"))


def without_tag(name: str) -> str:
    """The architecture of a timm name: resnet18 of resnet18.a1_in1k."""
    return name.split(".")[0]


def usual_size(network: Any) -> int:
    """The side in pixels for which timm builds a network where none is asked for."""
    config = getattr(network, "pretrained_cfg", None) or {}
    return int((config.get("input_size") or (3, 224, 224))[-1])
