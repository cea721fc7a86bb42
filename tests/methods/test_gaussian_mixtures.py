"""UNEM and StatA are the updates of their papers, and lower their objectives."""

import numpy as np
import pytest
import torch

from fewshot.methods import UNEM, NearestClassMean, StatA

N_WAY, N_TASKS, D = 3, 2, 6


@pytest.fixture
def tasks():
    """Support [T, S, D] of 1, 2 and 4 shots, labels, and queries [T, Q, D] of the first two classes alone."""
    generator = torch.Generator().manual_seed(5)
    centres = 0.8 * torch.randn(N_TASKS, N_WAY, D, generator=generator, dtype=torch.float64)

    def drawn(of):
        noise = torch.randn(N_TASKS, len(of), D, generator=generator, dtype=torch.float64)
        return centres[:, of] + noise

    labels = torch.tensor([2, 0, 1, 2, 1, 2, 2])
    return drawn(labels), labels.expand(N_TASKS, -1), drawn(torch.tensor([0] * 9 + [1] * 4))


def unit(features):
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def softmax(logits):
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def each(tasks):
    """Support, labels and queries of every task, of length one."""
    for support, labels, query in zip(*tasks, strict=True):
        yield unit(support.numpy()), labels.numpy(), unit(query.numpy())


def unem_by_loops(support, labels, query, scale, balances, temperatures):
    """Assignments after every layer, and what the layer lowers: its value at its start and at its end."""

    def likelihood(z, mean):
        return -scale / 2 * ((z - mean) ** 2).sum()

    def objective(u, means, balance, temperature):
        value = -sum(likelihood(z, means[y]) for z, y in zip(support, labels, strict=True))
        for z, row in zip(query, u, strict=True):
            value -= sum(p * likelihood(z, mean) for p, mean in zip(row, means, strict=True))
            value += temperature * sum(p * np.log(p) for p in row)
        shares = u.mean(0)
        return value - balance * len(query) * (shares * np.log(shares)).sum()

    means = [support[labels == c].mean(0) for c in range(N_WAY)]
    u = np.array([softmax(np.array([likelihood(z, m) for m in means]) / temperatures[0]) for z in query])
    found, values = [u], []
    for balance, temperature in zip(balances, temperatures, strict=True):
        values.append(objective(u, means, balance, temperature))
        for c in range(N_WAY):
            members = support[labels == c]
            total = members.sum(0) + sum(row[c] * z for z, row in zip(query, u, strict=True))
            means[c] = total / (len(members) + u[:, c].sum())
        shares = u.mean(0)
        rows = [np.array([likelihood(z, m) for m in means]) + balance * np.log(shares) for z in query]
        u = np.array([softmax(row / temperature) for row in rows])
        found.append(u)
        values.append(objective(u, means, balance, temperature))
    return np.array(found), np.array(values)


def test_unem_is_the_slow_loop(tasks):
    method = UNEM(n_steps=4, scale=6.0).double()
    balances, temperatures = np.array([0.3, 2.0, 0.7, 1.2]), np.array([1.2, 3.0, 1.5, 1.05])
    with torch.no_grad():
        method.balance.copy_(torch.from_numpy(np.log(np.expm1(balances))))
        method.temperature.copy_(torch.from_numpy(np.log(np.expm1(temperatures - 1))))
    ours = method.refine(*tasks, N_WAY).logits.softmax(-1).detach().numpy()
    for t, task in enumerate(each(tasks)):
        expected, _ = unem_by_loops(*task, 6.0, balances, temperatures)
        np.testing.assert_allclose(ours[:, t], expected, rtol=1e-9)


@pytest.mark.parametrize(("balance", "temperature"), [(0.2, 1.5), (1.0, 1.1), (2.0, 2.0)])
def test_no_layer_of_unem_increases_the_objective(tasks, balance, temperature):
    for task in each(tasks):
        _, values = unem_by_loops(*task, 6.0, [balance] * 8, [temperature] * 8)
        assert (np.diff(values) <= 1e-9).all() and values[-1] < values[0] - 0.1


def test_unem_starts_at_the_options_it_is_given():
    method = UNEM(n_steps=2, balance=0.7, temperature=1.3)
    torch.testing.assert_close(torch.nn.functional.softplus(method.balance), torch.tensor([0.7, 0.7]))
    torch.testing.assert_close(1 + torch.nn.functional.softplus(method.temperature), torch.tensor([1.3, 1.3]))


def stat_a_by_loops(support, labels, query, n_iterations, strength, scale, counts, temperature=1.0):
    """Assignments after every iteration, and the objective after each half of one."""
    first = np.array([support[labels == c].mean(0) for c in range(N_WAY)])
    alphas = np.array([strength * (labels == c).sum() for c in range(N_WAY)])
    u = np.array([softmax(scale * unit(first) @ z) for z in query])
    spread = sum(p * (z - m) ** 2 for z, row in zip(query, u, strict=True) for p, m in zip(row, first, strict=True))
    spread /= len(query)

    def log_density(z, mean, variance):
        return -0.5 * ((z - mean) ** 2 / variance + np.log(2 * np.pi * variance)).sum()

    def objective():
        value = 0.0
        for z, row in zip(query, u, strict=True):
            for c, p in enumerate(row):
                value += temperature * p * np.log(p) - p * log_density(z, means[c], variances[c])
        for c in range(N_WAY):
            ratio = spread / variances[c]
            gap = (first[c] - means[c]) ** 2 / variances[c]
            value += alphas[c] * 0.5 * (ratio + gap - 1 - np.log(ratio)).sum()
        return value

    means, variances, values, found = first.copy(), np.array([spread] * N_WAY), [], []
    for _ in range(n_iterations):
        values.append(objective())
        for c in range(N_WAY):
            weights = u[:, c] / u[:, c].sum()
            n = (u.argmax(1) == c).sum() if counts == "hard" else u[:, c].sum()
            b = n / (n + alphas[c])
            means[c] = b * (weights @ query) + (1 - b) * first[c]
            own = sum(w * (z - means[c]) ** 2 for w, z in zip(weights, query, strict=True))
            variances[c] = b * own + (1 - b) * (spread + (means[c] - first[c]) ** 2)
        values.append(objective())
        densities = [np.array([log_density(z, means[c], variances[c]) for c in range(N_WAY)]) for z in query]
        u = np.array([softmax(row / temperature) for row in densities])
        found.append(u)
    return np.array(found), np.array([*values, objective()])


@pytest.mark.parametrize(("counts", "temperature"), [("hard", 1.0), ("soft", 1.0), ("hard", 50.0)])
def test_stat_a_is_the_slow_loop(tasks, counts, temperature):
    method = StatA(3, anchor_strength=1.5, scale=3.0, temperature=temperature, counts=counts)
    ours = method.refine(*tasks, N_WAY).logits.softmax(-1).numpy()
    for t, task in enumerate(each(tasks)):
        expected, _ = stat_a_by_loops(*task, 3, 1.5, 3.0, counts, temperature)
        np.testing.assert_allclose(ours[-1, t], expected[-1], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_no_update_of_stat_a_increases_the_objective(tasks, temperature):
    for task in each(tasks):
        _, values = stat_a_by_loops(*task, 8, 1.5, 3.0, "soft", temperature)
        assert (np.diff(values) <= 1e-9).all() and values[-1] < values[0] - 0.1


@pytest.mark.parametrize("method", [UNEM(), StatA(), StatA(counts="soft")])
def test_constant_dimensions_and_repeated_pictures_leave_numbers(method):
    picture = torch.tensor([0.0, 2.0, 0.0, 1.0])
    labels = torch.tensor([[0, 1, 2]])
    for others in ([1.0, 1.0, 1.0, 1.0], [1.0, 0.5, 1.0, 2.0]):  # the same picture everywhere, and two kinds
        support = torch.stack([picture, picture * torch.tensor(others), picture])[None]
        for n_query in (1, 4):
            with torch.inference_mode():
                logits = method.classify(support, labels, picture.expand(1, n_query, -1), 3)
            assert logits.isfinite().all()
            torch.testing.assert_close(logits[..., 0], logits[..., 2])  # the same picture in two classes


def test_a_class_without_queries_keeps_its_place_among_far_ones():
    """All queries are of the first of three classes that lie far apart."""
    torch.manual_seed(0)
    centres = 4 * torch.eye(3, 8)
    query = centres[:1] + 0.5 * torch.randn(30, 8)
    labels = torch.arange(3)[None]
    for method in (UNEM(), StatA(), NearestClassMean()):
        assert (method.classify(centres[None], labels, query[None], 3).argmax(-1) == 0).all()


@pytest.mark.parametrize(
    ("made", "wrong"),
    [
        (lambda: UNEM(temperature=1.0), "temperature=1.0 but it is above 1"),
        (lambda: UNEM(balance=0.0), "balance=0.0 but it is above 0"),
        (lambda: UNEM(n_steps=0), "n_steps=0 but it is at least 1"),
        (lambda: StatA(anchor_strength=0.0), "anchor_strength=0.0 but it is above 0"),
        (lambda: StatA(counts="some"), "counts='some'; choose one of 'hard', 'soft'"),
    ],
)
def test_options_that_make_no_sense_are_refused(made, wrong):
    with pytest.raises(ValueError, match=wrong):
        made()
