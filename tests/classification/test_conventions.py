"""Labels as they are handed over: what says that there is none, and what only looks like it."""

import warnings
from decimal import Decimal

import numpy as np
import pytest
import torch

from fewshot import FewShotClassifier

ROWS = torch.eye(4, 3)


@pytest.mark.parametrize(
    "y",
    [
        np.array(["cat", "dog", "cat", -1]),
        np.array(["cat", "dog", "cat", np.nan], dtype=str),
        np.array(["cat", "dog", "cat", None], dtype=str),
        np.array(["cat", "dog", "cat", None], dtype="U3"),
        np.array(["cat", "dog", "cat", ""]),
        np.array([b"cat", b"dog", b"cat", b"-1"]),
        np.array([0, 1, 0, -1]).astype(np.uint8),
        np.array([0, 1, 0, -1]).astype(np.uint64),
        torch.tensor([0, 1, 0, 255], dtype=torch.uint8),
        np.ma.array([0, 1, 0, 1], mask=[0, 0, 0, 1]),
        np.array(["cat", "dog", "cat", Decimal("nan")], dtype=object),
    ],
    ids=lambda y: f"{y.dtype}_{y[3]}",
)
def test_an_array_that_cannot_say_unlabelled_is_refused_by_name(y):
    with pytest.raises(ValueError, match=r"unlabelled row.* None|makes that of -1; give signed integers"):
        FewShotClassifier().fit(ROWS, y)


@pytest.mark.parametrize(
    "y", [["cat", "dog", "cat", "None"], ["1", "-1", "1", "-1"], np.array(["ok", "ok", "ko", "No"])]
)
def test_text_that_may_be_a_class_is_one_with_a_warning(y):
    with pytest.warns(UserWarning, match=f"label '{y[3]}' in {list(y).count(y[3])} of 4 rows"):
        classifier = FewShotClassifier(method="NearestClassMean").fit(ROWS, y)
    assert y[3] in classifier.classes_


def test_such_a_class_beside_unlabelled_rows_is_a_class_without_a_word():
    for y in (["None", "-1", "None", None], np.array([255, 0, 255, -1])):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(FewShotClassifier(method="NearestClassMean").fit(ROWS, y).classes_) == 2


class Table:
    """What a DataFrame has of columns."""

    def __init__(self, rows, columns):
        self.rows, self.columns = rows, columns

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.rows, dtype=dtype)


def test_columns_that_stand_in_another_order_are_refused():
    rows = np.random.default_rng(0).normal(size=(8, 3))
    classifier = FewShotClassifier(temperature=1.0).fit(Table(rows, ["a", "b", "c"]), ["x", "y"] * 2 + [None] * 4)
    assert classifier.feature_names_in_.tolist() == ["a", "b", "c"]
    classifier.predict(Table(rows, ["a", "b", "c"]))
    for use in (classifier.predict, classifier.predict_proba, lambda table: classifier.partial_fit(table, ["x"] * 8)):
        with pytest.raises(
            ValueError, match=r"feature names should match .* found 'c' in the place of 'a'; give the columns"
        ):
            use(Table(rows[:, ::-1], ["c", "b", "a"]))
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        classifier.predict(rows)
    classifier.fit(rows, ["x", "y"] * 4)
    assert not hasattr(classifier, "feature_names_in_")
    with pytest.warns(UserWarning, match="X has feature names, but FewShotClassifier was fitted without"):
        classifier.predict(Table(rows, ["a", "b", "c"]))


def test_half_precision_of_both_kinds_is_taken():
    labels = ["x", "y", "x", None]
    for dtype in (torch.float16, torch.bfloat16):
        fitted = FewShotClassifier(temperature=1.0).fit(ROWS.to(dtype), labels)
        assert (
            fitted.transduction_.tolist() == FewShotClassifier(temperature=1.0).fit(ROWS, labels).transduction_.tolist()
        )


@pytest.mark.parametrize("label", [float("inf"), ("a", "tuple")])
def test_a_label_that_no_file_holds_is_named(label, tmp_path):
    classifier = FewShotClassifier(temperature=1.0).fit(ROWS, [label, 1.0, label, None])
    with pytest.raises(ValueError, match=r"the label .* is a .*; save text or finite numbers as labels"):
        classifier.save(tmp_path / "it")
