"""How a command runs: freed memory is kept for the next tensor, and nobody has to read what it says."""

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


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there are no pipes of bash")
def test_work_goes_on_when_nobody_reads():
    code = "\n".join(
        [
            "import sys",
            "from fewshot.commands.process import say",
            "for _ in range(200):",
            "    say('x' * 999)",
            "print('done', file=sys.stderr)",
        ]
    )
    command = ["bash", "-c", '"$0" -c "$1" | true; exit "${PIPESTATUS[0]}"', sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == "done"
