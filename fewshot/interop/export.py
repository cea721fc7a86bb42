"""A trained model as a folder of graphs (ONNX, torch.export), and a manifest that says how they are used."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
import yaml

from fewshot.data.pictures import LARGER
from fewshot.data.transforms import Preprocessing
from fewshot.interop import graphs
from fewshot.training.saved_model import Trained, plain_backbone
from fewshot.training.versions import versions

PROGRAM, BACKBONE, HEAD, MANIFEST = "backbone.pt2", "backbone.onnx", "head.onnx", "manifest.json"
MANIFEST_FORMAT = 1


def write_graphs(trained: Trained, folder: Path, formats: list[str], n_way: int | None) -> dict[str, Any]:
    """Write the graphs that are asked for, each checked against PyTorch; returns the manifest.

    Raises:
        ValueError: the backbone cannot be exported, or gives something else; a number of ways that is not the method's.
    """
    module, preprocessing = trained.module, trained.preprocessing
    backbone, method, size = plain_backbone(module), module.method, preprocessing.image_size
    if backbone.image_size != size and not backbone.takes_any_size:
        raise ValueError(f"the backbone is built for {backbone.image_size} px but pictures become {size} px")
    temperature = 1.0 if module.temperature is None else float(module.temperature)
    about: dict[str, Any] = {"left_out": graphs.head_refusal(method) if "onnx" in formats else "not asked for"}
    n_way = ways(trained, n_way) if about["left_out"] is None else None
    opset = None
    program: Any = graphs.backbone_program(backbone, size) if formats else None
    if "pt2" in formats:
        content = io.BytesIO()  # torch's own writer ends the process where the disk is full
        torch.export.save(program, content)
        (folder / PROGRAM).write_bytes(content.getbuffer())
        loaded = torch.export.load(folder / PROGRAM).module()
        graphs.check_backbone(backbone, loaded, image_size=size, what=PROGRAM)
    if "onnx" in formats:
        opset = graphs.save_onnx(
            program, folder / BACKBONE, inputs=["pictures"], outputs=["features"], what="the backbone"
        )
        session = graphs.onnx_session(folder / BACKBONE)
        graphs.check_backbone(
            backbone, lambda pictures: session(pictures=pictures.numpy())[0], image_size=size, what=BACKBONE
        )
        if n_way is not None:
            about = write_head(graphs.Head(method, n_way, temperature), backbone.num_features, folder)
    return {
        "format": MANIFEST_FORMAT,
        "model": {"backbone": module.backbone_config.name, "method": type(method).__name__},
        "n_features": backbone.num_features,
        "temperature": temperature,
        "preprocessing": {**preprocessing.of_evaluation(), "steps": steps(preprocessing)},
        "backbone": {
            "input": {"pictures": ["B", preprocessing.channels, size, size]},
            "output": {"features": ["B", backbone.num_features]},
            "dtype": "float32",
            "opset": opset,
        },
        "head": about,
        "files": {path.name: sha256(path) for path in sorted(folder.iterdir())},
        "versions": versions(),
    }


def write_head(head: graphs.Head, n_features: int, folder: Path) -> dict[str, Any]:
    """Write head.onnx; returns what the manifest says of it, which is why it was left out where that fails."""
    n_way, path = head.n_way, folder / HEAD
    try:
        opset = graphs.save_onnx(
            graphs.head_program(head, n_features),
            path,
            inputs=["support", "support_labels", "query"],
            outputs=["probabilities", "probabilities_before"],
            what="the head",
        )
        graphs.check_head(head, n_features, graphs.onnx_session(path))
    except ValueError as error:
        path.unlink(missing_ok=True)
        return {"left_out": f"{type(head.method).__name__}: {error}"}
    return {
        "n_way": n_way,
        "n_steps": head.method.evaluation_steps,
        "labels": f"numbers 0..{n_way - 1}: column c of the probabilities is the class that support_labels call c; "
        "every class has at least one support picture",
        "input": {
            "support": ["S", n_features],
            "support_labels": ["S"],
            "query": ["Q", n_features],
        },
        "output": {"probabilities": ["Q", n_way], "probabilities_before": ["Q", n_way]},
        "outputs": "softmax(logits / temperature) after the last refinement step, and before the first",
        "dtype": {"support_labels": "int64", "else": "float32"},
        "opset": opset,
        "queries": "classified jointly: which other queries there are may change a prediction",
        "most_queries": head.method.most_together,
    }


def ways(trained: Trained, asked: int | None) -> int:
    """The number of ways of the head: the one asked for, the method's only one, or the run's.

    Raises:
        ValueError: the method serves another number alone, or nothing says one.
    """
    method = trained.module.method
    if asked is not None:
        if asked < 2:
            raise ValueError(f"n_way={asked}; a head tells at least 2 classes apart")
        if method.n_way not in (None, asked):
            raise ValueError(f"n_way={asked} but the method serves {method.n_way} ways alone; leave n_way out")
        return asked
    if method.n_way is not None:
        return method.n_way
    config = trained.file.parent.parent / "config.yaml"
    try:
        found = yaml.safe_load(config.read_text(encoding="utf-8"))["data"]["init_args"]["n_way"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        found = None
    if not isinstance(found, int):
        raise ValueError(
            f"{type(method).__name__} serves any number of classes and no config beside {trained.file} says one; "
            "give --n_way"
        )
    return found


def steps(preprocessing: Preprocessing, *, normalised: bool = True) -> list[str]:
    """What happens to a picture, in order, in words that a program in another language can follow.

    Args:
        preprocessing: how it becomes a tensor.
        normalised: whether that is what is handed over; else it is the stored picture, and the graph does the rest.
    """
    size, stored = preprocessing.image_size, preprocessing.stored_size
    colours = "grey (0.299 R + 0.587 G + 0.114 B)" if preprocessing.channels == 1 else "RGB"
    antialiased = " (antialiased: the filter is as much wider as the picture is larger, as in Pillow)"
    antialiased = "" if preprocessing.interpolation == "nearest" else antialiased
    margin = round((stored - size) / 2)
    reversed_ = " Reverse the intensities: 255 less each." if preprocessing.invert else ""
    first = [
        "Decode, a JPEG at the least of a half, a quarter or an eighth of its size whose sides have "
        f"{LARGER * stored} px or more, all else whole, to 8 bits a channel (16-bit grey: divide by 257 and round); "
        "turn it upright as its EXIF orientation says; of an animation, the first frame.",
        f"Put transparent parts on white and convert to {colours}, {preprocessing.channels} channel(s).{reversed_}",
        "Cut the largest square out of the middle (the same margin, also of half a pixel, on both sides).",
        f"Resize that square to {stored} x {stored} px with {preprocessing.interpolation} interpolation{antialiased}, "
        "and round to 8 bits; nothing if it has that size already.",
    ]
    last = "Order the numbers as [channel, row, column], the top row first; pictures follow each other in the batch."
    if not normalised:
        return [*first, last]
    return [
        *first,
        f"Keep {size} x {size} px, leaving out the first {margin} rows and columns."
        if stored > size
        else f"Nothing is cropped: {stored} px is the size of the input.",
        "Divide by 255, subtract `mean` and divide by `std`, channel by channel, in float32.",
        last,
    ]


def sha256(path: Path) -> str:
    """Of a file's content, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
