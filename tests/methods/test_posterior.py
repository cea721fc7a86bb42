import torch
from torch.distributions import Normal, kl_divergence

from fewshot.methods import SIB, GaussianPosterior, QueryGradient
from fewshot.methods.posterior import gaussian_kl, gaussian_kl_gradient


def random_gaussians():
    mean, log_std = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    prior_mean, prior_log_std = torch.randn(2, 6, dtype=torch.float64)
    return mean, log_std, prior_mean, prior_log_std


def test_kl_equals_torch_distributions():
    mean, log_std, prior_mean, prior_log_std = random_gaussians()
    expected = kl_divergence(Normal(mean, log_std.exp()), Normal(prior_mean, prior_log_std.exp())).sum((1, 2))
    assert (gaussian_kl(mean, log_std, prior_mean, prior_log_std) - expected).abs().max() < 1e-10


def test_kl_gradient_equals_autograd():
    mean, log_std, prior_mean, prior_log_std = random_gaussians()
    mean.requires_grad_()
    log_std.requires_grad_()
    expected = torch.autograd.grad(gaussian_kl(mean, log_std, prior_mean, prior_log_std).sum(), (mean, log_std))
    for ours, autograd in zip(gaussian_kl_gradient(mean, log_std, prior_mean, prior_log_std), expected, strict=True):
        torch.testing.assert_close(ours, autograd)


class TrueGradient(QueryGradient):
    """An estimator that knows the labels, so that a step of SIB is a step down the bound itself."""

    def __init__(self, labels):
        super().__init__()
        self.labels = labels

    def forward(self, logits):
        return logits.softmax(-1) - torch.nn.functional.one_hot(self.labels, logits.shape[-1])


def test_a_step_descends_the_bound_estimated_by_monte_carlo():
    """Mean of many reparametrised steps = gradient of a Monte-Carlo estimate of the bound by finite differences."""
    n_samples, n_way, n_features, n_query = 20_000, 2, 3, 4
    support = torch.randn(1, n_way, n_features, dtype=torch.float64)
    labels = torch.arange(n_way)[None]
    query = torch.randn(1, n_query, n_features, dtype=torch.float64)
    query_labels = torch.randint(n_way, (1, n_query))
    posterior = GaussianPosterior(n_features, kl_weight=0.3, initial_std=0.2, prior_std=0.8)
    method = SIB(gradient=TrueGradient(query_labels), posterior=posterior, scale=3.0).double()
    method.build(n_features)
    unit_query = query / query.norm(dim=-1, keepdim=True)
    start = method.initializer(support / support.norm(dim=-1, keepdim=True), labels, n_way).detach()
    log_std = posterior.log_std.detach().expand_as(start)
    noise = torch.randn(n_samples, n_way, n_features, dtype=torch.float64)

    def bound(mean, log_std):
        weights = mean + log_std.exp() * noise  # [M, N, D]
        directions = weights / weights.norm(dim=-1, keepdim=True)
        logits = 3.0 * unit_query @ directions.transpose(1, 2)  # [M, Q, N]
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), query_labels.expand(n_samples, -1).flatten(), reduction="sum"
        )
        return loss / n_samples + 0.3 * posterior.divergence(mean, log_std).sum()

    method.train()
    method.n_steps, method.step_size = 1, 1.0
    posterior.noise = lambda mean: noise  # one step for each of the samples at once
    many = (start.expand(n_samples, -1, -1), unit_query.expand(n_samples, -1, -1))
    method.gradient.labels = query_labels.expand(n_samples, -1)
    moved = {}
    step = posterior.step
    posterior.step = lambda *args, **kwargs: moved.setdefault("to", step(*args, **kwargs))
    method._descend_gaussian(*many, posterior)
    mean_gradient = (start - moved["to"][0].detach()).mean(0)
    log_std_gradient = (log_std - moved["to"][1].detach()).mean(0)

    difference = 1e-5
    for gradient, which in ((mean_gradient, 0), (log_std_gradient, 1)):
        for n in range(n_way):
            for d in range(n_features):
                shift = torch.zeros_like(start)
                shift[0, n, d] = difference
                up = [start, log_std]
                down = [start, log_std]
                up[which], down[which] = up[which] + shift, down[which] - shift
                estimate = (bound(*up) - bound(*down)) / (2 * difference)
                assert abs(float(estimate.detach() - gradient[n, d])) < 1e-5
