"""Threads of the processor are as many as a batch is worth, and come back."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from blobs import CONV4, Blobs, trainer

from fewshot import EpisodicDataModule, FewShotModule
from fewshot.methods import SIB, MLPGradient
from fewshot.training.threads import OF_THE_USER, SHARED

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training.*"),
]


@pytest.fixture(autouse=True)
def usual(monkeypatch):
    """Three threads, as on a machine with three cores where nobody has said anything."""
    for name in OF_THE_USER:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


class Counting(FewShotModule):
    """Notes how many threads there are at every step, and ends in an error at that one."""

    fails = False

    def training_step(self, episode, batch_idx):
        self.seen.append(torch.get_num_threads())
        if self.fails:
            raise RuntimeError("at a step")
        return super().training_step(episode, batch_idx)

    def validation_step(self, episode, batch_idx):
        self.seen.append(torch.get_num_threads())
        return super().validation_step(episode, batch_idx)

    def test_step(self, episode, batch_idx):
        self.seen.append(torch.get_num_threads())
        return super().test_step(episode, batch_idx)

    def predict_step(self, episode, batch_idx):
        self.seen.append(torch.get_num_threads())
        return super().predict_step(episode, batch_idx)


def counted(monkeypatch, *, shared=SHARED, stored=True, fails=False):
    """Threads at each step of a fit, a validation, a test and a prediction."""
    monkeypatch.setattr("fewshot.training.threads.SHARED", shared)
    data = EpisodicDataModule(
        Blobs(),
        n_way=3,
        n_query=2,
        tasks_per_batch=2,
        train_episodes=4,
        val_episodes=2,
        test_episodes=4,
        store_features=stored,
    )
    module = Counting(SIB(gradient=MLPGradient(3)), CONV4)
    module.seen, module.fails = [], fails
    fitting = trainer(log_every_n_steps=1)
    runs = [fitting.fit, *(partial(run, verbose=False) for run in (fitting.validate, fitting.test)), fitting.predict]
    for run in runs:
        seen = len(module.seen)
        run(module, datamodule=data)
        assert torch.get_num_threads() == 3 and len(module.seen) > seen
    return module.seen


def test_small_batches_have_one_thread(monkeypatch, usual):
    assert set(counted(monkeypatch)) == {1}
    assert torch.get_num_threads() == usual


def test_larger_ones_and_pictures_have_all(monkeypatch, usual):
    assert set(counted(monkeypatch, shared=1)) == {usual}
    assert set(counted(monkeypatch, stored=False)) == {usual}


@pytest.mark.parametrize("name", OF_THE_USER)
def test_what_the_user_says_holds(name, monkeypatch, usual):
    monkeypatch.setenv(name, "3")
    assert set(counted(monkeypatch)) == {usual}


def test_they_come_back_after_an_error(monkeypatch, usual):
    with pytest.raises(RuntimeError, match="at a step"):
        counted(monkeypatch, fails=True)
    assert torch.get_num_threads() == usual
