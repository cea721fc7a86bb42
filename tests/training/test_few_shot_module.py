"""FewShotModule: what it trains, what it leaves alone, what it logs, what its checkpoints hold."""

from __future__ import annotations

import csv
import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blobs import CONV4, Blobs, trainer
from pytorch_lightning import seed_everything
from pytorch_lightning.cli import ReduceLROnPlateau as LightningPlateau
from pytorch_lightning.loggers import CSVLogger
from torch.optim.lr_scheduler import ReduceLROnPlateau

from fewshot import EpisodicDataModule, FewShotModule, PretrainModule
from fewshot.backbones import BackboneConfig
from fewshot.data.datasets import CIFARFS, FewShotDataset, Glyphs
from fewshot.data.transforms import Preprocessing, evaluation_transform
from fewshot.methods import SIB, EquivariantGradient, Method, MLPGradient, NearestClassMean, ProtoNet
from fewshot.training.schedules import WarmupMultiStepLR

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
]


@pytest.fixture(autouse=True)
def own_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored features of one test are not found by another."""
    if "real" not in request.fixturenames:  # decoded once for all tests
        monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))


def data(**options: Any) -> EpisodicDataModule:
    sizes: dict[str, Any] = {"n_way": 3, "n_query": 2, "tasks_per_batch": 2, "train_episodes": 4}
    return EpisodicDataModule(Blobs(), **{**sizes, "val_episodes": 3, "test_episodes": 5, **options})


def sib(**options: Any) -> SIB:
    return SIB(gradient=MLPGradient(n_way=3), **{"n_steps": 2, **options})


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


# The backbone.


@pytest.mark.parametrize("store_features", [True, False])
def test_a_frozen_backbone_is_not_touched(store_features):
    module = FewShotModule(sib(), CONV4)
    before = state(module.backbone)
    modes = []
    module.backbone.register_forward_hook(lambda network, *_: modes.append(network.training))
    trainer().fit(module, data(store_features=store_features))
    assert modes and not any(modes)
    assert all(torch.equal(value, before[name]) for name, value in module.backbone.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in module.backbone.parameters())
    assert module.train().backbone.training is False and module.method.training


def test_features_of_a_frozen_backbone_are_computed_once_for_every_picture():
    module = FewShotModule(sib(), CONV4)
    seen = []
    module.backbone.register_forward_hook(lambda network, inputs, _: seen.append(len(inputs[0])))
    feed = data(train_episodes=40, val_episodes=20)
    trainer(max_epochs=3).fit(module, feed)
    assert sum(seen) == 2 * 8 * 6  # training and validation pictures, once each


def test_a_trained_backbone_changes():
    module = FewShotModule(sib(), CONV4, freeze_backbone=False)
    before = state(module.backbone)
    trainer().fit(module, data())
    changed = {name for name, value in module.backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(before), set(before) - changed


def test_stored_features_give_exactly_the_accuracy_of_encoding_every_episode():
    accuracies = []
    for store_features in (True, False):
        seed_everything(0, verbose=False)
        module = FewShotModule(sib(step_size=0.05), CONV4)
        trainer().test(module, data(store_features=store_features, test_episodes=40), verbose=False)
        accuracies.append(module.results["test"]["accuracy_per_step"])
    assert accuracies[0] == accuracies[1]


@pytest.mark.parametrize(
    ("n_episodes", "store_features", "real"),
    [
        pytest.param(12, False, False, marks=pytest.mark.slow),
        pytest.param(1000, True, True, marks=pytest.mark.slow),
        pytest.param(250, False, True, marks=pytest.mark.slow),
    ],
)
def test_accuracy_is_the_same_to_the_last_digit_with_any_workers_and_batches(n_episodes, store_features, real, request):
    """On a few characters of fonts, or on CIFAR-FS."""
    if real:
        many_pictures: FewShotDataset = CIFARFS(root=str(request.getfixturevalue("data_root") / "cifar_fs"))
    else:
        many_pictures = Glyphs(pictures_per_class=16)
    found = []
    for workers, tasks in ((0, 1), (0, 16), (2, 16)):
        seed_everything(0, verbose=False)
        in_chans = many_pictures.preprocessing.channels
        size = many_pictures.preprocessing.image_size
        module = FewShotModule(
            SIB(gradient=MLPGradient(5), n_steps=2), BackboneConfig(in_chans=in_chans, image_size=size)
        )
        feed = EpisodicDataModule(
            many_pictures,
            tasks_per_batch=tasks,
            num_workers=workers,
            test_episodes=n_episodes,
            store_features=store_features,
        )
        trainer().test(module, feed, verbose=False)
        found.append({**module.results["test"], "sha256": feed.episodes_sha256("test")})
    assert found[0]["n_episodes"] == n_episodes
    assert all(other == found[0] for other in found[1:])


# What is logged.


def test_logged_names():
    module = FewShotModule(sib(), CONV4)
    fitting = trainer(log_every_n_steps=1)
    fitting.fit(module, data())
    names = {"train/loss", "train/accuracy", "train/gradient_norm", "train/gradient_cosine"}
    names |= {"val/loss", "val/accuracy", "val/accuracy_ci95", "val/accuracy_nearest_mean"}
    names |= {f"val/accuracy_step_{k}" for k in range(3)}
    assert names <= set(fitting.callback_metrics)
    assert all(0 <= fitting.callback_metrics[f"val/accuracy_step_{k}"] <= 1 for k in range(3))
    assert -1 <= fitting.callback_metrics["train/gradient_cosine"] <= 1
    fitting.test(module, data(), verbose=False)
    assert {"test/loss", "test/accuracy", "test/accuracy_ci95", "test/accuracy_step_2"} <= set(fitting.callback_metrics)
    last = float(fitting.callback_metrics["test/accuracy"])
    assert last == pytest.approx(module.results["test"]["accuracy"]) == module.results["test"]["accuracy_per_step"][-1]


def test_what_is_written_is_of_the_step_it_is_written_at(tmp_path):
    losses = []

    class Watched(FewShotModule):
        def training_step(self, *args: Any) -> torch.Tensor:
            loss = super().training_step(*args)
            losses.append(loss.item())
            return loss

    logger = CSVLogger(tmp_path)
    trainer(logger=logger, log_every_n_steps=3).fit(Watched(sib(), CONV4), data(train_episodes=12))
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        written = {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]}
    assert len(losses) == 6 and written == pytest.approx({2: losses[2], 5: losses[5]})


def test_steps_at_test_may_differ_from_training():
    module = FewShotModule(sib(n_steps=1, test_steps=4), CONV4)
    fitting = trainer(log_every_n_steps=1)
    fitting.fit(module, data())
    assert "val/accuracy_step_4" in fitting.callback_metrics


def test_steps_may_be_set_anew_between_two_tests():
    module = FewShotModule(sib(n_steps=1), CONV4)
    testing = trainer()
    for steps in (1, 3, 0):
        module.method.test_steps = steps
        testing.test(module, data(), verbose=False)
        assert len(module.results["test"]["accuracy_per_step"]) == steps + 1


def test_extra_losses_are_logged_and_added():
    module = FewShotModule(sib(matching_weight=0.5), CONV4, initial_loss_weight=0.25)
    fitting = trainer(log_every_n_steps=1)
    fitting.fit(module, data())
    found = fitting.callback_metrics
    total = sum(found[f"train/{name}"] for name in ("cross_entropy", "matching", "initial"))
    assert float(found["train/loss"]) == pytest.approx(float(total), rel=1e-5)


def test_training_lowers_the_loss():
    seed_everything(0, verbose=False)
    module = FewShotModule(
        SIB(gradient=EquivariantGradient(), step_size=0.01, n_steps=3),
        CONV4,
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-2),
    )
    fitting, feed = trainer(max_epochs=2), data(train_episodes=80, val_episodes=30, tasks_per_batch=4)
    before = fitting.validate(module, feed, verbose=False)[0]["val/loss"]
    fitting.fit(module, feed)
    assert fitting.callback_metrics["val/loss"] < before


# What is not trained.


@pytest.mark.parametrize("method", [NearestClassMean(), ProtoNet()], ids=["nearest", "protonet"])
def test_nothing_to_train_is_said(method: Method):
    with pytest.raises(ValueError, match=r"nothing to train.*freeze_backbone=false"):
        trainer().fit(FewShotModule(method, CONV4), data())


def test_nearest_class_mean_is_tested_without_fit():
    module = FewShotModule(NearestClassMean(), CONV4)
    trainer().test(module, data(test_episodes=30), verbose=False)
    found = module.results["test"]
    assert found["accuracy"] == found["accuracy_nearest_mean"] > 1 / 3
    assert found["accuracy_per_step"] == [found["accuracy"]]


def test_an_optimizers_own_complaint_is_passed_on():
    module = FewShotModule(sib(), CONV4, optimizer=functools.partial(torch.optim.SGD, lr=-1.0))
    with pytest.raises(ValueError, match=r"optimizer: Invalid learning rate: -1\.0"):
        trainer().fit(module, data())


def test_episodes_without_labels_are_predicted_only():
    module = FewShotModule(sib(), CONV4)
    feed = data()
    fitting = trainer()
    predicted = fitting.predict(module, feed)
    assert predicted[0]["after"].shape == (2, 6, 3)
    assert torch.allclose(predicted[0]["after"].sum(-1), torch.ones(2, 6))
    batch = next(iter(feed.test_dataloader()))._replace(query_labels=None)
    assert module.predict_step(batch, 0)["query_labels"] is None
    with pytest.raises(ValueError, match="no query labels"):
        module.test_step(batch, 0)


# Optimisers, schedulers, checkpoints.


def saved(module: FewShotModule, folder: Path) -> Path:
    fitting = trainer()
    fitting.fit(module, data())
    fitting.save_checkpoint(folder / "module.ckpt")
    return folder / "module.ckpt"


def test_an_option_that_was_set_anew_is_said_to_be_left_out_of_what_is_saved(tmp_path):
    class Halved(ProtoNet):
        def __init__(self, scale: float = 4.0) -> None:
            super().__init__()
            self.scale = scale / 2

    saved(FewShotModule(Halved(), CONV4, freeze_backbone=False), tmp_path)  # nothing is said
    module = FewShotModule(sib(), CONV4)
    path = saved(module, tmp_path)
    module.method.step_size, module.method.reduction = 0.5, "mean"
    fitting = trainer()
    fitting.fit(module, data())
    with pytest.warns(
        UserWarning, match=r"(step_size|reduction) of SIB was set to .*, and what is saved has what"
    ) as said:
        fitting.save_checkpoint(path)
    assert len(said) == 2


def test_a_module_built_in_python_saves_plain_values_and_loads(tmp_path):
    optimizer = functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9)
    scheduler = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1)
    module = FewShotModule(
        sib(step_size=0.02), CONV4, optimizer=optimizer, lr_scheduler=scheduler, initial_loss_weight=0.5
    )
    path = saved(module, tmp_path)
    found = torch.load(path, weights_only=True)["hyper_parameters"]
    assert found["method"]["class_path"] == "fewshot.methods.SIB"
    assert found["optimizer"] == {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "momentum": 0.9}}
    loaded = FewShotModule.load_from_checkpoint(path, weights_only=True)
    assert isinstance(loaded.method, SIB) and loaded.method.step_size == 0.02 and loaded.initial_loss_weight == 0.5
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in loaded.state_dict().items())
    configured = loaded.configure_optimizers()
    assert isinstance(configured["optimizer"], torch.optim.SGD) and configured["optimizer"].defaults["lr"] == 0.01
    assert isinstance(configured["lr_scheduler"]["scheduler"], torch.optim.lr_scheduler.StepLR)
    again = saved(loaded, tmp_path)
    assert FewShotModule.load_from_checkpoint(again, weights_only=True).method.step_size == 0.02


def test_a_schedule_that_ends_elsewhere_than_training_is_said(caplog):
    def fit(steps, **options):
        schedule = functools.partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=steps)
        module = FewShotModule(sib(), CONV4, lr_scheduler=schedule, lr_interval="step")
        trainer(**{"max_epochs": 2, **options}).fit(module, data())
        return "does not come down" in caplog.text

    with pytest.raises(ValueError, match=r"total_steps=3 but training takes 4 optimiser steps; set .*=4, or"):
        fit(3)
    assert not fit(4)
    assert not fit(30, max_epochs=-1, max_time={"seconds": 0})  # who knows
    assert fit(5)


@pytest.mark.parametrize(
    ("schedule", "options", "interval", "message"),
    [
        (ReduceLROnPlateau, {}, "epoch", "mode=min lowers the rate where val/accuracy rises; set mode=max"),
        (ReduceLROnPlateau, {"mode": "max"}, "step", "lr_interval=step but .* looks at val/accuracy after an epoch"),
        (WarmupMultiStepLR, {}, "epoch", "lr_interval=epoch but WarmupMultiStepLR counts optimiser steps"),
        (ReduceLROnPlateau, {"mode": "max"}, "epoch", ""),
        (LightningPlateau, {"monitor": "val/loss"}, "epoch", ""),
    ],
)
def test_a_schedule_looks_at_what_it_is_meant_for(schedule, options, interval, message):
    made = functools.partial(schedule, **options)
    module = FewShotModule(sib(), CONV4, lr_scheduler=made, lr_interval=interval)
    if message:
        with pytest.raises(ValueError, match=message):
            module.configure_optimizers()
    else:
        found = module.configure_optimizers()["lr_scheduler"]
        assert found["monitor"] == options.get("monitor", "val/accuracy") and found["interval"] == "epoch"


def test_untrained_weights_fit_no_temperature_and_nothing_need_be_logged():
    module = FewShotModule(sib(), CONV4)
    trainer(max_epochs=1, check_val_every_n_epoch=2, num_sanity_val_steps=1, log_every_n_steps=0).fit(module, data())
    assert module.temperature is None
    trainer(max_epochs=1).fit(module, data())
    assert module.temperature is not None
    with pytest.raises(ValueError, match="initial_loss_weight=-1 but it is at least 0"):
        FewShotModule(sib(), CONV4, initial_loss_weight=-1)


def test_a_checkpoint_needs_no_file_of_first_weights(tmp_path):
    first = saved(FewShotModule(sib(), CONV4), tmp_path).rename(tmp_path / "first.ckpt")
    module = FewShotModule(sib(), BackboneConfig("conv4", weights=str(first), image_size=28))
    path = saved(module, tmp_path)
    first.unlink()
    loaded = FewShotModule.load_from_checkpoint(path, weights_only=True)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_the_default_optimizer_is_the_papers():
    optimizer = FewShotModule(sib(), CONV4).configure_optimizers()
    assert isinstance(optimizer, torch.optim.SGD)
    expected = {"lr": 1e-3, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    assert {name: optimizer.defaults[name] for name in expected} == expected


# A loss that is not finite.


class Diverging(NearestClassMean):
    """Logits that are not finite for the second task of a batch."""

    def build(self, n_features: int) -> None:
        self.scale = torch.nn.Parameter(torch.ones(()))

    def classify(self, support, support_labels, query, n_way):
        logits = self.scale * super().classify(support, support_labels, query, n_way)
        return torch.cat([logits[:1], logits[1:] * torch.inf])


@pytest.mark.filterwarnings("ignore:val. . of . episodes have queries whose logits are NaN or infinite")
@pytest.mark.parametrize("save", [False, True])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_episode(save, tmp_path):
    module = FewShotModule(Diverging(), CONV4, save_bad_episodes=save)
    logger = CSVLogger(tmp_path, name="diverging", version=0)
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step 0, epoch 0, episodes \[1\]") as error:
        trainer(logger=logger).fit(module, data())
    assert "classes train-" in str(error.value) and str(error.value).count("train-") == 3
    written = list(Path(tmp_path).rglob("bad_episodes*"))
    assert len(written) == save
    if save:
        assert str(written[0]) in str(error.value)
        content = torch.load(written[0], weights_only=True)
        assert content["numbers"].tolist() == [1] and content["support"].shape[:2] == (1, 3)
        assert not content["logits"].isfinite().all()
        datamodule = data()
        index = datamodule.sampler("train").draw(0, [1])
        assert content["query_index"].tolist() == index.query.tolist()
    else:
        assert "save_bad_episodes" in str(error.value)


class BaseClassReader(Method):
    """A nearest-mean classifier of centred features, for what it is told of the training classes."""

    needs_base = "features"

    def classify(self, support, support_labels, query, n_way):
        return NearestClassMean().classify(support - self.base.mean, support_labels, query - self.base.mean, n_way)


class ClassifierReader(BaseClassReader):
    """The same, of one that needs the classifier too."""

    needs_base = "classifier"


@pytest.mark.parametrize("store_features", [True, False])
def test_a_method_is_told_of_the_training_classes(store_features):
    module = FewShotModule(BaseClassReader(), CONV4)
    datamodule = data(store_features=store_features, augmented_views=2)
    trainer().test(module, datamodule, verbose=False)
    images = datamodule.images("train")
    pictures = evaluation_transform(images.read(np.arange(len(images))), datamodule.preprocessing)
    features = module.encode(pictures)  # [n, D]
    base = module.method.base
    torch.testing.assert_close(base.mean, features.mean(0))
    by_hand = torch.stack([features[torch.as_tensor(images.labels) == c].mean(0) for c in range(8)])
    torch.testing.assert_close(base.class_means, by_hand)
    assert base.weights is None and base.scale is None


def test_what_a_method_was_told_is_in_its_checkpoint(tmp_path, monkeypatch):
    module = FewShotModule(BaseClassReader(), CONV4)
    tester = trainer()
    tester.test(module, data(), verbose=False)
    tester.save_checkpoint(tmp_path / "told.ckpt")
    monkeypatch.setattr(EpisodicDataModule, "plain_features", lambda *_: pytest.fail("it is known already"))
    again = FewShotModule(BaseClassReader(), CONV4)
    trainer().test(again, data(), ckpt_path=str(tmp_path / "told.ckpt"), weights_only=True, verbose=False)
    assert torch.equal(again.method.base.mean, module.method.base.mean)
    assert again.results == module.results


def test_the_classifier_comes_from_the_pretraining_checkpoint(tmp_path):
    pretrained = PretrainModule(n_classes=8, backbone=CONV4)
    torch.save({"state_dict": pretrained.state_dict()}, tmp_path / "pretrained.ckpt")
    backbone = replace(CONV4, weights=str(tmp_path / "pretrained.ckpt"))
    module = FewShotModule(ClassifierReader(), backbone)
    trainer().test(module, data(), verbose=False)
    torch.testing.assert_close(module.method.base.weights, pretrained.classifier.weight.detach())
    assert module.method.base.scale == 10
    with pytest.raises(ValueError, match=r"ClassifierReader needs the classifier .* set model.backbone.weights"):
        trainer().test(FewShotModule(ClassifierReader(), CONV4), data(), verbose=False)


def test_a_method_is_told_nothing_of_features_that_change_or_of_no_data():
    module = FewShotModule(BaseClassReader(), CONV4, freeze_backbone=False)
    with pytest.raises(ValueError, match=r"BaseClassReader is told .* set model.freeze_backbone=true"):
        trainer().fit(module, data())
    with pytest.raises(ValueError, match="told nothing of the training classes"):
        BaseClassReader().classify(torch.randn(1, 2, 4), torch.tensor([[0, 1]]), torch.randn(1, 3, 4), 2)


# Probabilities, and queries that come later.


def test_a_checkpoint_holds_temperature_and_preprocessing(tmp_path: Path) -> None:
    model = FewShotModule(sib(), CONV4)
    run = trainer()
    run.fit(model, data())
    assert model.temperature is not None and model.temperature > 0
    run.save_checkpoint(tmp_path / "x.ckpt")
    loaded = FewShotModule.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert loaded.temperature == model.temperature
    assert Preprocessing(**loaded.pictures) == data().preprocessing
    trainer().test(loaded, data(), verbose=False)
    results = loaded.results["test"]
    assert results["temperature"] == model.temperature
    assert 0 <= results["ece"] <= 1 and 0 <= results["ece_uncalibrated"] <= 1
