"""SIB beyond the oracles and the contract that all methods share."""

import pytest
import torch

from fewshot.methods import SIB, EquivariantGradient, GaussianPosterior, MLPGradient, ScaledClassMeans


def task(n_way=3, n_shot=2, n_query=4, n_features=6):
    support = torch.randn(2, n_way * n_shot, n_features)
    labels = torch.arange(n_way).repeat(n_shot).expand(2, -1)
    query = torch.randn(2, n_way * n_query, n_features)
    return support, labels, query, torch.arange(n_way).repeat(n_query).expand(2, -1)


def test_a_support_picture_without_any_feature_gives_no_nan():
    support, labels, query, query_labels = task(n_shot=1)
    support[0, 1] = 0  # all units of a ReLU network silent
    method = SIB(ScaledClassMeans(6), MLPGradient(3))
    refinement = method.refine(support, labels, query, 3)
    assert refinement.logits.isfinite().all()
    method.loss(refinement, query_labels)["cross_entropy"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in method.parameters())


@pytest.mark.parametrize("build", [lambda: MLPGradient(3), EquivariantGradient])
def test_many_queries_are_refined_by_the_weights_themselves_with_the_same_result(build, monkeypatch):
    support, labels, query, query_labels = (x.double() if x.is_floating_point() else x for x in task())
    support[0, ::3], query[1, 4], query.requires_grad = 0, 0, True
    method = SIB(ScaledClassMeans(6), build(), step_size=0.1).double()
    found = []
    for limit in (64, 0):
        monkeypatch.setattr("fewshot.methods.sib.QUERIES_PER_CLASS", limit)
        refinement = method.refine(support, labels, query, 3)
        loss = method.loss(refinement, query_labels)["cross_entropy"]
        gradients = torch.autograd.grad(loss, [query, *method.parameters()])
        found.append([refinement.logits, refinement.gradients, *gradients])
    for by_cosines, by_weights in zip(*found, strict=True):
        torch.testing.assert_close(by_cosines, by_weights, rtol=1e-9, atol=1e-12)


def test_the_published_network_is_its_layers_in_their_order():
    network, logits = MLPGradient(3).double(), torch.randn(2, 12, 3, dtype=torch.float64)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    torch.testing.assert_close(network(logits), network.layers(logits))


def test_the_matching_loss_pulls_the_network_and_not_the_true_gradient():
    support, labels, query, query_labels = task()
    method = SIB(ScaledClassMeans(6), MLPGradient(3), n_steps=1, matching_weight=0.5)
    refinement = method.refine(support, labels, query, 3)
    target = refinement.logits[0].softmax(-1) - torch.nn.functional.one_hot(query_labels, 3)
    matching = method.loss(refinement, query_labels)["matching"]
    torch.testing.assert_close(matching, 0.5 * (refinement.gradients[0] - target).square().mean())
    xi = method.gradient(refinement.logits[0])
    expected = torch.autograd.grad(0.5 * (xi - target.detach()).square().mean(), method.scale, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(matching, method.scale)[0], expected)


def test_steps_may_differ_between_training_and_test():
    support, labels, query, _ = task()
    method = SIB(ScaledClassMeans(6), MLPGradient(3), n_steps=2, test_steps=5)
    assert len(method.train().refine(support, labels, query, 3).logits) == 3
    assert len(method.eval().refine(support, labels, query, 3).logits) == 6


def test_averaged_gradients_do_not_grow_with_the_queries():
    support, labels, query, _ = task()
    summed = SIB(ScaledClassMeans(6), MLPGradient(3), step_size=0.01)
    averaged = SIB(ScaledClassMeans(6), summed.gradient, step_size=0.01 * query.shape[1], reduction="mean")
    torch.testing.assert_close(averaged.classify(support, labels, query, 3), summed.classify(support, labels, query, 3))


def test_the_equivariant_network_serves_any_number_of_ways_with_the_same_weights():
    method = SIB(ScaledClassMeans(6), EquivariantGradient(), step_size=0.1).eval()
    for n_way in (3, 20):
        support, labels, query, _ = task(n_way=n_way)
        assert method.classify(support, labels, query, n_way).shape == (2, n_way * 4, n_way)


def test_the_published_network_refuses_another_number_of_ways():
    support, labels, query, _ = task(n_way=4)
    with pytest.raises(ValueError, match=r"made for n_way=3 but the episode has 4 ways.*EquivariantGradient"):
        SIB(ScaledClassMeans(6), MLPGradient(3)).classify(support, labels, query, 4)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: SIB(n_steps=-1), "n_steps=-1"),
        (lambda: SIB(step_size=float("nan")), "step_size=nan"),
        (lambda: SIB(reduction="max"), "reduction='max'; choose one of 'sum', 'mean'"),
        (lambda: GaussianPosterior(initial_std=0.0), r"initial_std=0\.0 but it is above 0"),
        (lambda: MLPGradient(0), "n_way=0"),
        (lambda: GaussianPosterior(6).build(7), "n_features=6 but the backbone gives 7"),
        (lambda: ScaledClassMeans(6).build(7), "n_features=6 but the backbone gives 7"),
    ],
)
def test_values_that_make_no_sense_are_refused(build, says):
    with pytest.raises(ValueError, match=says):
        build()
