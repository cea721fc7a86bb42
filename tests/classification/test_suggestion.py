"""Rows to label: typical and apart at first, uncertain and apart later, the same for the same input."""

import numpy as np
import pytest

from fewshot.classification.suggestion import LOOKED_AT, first_to_label, next_to_label, uncertainty


def groups(rng, sizes, width=16):
    """Rows about so many far centres, and the group of each."""
    centres = 4 * rng.standard_normal((len(sizes), width))
    group = np.repeat(np.arange(len(sizes)), sizes)
    return (centres[group] + 0.3 * rng.standard_normal((len(group), width))).astype(np.float32), group


def test_the_first_ones_are_of_every_group_and_never_the_stray_row():
    rows, group = groups(np.random.default_rng(0), [30, 20, 25, 1, 40])
    found = first_to_label(rows, 4)
    assert sorted(group[found]) == [0, 1, 2, 4] and group[found[0]] == 4
    assert np.array_equal(found, first_to_label(rows.copy(), 4))


def test_the_next_ones_are_uncertain_and_far_from_those_labelled():
    rows, group = groups(np.random.default_rng(1), [30, 30, 30, 30])
    probabilities = np.full((120, 2), 0.5)
    probabilities[group == 0] = [0.99, 0.01]
    found = next_to_label(rows, probabilities, 2, rows[group == 1][:5])
    assert sorted(group[found]) == [2, 3]
    assert sorted(group[next_to_label(rows, probabilities, 3)]) == [1, 2, 3]
    assert sorted(group[next_to_label(rows, probabilities, 3, rows[:0])]) == [1, 2, 3]
    assert uncertainty(np.array([[0.5, 0.4, 0.1], [1.0, 0.0, 0.0]])) == pytest.approx([0.9, 0.0])


def test_all_where_there_are_fewer_and_a_spread_of_very_many():
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((3, 8)).astype(np.float32)
    assert sorted(first_to_label(rows, 10)) == [0, 1, 2]
    assert sorted(next_to_label(np.zeros((3, 8), np.float32), np.ones((3, 1)), 3, rows)) == [0, 1, 2]
    many, group = groups(rng, [LOOKED_AT // 2] * 3, width=4)
    assert sorted(group[first_to_label(many, 3)]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 3)), np.ones((2, 2)), 0), "number=0; give 1 or more"),
        ((np.zeros((0, 3)), np.ones((0, 2)), 1), r"features of shape \[0, 3\]"),
        ((np.zeros((2, 3)), np.ones((3, 2)), 1), r"probabilities \[3, 2\] do not fit 2 rows"),
        ((np.zeros((2, 3)), np.ones((2, 2)), 1, np.zeros((2, 4))), "labelled rows"),
        ((np.zeros((2, 3)), np.ones((2, 2)), LOOKED_AT + 1), "are suggested at most"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        next_to_label(*arguments)
