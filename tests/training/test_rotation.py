"""The rotation task of pre-training: its pictures, its labels, its loss, and what it leaves as it was."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from blobs import CONV4, Blobs
from pretraining import data, loss_of, trainer
from torch import Tensor

from fewshot import EpisodicDataModule, FewShotModule, PretrainModule
from fewshot.backbones import BackboneConfig
from fewshot.methods import ProtoNet, TransductiveFineTuning
from fewshot.training.mixup import Mixup
from fewshot.training.rotation import IGNORED, Rotation, counted_accuracy

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
]

SGD = functools.partial(torch.optim.SGD, lr=0.05)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(6, 3, 28, 28), torch.randint(8, (6,))


@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("classify_turned", [True, False])
@pytest.mark.parametrize(("share", "n_turned"), [(1.0, 6), (0.5, 3), (0.01, 1)])
def test_turned_pictures_and_their_labels(batch, share, n_turned, classify_turned, upright):
    pictures, labels = batch
    extended = Rotation(share=share, classify_turned=classify_turned).extended(pictures, labels, upright=upright)
    expected = [
        (picture, label, 0 if upright and i < n_turned else IGNORED)
        for i, (picture, label) in enumerate(zip(pictures, labels, strict=True))
    ]
    for turn in range(1 if upright else 0, 4):
        for picture, label in list(zip(pictures, labels, strict=True))[:n_turned]:
            for _ in range(turn):  # a quarter turn counterclockwise: the last column becomes the first row
                picture = torch.stack([picture[:, :, 27 - row] for row in range(28)], dim=1)
            expected.append((picture, label if classify_turned else IGNORED, turn))
    for found, rows in zip(extended, zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(found, torch.stack([torch.as_tensor(row) for row in rows]), rtol=0, atol=0)


@pytest.mark.parametrize("classify_turned", [True, False])
def test_the_loss_is_that_of_the_formula(batch, classify_turned):
    """Both cross-entropies written out picture by picture, batch statistics included."""
    rotation = Rotation(weight=0.7, share=0.5, classify_turned=classify_turned)
    module = PretrainModule(8, CONV4, rotation=rotation, label_smoothing=0.1).double()
    pictures, labels = batch[0].double(), batch[1]
    loss = loss_of(module, (pictures, labels))

    turns = [(i, 0) for i in range(6)] + [(i, k) for k in (1, 2, 3) for i in range(3)]
    features = module(torch.stack([pictures[i].rot90(k, (1, 2)) for i, k in turns]))
    of_classes, of_turns = [], []
    for (i, k), feature in zip(turns, features, strict=True):
        if k == 0 or classify_turned:
            log_p = module.classifier(feature[None])[0].log_softmax(0)
            of_classes.append(-0.9 * log_p[labels[i]] - 0.1 * log_p.mean())
        if i < 3:
            of_turns.append(-module.rotation_classifier(feature[None])[0].log_softmax(0)[k])
    assert len(of_turns) == 12
    expected = torch.stack(of_classes).mean() + 0.7 * torch.stack(of_turns).mean()
    torch.testing.assert_close(loss, expected)


def test_with_mixup_the_turned_pictures_are_not_mixed(batch):
    module = PretrainModule(8, CONV4, rotation=Rotation(share=0.5), mixup=Mixup(layers=["conv2"]))
    seen = []
    module.backbone.conv2.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach()))
    module.backbone.conv3.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach()))
    loss_of(module, batch)
    into_conv2, into_conv3 = seen
    assert len(into_conv2) == 6 + 4 * 3
    unmixed = module.backbone.conv2(into_conv2)  # its statistics are those of the same batch
    assert torch.equal(into_conv3[6:], unmixed[6:])
    assert not torch.equal(into_conv3[:6], unmixed[:6])


@pytest.mark.parametrize("mixup", [None, Mixup()])
def test_every_parameter_gets_a_gradient(batch, mixup):
    """DDP asks for it."""
    module = PretrainModule(8, CONV4, rotation=Rotation(share=0.01), mixup=mixup)
    loss_of(module, batch).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name


def test_a_checkpoint_of_half_precision_training_is_a_backbone(tmp_path):
    module = PretrainModule(8, CONV4, rotation=Rotation(share=0.5), optimizer=SGD)
    fitting = trainer(max_epochs=2, precision="bf16-mixed")
    fitting.fit(module, data())
    logged = fitting.callback_metrics
    assert {"train/rotation_accuracy", "train/rotation_loss", "train/accuracy", "val/accuracy"} <= set(logged)
    assert 0 <= float(logged["train/rotation_accuracy"]) <= 1
    assert float(logged["train/loss"]) > float(logged["train/rotation_loss"]) > 0
    fitting.save_checkpoint(tmp_path / "last.ckpt")

    again = PretrainModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert again.rotation == Rotation(share=0.5)
    assert torch.equal(again.rotation_classifier.weight, module.rotation_classifier.weight)
    backbone = BackboneConfig("conv4", weights=str(tmp_path / "last.ckpt"), image_size=28)
    few = FewShotModule(ProtoNet(), backbone)
    for name, value in module.backbone.state_dict().items():
        assert torch.equal(value, few.backbone.state_dict()[name]), name


def test_methods_are_given_the_classifier_of_the_classes_not_that_of_the_turns(tmp_path):
    module = PretrainModule(8, CONV4, rotation=Rotation())
    fitting = trainer(limit_train_batches=1)
    fitting.fit(module, data())
    fitting.save_checkpoint(tmp_path / "last.ckpt")
    backbone = BackboneConfig("conv4", weights=str(tmp_path / "last.ckpt"), image_size=28)
    few = FewShotModule(TransductiveFineTuning(n_rounds=1), backbone)
    trainer().test(few, EpisodicDataModule(Blobs(n_pictures=12), n_query=2, test_episodes=2), verbose=False)
    assert torch.equal(few.method.base.weights, module.classifier.weight)


def fitted_without(**options: Any) -> PretrainModule:
    torch.manual_seed(3)
    module = PretrainModule(8, CONV4, optimizer=SGD, **options)
    trainer(limit_train_batches=3).fit(module, data())
    return module


def test_left_out_nothing_is_drawn_made_or_changed(batch):
    """Without the options: the weights that the loop of before gives, and a state dict without a trace of them."""
    module = fitted_without(rotation=None, mixup=None)
    assert not [name for name in module.state_dict() if "rotation" in name or "mixup" in name]
    torch.manual_seed(3)
    other = PretrainModule(8, CONV4)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.05)
    feed = data()
    feed.setup("fit")
    for _, (pictures, labels) in zip(range(3), feed.train_dataloader(), strict=False):
        optimizer.zero_grad()
        F.cross_entropy(other.classifier(other(pictures)), labels).backward()
        optimizer.step()
    for name, value in other.named_parameters():
        assert torch.equal(value, module.get_parameter(name)), name
    state = torch.get_rng_state()
    loss_of(module, batch)
    assert torch.equal(state, torch.get_rng_state())


def test_a_checkpoint_of_before_is_loaded(tmp_path):
    """One whose hyper-parameters know neither option."""
    module = fitted_without()
    module._trainer.save_checkpoint(tmp_path / "old.ckpt")
    content = torch.load(tmp_path / "old.ckpt", weights_only=True)
    assert content["hyper_parameters"].pop("rotation") is None
    assert content["hyper_parameters"].pop("mixup") is None
    torch.save(content, tmp_path / "old.ckpt")
    loaded = PretrainModule.load_from_checkpoint(tmp_path / "old.ckpt", weights_only=True)
    assert loaded.rotation is None and loaded.mixup is None
    for name, value in module.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_accuracy_counts_what_has_a_label():
    logits = torch.eye(3)[[0, 1, 2, 0]]
    assert counted_accuracy(logits, torch.tensor([0, 2, IGNORED, 0])).item() == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 0.0}, r"rotation.weight=0.0; give a number above 0"),
        ({"weight": float("nan")}, r"rotation.weight=nan"),
        ({"share": 0.0}, r"rotation.share=0.0; give a number above 0 and at most 1"),
        ({"share": 1.5}, r"rotation.share=1.5"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Rotation(**options)
