"""Training tasks of every kind: what is drawn is what was asked for."""

import numpy as np
import pytest

from fewshot.data.task_mixture import Sizes, TaskMixture
from fewshot.episode import STRANGER

BY_CLASS = [np.arange(30) + 30 * number for number in range(12)]
CLASS_OF = np.repeat(np.arange(12), 30)


def drawn(kind, *, n_way=5, n_shot=2, total=40, strangers=0.0, wrong_labels=0.0, repeats=0.0, seed=0):
    mixture = TaskMixture(proportions={kind: 1.0})
    sizes = Sizes(n_way, n_shot, total, strangers, wrong_labels, repeats)
    return mixture.task(np.random.default_rng(seed), BY_CLASS, sizes)


def counts(task, n_way=5):
    return np.bincount(task.query_labels[task.query_labels != STRANGER], minlength=n_way)


@pytest.mark.parametrize("kind", ["balanced", "dirichlet(2)", "dirichlet(0.5)", "tail(10)", "some", "some(1)"])
def test_a_task_is_consistent(kind):
    task = drawn(kind)
    classes = CLASS_OF[task.support[::2]]
    assert len(set(classes)) == 5 and len(task.query) == 40
    assert (CLASS_OF[task.support] == classes[task.support_labels]).all()
    assert (CLASS_OF[task.query] == classes[task.query_labels]).all()
    assert not set(task.support) & set(task.query)
    same = drawn(kind)
    assert all((one == other).all() for one, other in zip(task, same, strict=True))


def test_proportions_are_those_of_their_kind():
    assert counts(drawn("balanced")).tolist() == [8] * 5
    assert sorted(counts(drawn("some(1)"))) == [0, 0, 0, 0, 40]
    assert sorted(counts(drawn("some(2)"))) == [0, 0, 0, 20, 20]
    tail = sorted(counts(drawn("tail(10)", total=160)), reverse=True)
    assert 8 <= tail[0] / tail[-1] <= 12
    present = {int((counts(drawn("some", seed=seed)) > 0).sum()) for seed in range(40)}
    assert present == {1, 2, 3, 4, 5}
    spread = [np.std([counts(drawn(f"dirichlet({c})", seed=seed)) for seed in range(40)]) for c in (0.5, 50)]
    assert spread[0] > 3 * spread[1]


def test_a_class_without_enough_pictures_repeats_them():
    task = drawn("some(1)", total=100)
    assert len(task.query) == 100 and len(set(task.query)) == 28
    assert not set(task.support) & set(task.query)


def test_strangers_are_of_no_class_of_the_task():
    task = drawn("balanced", strangers=0.25)
    strange = task.query_labels == STRANGER
    assert strange.sum() == 10
    assert not set(CLASS_OF[task.query[strange]]) & set(CLASS_OF[task.support])


def test_one_query_at_least_is_of_a_class():
    assert (drawn("balanced", total=2, strangers=0.9).query_labels != STRANGER).sum() == 1


def test_wrong_labels_leave_one_of_every_class():
    task = drawn("balanced", n_shot=10, wrong_labels=0.5)
    right = np.repeat(np.arange(5), 10)
    assert 5 < (task.support_labels != right).sum() < 35
    assert (task.support_labels[::10] == right[::10]).all()


def test_sizes_fit_the_space_and_its_bounds():
    mixture = TaskMixture()
    found = [mixture.sizes(np.random.default_rng(seed), np.array([30, 8, 40])) for seed in range(300)]
    assert {one.n_way for one in found} == {2, 3}
    assert {one.n_shot for one in found} == {1, 2, 3, 4, 5}
    assert max(one.total for one in found) <= 3 * 40
    assert all(one.strangers == 0 for one in found if one.n_way == 3)
    assert any(one.strangers for one in found if one.n_way == 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": (1, 5)}, r"ways=\[1, 5\]; give two bounds, the lower first, of 2 or more"),
        ({"shots": (5, 2)}, r"shots=\[5, 2\]"),
        ({"proportions": {"some(0)": 1}}, "'some\\(0\\)' with weight 1 is not known"),
        ({"proportions": {"tail(0.0)": 1}}, "'tail\\(0.0\\)' with weight 1 is not known"),
        ({"proportions": {"lopsided": 1}}, "'lopsided' with weight 1 is not known; kinds are balanced"),
        ({"proportions": {"balanced": 0}}, "no kind has a weight above 0"),
        ({"strangers": [1.0]}, r"strangers=\[1.0\]; give at least one share"),
        ({"repeats": []}, r"repeats=\[\]"),
        ({"most_queries": 0}, "most_queries=0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TaskMixture(**options)


def test_one_query_at_least_is_of_a_known_class():
    for seed in range(2000):
        task = drawn("balanced", n_way=2, total=2, strangers=0.3, repeats=0.5, seed=seed)
        assert (task.query_labels != STRANGER).any()
