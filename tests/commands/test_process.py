"""Freed memory is kept for the next tensor, unless the environment says how the allocator is to work."""

import os
import platform
import subprocess
import sys

import pytest

from fewshot.commands.process import VARIABLES

FAULTS = """
import resource
import sys
from fewshot.commands.process import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        b'1' * (64 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_freed_memory()
faults()
print(kept, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({}, id="by default", marks=pytest.mark.slow),
        pytest.param({"MALLOC_MMAP_MAX_": "65536"}, id="set by the environment", marks=pytest.mark.slow),
    ],
)
def test_freed_memory_is_kept(variables):
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | variables
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert done[0] == str(not variables)
    assert (int(done[1]) < 100) == (not variables)  # 4 times 16,384 pages otherwise
