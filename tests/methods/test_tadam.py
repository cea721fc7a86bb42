"""TADAM: a prototypical network at the start, then each task's own scales and shifts, against a loop over tasks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fewshot import Episode, FewShotModule
from fewshot.backbones import BackboneConfig, create_backbone, resnet12
from fewshot.functional.features import class_means
from fewshot.methods import TADAM, ProtoNet

N_TASKS, N_WAY, N_SHOT, N_QUERY = 3, 3, 2, 4


@pytest.fixture(params=["conv4_32", "resnet12"])
def backbone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """With statistics and weights that are not those of the start, and few channels."""
    monkeypatch.setattr(resnet12, "WIDTHS", (4, 6, 8, 10))
    network = create_backbone(request.param, image_size=16).double()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                values.add_(0.3 * torch.rand_like(values))
    return network.eval()


@pytest.fixture
def episode() -> Episode:
    labels = torch.stack([torch.randperm(N_WAY * N_SHOT) % N_WAY for _ in range(N_TASKS)])
    of_query = torch.stack([torch.randperm(N_WAY * N_QUERY) % N_WAY for _ in range(N_TASKS)])
    pictures = torch.rand(N_TASKS, N_WAY * (N_SHOT + N_QUERY), 3, 16, 16, dtype=torch.float64)
    return Episode(pictures[:, : N_WAY * N_SHOT], labels, pictures[:, N_WAY * N_SHOT :], of_query, N_WAY)


def built(backbone: nn.Module, **options: float) -> TADAM:
    method = TADAM(temperature=0.3, **options)
    method.build(backbone.num_features)
    method.build_on(backbone)
    return method.double()


def awake(method: TADAM) -> TADAM:
    """With factors other than the zeros of the start."""
    for name, parameter in method.named_parameters():
        if name.endswith("post_multiplier"):
            parameter.data.uniform_(-0.5, 0.5)
    return method


@pytest.mark.parametrize("training", [True, False])
def test_it_starts_as_a_prototypical_network(backbone, episode, training):
    backbone.train(training)
    found = built(backbone)(backbone, episode)
    expected = ProtoNet(0.3)(backbone, episode).logits
    torch.testing.assert_close(found.logits, expected)
    assert float(found.losses["penalty"].detach()) == 0.0


def embedded(network: nn.Module, task: Tensor) -> Tensor:
    """One task [D] by the weights of one embedding network: a projection, then two layers with skips."""
    hidden = network.project.weight @ task + network.project.bias
    for layer in network.residual:
        hidden = hidden + layer.weight @ hidden.clamp(min=0) + layer.bias
    return network.post_multiplier * hidden


def test_each_task_has_its_own_scales_and_shifts(backbone, episode):
    """In evaluation mode they can be put into BatchNorm's own weight and bias, one task after the other."""
    method = awake(built(backbone))
    found = method(backbone, episode).logits[-1]
    for t in range(N_TASKS):
        support, labels, query = episode.support[t], episode.support_labels[t], episode.query[t]
        task = class_means(backbone(support)[None], labels[None], N_WAY)[0].mean(0)
        adapted = copy.deepcopy(backbone)
        layers = [layer for layer in adapted.modules() if isinstance(layer, nn.BatchNorm2d)]
        assert len(layers) == len(method.modulations) > 3
        for layer, modulation in zip(layers, method.modulations, strict=True):
            scale, shift = 1 + embedded(modulation.gamma, task), embedded(modulation.beta, task)
            layer.weight.data, layer.bias.data = scale * layer.weight, scale * layer.bias + shift
        features = adapted(support)
        prototypes = torch.stack([features[labels == c].mean(0) for c in range(N_WAY)])
        expected = -0.3 * torch.cdist(adapted(query), prototypes).square()
        torch.testing.assert_close(found[t], expected)
        assert not torch.allclose(expected, ProtoNet(0.3)(backbone, episode).logits[0, t], rtol=1e-3)


def test_the_penalty_is_the_sum_of_squares(backbone, episode):
    method = awake(built(backbone, penalty=0.1))
    squares = [float(part.post_multiplier.detach()) ** 2 for m in method.modulations for part in (m.gamma, m.beta)]
    loss = method.loss(method(backbone, episode), episode.query_labels)
    assert float(loss["penalty"].detach()) == pytest.approx(0.1 * sum(squares))


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_reach_every_parameter(backbone, episode, frozen):
    """Also those that start at zero, and through a frozen backbone."""
    backbone.requires_grad_(not frozen)
    method = built(backbone)
    torch.stack(list(method.loss(method(backbone, episode), episode.query_labels).values())).sum().backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()) == (name == "temperature" or name.endswith("post_multiplier")), name
    assert all((parameter.grad is None) == frozen for parameter in backbone.parameters())


def test_no_hook_stays(backbone, episode):
    with torch.inference_mode():
        before = backbone(episode.query[0])
        awake(built(backbone))(backbone, episode)
        assert torch.equal(backbone(episode.query[0]), before)


def test_half_precision(backbone, episode):
    backbone.float()
    halved = episode._replace(support=episode.support.float(), query=episode.query.float())
    method = awake(built(backbone)).float()
    with torch.no_grad():
        exact = method(backbone, halved).logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = method(backbone, halved).logits
    assert logits.dtype == torch.float32
    assert float((logits - exact).abs().mean() / exact.abs().mean()) < 0.1


def test_the_module_builds_it_for_its_backbone():
    module = FewShotModule(TADAM(), BackboneConfig("conv4_32", image_size=28))
    assert [modulation.gamma.project.out_features for modulation in module.method.modulations] == [32] * 4
    assert "method.modulations.3.beta.post_multiplier" in module.state_dict()


def test_backbones_that_cannot_be_adapted_are_refused():
    plain = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"adapts BatchNorm layers, but Sequential has none; choose a backbone"):
        TADAM().build_on(plain)
    plain._compiled_call_impl = len
    with pytest.raises(ValueError, match=r"set model.backbone.compile=false"):
        TADAM().build_on(plain)


@pytest.mark.parametrize(("options", "message"), [({"depth": 0}, "depth=0"), ({"penalty": -1.0}, "penalty=-1.0")])
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TADAM(**options)
