"""FewShotClassifier: scikit-learn's conventions, pictures of every kind, the same answer before and after saving."""

import json
import pickle
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from sklearn.utils.estimator_checks import estimator_checks_generator

import fewshot.methods
from fewshot import FewShotClassifier, FewShotModule
from fewshot.backbones import BackboneConfig, create_backbone
from fewshot.classification.refinement import chunks
from fewshot.data.transforms import Preprocessing
from fewshot.methods import PTMAP, SIB, TIM, EquivariantGradient, MLPGradient, NearestClassMean, UniversalSIB
from fewshot.training.saved_model import save_trained

NOT_OURS = {
    "check_classifiers_classes": "-1 is an ordinary label there; here it says that there is none, as in "
    "scikit-learn's semi-supervised estimators",
    "check_array_api_input": "wants an environment variable set before scipy is imported",
}


def checks():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not a BaseEstimator: scikit-learn is no dependency
        yield from estimator_checks_generator(FewShotClassifier(temperature=1.0), legacy=True)


@pytest.mark.parametrize("check", [check for _, check in checks()], ids=lambda check: check.func.__name__)
def test_scikit_learns_estimator_checks(check):
    name = check.func.__name__
    if name in NOT_OURS:
        pytest.skip(NOT_OURS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(FewShotClassifier(temperature=1.0))


def blobs(n_labelled=2, n_unlabelled=30, classes=("ant", "bee", "cat"), width=8, seed=0):
    generator = np.random.default_rng(seed)
    centres = 3 * generator.normal(size=(len(classes), width))
    rows, labels = [], []
    for count, known in ((n_labelled, True), (n_unlabelled, False)):
        for number, name in enumerate(classes):
            rows.append(centres[number] + generator.normal(size=(count, width)))
            labels += [name if known else None] * count
    truth = [name for count in (n_labelled, n_unlabelled) for name in classes for _ in range(count)]
    return np.concatenate(rows).astype(np.float32), labels, np.array(truth)


def test_unlabelled_rows_get_labels_and_later_rows_are_classified_alone():
    rows, labels, truth = blobs()
    classifier = FewShotClassifier().fit(rows, labels)
    assert list(classifier.classes_) == ["ant", "bee", "cat"]
    assert (classifier.transduction_ == truth).mean() > 0.95
    assert classifier.transduction_proba_.shape == classifier.initial_proba_.shape == (90, 3)
    assert np.allclose(classifier.transduction_proba_.sum(1), 1, atol=1e-5)
    later, _, later_truth = blobs(0, 40, seed=0)
    together = classifier.predict_proba(later)
    alone = np.concatenate([classifier.predict_proba(row[None]) for row in later])
    assert np.allclose(together, alone, atol=1e-6)
    assert classifier.score(later, later_truth) > 0.95


def test_minus_one_and_none_both_say_unlabelled_and_labels_may_be_anything():
    rows, labels, _ = blobs()
    numbers = [-1 if label is None else len(label) * 10 + ord(label[0]) for label in labels]
    classifier = FewShotClassifier(method="NearestClassMean", temperature=1.0)
    assert set(classifier.fit(rows, np.array(numbers)).transduction_) == set(numbers) - {-1}
    things = [None if label is None else (label, 1) for label in labels]
    found = classifier.fit(torch.from_numpy(rows), things)
    assert found.predict(rows[:1])[0] == ("ant", 1)
    mixed = [None if label is None else {"ant": 1, "bee": "two", "cat": (3,)}[label] for label in labels]
    assert list(classifier.fit(rows, mixed).classes_) == [1, "two", (3,)]


@pytest.mark.parametrize("method", ["PTMAP", "TIM", "AlphaTIM", "ProtoLP", "NearestClassMean"])
def test_later_answers_agree_with_the_transduction(method):
    rows, labels, _ = blobs(3, 40)
    classifier = FewShotClassifier(method=method, temperature=1.0).fit(rows, labels)
    unlabelled = np.array([label is None for label in labels])
    assert (classifier.predict(rows[unlabelled]) == classifier.transduction_[unlabelled]).mean() > 0.95


def test_the_head_of_later_rows_is_fitted_on_some_of_many(monkeypatch):
    rows, labels, truth = blobs(3, 40)
    whole = FewShotClassifier(method="TIM", temperature=1.0).fit(rows, labels)
    monkeypatch.setattr("fewshot.methods.frozen_head.FITTED_ON", 50)
    monkeypatch.setattr("fewshot.methods.frozen_head.AT_ONCE", 16)
    some = FewShotClassifier(method="TIM", temperature=1.0).fit(rows, labels)
    assert np.array_equal(some.transduction_proba_, whole.transduction_proba_)
    assert (some.predict(rows) == whole.predict(rows)).mean() > 0.97 and some.score(rows, truth) > 0.95


def test_sib_keeps_its_own_refined_weights():
    rows, labels, _ = blobs()
    torch.manual_seed(3)
    method = SIB(gradient=EquivariantGradient(), step_size=0.05)
    classifier = FewShotClassifier(method=method, temperature=1.0).fit(rows, labels)
    unlabelled = np.array([label is None for label in labels])
    assert np.abs(classifier.initial_proba_ - classifier.transduction_proba_).max() > 1e-3
    assert np.allclose(classifier.predict_proba(rows[unlabelled]), classifier.transduction_proba_, atol=1e-5)


@pytest.mark.slow
def test_chunks_hold_the_mixture_of_the_whole_and_change_little():
    rows, labels, truth = blobs(2, 100)
    together = FewShotClassifier(temperature=1.0).fit(rows, labels)
    chunked = FewShotClassifier(temperature=1.0, chunk_size=100).fit(rows, labels)
    assert (chunked.transduction_ == together.transduction_).mean() > 0.97
    assert chunked.score(rows, truth) > 0.95


def test_every_chunk_is_dealt_at_random_and_all_are_dealt():
    dealt = chunks(10, 4)
    assert sorted(map(len, dealt)) == [3, 3, 4] and sorted(torch.cat(dealt).tolist()) == list(range(10))
    assert torch.cat(dealt).tolist() != list(range(10))
    assert chunks(10, None)[0].tolist() == list(range(10)) and not len(chunks(0, 4)[0])


def test_temperature_comes_from_labelled_rows_held_out():
    rows, labels, _ = blobs(6)
    fitted = FewShotClassifier(method=NearestClassMean(scale=200.0)).fit(rows, labels)
    assert fitted.temperature_ != 1.0
    assert fitted.temperature_from_ == "fitted on 15 predictions of labelled pictures held out"
    given = FewShotClassifier(method=NearestClassMean(scale=200.0), temperature=2.0).fit(rows, labels)
    assert given.temperature_ == 2.0 and given.temperature_from_ == "given"
    one_shot, labels, _ = blobs(1)
    unfitted = FewShotClassifier(method=PTMAP()).fit(one_shot, labels)
    assert unfitted.temperature_ == 1.0 and unfitted.temperature_from_.startswith("not fitted: too few")


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_probabilities_do_not_depend_on_the_scale_of_a_methods_logits(scale):
    rows, labels, _ = blobs(6)
    found = FewShotClassifier(method=NearestClassMean(scale=scale)).fit(rows, labels).transduction_proba_
    expected = FewShotClassifier(method=NearestClassMean(scale=10.0)).fit(rows, labels).transduction_proba_
    assert np.abs(found - expected).max() < 0.02


def test_a_temperature_that_no_query_supports_is_warned_of():
    rows, labels = np.eye(4, dtype=np.float32)[[0, 1, 1, 0]], ["a", "a", "b", "b"]
    with pytest.warns(UserWarning, match=r"temperature 1e\+04, the bound of what is tried"):
        classifier = FewShotClassifier(method="NearestClassMean").fit(rows, labels)
    assert "the bound of what is tried" in classifier.temperature_from_


@pytest.mark.parametrize("name", ["SimpleShot", "BDCSPN", "LaplacianShot", "ImprintedWeights"])
def test_methods_that_need_no_training_take_the_mean_of_the_tasks_own_rows(name, tmp_path):
    rows, labels, truth = blobs(2, 10)
    rows += 20.0  # far from 0, so that cosines say nothing until the mean is taken away
    given = getattr(fewshot.methods, name)()
    classifier = FewShotClassifier(method=given).fit(rows - 90.0, labels)
    found = classifier.fit(rows, labels).transduction_proba_
    assert given.is_prepared == (given.needs_base is None)  # a person's own method is left as it is
    fresh = FewShotClassifier(method=name).fit(rows, labels)
    assert np.array_equal(found, fresh.transduction_proba_)
    assert name == "ImprintedWeights" or fresh.score(rows, truth) > 0.9
    fresh.save(tmp_path / "saved")
    loaded = FewShotClassifier.load(tmp_path / "saved")
    assert np.array_equal(loaded.predict_proba(rows), fresh.predict_proba(rows))
    again = loaded.fit(rows - 90.0, labels).transduction_proba_
    assert name == "ImprintedWeights" or np.allclose(again, found, atol=1e-3)  # wherever the rows lie


@pytest.mark.parametrize(
    ("rows", "labels", "options", "message"),
    [
        (np.zeros((4, 3)), [None] * 4, {}, "no row has a label"),
        (np.zeros((4, 3)), ["a", "a", None, None], {}, "one class alone, 'a'"),
        (np.zeros((4, 3)), ["a", "b"], {}, "4 rows but 2 labels"),
        (np.zeros((4, 3)), ["a", "b", None, None], {"chunk_size": 0}, "chunk_size=0; give 1 or more"),
        (np.zeros((4, 3)), ["a", "b", None, None], {"chunk_size": np.inf}, "chunk_size=inf; give 1 or more"),
        (np.zeros((4, 3)), ["a", "b", None, None], {"method": "SIB"}, "'SIB' has to be trained first"),
        (np.zeros((4, 3)), ["a", "b", None, None], {"method": "Nearest"}, "no class of fewshot.methods; choose one of"),
        (np.ma.masked_equal(np.eye(4, 3), 1), ["a", "b", None, None], {}, "X is masked"),
        (np.full((4, 3), np.nan), ["a", "b", None, None], {}, "NaN or infinity"),
        (np.full((4, 3), 1e39), ["a", "b", None, None], {}, "or numbers beyond float32"),
        (np.zeros((4, 3)), ["a", "b", None, None], {"precision": "fp16"}, "precision='fp16'; choose one of"),
        (np.zeros((4, 3)), ["a", "b", None, None], {"batch_size": 0}, "batch_size=0; give 1 or more"),
        (np.zeros((4, 3)), ["a", "b", None, None], {"image_size": 32}, "image_size given and no backbone"),
        (np.zeros((4, 3)), ["a", "b", None, None], {"weights": "x.pt"}, "weights given and no backbone"),
        (["x.png"], ["a"], {}, "give backbone=... to classify pictures"),
        (np.zeros((4, 3)), ["a", "b", "c", None], {"method": SIB(gradient=MLPGradient(2))}, "made for n_way=2"),
        (np.zeros((4, 3)), ["a", "b", "c", None], {"method": "MAML"}, "cannot be made without options"),
    ],
)
def test_bad_input_is_named(rows, labels, options, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        FewShotClassifier(**options).fit(rows, labels)


@pytest.fixture
def model(tmp_path):
    """A saved model with a small untrained backbone, whose features still tell plain colours apart."""
    torch.manual_seed(0)
    module = FewShotModule(SIB(gradient=EquivariantGradient()), BackboneConfig("conv4_32", image_size=16))
    module.temperature = 2.0
    preprocessing = Preprocessing(image_size=16, stored_size=18, mean=(0.5,) * 3, std=(0.25,) * 3)
    save_trained(module.eval(), preprocessing, tmp_path / "model")
    return tmp_path / "model"


def picture(colour, seed=0):
    noise = np.random.default_rng(seed).integers(-20, 20, (20, 24, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


def test_a_model_that_was_changed_since_the_fit_is_not_predicted_by(tmp_path):
    rows, labels, _ = blobs(2, 10)
    fitted = FewShotClassifier(method="LogisticRegression").fit(rows, labels)
    before = fitted.predict_proba(rows)
    fitted.set_params(method="PTMAP")
    for use in (lambda: fitted.predict(rows), lambda: fitted.partial_fit(rows), lambda: fitted.save(tmp_path / "it")):
        with pytest.raises(ValueError, match="fitted with method='LogisticRegression', which was changed since"):
            use()
    assert np.array_equal(fitted.set_params(method="LogisticRegression").predict_proba(rows), before)
    assert fitted.set_params(method="PTMAP").fit(rows, labels).predict(rows).shape == (len(rows),)


def test_a_fit_that_fails_leaves_what_was_fitted():
    rows, labels, _ = blobs(2, 10)
    fitted = FewShotClassifier(method="SimpleShot").fit(rows, labels)
    before = fitted.predict_proba(rows)
    for failing in (fitted.fit, fitted.partial_fit):
        fitted.set_params(chunk_size=0)
        with pytest.raises(ValueError, match="chunk_size=0"):
            failing(rows + 7, labels)
        assert np.array_equal(fitted.set_params(chunk_size=None).predict_proba(rows), before)


class Named(np.ndarray):
    """Rows of a table whose columns have names."""

    columns = ("a", "b", "c")


def test_names_of_columns_are_taken_over_with_the_fit_alone():
    rows = np.random.default_rng(0).normal(size=(8, 3)).view(Named)
    fitted = FewShotClassifier(method="NearestClassMean").fit(rows, [0, 1] * 2 + [-1] * 4)
    other = rows.copy()
    other.columns = ("x", "y", "z")  # type: ignore[misc]
    with pytest.raises(ValueError, match="one class"):
        fitted.fit(other, [0] * 4 + [-1] * 4)
    assert list(fitted.feature_names_in_) == ["a", "b", "c"]
    fitted.predict(rows)


def test_numbers_of_numpy_are_saved_as_numbers(tmp_path):
    rows = np.random.default_rng(0).normal(size=(12, 5))
    options = {"chunk_size": np.int64(50), "temperature": np.float32(2), "check_refinement": np.bool_(False)}
    fitted = FewShotClassifier(method="SimpleShot", device=torch.device("cpu"), **options)
    fitted.fit(rows, [0, 1] * 3 + [-1] * 6).save(tmp_path / "it")
    loaded = FewShotClassifier.load(tmp_path / "it")
    assert loaded.get_params()["chunk_size"] == 50 and loaded.temperature == 2.0 and loaded.device == "cpu"


@pytest.mark.parametrize("factor", [1e-15, 1e18])
def test_numbers_whose_lengths_are_lost_are_refused(factor):
    rows = np.random.default_rng(0).normal(size=(12, 5)) * factor
    with pytest.raises(ValueError, match=r"X: the largest number is .* multiply all features by one factor"):
        FewShotClassifier().fit(rows, [0, 1] * 3 + [-1] * 6)
    rows, labels, _ = blobs(2, 10)
    assert FewShotClassifier().fit(rows, labels).predict(rows[:1] * 1e-15).shape == (1,)  # one among others may be


def test_a_model_whose_head_comes_trained_keeps_its_temperature(tmp_path):
    module = FewShotModule(UniversalSIB(), BackboneConfig("conv4_32", image_size=16))
    preprocessing = Preprocessing(image_size=16, stored_size=18, mean=(0.5,) * 3, std=(0.25,) * 3)
    save_trained(module.eval(), preprocessing, tmp_path / "model")
    classifier = FewShotClassifier.from_checkpoint(tmp_path / "model")
    classifier.fit([picture(colour, seed) for seed in range(3) for colour in COLOURS.values()], ["red", "blue"] * 3)
    assert (classifier.temperature_, classifier.temperature_from_) == (1.0, "of the model, from its training")


def test_pictures_of_every_kind_are_one_picture(model, tmp_path):
    classifier = FewShotClassifier.from_checkpoint(model)
    arrays = [picture(colour, seed) for seed in range(4) for colour in COLOURS.values()]
    classifier.fit(arrays, ["red", "blue"] + [None] * 6)
    assert classifier.temperature_ == 2.0
    assert list(classifier.transduction_) == ["red", "blue"] * 4
    Image.fromarray(arrays[0]).save(tmp_path / "red.png")
    expected = classifier.predict_proba([arrays[0]])
    as_tensor = torch.from_numpy(arrays[0]).permute(2, 0, 1)
    for one in (
        arrays[0],
        arrays[0][None],
        arrays[0].astype(np.float32) / 255,
        as_tensor,
        as_tensor[None].float() / 255,
        as_tensor[None].double() / 255,
        Image.fromarray(arrays[0]),
        tmp_path / "red.png",
        str(tmp_path / "red.png"),
        np.array([str(tmp_path / "red.png")]),
    ):
        assert np.allclose(classifier.predict_proba(one), expected, atol=1e-5)
    classifier.predict(as_tensor.bfloat16() / 255)
    for bad, message in (
        ([np.zeros((4, 4, 2))], r"shape \[4, 4, 2\] is no picture"),
        ([np.full((4, 4, 3), 7.0)], "values outside 0..1"),
        ([np.zeros((4, 4, 3), dtype=np.int64)], "a picture of int64"),
        ([str(tmp_path / "no.png")], "cannot read picture .*no.png"),
        ([3], "int is no picture"),
        (3, "int holds no pictures"),
    ):
        with pytest.raises(ValueError, match=message):
            classifier.predict(bad)


def test_a_pillow_image_that_cannot_be_read_is_named(model, tmp_path):
    """Pillow reads a file when its pixels are asked for, and of a damaged chunk it raises a SyntaxError."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    second = content.index(b"IDAT", content.index(b"IDAT") + 4)
    (tmp_path / "a.png").write_bytes(content[:second] + b"\0\1\2\3" + content[second + 4 :])
    classifier = FewShotClassifier.from_checkpoint(model)
    with (
        Image.open(tmp_path / "a.png") as opened,
        pytest.raises(ValueError, match=r"picture 0: cannot read picture .*a\.png"),
    ):
        classifier.fit([opened, picture((0, 0, 0))], ["a", "b"])


def test_an_option_that_does_not_make_the_model_does_not_load_it_anew(model, tmp_path):
    arrays = [picture(colour, seed) for seed in range(4) for colour in COLOURS.values()]
    labels = ["red", "blue"] + [None] * 6
    classifier = FewShotClassifier.from_checkpoint(model)
    backbone, method = classifier.encoder.backbone, classifier.method_
    classifier.set_params(chunk_size=5, temperature=3.0, batch_size=3, device="cpu").fit(arrays, labels)
    assert classifier.encoder.backbone is backbone and classifier.method_ is method
    assert classifier.encoder.batch_size == 3 and classifier.temperature_ == 3.0
    classifier.save(tmp_path / "saved")
    loaded = FewShotClassifier.load(tmp_path / "saved")
    loaded.set_params(chunk_size=None).fit(arrays, labels)
    assert loaded.temperature_ == 3.0  # as was said
    loaded.set_params(temperature=None).fit(arrays, labels)
    assert loaded.temperature_ == 2.0  # of the checkpoint, which saving and loading keep
    loaded.save(tmp_path / "again")
    classifier.set_params(method="PTMAP")
    assert isinstance(classifier.method_, PTMAP)


def test_saved_and_loaded_it_gives_the_same_answers(model, tmp_path):
    arrays = [picture(colour, seed) for seed in range(4) for colour in COLOURS.values()]
    for classifier in (
        FewShotClassifier.from_checkpoint(model),
        FewShotClassifier.from_checkpoint(model, method="PTMAP"),
    ):
        classifier.fit(arrays, ["red", "blue"] + [None] * 6)
        classifier.save(tmp_path / "saved", overwrite=True)
        loaded = FewShotClassifier.load(tmp_path / "saved")
        assert np.array_equal(loaded.predict_proba(arrays), classifier.predict_proba(arrays))
        assert list(loaded.transduction_) == list(classifier.transduction_)
        assert np.array_equal(loaded.transduction_proba_, classifier.transduction_proba_)
        assert not [
            file for file in (tmp_path / "saved").iterdir() if file.suffix not in (".json", ".safetensors", ".md")
        ]
    with pytest.raises(ValueError, match="there already"):
        classifier.save(tmp_path / "saved")


def test_feature_rows_are_saved_too_and_damage_is_named(tmp_path):
    rows, labels, _ = blobs()
    classifier = FewShotClassifier(method=TIM(n_iterations=20)).fit(rows, labels)
    classifier.save(tmp_path / "saved")
    assert np.array_equal(
        FewShotClassifier.load(tmp_path / "saved").predict_proba(rows), classifier.predict_proba(rows)
    )
    about = tmp_path / "saved" / "classifier.json"
    assert (tmp_path / "saved" / "classifier.safetensors").stat().st_mode == about.stat().st_mode
    whole = json.loads(about.read_text())
    for change, message in (
        ({"format": 99}, "has the format 99 and this fewshot reads 1"),
        ({"classes": "abc"}, "damaged or altered"),
        ({"classes": ["a", "b"]}, "does not fit 2 classes"),
        ({"options": {**whole["options"], "verbose": 1}}, "not as it was written: options"),
        ({"temperature": None, "power": "2"}, "not as it was written: temperature, power"),
        ({"temperature": -1.0}, r"classifier\.json: temperature is -1\.0, not a number in"),
        ({"temperature": 1e-300}, r"temperature is 1e-300, not a number in 0\.0001\.\.10000"),
        ({"temperature": float("nan")}, "no JSON as it was saved"),
        ({"method": {"class_path": "os.system", "init_args": {}}}, "only classes of fewshot are imported"),
        ({"classes": ["a", "a", "b"]}, "does not fit 3 classes"),
        ({"options": {**whole["options"], "device": "meta"}}, "not as it was written: options"),
        ({"options": {**whole["options"], "temperature": 0}}, "not as it was written: options"),
        ({"options": {**whole["options"], "class_embedding_weight": True}}, "not as it was written: options"),
    ):
        about.write_text(json.dumps({**whole, **change}))
        with pytest.raises(ValueError, match=message):
            FewShotClassifier.load(tmp_path / "saved")
    strange = {"ant": "\udcff", "bee": "蓝", "cat": "c"}  # of a folder that was named in another encoding
    quick = FewShotClassifier(method="NearestClassMean", temperature=1.0)
    quick.fit(rows, [strange.get(label) for label in labels]).save(tmp_path / "strange")
    assert set(FewShotClassifier.load(tmp_path / "strange").classes_) == set(strange.values())
    with pytest.raises(FileNotFoundError, match=r"holds no classifier\.json"):
        FewShotClassifier.load(tmp_path)
    with pytest.raises(ValueError, match="save text or finite numbers as labels"):
        quick.fit(rows, [x if x is None else (x,) for x in labels]).save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("head.bias", lambda old: torch.zeros(1, 4)),
        ("head.centre", lambda old: torch.zeros(1, 5)),
        ("head.scale", lambda old: torch.ones(5)),
        ("support", lambda old: old.repeat(2, 1, 1)),
        ("support", lambda old: old[:, :0]),
        ("probabilities", lambda old: old - 1),
    ],
)
def test_tensors_that_were_altered_are_refused(tmp_path, name, changed):
    rows, labels, _ = blobs()
    FewShotClassifier().fit(rows, labels).save(tmp_path / "saved")
    file = tmp_path / "saved" / "classifier.safetensors"
    tensors = safetensors.torch.load(file.read_bytes())
    tensors[name] = changed(tensors[name]).contiguous()
    if name == "support":
        tensors["support_labels"] = (
            tensors["support_labels"].expand(tensors[name].shape[:2]).contiguous()
            if len(tensors[name]) == 2
            else tensors["support_labels"][:, :0]
        )
    file.write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt"}))
    with pytest.raises(ValueError, match="does not fit 3 classes of 8 features"):
        FewShotClassifier.load(tmp_path / "saved")


def test_options_are_saved_and_a_tasks_temperature_is_not_the_models(model, tmp_path):
    own = {"temperature": 3.0, "class_embedding_weight": 7, "check_refinement": True, "chunk_size": 9}
    rows, labels, _ = blobs()
    FewShotClassifier(**own).fit(rows, labels).save(tmp_path / "rows")
    loaded = FewShotClassifier.load(tmp_path / "rows").get_params()
    assert {name: loaded[name] for name in own} == own
    arrays = [picture(colour, seed) for seed in range(6) for colour in COLOURS.values()]
    first = FewShotClassifier.from_checkpoint(model, method="PTMAP").fit(arrays, ["red", "blue"] + [None] * 10)
    assert "not fitted" in first.temperature_from_
    first.save(tmp_path / "pictures", rows=True)
    more = ["red", "blue"] * 3 + [None] * 6
    later = FewShotClassifier.load(tmp_path / "pictures").fit(arrays, more)
    assert later.temperature_from_.startswith("fitted on 6 predictions")
    assert later.temperature_ == FewShotClassifier.from_checkpoint(model, method="PTMAP").fit(arrays, more).temperature_


def test_threads_and_pickles_predict_the_same(model):
    arrays = [picture(colour, seed) for seed in range(4) for colour in COLOURS.values()]
    classifier = FewShotClassifier.from_checkpoint(model).fit(arrays, ["red", "blue"] + [None] * 6)
    expected, found = classifier.predict_proba(arrays), {}
    threads = [
        threading.Thread(target=lambda n: found.update({n: classifier.predict_proba(arrays)}), args=(n,))
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and all(np.array_equal(one, expected) for one in found.values())
    assert np.array_equal(pickle.loads(pickle.dumps(classifier)).predict_proba(arrays), expected)


def test_a_backbone_by_name_with_a_file_of_weights(model, tmp_path):
    backbone = BackboneConfig("test_efficientnet", image_size=32).create()
    torch.save(backbone.state_dict(), tmp_path / "published.pth")
    classifier = FewShotClassifier("test_efficientnet", PTMAP(), weights=str(tmp_path / "published.pth"), image_size=32)
    arrays = [picture(colour, seed) for seed in range(3) for colour in COLOURS.values()]
    assert list(classifier.fit(arrays, ["red", "blue", -1, -1, -1, -1]).predict(arrays[:2])) == ["red", "blue"]
    assert classifier.encoder.preprocessing.mean == pytest.approx((0.485, 0.456, 0.406))
    classifier.save(tmp_path / "saved")
    assert list(FewShotClassifier.load(tmp_path / "saved").predict(arrays[:2])) == ["red", "blue"]


def test_a_saved_model_as_weights_brings_its_normalisation(model):
    preprocessing = FewShotClassifier("conv4_32", weights=str(model)).encoder.preprocessing
    assert preprocessing == FewShotClassifier.from_checkpoint(model).encoder.preprocessing
    assert preprocessing.mean == (0.5,) * 3 and preprocessing.image_size == 16
    config = json.loads((model / "config.json").read_text())
    config["preprocessing"]["sepia"] = True
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"in a way known here: .*sepia"):
        FewShotClassifier("conv4_32", weights=str(model)).prepare()


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="no checkpoint of FewShotModule"):
        FewShotClassifier.from_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(FileNotFoundError, match="not found"):
        FewShotClassifier.from_checkpoint(Path("nowhere"))
    with pytest.raises(ValueError, match="leave one out"):
        FewShotClassifier("conv4", checkpoint="x.ckpt").prepare()


def test_without_a_method_the_head_of_the_package_classifies(tmp_path):
    rows, labels, truth = blobs(2, n_unlabelled=40)
    classifier = FewShotClassifier().fit(rows, labels)
    assert isinstance(classifier.method_, UniversalSIB)
    assert classifier.temperature_ == 1.0 and classifier.temperature_from_ == "of the model, from its training"
    assert (classifier.transduction_ == truth).mean() > 0.9
    assert classifier.strangers_.shape == (120,) and (0 <= classifier.strangers_).all()
    classifier.save(tmp_path / "saved")
    again = FewShotClassifier.load(tmp_path / "saved")
    np.testing.assert_allclose(again.strangers_, classifier.strangers_)
    np.testing.assert_allclose(again.predict_proba(rows[:3]), classifier.predict_proba(rows[:3]), rtol=1e-5)
    assert FewShotClassifier(method="TIM").fit(rows, labels).strangers_ is None


def test_memory_does_not_grow_with_the_square_of_the_rows(monkeypatch):
    rows, labels, _ = blobs(2, n_unlabelled=40)
    seen, whole = [], UniversalSIB.refine

    def refine(self, support, support_labels, query, n_way):
        seen.append(query.shape[1])
        return whole(self, support, support_labels, query, n_way)

    monkeypatch.setattr(UniversalSIB, "refine", refine)
    monkeypatch.setattr(UniversalSIB, "most_together", 15)
    FewShotClassifier().fit(rows, labels)
    assert max(seen) <= 15 and sum(seen) == 120
    seen.clear()
    FewShotClassifier(chunk_size=10).fit(rows, labels)
    assert max(seen) <= 10 and sum(seen) == 120


def test_a_backbone_of_an_allowed_package_is_found(tmp_path, monkeypatch):
    (tmp_path / "package_with_a_backbone.py").write_text(
        "from fewshot.backbones.conv4 import Conv4\n"
        "from fewshot.backbones.network import register\n\n"
        "register('conv4_of_a_package', Conv4, {'input_size': (3, 84, 84), 'fixed_input_size': True}, width=64)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    safetensors.torch.save_file(create_backbone("conv4").state_dict(), tmp_path / "weights.safetensors")
    options = {"backbone": "conv4_of_a_package", "weights": tmp_path / "weights.safetensors"}
    with pytest.raises(ValueError, match=r"if it is your own.*by the option packages"):
        FewShotClassifier(**options).prepare()
    FewShotClassifier(**options, packages=["package_with_a_backbone"]).prepare()
