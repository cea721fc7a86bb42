"""Weight files: found, read without executing anything, and loaded without a gap."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from fewshot.backbones import create_backbone
from fewshot.backbones.checkpoint_file import read_checkpoint, save_whole, state_dict_of
from fewshot.backbones.checkpoint_limits import check_sizes
from fewshot.files import WholeFile, resolve_weights

State = dict[str, Any]


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return create_backbone("conv4", image_size=16).state_dict()


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


LAYOUTS: dict[str, Callable[[State], State]] = {
    "plain": lambda state: state,
    "in_state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "lightning": lambda state: {
        "state_dict": {
            **prefixed(state, "backbone."),
            "classifier.weight": torch.zeros(3),
            "method.scale": torch.ones(1),
        },
        "pytorch-lightning_version": "2.6.0",
    },
    "distributed": lambda state: prefixed(state, "module."),
    "of another program": lambda state: {"state_dict": prefixed({**state, "fc.weight": torch.ones(3, 64)}, "encoder.")},
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "compiled_distributed": lambda state: prefixed(state, "module._orig_mod."),
    "lightning_compiled": lambda state: {"state_dict": prefixed(state, "backbone._orig_mod.")},
    "with_classifier": lambda state: {**state, "fc.weight": torch.zeros(5, 64), "fc.bias": torch.zeros(5)},
    "without_counters": lambda state: {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(LAYOUTS[layout](state), tmp_path / "weights.pth")
    backbone = create_backbone("conv4", image_size=16, weights=tmp_path / "weights.pth")
    for name, value in state.items():
        assert torch.equal(backbone.state_dict()[name], value)
    assert backbone.preprocessing is None


def test_every_fault_is_named_at_once(state: dict[str, Tensor], tmp_path: Path) -> None:
    del state["conv2.0.bias"]
    state["conv3.0.weight"] = torch.zeros(64, 64, 5, 5)
    state["conv4.1.weight"] = torch.full((64,), float("nan"))
    state["conv4.1.bias"] = [0.0] * 64
    state["conv5.0.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError) as raised:
        create_backbone("conv4", image_size=16, weights=tmp_path / "weights.pth")
    for part in (
        "weights.pth does not fit Conv4",
        "missing 'conv2.0.bias' [64]",
        "misshapen 'conv3.0.weight' [64, 64, 5, 5], expected [64, 64, 3, 3]",
        "'conv4.1.weight' holds values that are not finite",
        "'conv4.1.bias' is a list, not a tensor",
        "superfluous 'conv5.0.weight'",
    ):
        assert part in str(raised.value)


def test_weights_of_another_model_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(
        ValueError,
        match=r"does not fit ResNet: (missing '[^;]*; ){2}missing '[^;]* and \d+ more; "
        r"(superfluous '[^;]*'; ){2}superfluous '[^;]*' and \d+ more$",
    ):
        create_backbone("resnet18", weights=tmp_path / "weights.pth")


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_malicious_file_is_refused_and_not_executed(tmp_path: Path) -> None:
    torch.save({"state_dict": _Bomb(tmp_path / "executed")}, tmp_path / "weights.ckpt")
    with pytest.raises(ValueError, match=r"weights\.ckpt cannot be read"):
        create_backbone("conv4", weights=tmp_path / "weights.ckpt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(suffix: str, kept: float, state: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(state, file)
    else:
        save_file(state, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    with pytest.raises(ValueError, match="cannot be read"):
        create_backbone("conv4", image_size=16, weights=file)


@pytest.mark.parametrize("run", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_file_with_the_options_of_a_program_says_how_it_is_converted(
    run: bool, state: dict[str, Tensor], tmp_path: Path
) -> None:
    name = 'theirs\' $(touch x) "`touch x`"'
    file = tmp_path / f"{name}.pth"
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=0.1)}, file)
    with pytest.raises(ValueError, match=r"asks for argparse\.Namespace.*never executed.*that you trust") as refused:
        create_backbone("conv4", image_size=16, weights=file)
    typed = str(refused.value).rpartition("that you trust: ")[2]
    command = shlex.split(typed)
    assert command[:2] == ["python", "-c"] and "weights_only=True" in command[2] and len(command) == 3
    if run:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(typed, shell=True, check=True, cwd=tmp_path, env={**os.environ, "PATH": path})
        assert not (tmp_path / "x").exists()
        assert create_backbone("conv4", image_size=16, weights=tmp_path / f"{name}_weights.pth")


@pytest.mark.parametrize(
    ("pickled", "asks_for"),
    [
        (b"c__builtin__\nbytearray\nJ\x00\x94\x35\x77\x85R.", "__builtin__.bytearray"),
        (b"ctorch\nFloatTensor\nJ\x00\x94\x35\x77\x85R.", "torch.FloatTensor"),
        (b"ctorch.storage\nUntypedStorage\nJ\x00\x94\x35\x77\x85R.", "torch.storage.UntypedStorage"),
        (b"c_codecs\nencode\n(V\nVutf-32\ntR.", "_codecs.encode"),
    ],
)
def test_no_name_makes_memory_out_of_a_number(pickled: bytes, asks_for: str, tmp_path: Path) -> None:
    torch.save({}, tmp_path / "empty.pth")
    with ZipFile(tmp_path / "empty.pth") as old, ZipFile(tmp_path / "weights.pth", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"\x80\x02" + pickled if name.endswith("data.pkl") else old.read(name))
    with pytest.raises(ValueError, match=rf"asks for {asks_for}, which is more than tensors"):
        read_checkpoint(tmp_path / "weights.pth")
    (tmp_path / "old.pth").write_bytes(b"\x80\x02" + pickled)
    with pytest.raises(ValueError, match=rf"asks for {asks_for}, which is more than tensors"):
        read_checkpoint(tmp_path / "old.pth")


def test_a_file_of_before_torch_1_6_is_read(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert create_backbone("conv4", image_size=16, weights=tmp_path / "old.pth")


def test_tensors_are_as_large_as_their_parts(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(4), "b": torch.zeros(2)}, tmp_path / "weights.pth")
    check_sizes(tmp_path / "weights.pth", [8, 16])
    with pytest.raises(ValueError, match="its tensors take 408 bytes, and its parts have 24"):
        check_sizes(tmp_path / "weights.pth", [400, 8])


def test_a_file_without_a_dictionary_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="holds a Tensor"):
        create_backbone("conv4", weights=tmp_path / "weights.pt")


def test_published_files_of_timm(tmp_path: Path) -> None:
    """The network with its classifier: the head is left out, the preprocessing comes along."""
    network = timm.create_model("test_convnext")
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    backbone = create_backbone("test_convnext", weights=tmp_path)
    assert torch.equal(backbone.stem[0].weight, network.stem[0].weight)
    assert backbone.preprocessing["mean"] == network.pretrained_cfg["mean"]
    config = {"architecture": "test_convnext", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "input_size": [3, 64, 64]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert list(create_backbone("test_convnext", weights=tmp_path).preprocessing["mean"]) == [0.1, 0.2, 0.3]


def test_timms_own_translation_resizes_position_embeddings(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "weights.pth")
    backbone = create_backbone("test_vit", weights=tmp_path / "weights.pth", image_size=64)
    assert backbone(torch.zeros(1, 3, 64, 64)).shape == (1, 64)


def test_a_checkpoint_of_ours_brings_the_preprocessing_it_recorded(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=0)
    checkpoint: State = {
        "state_dict": prefixed(network.state_dict(), "backbone."),
        "pytorch-lightning_version": "2.6.0",
    }
    torch.save(checkpoint, tmp_path / "a.ckpt")
    assert create_backbone("test_resnet", weights=tmp_path / "a.ckpt").preprocessing is None
    torch.save({**checkpoint, "preprocessing": {"mean": (0.5,) * 3}}, tmp_path / "b.ckpt")
    assert create_backbone("test_resnet", weights=tmp_path / "b.ckpt").preprocessing == {"mean": (0.5,) * 3}


def touch(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def test_folders_stand_for_the_newest_best_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = tmp_path / "runs" / "pretrain"
    touch(experiment / "version_2" / "checkpoints" / "best.ckpt")
    newest = touch(experiment / "version_10" / "checkpoints" / "best.ckpt")
    (experiment / "version_11").mkdir()  # a test run: no checkpoint
    touch(experiment / "notes.txt")
    assert resolve_weights(experiment) == newest
    touch(experiment / "version_12" / "checkpoints" / "best.ckpt")
    mark = touch(experiment / "version_12" / "unfinished")
    assert resolve_weights(experiment) == newest
    assert "version_10/checkpoints/best.ckpt; version_12 is not finished" in caplog.text
    mark.unlink()
    assert resolve_weights(experiment) == experiment / "version_12" / "checkpoints" / "best.ckpt"
    shutil.rmtree(experiment / "version_12")
    assert resolve_weights(experiment / "version_10") == newest
    assert resolve_weights(newest.parent) == newest
    assert resolve_weights(newest) == newest
    monkeypatch.setenv("FEWSHOT_TEST_RUNS", str(tmp_path / "runs"))
    assert resolve_weights("$FEWSHOT_TEST_RUNS/pretrain") == newest
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_weights("~/runs/pretrain") == newest


def test_nothing_there_says_where_it_looked(tmp_path: Path) -> None:
    (tmp_path / "empty" / "version_0").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"version_0.checkpoints.best\.ckpt.*holds no checkpoint, which only"):
        resolve_weights(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"looked for .*nowhere"):
        create_backbone("conv4", weights=tmp_path / "nowhere")


@pytest.mark.parametrize("number", [1, 3, 9])
def test_a_writer_of_zip_files_meets_a_full_disk(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own would raise a RuntimeError of positions in the file, or end the process."""

    class Full(io.BytesIO):
        writings = 0

        def write(self, content: Any) -> int:
            Full.writings += 1
            if Full.writings >= number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content)

    save_whole(tmp_path / "x.pt", {"a": torch.arange(3)})
    before = (tmp_path / "x.pt").read_bytes()
    monkeypatch.setattr(WholeFile, "open", lambda self: setattr(self, "_file", Full()) or self._file)
    with pytest.raises(OSError, match="No space left") as failed:
        save_whole(tmp_path / "x.pt", {"a": torch.arange(4)})
    assert failed.value.filename == str(tmp_path / "x.pt") and (tmp_path / "x.pt").read_bytes() == before


@pytest.mark.parametrize("names", [("state_dict_ema", "state_dict"), ("model_ema", "model"), ("state_dict", "model")])
def test_averaged_weights_are_taken_first_as_by_timm(names):
    content = {name: {"module.weight": place} for place, name in reversed(list(enumerate(names)))}
    assert state_dict_of({**content, "epoch": 3}) == {"weight": 0}
