"""Embeddings of classes beside rows that lie elsewhere."""

import numpy as np
import pytest
import torch

import fewshot.classification.drawn_embeddings
from fewshot import FewShotClassifier
from fewshot.classification.drawn_embeddings import drawn

N, D = 8, 32


def two_sides(present=N, each=12, seed=0):
    """Rows [n, D] of some of the classes, their classes [n], and words [N, D] elsewhere, in directions of their own."""
    random = np.random.default_rng(seed)
    classes = random.normal(size=(N, D))
    labels = np.repeat(np.arange(present), each)
    rows = classes[labels] + 0.7 * random.normal(size=(len(labels), D)) + 2 * random.normal(size=D)
    words = classes + random.normal(size=(N, D)) + 2 * random.normal(size=D)
    return rows.astype(np.float32), labels, words.astype(np.float32)


@pytest.mark.parametrize("present", [8, 3])
def test_rows_tell_more_than_cosines_do(present):
    cosines, found = [], []
    for seed in range(5):
        rows, labels, words = two_sides(present, seed=seed)
        one, other = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (rows, words))
        cosines.append(((one @ other.T).argmax(1) == labels).mean())
        found.append((FewShotClassifier().fit(rows, [None] * len(rows), words).transduction_ == labels).mean())
    assert np.mean(found) > np.mean(cosines) + 0.05


def test_two_rows_that_are_the_same_are_of_the_nearest_class():
    _, _, words = two_sides()
    rows = words - words.mean(0)
    found = [FewShotClassifier().fit(np.stack([row, row]), [None] * 2, words).transduction_ for row in rows]
    np.testing.assert_array_equal(found, np.arange(N).repeat(2).reshape(N, 2))


def test_the_order_of_rows_and_classes_says_nothing():
    rows, labels, words = (torch.from_numpy(array) for array in two_sides())
    places, centre = torch.where(torch.arange(len(labels)) % 12 == 0, labels, -1), torch.zeros(D)
    expected = drawn(rows, words, places, centre)
    order, classes = torch.randperm(len(rows)), torch.randperm(N)
    places = torch.where(places >= 0, classes.argsort()[places], -1)[order]
    torch.testing.assert_close(drawn(rows[order], words[classes], places, centre), expected[classes])


def test_all_labelled_rows_are_among_those_that_are_looked_at(monkeypatch):
    monkeypatch.setattr(fewshot.classification.drawn_embeddings, "LOOKED_AT", 20)
    rows, labels, words = (torch.from_numpy(array) for array in two_sides())
    places, centre = torch.where(torch.arange(len(labels)) % 12 == 11, labels, -1), rows.mean(0)
    expected = drawn(rows, words, places, centre)
    changes = []
    for place in range(len(rows)):
        other = rows.clone()
        other[place] += 1
        changes.append(not drawn(other, words, places, centre).equal(expected))
    assert sum(changes) == 20 and all(changes[place] for place in range(11, 96, 12))


@pytest.mark.slow
def test_the_label_of_a_row_that_is_held_out_tells_nothing():
    random, held_out = np.random.default_rng(0), []
    for _ in range(10):
        noise, words = random.normal(size=(48, 256)).astype("f4"), random.normal(size=(N, 256)).astype("f4")
        fitted = FewShotClassifier(check_refinement=True).fit(noise, [*range(N), *[-1] * 40], words)
        held_out.append(fitted.held_out_)
    assert sum(one.rows for one in held_out) == 80
    assert max(sum(one.right_before for one in held_out), sum(one.right_after for one in held_out)) < 20  # chance: 10
