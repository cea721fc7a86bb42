"""Loaders that go on in the middle of an epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from fewshot.data.batches import EpisodeDataset, ResumableLoader, batch_loader, whole_batch
from fewshot.data.features import Features
from fewshot.data.keys import EpisodeKeys
from fewshot.data.sampler import EpisodeSampler


class Echo(Dataset[list[tuple[int, int]]]):
    """Batches of the keys themselves."""

    def __getitems__(self, keys):
        return keys


def loader(*, batch_size: int = 2, num_workers: int = 0, training: bool = True):
    keys = EpisodeKeys(7, training=training)
    return batch_loader(Echo(), keys, batch_size=batch_size, num_workers=num_workers, drop_last=False)


def whole_epoch(epoch: int) -> list[list[tuple[int, int]]]:
    fresh = loader()
    fresh.sampler.set_epoch(epoch)
    return list(fresh)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("taken", [0, 1, 3, 4])
def test_the_rest_of_an_epoch_and_then_whole_ones(num_workers, taken):
    killed = loader(num_workers=num_workers)
    killed.sampler.set_epoch(1)
    batches = iter(killed)
    before = [next(batches) for _ in range(taken)]
    state = killed.state_dict()  # workers have run ahead of what was handed out
    assert state["batches"] == taken

    resumed = loader(num_workers=num_workers)
    resumed.load_state_dict(state)
    resumed.sampler.set_epoch(1)
    rest = list(resumed)
    assert before + rest == whole_epoch(1)
    assert resumed.state_dict()["batches"] == 4
    assert len(resumed) == 4
    resumed.sampler.set_epoch(2)
    assert list(resumed) == whole_epoch(2)


def test_a_state_at_the_end_of_an_epoch_leaves_the_next_one_whole():
    done = loader()
    list(done)
    resumed = loader()
    resumed.load_state_dict(done.state_dict())
    resumed.sampler.set_epoch(1)
    assert list(resumed) == whole_epoch(1)


def test_other_batches_and_processes_are_refused():
    state = {"epoch": 3, "batches": 2, "batch_size": 2, "world_size": 1}
    with pytest.raises(ValueError, match="epoch 3 by a run with 2 tasks or pictures a batch, and this one has 4"):
        loader(batch_size=4).load_state_dict(state)
    with pytest.raises(ValueError, match="by a run with 2 processes, and this one has 1"):
        loader().load_state_dict({**state, "world_size": 2})


def test_iterating_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    list(loader())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_sampler_that_lightning_puts_in_is_resumed_too():
    """As trainer.overfit_batches does: one that knows no epochs."""
    numbers = [0, 1, 2, 3, 4, 5]
    whole = DataLoader(Echo(), sampler=SequentialSampler(numbers), batch_size=2, collate_fn=whole_batch)
    first, again = (ResumableLoader(Echo(), sampler=whole.sampler, batch_size=2, collate_fn=whole_batch) for _ in "ab")
    batches = iter(first)
    next(batches)
    state = first.state_dict()
    assert (state["epoch"], state["batches"]) == (0, 1)
    again.load_state_dict(state)
    assert list(again) == list(whole)[1:] and list(again) == list(whole)
    assert again.state_dict()["batches"] == 3


@pytest.mark.parametrize("n_ranks", [1, 3])
def test_episodes_drawn_ahead_are_those_drawn_alone(n_ranks, tmp_path, monkeypatch):
    monkeypatch.setattr("fewshot.data.batches.rank_and_world_size", lambda: (0, n_ranks))
    np.save(tmp_path / "features.npy", np.arange(80, dtype=np.float32).reshape(1, 40, 2))
    sampler = EpisodeSampler(np.repeat(np.arange(4), 10), n_way=2, n_shot=1, n_query=3, split="train")
    drawn: list[int] = []

    class Counted(EpisodeSampler):
        def draw(self, epoch, numbers):
            drawn.append(len(numbers))
            return sampler.draw(epoch, numbers)

    def episodes(split_sampler):
        given = {"images": None, "preprocessing": None, "training": True, "n_episodes": 30}
        return EpisodeDataset(sampler=split_sampler, features=Features(tmp_path / "features.npy"), **given)

    ahead = episodes(Counted(np.repeat(np.arange(4), 10), n_way=2, n_shot=1, n_query=3, split="train"))
    for epoch, first in ((0, 0), (0, 2), (0, 25), (1, 25), (1, 4), (1, 29)):  # on, on, a jump, an epoch, back, beyond
        numbers = [first, first + n_ranks]
        batch = ahead.__getitems__([(epoch, number) for number in numbers])
        alone = sampler.draw(epoch, numbers)
        assert batch.numbers.tolist() == numbers
        np.testing.assert_array_equal(batch.support_index, alone.support)
        np.testing.assert_array_equal(batch.query_index, alone.query)
        np.testing.assert_array_equal(batch.query_labels, alone.query_labels)
        torch.testing.assert_close(batch.query[..., 0], 2.0 * batch.query_index)
    assert drawn[0] == len(range(0, 30, n_ranks))
    if n_ranks == 1:
        assert len(drawn) == 4  # the second and third batch came with the first
