"""python -m fewshot convert: checkpoints of the original SIB program (arXiv 2004.12696) as ours."""

from __future__ import annotations

from typing import Literal

from fewshot.commands.parser import Parser, add_switch
from fewshot.commands.process import quietened
from fewshot.data.transforms import Preprocessing
from fewshot.files import check_place, expanded
from fewshot.interop.original import SETS, module_from_original, write_checkpoint
from fewshot.training.saved_model import save_trained


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
        Exception: of any kind; `fewshot.commands.refusals.refusal_of` tells those that a person can mend.
    """
    with quietened(training=False):
        given = parser().parse_args(arguments)
        preprocessing = asked_preprocessing(
            given.dataset, given.image_size, given.stored_size, mean=given.mean, std=given.std
        )
        output = expanded(given.output)
        is_file = output.suffix == ".ckpt"
        if output.suffix in (".pth", ".pt", ".safetensors", ".bin"):
            raise ValueError(f"output={given.output}; name a .ckpt file, or a folder for a saved model")
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
