import math

import numpy as np
import pytest
import torch

from fewshot.training.metrics import EpisodeAccuracy, EpisodeCounts, correct_queries, paired_difference


def one_hot_scores(predictions, n_way):
    return torch.nn.functional.one_hot(predictions, n_way).float()


def test_mean_and_interval_against_numpy():
    labels = torch.randint(5, (40, 75))
    predictions = torch.where(torch.rand(40, 75) < 0.7, labels, torch.randint(5, (40, 75)))
    metric = EpisodeAccuracy()
    for part in torch.arange(40).split(7):
        metric.update(one_hot_scores(predictions[part], 5), labels[part])
    accuracies = (predictions == labels).double().mean(-1).numpy()
    value = metric.compute()
    assert value.accuracy == pytest.approx(accuracies.mean(), abs=1e-12)
    assert value.ci95 == pytest.approx(1.96 * np.std(accuracies, ddof=1) / math.sqrt(40), abs=1e-12)
    assert value.n_episodes == 40


def test_batch_size_and_order_change_no_digit():
    labels = torch.randint(3, (20, 7))
    scores = torch.randn(20, 7, 3)
    values = []
    for size, order in ((1, torch.arange(20)), (6, torch.randperm(20)), (20, torch.arange(20).flip(0))):
        metric = EpisodeAccuracy()
        for part in order.split(size):
            metric.update(scores[part], labels[part])
        values.append(metric.compute())
    assert values[0] == values[1] == values[2]


def test_correct_queries_are_those_of_argmax_with_ties_and_in_any_layout():
    scores = torch.randint(3, (4, 6, 5, 9)).float().transpose(2, 3)  # [M, T, Q, N] with many ties
    labels = torch.randint(5, (6, 9))
    assert torch.equal(correct_queries(scores, labels), (scores.argmax(-1) == labels).sum(-1))
    scores[:, :, :, 2] = torch.nan
    assert not correct_queries(scores, labels).any()


def test_few_episodes():
    metric = EpisodeAccuracy()
    metric.update(torch.eye(2)[None], torch.tensor([[0, 1]]))
    value = metric.compute()
    assert value.accuracy == 1.0 and math.isnan(value.ci95)


def test_episodes_of_another_size_are_refused():
    metric = EpisodeAccuracy()
    metric.update(torch.zeros(1, 4, 2), torch.zeros(1, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="5 queries after episodes with 4"):
        metric.update(torch.zeros(1, 5, 2), torch.zeros(1, 5, dtype=torch.int64))


def test_paired_difference_against_numpy():
    first, second = torch.randint(75, (30,)), torch.randint(75, (30,))
    value = paired_difference(first, second, 75)
    difference = (first - second).numpy() / 75
    assert value.accuracy == pytest.approx(difference.mean())
    assert value.ci95 == pytest.approx(1.96 * difference.std(ddof=1) / math.sqrt(30))


def test_counts_are_sorted_by_episode():
    metric = EpisodeCounts()
    labels = torch.tensor([[0, 1], [1, 1]])
    right, wrong = (one_hot_scores(predictions, 2) for predictions in (labels, 1 - labels))
    metric.update(torch.tensor([7, 3]), [right, wrong], labels)
    metric.update(torch.tensor([5]), [right[:1], right[:1]], labels[:1])
    assert metric.compute().tolist() == [[3, 2, 0], [5, 2, 2], [7, 2, 0]]
