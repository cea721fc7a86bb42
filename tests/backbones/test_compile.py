"""torch.compile as an option, and channels-last memory order: what they leave as it is."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from torch import nn

from fewshot import EpisodicDataModule, FewShotModule, PretrainModule
from fewshot.backbones import BackboneConfig
from fewshot.data.class_datamodule import ClassDataModule
from fewshot.data.datasets import FewShotDataset
from fewshot.data.images import Images
from fewshot.data.transforms import Preprocessing
from fewshot.methods import SIB, MLPGradient

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
]


class Blobs(FewShotDataset):
    """Noise around a colour of each of 6 classes, 6 pictures of each, in memory."""

    name = "blobs"
    preprocessing = Preprocessing(16, 16, (0.5,) * 3, (0.5,) * 3, flip=True)

    def images(self, split: Any, preprocessing: Preprocessing | None = None) -> Images:
        rng = np.random.default_rng(["train", "val", "test"].index(split))
        labels = np.repeat(np.arange(6), 6)
        pixels = rng.integers(60, 196, (6, 3, 1, 1))[labels] + rng.integers(-60, 60, (36, 3, 16, 16))
        names = [f"{split}{c}" for c in range(6)]
        return Images(pixels.astype(np.uint8), labels, names, [f"{names[label]}/{i}" for i, label in enumerate(labels)])


def trainer() -> Trainer:
    """One epoch that writes and shows nothing."""
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options: dict[str, Any] = dict.fromkeys(silent, False)
    return Trainer(accelerator="cpu", devices=1, max_epochs=1, num_sanity_val_steps=0, **options)


def feed() -> EpisodicDataModule:
    """Three training steps, of which the last is smaller, and a few episodes more."""
    return EpisodicDataModule(
        Blobs(), n_way=3, n_query=2, tasks_per_batch=2, train_episodes=5, val_episodes=2, test_episodes=3
    )


def built(compile: bool) -> FewShotModule:
    """SIB and a backbone that is trained with it."""
    torch.manual_seed(0)
    return FewShotModule(
        SIB(gradient=MLPGradient(n_way=3), n_steps=1),
        BackboneConfig("conv4_32", image_size=16, compile=compile),
        freeze_backbone=False,
        optimizer=functools.partial(torch.optim.SGD, lr=0.01),
    )


@pytest.mark.slow
def test_compiled_training_gives_interchangeable_checkpoints(tmp_path: Path) -> None:
    graphs = torch._dynamo.utils.counters["stats"]
    graphs.clear()
    compiled, plain = built(compile=True), built(compile=False)
    for name, module in (("compiled", compiled), ("plain", plain)):
        fitting = trainer()
        fitting.fit(module, feed())
        fitting.test(module, feed(), verbose=False)
        fitting.save_checkpoint(tmp_path / f"{name}.ckpt")
    assert graphs["unique_graphs"] >= 2  # training and evaluation
    assert compiled.backbone._compiled_call_impl is not None and plain.backbone._compiled_call_impl is None
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)
    assert compiled.results["test"]["accuracy"] == pytest.approx(plain.results["test"]["accuracy"], abs=0.06)
    for mine, other in (("compiled", plain), ("plain", compiled)):
        state = torch.load(tmp_path / f"{mine}.ckpt", weights_only=True)["state_dict"]
        other.load_state_dict(state)
    loaded = FewShotModule.load_from_checkpoint(tmp_path / "compiled.ckpt", weights_only=True)
    assert not loaded.backbone_config.compile  # a file starts no compiler
    assert loaded.backbone._compiled_call_impl is None
    for name, value in plain.state_dict().items():  # which were read from the same checkpoint
        assert torch.equal(loaded.state_dict()[name], value), name
    weights = BackboneConfig("conv4_32", image_size=16, weights=str(tmp_path / "compiled.ckpt")).create()
    assert list(weights.state_dict()) == list(plain.backbone.state_dict())


def test_without_a_compiler_compile_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ValueError, match=r"compile=true needs a C\+\+ compiler but g\+\+ or clang\+\+ or cl"):
        BackboneConfig("conv4_32", image_size=16, compile=True).create()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="no-such-compiler is not on the PATH"):
        BackboneConfig("conv4_32", image_size=16, compile=True).create()


@pytest.mark.parametrize("kind", ["episodes, trained", "episodes, frozen", "classes"])
@pytest.mark.parametrize("name", ["conv4_32", "resnet10t"])
def test_convolutions_receive_pictures_in_channels_last_order(name: str, kind: str) -> None:
    """In training steps on what the loader brings: every convolution, and the gradient of its weight."""
    data: EpisodicDataModule | ClassDataModule
    config = BackboneConfig(name, image_size=16)
    if kind == "classes":
        module: Any = PretrainModule(6, config)
        data = ClassDataModule(Blobs(), batch_size=16, n_way=3, n_query=2, val_episodes=2)
    else:
        module = FewShotModule(SIB(gradient=MLPGradient(n_way=3)), config, freeze_backbone=kind == "episodes, frozen")
        data = EpisodicDataModule(Blobs(), n_way=3, n_query=2, train_episodes=8, val_episodes=2, store_features=False)
    last = torch.channels_last
    orders: list[bool] = []
    for layer in module.backbone.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda layer, inputs, output: orders.append(
                    inputs[0].is_contiguous(memory_format=last)
                    and layer.weight.is_contiguous(memory_format=last)
                    and output.is_contiguous(memory_format=last)
                )
            )
    trainer().fit(module, data)
    assert orders and all(orders)
