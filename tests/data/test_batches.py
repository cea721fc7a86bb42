"""Loaders that go on in the middle of an epoch."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from fewshot.data.batches import ResumableLoader, batch_loader, whole_batch
from fewshot.data.keys import EpisodeKeys


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
