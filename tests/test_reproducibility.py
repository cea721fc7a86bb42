"""The same command gives the same weights, and deterministic mode refuses nothing of ours."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fewshot.backbones import WideResNet, resnet12
from fewshot.commands import main

EPISODES = """
experiment: tiny
model:
  class_path: FewShotModule
  init_args:
    backbone: {name: conv4, image_size: 16}
    method: {class_path: SIB, init_args: {n_steps: 2}}
data:
  class_path: EpisodicDataModule
  init_args:
    dataset: {class_path: ImageFolderSplits, init_args: {root: pictures, image_size: 16}}
    n_query: 2
    tasks_per_batch: 2
    train_episodes: 4
    val_episodes: 2
    test_episodes: 3
trainer: {max_epochs: 2, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
"""
PICTURES = """
experiment: tiny
model:
  class_path: PretrainModule
  init_args: {n_classes: 5, backbone: {name: conv4, image_size: 16}}
data:
  class_path: ClassDataModule
  init_args:
    dataset: {class_path: ImageFolderSplits, init_args: {root: pictures, image_size: 16}}
    batch_size: 6
    n_query: 2
    val_episodes: 2
    test_episodes: 3
trainer: {max_epochs: 2, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
"""
# What torch 2.6 or later refuses on CUDA in deterministic mode, as the documentation of use_deterministic_algorithms
# and of its earlier versions lists it; backward formulas by their own names.
REFUSED_ON_CUDA = {
    *("_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward", "adaptive_max_pool2d_backward"),
    *("avg_pool3d_backward", "max_pool3d_with_indices_backward", "fractional_max_pool2d_backward"),
    *("upsample_linear1d_backward", "upsample_bilinear2d_backward", "_upsample_bilinear2d_aa_backward"),
    *("upsample_bicubic2d_backward", "_upsample_bicubic2d_aa_backward", "upsample_trilinear3d_backward"),
    *("reflection_pad1d_backward", "reflection_pad2d_backward", "reflection_pad3d_backward"),
    *("replication_pad1d_backward", "replication_pad2d_backward", "replication_pad3d_backward"),
    *("nll_loss2d_forward", "nll_loss2d_backward", "grid_sampler_2d_backward", "grid_sampler_3d_backward"),
    *("max_unpool2d", "max_unpool3d", "histc", "bincount", "median", "kthvalue", "cumsum", "put_", "scatter_reduce_"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_pictures: Callable[..., None]) -> Iterator[Path]:
    """The working directory: pictures of five classes a split, and a config for episodes and one for pictures."""
    path = tmp_path_factory.mktemp("reproducibility")
    write_pictures(path / "pictures")
    (path / "episodes.yaml").write_text(EPISODES)
    (path / "pictures.yaml").write_text(PICTURES)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        yield path


def fitted(*arguments: str) -> Path:
    """The run folder of a fit."""
    main(["fit", *arguments])
    return max(Path("runs/tiny").glob("version_*"), key=lambda path: int(path.name.split("_")[1]))


def tensors(value: Any, place: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested containers, by where it is."""
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, f"{place}/{key}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from tensors(item, f"{place}/{number}")


def last(run: Path) -> dict[str, Tensor]:
    """The tensors of a run's last checkpoint; its own folder is part of some of their names."""
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return {name.replace(str(run), "run"): value for name, value in tensors(content)}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    """The tensors that only one of two checkpoints has, or that differ in any digit."""
    shared = one.keys() & other.keys()
    return (one.keys() ^ other.keys()) | {name for name in shared if not torch.equal(one[name], other[name])}


KINDS = {
    "trained_end_to_end": ["--config", "episodes.yaml", "--model.freeze_backbone", "false"],
    "frozen_on_stored_features": ["--config", "episodes.yaml", "--data.augmented_views", "2"],
    "pretrained": ["--config", "pictures.yaml"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_command_gives_the_same_weights(kind, folder, tmp_path, monkeypatch):
    weights = []
    for number, workers in enumerate(("0", "2")):
        monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / str(number)))  # features are computed anew every time
        torch.manual_seed(number)  # whatever went before
        weights.append(last(fitted(*KINDS[kind], "--data.num_workers", workers, "--test_after_fit", "false")))
    assert sum(name.startswith("/optimizer_states/") for name in weights[0]) > 3
    assert not differing(*weights)


@pytest.mark.slow
def test_another_seed_gives_other_weights(folder):
    options = [*KINDS["trained_end_to_end"], "--trainer.max_epochs", "1", "--test_after_fit", "false"]
    one, other = (last(fitted(*options, "--seed_everything", seed)) for seed in ("1", "2"))
    assert any(name.startswith("/state_dict/") for name in differing(one, other))


class Operations(TorchDispatchMode):
    """Collects the names of the operations that are run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Options that turn deterministic mode on; off again afterwards."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""))
    benchmark = torch.backends.cudnn.benchmark
    yield ["--trainer.deterministic", "true"]
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark


@pytest.mark.parametrize(
    ("name", "frozen"),
    [
        ("conv4", "false"),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("conv4", "true"), ("resnet12", "false"))),
        pytest.param("wrn28_10", "false", marks=pytest.mark.slow),
    ],
)
def test_deterministic_mode(name, frozen, folder, deterministic, monkeypatch):
    """Fit and test run in it here, and none of their operations is one that it refuses on CUDA."""
    monkeypatch.setattr(WideResNet.__init__, "__defaults__", (10, 1))
    monkeypatch.setattr(resnet12, "WIDTHS", (8, 8, 16, 16))
    options = ["--config", "episodes.yaml", "--model.backbone.name", name, "--trainer.max_epochs", "1", *deterministic]
    with Operations() as operations:
        run = fitted(*options, "--model.freeze_backbone", frozen)
    assert torch.are_deterministic_algorithms_enabled() and (run / "results.json").is_file()
    assert "convolution_backward" in operations.names or frozen == "true"
    assert {"nll_loss_backward", "bmm"} <= operations.names  # the backward pass is seen
    assert not operations.names & REFUSED_ON_CUDA
    assert json.loads((run / "run.json").read_text())["device"]["deterministic"] is True


def test_an_operation_without_a_deterministic_form_is_refused_by_one_line(folder, deterministic, monkeypatch, capsys):
    def unpooled(self: Any, images: Tensor) -> Tensor:
        pooled, places = torch.nn.functional.max_pool2d(images, 2, return_indices=True)
        return torch.nn.functional.max_unpool2d(pooled, places, 2)

    monkeypatch.setattr(WideResNet.__init__, "__defaults__", (10, 1))
    monkeypatch.setattr(WideResNet, "forward_features", unpooled)
    options = ["--config", "episodes.yaml", "--model.backbone.name", "wrn28_10", "--data.store_features", "false"]
    main(["test", *options, "--experiment", "unpooled"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["test", *options, "--experiment", "refused", *deterministic])
    printed = capsys.readouterr().err
    assert stop.value.code == 2 and len(printed.splitlines()) == 1
    assert printed.startswith("error: trainer.deterministic: max_unpooling2d_forward_out")
    record = json.loads((folder / "runs" / "refused" / "version_0" / "run.json").read_text())
    assert record["status"] == "failed" and "max_unpooling2d_forward_out" in record["error"]


@pytest.mark.gpu
@pytest.mark.parametrize("frozen", ["true", "false"])
@pytest.mark.parametrize("name", ["conv4", "resnet12", "wrn28_10"])
def test_deterministic_mode_on_a_gpu(name, frozen, folder, deterministic):
    options = ["--config", "episodes.yaml", "--model.backbone.name", name, "--trainer.accelerator", "gpu"]
    options += ["--trainer.devices", "1", "--model.freeze_backbone", frozen, *deterministic]
    assert not differing(last(fitted(*options)), last(fitted(*options)))
