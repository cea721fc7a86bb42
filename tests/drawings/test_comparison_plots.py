"""Plots of comparisons: names are drawn as they are."""

import pytest

from fewshot.drawings.comparison import plot_of_backbones, plot_of_methods, plot_of_sizes

ROWS = [
    {"method": name, "n_shot": shots, "n_query": 15, "accuracy": 0.5, "ci95": 0.01}
    for name in ("SIB $\\x$", "cost $5 and $6", "猫")
    for shots in (1, 5)
]


@pytest.mark.parametrize("draw", ["methods", "sizes", "backbones"])
def test_a_name_with_dollar_signs_is_no_formula(tmp_path, draw):
    if draw == "methods":
        files = plot_of_methods(tmp_path, ROWS, 5)
    elif draw == "sizes":
        files = plot_of_sizes(tmp_path, ROWS, "n_shot", "shots")
    else:
        files = plot_of_backbones(tmp_path, ["run$\\foo$", "b"], [ROWS, ROWS], 5)
    svg = next(file for file in files if file.suffix == ".svg").read_text(encoding="utf-8")
    assert all(file.stat().st_size for file in files) and "</svg>" in svg
