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
