"""Every file of sweeps/: valid by W&B's own schema, and run as an agent of W&B runs it.

Values are drawn by W&B's published search library, the command line is put together by wandb's own agent, and what it
would start is started: in this process, and once each as a process of its own. Only the server is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import yaml
from omegaconf import OmegaConf
from small_copies import small
from wandb import wandb_agent
from wandb_files import OfflineRun, forget_wandb

import fewshot.backbones  # noqa: F401  (whose names timm knows then)
from fewshot.commands import main

with pytest.warns():  # pydantic's, on how this library is written
    import sweeps

ROOT = Path(__file__).resolve().parent.parent
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
# wandb leaves the file open from which it reads a trial's values
pytestmark = pytest.mark.filterwarnings("ignore:.*config-trial:pytest.PytestUnraisableExceptionWarning")
each_sweep = pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.stem)

# Less of everything, nothing that a sweep draws.
TINY = {
    "sib_steps": ["--data.train_episodes=4", "--data.tasks_per_batch=2"],
    "sib_gradient": ["--data.train_episodes=4", "--data.tasks_per_batch=2"],
    "backbones": ["--trainer.limit_train_batches=2"],
}


def load(sweep: Path) -> dict[str, Any]:
    return yaml.safe_load(sweep.read_text(encoding="utf-8"))


def config_of(sweep: Path) -> Path:
    """The experiment that a sweep starts."""
    (name,) = (word.partition("=")[2] for word in load(sweep)["command"] if word.startswith("--config="))
    return ROOT / name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the configs and few pictures in which an agent works; no network and no account."""
    path = tmp_path_factory.mktemp("sweeps")
    shutil.copytree(ROOT / "configs", path / "configs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        forget_wandb(patch, path)
        patch.delenv("FEWSHOT_DATA", raising=False)
        patch.setenv("WANDB_MODE", "offline")  # in place of the server that the sweep's runs report to
        yield path


@pytest.fixture
def started(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """What the agent starts, (command, environment), in place of starting it."""
    commands: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(
        wandb_agent, "AgentProcess", lambda command, env, **_: commands.append((command, env)) or Idle()
    )
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_DIR"):
        monkeypatch.setenv(name, "")  # to be put back
        monkeypatch.delenv(name)
    return commands


class Idle:
    """The agent's idea of a process."""

    last_sigterm_time = None


def agents_command(
    sweep: dict[str, Any], run: sweeps.SweepRun, number: int, started: list[tuple[list[str], dict[str, str]]]
) -> tuple[list[str], dict[str, str]]:
    """Command and environment with which wandb's agent starts a trial that the server hands it."""
    os.environ["WANDB_SWEEP_ID"] = "sweep123"
    agent = wandb_agent.Agent(None, None, sweep_id="sweep123")
    agent._sweep_command = list(sweep["command"])
    values = json.loads(json.dumps(run.config))  # as they come from the server
    trial = {"type": "run", "run_id": f"trial{number}", "program": sweep["program"], "args": values}
    response = agent._process_command(trial)
    assert "exception" not in response, response
    return started.pop()


def next_trial(sweep: dict[str, Any], runs: list[sweeps.SweepRun]) -> sweeps.SweepRun:
    """The next trial by W&B's search library, given those that there are."""
    trial = sweeps.next_run(sweep, runs)
    assert trial is not None
    trial.state = sweeps.RunState.running
    runs.append(trial)
    return trial


def learn(trial: sweeps.SweepRun, logged: OfflineRun) -> None:
    """Tell the search library what the server would know of a trial."""
    trial.name, trial.state = logged.run.run_id, sweeps.RunState.finished
    trial.summary_metrics = {"val/accuracy": logged.summary["val/accuracy"]}
    trial.history = [row for row in logged.history if "val/accuracy" in row]


def expected_config(config: Path, values: dict[str, Any]) -> dict[str, Any]:
    """A config with these values in it, and everything that refers to them following."""
    loaded = OmegaConf.load(config)
    for key, value in values.items():
        OmegaConf.update(loaded, full_key(key), value)
    resolved = OmegaConf.to_container(loaded, resolve=True)
    assert isinstance(resolved, dict)
    return resolved


def full_key(key: str) -> str:
    """model.method.n_steps as it stands in a config: model.init_args.method.init_args.n_steps."""
    parts = key.split(".")
    classes = ("model", "data", "method", "dataset", "optimizer", "lr_scheduler")
    return ".".join(part + (".init_args" if part in classes else "") for part in parts)


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of everything in nested dicts that is no dict."""
    if not isinstance(tree, dict):
        yield path, tree
        return
    for key, value in tree.items():
        yield from leaves(value, f"{path}.{key}" if path else str(key))


def assert_values_arrived(sweep: Path, run: Path, values: dict[str, Any]) -> None:
    """In config.yaml, under every key of the shipped config that is drawn or that refers to what is drawn."""
    written = dict(leaves(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))))
    classes = {key: value for key, value in values.items() if key.endswith("gradient")}
    for key, value in classes.items():
        assert written[f"{full_key(key)}.class_path"].rsplit(".", 1)[-1] == value
    plain = {key: value for key, value in values.items() if key not in classes}
    config = config_of(sweep)
    before, after = (dict(leaves(expected_config(config, drawn))) for drawn in ({}, plain))
    shipped = dict(leaves(OmegaConf.to_container(OmegaConf.load(config), resolve=False)))
    followers = {path for path, value in shipped.items() if str(value).startswith("${") and "oc.env" not in value}
    followers &= set(written)  # those of a class that was drawn are gone
    for path in {full_key(key) for key in plain} | followers:
        assert written[path] == after[path], f"{path}: {written[path]}, not {after[path]} (shipped: {before[path]})"


def test_there_are_a_grid_a_bayesian_search_and_backbones_by_name() -> None:
    loaded = {path.stem: load(path) for path in SWEEPS}
    assert {sweep["method"] for sweep in loaded.values()} >= {"grid", "bayes"}
    assert {"model.method.step_size", "model.method.n_steps"} == set(loaded["sib_steps"]["parameters"])
    assert loaded["sib_gradient"]["early_terminate"]["type"] == "hyperband"
    names = loaded["backbones"]["parameters"]["model.backbone.name"]["values"]
    assert len(names) > 2 and all(timm.is_model(name) for name in names)


@each_sweep
def test_a_sweep_is_valid_and_maximises_validation_accuracy(sweep: Path) -> None:
    loaded = load(sweep)
    assert sweeps.config.schema_violations_from_proposed_config(loaded) == []
    assert sweeps.config.schema_violations_from_proposed_config({**loaded, "methods": "grid"}) != []
    assert loaded["metric"] == {"name": "val/accuracy", "goal": "maximize"}
    assert config_of(sweep).is_file()
    assert "--trainer.strategy=ddp" in sweep.read_text(encoding="utf-8").split("project:")[0]


@pytest.mark.slow
@each_sweep
def test_two_trials_of_an_agent(sweep: Path, place: Path, started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, trials = load(sweep), []
    tiny = [option for option in small(config_of(sweep), place) if "max_epochs" not in option]
    tiny += ["--trainer.max_epochs=2", *TINY[sweep.stem]]
    if sweep.stem == "sib_gradient":
        pretraining = ROOT / "configs" / "cifar_fs" / "conv4_pretrain.yaml"
        options = [*small(pretraining, place), "--trainer.limit_train_batches=1", "--test_after_fit=false"]
        main(["fit", "--config", str(pretraining), *options, "--trainer.logger=false"])
    for number in range(2):
        np.random.seed(number)  # the server's draws go on; ours would start again, for a run sets all seeds
        trial = next_trial(loaded, trials)
        command, environment = agents_command(loaded, trial, number, started)
        assert command[:5] == ["/usr/bin/env", "python", "-m", "fewshot", "fit"]
        for name, value in environment.items():
            if name.startswith("WANDB_"):
                monkeypatch.setenv(name, value)
        main([*command[4:], *tiny])
        run = place / "runs" / f"sweep_{sweep.stem}" / f"version_{number}"
        values = {key: drawn["value"] for key, drawn in json.loads(json.dumps(trial.config)).items()}
        assert set(values) == set(loaded["parameters"])
        assert_values_arrived(sweep, run, values)
        logged = OfflineRun(run)
        assert (logged.run.run_id, logged.run.sweep_id) == (f"trial{number}", "sweep123")
        assert {key: logged.config[key] for key in values} == values
        assert len(logged.values("val/accuracy")) == 2
        assert "test/accuracy" not in logged.summary  # the test split is for the best trial alone
        learn(trial, logged)
    first, second = trials
    assert first.config != second.config


def test_early_stopping_counts_epochs() -> None:
    """After min_iter epochs of validation accuracy as we log it, the worse half is stopped by W&B's own hyperband."""
    loaded = load(ROOT / "sweeps" / "sib_gradient.yaml")
    epochs = loaded["early_terminate"]["min_iter"] + 1
    trials = [sweeps.SweepRun(name=f"trial{number}", state=sweeps.RunState.running) for number in range(4)]
    for trial, accuracy in zip(trials, (0.7, 0.6, 0.5, 0.4), strict=True):
        trial.history = [{"val/accuracy": accuracy, "epoch": epoch} for epoch in range(epochs)]
    assert [trial.name for trial in sweeps.stop_runs(loaded, trials)] == ["trial3"]


@pytest.mark.filterwarnings("ignore:.*FileIO:pytest.PytestUnraisableExceptionWarning")  # wandb leaves a file open
def test_a_drawn_number_of_ways_reaches_the_gradient_network(
    place: Path, started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep of a person's own, over a value that others refer to and over every way in which values are written."""
    sweep = ROOT / "sweeps" / "sib_steps.yaml"
    values = {"data.n_way": 4, "model.freeze_backbone": False, "model.method.step_size": 1e-05, "data.dirichlet": 2}
    loaded = {**load(sweep), "parameters": {key: {"value": value} for key, value in values.items()}}
    loaded["parameters"]["data.n_way"] = {"values": [4]}
    command, environment = agents_command(loaded, next_trial(loaded, []), 7, started)
    assert {f"--{key}={value}" for key, value in values.items()} <= set(command)
    assert "--model.method.step_size=1e-05" in command
    for name, value in environment.items():
        if name.startswith("WANDB_"):
            monkeypatch.setenv(name, value)
    tiny = [*small(config_of(sweep), place), *TINY[sweep.stem]]
    main([*command[4:], *tiny, "--experiment=ways"])
    run = place / "runs" / "ways" / "version_0"
    assert_values_arrived(sweep, run, values)
    written = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert written["model"]["init_args"]["method"]["init_args"]["gradient"]["init_args"]["n_way"] == 4


WITNESS = """
import json
import os
from pathlib import Path

from pytorch_lightning import Callback


class Witness(Callback):
    def on_fit_end(self, trainer, pl_module):
        import wandb

        state = {"values": pl_module.hparams["method"]["init_args"], "started": wandb.run is not None}
        state["world_size"] = trainer.world_size
        state["weights"] = float(sum(parameter.double().sum() for parameter in pl_module.parameters()))
        Path(os.environ["WITNESS"], f"rank{trainer.global_rank}.json").write_text(json.dumps(state))
"""


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_trial_in_processes_of_its_own(processes: int, place: Path, started: Any) -> None:
    """The agent's command as it is, `/usr/bin/env python` included; two ranks get the same values, one logs."""
    sweep, trials = load(ROOT / "sweeps" / "sib_steps.yaml"), []
    command, environment = agents_command(sweep, next_trial(sweep, trials), 9, started)
    (place / "witness.py").write_text(WITNESS)
    folder = place / f"witness{processes}"
    folder.mkdir()
    environment |= {"WITNESS": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(ROOT)
    options = [*small(ROOT / "configs" / "quickstart.yaml", place), *TINY["sib_steps"]]
    options.append(f"--experiment=processes{processes}")
    options += ["--trainer.callbacks+=witness.Witness", f"--trainer.devices={processes}"]
    options += ["--trainer.strategy=ddp"] if processes > 1 else []
    done = subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(processes)]
    values = {key.rsplit(".", 1)[-1]: drawn["value"] for key, drawn in trials[0].config.items()}
    for rank, state in enumerate(ranks):
        assert {key: state["values"][key] for key in values} == values
        assert (state["started"], state["world_size"]) == (rank == 0, processes)
        assert state["weights"] == ranks[0]["weights"]
    (run,) = (place / "runs" / f"processes{processes}").glob("version_*")
    logged = OfflineRun(run)
    assert logged.run.run_id == "trial9" and len(logged.values("val/accuracy")) == 1
    assert len(list(run.rglob("*.wandb"))) == 1
