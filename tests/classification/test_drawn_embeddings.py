"""Embeddings of classes beside rows that lie elsewhere."""

import numpy as np
import pytest
import safetensors.torch
import torch

import fewshot.classification.drawn_embeddings
from fewshot import FewShotClassifier
from fewshot.classification.drawn_embeddings import DrawnEmbeddings
from fewshot.classification.row_view import SHRINKAGE, whitening_of
from fewshot.functional.features import normalized

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


@pytest.mark.parametrize("seed", [0, 3])
def test_the_order_of_rows_and_classes_says_nothing(seed):
    rows, labels, words = (torch.from_numpy(array) for array in two_sides(seed=seed))
    places, centre = torch.where(torch.arange(len(labels)) % 12 == 0, labels, -1), torch.zeros(D)
    expected = DrawnEmbeddings(rows, words, places, centre)
    order, classes = torch.randperm(len(rows)), torch.randperm(N)
    of_rows = torch.where(places >= 0, classes.argsort()[places], -1)[order]
    found = DrawnEmbeddings(rows[order], words[classes], of_rows, centre)
    near = {"rtol": 1e-3, "atol": 1e-4} if seed else {}  # an inverse root is less exact
    assert (expected.view.whitening is None) == (seed == 0)
    torch.testing.assert_close(found.view.whitening, expected.view.whitening, **near)
    torch.testing.assert_close(found.drawn(of_rows), expected.drawn(places)[classes], **near)


def test_all_labelled_rows_are_among_those_that_are_looked_at(monkeypatch):
    monkeypatch.setattr(fewshot.classification.drawn_embeddings, "LOOKED_AT", 20)
    rows, labels, words = (torch.from_numpy(array) for array in two_sides())
    places, centre = torch.where(torch.arange(len(labels)) % 12 == 11, labels, -1), rows.mean(0)
    expected = DrawnEmbeddings(rows, words, places, centre).drawn(places)
    changes = []
    for place in range(len(rows)):
        other = rows.clone()
        other[place] += 1
        changes.append(not DrawnEmbeddings(other, words, places, centre).drawn(places).equal(expected))
    assert sum(changes) == 20 and all(changes[place] for place in range(11, 96, 12))


def slanted(present=N, seed=0, each=30):
    """As two_sides, where rows scatter most along a few directions that say nothing of classes."""
    rows, labels, words = two_sides(present, each, seed)
    random = np.random.default_rng([seed, 1])
    along = random.normal(size=(3, D))
    return (rows + 0.8 * random.normal(size=(len(rows), 3)) @ along).astype(np.float32), labels, words


def test_directions_along_which_classes_scatter_count_for_less(monkeypatch):
    whitened = [share_right(*slanted(seed=seed)) for seed in range(5)]
    monkeypatch.setattr(fewshot.classification.drawn_embeddings, "whitening_of", lambda rows, shares: torch.eye(D))
    plain = [share_right(*slanted(seed=seed)) for seed in range(5)]
    assert np.mean(whitened) > np.mean(plain) + 0.05


def share_right(rows, labels, words):
    return (FewShotClassifier().fit(rows, [None] * len(rows), words).transduction_ == labels).mean()


def test_rows_are_whitened_where_nearly_all_classes_have_some_and_without_their_labels():
    for present in (8, 3):
        rows, labels, words = (torch.from_numpy(array) for array in two_sides(present, seed=3))
        nothing, all_known = torch.full_like(labels, -1), labels
        views = [DrawnEmbeddings(rows, words, places, rows.mean(0)).view for places in (nothing, all_known)]
        if present == 3:
            assert [view.whitening for view in views] == [None, None]
        else:
            assert views[0].whitening is not None and views[0].whitening.equal(views[1].whitening)
            assert not views[0].whitening.requires_grad  # which would keep all that the head computed


def test_wide_rows_are_not_whitened(monkeypatch):
    rows, labels, words = (torch.from_numpy(array) for array in two_sides(seed=3))
    given = rows, words, torch.full_like(labels, -1), rows.mean(0)
    assert DrawnEmbeddings(*given).view.whitening is not None
    monkeypatch.setattr(fewshot.classification.drawn_embeddings, "MOST_FEATURES", D - 1)
    assert DrawnEmbeddings(*given).view.whitening is None


def test_whitening_is_the_shrunk_inverse_root_of_the_scatter_within_classes():
    rows = normalized(torch.randn(40, 5, dtype=torch.float64) * torch.tensor([3.0, 1, 1, 0.5, 0.1]))
    labels = torch.arange(40) % 4
    means = torch.stack([rows[labels == label].mean(0) for label in range(4)])
    scatter = (rows - means[labels]).T @ (rows - means[labels]) / 40
    expected = (1 - SHRINKAGE) * scatter / (scatter.trace() / 5) + SHRINKAGE * torch.eye(5)
    found = whitening_of(rows, torch.eye(4, dtype=torch.float64)[labels])
    torch.testing.assert_close(found @ expected @ found, torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(found, found.T)
    one_point = normalized(torch.ones(6, 5))  # nothing but rounding to whiten by
    alike = whitening_of(one_point, torch.ones(6, 1))
    torch.testing.assert_close(alike, alike[0, 0] * torch.eye(5), rtol=0, atol=1e-3)


def test_a_whitened_classifier_comes_back_and_serves_later_rows(tmp_path):
    rows, _, words = slanted()
    fitted = FewShotClassifier().fit(rows, [None] * len(rows), words)
    assert (fitted.predict(rows) == fitted.transduction_).mean() > 0.9
    fitted.save(tmp_path / "saved")
    np.testing.assert_array_equal(
        FewShotClassifier.load(tmp_path / "saved").predict_proba(rows), fitted.predict_proba(rows)
    )
    file = tmp_path / "saved" / "classifier.safetensors"
    tensors = safetensors.torch.load(file.read_bytes())
    tensors["whitening"] = tensors["whitening"][:, 1:].contiguous()
    file.write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt"}))
    with pytest.raises(ValueError, match=f"does not fit {N} classes of {D} features"):
        FewShotClassifier.load(tmp_path / "saved")


@pytest.mark.slow
def test_the_label_of_a_row_that_is_held_out_tells_nothing():
    random, held_out = np.random.default_rng(0), []
    for _ in range(10):
        noise, words = random.normal(size=(48, 256)).astype("f4"), random.normal(size=(N, 256)).astype("f4")
        fitted = FewShotClassifier(check_refinement=True).fit(noise, [*range(N), *[-1] * 40], words)
        held_out.append(fitted.held_out_)
    assert sum(one.rows for one in held_out) == 80
    assert max(sum(one.right_before for one in held_out), sum(one.right_after for one in held_out)) < 20  # chance: 10
