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
        b'1' * (int(sys.argv[2]) * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_freed_memory()
if sys.argv[1] == "small":
    kept = keep_freed_memory(large=False)  # as a command does that finds rows of features
faults()
print(kept, faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize(
    ("variables", "large", "size", "is_kept"),
    [
        pytest.param({}, "large", 64, True, id="by default"),
        pytest.param({}, "small", 30, True, id="of small blocks"),
        pytest.param({}, "small", 64, False, id="not of large ones"),
        pytest.param({"MALLOC_MMAP_MAX_": "65536"}, "large", 64, False, id="set by the environment"),
    ],
)
def test_freed_memory_is_kept(variables, large, size, is_kept):
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | variables
    command = [sys.executable, "-c", FAULTS, large, str(size)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert done[0] == str(not variables)
    assert (int(done[1]) < 100) == is_kept  # 4 times 256 pages of every MiB otherwise
