import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy

from fewshot.training.metrics import CalibrationError, CalibrationTemperature, is_bound


def overconfident(factor, n=4000):
    """Logits that are `factor` times what the labels were drawn from."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator).flatten()
    return factor * logits, labels


@pytest.mark.parametrize("factor", [0.001, 0.2, 1.0, 3.0, 100.0])
def test_temperature_is_that_of_least_cross_entropy(factor):
    logits, labels = overconfident(factor)
    metric = CalibrationTemperature()
    for part in torch.arange(len(labels)).split(700):
        metric.update(logits[part], labels[part])
    best = minimize_scalar(
        lambda log_t: float(cross_entropy(logits / math.exp(log_t), labels)), bounds=(-8, 8), method="bounded"
    )
    assert metric.compute() == pytest.approx(math.exp(best.x), rel=0.01)
    assert metric.compute() == pytest.approx(factor, rel=0.1)


def test_a_few_queries_that_are_all_right_do_not_ask_for_certainty():
    metric = CalibrationTemperature()
    logits = 5 * torch.eye(5)
    metric.update(logits, torch.arange(5))
    certain = (logits / metric.compute()).softmax(-1).max()
    assert not is_bound(metric.compute()) and 0.9 < certain < 0.999


@pytest.mark.parametrize(("logits", "bound"), [(torch.eye(4).roll(1, 0), 1e4), (1e-6 * torch.eye(4), 1e-4)])
def test_a_bound_that_is_reached_is_known_as_one(logits, bound):
    metric = CalibrationTemperature()
    metric.update(logits, torch.arange(4))
    assert metric.compute() == pytest.approx(bound) and is_bound(metric.compute()) and not is_bound(1.0)


def test_logits_that_say_nothing_leave_the_temperature_at_one():
    metric = CalibrationTemperature()
    metric.update(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
    assert metric.compute() == 1.0


def test_nothing_counted_is_temperature_one_and_no_error():
    temperature, error = CalibrationTemperature(), CalibrationError()
    for metric in (temperature, error):
        metric.update(torch.zeros(0, 3, 5), torch.zeros(0, 3, dtype=torch.int64))
    assert temperature.compute() == 1.0
    assert math.isnan(error.compute())


def test_error_against_a_loop_over_bins():
    logits, labels = overconfident(3.0)
    probabilities = logits.softmax(-1)
    metric = CalibrationError()
    for part in torch.arange(len(labels)).split(700):
        metric.update(probabilities[part][None], labels[part][None])
    confidence, predicted = probabilities.max(-1)
    edges, total = np.linspace(0, 1, 16), 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = (predicted == labels)[inside].double().mean() - confidence[inside].double().mean()
            total += float(inside.double().mean() * gap.abs())
    assert metric.compute() == pytest.approx(total, abs=1e-5)
    mended = CalibrationError()
    mended.update((logits / 3.0).softmax(-1), labels)
    assert mended.compute() < 0.2 * metric.compute()


def test_batches_and_their_order_change_no_digit():
    logits, labels = overconfident(2.0, n=90)
    found = []
    for size in (1, 7, 90):
        temperature, error = CalibrationTemperature(), CalibrationError()
        for part in torch.randperm(90).split(size):
            temperature.update(logits[part], labels[part])
            error.update(logits[part].softmax(-1), labels[part])
        found.append((temperature.compute(), error.compute()))
    assert found[0] == found[1] == found[2]
