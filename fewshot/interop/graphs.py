"""A model as graphs that run without this package: torch.export programs and ONNX, checked against PyTorch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewshot.methods import (
    SIB,
    ImprintedWeights,
    Method,
    NearestClassMean,
    ProtoNet,
    SimpleShot,
    TransportSIB,
    UniversalSIB,
)
from fewshot.methods.query_gradients import MLPGradient

HEADS = (SIB, TransportSIB, UniversalSIB, NearestClassMean, ProtoNet, SimpleShot, ImprintedWeights)
"""Methods of this package whose steps are a fixed number of operators; a method of a person's own is tried."""
OLDEST_TORCH = (2, 9)
"""From here on the exporter used here is torch's default; earlier ones have not been tried."""
NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
"""How far features (relative to the largest of them) and probabilities may be from PyTorch's."""
EXAMPLE_BATCH = 3
"""Pictures that the backbone is followed with; neither 0 nor 1, which torch.export takes for fixed."""


class Head(nn.Module):
    """A method on the features of one task, with the support's labels, as probabilities after and before refinement.

    Args:
        method: in evaluation mode.
        n_way: N.
        temperature: probabilities are softmax(logits / temperature).
    """

    def __init__(self, method: Method, n_way: int, temperature: float = 1.0) -> None:
        super().__init__()
        self.method, self.n_way, self.temperature = method, n_way, temperature

    def forward(self, support: Tensor, support_labels: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """[Q, N] twice, from support [S, D], support_labels [S] int64 and query [Q, D]."""
        tasks = (support.unsqueeze(0), support_labels.unsqueeze(0), query.unsqueeze(0))
        logits = self.method.refine(*tasks, self.n_way).logits[:, 0] / self.temperature  # [K+1, Q, N]
        before, after = logits[0].softmax(-1), logits[-1].softmax(-1)
        if torch.compiler.is_exporting() and isinstance(getattr(self.method, "gradient", None), MLPGradient):
            # a graph is made for several queries; a single one is not refined, see MLPGradient
            several = torch.ones_like(query[:, 0]).sum() > 1.5
            after = torch.where(several, after, before)
        return after, before


def check_packages() -> None:
    """Raise ValueError where what writes and checks ONNX is not installed; says what to install."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"ONNX needs {', '.join(missing)}, not installed here: pip install 'fewshot[export]', or leave ONNX out by "
            "--formats '[pt2]'"
        )


def check_torch() -> None:
    """Raise ValueError where torch is older than what the exporters here were written for."""
    found = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if found < OLDEST_TORCH:
        raise ValueError(
            f"graphs are exported by torch {'.'.join(map(str, OLDEST_TORCH))} or newer, here is {torch.__version__}; "
            "install a newer one, or write the saved model alone by --formats '[]'"
        )


def head_refusal(method: Method) -> str | None:
    """Why a method cannot be a graph of its own, in one sentence; None where it may."""
    name = type(method).__name__
    if not method.on_features:
        return f"{name} adapts the backbone's own weights to a task, so that there is no head on features"
    if isinstance(method, HEADS) or type(method).__module__.split(".")[0] != "fewshot":
        return None
    return f"{name} iterates until its data say so or calls solvers that ONNX has no operators for"


def backbone_program(backbone: Any, image_size: int) -> Any:
    """The backbone as a torch.export program: pictures [B, C, S, S] to features [B, D] for any B; S is image_size.

    Raises:
        ValueError: torch.export cannot follow the network; says why.
    """
    network = copy.deepcopy(backbone).to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
    network.to("cpu", torch.float32)
    example = torch.zeros(EXAMPLE_BATCH, backbone.in_chans, image_size, image_size)
    batch = torch.export.Dim("batch", min=1, max=2**20)
    return exported(network, (example,), ({0: batch},), what="the backbone")


def head_program(head: Head, n_features: int) -> Any:
    """The head as a torch.export program for any numbers of support and query features."""
    head = copy.deepcopy(head).to("cpu", torch.float32).eval().requires_grad_(False)
    any_size = torch.export.Dim.DYNAMIC
    example = example_task(head.n_way, n_features, n_support=2 * head.n_way, n_query=3 * head.n_way)
    return exported(head, example, ({0: any_size}, {0: any_size}, {0: any_size}), what="the head")


def example_task(n_way: int, n_features: int, *, n_support: int, n_query: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features [S, D] around one point a class, labels [S] and queries [Q, D]; the same every time."""
    generator = torch.Generator().manual_seed(n_support * 1000 + n_query)
    centres = torch.randn(n_way, n_features, generator=generator)
    labels, hidden = torch.arange(n_support) % n_way, torch.arange(n_query) % n_way
    support, query = (
        (centres[of] + torch.randn(len(of), n_features, generator=generator)).relu() for of in (labels, hidden)
    )
    return support, labels, query


def save_onnx(program: Any, path: Path, *, inputs: list[str], outputs: list[str], what: str) -> int:
    """Write a program as one ONNX file; returns the version of the operator set.

    Raises:
        ValueError: it holds an operator that ONNX does not have.
    """
    try:
        made = torch.onnx.export(program, dynamo=True, input_names=inputs, output_names=outputs, verbose=False)
        assert made is not None
        made.save(path, external_data=False)
        _without_sources(path)
    except Exception as error:  # the exporter has a dozen kinds
        raise ValueError(f"{what} cannot be written as ONNX: {_reason(error)}") from error
    return int(made.model.opset_imports[""])


def onnx_session(path: Path) -> Callable[..., list[np.ndarray]]:
    """What runs an ONNX file: input arrays by name to the list of outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda **arrays: session.run(None, arrays)


@torch.no_grad()
def check_backbone(backbone: Any, run: Callable[[Tensor], Tensor | np.ndarray], *, image_size: int, what: str) -> None:
    """ValueError where a graph gives other features than PyTorch, for one picture and for several."""
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, EXAMPLE_BATCH + 2):
        pictures = torch.randn(n, backbone.in_chans, image_size, image_size, generator=generator)
        wanted = backbone(pictures)
        difference = float((torch.as_tensor(run(pictures)) - wanted).abs().max() / wanted.abs().max().clamp_min(1e-6))
        if not difference <= TOLERANCE:
            raise ValueError(f"{what} gives other features than PyTorch for {n} picture(s): by {difference:.1e}")


@torch.no_grad()
def check_head(head: Head, n_features: int, run: Callable[..., list[np.ndarray]]) -> None:
    """ValueError where the ONNX head gives other probabilities than PyTorch, at tasks of several sizes."""
    n_way = head.n_way
    for n_support, n_query in ((n_way, 1), (n_way, 15 * n_way), (5 * n_way + 1, 2), (3 * n_way, 40 * n_way + 3)):
        support, labels, query = example_task(n_way, n_features, n_support=n_support, n_query=n_query)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*normalises over the queries.*got 1")
            wanted = head(support, labels, query)
        found = run(support=support.numpy(), support_labels=labels.numpy(), query=query.numpy())
        difference = max(float(np.abs(one - two.numpy()).max()) for one, two in zip(found, wanted, strict=True))
        if not difference <= TOLERANCE:
            raise ValueError(
                f"the graph gives other probabilities than PyTorch for {n_support} support and {n_query} query "
                f"pictures: by {difference:.1e}"
            )


def exported(module: nn.Module, example: tuple[Tensor, ...], sizes: Any, *, what: str) -> Any:
    """A module as a torch.export program.

    Args:
        module: in evaluation mode, float32, on the CPU.
        example: its arguments.
        sizes: which of their sizes may change, as torch.export says it.
        what: begins errors.

    Raises:
        ValueError: torch.export cannot follow it; says why.
    """
    try:
        with torch.no_grad():
            program = torch.export.export(module, example, dynamic_shapes=sizes)
    except Exception as error:  # torch.export raises what it meets
        raise ValueError(
            f"{what} cannot be followed by torch.export: {_reason(error)}. What its code does may not depend on the "
            "numbers that it is given; take another method or backbone, or change yours"
        ) from error
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # files of this machine
    return program


def _without_sources(path: Path) -> None:
    """Take what every operator of an ONNX file says of the Python files it came from out of it."""
    import onnx

    model = onnx.load(path)
    for graph in (model.graph, *model.functions):
        for node in graph.node:
            del node.metadata_props[:]
    onnx.save(model, path)


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause that says anything."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
