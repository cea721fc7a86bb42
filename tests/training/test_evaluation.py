"""Small batches are counted together: what comes out is what each gives alone."""

import math

import pytest
import torch

from fewshot.training.evaluation import Evaluation


@pytest.mark.parametrize("fits_temperature", [False, True])
def test_small_batches_are_counted_together_and_say_the_same(fits_temperature, monkeypatch):
    logits, labels = torch.randn(3, 9, 8, 4), torch.randint(4, (9, 8))
    nearest, numbers = torch.randn(9, 8, 4), torch.arange(9)

    def results(batches, together):
        monkeypatch.setattr("fewshot.training.evaluation.COUNTED_TOGETHER", together)
        evaluation = Evaluation(2, nearest_mean=True, fits_temperature=fits_temperature)
        evaluation.update(logits, labels, nearest=nearest, numbers=numbers, temperature=1.0, counted=9)
        evaluation.reset()
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
