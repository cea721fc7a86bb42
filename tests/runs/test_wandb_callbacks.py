"""Real offline runs on W&B through the command line's entry point, opened afterwards; no account and no home folder."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
import yaml
from PIL import Image
from tiny_experiment import PLAIN, newest, refused
from wandb_files import OfflineRun, forget_wandb

from fewshot.commands import main
from fewshot.runs.wandb_session import check_key, placed, wandb_session

LOGGER = "  logger: {class_path: WandbLogger, init_args: {project: fewshot, offline: true}}\n"
N_WAY, N_QUERY, N_EPISODES = 7, 2, 5


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, write_pictures: Callable[..., None]) -> Iterator[Path]:
    """A working directory with pictures and a config; no settings of W&B's, and a home that nobody writes to."""
    path = tmp_path_factory.mktemp("wandb")
    write_pictures(path / "pictures", classes=8, size=28)
    (path / "tiny.yaml").write_text(PLAIN + LOGGER)
    (path / "home").write_text("no folder: what is written below it fails, for root too")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        forget_wandb(patch, path)
        yield path


@pytest.fixture(scope="module")
def fitted(work: Path) -> Path:
    """The run folder of a fit with its checkpoints as artifacts."""
    before = dict(os.environ)
    main(["fit", "--config", "tiny.yaml", "--trainer.logger.log_model", "true"])
    assert {name for name in os.environ if name.startswith("WANDB_")} == set()
    assert os.environ["HOME"] == before["HOME"]
    return work / "runs" / "tiny" / "version_0"


@pytest.fixture(scope="module")
def logged(fitted: Path) -> OfflineRun:
    return OfflineRun(fitted)


def test_all_that_is_written_is_in_the_run_folder(fitted: Path, work: Path) -> None:
    assert {path.name for path in work.iterdir()} == {"pictures", "tiny.yaml", "home", "runs"}
    assert [path.name for path in (work / "runs" / "tiny").iterdir()] == ["version_0"]
    assert (fitted / "metrics.csv").is_file() and (fitted / "wandb" / "cache").is_dir()


def test_the_run_is_named_and_finished(fitted: Path, logged: OfflineRun) -> None:
    run = logged.run
    assert (run.project, run.display_name, run.run_group, run.job_type) == ("fewshot", "tiny/version_0", "tiny", "fit")
    assert (fitted / "wandb" / "id").read_text() == run.run_id
    assert logged.exit_code == 0 and wandb.run is None


def test_its_config_is_all_of_config_yaml(fitted: Path, logged: OfflineRun) -> None:
    written = yaml.safe_load((fitted / "config.yaml").read_text())
    assert written["model"]["init_args"]["method"]["init_args"]["gradient"]["init_args"]["n_way"] == N_WAY
    assert {key: logged.config[key] for key in written} == written
    assert logged.config["method"] == written["model"]["init_args"]["method"] | {  # Lightning's hyper-parameters
        "class_path": logged.config["method"]["class_path"],
        "init_args": logged.config["method"]["init_args"],
    }


def test_config_yaml_serves_other_runs(fitted: Path) -> None:
    arguments = yaml.safe_load((fitted / "config.yaml").read_text())["trainer"]["logger"]["init_args"]
    assert arguments["log_model"] is True and arguments["save_dir"] == "."
    assert [arguments[name] for name in ("id", "name", "group", "mode")] == [None] * 4


def test_metrics_are_those_of_metrics_csv(fitted: Path, logged: OfflineRun) -> None:
    with (fitted / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = {"train/loss", *(f"{split}/{name}" for split in ("val", "test") for name in ("accuracy", "accuracy_ci95"))}
    names |= {f"{split}/accuracy_step_{k}" for split in ("val", "test") for k in range(3)}
    assert names <= set(rows[0])
    for name in set(rows[0]) - {"epoch", "step"}:
        assert logged.values(name) == pytest.approx([float(row[name]) for row in rows if row[name]]), name
    assert len(logged.values("val/accuracy")) == 2  # once an epoch, which early stopping counts


def test_the_summary_is_all_of_results_json(fitted: Path, logged: OfflineRun) -> None:
    results = json.loads((fitted / "results.json").read_text())
    assert {"accuracy", "ci95", "accuracy_per_step", "episodes_sha256", "versions"} <= set(results)
    assert {key: logged.summary[key] for key in results} == results


def test_the_table_shows_episodes(logged: OfflineRun, work: Path) -> None:
    """The episodes carry stored features; their pictures come from the data module."""
    rows = logged.table("test/episodes")
    assert sorted({row["episode"] for row in rows}) == [0, 1, 2]
    for number in range(3):
        episode = [row for row in rows if row["episode"] == number]
        support, query = ([row for row in episode if row["role"] == role] for role in ("support", "query"))
        assert (len(support), len(query)) == (N_WAY, N_WAY * N_QUERY)
        classes = {row["label"] for row in support}
        assert len(classes) == N_WAY
        assert all(row["predicted"] is None and row["confidence"] is None for row in support)
        for row in query:
            assert {row["label"], row["predicted"], row["predicted before"]} <= classes
            assert row["correct"] == (row["label"] == row["predicted"])
            assert all(1 / N_WAY <= row[name] <= 1 for name in ("confidence before", "confidence"))
    for row in rows:
        assert row["file"].startswith(row["label"] + "/")
        shown, original = Image.open(row["picture"]), Image.open(work / "pictures" / "test" / row["file"])
        assert shown.format == "PNG" and np.array_equal(np.asarray(shown), np.asarray(original))


def test_what_was_looked_at_and_what_became_of_it_are_pictures(fitted: Path, logged: OfflineRun) -> None:
    """Once each: the contact sheet when training starts, the plots when the test has ended; none after a prediction."""
    for name in ("train/episode", "test/features", "test/accuracy_per_step"):
        (found,) = logged.values(name)
        with Image.open(logged.folder / "files" / found["path"]) as picture:
            assert picture.format == "PNG" and min(picture.size) > 300
    first, *_, last = [row for row in logged.history if set(row) & {"train/loss", "train/episode", "test/features"}]
    assert "train/episode" in first and "test/features" in last
    assert not logged.values("train/batch")


def test_the_table_agrees_with_predictions_csv(fitted: Path, logged: OfflineRun) -> None:
    """And predict logs the table of the same episodes."""
    main(["predict", "--config", str(fitted / "config.yaml"), "--ckpt_path", str(fitted)])
    run = newest(fitted.parent)
    predicted = OfflineRun(run)
    assert predicted.run.job_type == "predict" and predicted.run.run_id != logged.run.run_id
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        expected = [row for row in csv.DictReader(file) if int(row["episode"]) < 3]
    for source, name in ((logged, "test/episodes"), (predicted, "predict/episodes")):
        found = [row for row in source.table(name) if row["role"] == "query"]
        for row, answer in zip(found, expected, strict=True):
            assert (row["file"], row["label"], row["predicted"]) == tuple(
                answer[key] for key in ("picture", "label", "predicted")
            )
            for column, when in (("confidence before", "before"), ("confidence", "after")):
                assert row[column] == pytest.approx(max(float(answer[f"{when}_{c}"]) for c in range(N_WAY)), abs=1e-5)


def test_checkpoints_are_artifacts_when_asked(fitted: Path, logged: OfflineRun) -> None:
    found = logged.files("model")
    assert set(found) == {"best", "last"}
    for alias, [(name, file)] in found.items():
        assert name == f"{alias}.ckpt"
        assert file.read_bytes() == (fitted / "checkpoints" / name).read_bytes()
        assert fitted in file.parents


@pytest.mark.slow
def test_a_test_is_a_run_of_its_own(fitted: Path, logged: OfflineRun) -> None:
    options = ["--trainer.logger.name", "mine", "--trainer.logger.group", "ours", "--trainer.logger.log_model", "false"]
    main(["test", "--config", str(fitted / "config.yaml"), "--ckpt_path", str(fitted), *options])
    folder = newest(fitted.parent)
    tested = OfflineRun(folder)
    assert (tested.run.display_name, tested.run.run_group, tested.run.job_type) == ("mine", "ours", "test")
    assert tested.run.run_id != logged.run.run_id
    assert tested.summary["accuracy"] == logged.summary["accuracy"] and tested.summary["checkpoint"]
    assert tested.config["trainer"]["logger"]["init_args"]["name"] == "mine"
    assert tested.files("model") == {}
    assert len(tested.values("test/features")) == 1 and not tested.values("train/episode")
    assert len(list((fitted / "wandb").glob("offline-run-*"))) == 1


@pytest.mark.slow
def test_a_validation_is_one_too(fitted: Path, logged: OfflineRun, capsys: pytest.CaptureFixture[str]) -> None:
    main(["validate", "--config", str(fitted / "config.yaml"), "--ckpt_path", str(fitted)])
    validated = OfflineRun(newest(fitted.parent))
    assert validated.run.job_type == "validate" and validated.config["data"]["init_args"]["n_way"] == N_WAY
    assert validated.values("val/accuracy") == [max(logged.values("val/accuracy"))]
    assert "wandb" not in capsys.readouterr().err


FEW = ["--trainer.max_epochs", "1", "--test_after_fit", "false"]


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("disabled", []),
        (None, ["--trainer.logger", "false"]),
        (None, ["--trainer.fast_dev_run", "true", "--trainer.logger.offline", "false"]),
    ],
    ids=["disabled", "logger false", "fast_dev_run"],
)
def test_without_wandb(mode: str | None, options: list[str], work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    main(["fit", "--config", "tiny.yaml", "--experiment", "without", *FEW, *options])
    for folder in (work / "runs" / "without").glob("version_*"):
        assert not list(folder.rglob("*.wandb"))
        assert (folder / "metrics.csv").is_file()


@pytest.mark.slow
def test_a_failed_run_is_told_to_have_failed(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "1.0e38"]
    assert "the loss is nan" in refused(capsys, "fit", "--config", "tiny.yaml", "--experiment", "failed", *options)
    assert OfflineRun(work / "runs" / "failed" / "version_0").exit_code == 1
    assert wandb.run is None


def test_a_refused_run_leaves_nothing(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "method was made for n_way=7" in refused(
        capsys, "fit", "--config", "tiny.yaml", "--experiment", "refused", "--data.train_n_way", "5"
    )
    assert not (work / "runs" / "refused").exists() and wandb.run is None


# What is refused.


def test_online_without_a_key_is_refused_rather_than_asked_for(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config", "tiny.yaml", "--experiment", "online", "--trainer.logger.offline", "false"]
    message = refused(capsys, "fit", *options)
    assert message.startswith("trainer.logger.offline=false but there is no API key")
    assert "WANDB_API_KEY" in message and "wandb sync" in message
    assert not (work / "runs" / "online").exists()


def test_a_key_is_found_where_wandb_finds_it(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with wandb_session(work), pytest.raises(ValueError, match="no API key"):
        check_key()
    with monkeypatch.context() as patch, wandb_session(work):
        patch.setenv("WANDB_API_KEY", "0" * 40)
        check_key()
    netrc = work / "netrc"
    netrc.write_text("machine api.wandb.ai\n  login user\n  password " + "0" * 40 + "\n")
    with wandb_session(work):
        check_key()
    netrc.unlink()


def test_logging_every_checkpoint_offline_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "fit", "--config", "tiny.yaml", "--trainer.logger.log_model", "all")
    assert message.startswith("trainer.logger.log_model=all offline") and "true" in message


# What the command line gives a logger.


def logger(class_path: str = "pytorch_lightning.loggers.WandbLogger", **arguments: Any) -> Namespace:
    config = type("Config", (Namespace,), {"__getitem__": lambda self, name: getattr(self, name)})
    return config(class_path=class_path, init_args={"save_dir": ".", "offline": True, **arguments})


def test_a_continued_run_keeps_its_id_online_alone(
    fitted: Path, logged: OfflineRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with wandb_session(tmp_path):
        offline, _ = placed(logger(), folder=fitted, command="fit")
        online, _ = placed(logger(offline=False), folder=fitted, command="fit")
        fresh, _ = placed(logger(offline=False), folder=tmp_path, command="fit")
        named, _ = placed(logger(id="mine"), folder=fitted, command="fit")
    assert online.init_args["id"] == logged.run.run_id and offline.init_args["id"] is None
    assert fresh.init_args["id"] is None and named.init_args["id"] == "mine"


@pytest.mark.slow
def test_a_run_continued_offline_has_the_whole_history_under_an_id_of_its_own(work: Path) -> None:
    """What `wandb sync` would upload: no second file of the same id, which would replace the first one's history."""
    options = ["fit", "--config", "tiny.yaml", "--experiment", "goes_on"]
    main([*options, "--trainer.max_epochs", "1"])
    run = work / "runs" / "goes_on" / "version_0"
    first = OfflineRun(run)
    (run / "unfinished").touch()
    main([*options, "--ckpt_path", "auto"])
    names = [path.name.rsplit("-", 1)[-1] for path in (run / "wandb").glob("offline-run-*")]
    assert len(set(names)) == len(names) == 2 and first.run.run_id in names
    second = OfflineRun(run)
    assert second.run.run_id != first.run.run_id
    assert (second.run.display_name, second.run.run_group) == (first.run.display_name, first.run.run_group)
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name in ("train/loss", "val/accuracy"):
        logged = [(row["trainer/global_step"], row[name]) for row in second.history if name in row]
        assert logged == [(int(row["step"]), pytest.approx(float(row[name]))) for row in rows if row[name]]
        assert len(logged) > len(first.values(name)) > 0


def test_other_loggers_get_the_folder_and_nothing_else(tmp_path: Path) -> None:
    given = [logger("pytorch_lightning.loggers.TensorBoardLogger"), logger(save_dir="elsewhere")]
    with wandb_session(tmp_path):
        [tensorboard, elsewhere], _ = placed(given, folder=tmp_path, command="fit")
    assert tensorboard.init_args == {"save_dir": str(tmp_path), "offline": True}
    assert elsewhere.init_args["save_dir"] == "elsewhere"
    assert given[0].init_args["save_dir"] == "."
    assert [placed(value, folder=tmp_path, command="fit") for value in (None, False)] == [(None, False), (False, False)]


# As a person starts it: processes of their own.


@pytest.mark.slow
def test_a_script_without_a_terminal_is_asked_nothing(work: Path) -> None:
    command = [sys.executable, "-m", "fewshot", "fit", "--config", "tiny.yaml", "--experiment", "script"]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "MPLCONFIGDIR": str(work / "runs" / "matplotlib")}
    for online in (False, True):
        options = ["--trainer.logger.offline", "false"] if online else []
        done = subprocess.run(
            [*command, *options],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        lines = [line for line in done.stderr.splitlines() if "matplotlib" not in line]
        assert (done.returncode, len(lines)) == ((2, 1) if online else (0, 0)), done.stderr
    assert OfflineRun(work / "runs" / "script" / "version_0").exit_code == 0
