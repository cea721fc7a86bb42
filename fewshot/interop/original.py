"""Models of the original SIB program (published with arXiv 2004.12696) as ours."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch
from torch import Tensor

from fewshot.backbones import BackboneConfig, WideResNet
from fewshot.backbones.checkpoint_file import read_checkpoint, save_whole, state_dict_of
from fewshot.backbones.weights import check_fits, load_strictly, state_faults
from fewshot.backbones.wrn28_10 import SMALL_IMAGES, checkpoint_filter_fn, original_names
from fewshot.data.transforms import Preprocessing
from fewshot.methods import SIB, MLPGradient, NearestClassMean, ScaledClassMeans
from fewshot.training.few_shot_module import FewShotModule

_SIB_NAMES = {
    "scale": "scale_cls",
    "bias": "bias",
    "initializer.weight": "wnLayerFavg.weight",
    **{
        f"gradient.layers.{ours}.{kind}": f"dni.{original}.{kind}"
        for ours, original in ((0, "layer1.0"), (2, "layer1.2"), (3, "layer2.0"), (5, "layer2.2"), (6, "layer3"))
        for kind in ("weight", "bias")
    },
}


# statistics over past episodes, which the original program stores and never uses
_UNUSED = re.compile(r"dni\.layer[12]\.2\.(running_mean|running_var|num_batches_tracked)")
MAX_BLOCKS, MAX_WIDTH = 64, 32
"""Of a network of the original's kind: a small file could name one that no memory holds."""
_ENTRIES = ("SIB", "nbStep", "lr")


def sib_from_original(checkpoint: str | os.PathLike[str] | Mapping[str, Any]) -> SIB:
    """Our SIB with the weights, number of steps K and step size of a checkpoint of the original program.

    Its parameters are the original's and no others: the learned diagonal of the initialiser, scale and bias of the
    cosine classifier, and the gradient network for N ways. N, D, the hidden width and the number type follow the
    tensors.

    Args:
        checkpoint: a netSIB*.pth file, or what it holds: the state dict 'SIB', 'nbStep' (K), 'lr' (the step size, of
            the gradient summed over the queries), and perhaps 'netFeat', the backbone, which stays aside here: see
            `wide_resnet_from_original`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one that holds more than tensors and plain containers; entries that are missing,
            superfluous, misshapen or not finite, all by name.
    """
    content, source = _content(checkpoint, "SIB checkpoint")
    faults = [f"missing '{name}'" for name in _ENTRIES if name not in content]
    faults += [f"superfluous '{name}'" for name in content if name not in (*_ENTRIES, "netFeat")]
    if faults:
        raise ValueError(f"{source} is none of the original program, which has SIB, nbStep, lr: {'; '.join(faults)}")
    if not isinstance(content["SIB"], Mapping):
        raise ValueError(f"'SIB' of {source} is a {type(content['SIB']).__name__}; expected a dictionary of tensors")
    n_steps, step_size = _number(content, "nbStep", source), _number(content, "lr", source)
    if n_steps < 0 or n_steps != int(n_steps):
        raise ValueError(f"'nbStep' of {source} is {n_steps}; expected a number of steps, 0 or more")

    state = {key: value for key, value in state_dict_of(content["SIB"]).items() if not _UNUSED.fullmatch(key)}
    names = list(_SIB_NAMES.values())
    faults = [f"missing '{name}'" for name in names if name not in state]
    faults += [f"superfluous '{name}'" for name in state if name not in names]
    if faults:
        raise ValueError(f"'SIB' of {source} is not the original's: {'; '.join(faults)}")
    last, diagonal = _shaped(state, "dni.layer3.weight", 2, source), _shaped(state, "wnLayerFavg.weight", 1, source)
    n_way, width = last.shape
    if not n_way or width % n_way:
        raise ValueError(f"misshapen 'dni.layer3.weight' {[n_way, width]} of {source}; expected [N, 8 N] for N ways")
    method = SIB(
        initializer=ScaledClassMeans(n_features=diagonal.numel()),
        gradient=MLPGradient(n_way=n_way, expansion=width // n_way),
        n_steps=int(n_steps),
        step_size=step_size,
    )
    ours = {original: key for key, original in _SIB_NAMES.items()}
    for name in ("scale_cls", "bias"):  # one number each, stored as a vector of length one
        if isinstance(state.get(name), Tensor) and state[name].shape == (1,):
            state[name] = state[name][0]
    translated = {ours.get(key, key): value for key, value in state.items()}
    method.to(last.dtype)
    load_strictly(method, translated, source=source, names=_SIB_NAMES)
    return method


def wide_resnet_from_original(
    state_dict: str | os.PathLike[str] | Mapping[str, Any], *, small_images: bool
) -> WideResNet:
    """Our wide residual network with the original's weights, [B, C, H, W] -> [B, 64 * width].

    Depth, width, channels of the pictures and the number type follow the tensors. It comes in training mode.

    Args:
        state_dict: the original's state dict, or a checkpoint that holds it as 'netFeat' (netSIB*.pth), or a file of
            either.
        small_images: True for models trained on 32 px (stride 1 in the first group), False for 80 or 84 px
            (stride 2); the weights do not tell.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file; entries that are missing, superfluous, misshapen or not finite, all by name.
    """
    content, source = _content(state_dict, "wide ResNet weights")
    state = state_dict_of(content["netFeat"] if isinstance(content.get("netFeat"), Mapping) else content)
    first = _shaped(state, "block1.layer.0.conv1.weight", 4, source)
    width, rest = divmod(first.shape[0], 16)
    if rest or not width:
        raise ValueError(
            f"misshapen 'block1.layer.0.conv1.weight' {list(first.shape)} of {source}; expected [16 * width, 16, 3, 3]"
        )
    found = [re.match(r"block[123]\.layer\.(\d+)\.", key) for key in state]
    blocks = 1 + max(int(match[1]) for match in found if match)
    if blocks > MAX_BLOCKS or width > MAX_WIDTH:
        raise ValueError(
            f"{source} has {blocks} blocks a stage of width {width}; at most {MAX_BLOCKS} of {MAX_WIDTH} are built"
        )
    in_chans = _shaped(state, "conv1.weight", 4, source).shape[1]
    with torch.device("meta"):  # sizes alone, until it is known that the file has what fills them
        sizes = WideResNet(6 * blocks + 4, width, small_images=small_images, in_chans=in_chans).to(first.dtype)
    translated = checkpoint_filter_fn(state, sizes)
    check_fits(sizes, translated, source=source, names=original_names(sizes))
    network = WideResNet(6 * blocks + 4, width, small_images=small_images, in_chans=in_chans).to(first.dtype)
    load_strictly(network, translated, source=source, names=original_names(network))
    return network


def _content(checkpoint: str | os.PathLike[str] | Mapping[str, Any], what: str) -> tuple[dict[str, Any], str]:
    """What the file or mapping holds, and what errors call it."""
    if isinstance(checkpoint, Mapping):
        return dict(checkpoint), f"the {what}"
    return read_checkpoint(checkpoint), f"the {what} {os.fspath(checkpoint)}"


def _number(content: Mapping[str, Any], name: str, source: str) -> float:
    value = content[name]
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"'{name}' of {source} is {value!r}; expected one finite number")
    return value


def _shaped(state: Mapping[str, Any], name: str, dimensions: int, source: str) -> Tensor:
    """The tensor from which sizes are read; ValueError where it is missing or has another number of dimensions."""
    value = state.get(name)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        found = "missing" if value is None else "not a tensor of floating-point numbers"
        raise ValueError(f"'{name}' of {source} is {found}; expected a tensor of {dimensions} dimension(s)")
    if value.ndim != dimensions:
        raise ValueError(f"misshapen '{name}' {list(value.shape)} of {source}; expected {dimensions} dimension(s)")
    return value


SETS = {
    "mini_imagenet": Preprocessing(
        image_size=80,
        stored_size=84,
        mean=tuple(value / 255 for value in (120.39586422, 115.59361427, 104.54012653)),
        std=tuple(value / 255 for value in (70.68188272, 68.27635443, 72.54505529)),
        crop_padding=8,
        colour_jitter=0.4,
        flip=True,
    ),
    "cifar_fs": Preprocessing(
        image_size=32,
        stored_size=32,
        mean=tuple(value / 255 for value in (129.37731888, 124.10583864, 112.47758569)),
        std=tuple(value / 255 for value in (68.20947949, 65.43124043, 70.45866994)),
        crop_padding=4,
        colour_jitter=0.4,
        flip=True,
    ),
}
"""What the original program does to the pictures of its two data sets; means and deviations are its own."""


def module_from_original(
    original: str | os.PathLike[str],
    features: str | os.PathLike[str] | None,
    preprocessing: Preprocessing,
    *,
    backbone: str = "wrn28_10",
) -> FewShotModule:
    """The original's model: SIB on its backbone, or the nearest class mean on a backbone alone.

    Args:
        original: a netSIB*.pth or netFeat*.pth file.
        features: the backbone's file, where the first holds SIB alone.
        preprocessing: how its pictures become tensors.
        backbone: timm's name of the network.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file or one of another kind, no backbone or two, a backbone of other layers.
    """
    content = read_checkpoint(original)
    if "pytorch-lightning_version" in content:
        raise ValueError(f"{original} is no file of the original program but a checkpoint of Lightning")
    is_backbone = "SIB" not in content
    if features is not None and (is_backbone or isinstance(content.get("netFeat"), Mapping)):
        raise ValueError(f"{original} {'is' if is_backbone else 'holds'} a backbone itself; leave --features out")
    if features is None and not (is_backbone or isinstance(content.get("netFeat"), Mapping)):
        raise ValueError(f"{original} holds no backbone; give its netFeat*.pth by --features")
    source = original if features is None else features
    small = preprocessing.image_size <= SMALL_IMAGES
    network = wide_resnet_from_original(source, small_images=small).float()
    channels = network.conv1.in_channels
    if preprocessing.channels != channels:
        raise ValueError(f"mean has {preprocessing.channels} value(s) but the backbone takes {channels} channels")
    config = BackboneConfig(backbone, in_chans=channels, image_size=preprocessing.image_size)
    faults = state_faults(config.create().state_dict(), network.state_dict())
    if faults:
        raise ValueError(
            f"{source} holds a wide ResNet of depth {6 * len(network.block3) + 4} and width "
            f"{network.num_features // 64}, which '{backbone}' is not: {faults[0]}; name a backbone of those layers"
        )
    method: Any = NearestClassMean() if is_backbone else sib_from_original(original).float()
    wanted = network.num_features if is_backbone else method.initializer.weight.numel()
    if wanted != network.num_features:
        raise ValueError(
            f"SIB of {original} is for features of {wanted} numbers but the backbone of {source} gives "
            f"{network.num_features}"
        )
    module = FewShotModule(method, config)
    module.backbone.load_state_dict(network.state_dict())
    module.pictures = module.backbone.preprocessing = asdict(preprocessing)
    return module.eval()


def write_checkpoint(module: FewShotModule, file: Path) -> None:
    """Write a checkpoint as Lightning does, without a state of training."""
    checkpoint: dict[str, Any] = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": pytorch_lightning.__version__,
        "state_dict": module.state_dict(),
        "hparams_name": "kwargs",
        "hyper_parameters": dict(module.hparams),
    }
    module.on_save_checkpoint(checkpoint)
    save_whole(file, checkpoint)
