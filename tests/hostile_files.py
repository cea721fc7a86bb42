"""Hostile folders and data: saved models and classifiers, pictures, arrays, records of runs, archives."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hostile import CALL, EVIL, OWN, PICTURES, ROUTES, Attack, Calls, command, written
from hostile_weights import weight_files
from PIL import Image
from safetensors.torch import load_file, save_file

from fewshot import FewShotClassifier, FewShotModule
from fewshot.data.datasets import CIFARFS, ImageFolderSplits
from fewshot.data.feature_file import found_features
from fewshot.data.images import load_cached
from fewshot.data.pictures import open_picture, square_picture
from fewshot.data.transforms import Preprocessing
from fewshot.methods import NearestClassMean
from fewshot.training.saved_model import save_trained

SAVED = {name: ROUTES[name] for name in ("load_trained", "from_checkpoint", "classify")}


def model(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Path]:
    """A saved model whose config.json says something else."""

    def make(folder: Path) -> Path:
        module = FewShotModule.load_from_checkpoint("good.ckpt")
        save_trained(module.eval(), Preprocessing(**PICTURES), folder / "model")
        config = json.loads((folder / "model" / "config.json").read_text())
        change(config)
        (folder / "model" / "config.json").write_text(json.dumps(config))
        return folder / "model"

    return make


def replaced(name: str, content: bytes) -> Callable[[Path], Path]:
    """A saved model one of whose files is another."""

    def make(folder: Path) -> Path:
        place = model(lambda config: None)(folder)
        (place / name).write_bytes(content)
        return place

    return make


def in_init_args(**options: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda config: config["model"]["init_args"].update(options)


def in_method(**options: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda config: config["model"]["init_args"]["method"]["init_args"].update(options)


MODELS: dict[str, Callable[[Path], Path]] = {
    "a model of a stranger's class": model(lambda c: c["model"].update(class_path=f"{EVIL}.X")),
    "a model with a stranger's method": model(in_init_args(method=OWN)),
    "a model whose steps are a call": model(
        lambda c: c["model"]["init_args"]["method"]["init_args"].update(n_steps=CALL)
    ),
    "a model with ten million steps": model(
        lambda c: c["model"]["init_args"]["method"]["init_args"].update(n_steps=10**7)
    ),
    "a model on the network": model(
        in_init_args(backbone={"name": "hf-hub:timm/resnet18.a1_in1k", "in_chans": 3, "image_size": 16})
    ),
    "a model with large pictures": model(lambda c: c["preprocessing"].update(stored_size=10**6)),
    "a model with a backbone of large pictures": model(
        in_init_args(backbone={"name": "conv4_32", "in_chans": 3, "image_size": 10**5})
    ),
    "a model with a large backbone": model(
        in_init_args(backbone={"name": "vit_giant_patch14_224", "in_chans": 3, "image_size": None})
    ),
    "a model with a temperature of 1e-300": model(lambda c: c.update(temperature=1e-300)),
    "a model with a temperature that is text": model(lambda c: c.update(temperature="touch PWNED")),
    "a model with an unknown format": model(lambda c: c.update(format=10**9)),
    "a config that is nested without end": replaced("config.json", b'{"format":1,"model":' + b"[" * 100_000),
    "a config with a long number": replaced("config.json", b'{"format":' + b"9" * 100_000 + b"}"),
    "a config that is a list": replaced("config.json", b"[]"),
    "a config of bytes": replaced("config.json", bytes(range(256))),
    "weights of a model that are a pickle": replaced(
        "model.safetensors", pickle.dumps(Calls(os.system, "touch PWNED"))
    ),
    "weights of a model that are nothing": replaced("model.safetensors", b""),
}


def classifier(
    change: Callable[[dict[str, Any]], Any], tensors: dict[str, Any] | None = None
) -> Callable[[Path], Path]:
    """A saved classifier of feature rows that says something else."""

    def make(folder: Path) -> Path:
        rows = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
        made = FewShotClassifier(method=NearestClassMean()).fit(rows, ["a", "b", *[None] * 10])
        made.save(folder / "classifier")
        file = folder / "classifier" / "classifier.json"
        about = json.loads(file.read_text())
        change(about)
        file.write_text(json.dumps(about))
        if tensors:
            whole = load_file(folder / "classifier" / "classifier.safetensors")
            save_file({**whole, **tensors}, folder / "classifier" / "classifier.safetensors")
        return folder / "classifier"

    return make


CLASSIFIERS: dict[str, Callable[[Path], Path]] = {
    "a classifier with a stranger's method": classifier(lambda a: a.update(method=OWN)),
    "a classifier whose method is a call": classifier(lambda a: a.update(method=CALL)),
    "a classifier with a temperature of 1e-300": classifier(lambda a: a.update(temperature=1e-300)),
    "a classifier with a device that there is not": classifier(lambda a: a["options"].update(device="touch PWNED")),
    "a classifier with pictures that are text": classifier(lambda a: a["options"].update(batch_size="x")),
    "a classifier of a million classes": classifier(lambda a: a.update(classes=["x"] * 10**6)),
    "a classifier with nothing of a support": classifier(lambda a: None, {"support": torch.ones(())}),
    "a classifier with complex features": classifier(
        lambda a: None, {"probabilities": torch.ones(10, 2, dtype=torch.complex64)}
    ),
    "a classifier with labels beyond its classes": classifier(
        lambda a: None, {"support_labels": torch.full((1, 2), 10**12)}
    ),
}


def picture(file: Path) -> Any:
    return square_picture(open_picture(file), Preprocessing(16, 16, (0.5,) * 3, (0.5,) * 3), name=str(file))


def data_set(file: Path) -> Any:
    """The picture as that of a data set."""
    place = file.parent / "set" / "train" / "a"
    place.mkdir(parents=True)
    (place / file.name).symlink_to(file)
    return ImageFolderSplits(str(file.parent / "set"), 16).images("train").read(np.arange(1))


def bmp(width: int, height: int) -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    )


def image(name: str, content: Callable[[], Any], **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        made = content()
        (made if isinstance(made, Image.Image) else Image.fromarray(made)).save(folder / name, **options)
        return folder / name

    return make


def special(name: str, make: Callable[[Path], Any]) -> Callable[[Path], Path]:
    return lambda folder: (make(folder / name), folder / name)[1]


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(PWNED) (w) file\n%%EOF\n"
PICTURE_FILES: dict[str, Callable[[Path], Path]] = {
    "PostScript as a JPEG": written("x.jpg", POSTSCRIPT),
    "PostScript as a TIFF": written("x.tif", POSTSCRIPT),
    "SVG as a PNG": written(
        "x.png", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://localhost/"/></svg>'
    ),
    "a metafile as a JPEG": written("x.jpg", b"\xd7\xcd\xc6\x9a" + bytes(100)),
    "a pipe": special("x.jpg", os.mkfifo),
    "a link to /dev/zero": special("x.png", lambda path: path.symlink_to("/dev/zero")),
    "a link to itself": special("x.png", lambda path: path.symlink_to(path)),
    "a folder": special("x.jpg", os.mkdir),
    "a picture of 169 megapixels": image("x.png", lambda: Image.new("L", (13000, 13000))),
    "a picture of 80 megapixels, transparent": image(
        "x.png", lambda: Image.new("RGBA", (8900, 8900)), compress_level=1
    ),
    "a BMP that says 2 gigapixels": written("x.bmp", bmp(46000, 46000)),
    "a GIF that says 4 gigapixels": written(
        "x.gif", b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x00;"
    ),
    "a WebP that says 268 megapixels": written(
        "x.webp", b"RIFF\x1a\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x10\x00\x00\x00\xff\x3f\x00\xff\x3f\x00" + bytes(20)
    ),
    "a PPM that says a terapixel": written("x.ppm", b"P6 1000000 1000000 255\n"),
    "a file of 2 GiB": special("x.bmp", lambda path: (path.write_bytes(bmp(10, 10)), os.truncate(path, 2**31))),
    "half of a JPEG": lambda folder: (
        Image.new("RGB", (64, 64)).save(folder / "x.jpg"),
        os.truncate(folder / "x.jpg", 400),
        folder / "x.jpg",
    )[2],
    "a picture of one pixel": image("x.png", lambda: Image.new("RGB", (1, 1))),
    "CIELAB": image("x.tif", lambda: Image.new("LAB", (32, 32))),
    "floating-point numbers up to 255": image("x.tif", lambda: np.full((32, 32), 255, np.float32)),
    "no numbers": image("x.tif", lambda: np.full((32, 32), np.nan, np.float32)),
    "8 bits in 32": image("x.tif", lambda: np.full((32, 32), 200, np.int32)),
    "12 bits in 16": image("x.png", lambda: np.full((32, 32), 4000, np.uint16)),
}
MAY_BE_READ = ("a picture of 80 megapixels, transparent",)


def npy(header: bytes, content: bytes = b"") -> Callable[[Path], Path]:
    head = header + b" " * (-(len(header) + 11) % 64) + b"\n"
    return written("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content)


ARRAYS: dict[str, Callable[[Path], Path]] = {
    "an array of objects": special("x.npy", lambda path: np.save(path, np.array([Calls(os.system, "touch PWNED")]))),
    "an array with a call in its head": npy(b"__import__('os').system('touch PWNED')"),
    "an array that says terabytes": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000, 1000, 1000000)}"),
    "an array of the wrong numbers": npy(b"{'descr': '<i8', 'fortran_order': False, 'shape': (1, 1, 1)}", bytes(8)),
    "an array with a negative shape": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1, 1)}", bytes(4)),
    "an array that is nested without end": npy(b"(" * 60_000),
    "an empty array": written("x.npy", b""),
}


def cached(read: Callable[..., Any], shape: tuple[int, ...]) -> Callable[[Path], None]:
    def tell(file: Path) -> None:
        found = read(file, shape)
        if found is None or found is False:  # it would be made again
            raise ValueError("there is no such array")

    return tell


def record(name: str, content: bytes) -> Callable[[Path], Path]:
    """A run folder one of whose records is this."""

    def make(folder: Path) -> Path:
        place = folder / "runs" / "theirs" / "version_0"
        place.mkdir(parents=True)
        (place / "results.json").write_text('{"accuracy": 0.5, "data": "=cmd|A0"}')
        (place / name).write_bytes(content)
        return folder / "runs"

    return make


def results(folder: Path) -> None:
    command("results", str(folder), "--format", "csv")


RECORDS: dict[str, Callable[[Path], Path]] = {
    "results that are nested without end": record("results.json", b"[" * 100_000),
    "results that are a list": record("results.json", b"[1, 2]"),
    "results with a long number": record("results.json", b'{"accuracy": ' + b"9" * 10_000 + b"}"),
    "results of bytes": record("results.json", bytes(range(256))),
    "results that are text": record("results.json", b'{"accuracy": "=cmd", "n_way": [1], "episodes_sha256": 5}'),
    "a run.json that is a list": record("run.json", b"[[[]]]"),
}


def cifar(folder: Path) -> Path:
    place = folder / "cifar-100-python"
    place.mkdir()
    for name in ("train", "test", "meta"):
        (place / name).write_bytes(pickle.dumps(Calls(os.system, "touch PWNED")))
    return folder


def attacks() -> Iterator[Attack]:
    """Every file of the corpus."""
    yield from weight_files()
    for name, make in MODELS.items():
        yield Attack(f"saved model: {name}", make, SAVED)
    for name, make in CLASSIFIERS.items():
        yield Attack(f"saved classifier: {name}", make, {"load": FewShotClassifier.load})
    for name, make in PICTURE_FILES.items():
        yield Attack(f"picture: {name}", make, {"open": picture, "data set": data_set}, name not in MAY_BE_READ)
    for name, make in ARRAYS.items():
        yield Attack(
            f"array: {name}",
            make,
            {"features": cached(found_features, (1, 1)), "pictures": cached(load_cached, (1, 3, 16, 16))},
        )
    for name, make in RECORDS.items():
        yield Attack(f"records: {name}", make, {"results": results}, False)
    yield Attack("CIFAR-100 that is another pickle", cifar, {"images": lambda f: CIFARFS(str(f)).images("train")})
