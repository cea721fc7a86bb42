"""Mixup of pictures and of hidden layers in pre-training, against the definition."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from blobs import CONV4
from pretraining import data, loss_of, trainer
from torch import Tensor, nn

from fewshot import PretrainModule
from fewshot.backbones import BackboneConfig
from fewshot.training.mixup import Mixing, Mixup, mixed_cross_entropy, mixed_inside
from fewshot.training.rotation import IGNORED

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
]


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(6, 3, 28, 28), torch.randint(8, (6,))


def drawn_again(mixup: Mixup, state: Tensor, n_pictures: int) -> Mixing:
    """What the module drew from this random state."""
    torch.set_rng_state(state)
    return mixup.draw(n_pictures, n_pictures, torch.device("cpu"))


def test_rows_are_mixed_with_their_partners():
    rows = torch.rand(4, 2, 3)
    mixing = Mixing(0.3, torch.tensor([2, 0, 1, 3]), "input")
    for row, partner, found in zip(rows, [2, 0, 1, 3], mixing(rows), strict=True):
        torch.testing.assert_close(found, 0.3 * row + 0.7 * rows[partner])
    assert torch.equal(mixing(rows)[3], rows[3])  # its own partner


@pytest.mark.parametrize(("share", "expected"), [(0.7, [0, 1, 2]), (0.2, [2, 0, 1])])
def test_the_dominant_label_is_that_of_the_larger_part(share, expected):
    mixing = Mixing(share, torch.tensor([2, 0, 1]), "input")
    assert mixing.dominant(torch.arange(3)).tolist() == expected


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_mixed_soft_labels(label_smoothing):
    logits, labels = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 1, 2])
    mixing = Mixing(0.3, torch.tensor([4, 2, 0, 1, 3]), "input")
    soft = mixing(F.one_hot(labels, 4).double())
    expected = F.cross_entropy(logits, soft, label_smoothing=label_smoothing)
    torch.testing.assert_close(mixed_cross_entropy(logits, labels, mixing, label_smoothing=label_smoothing), expected)


def test_rows_that_do_not_count_change_nothing():
    logits, labels = torch.randn(5, 4), torch.tensor([0, 3, 1, IGNORED, IGNORED])
    loss = mixed_cross_entropy(logits, labels, Mixing(0.3, torch.tensor([1, 2, 0, 3, 4]), "input"))
    alone = mixed_cross_entropy(logits[:3], labels[:3], Mixing(0.3, torch.tensor([1, 2, 0]), "input"))
    torch.testing.assert_close(loss, alone)


def test_draws_have_the_distribution_asked_for():
    """Beta(2, 2): mean 1/2, variance 1/20; every layer about as often; the first rows permuted among themselves."""
    mixup = Mixup(alpha=2.0, layers=["input", "conv1", "conv2"])
    drawn = [mixup.draw(4, 6, torch.device("cpu")) for _ in range(3000)]
    shares = torch.tensor([mixing.share for mixing in drawn])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(shares.var()) == pytest.approx(0.05, abs=0.005)
    for layer in mixup.layers:
        assert sum(mixing.layer == layer for mixing in drawn) == pytest.approx(1000, abs=120)
    partners = torch.stack([mixing.partner for mixing in drawn])  # [3000, 6]
    assert partners[:, 4:].unique(dim=0).tolist() == [[4, 5]]
    assert torch.equal(partners[:, :4].sort(dim=1).values, torch.arange(4).expand(3000, 4))
    assert (partners[:, 0] == 3).float().mean().item() == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("layer", ["input", "conv1", "conv3.0", "conv4"])
def test_the_named_layer_is_mixed_and_no_other(batch, layer):
    """The loss written out: every block by hand, mixed after the named one."""
    mixup = Mixup(layers=[layer])
    module = PretrainModule(8, CONV4, mixup=mixup).double()
    pictures, labels = batch[0].double(), batch[1]
    state = torch.get_rng_state()
    loss = loss_of(module, (pictures, labels))
    mixing = drawn_again(mixup, state, 6)
    assert 0 < mixing.share < 1 and not torch.equal(mixing.partner, torch.arange(6))

    def mixed(rows: Tensor) -> Tensor:
        return torch.stack(
            [mixing.share * row + (1 - mixing.share) * rows[mixing.partner[i]] for i, row in enumerate(rows)]
        )

    maps = mixed(pictures) if layer == "input" else pictures
    for name, block in module.backbone.named_children():
        for part, step in block.named_children():
            maps = step(maps)
            if f"{name}.{part}" == layer:
                maps = mixed(maps)
        if name == layer:
            maps = mixed(maps)
    soft = mixed(F.one_hot(labels, 8).double())
    expected = F.cross_entropy(module.classifier(maps.flatten(1)), soft)
    torch.testing.assert_close(loss, expected)


def test_nothing_is_mixed_afterwards(batch):
    """No hook stays: the features of the next pass are those of a backbone that was never mixed."""
    module = PretrainModule(8, CONV4, mixup=Mixup(layers=["conv2"])).eval()
    with torch.no_grad():
        before = module(batch[0])
        loss_of(module, batch)
        assert torch.equal(module(batch[0]), before)
    assert not module.backbone.conv2._forward_hooks


def test_training_with_half_precision_and_a_timm_backbone(batch):
    backbone = BackboneConfig("resnet18", image_size=28)
    mixup = Mixup(alpha=2.0, layers=["input", "layer1", "layer2.0"])
    module = PretrainModule(8, backbone, mixup=mixup, optimizer=functools.partial(torch.optim.SGD, lr=0.01))
    fitting = trainer(precision="bf16-mixed", limit_train_batches=3, limit_val_batches=1)
    fitting.fit(module, data())
    assert 0 <= float(fitting.callback_metrics["train/accuracy"]) <= 1
    loss_of(module, batch).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_checkpoint_brings_its_options_back(tmp_path):
    mixup = Mixup(alpha=2.0, layers=["input", "conv1"])
    fitting = trainer(limit_train_batches=1, limit_val_batches=1)
    fitting.fit(PretrainModule(8, CONV4, mixup=mixup), data())
    fitting.save_checkpoint(tmp_path / "last.ckpt")
    assert PretrainModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True).mixup == mixup


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, r"mixup.alpha=0.0; give a number above 0"),
        ({"alpha": float("inf")}, r"mixup.alpha=inf"),
        ({"layers": []}, r"mixup.layers=\[\]; name what is to be mixed"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Mixup(**options)


def test_layers_that_are_not_there_are_named():
    with pytest.raises(ValueError, match=r"names conv5, layer1, which .*choose from input, conv1, conv2, conv3, conv4"):
        PretrainModule(8, CONV4, mixup=Mixup(layers=["input", "conv5", "conv1.0", "layer1"]))


def test_a_compiled_backbone_mixes_its_input_alone():
    Mixup().check(nn.Sequential(), compiled=True)
    with pytest.raises(ValueError, match=r"names 0, but a compiled backbone .*set backbone.compile=false"):
        Mixup(layers=["0"]).check(nn.Sequential(nn.Identity()), compiled=True)


class Repeated(nn.Module):
    """Runs its one layer so many times, on rows of so many parts."""

    def __init__(self, times: int, parts: int = 1) -> None:
        super().__init__()
        self.layer, self.times, self.parts = nn.Identity(), times, parts

    def forward(self, rows: Tensor) -> Tensor:
        for _ in range(self.times):
            rows = self.layer(rows.repeat(self.parts, 1))
        return rows


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Repeated(0), r"'layer' is run 0 times for a picture"),
        (Repeated(2), r"'layer' is run 2 times for a picture"),
        (Repeated(1, parts=2), r"'layer' gives \[6, 2\] for 3 pictures; name a layer that gives a tensor with one row"),
    ],
)
def test_layers_that_cannot_be_mixed_are_refused(network, message):
    with pytest.raises(ValueError, match=message), mixed_inside(network, Mixing(0.5, torch.arange(3), "layer")):
        network(torch.rand(3, 2))
    assert not network.layer._forward_hooks
