"""Labelled rows held out before and after refinement, and the answer before where refinement hurts."""

import numpy as np
import pytest
import torch

from fewshot import FewShotClassifier
from fewshot.classification.held_out import HeldOut
from fewshot.methods.base import Method, Refinement
from fewshot.methods.nearest_mean import NearestClassMean


class Swapping(Method):
    """Right before refinement; after it every class is the next one."""

    def refine(self, support, support_labels, query, n_way):
        logits = NearestClassMean().classify(support, support_labels, query, n_way)
        return Refinement(torch.stack([logits, logits.roll(1, -1)]))


def blobs(shots, others=20):
    rng = np.random.default_rng(0)
    numbers = np.arange(3 * (shots + others)) % 3
    rows = 5 * np.eye(3, 6)[numbers] + rng.normal(size=(len(numbers), 6))
    return rows, [*numbers[: 3 * shots].tolist(), *[None] * (3 * others)], numbers[3 * shots :]


def test_refinement_that_hurts_is_not_given():
    rows, labels, truth = blobs(4)
    plain = FewShotClassifier(method=Swapping(), temperature=1).fit(rows, labels)
    assert plain.held_out_ is None and plain.transduction_proba_.argmax(1).tolist() != truth.tolist()
    checked = FewShotClassifier(method=Swapping(), check_refinement=True).fit(rows, labels)
    assert checked.held_out_ == HeldOut(12, 12, 0, 12) and checked.held_out_.hurts
    assert np.array_equal(checked.transduction_proba_, checked.initial_proba_)
    assert checked.transduction_proba_.argmax(1).tolist() == truth.tolist() == checked.predict(rows[12:]).tolist()
    assert checked.transduction_proba_.max(1).mean() > 0.9  # the temperature is of the answer before


def test_refinement_that_helps_is_given_and_one_shot_cannot_be_checked():
    rows, labels, _ = blobs(3)
    plain, checked = (FewShotClassifier(check_refinement=check).fit(rows, labels) for check in (False, True))
    assert np.array_equal(plain.transduction_proba_, checked.transduction_proba_)
    assert checked.held_out_.rows == 9 and not checked.held_out_.hurts
    rows, labels, _ = blobs(1)
    alone = FewShotClassifier(check_refinement=True).fit(rows, labels)
    assert alone.held_out_ == HeldOut(0) and "cannot be checked" in str(alone.held_out_)
    assert FewShotClassifier(method="SimpleShot", check_refinement=True).fit(rows, labels).held_out_ is None


def test_no_more_are_held_out_than_it_takes(monkeypatch):
    rows, labels, _ = blobs(4)
    for enough, held in ((1, 3), (3, 3), (4, 6), (100, 12)):  # one of each of three classes at a time
        monkeypatch.setattr("fewshot.classification.held_out.ENOUGH", enough)
        assert FewShotClassifier(check_refinement=True).fit(rows, labels).held_out_.rows == held


@pytest.mark.parametrize(
    ("found", "chance", "hurts"),
    [
        (HeldOut(25, 20, 15, 5), 1 / 32, True),
        (HeldOut(25, 20, 16, 4), 1 / 16, False),
        (HeldOut(25, 20, 16, 5), 7 / 64, False),  # five lost and one won
        (HeldOut(25, 20, 22, 0), 1.0, False),
        (HeldOut(0), 1.0, False),
    ],
)
def test_worse_than_chance(found, chance, hurts):
    assert found.chance == pytest.approx(chance) and found.hurts is hurts
