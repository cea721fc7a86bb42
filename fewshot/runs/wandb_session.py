"""Weights & Biases before there is a trainer and after it: where wandb writes, what it may ask, what it leaves.

The command line gives every `WandbLogger` of a config its run's folder, a name and an id (`placed`), and opens a
`wandb_session` around the command. wandb is imported when a run starts.
"""

from __future__ import annotations

import copy
import netrc
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytorch_lightning.utilities import rank_zero_only

NO_UPLOAD = ("offline", "dryrun", "disabled")
ID = Path("wandb") / "id"


# Where wandb would otherwise write: below the home folder.
FOLDERS = {"WANDB_CACHE_DIR": "cache", "WANDB_DATA_DIR": "data"}


def placed(loggers: Any, *, folder: Path, command: str) -> tuple[Any, bool]:
    """The loggers' configs with what only this run knows, and whether checkpoints are to become artifacts.

    Whatever logger has a save_dir that is not set gets the run's folder. A WandbLogger gets also the name
    <experiment>/<version>, the experiment as its group, the command as its type of job, and online the id kept in the
    folder. Offline every process records a run of its own: of two files of one id the later would replace the other.

    Args:
        loggers: `trainer.logger` as parsed: None, a boolean, one class with its arguments, or a list of them. It is not
            changed.
        folder: of the run.
        command: fit, validate, test or predict.

    Raises:
        ValueError: log_model=all offline; online without an API key.
    """
    loggers, artifacts = copy.deepcopy(loggers), False
    for logger in loggers if isinstance(loggers, (list, tuple)) else [loggers]:
        arguments = getattr(logger, "init_args", None)
        if arguments is None:
            continue
        if arguments.get("save_dir") == ".":
            arguments["save_dir"] = str(folder)
        if not logger["class_path"].endswith("WandbLogger"):
            continue
        mode = os.environ.get("WANDB_MODE")
        offline = bool(arguments.get("offline")) or mode in NO_UPLOAD
        if not offline:
            check_key()
        if offline and arguments.get("log_model") == "all":
            raise ValueError(
                "trainer.logger.log_model=all offline: what is uploaded later would be the checkpoints as they are by "
                "then; set log_model to true (best and last, when training ends), or offline to false"
            )
        if arguments.get("log_model") is True:
            arguments["log_model"], artifacts = False, True
        known = {"name": f"{folder.parent.name}/{folder.name}", "group": folder.parent.name, "job_type": command}
        if offline:
            known["mode"] = "disabled" if mode == "disabled" else "offline"
            be_silent()
        for name, value in known.items():
            arguments[name] = value if arguments.get(name) is None else arguments[name]
        if not arguments.get("version"):
            arguments["id"] = arguments.get("id") or (None if offline else kept_id(folder))
    return loggers, artifacts


def kept_id(folder: Path) -> str | None:
    """The id that the run in this folder has on W&B, so that who continues it continues it there; None for a new run.

    None also for a run of a sweep's agent, which has an id in the environment.
    """
    file = folder / ID
    return file.read_text(encoding="utf-8").strip() if file.is_file() and "WANDB_SWEEP_ID" not in os.environ else None


def keep_id(folder: Path, run_id: str) -> None:
    """Write down the id that the run in this folder has on W&B, for `kept_id`."""
    (folder / ID).parent.mkdir(exist_ok=True)
    (folder / ID).write_text(run_id, encoding="utf-8")


@rank_zero_only
def be_silent() -> None:
    """Keep wandb from writing to the screen, until the session ends, unless WANDB_SILENT says otherwise."""
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    wandb.setup()  # reads it; else the first message, on a setting that Lightning still names, would come before


def check_key() -> None:
    """ValueError where wandb would ask for an API key: a run, of a script or not, must never wait for an answer."""
    import wandb

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return
    settings = wandb.setup().settings
    host = urlsplit(settings.base_url).netloc
    if not getattr(settings, "api_key", None) and not set(netrc_machines()) & {host, "api.wandb.ai"}:
        raise ValueError(
            f"trainer.logger.offline=false but there is no API key for {host}; run `wandb login`, set WANDB_API_KEY, "
            "or leave offline at true and upload later with `wandb sync`"
        )


def netrc_machines() -> Sequence[str]:
    """Names of the machines that the user's netrc file has a password for."""
    for path in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            return [name for name, entry in netrc.netrc(os.path.expanduser(path or "")).hosts.items() if entry[2]]
        except (OSError, netrc.NetrcParseError):
            continue
    return []


@contextmanager
def wandb_session(folder: Path) -> Iterator[None]:
    """Keeps what wandb writes in <folder>/wandb, and finishes the run that was started meanwhile.

    Environment variables of the user's win. Afterwards the environment is as it was, and wandb has no process left.

    Raises:
        ValueError: in place of wandb's own errors.
    """
    names = (*FOLDERS, "WANDB_MODE", "WANDB_SILENT", "WANDB_SERVICE")
    before = {name: os.environ.get(name) for name in names}
    outer = getattr(sys.modules.get("wandb"), "run", None)
    for name, below in FOLDERS.items():
        os.environ.setdefault(name, str((folder / "wandb" / below).absolute()))
    exit_code = 1
    try:
        yield
        exit_code = 0
    except Exception as error:
        if type(error).__module__.startswith("wandb."):
            raise ValueError(f"wandb: {error}; trainer.logger.offline=true needs no network") from error
        raise
    finally:
        wandb = sys.modules.get("wandb")
        if wandb is not None and outer is None:
            if wandb.run is not None:
                wandb.run.finish(exit_code)
            wandb.teardown(exit_code)
        if outer is None and not list((folder / "wandb").glob("*run-*")):
            remove(folder / "wandb")  # no run was started, but the settings were asked for
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@rank_zero_only
def remove(folder: Path) -> None:
    """Remove a folder with all that is in it."""
    shutil.rmtree(folder, ignore_errors=True)
