"""Reports of made-up answers, for their tests, and what stands in them."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fewshot.classification.classified import Classified
from fewshot.classification.report import write_report

NASTY = (
    "<img src=x onerror=alert(1)>.png",
    "</script><script>document.title = 'gone'</script>.png",
    "<!--<script>.png",
    "a\"b'c&amp;d&.png",
    "$title ${x} {0} %s.png",
    "日本語 の写真.png",
    "שלום‮gpj.exe",
    "👩🏽‍🚀 🐈.png",
    "n" * 300 + ".png",
    "two\nlines\x00.png",
    "not UTF-8 \udcff.png",
)


def example(folder: Path, *, n_classes: int = 3, n_shots: int = 2, n_queries: int = 24, seed: int = 0) -> Classified:
    """Pictures of noise on disk, with features and probabilities that are random numbers."""
    rng = np.random.default_rng(seed)
    support, query = ([folder / f"{kind}{i}.png" for i in range(n)] for kind, n in
                      (("s", n_classes * n_shots), ("q", n_queries)))  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for path in support + query:
        Image.fromarray(rng.integers(0, 256, (8, 10, 3)).astype(np.uint8)).save(path)
    scores = rng.normal(size=(2, n_queries, n_classes)) * 2
    before, after = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    novelty = rng.random(n_queries)
    return Classified(
        class_names=tuple(f"class {c}" for c in range(n_classes)),
        support=tuple(support),
        support_labels=np.repeat(np.arange(n_classes), n_shots),
        query=tuple(query),
        query_names=tuple(f"sub/{path.name}" for path in query),
        support_features=rng.normal(size=(len(support), 7)).astype(np.float32),
        query_features=rng.normal(size=(n_queries, 7)).astype(np.float32),
        before=before,
        probabilities=after,
        novelty=novelty,
        novelty_threshold=float(np.quantile(novelty, 0.8)),
        settings={"method": "PTMAP", "torch": "2.6.0"},
    )


def blobs(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Six labelled rows and twenty queries of each of four classes, [S, 32], [S], [Q, 32], and labels [Q]."""
    rng = np.random.default_rng(seed)
    centres = rng.random((4, 32)) * 3
    labels, of_query = np.repeat(np.arange(4), 6), np.repeat(np.arange(4), 20)
    support, query = (centres[y] + rng.random((len(y), 32)) for y in (labels, of_query))
    return support.astype(np.float32), labels, query.astype(np.float32), of_query


def with_a_wrong_label(folder: Path) -> Classified:
    """Four classes that lie apart; the third labelled picture is of class 0, and is said to be of class 3."""
    support, labels, query, of_query = blobs()
    labels[2] = 3
    probabilities = np.eye(4)[of_query] * 0.9 + 0.025
    plain = example(folder / "a", n_classes=4, n_shots=6, n_queries=80)
    return dataclasses.replace(plain, support_features=support, support_labels=labels, query_features=query,
                               before=probabilities, probabilities=probabilities)  # fmt: skip


def with_nasty_names(classified: Classified) -> Classified:
    """The same with names that a careless page would run or fall apart from, wherever names stand."""
    names = NASTY + classified.query_names[len(NASTY) :]
    return dataclasses.replace(
        classified,
        class_names=NASTY[: len(classified.class_names)],
        query_names=names[: len(classified.query)],
        skipped=tuple((Path(name.replace("\0", "")), name) for name in NASTY),
        settings=dict(zip(NASTY, reversed(NASTY), strict=True)),
    )


class Page(HTMLParser):
    """A page in pieces: elements with their attributes, text by element, cards of the grid."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.source = file.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        tag = self.elements[-1][0] if self.elements else ""
        self.texts.setdefault(tag, []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of every element of that tag."""
        return [attributes for found, attributes in self.elements if found == tag]

    @property
    def data(self) -> dict[str, Any]:
        """What the page's own script is given."""
        text = re.search('<script type="application/json" id="data">(.*?)</script>', self.source, re.DOTALL)
        assert text is not None
        found: dict[str, Any] = json.loads(text[1])
        return found

    @property
    def cards(self) -> list[str]:
        """The markup of each query of the grid."""
        grid = re.search('<ul id="grid" class="grid">\n(.*?)\n</ul>', self.source, re.DOTALL)
        assert grid is not None
        return grid[1].split("\n")

    @property
    def summary(self) -> str:
        """The sentences at the top, without markup."""
        found = re.search('<ul class="summary">(.*?)</ul>', self.source, re.DOTALL)
        assert found is not None
        return re.sub("<[^>]+>", "", found[1]).replace("&nbsp;", " ")


def written(folder: Path, classified: Classified, **options: Any) -> Page:
    """The page written for it."""
    write_report(folder / "report.html", classified, **options)
    return Page(folder / "report.html")
