"""Small batches are counted together: what comes out is what each gives alone."""

import math

import pytest
import torch

from fewshot.training.evaluation import Evaluation, warn_of_undefined


@pytest.mark.parametrize("fits_temperature", [False, True])
def test_small_batches_are_counted_together_and_say_the_same(fits_temperature, monkeypatch):
    logits, labels = torch.randn(3, 9, 8, 4), torch.randint(4, (9, 8))
    nearest, numbers = torch.randn(9, 8, 4), torch.arange(9)

    def results(batches, together):
        monkeypatch.setattr("fewshot.training.evaluation.COUNTED_TOGETHER", together)
        evaluation = Evaluation(2, nearest_mean=True, fits_temperature=fits_temperature)
        evaluation.update(logits, labels, nearest=nearest, numbers=numbers, temperature=1.0, counted=9)
        evaluation.reset(2)
        for part in batches:
            evaluation.update(
                logits[:, part],
                labels[part],
                nearest=nearest[part],
                numbers=numbers[part],
                temperature=1.5,
                counted=len(labels[part]),
            )
        # padding, which is not counted
        evaluation.update(logits, labels, nearest=nearest, numbers=numbers, temperature=1.5, counted=0)
        return evaluation.results(1.5), float(evaluation.loss.compute())

    each = [slice(number, number + 1) for number in range(9)]
    found = [
        results([slice(0, 9)], 1),
        results(each, 1),
        results(each, 10**6),
        results(each, 400),
        results(each[::-1], 400),
    ]
    assert all(other[0] == found[0][0] for other in found)
    assert all(math.isclose(other[1], found[0][1], rel_tol=1e-6) for other in found)


def test_a_rank_that_has_padding_alone_learns_the_sizes_of_episodes():
    evaluation = Evaluation(2, nearest_mean=True, fits_temperature=False)
    logits, labels = torch.randn(3, 9, 8, 4), torch.randint(4, (9, 8))
    evaluation.update(logits, labels, nearest=logits[0], numbers=torch.arange(9), temperature=1.0, counted=0)
    evaluation._count()
    assert {int(accuracy.n_query) for accuracy in evaluation.accuracies.values()} == {8}
    assert int(evaluation.loss.n_episodes) == 0 and evaluation.loss.total.isfinite()


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=["nan", "infinite"])
def test_logits_that_are_no_numbers_are_said_and_spoil_no_other_figure(bad):
    logits, labels = torch.randn(1, 9, 8, 4), torch.randint(4, (9, 8))
    spoilt = logits.clone()
    spoilt[0, 2, 5, 1] = bad

    def results(logits, labels, *, fits_temperature):
        evaluation = Evaluation(0, nearest_mean=False, fits_temperature=fits_temperature)
        tasks = len(labels)
        evaluation.update(logits, labels, nearest=None, numbers=torch.arange(tasks), temperature=None, counted=tasks)
        return evaluation.results(None)

    others = torch.ones(9, 8, dtype=torch.bool)
    others[2, 5] = False
    known, right = logits[:, others].view(1, 1, 71, 4), labels[others].view(1, 71)
    for fits_temperature, names in ((False, ("ece", "ece_uncalibrated")), (True, ("temperature",))):
        found = results(spoilt, labels, fits_temperature=fits_temperature)
        expected = results(known, right, fits_temperature=fits_temperature)
        assert all(found[name] == expected[name] for name in names)
        assert found["n_undefined"] == 1 and "n_undefined" not in expected
        if math.isnan(bad):
            assert found["accuracy"] == pytest.approx(expected["accuracy"] * 71 / 72)
        with pytest.warns(UserWarning, match="val: 1 of 9 episodes have queries whose logits are NaN or infinite"):
            warn_of_undefined(found, "val", "TIM")


def test_a_class_that_is_ruled_out_is_no_undefined_logit():
    logits = torch.tensor([[[[0.0, -math.inf, 1.0], [0.5, 0.0, -math.inf]]]])
    evaluation = Evaluation(0, nearest_mean=False, fits_temperature=False)
    labels = torch.tensor([[2, 0]])
    evaluation.update(logits, labels, nearest=None, numbers=torch.arange(1), temperature=None, counted=1)
    results = evaluation.results(None)
    assert "n_undefined" not in results and results["accuracy"] == 1 and 0 < results["ece"] < 1
