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


def accuracy(rows, labels, words, given=None):
    fitted = FewShotClassifier().fit(rows, [None] * len(rows) if given is None else given, words)
    return (fitted.transduction_ == labels).mean()


@pytest.mark.parametrize("present", [8, 3])
def test_rows_tell_more_than_cosines_do(present):
    cosines, found = [], []
    for seed in range(5):
        rows, labels, words = two_sides(present, seed=seed)
        one, other = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (rows, words))
        cosines.append(((one @ other.T).argmax(1) == labels).mean())
        found.append(accuracy(rows, labels, words))
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


def test_labelled_rows_are_among_those_that_are_looked_at(monkeypatch):
    monkeypatch.setattr(fewshot.classification.drawn_embeddings, "LOOKED_AT", 20)
    rows, labels, words = (torch.from_numpy(array) for array in two_sides())
    last = torch.where(torch.arange(len(labels)) % 12 == 11, labels, -1)
    assert not drawn(rows, words, last, rows.mean(0)).equal(
        drawn(rows, words, torch.full_like(labels, -1), rows.mean(0))
    )
