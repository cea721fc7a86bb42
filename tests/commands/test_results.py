"""The ledger of results: what it finds, how it is ordered and written, and what it says of what it leaves out."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fewshot
from fewshot.commands import main

Write = Callable[..., Path]


def result(accuracy: float, **changes: Any) -> dict[str, Any]:
    """What a test of SIB with one step writes."""
    return {
        "accuracy": accuracy,
        "ci95": 0.004,
        "n_episodes": 2000,
        "accuracy_per_step": [0.55, accuracy],
        "ci95_per_step": [0.005, 0.004],
        "accuracy_nearest_mean": 0.5432,
        "ci95_nearest_mean": 0.006,
        "data": "CIFAR-FS",
        "split": "test",
        "n_way": 5,
        "n_shot": 1,
        "n_query": 15,
        "seed": 0,
        "episodes_sha256": "a" * 64,
        "backbone": {"name": "conv4", "weights": None},
        "method": {"class_path": "fewshot.methods.sib.SIB", "init_args": {"step_size": 0.001}},
        "checkpoint": "runs/a/version_0/checkpoints/best.ckpt",
        "training_seed": 1,
        "versions": {"torch": "2.6.0"},
        **changes,
    }


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a run's files below runs/ in the working directory."""
    monkeypatch.chdir(tmp_path)

    def write_run(folder: str, results: Any = None, record: Any = None) -> Path:
        path = tmp_path / "runs" / folder
        path.mkdir(parents=True)
        (path / "config.yaml").write_text("experiment: x\n")
        for name, content in (("results.json", results), ("run.json", record)):
            if content is not None:
                (path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write_run


@pytest.fixture
def runs(write: Write) -> None:
    """Four tested runs on three lists of episodes, and three without results."""
    started = {"started": "2026-03-01T10:20:30+00:00", "git": {"package": {"commit": "abc"}}}
    write("a/version_0", result(0.6), started | {"status": "finished"})
    write("a/version_10", result(0.62), started | {"status": "finished", "started": "2026-03-02T10:20:30+00:00"})
    write("b/version_0", result(0.7, n_shot=5, episodes_sha256="b" * 64, method="nearest class mean"))
    write("c/version_0", result(0.64, episodes_sha256="c" * 64, data="a|b"))
    write("d/version_0", None, {"status": "failed", "started": "2026-03-03T00:00:00+00:00"})
    write("d/version_1", None, {"status": "running"})
    write("d/version_2")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(["results", *arguments])
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    return json.loads(printed(capsys, "--format", "json", *arguments))


def names(found: list[dict[str, Any]]) -> list[str]:
    return [f"{row['experiment']}{row['version']}" for row in found]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["results", *arguments])
    captured = capsys.readouterr()
    assert stop.value.code == 2 and captured.out == ""
    lines = captured.err.splitlines()
    assert lines[-1].startswith("error: results: ") and not any(line.startswith("error") for line in lines[:-1])
    return lines[-1]


def test_the_table(runs, capsys):
    lines = printed(capsys, "--where", "data=CIFAR-FS", "--where", "shot=1").splitlines()
    assert re.split(r" {2,}", lines[0]) == [
        *("experiment", "version", "data", "way", "shot", "backbone", "method", "K", "accuracy %", "K=0 %"),
        *("nearest mean %", "episodes", "episode list", "seed", "training seed", "checkpoint", "date"),
    ]
    assert re.split(r" {2,}", lines[2]) == [
        *("a", "10", "CIFAR-FS", "5", "1", "conv4", "SIB", "1", "62.00 +- 0.40", "55.00 +- 0.50", "54.32 +- 0.60"),
        *("2000", "aaaaaaaa", "0", "1", "runs/a/version_0/checkpoints/best.ckpt", "2026-03-02 10:20"),
    ]
    assert lines[3].split()[:2] == ["a", "0"]
    assert lines[-1] == "not shown: 3 runs without results (1 failed, 2 unfinished); --all shows them"
    starts = [line.index("CIFAR-FS") for line in lines[2:4]]
    assert starts[0] == starts[1] == lines[0].index("data")


def test_lists_of_episodes_are_kept_apart(runs, capsys):
    found = rows(capsys)
    assert names(found) == ["a10", "a0", "b0", "c0"]  # not by accuracy alone
    assert [row["list"] for row in found] == ["aaaaaaaa", "aaaaaaaa", "bbbbbbbb", "cccccccc"]
    text = printed(capsys)
    assert [block.count("\n") for block in text.split("\n\n")[:3]] == [3, 0, 0]
    assert "\n3 episode lists: accuracies compare only within one\n" in text
    assert "3 episode lists" in printed(capsys, "--sort", "accuracy", "--columns", "experiment,accuracy")
    assert "episode lists" not in printed(capsys, "--where", "list=aaaaaaaa")


@pytest.mark.parametrize(
    ("options", "order"),
    [
        (["--sort", "accuracy"], ["b0", "c0", "a10", "a0"]),
        (["--sort", "accuracy", "--ascending"], ["a0", "a10", "c0", "b0"]),
        (["--sort", "version", "--descending"], ["a10", "a0", "b0", "c0"]),
        (["--sort", "run.started"], ["a0", "a10", "b0", "c0"]),
        (["--sort", "run.started", "--descending"], ["a10", "a0", "b0", "c0"]),  # those without it last again
        (["--sort", "method.init_args.step_size"], ["a0", "a10", "c0", "b0"]),
        (["--ascending"], ["a0", "a10", "b0", "c0"]),
    ],
)
def test_the_order(options, order, runs, capsys):
    assert names(rows(capsys, *options)) == order


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("shot=5", ["b0"]),
        ("accuracy=0.60", ["a0"]),
        ("method=SIB", ["a10", "a0", "c0"]),
        ("method=nearest class mean", ["b0"]),
        ("experiment=a", ["a10", "a0"]),
        ("backbone.weights=null", ["a10", "a0", "b0", "c0"]),
        ("versions.torch=2.6.0", ["a10", "a0", "b0", "c0"]),
        ("run.git.package.commit=abc", ["a10", "a0"]),
    ],
)
def test_conditions(condition, found, runs, capsys):
    assert names(rows(capsys, "--where", condition)) == found


def test_columns_of_ones_own(runs, capsys):
    columns = "experiment,version,method.init_args.step_size,accuracy_per_step.0,run.git.package.commit"
    found = rows(capsys, "--columns", columns)
    assert found[0] == dict(zip(columns.split(","), ["a", 10, 0.001, 0.55, "abc"], strict=True))
    assert found[2]["run.git.package.commit"] is None


def test_csv_and_json_hold_fractions_with_their_intervals(runs, capsys):
    table = list(csv.DictReader(io.StringIO(printed(capsys, "--format", "csv"))))
    assert len(table) == 4
    keys = ("accuracy", "ci95", "step_0", "step_0_ci95", "nearest_mean", "nearest_mean_ci95", "seed", "way")
    assert [float(table[0][key]) for key in keys] == [0.62, 0.004, 0.55, 0.005, 0.5432, 0.006, 0, 5]
    first = rows(capsys)[0]
    assert {key: str(value) for key, value in first.items()} == table[0]


def test_markdown(runs, capsys):
    lines = printed(capsys, "--format", "markdown", "--columns", "experiment,data,accuracy").splitlines()
    assert lines[:3] == [
        "| experiment | data | accuracy % |",
        "| --- | --- | --- |",
        "| a | CIFAR-FS | 62.00 +- 0.40 |",
    ]
    assert "| c | a\\|b | 64.00 +- 0.40 |" in lines


def test_runs_without_results(runs, capsys):
    found = rows(capsys, "--all", "--sort", "experiment")
    assert {f"{row['experiment']}{row['version']}": row["status"] for row in found} == {
        **{name: "tested" for name in ("a0", "a10", "b0", "c0")},
        **{"d0": "failed", "d1": "unfinished", "d2": "unfinished"},
    }
    assert names(rows(capsys, "--where", "status=failed", "--all")) == ["d0"]
    assert "not shown" not in printed(capsys, "--all")


def test_runs_that_were_never_meant_to_be_tested(write, capsys):
    write("a/version_0", result(0.6))
    write("a/version_1", None, {"status": "finished", "command": "validate"})
    assert "1 run without results (1 not tested)" in printed(capsys)


def test_broken_and_foreign_files_are_named_and_left_out(write, capsys):
    write("a/version_0", result(0.6))
    write("cut/version_0", json.dumps(result(0.6))[:100])
    write("list/version_0", [1, 2])
    write("foreign/version_0", {"f1": 0.3, "accuracy": "high"})
    write("per_cent/version_0", result(60.0))
    write("record/version_0", result(0.5), "{")
    (write("binary/version_0") / "results.json").write_bytes(b"\xff\xfe\x00")
    main(["results", "--format", "json"])
    captured = capsys.readouterr()
    assert names(json.loads(captured.out)) == ["a0", "record0"]
    said = captured.err.splitlines()
    assert len(said) == 6
    for name in ("cut", "list", "foreign", "per_cent", "binary"):
        assert sum(line.startswith(f"skipped runs/{name}/version_0/results.json: ") for line in said) == 1
    assert "holds a list" in captured.err and "(accuracy, n_episodes, n_way, n_shot)" in captured.err
    assert any(line.startswith("without its record: runs/record/version_0/run.json") for line in said)


def test_values_that_no_table_can_hold(write, capsys):
    write("a/version_0", result(0.6, n_query=10**400, data="d\x1b[31mRED\x1b]0;title\x07"))
    write("b/version_0", result(0.7))
    main(["results"])
    out = capsys.readouterr().out
    assert "d\\x1b[31mRED\\x1b]0;title\\x07" in out and "\x1b" not in out and "70.00" in out


def test_nothing_found_says_where_it_looked(write, capsys, tmp_path):
    assert "no folder runs (in " in refused(capsys)
    (tmp_path / "empty").mkdir()
    error = refused(capsys, "empty")
    assert f"no results.json of a test below {tmp_path}/empty; `fit` and `test` write one" in error
    write("a/version_0", None, {"status": "failed"})
    assert "; 1 run without results (1 failed) there, --all shows them" in refused(capsys)
    assert names(rows(capsys, "--all")) == ["a0"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--columns", "acuracy"], "no run has 'acuracy'; did you mean accuracy"),
        (["--sort", "method.init_args.eta"], "no run has 'method.init_args.eta'"),
        (["--where", "shot=7"], "none of 4 runs has shot=7"),
        (["--where", "shot"], "'shot' is no condition; write KEY=VALUE"),
        (["--format", "html"], "invalid choice: 'html'"),
        (["--frmat", "csv"], "unrecognized arguments: --frmat"),
        (["elsewhere"], "no folder elsewhere"),
    ],
)
def test_wrong_options(options, says, runs, capsys):
    assert says in refused(capsys, *options)


def test_where_the_folder_starts(runs, capsys):
    """The runs folder, an experiment's, a run's, and its results.json; a run found twice is one."""
    assert names(rows(capsys, "runs/a")) == ["a10", "a0"]
    assert names(rows(capsys, "runs/a/version_0")) == ["a0"]
    assert names(rows(capsys, "runs/a/version_0/results.json")) == ["a0"]
    assert names(rows(capsys, "runs/a", "runs", "--where", "experiment=a")) == ["a10", "a0"]


def test_folders_in_folders(write, capsys):
    write("sweep/one/version_3", result(0.6))
    write("by_hand", result(0.5))
    assert [(row["experiment"], row["version"]) for row in rows(capsys)] == [("sweep/one", 3), ("by_hand", None)]


def test_it_needs_neither_torch_nor_lightning(runs):
    code = (
        "import sys; sys.argv = ['fewshot', 'results', '--format', 'csv']; from fewshot.commands import main; main(); "
        "print(*sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'timm', 'numpy', 'pytorch_lightning'}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(fewshot.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == "" and done.stdout.splitlines()[-1] == "" and len(done.stdout.splitlines()) == 6
    command = [sys.executable, "-X", "importtime", "-m", "fewshot", "results"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "CIFAR-FS" in done.stdout and "fewshot.commands" in done.stderr
    assert "torch" not in done.stderr and "timm" not in done.stderr


def test_a_reader_that_has_seen_enough(runs):
    environment = {**os.environ, "PYTHONPATH": str(Path(fewshot.__file__).parent.parent)}
    command = f"{sys.executable} -m fewshot results | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_names_the_columns(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["results", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "nearest_mean" in out and "--where KEY=VALUE" in out
