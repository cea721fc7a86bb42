"""Whose statistics batch normalisation takes, beside what torch's layers do in their two modes."""

import pytest
import timm
import torch
from torch import nn

from fewshot.functional.inner_loop import GivenStatistics, OwnStatistics, StoredStatistics


@pytest.fixture(params=["torch", "timm"])
def network(request: pytest.FixtureRequest) -> nn.Module:
    """Two normalisations at least, one of them with an activation inside where it is timm's."""
    if request.param == "timm":
        made = timm.create_model("test_efficientnet", num_classes=0)
    else:
        made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyBatchNorm1d())
        made(torch.randn(2, 3, 16, 16))
    for name, buffer in made.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return made.double()


@pytest.fixture
def pictures() -> torch.Tensor:
    """[B, C, H, W]."""
    return torch.randn(6, 3, 16, 16, dtype=torch.float64)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_own_and_stored_statistics_are_those_of_the_layers_two_modes(
    network: nn.Module, pictures: torch.Tensor, training: bool
) -> None:
    expected_stored = network.eval()(pictures)
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers() if "running" in name}
    network.train(training)
    with OwnStatistics() as recorded:
        own = network(pictures)
    with GivenStatistics(recorded.seen):
        given = network(pictures)
    with StoredStatistics():
        stored = network(pictures)
    for name, buffer in buffers.items():
        assert torch.equal(network.state_dict()[name], buffer)
    torch.testing.assert_close(stored, expected_stored)
    expected = network.train()(pictures)
    for found in (own, given):
        torch.testing.assert_close(found, expected)


def test_given_statistics_are_those_of_the_other_batch_and_gradients_reach_it() -> None:
    layer = nn.BatchNorm2d(3).double()
    nn.init.normal_(layer.weight)
    other, batch = (torch.randn(5, 3, 4, 4, dtype=torch.float64) for _ in range(2))

    def given(other: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        with OwnStatistics() as recorded:
            layer(other)
        with GivenStatistics(recorded.seen):
            return layer(batch)

    mean, variance = other.mean((0, 2, 3)).view(3, 1, 1), other.var((0, 2, 3), correction=0).view(3, 1, 1)
    expected = (batch - mean) / (variance + 1e-5).sqrt() * layer.weight.view(3, 1, 1) + layer.bias.view(3, 1, 1)
    torch.testing.assert_close(given(other, batch), expected)
    small = [tensor[:, :, :2, :2].clone().requires_grad_() for tensor in (other, batch)]
    assert torch.autograd.gradcheck(given, small)


def test_half_precision_keeps_its_precision_and_its_statistics_do_not() -> None:
    layer, batch = nn.BatchNorm1d(3), torch.randn(8, 3).bfloat16()
    with OwnStatistics() as recorded:
        normalized = layer(batch)
    assert normalized.dtype == torch.bfloat16
    assert recorded.seen[0].mean.dtype == recorded.seen[0].variance.dtype == torch.float32
