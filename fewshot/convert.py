"""python -m fewshot convert: checkpoints of the original SIB program (arXiv 2004.12696) as ours."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning
import torch

from fewshot.aside import check_place
from fewshot.backbones.config import BackboneConfig
from fewshot.backbones.weights import read_checkpoint, state_faults
from fewshot.backbones.wrn28_10 import SMALL_IMAGES
from fewshot.data.transforms import Preprocessing
from fewshot.interop import sib_from_original, wide_resnet_from_original
from fewshot.methods import Method, NearestClassMean
from fewshot.module import FewShotModule
from fewshot.noise import quietened
from fewshot.refusals import Parser, add_switch
from fewshot.saved_model import save_trained

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


def parser() -> Parser:
    """The options of convert."""
    made = Parser(
        prog="python -m fewshot convert",
        description="Turn netSIB*.pth (or netFeat*.pth, a backbone alone) of the original SIB program into a "
        "checkpoint that test, predict and export take. A backbone alone becomes the nearest class mean on it, and "
        "serves as model.backbone.weights.",
    )
    made.add_argument("original", type=str, help="The original's file.")
    made.add_argument("--output", type=str, required=True, help="A .ckpt file, or a folder for a saved model.")
    add_switch(made, "--overwrite", help="Replace what is there.")
    made.add_argument("--features", type=str | None, default=None, help="netFeat*.pth, where netSIB*.pth holds none.")
    made.add_argument(
        "--dataset",
        type=Literal[tuple(SETS)] | None,  # type: ignore[valid-type]
        default=None,
        help="Whose picture size and normalisation in the original program hold; or give --image_size, --mean, --std.",
    )
    made.add_argument("--image_size", type=int | None, default=None, help="Side of the pictures in pixels.")
    made.add_argument("--stored_size", type=int | None, default=None, help="Side before the crop; null: image_size.")
    made.add_argument("--mean", type=list[float] | None, default=None, help="Per channel, of intensities in 0..1.")
    made.add_argument("--std", type=list[float] | None, default=None, help="Per channel, of intensities in 0..1.")
    made.add_argument("--backbone", type=str, default="wrn28_10", help="timm's name of a WideResNet of this package.")
    return made


def run(arguments: list[str]) -> None:
    """Write the checkpoint and say what it is.

    Args:
        arguments: those after `convert`.

    Raises:
        Exception: of any kind; `fewshot.refusals.refusal_of` tells those that a person can mend.
    """
    with quietened(training=False):
        given = parser().parse_args(arguments)
        preprocessing = asked_preprocessing(
            given.dataset, given.image_size, given.stored_size, mean=given.mean, std=given.std
        )
        output = Path(given.output).expanduser()
        is_file = output.suffix == ".ckpt"
        check_place(output.resolve())
        if is_file and output.is_dir():
            raise ValueError(f"{output} is a folder; name a .ckpt file")
        if is_file and output.exists() and not given.overwrite:
            raise ValueError(f"{output} is there already; name another file, or allow overwriting it (--overwrite)")
        module = module_from_original(given.original, given.features, preprocessing, backbone=given.backbone)
        if is_file:
            write_checkpoint(module, output)
        else:
            save_trained(module, preprocessing, output, overwrite=given.overwrite)
    method = type(module.method).__name__
    print(f"written to {output}: {method} on {given.backbone}, pictures of {preprocessing.image_size} px")
    if is_file:
        print(
            "test it by a config of the same method and backbone: python -m fewshot test --config CONFIG --ckpt_path "
            f"{output}"
        )


def asked_preprocessing(
    dataset: str | None,
    image_size: int | None,
    stored_size: int | None = None,
    *,
    mean: list[float] | None,
    std: list[float] | None,
) -> Preprocessing:
    """How pictures become tensors, by a data set of the original program or as given.

    Raises:
        ValueError: neither or both are given.
    """
    own = {"image_size": image_size, "mean": mean, "std": std}
    missing = [name for name, value in own.items() if value is None]
    if dataset is not None:
        if len(missing) < len(own) or stored_size is not None:
            raise ValueError(
                f"dataset={dataset} says size and normalisation; leave image_size, stored_size, mean and std out, or it"
            )
        return SETS[dataset]
    if image_size is None or mean is None or std is None:
        raise ValueError(
            f"the file does not say how its pictures became tensors, and {', '.join(missing)} not given; give "
            f"--dataset {' or '.join(SETS)}, or all of --image_size, --mean and --std"
        )
    stored_size = image_size if stored_size is None else stored_size
    return Preprocessing(image_size, stored_size, mean=tuple(mean), std=tuple(std), channels=len(mean))


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
    if "SIB" not in content and features is not None:
        raise ValueError(f"{original} holds no SIB, so that it is a backbone itself; leave --features out")
    if "SIB" in content and isinstance(content.get("netFeat"), Mapping) and features is not None:
        raise ValueError(f"{original} holds a backbone itself; leave --features out")
    if "SIB" in content and not isinstance(content.get("netFeat"), Mapping) and features is None:
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
    method: Method = sib_from_original(original).float() if "SIB" in content else NearestClassMean()
    initializer: Any = getattr(method, "initializer", None)
    if initializer is not None and initializer.weight.numel() != network.num_features:
        raise ValueError(
            f"SIB of {original} is for features of {initializer.weight.numel()} numbers but the backbone of {source} "
            f"gives {network.num_features}"
        )
    module = FewShotModule(method, config)
    module.backbone.load_state_dict(network.state_dict())
    module.pictures = module.backbone.preprocessing = asdict(preprocessing)
    return module.eval()


def write_checkpoint(module: FewShotModule, file: Path) -> None:
    """Write a checkpoint as Lightning does, without a state of training; aside, then renamed."""
    checkpoint: dict[str, Any] = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": pytorch_lightning.__version__,
        "state_dict": module.state_dict(),
        "hparams_name": "kwargs",
        "hyper_parameters": dict(module.hparams),
    }
    module.on_save_checkpoint(checkpoint)
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{secrets.token_hex(4)}.partial")
    try:
        torch.save(checkpoint, aside)
        os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)
