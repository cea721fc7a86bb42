"""Labels that the others contradict, near-duplicates, and the order of classes that a person expects."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from report_pages import blobs, example, with_a_wrong_label, written

from fewshot.classification import doubts
from fewshot.classification.class_order import in_natural_order, natural_order
from fewshot.classification.classified import summary
from fewshot.classification.doubts import contradicted_labels, near_duplicates


def test_wrong_labels_are_found_and_right_ones_left_alone() -> None:
    support, labels, query, of_query = blobs()
    probabilities = np.eye(4, dtype=np.float32)[of_query] * 0.9 + 0.025
    assert len(contradicted_labels(support, labels, query, probabilities).places) == 0
    wrong = labels.copy()
    wrong[[2, 13]] = [3, 0]
    found = contradicted_labels(support, wrong, query, probabilities)
    assert sorted(found.places.tolist()) == [2, 13] and (np.diff(found.probabilities) <= 0).all()
    assert dict(zip(found.places.tolist(), found.classes.tolist(), strict=True)) == {2: 0, 13: 2}
    assert (found.probabilities > doubts.CONTRADICTED).all()
    alone = contradicted_labels(support[:1], labels[:1], query[:0], np.zeros((0, 4), np.float32))
    assert len(alone.places) == 0  # nothing is left to contradict it


@pytest.mark.parametrize("at_once", [7, 1024])
def test_near_duplicates_are_the_pairs_above_the_cosine(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 16)).astype(np.float32)
    rows[[5, 29, 28]] = rows[[20, 0, 0]] + 0.01 * rng.normal(size=(3, 16)).astype(np.float32)
    monkeypatch.setattr(doubts, "AT_ONCE", at_once)
    found = near_duplicates(rows[:10], rows[10:])
    centred = rows - rows.mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    expected = {(i, j): centred[i] @ centred[j] for i in range(30) for j in range(i + 1, 30)}
    expected = {pair: cosine for pair, cosine in expected.items() if cosine >= doubts.ALIKE}
    assert found is not None and found.total == len(expected) == 4
    assert {tuple(pair) for pair in found.pairs.tolist()} == expected.keys()
    np.testing.assert_allclose(found.cosines, sorted(expected.values(), reverse=True), atol=1e-6)
    monkeypatch.setattr(doubts, "KEPT", 2)
    fewer = near_duplicates(rows)
    assert fewer is not None and fewer.total == 4 and fewer.pairs.tolist() == found.pairs[:2].tolist()
    monkeypatch.setattr(doubts, "MOST_PRODUCTS", 30 * 30 * 16 - 1)
    assert near_duplicates(rows) is None


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["c1", "c10", "c2"], ["c1", "c2", "c10"]),
        (["b", "A", "a", "10", "9", "a01", "a1"], ["9", "10", "A", "a", "a01", "a1", "b"]),
        (["", "x" + "9" * 5000, "x" + "8" * 5000, "x1y2", "x1y10"],
         ["", "x1y2", "x1y10", "x" + "8" * 5000, "x" + "9" * 5000]),
    ],
)  # fmt: skip
def test_natural_order(names: list[str], expected: list[str]) -> None:
    assert [names[place] for place in natural_order(names)] == expected


def test_an_answer_in_natural_order_is_the_same_answer(tmp_path: Path) -> None:
    plain = example(tmp_path / "a")
    plain.probabilities[0] = 1 / 3  # all alike: the first column wins, wherever it is shown
    plain = dataclasses.replace(plain, class_names=("c1", "c10", "c2"))
    ordered = in_natural_order(plain)
    assert ordered.class_names == ("c1", "c2", "c10") and in_natural_order(ordered) is ordered
    for labels in ("predicted", "predicted_before", "support_labels"):
        names = [[each.class_names[label] for label in getattr(each, labels)] for each in (plain, ordered)]
        assert names[0] == names[1]
    assert (ordered.probabilities[:, 1] == plain.probabilities[:, 2]).all()
    page = written(tmp_path, plain)
    assert page.data["classes"] == ["c1", "c2", "c10"]
    assert page.source.index("1. <bdi>c1</bdi>") < page.source.index("2. <bdi>c2</bdi>")


def test_doubts_are_named_in_the_page(tmp_path: Path) -> None:
    plain = with_a_wrong_label(tmp_path)
    plain.query_features[:2] = plain.support_features[20:21]  # a copy of a labelled one, twice
    page = written(tmp_path, plain)
    section = page.source[page.source.index('<section id="doubts"') : page.source.index('<section id="pictures"')]
    assert "<bdi>s2.png</bdi><br>labelled <strong><bdi>class 3</bdi></strong>, looks like" in section
    assert section.count("cosine 1.000") == 3 and section.count("different classes</strong>") == 2
    assert section.index("different classes") < section.rindex("cosine 1.000")  # they come first
    assert plain.near_duplicates is not None
    told = f"labels that the others contradict: 1, near-duplicates: {plain.near_duplicates.total}"
    assert told in "\n".join(summary(plain, False))
    assert "sub/<wbr>q0.png</bdi>: <bdi>class 0</bdi>" in section and "s20.png</bdi>: labelled <bdi>class 3" in section
