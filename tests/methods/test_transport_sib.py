"""TransportSIB against autograd on the losses that its gradients belong to, and what it promises at its edges."""

import math

import pytest
import torch
import torch.nn.functional as F

from fewshot.functional.transport import sinkhorn_plan
from fewshot.methods import TransportSIB

N_WAY, N_FEATURES = 3, 6


def made(**options):
    method = TransportSIB(n_steps=2, **options)
    method.build(N_FEATURES)
    return method.double()


@pytest.fixture
def task():
    support, query = torch.rand(2, 6, N_FEATURES).double(), torch.rand(2, 8, N_FEATURES).double()
    return support, torch.tensor([[0, 1, 2, 0, 1, 2], [2, 1, 0, 2, 1, 0]]), query


def by_autograd(method, support, labels, query):
    """Logits after the last step of one task, with Sinkhorn's balanced plan as the target of the queries."""
    examples = F.normalize((torch.cat([support, query]) + 1e-6) ** method.power, dim=1)
    centre = examples.mean(0)
    if method.recentring is not None:
        constant, of_shots, of_queries = method.centring.tolist()
        share = constant + of_shots * math.log(len(support) / N_WAY) + of_queries * math.log(len(query) / N_WAY)
        share = 1 / (1 + math.exp(-share))
        centre = share * examples[: len(support)].mean(0) + (1 - share) * centre

    def about(centre):
        return F.normalize(examples - centre, dim=1).split([len(support), len(query)])

    support, query = about(centre)
    weights = torch.stack([support[labels == c].mean(0) for c in range(N_WAY)])
    uniform = torch.ones(N_WAY, dtype=torch.float64)

    def logits_of(features, weights):
        return method.scale.detach() * features @ F.normalize(weights, dim=1).T

    for step in range(method.n_steps):
        weights = weights.requires_grad_()
        logits = logits_of(query, weights)
        plan = sinkhorn_plan(logits.detach().unsqueeze(0), uniform, tolerance=1e-12)[0]
        loss = N_WAY / len(query) * F.cross_entropy(logits, plan, reduction="sum")
        known = F.cross_entropy(logits_of(support, weights), labels, reduction="sum")
        loss = loss + method.log_support[step].exp().detach() * N_WAY / len(support) * known
        (gradient,) = torch.autograd.grad(loss / method.scale.detach(), weights)
        members = torch.cat([F.one_hot(labels, N_WAY).double(), plan])

        def means(rows, members=members):
            return torch.stack([(members[:, [c]] * rows).sum(0) / members[:, c].sum() for c in range(N_WAY)])

        pulled = weights + method.pull[step].sigmoid() * (means(torch.cat([support, query])) - weights)
        weights = (pulled - method.log_step[step].exp() * gradient).detach()
        if method.recentring is not None:
            centre = centre + method.recentring[step].sigmoid().detach() * (means(examples).mean(0) - centre)
            support, query = about(centre)
    return sinkhorn_plan(logits_of(query, weights).unsqueeze(0), uniform, tolerance=1e-12)[0]


@pytest.mark.parametrize("recentre", [True, False])
def test_untrained_it_descends_to_the_balanced_plan(task, monkeypatch, recentre):
    monkeypatch.setattr("fewshot.methods.transport_sib.SWEEPS", 300)
    method = made(recentre=recentre)
    if recentre:
        method.centring.data.copy_(torch.tensor([-0.3, 0.8, 0.4]))
    method.strictness.data.fill_(50.0)  # a prior that must hold
    probabilities = method.classify(*task, N_WAY).softmax(-1)
    for number, (support, labels, query) in enumerate(zip(*task, strict=True)):
        expected = by_autograd(method, support, labels, query)
        torch.testing.assert_close(probabilities[number], expected, atol=1e-8, rtol=0)


def test_the_prior_gives_way_where_queries_are_of_one_class(task):
    """With a slope, an episode whose predictions are unbalanced is less bound to the uniform prior."""
    support, labels, query = task
    query = support[:, :1].expand(-1, 8, -1) + 0.01 * query
    bound, free = made(), made()
    free.strictness_slope.data.fill_(20.0)
    own = labels[:, :1].expand(-1, 8).unsqueeze(-1)
    shares = [m.classify(support, labels, query, N_WAY).softmax(-1).gather(-1, own).mean() for m in (bound, free)]
    assert shares[1] > shares[0] + 0.1


def test_the_last_correction_adds_to_the_last_logits_alone(task):
    method, without = made(), made(last_correction=False)
    method.last_correction.readout.bias.data.fill_(0.7)
    ours, plain = method.refine(*task, N_WAY).logits, without.refine(*task, N_WAY).logits
    torch.testing.assert_close(ours[:-1], plain[:-1])
    torch.testing.assert_close(ours[-1], plain[-1] + 0.7)


def test_without_the_pull_the_means_do_not_matter(task):
    method = made()
    method.pull.data.fill_(-50.0)
    without = made(mean_pull=False)
    torch.testing.assert_close(method.classify(*task, N_WAY), without.classify(*task, N_WAY))


def test_earlier_steps_are_trained_too(task):
    refinement = made().refine(*task, N_WAY)
    labels = torch.randint(N_WAY, (2, 8))
    terms = made().loss(refinement, labels)
    each = [F.cross_entropy(logits.flatten(0, 1), labels.flatten()) for logits in refinement.logits]
    torch.testing.assert_close(terms["cross_entropy"], each[-1])
    torch.testing.assert_close(terms["earlier"], 0.5 * torch.stack(each[:-1]).mean())
    assert set(made(deep_weight=0).loss(refinement, labels)) == {"cross_entropy"}


def test_one_set_of_weights_serves_any_size():
    method = made().eval()
    for n_way, n_shot, n_query in ((2, 1, 1), (7, 3, 4), (20, 1, 2)):
        labels = torch.arange(n_way).repeat(n_shot).unsqueeze(0)
        support, query = torch.rand(1, n_way * n_shot, N_FEATURES), torch.rand(1, n_way * n_query, N_FEATURES)
        assert method.classify(support.double(), labels, query.double(), n_way).isfinite().all()


def test_impossible_numbers_are_refused():
    with pytest.raises(ValueError, match="n_steps=0"):
        TransportSIB(n_steps=0)
