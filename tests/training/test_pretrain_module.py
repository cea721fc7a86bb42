"""PretrainModule: whole-class training, watched by episodes."""

from __future__ import annotations

import functools

import pytest
import torch
from blobs import CONV4, Blobs
from pretraining import data, trainer
from pytorch_lightning import seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint

from fewshot import EpisodicDataModule, FewShotModule, PretrainModule
from fewshot.backbones import BackboneConfig
from fewshot.methods import NearestClassMean, ProtoNet
from fewshot.training.pretrain_module import CosineClassifier
from fewshot.training.schedules import WarmupMultiStepLR

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
]


def test_cosine_logits():
    classifier = CosineClassifier(4, 3, scale=7.0)
    features = torch.randn(5, 4)
    logits = classifier(features)
    expected = 7 * torch.nn.functional.cosine_similarity(features[:, None], classifier.weight[None], dim=-1)
    assert logits.shape == (5, 3)
    torch.testing.assert_close(logits, expected)


def test_it_learns_and_its_best_checkpoint_is_a_backbone(tmp_path):
    seed_everything(0, verbose=False)
    optimizer = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    module = PretrainModule(8, CONV4, optimizer=optimizer)
    folder = tmp_path / "run" / "version_0" / "checkpoints"
    best = ModelCheckpoint(folder, filename="best", monitor="val/accuracy", mode="max")
    fitting = trainer(max_epochs=6, callbacks=[best], enable_checkpointing=True)
    fitting.fit(module, data())
    found = fitting.callback_metrics
    assert float(found["train/accuracy"]) > 0.5  # of eight classes
    assert {"train/loss", "val/accuracy", "val/accuracy_ci95"} <= set(found)
    fitting.test(module, data(), verbose=False)
    assert module.results["test"]["n_episodes"] == 20
    assert module.results["test"]["accuracy"] > 0.2

    loaded = PretrainModule.load_from_checkpoint(best.best_model_path, weights_only=True)
    for weights in (best.best_model_path, tmp_path / "run", tmp_path / "run" / "version_0"):
        backbone = BackboneConfig("conv4", weights=str(weights), image_size=28)
        few = FewShotModule(ProtoNet(), backbone)
        for name, value in loaded.backbone.state_dict().items():
            assert torch.equal(value, few.backbone.state_dict()[name]), name


def test_validation_accuracy_is_that_of_nearest_class_mean_on_the_same_episodes(tmp_path):
    """What watches pre-training is what FewShotModule measures with the same backbone."""
    module = PretrainModule(8, CONV4)
    fitting = trainer()
    fitting.fit(module, data())
    fitting.save_checkpoint(tmp_path / "last.ckpt")
    backbone = BackboneConfig("conv4", weights=str(tmp_path / "last.ckpt"), image_size=28)
    few = FewShotModule(NearestClassMean(), backbone)
    episodes = EpisodicDataModule(Blobs(n_pictures=12), n_query=2, val_episodes=30)
    accuracy = trainer().validate(few, episodes, verbose=False)[0]["val/accuracy"]
    assert accuracy == pytest.approx(float(fitting.callback_metrics["val/accuracy"]), abs=1e-6)


def test_validation_leaves_the_backbones_statistics_alone():
    module = PretrainModule(8, CONV4)
    before = {name: value.clone() for name, value in module.backbone.state_dict().items()}
    trainer().validate(module, data(), verbose=False)
    assert all(torch.equal(value, before[name]) for name, value in module.backbone.state_dict().items())


def test_the_number_of_classes_is_checked():
    with pytest.raises(ValueError, match=r"n_classes=9 but the train split has 8 classes; set model.n_classes to 8"):
        trainer().fit(PretrainModule(9, CONV4), data())


def test_numbers_that_cannot_be_are_refused():
    for options, message in (({"n_classes": -5}, "n_classes=-5"), ({"label_smoothing": 2.0}, "label_smoothing=2.0")):
        with pytest.raises(ValueError, match=message):
            PretrainModule(**{"n_classes": 8, "backbone": CONV4, **options})


def test_warmup_then_milestones():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = WarmupMultiStepLR(optimizer, warmup_steps=4, milestones=[8, 6], gamma=0.1)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 0.2, 0.2, 0.02, 0.02])


def test_no_warmup():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    WarmupMultiStepLR(optimizer, warmup_steps=0)
    assert optimizer.param_groups[0]["lr"] == 2.0


def test_the_default_optimizer_and_scale_are_the_papers():
    module = PretrainModule(8, CONV4)
    optimizer = module.configure_optimizers()
    expected = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    assert {name: optimizer.defaults[name] for name in expected} == expected
    assert module.classifier.scale.item() == 10.0
