"""MAML and ANIL beside a loop over tasks written with torch.autograd.grad."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot import FewShotModule
from fewshot.backbones import BackboneConfig, create_backbone
from fewshot.episode import Episode
from fewshot.methods import ANIL, MAML

N_TASKS, N_WAY, N_SHOT, N_QUERY, SIZE = 3, 3, 2, 4, 6
ORDERS = pytest.mark.parametrize("first_order", [False, True], ids=["second order", "first order"])
STATISTICS = pytest.mark.parametrize("statistics", ["queries", "support", "stored"])


def drawn(size: int = SIZE, dtype: torch.dtype = torch.float64) -> Episode:
    """Tasks of noise with a shade of its class's own in each picture."""
    labels = [torch.stack([torch.randperm(N_WAY * n) % N_WAY for _ in range(N_TASKS)]) for n in (N_SHOT, N_QUERY)]
    shades = torch.randn(N_TASKS, N_WAY, 3, dtype=dtype)
    pictures = [
        torch.randn(*of.shape, 3, size, size, dtype=dtype)
        + shades.gather(1, of.unsqueeze(-1).expand(-1, -1, 3))[..., None, None]
        for of in labels
    ]
    return Episode(pictures[0], labels[0], pictures[1], labels[1], N_WAY)


def one(episode: Episode, task: int) -> Episode:
    """One task of a batch."""
    return Episode(*(part[task : task + 1] if isinstance(part, Tensor) else part for part in episode))


def small_backbone() -> nn.Sequential:
    """Convolution, batch normalisation with statistics of its own, activation: [B, 3, 6, 6] -> [B, 16]."""
    normalization = nn.BatchNorm2d(4)
    normalization.running_mean.normal_()
    normalization.running_var.uniform_(0.5, 2)
    nn.init.normal_(normalization.weight)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), normalization, nn.Tanh(), nn.Flatten()).double()


def built(**options: Any) -> MAML:
    """MAML with few large steps."""
    method = MAML(N_WAY, n_steps=2, test_steps=3, step_size=0.3, **options).double()
    method.build(16)
    return method.double()


def slow_loss(
    backbone: nn.Sequential, head: nn.Linear, episode: Episode, *, first_order: bool, statistics: str
) -> Tensor:
    """The outer loss of algorithm 2, a task and a step at a time, with the network written out."""
    normalization = backbone[1]
    start = [*backbone[0].parameters(), *normalization.parameters(), *head.parameters()]

    def convolved(pictures: Tensor, at: list[Tensor]) -> Tensor:
        return F.conv2d(pictures, at[0], at[1], stride=2)

    def logits(pictures: Tensor, reference: Tensor, at: list[Tensor]) -> Tensor:
        maps, others = convolved(pictures, at), convolved(reference, at)
        mean, variance = others.mean((0, 2, 3)), others.var((0, 2, 3), correction=0)
        if statistics == "stored":
            mean, variance = normalization.running_mean, normalization.running_var
        mean, variance, weight, bias = (row.view(-1, 1, 1) for row in (mean, variance, at[2], at[3]))
        maps = (maps - mean) / (variance + normalization.eps).sqrt() * weight + bias
        return maps.tanh().flatten(1) @ at[4].T + at[5]

    losses = []
    for support, labels, query, query_labels in zip(*episode[:4], strict=True):
        at = start
        for _ in range(2):
            gradients = torch.autograd.grad(
                F.cross_entropy(logits(support, support, at), labels), at, create_graph=True
            )
            at = [p - 0.3 * (g.detach() if first_order else g) for p, g in zip(at, gradients, strict=True)]
        reference = support if statistics == "support" else query
        losses.append(F.cross_entropy(logits(query, reference, at), query_labels))
    return torch.stack(losses).mean()


@ORDERS
@STATISTICS
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_loss_and_gradient_are_those_of_a_loop_over_tasks(
    first_order: bool, statistics: Any, chunk_size: int | None
) -> None:
    episode, backbone = drawn(), small_backbone()
    method = built(first_order=first_order, query_statistics=statistics, chunk_size=chunk_size)
    parameters = [*backbone.parameters(), *method.parameters()]
    loss = method.loss(method(backbone, episode), episode.known_query_labels())["cross_entropy"]
    expected = slow_loss(backbone, method.head, episode, first_order=first_order, statistics=statistics)
    torch.testing.assert_close(loss, expected)
    wanted = torch.autograd.grad(expected, parameters)
    for name, found, one_wanted in zip(range(6), torch.autograd.grad(loss, parameters), wanted, strict=True):
        torch.testing.assert_close(found, one_wanted, msg=lambda text, name=name: f"parameter {name}: {text}")


@ORDERS
def test_anil_is_maml_on_features_and_a_step_is_the_closed_form_of_softmax_regression(first_order: bool) -> None:
    """With probabilities p of the support X and its one-hot labels Y, W moves by -a (p - Y)^T X / S."""
    episode = drawn()
    support, query = (pictures.flatten(2)[..., :16].clone().requires_grad_() for pictures in (episode[0], episode[2]))
    labels = episode.support_labels
    maml = MAML(N_WAY, n_steps=1, test_steps=1, step_size=0.3, first_order=first_order)
    anil = ANIL(N_WAY, n_steps=1, test_steps=1, step_size=0.3, first_order=first_order)
    for method in (maml, anil):
        method.build(16)
        method.double().eval()
    anil.load_state_dict(maml.state_dict())
    weight, bias = anil.head.weight, anil.head.bias
    error = ((support @ weight.T + bias).softmax(-1) - F.one_hot(labels, N_WAY)) / labels.shape[1]  # [T, S, N]
    step = [error.transpose(1, 2) @ support, error.sum(1)]
    if first_order:
        step = [part.detach() for part in step]
    moved = query @ (weight - 0.3 * step[0]).transpose(1, 2) + (bias - 0.3 * step[1]).unsqueeze(1)
    expected = torch.stack([query @ weight.T + bias, moved])
    leaves = [support, query] if not first_order else [query]
    wanted = torch.autograd.grad(expected[-1].square().sum(), [*leaves, weight])
    for method in (maml, anil):
        found = method.refine(support, labels, query, N_WAY).logits
        torch.testing.assert_close(found, expected)
        gradients = torch.autograd.grad(found[-1].square().sum(), [*leaves, method.head.weight])
        torch.testing.assert_close(gradients, wanted)


@STATISTICS
def test_a_batch_gives_what_single_tasks_give_and_the_backbone_stays_as_it_is(statistics: Any) -> None:
    episode, backbone, method = drawn(), small_backbone(), built(query_statistics=statistics)
    state = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    for training in (True, False):
        backbone.train(training)
        method.train(training)
        together = method(backbone, episode).logits
        assert len(together) == (1 if training else 4)
        for task in range(N_TASKS):
            torch.testing.assert_close(together[:, task : task + 1], method(backbone, one(episode, task)).logits)
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.state_dict().items())


@STATISTICS
def test_predictions_depend_on_the_other_queries_where_they_are_normalised_together(statistics: Any) -> None:
    episode, backbone, method = drawn(), small_backbone(), built(query_statistics=statistics).eval()
    with torch.inference_mode():
        together = method(backbone, episode).logits
        alone = method(backbone, episode._replace(query=episode.query[:, :1])).logits
    assert torch.allclose(together[:, :, :1], alone) == (statistics != "queries")


@pytest.mark.parametrize(
    ("name", "statistics"),
    [
        *(("conv4_32", statistics) for statistics in ("queries", "support", "stored")),
        *(("test_efficientnet", statistics) for statistics in ("queries", "support", "stored")),
        pytest.param("test_vit", "queries", marks=pytest.mark.slow),  # it has no batch normalisation
    ],
)
def test_timms_backbones_are_trained_and_evaluated(name: str, statistics: Any) -> None:
    size = 160 if name == "test_vit" else 32
    backbone, episode = create_backbone(name, image_size=size), drawn(size, torch.float32)
    method = MAML(N_WAY, n_steps=1, test_steps=1, query_statistics=statistics)
    method.build(int(backbone.num_features))  # type: ignore[arg-type]
    method.loss(method(backbone.train(), episode), episode.known_query_labels())["cross_entropy"].backward()
    gradients = {key: parameter.grad for key, parameter in backbone.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    with torch.inference_mode():
        assert method.eval()(backbone.eval(), episode).logits.isfinite().all()


@STATISTICS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_mixed_precision_the_steps_are_those_of_float32(statistics: Any, dtype: torch.dtype) -> None:
    """The queries' pass differs by rounding; steps in half precision would be off by more than that."""
    episode, backbone, method = drawn(dtype=torch.float32), small_backbone().float(), built(query_statistics=statistics)
    exact = method.float()(backbone, episode).logits
    with torch.autocast("cpu", dtype=dtype):
        mixed = method(backbone, episode).logits
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, rtol=0, atol=0.03)
    method.loss(method(backbone, episode), episode.known_query_labels())["cross_entropy"].backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in backbone.parameters())


@pytest.mark.slow
def test_what_cannot_be_called_with_other_weights_is_refused() -> None:
    episode, method = drawn(dtype=torch.float32), built().float()
    compiled = create_backbone("conv4_32", image_size=32)
    compiled.compile()
    with pytest.raises(ValueError, match=r"model\.backbone\.compile=false"):
        method(compiled, episode)
    synchronized = nn.SyncBatchNorm.convert_sync_batchnorm(timm.create_model("test_resnet", num_classes=0))
    with pytest.raises(ValueError, match=r"'conv1\.1' is a SyncBatchNorm.*trainer.sync_batchnorm"):
        method(synchronized, episode)


@pytest.mark.parametrize("method", [MAML, ANIL])
@pytest.mark.parametrize("options", [{"n_way": 0}, {"n_steps": 0}, {"test_steps": 0}, {"step_size": 0.0}])
def test_impossible_options_are_refused(method: Any, options: dict[str, Any]) -> None:
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        method(**{"n_way": 5, **options})


def test_unknown_statistics_and_chunks_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="query_statistics='batch'; choose one of 'queries'"):
        MAML(5, query_statistics="batch")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chunk_size=0"):
        MAML(5, chunk_size=0)


def test_a_loss_before_the_first_step_is_refused() -> None:
    backbone = BackboneConfig("conv4_32", image_size=32)
    module = FewShotModule(MAML(N_WAY), backbone, freeze_backbone=False, initial_loss_weight=0.5)
    with pytest.raises(ValueError, match=r"initial_loss_weight=0\.5 but MAML"):
        module.training_step(drawn(32, torch.float32), 0)
