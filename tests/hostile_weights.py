"""Hostile weight files: checkpoints that name code, pickles, archives, numbers and options that are none."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hostile import (
    CALL,
    EVIL,
    OPTIONS_OF_TRAINING,
    OWN,
    PICTURES,
    REFUSED,
    ROUTES,
    Attack,
    Calls,
    changed,
    checkpoint,
    weights,
    written,
)

from fewshot import PretrainModule
from fewshot.backbones import BackboneConfig
from fewshot.classification.encoder import encoder_of_backbone
from fewshot.data.transforms import Preprocessing
from fewshot.interop.original import module_from_original

STATES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no state": (lambda c: c.pop("state_dict"), "holds no options with weights"),
    "options that are a list": (lambda c: c.update(hyper_parameters=["method"]), "no checkpoint of FewShotModule"),
    "ten million steps": (
        lambda c: changed(c, "method.init_args.n_steps", 10_000_000),
        "n_steps=10000000 but a file may ask for 10000 at most",
    ),
    "a billion ways": (
        lambda c: changed(
            c,
            "method.init_args.gradient",
            {"class_path": "fewshot.methods.MLPGradient", "init_args": {"n_way": 10**9}},
        ),
        "n_way=1000000000 but a file may ask for 10000 at most",
    ),
    "more weights than the file": (
        lambda c: changed(
            c,
            "method.init_args.gradient",
            {"class_path": "fewshot.methods.MLPGradient", "init_args": {"n_way": 10_000}},
        ),
        "many more weights than the file",
    ),
    "large pictures": (
        lambda c: changed(c, "backbone.image_size", 10_000),
        "image_size=10000; a file may ask for",
    ),
    "no options": (lambda c: c.update(hyper_parameters=None), "no checkpoint of FewShotModule"),
    "a missing weight": (lambda c: c["state_dict"].pop("method.scale"), r"missing 'method\.scale'"),
    "a misshapen weight": (lambda c: c["state_dict"].update({"method.scale": torch.ones(3)}), "misshapen"),
    "a weight that is no tensor": (lambda c: c["state_dict"].update({"method.scale": 1}), "not a tensor"),
    "a weight that is not finite": (
        lambda c: c["state_dict"]["method.scale"].fill_(float("nan")),
        "values that are not finite",
    ),
    "integers for weights": (
        lambda c: c["state_dict"].update({"method.scale": torch.tensor(10)}),
        r"'method\.scale' holds int64, not float32",
    ),
    "complex weights": (
        lambda c: c["state_dict"].update({"method.scale": torch.tensor(1 + 1j)}),
        "holds complex64, not float32",
    ),
    "a weight beyond float32": (
        lambda c: c["state_dict"].update({"method.scale": torch.tensor(1e300, dtype=torch.float64)}),
        "values that are not finite in float32",
    ),
    "one number for many": (
        lambda c: c["state_dict"].update({"x": torch.zeros(1).expand(10**9)}),
        r"tensor of shape \[1000000000\] holds fewer numbers than it says",
    ),
    "a superfluous weight": (lambda c: c["state_dict"].update({"x": torch.ones(3)}), "superfluous 'x'"),
    "a temperature below 0": (lambda c: c.update(temperature=-1.0), "not a number in"),
    "a temperature near 0": (lambda c: c.update(temperature=1e-300), r"1e-300, not a number in 0\.0001\.\.10000"),
    "a temperature that is no number": (lambda c: c.update(temperature=float("nan")), "not a number in"),
    "a normalisation that is none": (lambda c: c.update(preprocessing=[1]), "normalisation .* is a list"),
}

CHECKPOINT = {
    name: ROUTES[name]
    for name in ("load_trained", "load_from_checkpoint", "from_checkpoint", "classify", "export", "compare")
}
WEIGHTS = {"weights": weights, "convert": lambda file: module_from_original(file, None, Preprocessing(**PICTURES))}


def saved(content: Any, name: str = "x.ckpt") -> Callable[[Path], Path]:
    """A file that torch.save writes."""

    def make(folder: Path) -> Path:
        torch.save(content() if callable(content) else content, folder / name)
        return folder / name

    return make


def altered(change: Callable[[dict[str, Any]], Any], kind: str = "few_shot") -> Callable[[Path], Path]:
    """A good checkpoint but for one thing."""

    def content() -> dict[str, Any]:
        made = checkpoint(kind)
        change(made)
        return made

    return saved(content)


def rezipped(change: Callable[[str, bytes], bytes], kind: int = zipfile.ZIP_STORED, twice: bool = False) -> Any:
    """A good checkpoint whose archive is packed anew."""

    def make(folder: Path) -> Path:
        torch.save(checkpoint(), folder / "good.ckpt")
        with zipfile.ZipFile(folder / "good.ckpt") as old, zipfile.ZipFile(folder / "x.ckpt", "w", kind) as new:
            for name in old.namelist():
                new.writestr(name, change(name, old.read(name)))
            if twice:
                new.writestr(f"{name.split('/')[0]}/./data.pkl", b"\x80\x02}.")
                new.writestr(f"{name.split('/')[0]}/data/0", bytes(9))
        return folder / "x.ckpt"

    return make


def pickled(operations: bytes) -> Callable[[Path], Path]:
    """A checkpoint whose pickle is this."""
    return rezipped(lambda name, content: b"\x80\x02" + operations if name.endswith("data.pkl") else content)


def more_numbers(name: str, content: bytes) -> bytes:
    """The pickle says of the first tensor that it has a hundred million numbers."""
    if not name.endswith("data.pkl"):
        return content
    place = content.index(b"K", content.index(b"cpu"))
    return content[:place] + b"J" + struct.pack("<i", 10**8) + content[place + 2 :]


def laughs() -> Any:
    """A list that holds a list twice, thirty times over."""
    value: Any = [OWN]
    for _ in range(30):
        value = [value, value]
    return value


def endless() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


BOMB = b"c__builtin__\nbytearray\nJ" + struct.pack("<i", 2 * 10**9) + b"\x85R."
PICKLES: dict[str, Callable[[Path], Path]] = {
    "os.system in a checkpoint": saved(lambda: {"state_dict": Calls(os.system, "touch PWNED")}),
    "os.system in an old checkpoint": lambda folder: (
        torch.save(Calls(os.system, "touch PWNED"), folder / "x.ckpt", _use_new_zipfile_serialization=False),
        folder / "x.ckpt",
    )[1],
    "os.system in a plain pickle": written("x.ckpt", pickle.dumps({"a": Calls(os.system, "touch PWNED")}, 2)),
    "os.system in a new pickle": written("x.ckpt", pickle.dumps({"a": Calls(os.system, "touch PWNED")}, 5)),
    "eval": pickled(b"c__builtin__\neval\nX\x0e\x00\x00\x00open('PWNED','w')\x85R."),
    "a module of a stranger's": pickled(f"c{EVIL}\nX\n)R.".encode()),
    "getattr": pickled(b"c__builtin__\ngetattr\nctorch\nhub\nX\x04\x00\x00\x00load\x86R."),
    "load from bytes": pickled(b"ctorch.storage\n_load_from_bytes\nC\x01.\x85R."),
    "bytearray of gigabytes": pickled(BOMB),
    "a tensor of gigabytes": pickled(b"ctorch\nFloatTensor\nJ" + struct.pack("<i", 2 * 10**9) + b"\x85R."),
    "a storage of gigabytes": pickled(b"ctorch.storage\nUntypedStorage\nJ" + struct.pack("<i", 2**31 - 1) + b"\x85R."),
    "encode": pickled(b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x06\x00\x00\x00utf-32\x86R."),
    "deep lists": pickled(b"}X\x10\x00\x00\x00hyper_parameters" + b"]" * 900 + b"a" * 899 + b"s."),
    "no end": pickled(b"(" * 100_000),
    "nothing on the stack": pickled(b"R."),
}
DAMAGED: dict[str, Callable[[Path], Path]] = {
    "an empty checkpoint": written("x.ckpt", b""),
    "random bytes": written("x.ckpt", np.random.default_rng(0).bytes(4096)),
    "text": written("x.ckpt", b"cos\nsystem\n(S'touch PWNED'\ntR."),
    "a zip without a pickle": written("x.ckpt", b"PK\x05\x06" + bytes(18)),
    "half of a checkpoint": lambda folder: (
        torch.save(checkpoint(), folder / "x.ckpt"),
        os.truncate(folder / "x.ckpt", 30_000),
        folder / "x.ckpt",
    )[2],
    "packed zeros": rezipped(
        lambda name, content: bytes(2**26) if name.endswith("/data/0") else content, zipfile.ZIP_DEFLATED
    ),
    "a packed checkpoint": rezipped(lambda name, content: content, zipfile.ZIP_DEFLATED),
    "tensors larger than their parts": rezipped(more_numbers),
    "safetensors with a long header": written("x.safetensors", struct.pack("<Q", 2**60) + b"{}"),
    "safetensors with a large shape": written(
        "x.safetensors",
        struct.pack("<Q", 67) + b'{"a":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,4]}}   ' + bytes(4),
    ),
    "a sparse tensor": saved(lambda: {"state_dict": {"a": torch.eye(3).to_sparse()}}),
    "a quantized tensor": saved(
        lambda: {"state_dict": {"a": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}}
    ),
    "a tensor without numbers": saved(lambda: {"state_dict": {"a": torch.empty(10**12, device="meta")}}),
    "names that are numbers": saved(lambda: {"state_dict": {1: torch.ones(3), None: torch.ones(2)}}),
    "a list": saved(lambda: [torch.ones(3)]),
}


def beside(content: bytes) -> Callable[[Path], Path]:
    """Weights with a config.json beside them."""

    def make(folder: Path) -> Path:
        torch.save(BackboneConfig("conv4_32", image_size=16).create().state_dict(), folder / "x.pth")
        (folder / "config.json").write_bytes(content)
        return folder / "x.pth"

    return make


def encoder(file: Path) -> Any:
    return encoder_of_backbone("conv4_32", weights=str(file), image_size=None)


BESIDE: dict[str, Callable[[Path], Path]] = {
    "a config beside, nested without end": beside(b"[" * 100_000),
    "a config beside, with a large picture": beside(
        b'{"pretrained_cfg": {"input_size": [3, 16, 16], "crop_pct": 1e-9, "mean": [0,0,0], "std": [1,1,1]}}'
    ),
    "a config beside, with text for numbers": beside(b'{"pretrained_cfg": {"mean": "abc", "std": "abc"}}'),
    "a config beside, that is a list": beside(b'{"pretrained_cfg": [1]}'),
}


def weight_files() -> Iterator[Attack]:
    """Every weight file of the corpus."""
    for name, (key, value) in REFUSED.items():
        yield Attack(f"checkpoint: {name}", altered(partial(changed, key=key, value=value)), CHECKPOINT)
    for name, value in OPTIONS_OF_TRAINING.items():
        reading = {way: CHECKPOINT[way] for way in ("load_trained", "from_checkpoint", "classify", "export")}
        yield Attack(f"checkpoint: {name}", altered(partial(changed, key=name, value=value)), reading, False)
        yield Attack(
            f"pre-training: {name}",
            altered(partial(changed, key=name, value=value), "pretrain"),
            {"load_from_checkpoint": PretrainModule.load_from_checkpoint},
        )
    for name, value in (("optimizer", OWN), ("rotation", OWN), ("mixup", CALL), ("_class_path", f"{EVIL}.X")):
        change = partial(changed, key=name, value=value)
        yield Attack(f"weights of a pre-training: {name}", altered(change, "pretrain"), WEIGHTS, False)
    yield Attack("pretrained", altered(partial(changed, key="backbone.pretrained", value=True)), reading, False)
    for name, (change, _) in STATES.items():
        yield Attack(f"state: {name}", altered(change), CHECKPOINT)
    for name, value in (("a list in itself", endless), ("lists of lists twice", laughs)):
        change = partial(changed, key="method.init_args.step_size", value=value())
        yield Attack(f"checkpoint: {name}", altered(change), CHECKPOINT)
    for name, make in (PICKLES | DAMAGED).items():
        yield Attack(f"checkpoint: {name}", make, {**CHECKPOINT, **WEIGHTS})
    for name, make in BESIDE.items():
        yield Attack(f"weights: {name}", make, {"encoder": encoder, "weights": weights}, False)
