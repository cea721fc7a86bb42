"""What every test starts from: fixed seeds, few threads, no network and no folder of the user's."""

from __future__ import annotations

import gc
import ipaddress
import os
import random
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewshot.commands.waiting import bound_waits

bound_waits(os.environ)  # before torch is imported, which reads it; the processes that tests start have it too

gc.disable()  # until all is imported, see pytest_collection_finish

import torch  # noqa: E402

SETS = ("cifar_fs", "omniglot", "tiny_imagenet_fs")


def pytest_configure(config: pytest.Config) -> None:
    """Point what caches or reports at a temporary folder, one for each process, which goes when the session ends.

    Decoded pictures are the same for all: processes that were started together share one cache, the first one's.
    """
    folder = Path(tempfile.mkdtemp(prefix="fewshot-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ["FEWSHOT_CACHE"] = str(folder / "cache")
    os.environ.update(
        WANDB_MODE="offline",
        WANDB_SILENT="true",
        WANDB_DIR=str(folder),
        WANDB_CACHE_DIR=str(folder / "wandb-cache"),
        WANDB_CONFIG_DIR=str(folder / "wandb-config"),
        WANDB_DATA_DIR=str(folder / "wandb-data"),
        HF_HUB_OFFLINE="1",
    )
    if "PYTEST_XDIST_WORKER" in os.environ:  # each of several processes has one thread, and so has what it starts
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """With -n auto a process for each core, hyper-threads counted, up to eight: each takes more than a gigabyte."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Unless --dist says otherwise, each process takes tests that lie together, whose fixtures are then made once."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.option.dist == "load" else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where nobody says how many threads: two for what takes minutes, one for the rest.

    The rest works on small tensors, and on a machine that is not idle threads wait for each other: seven times as long.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        long = item.get_closest_marker("slow") or item.get_closest_marker("weekly")
        torch.set_num_threads(2 if long else 1)


def pytest_collection_finish() -> None:
    """Leave what is imported out of every later search for garbage, which takes half a second to walk through it."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked gpu where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test starts from the same random state, whichever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to other machines; this one's own addresses and sockets of other families stay open."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_loopback(address[0]):
            pytest.fail(f"a test asks for the network: {address[0]}:{address[1]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", socket.gethostname())


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real images, <root>/<set>/<split>/<class>/<picture>; skips where there is none.

    Takes the environment variable FEWSHOT_DATA. Set to a folder that is not there, it fails: a mistyped path must not
    pass for a machine without images.
    """
    value = os.environ.get("FEWSHOT_DATA")
    if not value:
        pytest.skip("needs real images: set FEWSHOT_DATA to a folder that holds " + ", ".join(SETS))
    root = Path(value).expanduser().resolve()
    missing = [name for name in SETS if not (root / name).is_dir()]
    if missing:
        pytest.fail(f"FEWSHOT_DATA is {root}, which lacks {', '.join(missing)}; unset it to skip real images")
    return root


@pytest.fixture(scope="session")
def write_pictures() -> Callable[..., None]:
    """Writes pictures of noise, <root>/<split>/<class>/<number>.png."""

    def write(root: Path, *, classes: int = 5, pictures: int = 4, size: int = 16) -> None:
        rng = np.random.default_rng(0)
        for split in ("train", "val", "test"):
            for c in range(classes):
                (root / split / f"{split}{c}").mkdir(parents=True)
                for i in range(pictures):
                    pixels = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
                    Image.fromarray(pixels).save(root / split / f"{split}{c}" / f"{i}.png")

    return write
