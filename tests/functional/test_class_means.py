import numpy as np
import torch
from scipy.spatial.distance import cdist

from fewshot.functional.features import class_means, squared_distances


def test_class_means_against_a_loop():
    features, labels = torch.randn(3, 10, 4), torch.randint(5, (3, 10))
    labels[:, :4] = torch.arange(4)
    labels[labels == 4] = 0  # class 4 stays empty
    means = class_means(features, labels, 5)
    for t in range(3):
        for c in range(4):
            torch.testing.assert_close(means[t, c], features[t][labels[t] == c].mean(0))
    assert not means[:, 4].any()


def test_distances_against_scipy():
    query, weights = torch.randn(2, 6, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
    for t in range(2):
        np.testing.assert_allclose(squared_distances(query, weights)[t], cdist(query[t], weights[t]) ** 2, atol=1e-12)
