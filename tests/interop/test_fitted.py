"""A fitted classifier as one graph: the probabilities of predict_proba, without this package, and in a browser."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import os
import runpy
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import Browser, installed_browser
from PIL import Image
from test_export import readme_lines

from fewshot import FewShotClassifier
from fewshot.backbones import BackboneConfig
from fewshot.commands import main
from fewshot.data.pictures import square_picture
from fewshot.data.transforms import Preprocessing
from fewshot.interop import graphs
from fewshot.interop.fitted import write_fitted
from fewshot.methods import ProtoNet
from fewshot.training.few_shot_module import FewShotModule
from fewshot.training.saved_model import save_trained

CLASSES = ["grün", "<b>rot</b>", "蓝"]


def pictures(number: int, size: tuple[int, int] = (50, 61)) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(80 * (n % 3), 80 * (n % 3) + 96, (*size, 3)).astype(np.uint8))
        for n in range(number)
    ]


def fitted(backbone: str, preprocessing: Preprocessing, folder: Path, method: str | None) -> FewShotClassifier:
    """A classifier of a model in folder / "model", saved in folder / "classifier"."""
    torch.manual_seed(0)
    module = FewShotModule(ProtoNet(), BackboneConfig(backbone, image_size=preprocessing.image_size))
    save_trained(module.eval(), preprocessing, folder / "model")
    classifier = FewShotClassifier.from_checkpoint(folder / "model", method=method)
    classifier.fit(pictures(9), [*CLASSES, *[None] * 6])
    classifier.save(folder / "classifier")
    return classifier


def export(*arguments: Any) -> None:
    main(["export", *map(str, arguments)])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FewShotClassifier]:
    """A head of later pictures on a small network, exported from what classify would leave."""
    folder = tmp_path_factory.mktemp("fitted")
    how = Preprocessing(32, 36, (0.5, 0.45, 0.4), (0.25, 0.3, 0.2), interpolation="bicubic")
    classifier = fitted("conv4_32", how, folder, "PTMAP")
    export("--ckpt_path", folder, "--output", folder / "out")
    return folder / "out", classifier


def stored(classifier: FewShotClassifier, given: list[Image.Image]) -> np.ndarray:
    assert classifier.encoder is not None
    return np.stack([square_picture(picture, classifier.encoder.preprocessing) for picture in given])


@pytest.mark.slow
def test_the_graph_says_what_the_classifier_says(exported: tuple[Path, FewShotClassifier]) -> None:
    folder, classifier = exported
    run = graphs.onnx_session(folder / "classifier.onnx")
    for number in (1, 2, 9):
        given = pictures(number)
        found = run(pictures=stored(classifier, given))[0]
        np.testing.assert_allclose(found, classifier.predict_proba(given), rtol=0, atol=1e-4)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["classes"] == classifier.classes_.tolist() == sorted(CLASSES)
    assert manifest["classifier"]["input"] == {"pictures": ["B", 3, 36, 36]}
    assert manifest["model"]["backbone"] == "conv4_32" and manifest["model"]["method"] == "PTMAP"
    told = manifest["preprocessing"]["steps"]
    assert "36 x 36 px with bicubic" in told[3] and len(told) == 5
    assert set(manifest["files"]) == {"classifier.onnx", "index.html"}
    assert str(folder.parent).encode() not in (folder / "classifier.onnx").read_bytes()


@pytest.mark.slow
def test_the_lines_of_the_readme_classify_pictures(
    exported: tuple[Path, FewShotClassifier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "FITTED").symlink_to(exported[0])
    (tmp_path / "query").mkdir()
    for number, picture in enumerate(pictures(4)):
        picture.save(tmp_path / "query" / f"{number}.png")
    rough = Image.fromarray(np.random.default_rng(0).integers(0, 256, (611, 803, 3), dtype=np.uint8))
    rough.save(tmp_path / "query" / "9.jpg")  # large, so that it is decoded at a fraction of its size
    deep = np.random.default_rng(0).random((40, 40))
    deep[0, 0] = 1
    Image.fromarray((deep * 65535).astype(np.uint16)).save(tmp_path / "query" / "deep.png")
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "query" / "floats.tif")
    monkeypatch.chdir(tmp_path)
    first, second = readme_lines()
    assert (
        second[second.index("def stored") : second.index("pictures = ")]
        == (first[first.index("def stored") : first.index("def features")])
    )
    Path("lines.py").write_text(second, encoding="utf-8")
    names = runpy.run_path("lines.py")
    wanted = exported[1].predict_proba(sorted(Path("query").iterdir()))
    np.testing.assert_allclose(names["probabilities"], wanted, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("n_labelled", [0, 2])
def test_rows_of_features_and_a_method_that_keeps_its_support(n_labelled: int, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    labels = [*range(n_labelled), *[None] * (12 - n_labelled)]
    classifier = FewShotClassifier(method="SimpleShot").fit(rows, labels, {0: rows[2], 1: rows[3]})
    assert classifier._adapted.view is not None and classifier._adapted.view.whitening is not None
    classifier.save(tmp_path / "classifier")
    export("--ckpt_path", tmp_path / "classifier", "--output", tmp_path / "out")
    found = graphs.onnx_session(tmp_path / "out" / "classifier.onnx")(features=rows)[0]
    np.testing.assert_allclose(found, classifier.predict_proba(rows), rtol=0, atol=1e-4)
    assert sorted(os.listdir(tmp_path / "out")) == ["classifier.onnx", "manifest.json"]


@pytest.mark.slow
@pytest.mark.parametrize("method", [None, "ImprintedWeights"])
def test_a_residual_network(method: str | None, tmp_path: Path) -> None:
    classifier = fitted("resnet10t", Preprocessing(64, 64, (0.5,) * 3, (0.25,) * 3), tmp_path, method)
    export("--ckpt_path", tmp_path / "classifier", "--output", tmp_path / "out")
    given = pictures(5)
    found = graphs.onnx_session(tmp_path / "out" / "classifier.onnx")(pictures=stored(classifier, given))[0]
    np.testing.assert_allclose(found, classifier.predict_proba(given), rtol=0, atol=1e-4)


def test_what_a_person_can_mend_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: Any) -> str:
        with pytest.raises(SystemExit):
            export("--output", tmp_path / "out", *arguments)
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        return error

    FewShotClassifier(method="SimpleShot").fit(np.eye(4), [0, 1, -1, -1]).save(tmp_path / "classifier")
    given = ("--ckpt_path", tmp_path / "classifier")
    assert "n_way: " in (message := refused(*given, "--n_way", 3)) and "leave it out" in message
    assert "which is written as onnx" in refused(*given, "--formats", "[pt2]")
    (tmp_path / "answer").mkdir()
    for name in ("predictions.csv", "report.html"):
        (tmp_path / "answer" / name).touch()
    assert "run classify again with --keep_classifier" in refused("--ckpt_path", tmp_path / "answer")
    about = tmp_path / "classifier" / "classifier.json"
    about.write_text(about.read_text(encoding="utf-8").replace('"classes"', '"Classes"'), encoding="utf-8")
    assert "is damaged or altered" in refused(*given)
    FewShotClassifier(method="LogisticRegression").fit(np.eye(4), [0, 1, -1, -1]).save(tmp_path / "solved")
    assert "LogisticRegression iterates until its data say so" in refused("--ckpt_path", tmp_path / "solved")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_graph_that_says_something_else_is_no_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def uniform(features: np.ndarray) -> list[np.ndarray]:
        return [np.full((len(features), 3), 1 / 3, np.float32)]

    monkeypatch.setattr(graphs, "onnx_session", lambda path: uniform)
    graph = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(-1))
    with pytest.raises(ValueError, match=r"classifier\.onnx gives other probabilities than PyTorch for 1"):
        write_fitted(graph, [0, 1, 2], {"n_features": 4}, tmp_path, None)


@pytest.mark.slow
def test_the_page_classifies_in_a_browser(exported: tuple[Path, FewShotClassifier], tmp_path: Path) -> None:
    runtime, executable = os.environ.get("ONNXRUNTIME_WEB"), installed_browser()
    if not runtime or executable is None:
        pytest.skip("needs a Chromium, and ONNXRUNTIME_WEB: the folder package/dist of `npm pack onnxruntime-web`")
    folder, classifier = exported
    page = shutil.copytree(folder, tmp_path / "page")
    for name in ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        (page / name).symlink_to(Path(runtime, name).absolute())
    picture = pictures(2, (36, 36))[1]
    picture.save(tmp_path / "a <b>.png")
    content = base64.b64encode((tmp_path / "a <b>.png").read_bytes()).decode()
    handler = functools.partial(Quiet, directory=str(page))
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        Browser(executable, tmp_path / "profile") as browser,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.open(f"http://127.0.0.1:{server.server_port}/index.html")
        assert browser.becomes("window.ready === true", True), browser.complaints
        browser.run(
            f"""(async () => {{
            const bytes = Uint8Array.from(atob("{content}"), c => c.charCodeAt(0)), files = new DataTransfer();
            window.file = new File([bytes], "a <b>.png", {{type: "image/png"}});
            files.items.add(new File(["no picture"], "no.heic"));
            files.items.add(file);
            const input = document.querySelector("input");
            input.files = files.files;
            input.dispatchEvent(new Event("change"));
            }})()"""
        )
        assert browser.becomes("document.querySelectorAll('#answers li').length", 2)
        assert browser.run("document.querySelector('#answers li').textContent").startswith("no.heic: cannot be read (")
        assert browser.becomes("document.querySelector('#answers li:last-child').textContent.length > 0", True)
        found = browser.run("classify(file).then(found => Array.from(found))")
        wanted = classifier.predict_proba([picture])[0]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
        best = classifier.classes_[wanted.argmax()]
        said = browser.run("document.querySelector('#answers li:last-child').textContent")
        assert said == f"a <b>.png: {best} ({100 * wanted.max():.0f} %)"
        assert not [each for each in browser.requested if str(server.server_port) not in each and "blob:" not in each]
        assert not [each for each in browser.complaints if "favicon" not in each and "404" not in each]
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: Any) -> None:
        """Nothing."""
