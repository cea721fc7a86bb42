"""The process that a command runs in: memory that is kept, noise of libraries that is not shown, what is said once."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from pytorch_lightning.utilities import rank_zero_only

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4  # of glibc's malloc.h
LARGE = 2**25  # bytes; the largest threshold that glibc takes
MAPPED = 65536  # blocks at once, as glibc has it
VARIABLES = (
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "GLIBC_TUNABLES",
)


def keep_freed_memory(*, large: bool = True) -> bool:
    """Have glibc keep what is freed rather than give it back to the kernel; whether that was done.

    Otherwise every large activation is mapped anew and its pages are filled with zeros by the kernel: a quarter of
    the time of pre-training Conv-4 on a CPU. The process keeps the memory of its fullest moment until it ends. Nothing
    is done where the C library is another one, or where the environment sets the allocator up (MALLOC_... or
    GLIBC_TUNABLES).

    Args:
        large: also blocks of LARGE bytes and more. Activations in training are among them; so are arrays of a large
            file of features, of which the fullest moment is much more than what is needed at once.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in VARIABLES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    of_blocks = [(M_MMAP_MAX, 0)] if large else [(M_MMAP_MAX, MAPPED), (M_MMAP_THRESHOLD, LARGE)]
    return all(mallopt(name, value) for name, value in (*of_blocks, (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 2**26)))


# Silenced by name: what each of them says is so by design, or is upstream's to mend.
NOISE = (
    # https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    (".*LeafSpec.*", FutureWarning),
    # LightningCLI calls what jsonargparse 4.49 deprecated: https://github.com/Lightning-AI/pytorch-lightning/issues/21900
    (r"(?s).*(JsonargparseDeprecationWarning|add_instantiator|instantiate_classes|skip_none)", DeprecationWarning),
    # num_workers=0 is the default on purpose: https://github.com/Lightning-AI/pytorch-lightning/issues/10182
    (".*does not have many workers.*", UserWarning),
    # a frozen backbone is in evaluation mode: https://github.com/Lightning-AI/pytorch-lightning/issues/19820
    (".*module\\(s\\) in eval mode at the start of training.*", UserWarning),
    # Pillow warns of a large picture before fewshot.data.pictures refuses it by name
    (".*could be decompression bomb DOS attack.*", Warning),
    # short epochs are logged at their last step
    (".*smaller than the logging interval.*", UserWarning),
    # every rank has computed the same value over all ranks; averaging it would cost a digit
    (r"(?s).*sync_dist=True.*when logging on epoch level.*", UserWarning),
    # a run that is continued has checkpoints there, which stay
    (".*directory .* exists and is not empty.*", UserWarning),
    # nothing was validated, and the command says so
    (".*could not find the monitored key.*", UserWarning),
    # trainer.overfit_batches: the samplers here do not shuffle, but Lightning knows its own alone
    (".*requested to overfit but enabled .* dataloader shuffling.*", UserWarning),
)


# A checkpoint is tested in a folder of its own; where training is resumed in one, it is worth knowing.
NOISE_BUT_IN_FIT = ((".*dirpath has changed.*", UserWarning),)


@contextmanager
def quietened(*, training: bool) -> Iterator[None]:
    """Without that noise; what is worth knowing when a training is resumed stays.

    Args:
        training: whether the command trains.
    """
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # no tips, no list of absent accelerators
    logging.getLogger("pytorch_lightning.profilers").setLevel(logging.INFO)  # what trainer.profiler asks for
    with warnings.catch_warnings():
        for message, category in NOISE if training else NOISE + NOISE_BUT_IN_FIT:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield


TERMINATED = 128 + signal.SIGTERM
"""The exit code of what SIGTERM ends, as shells have it."""


@contextmanager
def ends_by_sigterm() -> Iterator[None]:
    """SIGTERM ends what runs here by an exception, so that nothing half-written stays, and with exit code TERMINATED.

    Lightning notes the signal and looks at it after a batch of an evaluation, ending with code 0, and not at all while
    it predicts. A handler that somebody else has set stays. `fit` has its own while it trains, which saves first.
    """
    here = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    def end(number: int, frame: Any) -> NoReturn:
        raise SystemExit(TERMINATED)

    if here:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    except SystemExit as stop:
        if stop.code == TERMINATED:
            say("\nstopped by SIGTERM")
        raise
    finally:
        if here:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@rank_zero_only
def say(text: str) -> None:
    """Print once, whatever the number of ranks; what the terminal or file cannot take is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough; the work goes on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
