"""A fitted classifier as one ONNX graph from pictures to probabilities, its manifest, and a page that runs it."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewshot.data.transforms import Preprocessing
from fewshot.interop import graphs
from fewshot.interop.export import MANIFEST, MANIFEST_FORMAT, sha256, steps
from fewshot.training.versions import versions

CLASSIFIER, PAGE = "classifier.onnx", "index.html"
FITTED_FILES = (CLASSIFIER, PAGE, MANIFEST)


def write_fitted(
    graph: nn.Module, classes: list[Any], model: dict[str, Any], folder: Path, preprocessing: Preprocessing | None
) -> dict[str, Any]:
    """Write the graph, checked against PyTorch, and for pictures the page; returns the manifest.

    Args:
        graph: probabilities [B, N] of stored pictures uint8 [B, C, S, S], or of features [B, D].
        classes: N labels, in the order of its columns.
        model: what the manifest says of it, n_features among that.
        folder: where; it is there.
        preprocessing: how pictures come to S pixels; None where rows are features.

    Raises:
        ValueError: it cannot be followed or has no ONNX, or gives other probabilities there.
    """
    graph = copy.deepcopy(graph).to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
    graph.eval().requires_grad_(False)
    name = "features" if preprocessing is None else "pictures"
    what = "the fitted classifier"
    batch = torch.export.Dim("batch", min=1, max=2**20)
    sizes: tuple[int, ...] = (model["n_features"],)
    if preprocessing is not None:
        sizes = (preprocessing.channels, preprocessing.stored_size, preprocessing.stored_size)
    program = graphs.exported(graph, (examples(graphs.EXAMPLE_BATCH, sizes),), ({0: batch},), what=what)
    opset = graphs.save_onnx(program, folder / CLASSIFIER, inputs=[name], outputs=["probabilities"], what=what)
    check_fitted(graph, sizes, name, folder / CLASSIFIER)
    if preprocessing is not None:
        shutil.copyfile(Path(__file__).with_name("page.html"), folder / PAGE)
    return {
        "format": MANIFEST_FORMAT,
        "model": model,
        "classes": classes,
        "preprocessing": None
        if preprocessing is None
        else {**preprocessing.of_evaluation(), "steps": steps(preprocessing, normalised=False)},
        "classifier": {
            "input": {name: ["B", *sizes]},
            "output": {"probabilities": ["B", len(classes)]},
            "dtype": {name: "float32" if preprocessing is None else "uint8", "probabilities": "float32"},
            "labels": "column c of the probabilities is the class c of `classes`, counted from 0",
            "opset": opset,
            "queries": "classified one by one: which others there are changes nothing",
        },
        "files": {path.name: sha256(path) for path in sorted(folder.iterdir())},
        "versions": versions(),
    }


def examples(number: int, sizes: tuple[int, ...]) -> Tensor:
    """So many pictures uint8 [B, C, S, S], or features [B, D]; the same every time."""
    generator = torch.Generator().manual_seed(number)
    if len(sizes) == 1:
        return torch.randn(number, *sizes, generator=generator)
    return torch.randint(0, 256, (number, *sizes), generator=generator, dtype=torch.uint8)


@torch.no_grad()
def check_fitted(graph: nn.Module, sizes: tuple[int, ...], name: str, path: Path) -> None:
    """ValueError where the file gives other probabilities than PyTorch, for one picture and for several."""
    run = graphs.onnx_session(path)
    for number in (1, 2, graphs.EXAMPLE_BATCH + 2):
        rows = examples(number, sizes)
        difference = float(np.abs(run(**{name: rows.numpy()})[0] - graph(rows).numpy()).max())
        if not difference <= graphs.TOLERANCE:
            raise ValueError(f"{path.name} gives other probabilities than PyTorch for {number}: by {difference:.1e}")
