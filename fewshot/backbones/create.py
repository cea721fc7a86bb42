"""Backbones: pictures [B, C, H, W] to features [B, D], by the name of any timm model.

conv4, conv4_32, conv4_128, resnet12, resnet12_narrow and wrn28_10 are not in timm; importing this package registers
them there.
"""

from __future__ import annotations

import difflib
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from fewshot.backbones.checkpoint_file import read_checkpoint, saved_model_beside, state_dict_of, timm_config_beside
from fewshot.backbones.weights import check_recorded, load_backbone_weights, on_the_hub
from fewshot.files import resolve_weights


def create_backbone(
    name: str,
    *,
    pretrained: bool = False,
    weights: str | os.PathLike[str] | None = None,
    in_chans: int = 3,
    image_size: int | None = None,
    compile: bool = False,
) -> nn.Module:
    """A network from pictures [B, in_chans, H, W] to features [B, D].

    It is the timm network itself, without its classifier, so its state dict has timm's names; a map or a sequence
    of tokens is averaged to [B, D]. It carries five more attributes:

    * `num_features`: D, measured by running one blank picture (timm's own figure is wrong for some families);
    * `in_chans`, and `image_size`: the side in pixels it was built for, as given or else the model's usual one;
    * `takes_any_size`: whether pictures of another size give features of the same D;
    * `preprocessing`: mean, std, interpolation, input_size and crop_pct as `timm.data.resolve_model_data_config`
      gives them, where the weights are published ones of timm's (`pretrained=True`, or a file of plain weights for
      one of timm's models); what a checkpoint of ours recorded under 'preprocessing'; otherwise None, and the data
      set's own holds.

    Args:
        name: any name in `timm.list_models()`; also those of this package.
        pretrained: fetch timm's published weights. Nothing else here uses the network.
        weights: a local file instead (.safetensors, .ckpt, .pth, .pt), or the folder of a run or experiment, see
            `resolve_weights`. Files are never unpickled beyond tensors and plain containers.
        in_chans: channels of the pictures.
        image_size: side of the pictures in pixels. Models that are built for one size (ViT, Swin, conv4) are built for
            this one, wrn28_10 chooses its strides by it, others only record it. None: the model's usual size.
        compile: let torch.compile translate the network when it is first called. The network remains what it is, and
            so do the names in its state dict.

    Raises:
        ValueError: no such model, pictures of that size are not possible, the weights do not fit, or there is no C++
            compiler for compile=True.
        FileNotFoundError: no weight file there.
    """
    if pretrained and weights is not None:
        raise ValueError(f"backbone '{name}': pretrained=True and weights='{weights}' given; choose one of them")
    if in_chans < 1 or (image_size is not None and image_size < 1):
        raise ValueError(f"backbone '{name}': in_chans={in_chans} and image_size={image_size}; both are at least 1")
    _check_name(name, pretrained)
    if compile:
        _check_compiler()
    file = None if weights is None else resolve_weights(weights)
    network = _build(name, pretrained, in_chans, image_size)
    config = getattr(network, "pretrained_cfg", None) or {}  # which a model of a person's own may lack
    usual = config.get("input_size") or (in_chans, 224, 224)
    size = int(usual[-1]) if image_size is None else image_size
    # Outside of what is compiled: what ran in a hook would be a graph of its own, for one mean.
    network.register_forward_hook(torch.compiler.disable(_to_vectors) if compile else _to_vectors)

    network.num_features = _measure_width(network, name, in_chans, size)
    network.in_chans = in_chans
    network.image_size = size
    network.takes_any_size = _takes(network, name, in_chans, size + 32)
    network.preprocessing = None
    if pretrained:
        network.preprocessing = _preprocessing(network, None, in_chans, size)
    if file is not None:
        _load(network, name, file)
    if compile:
        network.compile()  # in place: torch.compile(network) would put '_orig_mod.' before every name
    return network


def like_with_image_size(network: nn.Module, name: str, image_size: int) -> nn.Module:
    """A fresh network as `create_backbone` built this one by its name, but for pictures of another size in pixels."""
    return _build(name, False, network.in_chans, image_size)  # type: ignore[arg-type]


def _load(network: Any, name: str, file: Path) -> None:
    """Put the weights of a file into the network, and the preprocessing that comes with them."""
    content, source = read_checkpoint(file), f"weight file {file}"
    state, saved = state_dict_of(content), saved_model_beside(file)
    content |= saved or {}
    recorded = content.get("hyper_parameters")
    trained_at = check_recorded(
        recorded.get("backbone") if isinstance(recorded, Mapping) else None,
        network,
        name=name,
        source=source,
        build=partial(like_with_image_size, network, name),
    )
    if trained_at is not None:
        warnings.warn(
            f"{source} was trained on pictures of {trained_at} px; here they have {network.image_size} px", stacklevel=3
        )
    load_backbone_weights(network, state, source=source)
    network.preprocessing = content.get("preprocessing")
    ours = type(network).__module__.startswith("fewshot.") or saved is not None
    ours = ours or not getattr(network, "pretrained_cfg", None)
    beside = timm_config_beside(file)
    if beside is not None or not (ours or network.preprocessing or "pytorch-lightning_version" in content):
        network.preprocessing = _preprocessing(network, beside, network.in_chans, network.image_size)


def _check_name(name: str, pretrained: bool) -> None:
    if on_the_hub(name):
        if pretrained:
            return
        raise ValueError(
            f"backbone '{name}' lies on the network: set pretrained=True, or use a name of timm.list_models()"
        )
    if not timm.is_model(name):
        close = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=5, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}? " if close else ""
        raise ValueError(
            f"backbone '{name}' is not known; {hint}if it is your own, import the file that registers it with timm, or "
            "name its package by the option packages, where there is one; "
            "all names: python -c \"import fewshot.backbones, timm; print(*timm.list_models('*'))\""
        )
    if pretrained and not timm.is_model_pretrained(name):
        raise ValueError(
            f"backbone '{name}' has no published weights; use pretrained=False, with weights=<file> of your own, or a "
            "name from timm.list_models(pretrained=True)"
        )


def _check_compiler() -> None:
    """Raise ValueError where there is no C++ compiler, which torch.compile calls."""
    compilers = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "cl"]
    if not any(shutil.which(compiler) for compiler in compilers):
        raise ValueError(
            f"backbone.compile=true needs a C++ compiler but {' or '.join(compilers)} is not on the PATH; install one, "
            "name it in the environment variable CXX, or set backbone.compile=false"
        )


def _build(name: str, pretrained: bool, in_chans: int, image_size: int | None) -> Any:
    arguments: dict[str, Any] = {"num_classes": 0, "in_chans": in_chans}
    try:
        if image_size is not None:
            try:
                return timm.create_model(name, pretrained=pretrained, img_size=image_size, **arguments)
            except TypeError as error:  # a model that takes any size has no such argument
                if "img_size" not in str(error):
                    raise
        return timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:
        how = (
            "with timm's published weights (is the network there? a local file goes to weights=)" if pretrained else ""
        )
        size = "" if image_size is None else f" for {image_size} px"
        raise ValueError(
            f"backbone '{name}' cannot be built{size} {how}: {type(error).__name__}: {error}".replace(" : ", ": ")
        ) from error


def _to_vectors(network: nn.Module, _: Any, features: Any) -> Tensor:
    """Forward hook: whatever the network gives, as [B, D]. A hook keeps timm's names in the state dict."""
    if not isinstance(features, Tensor) or not 2 <= features.ndim <= 4:
        shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"{type(network).__name__} gives {shape}, which cannot be averaged to one vector a picture")
    if features.ndim == 4:
        channels_last = str(getattr(network, "output_fmt", "NCHW")) == "NHWC"
        return features.mean((1, 2) if channels_last else (2, 3))  # [B, D]
    if features.ndim == 3:
        prefix = int(getattr(network, "num_prefix_tokens", 0) or 0)
        return features[:, prefix:].mean(1)  # [B, D]
    return features


def _measure_width(network: nn.Module, name: str, in_chans: int, size: int) -> int:
    """D, by one blank picture in evaluation mode; random states, statistics and modes stay as they were."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            return int(network(torch.zeros(1, in_chans, size, size)).shape[1])
    except (RuntimeError, AssertionError, ValueError, IndexError, ZeroDivisionError) as error:
        raise ValueError(
            f"backbone '{name}' cannot take pictures of {in_chans} x {size} x {size} px: {error}; choose another "
            "image_size"
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training


def _takes(network: Any, name: str, in_chans: int, size: int) -> bool:
    """Whether pictures of that size give features of the network's width."""
    try:
        return _measure_width(network, name, in_chans, size) == network.num_features
    except ValueError:
        return False


def _preprocessing(network: nn.Module, config: dict[str, Any] | None, in_chans: int, size: int) -> dict[str, Any]:
    found = resolve_model_data_config(network, pretrained_cfg=config)
    return {**found, "input_size": (in_chans, size, size)}


@dataclass(frozen=True)
class BackboneConfig:
    """A timm backbone by name.

    Args:
        name: any name timm knows; those of this package are registered.
        pretrained: whether timm downloads its published weights; they bring their own size and normalisation.
        weights: a weight file, a checkpoint of PretrainModule, or a run folder (the newest version's best.ckpt).
        in_chans: channels of the pictures the backbone receives, 1 (grey) or 3 (RGB).
        image_size: side of the pictures in pixels; None takes the model's usual size.
        compile: whether torch.compile translates the network when it is first called, which takes up to minutes and
            pays off in long runs. Names in checkpoints stay as they are, so they serve with and without.
    """

    name: str = "conv4"
    pretrained: bool = False
    weights: str | None = None
    in_chans: int = 3
    image_size: int | None = None
    compile: bool = False

    def located(self) -> BackboneConfig:
        """The same with the weight file itself in place of the run folder that holds it, for the record."""
        return self if self.weights is None else replace(self, weights=str(resolve_weights(self.weights)))

    def create(self) -> nn.Module:
        """The backbone, from pictures [B, C, H, W] to features [B, D], in channels-last memory order."""
        return create_backbone(**vars(self)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
