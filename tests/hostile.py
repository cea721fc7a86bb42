"""Files that a stranger might send: what is in them, the ways that read them, and what a reading did.

    python -m hostile FOLDER        every file by every way, a line of JSON for each, with tests/ on the path

Nothing of this is stored: the files are written where they are tried. That reading one runs no code, starts no program
and asks nobody on the network is seen by an audit hook, which sees what Python itself does.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from fewshot import FewShotClassifier, FewShotModule, PretrainModule
from fewshot.backbones import BackboneConfig
from fewshot.commands import main
from fewshot.methods import SIB
from fewshot.training.saved_model import load_trained

EVIL = "evil_module_of_a_stranger"
CALL = {"class_path": "subprocess.getoutput", "init_args": {"cmd": "touch PWNED"}}
LOOKAHEAD = {
    "class_path": "timm.optim.Lookahead",
    "init_args": {"base_optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}, "alpha": CALL},
}
OWN = {"class_path": f"{EVIL}.X", "init_args": {}}
PICTURES = {"image_size": 16, "stored_size": 16, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
OPTIONS_OF_TRAINING: dict[str, Any] = {
    "lr_scheduler": {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": CALL}},
    "optimizer": LOOKAHEAD,
    "initial_loss_weight": CALL,
    "label_smoothing": OWN,
}
"""Which nothing but training reads: whatever they say, the model is read and nothing else happens."""
REFUSED: dict[str, tuple[str, Any]] = {
    "method": ("method.class_path", f"{EVIL}.X"),
    "method, of the standard library": ("method", CALL),
    "method, by a function": ("method.class_path", "fewshot.training.saved_model.load_trained"),
    "method, what the package imports": ("method.class_path", "fewshot.training.few_shot_module.timm.create_model"),
    "method, no dotted path": ("method.class_path", "X; import os"),
    "method, a list": ("method", [OWN]),
    "initialiser": ("method.init_args.initializer", OWN),
    "gradient": ("method.init_args.gradient", OWN),
    "posterior": ("method.init_args.posterior", CALL),
    "steps": ("method.init_args.n_steps", CALL),
    "deep within": ("method.init_args.step_size", {"a": [{"b": OWN}]}),
    "backbone": ("backbone", OWN),
    "backbone's name": ("backbone.name", OWN),
    "backbone on the network": ("backbone.name", "hf-hub:timm/resnet18.a1_in1k"),
    "module": ("_class_path", f"{EVIL}.X"),
    "an option that there is not": ("lr_lambda", CALL),
}
SECONDS, MEBIBYTES = 5.0, 1024
"""What reading one file may take at most."""
ASIDE = ("decoding ", "skipped ", "without its record")
"""How lines begin that come before the error: one for a file of many."""
FORBIDDEN = (
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"),
    *("socket.connect", "socket.getaddrinfo", "socket.bind", "pickle.find_class", "webbrowser.open"),
)


def changed(content: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of the hyper-parameters."""
    place, *rest = content["hyper_parameters"], *key.split(".")
    for name in rest[:-1]:
        place = place[name]
    place[rest[-1]] = value


def checkpoint(kind: str = "few_shot") -> dict[str, Any]:
    """What a good checkpoint holds."""
    torch.manual_seed(0)
    backbone = BackboneConfig("conv4_32", image_size=16)
    module: Any = FewShotModule(SIB(n_steps=1), backbone) if kind == "few_shot" else PretrainModule(3, backbone)
    return {
        "pytorch-lightning_version": "2.6.0",
        "epoch": 0,
        "global_step": 0,
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "pictures": dict(PICTURES),
    }


def working_directory(folder: Path) -> None:
    """A module of a stranger's, labelled pictures and pictures to classify."""
    (folder / f"{EVIL}.py").write_text("from pathlib import Path\nPath('PWNED').touch()\nclass X: pass\n")
    rng = np.random.default_rng(0)
    for place in ("support/a", "support/b", "query"):
        (folder / place).mkdir(parents=True)
        for number in range(2):
            pixels = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / place / f"{number}.png")


def command(*words: str) -> None:
    main([*words])


def classify(file: Path) -> None:
    command("classify", f"--ckpt_path={file}", "--support=support", "--query=query", "--output=out", "--overwrite=true")


def compare(file: Path) -> None:
    data = "{class_path: Glyphs}"
    methods = f"{{it: {{ckpt_path: {file}}}}}"
    command("compare", f"--methods={methods}", f"--data.dataset={data}", "--data.test_episodes=2", "--runs=runs")


def weights(file: Path) -> Any:
    return BackboneConfig("conv4_32", weights=str(file), image_size=16).create()


ROUTES: dict[str, Callable[[Path], Any]] = {
    "load_trained": load_trained,
    "from_checkpoint": FewShotClassifier.from_checkpoint,
    "load_from_checkpoint": FewShotModule.load_from_checkpoint,
    "classify": classify,
    "export": lambda file: command("export", f"--ckpt_path={file}", "--output=out", "--formats=[]", "--overwrite=true"),
    "compare": compare,
}


class Attack(NamedTuple):
    """One file."""

    name: str
    make: Callable[[Path], Any]
    """Writes it into an empty folder and gives what is read."""
    ways: dict[str, Callable[[Any], Any]]
    """What reads it; the first one is the main one."""
    is_refused: bool = True
    """Whether there has to be an error; otherwise it may be read as if what is hostile in it were not there."""


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


class Calls:
    """What pickle makes of this calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Outcome(NamedTuple):
    """What came of reading a file."""

    said: str
    """The error, or "" where it was read."""
    lines: int
    """Of the error."""
    seconds: float
    mebibytes: float
    """Memory at its most above that of before."""
    forbidden: list[str]
    """What was done that no file may cause."""

    @property
    def faults(self) -> list[str]:
        """What is wrong with it."""
        found = list(self.forbidden)
        if self.lines > 1:
            found.append(f"{self.lines} lines")
        if self.seconds > SECONDS:
            found.append(f"{self.seconds:.1f} s")
        if self.mebibytes > MEBIBYTES:
            found.append(f"{self.mebibytes:.0f} MiB")
        return found


_seen: list[list[str]] = []
_hooked: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen and (event in FORBIDDEN or (event == "import" and arguments[0] == EVIL)):
        _seen[-1].append(f"{event} {arguments[0]!r}")


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """What is done within that no file may cause."""
    if not _hooked:
        sys.addaudithook(_hook)  # for good: Python takes none away
        _hooked.append(True)
    _seen.append([])
    try:
        yield _seen[-1]
    finally:
        _seen.pop()


def memory(key: str) -> float:
    """VmRSS or VmHWM of this process in MiB; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:")), 0.0)


def tried(read: Callable[[Any], Any], given: Any, folder: Path) -> Outcome:
    """Read a file as a user would; a hang is ended."""

    def too_long(*_: Any) -> None:
        raise TimeoutError("it hangs")

    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget how much memory there has been
    before, start, said, spoken = memory("VmRSS"), time.perf_counter(), "", io.StringIO()
    old = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, 2 * SECONDS)
    with watched() as forbidden:
        try:
            with contextlib.redirect_stderr(spoken), contextlib.redirect_stdout(io.StringIO()):
                read(given)
        except (ValueError, FileNotFoundError) as error:
            said = str(error)
        except SystemExit as error:
            said = "\n".join(line for line in spoken.getvalue().splitlines() if not line.startswith(ASIDE))
            said = said or f"ended with status {error.code}"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
            forbidden.append(f"a traceback: {said.splitlines()[0][:300]}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
    seconds = time.perf_counter() - start
    if EVIL in sys.modules or (folder / "PWNED").exists():
        forbidden.append("code was run")
    return Outcome(said, len(said.splitlines()), seconds, memory("VmHWM") - before, forbidden)


def corpus(folder: Path, *, every_way: bool) -> Iterator[tuple[str, bool, Outcome]]:
    """Name, whether it is to be refused, and outcome of every file, which is written, read and removed in turn."""
    from hostile_files import attacks

    working_directory(folder)
    good = folder / "good.ckpt"
    torch.save(checkpoint(), good)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    for read in ROUTES.values() if every_way else (load_trained,):  # what is imported at first use is imported
        tried(read, good, folder)
    for attack in attacks():
        place = folder / "tried"
        place.mkdir()
        given = attack.make(place)
        for number, (way, read) in enumerate(attack.ways.items()):
            if every_way or number == 0:
                yield f"{attack.name} ({way})", attack.is_refused, tried(read, given, folder)
        os.rename(place, folder / f"done-{attack.name.replace('/', '-')}"[:200])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name, is_refused, outcome in corpus(Path(sys.argv[1]), every_way=True):
        print(json.dumps([name, is_refused, *outcome]), flush=True)
