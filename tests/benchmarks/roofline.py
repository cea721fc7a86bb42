"""How near methods come to what the machine can do: an episode's least bytes and operations, and the time it takes.

The machine's memory bandwidth and multiply rate are measured first. An episode cannot be classified faster than its
features and the method's weights are read, nor than the products are done that the method consists of; the larger of
the two times is the limit. Where a method is known to need fewer products than it is made of, the fewer count: S + Q
examples span at most S + Q dimensions, so that rounds which rotations leave alone need no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fewshot import methods
from fewshot.methods import BaseClasses, Method
from tests.benchmarks.measuring import say, table

TITLE = "Share of the machine's limit (1 shot, 15 queries a class, inference, 16 tasks a batch)"
TASKS, QUERIES = 16, 15
SINKHORN = 40
"""Operations of an entry in one assignment by transport, of a few classes: five steps of Newton's."""


class Size(NamedTuple):
    """Of an episode: support examples, queries, classes, features."""

    s: int
    q: int
    n: int
    d: int

    @property
    def span(self) -> int:
        """Dimensions that the examples span."""
        return min(self.d, self.s + self.q)

    @property
    def gram(self) -> int:
        """Multiplications and additions of all inner products of the examples, which are symmetric."""
        return (self.s + self.q) ** 2 * self.d


def products(*factors: int) -> int:
    """Multiplications and additions of a product of matrices."""
    found = 2
    for factor in factors:
        found *= factor
    return found


def clustering(size: Size, rounds: int, width: int, plans: int = 0) -> int:
    """Rounds of distances, assignments and means, after the examples have been brought to so many dimensions."""
    each = 2 * products(size.q, size.n, width) + plans * SINKHORN * size.q * size.n
    return size.gram + rounds * each


LEAST: dict[str, Callable[[Any, Size], int]] = {
    "NearestClassMean": lambda m, z: products(z.q, z.n, z.d),
    "SimpleShot": lambda m, z: products(z.q, z.n, z.d),
    "BDCSPN": lambda m, z: 3 * products(z.q, z.n, z.d),
    "LogisticRegression": lambda m, z: z.s**2 * z.d + products(z.q, z.s, z.d),
    "RidgeRegression": lambda m, z: z.s**2 * z.d + products(z.q, z.s, z.d),
    "LaplacianShot": lambda m, z: z.q**2 * z.d + 2 * products(z.q, z.n, z.d),
    "TIM": lambda m, z: m.descent.n_iterations * 2 * products(z.s + z.q, z.n, z.d),
    "AlphaTIM": lambda m, z: m.descent.n_iterations * 2 * products(z.s + z.q, z.n, z.d),
    "PADDLE": lambda m, z: clustering(z, m.n_iterations, z.span),
    "StatA": lambda m, z: m.n_iterations * 4 * products(z.q, z.n, z.d),
    "UNEM": lambda m, z: clustering(z, m.n_steps, z.span),
    "PTMAP": lambda m, z: clustering(z, m.n_rounds, z.span, plans=1),
    "EaseSiamese": lambda m, z: clustering(z, m.n_rounds, m.n_dimensions, plans=1),
    "ProtoLP": lambda m, z: clustering(z, m.n_rounds, m.n_dimensions, plans=2),
    "ILPC": lambda m, z: z.gram + z.q // (3 * z.n) * m.n_head_steps * products(z.s + z.q, z.s + z.q, z.n),
    "SIB": lambda m, z: (
        min(z.gram + m.n_steps * products(z.q, z.q, z.n), m.n_steps * 2 * products(z.q, z.n, z.d))
        + products(z.q, z.n, z.d)
        + m.n_steps * products(z.q, 80, z.n, z.n)
    ),
}
"""Of the methods that are not listed the products are counted while they run."""
SKIPPED = ("ANIL", "MAML", "TADAM", "TransductiveFineTuning", "LEO")
"""They work on pictures, need a classifier that came from pre-training, or (LEO) take gradients, whose products the
counter cannot follow."""


def made(n_way: int, width: int, device: torch.device) -> Iterator[tuple[str, Method]]:
    """Every method that works on features alone, for so many ways and features."""
    for name in sorted(methods.__all__):
        kind = getattr(methods, name)
        if not (isinstance(kind, type) and issubclass(kind, Method)) or kind is Method or name in SKIPPED:
            continue
        if name == "SIB":
            method: Method = methods.SIB(gradient=methods.MLPGradient(n_way))
        else:
            try:
                method = kind(n_way=n_way)
            except TypeError:
                method = kind()
        method.build(width)
        method = method.to(device).eval()
        if method.needs_base is not None:
            zero = torch.zeros(width, device=device)
            method.prepare(BaseClasses(zero, zero.new_zeros(0, width)))
        yield name, method


def tasks(n_tasks: int, n_way: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Support, its labels and queries: clouds about random centres, through a ReLU."""
    generator = torch.Generator().manual_seed(0)
    centres = 0.8 * torch.randn(n_tasks, n_way, width, generator=generator)
    drawn = [
        (centres.repeat_interleave(each, 1) + torch.randn(n_tasks, n_way * each, width, generator=generator)).relu()
        for each in (1, QUERIES)
    ]
    labels = torch.arange(n_way, device=device).expand(n_tasks, -1)
    return drawn[0].to(device), labels, drawn[1].to(device)


def seconds(run: Callable[[], object], device: torch.device, *, least: float) -> float:
    """Of one call, the best of several that take so long together; the first does not count."""
    best, begun = float("inf"), time.perf_counter()
    run()
    while best == float("inf") or time.perf_counter() - begun < least:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def limits(device: torch.device, *, quick: bool) -> tuple[float, float]:
    """Bytes a second, read and written, of a copy, and multiplications and additions a second of a product."""
    numbers = torch.rand(2**20 if quick else 2**26, device=device)
    aside = torch.empty_like(numbers)
    side = 256 if quick else 2048
    square = torch.rand(side, side, device=device)
    copied = seconds(lambda: aside.copy_(numbers), device, least=0.0 if quick else 1.0)
    multiplied = seconds(lambda: square @ square, device, least=0.0 if quick else 1.0)
    return 2 * numbers.nbytes / copied, products(side, side, side) / multiplied


def row(
    name: str, method: Method, width: int, n_way: int, device: torch.device, rates: tuple[float, float], *, quick: bool
) -> list[object]:
    """Of one method: what an episode needs, how many are done a second, and the share of the limit."""
    support, labels, query = tasks(2 if quick else TASKS, n_way, width, device)
    size = Size(support.shape[1], query.shape[1], n_way, width)
    with torch.inference_mode():
        if name in LEAST:
            operations = LEAST[name](method, size)
        else:
            with FlopCounterMode(display=False) as counter:
                method.refine(support[:1], labels[:1], query[:1], n_way)
            operations = counter.get_total_flops()
        spent = seconds(lambda: method.refine(support, labels, query, n_way), device, least=0.0 if quick else 0.5)
    moved = 4 * (size.s + size.q) * width + sum(p.nbytes for p in method.parameters()) / len(support)
    limit = max(moved / rates[0], operations / rates[1])
    spent /= len(support)
    return [name, moved / 2**20, operations / 1e6, 1 / spent, 100 * limit / spent]


def run(*, quick: bool = False) -> str:
    """A table for every device, number of features and of ways, the furthest from its limit first."""
    torch.manual_seed(0)
    tables = []
    devices = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    for device in devices:
        rates = limits(device, quick=quick)
        told = (
            f"{device.type}, {torch.get_num_threads()} threads: {rates[0] / 1e9:.1f} GB/s, {rates[1] / 1e9:.0f} GFLOP/s"
        )
        for width, n_way in [(64, 3)] if quick else [(640, 5), (640, 20), (1280, 5), (1280, 20)]:
            say(f"{told}; D = {width}, {n_way} ways ...")
            rows = [
                row(name, method, width, n_way, device, rates, quick=quick)
                for name, method in made(n_way, width, device)
            ]
            rows.sort(key=lambda found: found[-1])
            header = [f"D = {width}, {n_way} ways", "least MiB", "least MFLOP", "episodes/s", "% of the limit"]
            tables.append(f"{told}\n\n{table(header, rows)}")
    return "\n\n".join(tables)
