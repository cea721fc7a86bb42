"""How threads wait for each other: for a moment awake, then asleep, so that a busy neighbour costs its share alone.

The threads of one operation wait until the last of them is done. OpenMP has them spin meanwhile, which takes
the processor from the very thread that they wait for where another program runs too. Where they spin for a moment only
nothing is lost on an idle machine. The libraries read their variables when torch is loaded.
"""

from __future__ import annotations

from collections.abc import MutableMapping

OF_THE_USER = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Whoever sets one of these has decided."""
BOUNDED = {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "1"}
"""Spins of GNU's OpenMP, which torch has on Linux; milliseconds of LLVM's and Intel's."""


def bound_waits(environment: MutableMapping[str, str]) -> None:
    """Have threads sleep after a moment of waiting, here and in the processes that are started from here.

    Args:
        environment: of the process, before torch is imported; nothing is changed that the user has set.
    """
    if not any(name in environment for name in OF_THE_USER):
        environment.update(BOUNDED)
