"""LightningCLI's switches, each once on both modules: they do what they say, or are refused by one line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tiny_experiment import CONFIG, PRETRAINING, newest, refused

from fewshot.commands import main

pytestmark = pytest.mark.slow
CONFIGS = ["tiny.yaml", "pretraining.yaml"]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory, write_pictures: Callable[..., None]) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("switches")
    write_pictures(path / "pictures", classes=10, size=28)
    (path / "tiny.yaml").write_text(CONFIG)
    (path / "pretraining.yaml").write_text(PRETRAINING)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        yield path


def fitted(config: str, *options: str) -> Path:
    main(["fit", "--config", config, *options])
    return newest(Path("runs", "tiny" if config == "tiny.yaml" else "pretraining"))


@pytest.mark.parametrize("config", [CONFIGS[0], pytest.param(CONFIGS[1], marks=pytest.mark.weekly)])
@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (["overfit_batches", "2"], 4),
        (["overfit_batches", "1"], 2),
        (["limit_train_batches", "1"], 2),
        (["limit_val_batches", "1"], 4),
        (["val_check_interval", "1"], 4),
        (["val_check_interval", "0.5"], 4),
        (["check_val_every_n_epoch", "2"], 4),
        (["num_sanity_val_steps", "0"], 4),
        (["max_time", "00:00:10:00"], 4),
        (["max_steps", "3"], 3),
        (["min_epochs", "1"], 4),
        (["detect_anomaly", "true"], 4),
        (["profiler", "simple"], 4),
        (["profiler", "advanced"], 4),
        (["gradient_clip_val", "1.0"], 4),
        (["accumulate_grad_batches", "2"], 2),
        (["deterministic", "true"], 4),
        (["inference_mode", "false"], 4),
        (["benchmark", "true"], 4),
        (["enable_progress_bar", "true"], 4),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_switch_trains_so_many_steps_and_tests(config: str, options: list[str], steps: int) -> None:
    switch, value = options
    more = ["--trainer.limit_train_batches", "2"] if switch not in ("overfit_batches", "limit_train_batches") else []
    run = fitted(config, f"--trainer.{switch}", value, *more)
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == steps
    results = json.loads((run / "results.json").read_text())
    assert results["n_episodes"] == (5 if config == "tiny.yaml" else 4) and 0 <= results["accuracy"] <= 1
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert not (run / "unfinished").exists() and not list(run.rglob("*.partial"))


@pytest.mark.parametrize("config", CONFIGS)
def test_overfitting_sees_the_same_batches_in_every_epoch(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fewshot import FewShotModule, PretrainModule

    seen = []
    for module in (FewShotModule, PretrainModule):
        whole = module.training_step

        def step(self, batch, batch_idx, whole=whole):
            seen.append(batch.numbers.tolist() if hasattr(batch, "numbers") else float(batch[0].sum()))
            return whole(self, batch, batch_idx)

        monkeypatch.setattr(module, "training_step", step)
    fitted(config, "--trainer.overfit_batches", "2", "--test_after_fit", "false")
    assert len(seen) == 4 and seen[:2] == seen[2:] and seen[0] != seen[1]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_dry_run_leaves_no_folder(config: str) -> None:
    before = sorted(Path("runs").rglob("version_*"))
    main(["fit", "--config", config, "--trainer.fast_dev_run", "true"])
    assert sorted(Path("runs").rglob("version_*")) == before


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--trainer.limit_train_batches", "0"], "trainer.limit_train_batches=0 leaves fit nothing to do"),
        (["--trainer.barebones", "true"], "trainer.barebones=true allows neither log nor checkpoint"),
        (["--trainer.max_epochs", "0"], "nothing was trained: trainer.max_epochs=0 leaves nothing to do"),
        (["--trainer.max_steps", "0"], "nothing was trained: trainer.max_epochs=2 and trainer.max_steps=0 leaves"),
        (["--seed_everything", "-1"], "seed_everything=-1 but a seed is from 0"),
        (["--experiment", "../../x"], "experiment=../../x is no folder below runs"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_trains_nothing_is_refused(
    config: str, options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().rglob("version_*"))
    assert refused(capsys, "fit", "--config", config, *options).startswith(says)
    assert sorted(Path().rglob("version_*")) == before


@pytest.mark.parametrize("config", CONFIGS)
def test_what_was_not_validated_or_tested_is_said(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = fitted(config, "--trainer.limit_val_batches", "0")
    assert "nothing was validated: there is no best.ckpt, and the last weights are tested" in capsys.readouterr().out
    assert json.loads((run / "results.json").read_text())["checkpoint"].endswith("last.ckpt")
    run = fitted(config, "--trainer.limit_test_batches", "0")
    assert "nothing was tested: trainer.limit_test_batches=0" in capsys.readouterr().out
    assert not (run / "results.json").exists()


def test_a_limited_test_has_a_list_of_episodes_of_its_own() -> None:
    # of stored features, more than two are tested at once
    limited = fitted("tiny.yaml", "--trainer.limit_test_batches", "1", "--data.store_features", "false")
    short = fitted("tiny.yaml", "--data.test_episodes", "2")
    whole = fitted("tiny.yaml")
    lists = [json.loads((run / "results.json").read_text())["episodes_sha256"] for run in (limited, short, whole)]
    assert lists[0] == lists[1] != lists[2]


# A run that is continued.


@pytest.mark.parametrize("config", CONFIGS)
def test_nothing_left_to_train(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A copied run is tested as it is; from its checkpoint no other run is begun that would train nothing."""
    run = _moved(config)
    before = json.loads((run / "results.json").read_text())
    (run / "results.json").unlink()
    (run / "unfinished").touch()
    again = ["fit", "--config", config, "--experiment", run.parent.name]
    capsys.readouterr()
    main([*again, "--ckpt_path", "auto"])
    printed = capsys.readouterr().out
    assert "nothing is left to train with trainer.max_epochs=2: the run is tested as it is" in printed
    assert "differs from the checkpoint" not in printed
    after = json.loads((run / "results.json").read_text())
    assert after["checkpoint"] == f"{run}/checkpoints/best.ckpt" and after["accuracy"] == before["accuracy"]
    error = refused(capsys, *again, "--ckpt_path", f"{run}/checkpoints/last.ckpt")
    assert error.startswith(f"nothing was trained from {run}/checkpoints/last.ckpt, which has come so far already")
    assert [path.name for path in run.parent.iterdir()] == ["version_0"]


@pytest.mark.parametrize("config", CONFIGS)
def test_other_data_are_named_and_have_a_best_checkpoint_of_their_own(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _moved(config, "other_data")
    (run / "unfinished").touch()
    again = [
        "fit",
        "--config",
        config,
        "--experiment",
        run.parent.name,
        "--trainer.max_epochs",
        "3",
        "--data.n_shot",
        "2",
    ]
    error = refused(capsys, *again, "--ckpt_path", "auto")
    assert error.startswith("data.n_shot is 2 but the run that is to go on has 1: its best checkpoint was chosen on")
    main([*again, "--ckpt_path", f"{run}/checkpoints/last.ckpt"])
    assert "differs from the checkpoint: data.n_shot is 2, there 1" in capsys.readouterr().out
    own = run.with_name("version_1")
    assert torch.load(own / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] == 2
    results = json.loads((own / "results.json").read_text())
    assert (results["checkpoint"], results["n_shot"]) == (f"{own}/checkpoints/best.ckpt", 2)
    record = json.loads((own / "run.json").read_text())
    assert record["differs_from_checkpoint"]["data.n_shot"] == {"here": 2, "there": 1, "note": ""}


def _moved(config: str, experiment: str = "moved") -> Path:
    """A run that has ended, in another place than it was trained in."""
    run = fitted(config)
    target = Path("runs", f"{experiment}_{Path(config).stem}", "version_0")
    target.parent.mkdir(parents=True)
    run.rename(target)
    return target


def test_the_command_that_is_proposed_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--config", "tiny.yaml", "--runs", "my runs; touch x", "--experiment", "it's mine"])
    proposed = capsys.readouterr().out.split("next: ")[1].splitlines()[0]
    words = shlex.split(proposed)
    assert words[:4] == ["python", "-m", "fewshot", "predict"]
    main(words[3:])
    assert (newest(Path("my runs; touch x", "it's mine")) / "predictions.csv").is_file()
    assert not Path("x").exists()
