"""Threads that wait sleep after a moment, unless the user says how they wait; said before torch is there to read it."""

import os
import subprocess
import sys

import pytest

from fewshot.commands.waiting import BOUNDED, OF_THE_USER, bound_waits

BEFORE_TORCH = """
import os, sys
from fewshot.commands import main
try:
    main(["no command"])
except SystemExit:
    print(sorted(name for name in os.environ if name in {names}), "torch" in sys.modules)
"""


@pytest.mark.parametrize("given", [{}, *({name: "as the user has it"} for name in OF_THE_USER)], ids=str)
def test_waits_are_bounded_unless_the_user_has_decided(given):
    environment = dict(given)
    bound_waits(environment)
    assert environment == (given or BOUNDED)


@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}], ids=str)
def test_the_command_line_says_so_before_torch_is_imported(given):
    environment = {name: value for name, value in os.environ.items() if name not in OF_THE_USER} | given
    program = BEFORE_TORCH.format(names=set(OF_THE_USER))
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == f"{sorted(given or BOUNDED)} False"


def test_these_tests_have_it():
    assert any(name in os.environ for name in OF_THE_USER)
