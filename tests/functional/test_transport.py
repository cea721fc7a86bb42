import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.special import logsumexp

from fewshot.functional import transport
from fewshot.functional.transport import clamped_sinkhorn_plan, relaxed_sinkhorn_potentials, sinkhorn_plan


def slow_plan(scores, masses, n_iterations):
    """Row and column potentials of one task in logarithms, one sweep after the other; ends with the rows."""
    columns = np.zeros(scores.shape[1])
    for _ in range(n_iterations):
        rows = -logsumexp(scores + columns, axis=1)
        columns = np.log(masses) - logsumexp(scores + rows[:, None], axis=0)
    rows = -logsumexp(scores + columns, axis=1)
    return np.exp(scores + rows[:, None] + columns)


def drawn(n_tasks=3, n_rows=12, n_columns=4, temperature=3.0):
    scores = temperature * torch.randn(n_tasks, n_rows, n_columns, dtype=torch.float64)
    masses = torch.rand(n_tasks, n_columns, dtype=torch.float64) + 0.2
    return scores, n_rows * masses / masses.sum(-1, keepdim=True)


@pytest.mark.parametrize("n_iterations", [1, 2, 10, 11, 37])
def test_so_many_sweeps_are_those_of_a_slow_loop(n_iterations):
    scores, masses = drawn()
    plan = sinkhorn_plan(scores, masses, n_iterations=n_iterations, tolerance=None)
    for task in range(3):
        expected = slow_plan(scores[task].numpy(), masses[task].numpy(), n_iterations)
        np.testing.assert_allclose(plan[task].numpy(), expected, rtol=1e-10)


def test_marginals_within_the_tolerance_and_scores_within_the_scalings():
    scores, masses = drawn(temperature=8.0)
    plan = sinkhorn_plan(scores, masses / 100, tolerance=1e-9)
    torch.testing.assert_close(plan.sum(-1), torch.ones(3, 12, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(1), masses, rtol=0, atol=12e-9)
    scaling = plan.log() - scores  # f_m + g_n
    residual = scaling - scaling.mean(1, keepdim=True) - scaling.mean(2, keepdim=True) + scaling.mean((1, 2), True)
    torch.testing.assert_close(residual, torch.zeros_like(residual), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_scores_approach_the_linear_programme(dtype):
    benefit = torch.rand(1, 6, 3, dtype=torch.float64)
    masses = [2, 3, 1]
    sums = [np.kron(np.eye(6), np.ones(3)), np.kron(np.ones(6), np.eye(3))]
    best = linprog(-benefit.flatten().numpy(), A_eq=np.vstack(sums), b_eq=[1] * 6 + masses)
    plan = sinkhorn_plan((500 * benefit).to(dtype), torch.tensor(masses), n_iterations=2000, tolerance=1e-4)
    np.testing.assert_allclose(plan.flatten().numpy(), best.x, atol=5e-3)


@pytest.mark.parametrize("temperature", [1e-6, 1e2, 1e4, 1e8])
def test_no_temperature_overflows_in_float32(temperature):
    scores = (temperature * torch.randn(4, 40, 5)).requires_grad_()
    scores.data[:, :, 4] -= 50 * temperature  # a column that no row would choose
    plan = sinkhorn_plan(scores, torch.tensor([0.6, 0.2, 0.1, 1e-7, 0.1]), n_iterations=200)
    assert plan.isfinite().all()
    torch.testing.assert_close(plan.sum(-1), torch.ones(4, 40))
    (plan * torch.randn_like(plan)).sum().backward()
    assert scores.grad.isfinite().all()


def test_derivatives():
    scores, masses = drawn(n_tasks=2, n_rows=4, n_columns=2)
    scores, masses = scores.requires_grad_(), masses.requires_grad_()
    for options in ({"n_iterations": 4, "tolerance": None}, {"tolerance": 1e-6}):
        assert torch.autograd.gradcheck(lambda s, m, o=options: sinkhorn_plan(s, m, **o), (scores, masses))


def test_the_other_tasks_of_a_batch_change_nothing():
    scores, masses = drawn()
    scores = scores * torch.tensor([0.01, 1.0, 10.0], dtype=torch.float64).view(3, 1, 1)  # stop after 10, more, many
    together = sinkhorn_plan(scores, masses)
    for task in range(3):
        alone = sinkhorn_plan(scores[task : task + 1], masses[task : task + 1])
        torch.testing.assert_close(together[task : task + 1], alone, rtol=1e-12, atol=1e-12)


def test_an_empty_column_no_rows_and_no_sweeps():
    scores, _ = drawn()
    plan = sinkhorn_plan(scores, torch.tensor([1.0, 0.0, 1.0, 2.0]))
    assert (plan[..., 1] == 0).all()
    torch.testing.assert_close(plan.sum(1)[:, 3], torch.full((3,), 6.0, dtype=torch.float64), rtol=0, atol=1e-4)
    assert sinkhorn_plan(scores[:, :0], torch.ones(4)).shape == (3, 0, 4)
    torch.testing.assert_close(sinkhorn_plan(scores, torch.ones(4), n_iterations=0), scores.softmax(-1))


def test_clamped_rows_end_where_clamping_in_every_sweep_ends():
    scores, _ = drawn()
    labels = torch.tensor([[0, 1, 2, 3, 1], [0, 1, 2, 3, 3], [3, 2, 1, 0, 0]])
    assigned = torch.nn.functional.one_hot(labels, 4).double()
    masses = torch.tensor([5.0, 4.0, 3.0, 5.0], dtype=torch.float64)
    rows = torch.cat([assigned, scores.exp()], dim=1)
    for _ in range(2000):
        rows = rows / rows.sum(-1, keepdim=True)
        rows = rows * (masses / rows.sum(1, keepdim=True))
        rows[:, :5] = assigned
    plan = clamped_sinkhorn_plan(scores, assigned, masses, tolerance=1e-11)
    torch.testing.assert_close(plan, rows, rtol=0, atol=1e-8)


def test_a_column_filled_beyond_its_mass_gets_nothing_more():
    assigned = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]])
    plan = clamped_sinkhorn_plan(torch.randn(1, 3, 2), assigned, torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(plan[:, 3:], torch.tensor([[[0.0, 1.0]] * 3]))


def test_a_relaxed_plan_maximises_its_objective():
    """<P, scores> + entropy(P) - lambda KL(columns | masses) over plans whose rows sum to one, by plain ascent."""
    scores = torch.randn(2, 9, 3, dtype=torch.float64) * 2
    masses = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)
    strictness = torch.tensor([[0.6], [0.9]], dtype=torch.float64)
    potentials = relaxed_sinkhorn_potentials(scores, masses, strictness, 400)
    plan = (scores + potentials.unsqueeze(1)).softmax(-1)
    free = scores.clone().requires_grad_()
    ascent = torch.optim.LBFGS([free], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def objective(candidate):
        columns, wanted = candidate.sum(1), masses * 9
        divergence = (columns * (columns / wanted).log() - columns + wanted).sum(-1)
        price = (strictness / (1 - strictness)).squeeze(1)
        return ((candidate * scores).sum((1, 2)) - (candidate * candidate.log()).sum((1, 2)) - price * divergence).sum()

    def step():
        ascent.zero_grad()
        loss = -objective(free.softmax(-1))
        loss.backward()
        return loss

    for _ in range(5):
        ascent.step(step)
    torch.testing.assert_close(plan, free.softmax(-1).detach(), atol=1e-5, rtol=0)
    assert objective(plan) >= objective(free.softmax(-1)) - 1e-9


def test_a_relaxed_plan_lies_between_softmax_and_sinkhorn():
    scores = torch.randn(3, 12, 4, dtype=torch.float64)
    uniform = torch.ones(4, dtype=torch.float64)
    strict = relaxed_sinkhorn_potentials(scores, uniform, torch.ones(1, dtype=torch.float64), 500)
    expected = sinkhorn_plan(scores, uniform, tolerance=1e-12)
    torch.testing.assert_close((scores + strict.unsqueeze(1)).softmax(-1), expected, atol=1e-8, rtol=0)
    assert not relaxed_sinkhorn_potentials(scores, uniform, torch.zeros(1, dtype=torch.float64), 5).any()


def test_rows_of_a_relaxed_plan_count_by_their_mass():
    scores, counts = torch.randn(1, 3, 4, dtype=torch.float64), torch.tensor([1, 3, 2])
    masses, strictness = (
        torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64),
        torch.tensor([0.8], dtype=torch.float64),
    )
    repeated = relaxed_sinkhorn_potentials(scores.repeat_interleave(counts, 1), masses, strictness, 20)
    weighted = relaxed_sinkhorn_potentials(scores, masses, strictness, 20, row_masses=counts[None].double())
    torch.testing.assert_close(weighted, repeated)
    nothing = relaxed_sinkhorn_potentials(scores, masses, strictness, 20, row_masses=torch.zeros(1, 3).double())
    assert nothing.isfinite().all()


@pytest.mark.parametrize("temperature", [0.1, 3.0, 10.0])
@pytest.mark.parametrize("n_columns", [2, 7])
def test_newtons_steps_lead_to_the_plan_of_many_sweeps(temperature, n_columns):
    scores, masses = drawn(n_rows=30, n_columns=n_columns, temperature=temperature)
    masses[0, 1] = 0.0
    found = sinkhorn_plan(scores, masses, tolerance=1e-10)
    torch.testing.assert_close(
        found, sinkhorn_plan(scores, masses, n_iterations=3001, tolerance=None), rtol=0, atol=1e-7
    )


def test_more_columns_than_newton_solves_for(monkeypatch):
    scores, masses = drawn()
    expected = sinkhorn_plan(scores, masses, tolerance=1e-9)
    monkeypatch.setattr(transport, "NEWTON_COLUMNS", 3)
    torch.testing.assert_close(sinkhorn_plan(scores, masses, tolerance=1e-9), expected, rtol=0, atol=1e-7)
