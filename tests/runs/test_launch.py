"""What the launcher's environment tells before processes have found each other; the rest: test_features_of_ranks.py."""

from __future__ import annotations

import pytest

from fewshot.data.ranks import gathered
from fewshot.runs.launch import is_launched_first, launched_world_size

VARIABLES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID")
VARIABLES += ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_JOB_NAME")
SLURM = {"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize(
    ("environment", "first", "world"),
    [
        ({}, True, None),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True, None),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, False, None),
        ({"NODE_RANK": "1"}, False, None),
        ({"LOCAL_RANK": "0", "GROUP_RANK": "1"}, False, None),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}, True, 2),
        ({"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}, False, 2),
        ({**SLURM, "SLURM_PROCID": "0"}, True, 8),
        ({**SLURM, "SLURM_PROCID": "5"}, False, 8),
        ({**SLURM, "SLURM_PROCID": "5", "SLURM_JOB_NAME": "interactive"}, True, None),
    ],
)
def test_who_is_first_and_how_many_there_are(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], first: bool, world: int | None
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_launched_first() == first and launched_world_size() == world


def test_alone_there_is_nobody_to_ask() -> None:
    assert gathered(lambda: 5) == [5]
    with pytest.raises(KeyError, match="own"):
        gathered(lambda: {}["own"])
