"""The transductive methods against easyfsl where it follows the papers, and against slow loops and autograd."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.functional.rectification import rectified_means
from fewshot.methods import (
    BDCSPN,
    PADDLE,
    PTMAP,
    TIM,
    AlphaTIM,
    BaseClasses,
    LaplacianShot,
    SimpleShot,
    TransductiveFineTuning,
)

N_WAY, N_FEATURES = 4, 10


class Tasks(NamedTuple):
    support: Tensor
    labels: Tensor
    query: Tensor
    base: BaseClasses


@pytest.fixture
def tasks() -> Tasks:
    """Two tasks of 2 shots and 6 queries a class, features as behind a ReLU."""
    centres = 1.5 * torch.randn(2, N_WAY, N_FEATURES, dtype=torch.float64)

    def drawn(per_class):
        labels = torch.arange(N_WAY).repeat(per_class).expand(2, -1)
        noise = torch.randn(2, N_WAY * per_class, N_FEATURES, dtype=torch.float64)
        return (centres.gather(1, labels.unsqueeze(-1).expand(-1, -1, N_FEATURES)) + noise).relu(), labels

    (support, labels), (query, _) = drawn(2), drawn(6)
    class_means = torch.randn(7, N_FEATURES, dtype=torch.float64).relu()
    weights = torch.randn(7, N_FEATURES, dtype=torch.float64)
    return Tasks(support, labels, query, BaseClasses(class_means.mean(0), class_means, weights, torch.tensor(10.0)))


def logits_of(method, tasks):
    method.prepare(tasks.base)
    with torch.inference_mode():
        return method.double().refine(tasks.support, tasks.labels, tasks.query, N_WAY).logits


def centred_and_normalized(tasks, task):
    return (F.normalize(z[task] - tasks.base.mean, dim=-1) for z in (tasks.support, tasks.query))


def means_of(support, labels):
    return torch.stack([support[labels == c].mean(0) for c in range(N_WAY)])


def test_simpleshot_predicts_what_easyfsl_does(tasks):
    easyfsl = pytest.importorskip("easyfsl.methods")
    theirs = easyfsl.SimpleShot(feature_centering=tasks.base.mean, feature_normalization=2.0)
    ours = logits_of(SimpleShot(), tasks)[-1]
    for task in range(2):
        theirs.process_support_set(tasks.support[task], tasks.labels[task])
        support, query = centred_and_normalized(tasks, task)
        distances = torch.cdist(query, means_of(support, tasks.labels[task])).square()
        torch.testing.assert_close(ours[task], -10 * distances)
        # they compare by cosine, which differs where means of several shots differ in length: one shot
        theirs.process_support_set(tasks.support[task, :N_WAY], tasks.labels[task, :N_WAY])
        one_shot = tasks._replace(support=tasks.support[:, :N_WAY], labels=tasks.labels[:, :N_WAY])
        predicted = logits_of(SimpleShot(), one_shot)[-1, task].argmax(-1)
        assert torch.equal(predicted, theirs(tasks.query[task]).argmax(-1))


def test_pt_map_is_easyfsls_on_features_that_are_transformed_alike(tasks, monkeypatch):
    """Easyfsl leaves centring and normalisation out: it gets the transformed features, and does nothing to them."""
    easyfsl = pytest.importorskip("easyfsl.methods")
    module = pytest.importorskip("easyfsl.methods.pt_map")
    monkeypatch.setattr(module, "power_transform", lambda features, power: features)
    ours = logits_of(PTMAP(n_rounds=7, temperature=3.0, tolerance=1e-9), tasks)

    def transformed(features):
        features = F.normalize((features + 1e-6) ** 0.5, dim=-1)
        return F.normalize(features - features.mean(0), dim=-1)

    for task in range(2):
        theirs = easyfsl.PTMAP(fine_tuning_steps=7, lambda_regularization=3.0)
        theirs.process_support_set(transformed(tasks.support[task]), tasks.labels[task])
        plan = theirs(transformed(tasks.query[task]))
        torch.testing.assert_close(ours[-1, task].exp(), plan, rtol=0, atol=2e-4)


def test_pt_map_follows_the_prior(tasks):
    plan = logits_of(PTMAP(prior=[0.1, 0.2, 0.3, 0.4], temperature=3.0), tasks)[-1].exp()
    torch.testing.assert_close(plan.mean(1), torch.tensor([[0.1, 0.2, 0.3, 0.4]] * 2).double(), rtol=0, atol=1e-5)
    unbalanced = tasks._replace(query=tasks.query[:, torch.arange(24) % 4 < 2])  # the first two classes alone
    uniform, estimated = (
        logits_of(PTMAP(4, prior=p, prior_strength=1.0, max_sweeps=60), unbalanced) for p in ("uniform", "queries")
    )
    assert (estimated[-1].exp()[..., :2].sum() > uniform[-1].exp()[..., :2].sum() + 3).all()


def descended_by_autograd(tasks, loss, n_iterations):
    """Logits of the queries after torch's Adam on the class weights, task by task."""
    found = []
    for task in range(2):
        support, query = F.normalize(tasks.support[task], dim=-1), F.normalize(tasks.query[task], dim=-1)
        weights = means_of(support, tasks.labels[task]).requires_grad_()
        optimizer = torch.optim.Adam([weights], lr=1e-2)
        for _ in range(n_iterations):
            p_support, p_query = (
                (-7.5 * (z.unsqueeze(1) - weights).square().sum(-1)).softmax(-1) for z in (support, query)
            )
            optimizer.zero_grad()
            loss(p_support.gather(1, tasks.labels[task].unsqueeze(-1)), p_query).backward()
            optimizer.step()
        found.append((-7.5 * (query.unsqueeze(1) - weights).square().sum(-1)).log_softmax(-1).detach())
    return torch.stack(found)


def test_tim_is_adam_on_its_loss(tasks):
    def loss(p_true, p):
        marginal = p.mean(0)
        conditional = -(p * p.log()).sum(-1).mean()
        return -0.1 * p_true.log().mean() + (marginal * marginal.log()).sum() + 0.1 * conditional

    ours = logits_of(TIM(n_iterations=30, learning_rate=1e-2), tasks)
    torch.testing.assert_close(ours[-1].log_softmax(-1), descended_by_autograd(tasks, loss, 30), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(ours[0].log_softmax(-1), descended_by_autograd(tasks, loss, 0))


@pytest.mark.parametrize("support_entropy", ["shannon", "tsallis"])
@pytest.mark.parametrize("alpha", [2.0, 7.0])
def test_alpha_tim_is_adam_on_its_loss(tasks, alpha, support_entropy):
    def loss(p_true, p):
        of_support = -p_true.log() if support_entropy == "shannon" else (p_true ** (1 - alpha) - 1) / (alpha - 1)
        marginal, each = ((1 - (q**alpha).sum(-1)) / (alpha - 1) for q in (p.mean(0), p))
        return of_support.mean() - marginal + each.mean()

    ours = logits_of(AlphaTIM(alpha, support_entropy, n_iterations=20, learning_rate=1e-2), tasks)[-1]
    torch.testing.assert_close(ours.log_softmax(-1), descended_by_autograd(tasks, loss, 20), rtol=1e-6, atol=1e-6)


def test_alpha_tim_of_order_one_is_tim(tasks):
    tim = logits_of(TIM(n_iterations=10, ce_weight=1.0, conditional_weight=1.0), tasks)
    torch.testing.assert_close(logits_of(AlphaTIM(1.0, n_iterations=10), tasks), tim)


def rectified(support, labels, query, over="classes"):
    """BD-CSPN's means and shifted queries of one task, example by example."""
    query = query + support.mean(0) - query.mean(0)
    means = means_of(support, labels)
    sums, totals = torch.zeros_like(means), torch.zeros(N_WAY, 1, dtype=means.dtype)
    for example in [*support, *query]:
        cosines = torch.stack([F.cosine_similarity(example, mean, dim=0) for mean in means])
        label = int(cosines.argmax())
        weight = (10 * cosines).softmax(0)[label] if over == "classes" else (10 * cosines[label]).exp()
        sums[label] += weight * example
        totals[label] += weight
    return sums / totals, query


@pytest.mark.parametrize("over", ["classes", "examples"])
def test_bd_cspn_is_the_slow_loop(tasks, over):
    ours = logits_of(BDCSPN(softmax=over), tasks)[-1]
    for task in range(2):
        support, query = centred_and_normalized(tasks, task)
        means, query = rectified(support, tasks.labels[task], query, over)
        expected = 10 * F.cosine_similarity(query.unsqueeze(1), means, dim=-1)
        torch.testing.assert_close(ours[task], expected)


def test_a_class_that_no_example_looks_like_keeps_its_mean(tasks):
    twice = tasks.support[:, :1].expand(-1, 2, -1)  # two classes of one picture: every example belongs to the first
    for over in ("classes", "examples"):
        means = rectified_means(twice, torch.tensor([[0, 1]] * 2), tasks.query, 2, 1e4, over)
        assert bool(means.isfinite().all())
        torch.testing.assert_close(means[:, 1], twice[:, 1])


@pytest.mark.parametrize("shift", [False, True])
def test_laplacian_shot_is_easyfsls_from_the_same_means(tasks, monkeypatch, shift):
    """Easyfsl rectifies with the support's own labels and another softmax: it gets our means."""
    easyfsl = pytest.importorskip("easyfsl.methods")
    ours = logits_of(LaplacianShot(weight=0.7, shift=shift), tasks)[-1]
    for task in range(2):
        support, query = centred_and_normalized(tasks, task)
        theirs = easyfsl.LaplacianShot(lambda_regularization=0.7, knn=3)
        theirs.process_support_set(support, tasks.labels[task])
        means, shifted = rectified(support, tasks.labels[task], query)
        monkeypatch.setattr(
            theirs, "rectify_prototypes", lambda query_features, t=theirs, m=means: setattr(t, "prototypes", m)
        )
        monkeypatch.setattr(theirs, "compute_upper_bound", lambda *_: np.nan)  # all 20 iterations
        kernel = theirs.compute_pairwise_affinities
        monkeypatch.setattr(theirs, "compute_pairwise_affinities", lambda features, k=kernel: k(features).double())
        torch.testing.assert_close(ours[task].softmax(-1), theirs(shifted if shift else query))


@pytest.mark.parametrize("penalty", [None, 10.0])
def test_paddle_is_the_slow_loop(tasks, penalty):
    ours = logits_of(PADDLE(n_iterations=6, penalty=penalty), tasks)[-1]
    for task in range(2):
        scale = tasks.query[task].amax(0) - tasks.query[task].amin(0)
        support, query = tasks.support[task] / scale, tasks.query[task] / scale
        labels, n_query = tasks.labels[task], len(query)
        weights, v = means_of(support, labels), torch.zeros(N_WAY, dtype=torch.float64)
        for _ in range(6):
            distances = torch.cdist(query, weights).square()
            u = (-0.5 * distances + (n_query if penalty is None else penalty) / n_query * v).softmax(-1)
            v = u.mean(0).log() + 1
            for c in range(N_WAY):
                members = support[labels == c]
                total = (u[:, c : c + 1] * query).sum(0) + members.sum(0)
                weights[c] = total / (u[:, c].sum() + len(members))
        torch.testing.assert_close(ours[task].softmax(-1), u)


def responses(features, classifier):
    cosines = F.normalize(features, dim=-1) @ F.normalize(classifier, dim=-1).t()
    return F.normalize(cosines.relu(), dim=-1)


def test_transductive_fine_tuning_is_adam_on_two_losses_in_turns(tasks):
    ours = logits_of(TransductiveFineTuning(n_rounds=4, learning_rate=1e-2, temperature=3.0), tasks)[-1]
    for task in range(2):
        classifier = torch.nn.Parameter(tasks.base.weights.clone())
        start = F.normalize(means_of(responses(tasks.support[task], classifier), tasks.labels[task]), dim=-1)
        weights, bias = torch.nn.Parameter(start.detach()), torch.nn.Parameter(torch.zeros(N_WAY).double())
        optimizer = torch.optim.Adam([classifier, weights, bias], lr=1e-2)
        for step in range(8):
            optimizer.zero_grad()
            z = tasks.query[task] if step % 2 else tasks.support[task]
            logits = 3 * (responses(z, classifier) @ weights.t() + bias)
            if step % 2:
                p = logits.softmax(-1)
                (-(p * p.log()).sum(-1).mean()).backward()
            else:
                F.cross_entropy(logits, tasks.labels[task]).backward()
            optimizer.step()
        expected = 3 * (responses(tasks.query[task], classifier) @ weights.t() + bias)
        torch.testing.assert_close(ours[task], expected.detach(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("method", [SimpleShot, BDCSPN, LaplacianShot])
def test_what_is_not_told_of_the_training_classes_is_refused(tasks, method):
    with pytest.raises(ValueError, match=f"{method.__name__} has been told nothing"):
        method().classify(tasks.support, tasks.labels, tasks.query, N_WAY)
    with pytest.raises(ValueError, match="TransductiveFineTuning needs the classifier"):
        TransductiveFineTuning().prepare(tasks.base._replace(weights=None, scale=None))
