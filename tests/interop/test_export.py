"""What export writes runs without this package and without torch, and says the same."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fewshot.methods
from fewshot.backbones import BackboneConfig
from fewshot.commands import main
from fewshot.data.pictures import square_picture
from fewshot.data.transforms import Preprocessing, evaluation_transform
from fewshot.interop import graphs
from fewshot.interop.export import steps, ways
from fewshot.methods import (
    MAML,
    PTMAP,
    SIB,
    ImprintedWeights,
    Method,
    NearestClassMean,
    ProtoNet,
    SimpleShot,
    TransportSIB,
    UniversalSIB,
)
from fewshot.methods.base_classes import BaseClasses
from fewshot.training.few_shot_module import FewShotModule
from fewshot.training.saved_model import load_trained, plain_backbone, save_trained

for package in graphs.NEEDED:
    pytest.importorskip(package, reason="the extra 'export' is not installed")
if tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < graphs.OLDEST_TORCH:
    pytest.skip(f"graphs are exported by torch {graphs.OLDEST_TORCH} or newer", allow_module_level=True)

MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.3, 0.2)
PREPROCESSING = Preprocessing(image_size=32, stored_size=32, mean=MEAN, std=STD)
N_WAY = 5


def trained(method: Method, name: str = "conv4_32", image_size: int = 32) -> FewShotModule:
    torch.manual_seed(4)
    module = FewShotModule(method, BackboneConfig(name, image_size=image_size), freeze_backbone=method.on_features)
    width = module.backbone.num_features
    module.method.prepare(BaseClasses(torch.rand(width), torch.rand(7, width)))
    with torch.no_grad():
        for value in (*module.parameters(), *module.backbone.buffers()):
            if value.is_floating_point():
                value.mul_(1 + 0.1 * torch.randn_like(value).clamp(-2, 2))
    module.temperature = 0.7
    return module.eval()


def export(*arguments: Any) -> None:
    main(["export", *map(str, arguments)])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SIB with refinement that changes something, on a small network, exported by the command."""
    torch.manual_seed(0)  # this comes before the fixture that seeds each test
    folder = tmp_path_factory.mktemp("export")
    save_trained(trained(SIB(n_steps=1, step_size=0.9)), PREPROCESSING, folder / "model")
    export("--ckpt_path", folder / "model", "--output", folder / "out")
    assert "left_out" not in (head := manifest_of(folder / "out")["head"]), head
    return folder / "out"


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def as_the_manifest_says(pictures: np.ndarray, manifest: dict[str, Any]) -> np.ndarray:
    """Pictures [B, S, S, 3] uint8 of the right size, by numpy alone."""
    about = manifest["preprocessing"]
    normalised = (pictures / np.float32(255) - np.float32(about["mean"])) / np.float32(about["std"])
    return normalised.transpose(0, 3, 1, 2).astype(np.float32)


def pictures_of(data_root: Path | None, n_classes: int, per_class: int) -> list[Image.Image]:
    """Class after class: test pictures of CIFAR-FS, or noise around one colour a class."""
    if data_root is not None:
        classes = sorted((data_root / "cifar_fs" / "test").iterdir())[:n_classes]
        return [Image.open(file) for one in classes for file in sorted(one.iterdir())[:per_class]]
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 128, (n_classes * per_class, 32, 32, 3))
    colours = rng.integers(0, 128, (n_classes, 1, 1, 3)).repeat(per_class, 0)
    return [Image.fromarray(one) for one in (noise + colours).astype(np.uint8)]


@pytest.mark.slow
def test_the_manifest_tells_all_that_the_files_need(exported: Path) -> None:
    manifest = manifest_of(exported)
    written = {"README.md", "config.json", "model.safetensors", "backbone.onnx", "backbone.pt2", "head.onnx"}
    assert set(manifest["files"]) == written == set(os.listdir(exported)) - {"manifest.json"}
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == digest
    assert manifest["preprocessing"]["mean"] == list(MEAN) and manifest["preprocessing"]["image_size"] == 32
    assert manifest["temperature"] == 0.7 and manifest["n_features"] == 128
    assert manifest["head"]["n_way"] == N_WAY and manifest["head"]["n_steps"] == 1
    assert manifest["head"]["opset"] >= 18 and manifest["versions"]["torch"] == torch.__version__.split("+")[0]
    session = importlib.import_module("onnxruntime").InferenceSession(str(exported / "head.onnx"))
    assert {one.name: one.shape[1:] for one in session.get_inputs()} == {
        "support": [128],
        "support_labels": [],
        "query": [128],
    }
    assert [one.name for one in session.get_outputs()] == list(manifest["head"]["output"])


@pytest.mark.slow
def test_no_file_names_folders_of_this_machine(exported: Path) -> None:
    for file in exported.iterdir():
        content = file.read_bytes()
        for word in (str(Path(graphs.__file__).parent), str(Path(torch.__file__).parent), str(exported.parent)):
            assert word.encode() not in content, f"{file.name} names {word}"
        assert file.stat().st_mode & 0o777 == (exported / "config.json").stat().st_mode & 0o777


@pytest.mark.slow
def test_the_folder_is_a_saved_model(exported: Path) -> None:
    found = load_trained(exported)
    assert found.preprocessing == PREPROCESSING and found.module.temperature == 0.7


@pytest.mark.slow
@pytest.mark.parametrize("source", ["generated", "cifar_fs"])
def test_pictures_give_the_features_and_probabilities_of_pytorch(
    source: str, exported: Path, request: pytest.FixtureRequest
) -> None:
    pictures = pictures_of(request.getfixturevalue("data_root") if source == "cifar_fs" else None, N_WAY, 8)
    model, manifest = load_trained(exported), manifest_of(exported)
    stored = torch.from_numpy(np.stack([square_picture(one, PREPROCESSING) for one in pictures]))
    with torch.no_grad():
        wanted = model.module.backbone(evaluation_transform(stored, PREPROCESSING))
    inputs = as_the_manifest_says(np.stack([np.asarray(one.convert("RGB")) for one in pictures]), manifest)
    encode = graphs.onnx_session(exported / "backbone.onnx")
    program = torch.export.load(exported / "backbone.pt2").module()
    for size in (1, 7, len(inputs)):
        np.testing.assert_allclose(encode(pictures=inputs[:size])[0], wanted[:size], rtol=0, atol=1e-4)
        torch.testing.assert_close(program(torch.from_numpy(inputs[:size])), wanted[:size], rtol=0, atol=1e-4)

    features = encode(pictures=inputs)[0].reshape(N_WAY, 8, -1)
    classify = graphs.onnx_session(exported / "head.onnx")
    change = 0.0
    for shots, queries in ((1, 7), (3, 2), (5, 3)):
        support = features[:, :shots].reshape(N_WAY * shots, -1)
        query = features[:, shots : shots + queries].reshape(N_WAY * queries, -1)
        labels = np.arange(N_WAY).repeat(shots)
        with torch.no_grad():
            tasks = torch.from_numpy(support)[None], torch.from_numpy(labels)[None], torch.from_numpy(query)[None]
            logits = model.module.method.refine(*tasks, N_WAY).logits[:, 0]
        after, before = classify(support=support, support_labels=labels, query=query)
        np.testing.assert_allclose(after, (logits[-1] / 0.7).softmax(-1), rtol=0, atol=1e-4)
        np.testing.assert_allclose(before, (logits[0] / 0.7).softmax(-1), rtol=0, atol=1e-4)
        change = max(change, float(np.abs(after - before).max()))
    assert change > 1e-2  # else the refinement could be left out and nobody would notice


SMALLER = replace(PREPROCESSING, stored_size=44, interpolation="bicubic", invert=True)


@pytest.mark.slow
@pytest.mark.parametrize("preprocessing", [PREPROCESSING, SMALLER], ids=["whole", "middle"])
def test_the_lines_of_the_readme_classify_pictures(
    preprocessing: Preprocessing, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = manifest_of(exported)
    manifest["preprocessing"] |= preprocessing.of_evaluation()
    check_lines_of_the_readme(exported, manifest, preprocessing, tmp_path, monkeypatch)


@pytest.mark.slow
def test_the_lines_of_the_readme_for_a_residual_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how = Preprocessing(64, 73, (0.4,), (0.3,), channels=1, interpolation="lanczos")
    module = FewShotModule(ProtoNet(), BackboneConfig("resnet10t", image_size=64, in_chans=1), freeze_backbone=True)
    module.temperature = 0.7
    save_trained(module.eval(), how, tmp_path / "model")
    export("--ckpt_path", tmp_path / "model", "--output", tmp_path / "exported", "--n_way", N_WAY)
    check_lines_of_the_readme(tmp_path / "exported", manifest_of(tmp_path / "exported"), how, tmp_path, monkeypatch)


def check_lines_of_the_readme(
    exported: Path, manifest: dict[str, Any], how: Preprocessing, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [picture.resize((50, 61 + number)) for number, picture in enumerate(pictures_of(None, N_WAY, 4))]
    pictures[0].putalpha(Image.linear_gradient("L").resize(pictures[0].size))
    for number, picture in enumerate(pictures):
        shown = number % 4
        file = folder / (f"support/{number // 4}/{shown}.png" if shown < 2 else f"query/{number // 4}-{shown}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file)
    (folder / "OUT").mkdir()
    (folder / "OUT" / "manifest.json").write_text(json.dumps(manifest))
    for name in ("backbone.onnx", "head.onnx"):
        (folder / "OUT" / name).symlink_to(exported / name)
    monkeypatch.chdir(folder)
    lines = readme_lines()[0]
    assert "torch" not in lines and "fewshot" not in lines
    (folder / "export_of_the_readme.py").write_text(lines)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "export_of_the_readme", raising=False)
    found = vars(importlib.import_module("export_of_the_readme"))
    model = load_trained(exported)
    stored = torch.from_numpy(np.stack([square_picture(one, how) for one in pictures]))
    with torch.no_grad():
        features = model.module.backbone(evaluation_transform(stored, how)).unflatten(0, (N_WAY, 4))
        tasks = features[:, :2].flatten(0, 1)[None], torch.arange(N_WAY).repeat_interleave(2)[None]
        logits = model.module.method.refine(*tasks, features[:, 2:].flatten(0, 1)[None], N_WAY).logits[-1, 0]
    np.testing.assert_allclose(found["probabilities"], (logits / 0.7).softmax(-1), rtol=0, atol=1e-4)


def readme_lines() -> list[str]:
    """The examples of ONNX in the documents."""
    readme = (Path(__file__).parents[2] / "fewshot" / "interop" / "README.md").read_text(encoding="utf-8")
    return [text for text in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "onnxruntime" in text]


@pytest.mark.slow
def test_a_single_query_is_not_refined_by_the_published_network(exported: Path) -> None:
    support, labels, query = (one.numpy() for one in graphs.example_task(N_WAY, 128, n_support=5, n_query=1))
    after, before = graphs.onnx_session(exported / "head.onnx")(support=support, support_labels=labels, query=query)
    np.testing.assert_array_equal(after, before)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        NearestClassMean(),
        ProtoNet(),
        SimpleShot(),
        ImprintedWeights(),
        SIB(gradient=fewshot.methods.MLPGradient(n_way=3), step_size=0.3),
        SIB(gradient=fewshot.methods.EquivariantGradient()),
        TransportSIB(),
    ],
    ids=lambda one: f"{type(one).__name__}-{one.relabels}",
)
def test_heads_of_more_methods(method: Method, tmp_path: Path) -> None:
    check_head_of(method, tmp_path)


@pytest.mark.weekly  # two minutes
def test_the_universal_head(tmp_path: Path) -> None:
    check_head_of(UniversalSIB(), tmp_path)


def check_head_of(method: Method, folder: Path) -> None:
    method.build(16)
    method.prepare(BaseClasses(torch.rand(16), torch.rand(7, 16)))
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    head = graphs.Head(method.eval(), 3, 1.3)
    names = ["support", "support_labels", "query"], ["probabilities", "probabilities_before"]
    graphs.save_onnx(
        graphs.head_program(head, 16), folder / "head.onnx", inputs=names[0], outputs=names[1], what="the head"
    )
    graphs.check_head(head, 16, graphs.onnx_session(folder / "head.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("resnet18", 64), ("vit_tiny_patch16_224", 32), ("wrn28_10", 32)])
def test_other_backbones(name: str, size: int, tmp_path: Path) -> None:
    module = trained(ProtoNet(), name, size)
    preprocessing = Preprocessing(image_size=size, stored_size=size, mean=MEAN, std=STD)
    save_trained(module, preprocessing, tmp_path / "model")
    export("--ckpt_path", tmp_path / "model", "--output", tmp_path / "out", "--n_way", 3)
    assert {"backbone.onnx", "backbone.pt2", "head.onnx"} <= set(os.listdir(tmp_path / "out"))
    pictures = torch.randn(4, 3, size, size)
    with torch.no_grad():
        wanted = module.backbone(pictures)
    found = graphs.onnx_session(tmp_path / "out" / "backbone.onnx")(pictures=pictures.numpy())[0]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


def test_a_method_that_is_no_fixed_graph_is_left_out_and_the_rest_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "save_onnx", lambda program, path, **_: path.write_bytes(b"a graph"))  # see `exported`
    monkeypatch.setattr(graphs, "onnx_session", lambda path: None)
    monkeypatch.setattr(graphs, "check_backbone", lambda *_, **__: None)
    save_trained(trained(PTMAP()), PREPROCESSING, tmp_path / "model")
    export("--ckpt_path", tmp_path / "model", "--output", tmp_path / "out", "--formats", "[onnx]")
    assert "no head.onnx: PTMAP iterates until its data say so" in capsys.readouterr().out
    assert manifest_of(tmp_path / "out")["head"]["left_out"].startswith("PTMAP iterates")
    assert {"backbone.onnx", "manifest.json"} <= set(os.listdir(tmp_path / "out"))
    assert not {"head.onnx", "backbone.pt2"} & set(os.listdir(tmp_path / "out"))


def test_a_method_on_the_backbones_weights_has_no_head() -> None:
    assert "MAML adapts the backbone's own weights" in str(graphs.head_refusal(MAML(n_way=5)))


def test_a_method_of_ones_own_is_tried() -> None:
    assert graphs.head_refusal(type("Mine", (PTMAP,), {"__module__": "mine"})()) is None


def test_a_graph_that_says_something_else_is_no_graph() -> None:
    head = graphs.Head(ProtoNet().eval(), 3)

    def uniform(**arrays: np.ndarray) -> list[np.ndarray]:
        return [np.full((len(arrays["query"]), 3), 1 / 3, dtype=np.float32)] * 2

    with pytest.raises(ValueError, match="other probabilities than PyTorch for 3 support and 1 query"):
        graphs.check_head(head, 16, uniform)
    backbone = trained(ProtoNet()).backbone
    with pytest.raises(ValueError, match=r"backbone\.onnx gives other features than PyTorch for 1 picture"):
        graphs.check_backbone(backbone, lambda x: torch.zeros(len(x), 128), image_size=32, what="backbone.onnx")


@pytest.mark.slow
def test_a_compiled_backbone_is_exported_as_it_was_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", sys.executable)  # anything that is there: nothing is compiled
    module = FewShotModule(ProtoNet(), BackboneConfig("conv4_32", image_size=32, compile=True)).eval()
    backbone = plain_backbone(module)
    assert module.backbone._compiled_call_impl is not None and backbone._compiled_call_impl is None
    for key, value in module.backbone.state_dict().items():
        torch.testing.assert_close(backbone.state_dict()[key], value, rtol=0, atol=0)


def test_the_number_of_ways_is_asked_for_or_known(tmp_path: Path) -> None:
    folder = save_trained(trained(ProtoNet()), PREPROCESSING, tmp_path / "runs" / "checkpoints")
    found = load_trained(folder)
    with pytest.raises(ValueError, match="give --n_way"):
        ways(found, None)
    (tmp_path / "runs" / "config.yaml").write_text("data:\n  init_args:\n    n_way: 7\n")
    assert ways(found, None) == 7 and ways(found, 3) == 3
    with pytest.raises(ValueError, match="n_way=1"):
        ways(found, 1)
    sib = load_trained(save_trained(trained(SIB()), PREPROCESSING, tmp_path / "sib"))
    assert ways(sib, None) == 5
    with pytest.raises(ValueError, match="n_way=7 but the method serves 5 ways alone; leave n_way out"):
        ways(sib, 7)


def test_what_a_person_can_mend_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: Any) -> str:
        with pytest.raises(SystemExit) as stop:
            export(*arguments)
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        return error

    model = save_trained(trained(SIB()), PREPROCESSING, tmp_path / "model")
    given = ("--ckpt_path", model, "--output", tmp_path / "out")
    assert "output" in refused("--ckpt_path", model)
    message = refused("--ckpt_path", tmp_path / "nowhere", "--output", tmp_path / "out")
    assert "nowhere is not there; name a checkpoint" in message and "pre-training" not in message
    assert "onnx" in refused(*given, "--formats", "[torchscript]")
    assert "no file" in refused(*given, "--formats", "[]", "--results", tmp_path / "results.json")
    assert "is there already" in refused("--ckpt_path", model, "--output", model, "--formats", "[]")
    assert not (tmp_path / "out").exists()
    below = Path(model, "config.json", "out")
    assert "config.json is a file" in refused("--ckpt_path", model, "--output", below, "--formats", "[]")
    export(*given, "--formats", "[]")
    assert "backbone.onnx" not in os.listdir(tmp_path / "out")
    assert "is there already" in refused(*given, "--formats", "[]")
    export(*given, "--formats", "[]", "--overwrite", "true")
    monkeypatch.setattr(graphs, "find_spec", lambda name: None if name == "onnxscript" else True)
    assert "pip install 'fewshot[export]'" in refused(*given, "--overwrite")
    monkeypatch.setattr(torch, "__version__", "2.6.0+cpu")
    assert "torch 2.9 or newer, here is 2.6.0" in refused(*given, "--overwrite")


def test_the_steps_name_every_size() -> None:
    told = " ".join(steps(Preprocessing(80, 84, mean=MEAN, std=STD, interpolation="bicubic")))
    assert "84 x 84 px with bicubic" in told and "Keep 80 x 80 px, leaving out the first 2 rows" in told
    grey = " ".join(steps(Preprocessing(28, 28, mean=(0.5,), std=(0.5,), channels=1)))
    assert "1 channel(s)" in grey and "Nothing is cropped" in grey


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
from fewshot.commands import main
main(["export", "--ckpt_path", sys.argv[1], "--output", sys.argv[2], "--formats", "[]"])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="files have no limits there")
def test_a_file_that_does_not_fit_is_told_in_a_line_and_leaves_nothing(tmp_path: Path) -> None:
    model = Path(__file__).resolve().parents[1] / "former" / "saved_model"
    command = [sys.executable, "-c", FULL_DISK, str(model), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip() == f"error: {tmp_path / 'out'} cannot be written: File too large"
    assert not list(tmp_path.iterdir())
