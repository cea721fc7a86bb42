import numpy as np
import pytest

from fewshot.data.images import Images
from fewshot.drawings.plots import MOST_NAMES, accuracy_per_step_figure, class_counts_figure, png, save

RESULTS = {
    **{"accuracy_per_step": [0.5, 0.6, 0.62], "ci95_per_step": [0.01, 0.02, 0.03]},
    **{"accuracy_nearest_mean": 0.51, "ci95_nearest_mean": 0.01, "n_way": 5, "n_shot": 1},
    **{"data": "$cifar$", "split": "test", "n_episodes": 2000, "method": {"class_path": "fewshot.methods.SIB"}},
}


def images(counts, names=None):
    labels = np.repeat(np.arange(len(counts)), counts)
    array = np.zeros((len(labels), 1, 2, 2), dtype=np.uint8)
    return Images(array, labels, names or [f"class {c}" for c in range(len(counts))], [""] * len(labels))


def test_bars_are_the_classes_sizes_with_their_names():
    figure = class_counts_figure(
        {"train": images([3, 9, 5], ["猫", "$b", "c"]), "val": images([4] * (MOST_NAMES + 1))},
        data="mine",
        taken={"train": 4, "val": None},
    )
    train, val = figure.axes
    assert [bar.get_height() for bar in train.patches] == [9, 5, 3]
    assert [bar.get_height() for bar in val.patches] == [4] * (MOST_NAMES + 1)
    png(figure)
    assert [label.get_text() for label in train.get_xticklabels()][:2] == ["$b", "c"]
    assert train.get_title(loc="left") == (
        "train: 3 classes, 17 pictures, 3 to 9 of each, median 5; an episode takes up to 4, the line"
    )
    assert [line.get_ydata()[0] for line in train.lines] == [4] and not val.lines
    assert "4 of each" in val.get_title(loc="left") and "smallest" not in val.get_xlabel()


def test_the_smallest_of_many_classes_is_named():
    figure = class_counts_figure({"test": images([7] * 50 + [2])}, data="mine", taken={})
    assert figure.axes[0].get_xlabel() == "classes, the largest first; the smallest is class 50"


def test_accuracies_and_intervals_in_per_cent():
    figure = accuracy_per_step_figure(RESULTS)
    (axes,) = figure.axes
    (curve,) = axes.containers
    assert curve.lines[0].get_ydata() == pytest.approx([50, 60, 62])
    segments = curve.lines[2][0].get_segments()
    np.testing.assert_allclose(np.array(segments)[:, :, 1], [(49, 51), (58, 62), (59, 65)])
    assert [text.get_text() for text in axes.texts] == ["50.00 ± 1.00", "62.00 ± 3.00"]
    assert axes.get_title() == "5-way 1-shot, $cifar$ (test), 2,000 episodes"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(labels) == ["SIB", "nearest class mean on the same features"]
    png(figure)


def test_an_interval_that_there_is_not_is_left_out():
    bare = {"accuracy_per_step": [0.6, 0.5], "ci95_per_step": [None, None]}
    for results in (bare, {"accuracy_per_step": [0.6, 0.5]}):
        (axes,) = accuracy_per_step_figure(results).axes
        assert [text.get_text() for text in axes.texts] == ["60.00", "50.00"]


def test_the_same_figure_gives_the_same_files(tmp_path):
    for name in ("one", "two"):
        save(accuracy_per_step_figure(RESULTS), tmp_path / name, "png", "svg")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
