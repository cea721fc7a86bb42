"""Sections of an episode's time: rows of a profiler where there is one, nothing at all where there is none."""

import pytest
from pytorch_lightning.profilers import SimpleProfiler

from fewshot.sections import begin, end, measure_with, measuring, section


@pytest.fixture
def profiler():
    measure_with(profiler := SimpleProfiler())
    yield profiler
    measure_with(None)


def test_sections_are_the_profilers_rows(profiler):
    assert measuring()
    for _ in range(3):
        with section("method"):
            pass
    begin("optimiser")
    begin("optimiser")  # a step that was skipped never ends
    end("optimiser")
    end("optimiser")
    assert {name: len(durations) for name, durations in profiler.recorded_durations.items()} == {
        "method": 3,
        "optimiser": 1,
    }


def test_without_a_profiler_nothing_is_made():
    measure_with(None)
    assert not measuring()
    assert section("method") is section("encode")
    begin("optimiser")
    end("optimiser")
