"""The accuracies of a test as text."""

from __future__ import annotations

import math

import pytest

from fewshot.runs.results import results_table
from fewshot.runs.tables import per_cent
from fewshot.training.metrics import AccuracyInterval


@pytest.mark.parametrize("half_width", [None, math.nan])
def test_a_single_episode_has_no_interval(half_width: float | None) -> None:
    results = {
        **{"n_way": 5, "n_shot": 1, "n_query": 15, "n_episodes": 1, "data": "toys", "split": "test"},
        **{"accuracy": 0.7733, "ci95": half_width, "accuracy_per_step": [0.7, 0.7733]},
        **{"ci95_per_step": [half_width] * 2, "accuracy_nearest_mean": 0.75, "ci95_nearest_mean": half_width},
        "gain_over": {"nearest_mean": {"difference": 0.0233, "ci95": half_width}},
    }
    text = results_table(results)
    assert "nan" not in text and "None" not in text and "+-" not in text and ", 1 episode of toys" in text
    assert "nearest class mean  75.00 %" in text and ": +2.33 points" in text
    assert results_table({**results, "accuracy_per_step": [0.7733]}).endswith("77.33 %")


def test_an_interval_is_half_a_width() -> None:
    assert per_cent(0.7733, 0.012) == "77.33 +- 1.20" and per_cent(0.01, 0.002, mark="±", signed=True) == "+1.00 ± 0.20"
    assert str(AccuracyInterval(0.7733, 0.012, 9)) == "77.33 +- 1.20 %"
    assert str(AccuracyInterval(0.7733, math.nan, 1)) == "77.33 %"
