"""python -m fewshot export: a trained model as files that other programs and other languages run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from fewshot.classification.continued import FOLDER
from fewshot.classification.fitted_graph import FittedGraph
from fewshot.classification.saved_classifier import ABOUT, read_classifier
from fewshot.commands.parser import Parser, add_packages, add_switch
from fewshot.commands.process import quietened
from fewshot.files import check_replaceable, expanded, full_path, written_aside
from fewshot.interop import graphs
from fewshot.interop.export import BACKBONE, HEAD, MANIFEST, PROGRAM, write_graphs
from fewshot.interop.fitted import FITTED_FILES, write_fitted
from fewshot.training.saved_model import FILES, load_trained, write_model


def parser() -> Parser:
    """The options of export."""
    made = Parser(
        prog="python -m fewshot export",
        description="Write a trained model as a folder of the Hugging Face Hub's layout, as torch.export and ONNX "
        "graphs, and a manifest that says how to use them without this package. A fitted classifier becomes one ONNX "
        "graph from pictures to probabilities.",
    )
    made.add_argument(
        "--ckpt_path",
        type=str,
        required=True,
        help="A checkpoint, a run's folder, a saved model, a saved "
        "FewShotClassifier, or what classify --keep_classifier left.",
    )
    made.add_argument("--output", type=str, required=True, help="The folder to write; it must not be there.")
    add_switch(made, "--overwrite", help="Replace an export that is there.")
    made.add_argument(
        "--formats",
        type=list[Literal["onnx", "pt2"]],
        default=["onnx", "pt2"],
        help="Graphs beside the saved model: onnx (backbone and head), pt2 (the backbone by torch.export, which took "
        "the place of TorchScript).",
    )
    made.add_argument(
        "--n_way", type=int | None, default=None, help="Classes that head.onnx is for; null takes those of the run."
    )
    made.add_argument("--license", type=str | None, default=None, help="For the model card: mit, apache-2.0, ...")
    made.add_argument("--results", type=str | None, default=None, help="A results.json whose figures the card shows.")
    add_packages(made)
    return made


def run(arguments: list[str]) -> None:
    """Write the folder and say what is in it.

    Args:
        arguments: those after `export`.

    Raises:
        Exception: of any kind; `fewshot.commands.refusals.refusal_of` tells those that a person can mend.
    """
    with quietened(training=False):
        config = parser().parse_args(arguments)
        if (fitted := fitted_folder(config.ckpt_path)) is not None:
            print(export_fitted(fitted, config))
            return
        if config.formats:
            graphs.check_torch()
        if "onnx" in config.formats:
            graphs.check_packages()
        results = None if config.results is None else read_results(expanded(config.results))
        known = (*FILES, PROGRAM, BACKBONE, HEAD, MANIFEST)
        check_replaceable(full_path(config.output), overwrite=config.overwrite, known=known)
        trained = load_trained(config.ckpt_path, config.packages)
        with written_aside(config.output, overwrite=config.overwrite, known=known) as folder:
            write_model(trained.module, trained.preprocessing, folder, license=config.license, results=results)
            manifest = write_graphs(trained, folder, config.formats, config.n_way)
            names = write_manifest(manifest, folder)
    print(f"written to {config.output}: {', '.join(names)}")
    if reason := manifest["head"].get("left_out"):
        print(f"no {HEAD}: {reason}")


def write_manifest(manifest: Mapping[str, Any], folder: Path) -> list[str]:
    """Write the manifest; returns the names of all files that are there."""
    text = json.dumps(manifest, indent=2, allow_nan=False, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    return sorted(path.name for path in folder.iterdir())


def fitted_folder(given: str) -> Path | None:
    """The folder of the saved classifier that a path names, itself or as what classify left; None where it is neither.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: what classify left, without its classifier.
    """
    place = full_path(given)
    if not place.exists():
        raise FileNotFoundError(
            f"ckpt_path: {place} is not there; name a checkpoint, the folder of a run or of a saved model, or what "
            "classify --keep_classifier wrote"
        )
    for folder in (place, place / FOLDER):
        if (folder / ABOUT).is_file():
            return folder
    if (place / "predictions.csv").is_file() and (place / "report.html").is_file():
        raise ValueError(
            f"ckpt_path: {place} is what classify wrote, and holds no fitted classifier; run classify again with "
            "--keep_classifier"
        )
    return None


def export_fitted(source: Path, config: Any) -> str:
    """Write a fitted classifier; returns what to say.

    Args:
        source: the folder that FewShotClassifier.save wrote.
        config: the options.

    Raises:
        ValueError: options that do not go with one, or a classifier that is no graph.
    """
    for name in ("n_way", "license", "results"):
        if getattr(config, name) is not None:
            raise ValueError(f"{name}: {source} is a fitted classifier, and {name} is about a model; leave it out")
    if "onnx" not in config.formats:
        raise ValueError(f"formats: {source} is a fitted classifier, which is written as onnx; leave --formats out")
    graphs.check_torch()
    graphs.check_packages()
    check_replaceable(full_path(config.output), overwrite=config.overwrite, known=FITTED_FILES)
    fitted = read_classifier(source, config.packages)
    if fitted.adapted.head is None and (reason := graphs.head_refusal(fitted.method)):
        raise ValueError(f"ckpt_path: {reason}; fit with another method, such as UniversalSIB or PTMAP")
    model = {
        "backbone": None if fitted.module is None else fitted.module.backbone_config.name,
        "method": type(fitted.method).__name__,
        "n_features": fitted.adapted.support.shape[-1],
        "temperature": fitted.adapted.temperature,
    }
    with written_aside(config.output, overwrite=config.overwrite, known=FITTED_FILES) as folder:
        manifest = write_fitted(FittedGraph(fitted), fitted.classes, model, folder, fitted.preprocessing)
        names = write_manifest(manifest, folder)
    return f"written to {config.output}: {', '.join(names)}"


def read_results(file: Path) -> dict[str, Any]:
    """What a results.json holds; ValueError where it is none."""
    if not file.is_file():
        raise FileNotFoundError(f"results: no file {file}")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"results: {file} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"results: {file} holds {type(found).__name__}, not what a test wrote")
    return found
