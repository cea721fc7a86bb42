"""More rows, labels and classes later: the answer is that of all rows at once, also after saving and loading."""

import numpy as np
import pytest
import safetensors.torch

from fewshot import FewShotClassifier

NAMES = ["cat", "dog", "eel"]
SHARED = ("transduction_proba_", "initial_proba_", "transduced_", "transduction_")


def task(n=60, seed=0):
    rng = np.random.default_rng(seed)
    numbers = np.arange(n) % 3
    rows = (5 * np.eye(3, 6)[numbers] + rng.normal(size=(n, 6))).astype(np.float32)
    return rows, [NAMES[number] if place < 6 else None for place, number in enumerate(numbers)]


@pytest.mark.parametrize("method", [None, "SimpleShot"])
@pytest.mark.parametrize("loaded", [False, True])
def test_what_comes_later_is_as_if_it_had_come_at_once(tmp_path, method, loaded):
    rows, labels = task()
    at_once = FewShotClassifier(method=method, temperature=1).fit(rows, labels)
    found = FewShotClassifier(method=method, temperature=1)
    found.partial_fit(rows[:30], [label if label != "eel" else None for label in labels[:30]])
    assert list(found.classes_) == ["cat", "dog"]
    if loaded:
        found.save(tmp_path / "saved", rows=True)
        found = FewShotClassifier.load(tmp_path / "saved").set_params(temperature=1)
    assert found.partial_fit(rows[30:40]) is found and len(found.transduced_) == 40
    found.partial_fit(rows[[2, 5]], ["eel", "eel"]).partial_fit(rows[40:], labels[40:], classes=NAMES)
    assert list(found.classes_) == NAMES and len(found.transduced_) == 62 and found.transduction_[40] == "eel"
    again = [*labels[:2], None, *labels[3:5], None, *labels[6:40], "eel", "eel", *labels[40:]]
    whole = FewShotClassifier(method=method, temperature=1)
    whole.fit(np.concatenate([rows[:40], rows[[2, 5]], rows[40:]]), again)
    for name in SHARED:
        assert np.array_equal(getattr(found, name), getattr(whole, name)), name
    assert (found.predict(rows) == at_once.predict(rows)).mean() > 0.9


def test_class_embeddings_are_remembered_too(tmp_path):
    rows, labels = task()
    words = dict(zip(NAMES, np.eye(3, 6, dtype=np.float32) + 1, strict=True))
    found = FewShotClassifier().fit(rows[:30], labels[:30], {name: words[name] for name in NAMES[:2]})
    found.save(tmp_path / "saved", rows=True)
    found = FewShotClassifier.load(tmp_path / "saved")
    found.partial_fit(rows[30:], class_embeddings={"eel": words["eel"]})
    whole = FewShotClassifier().fit(rows, labels, words)
    for name in SHARED:
        assert np.array_equal(getattr(found, name), getattr(whole, name)), name


def test_what_cannot_be_added_leaves_what_was_there(tmp_path):
    rows, labels = task()
    with pytest.raises(ValueError, match="one class alone, 'cat'"):
        FewShotClassifier().partial_fit(rows[:2], ["cat", None])
    found = FewShotClassifier().partial_fit(rows, labels)
    before = found.transduction_proba_
    for wrong, message in ((np.ones((2, 5)), "5 features"), (np.full((2, 6), np.nan), "NaN")):
        with pytest.raises(ValueError, match=message):
            found.partial_fit(wrong)
    with pytest.raises(ValueError, match="2 rows but 1 labels"):
        found.partial_fit(rows[:2], ["cat"])
    assert found.transduction_proba_ is before and len(found.partial_fit(rows[:1]).transduced_) == 61
    found.save(tmp_path / "plain")
    with pytest.raises(ValueError, match="saved without its rows"):
        FewShotClassifier.load(tmp_path / "plain").partial_fit(rows)


@pytest.mark.parametrize("wrong", ["rows", "given_labels", "short"])
def test_damaged_rows_are_refused(tmp_path, wrong):
    rows, labels = task()
    FewShotClassifier().fit(rows, labels).save(tmp_path / "saved", rows=True)
    file = tmp_path / "saved" / "classifier.safetensors"
    tensors = safetensors.torch.load(file.read_bytes())
    if wrong == "rows":
        tensors["rows"][0, 0] = np.nan
    elif wrong == "given_labels":
        tensors["given_labels"][0] = 3
    else:
        tensors["rows"] = tensors["rows"][1:].clone()
    file.write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt"}))
    with pytest.raises(ValueError, match=r"classifier\.safetensors"):
        FewShotClassifier.load(tmp_path / "saved")


def test_what_is_remembered_stays_when_the_array_is_used_again():
    rows, labels = task()
    expected = FewShotClassifier().fit(rows, labels).transduction_proba_
    used, found = rows[:40].copy(), FewShotClassifier()
    found.fit(used, labels[:40])
    used[:] = 0
    np.testing.assert_array_equal(found.partial_fit(rows[40:]).transduction_proba_, expected)
