"""python -m fewshot show, in process: what it writes, that it agrees with the other commands, and what it refuses."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import fewshot.commands.show
import fewshot.drawings.training
from fewshot.commands import main
from fewshot.commands.show import results_of
from fewshot.data.cache import FEATURES, cache_dir, cached_files

CONFIG = """
experiment: shown
model:
  class_path: FewShotModule
  init_args:
    backbone: {name: conv4_32, image_size: 16}
    method:
      class_path: SIB
      init_args:
        gradient: {class_path: MLPGradient, init_args: {n_way: 3}}
        n_steps: 2
data:
  class_path: EpisodicDataModule
  init_args:
    dataset: {class_path: ImageFolderSplits, init_args: {root: pictures, image_size: 16}}
    n_way: 3
    n_query: 4
    tasks_per_batch: 2
    train_episodes: 2
    val_episodes: 2
    test_episodes: 3
trainer:
  max_epochs: 1
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  logger: {class_path: WandbLogger, init_args: {project: fewshot, offline: true}}
"""
SHEETS = [f"episode_{split}_{number}.png" for split in ("test", "train", "val") for number in (0, 1)]
COUNTS = ["class_counts.png", "class_counts.svg"]
STEPS = ["accuracy_per_step.png", "accuracy_per_step.svg"]


@pytest.fixture(scope="module")
def work(tmp_path_factory, write_pictures):
    """A folder with pictures, a config and the run of a short training of it."""
    path = tmp_path_factory.mktemp("show")
    write_pictures(path / "pictures", classes=4, pictures=6)
    for split in ("train", "val", "test"):
        (path / "pictures" / split / f"{split}0").rename(path / "pictures" / split / f"猫 \U0001f9c1 {split} $1")
    (path / "tiny.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        main(["fit", "--config", "tiny.yaml", "--trainer.logger", "false"])
        yield path


@pytest.fixture(autouse=True)
def in_folder(work, monkeypatch):
    monkeypatch.chdir(work)
    yield
    shutil.rmtree("out", ignore_errors=True)


def show(*options, config="tiny.yaml"):
    main(["show", "--config", str(config), "--output", "out", *map(str, options)])
    return sorted(path.name for path in Path("out").iterdir())


def refused(capsys, *options, output="out"):
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["show", "--config", "tiny.yaml", *(["--output", output] if output else []), *options])
    message = capsys.readouterr().err
    assert stop.value.code == 2 and message.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before
    return message


@pytest.fixture
def maps(monkeypatch):
    """The episodes that were mapped."""
    found = []
    draw = fewshot.drawings.training.feature_map_figure
    monkeypatch.setattr(
        fewshot.drawings.training, "feature_map_figure", lambda m, **rest: (found.append(m), draw(m, **rest))[1]
    )
    return found


@pytest.fixture
def unwritten(monkeypatch):
    """Figures are drawn, but not written as pictures."""
    monkeypatch.setattr(fewshot.commands.show, "save", lambda figure, stem, *endings: None)


# What it writes.


@pytest.mark.slow
def test_a_config_alone_is_shown(capsys):
    assert show() == sorted([*SHEETS, *COUNTS, "features.png"])
    printed = capsys.readouterr().out
    assert "no accuracy_per_step.png: name a run by --run or --ckpt_path" in printed and "written to out" in printed
    for name in SHEETS:
        with Image.open(Path("out") / name) as picture:
            assert picture.format == "PNG" and min(picture.size) > 200
    assert not list(Path().glob(".out*"))


@pytest.mark.slow
def test_a_run_is_shown_with_the_predictions_of_predict(maps, monkeypatch):
    found = show("--ckpt_path", "runs/shown/version_0", "--episodes", 0, config="runs/shown/version_0/config.yaml")
    assert found == sorted([*COUNTS, *STEPS, "features.png"])
    main(["predict", "--config", "runs/shown/version_0/config.yaml", "--ckpt_path", "runs/shown/version_0"])
    with open("runs/shown/version_1/predictions.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["episode"] == "0"]
    shutil.rmtree("runs/shown/version_1")
    (mapped,) = maps
    assert [mapped.names[c] for c in mapped.after] == [row["predicted"] for row in rows]
    assert [mapped.names[c] for c in mapped.query_labels] == [row["label"] for row in rows]
    before = [max(range(3), key=lambda c: float(row[f"before_{c}"])) for row in rows]
    assert mapped.before == before


@pytest.mark.slow
def test_overrides_are_those_of_fit(maps):
    options = [
        "--data.n_way",
        4,
        "--model.method.gradient.n_way",
        4,
        "--data.n_shot",
        2,
        "--splits",
        "[test]",
        "--episodes",
        1,
    ]
    assert show(*options) == sorted([*COUNTS, "episode_test_0.png", "features.png"])
    (mapped,) = maps
    assert len(mapped.names) == 4 and len(mapped.support_labels) == 8


@pytest.mark.slow
def test_splits_and_number_of_episodes(capsys):
    assert show("--splits", "[val, train]", "--episodes", 0) == COUNTS
    assert "no features.png" in capsys.readouterr().out


def test_which_results_are_plotted(tmp_path):
    written = json.loads(Path("runs/shown/version_0/results.json").read_text())
    checkpoint = "runs/shown/version_0/checkpoints/best.ckpt"
    for run, file in (("runs/shown/version_0", None), ("runs/shown", None), (None, checkpoint), ("runs", None)):
        found = results_of(run, file)
        assert found == written if run != "runs" else found == "runs holds no results.json, which a test writes"
    assert results_of(str(tmp_path), checkpoint) == f"{tmp_path} holds no results.json, which a test writes"
    (tmp_path / "results.json").write_text(json.dumps({"accuracy_per_step": [0.5]}))
    assert results_of(str(tmp_path), None) == f"{tmp_path}/results.json records a method without refinement steps"


def test_a_run_without_steps_has_no_plot(capsys, tmp_path):
    assert show("--run", tmp_path, "--episodes", 0, "--splits", "[val]") == COUNTS
    assert f"no accuracy_per_step.png: {tmp_path} holds no results.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("method", "panels_differ"),
    [("{class_path: MAML, init_args: {n_way: 3, n_steps: 1, step_size: 0.4}}", True), ("ProtoNet", False)],
)
def test_methods_on_pictures_and_methods_without_steps(method, panels_differ, maps, unwritten):
    options = ["--episodes", 0, "--model.method", method, "--model.freeze_backbone", "false", "--splits", "[test]"]
    show(*options)
    assert maps[0].is_refined == panels_differ


@pytest.mark.slow
def test_nothing_is_encoded_but_what_is_shown():
    """A frozen backbone's features of a whole split are for training to compute."""

    def stored():
        return {file.path for file in cached_files(cache_dir()) if file.kind == FEATURES}

    before = stored()
    show("--model.backbone.name", "conv4_128", "--episodes", 1)
    assert stored() == before


@pytest.mark.slow
def test_a_frozen_backbones_training_pictures_are_not_augmented():
    def sheet(*options):
        show("--splits", "[train]", "--episodes", 1, "--overwrite", *options)
        with Image.open("out/episode_train_0.png") as picture:
            return np.asarray(picture)[60:]  # below title and note

    plain, stored = sheet("--data.dataset.colour_jitter", 0, "--data.dataset.flip", "false",
                          "--data.dataset.crop_padding", 0), sheet()  # fmt: skip
    assert np.array_equal(plain, stored)
    assert not np.array_equal(stored, sheet("--data.store_features", "false"))
    assert not np.array_equal(stored, sheet("--data.augmented_views", 2))


def test_pre_training_shows_a_batch():
    config = yaml.safe_load(CONFIG)
    config["model"] = {
        "class_path": "PretrainModule",
        "init_args": {"n_classes": 4, "backbone": {"name": "conv4_32", "image_size": 16}},
    }
    arguments = {key: config["data"]["init_args"][key] for key in ("dataset", "n_way", "n_query")}
    config["data"] = {"class_path": "ClassDataModule", "init_args": {**arguments, "batch_size": 10}}
    Path("pretrain.yaml").write_text(yaml.safe_dump(config))
    names = show("--episodes", 1, "--splits", "[train, test]", config="pretrain.yaml")
    Path("pretrain.yaml").unlink()
    assert names == sorted(["batch_train.png", "episode_test_0.png", *COUNTS, "features.png"])


# What is replaced, and what is not.


@pytest.mark.slow
def test_only_earlier_pictures_are_replaced():
    Path("out").mkdir()
    (Path("out") / "notes.txt").write_text("mine")
    (Path("out") / "episode_train_7.png").write_text("of an earlier show")
    names = show("--overwrite", "true", "--episodes", 1)
    assert "notes.txt" in names and "episode_train_7.png" not in names and "episode_train_0.png" in names
    assert (Path("out") / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("output", [pytest.param("out", marks=pytest.mark.slow), "out/in/three"])
def test_an_interrupted_show_leaves_nothing(output, monkeypatch):
    few = ["--config", "tiny.yaml", "--episodes", "1", "--splits", "[val]"]

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    before = sorted(Path().rglob("*"))
    monkeypatch.setattr(fewshot.commands.show, "class_counts_figure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        main(["show", *few, "--output", output])
    assert sorted(Path().rglob("*")) == before
    Path("out").mkdir()
    (Path("out") / "features.png").write_text("of an earlier show")
    with pytest.raises(KeyboardInterrupt):
        main(["show", *few, "--output", "out", "--overwrite", "true"])
    assert [(path.name, path.read_text()) for path in Path("out").iterdir()] == [("features.png", "of an earlier show")]


# What is refused.


@pytest.mark.slow
def test_bad_options_are_refused_by_one_line(capsys, tmp_path):
    assert "splits: there is no split 'tset'; choose among train, val, test" in refused(capsys, "--splits", "[tset]")
    assert "splits: none to show" in refused(capsys, "--splits", "[]")
    assert "episodes=-1" in refused(capsys, "--episodes", "-1")
    assert "output: required" in refused(capsys, output=None)
    assert "run: no folder runs/none" in refused(capsys, "--run", "runs/none")
    assert "ckpt_path" in refused(capsys, "--ckpt_path", "runs/none")
    assert "output: tiny.yaml is a file" in refused(capsys, output="tiny.yaml")
    assert "tiny.yaml is a file; name another folder" in refused(capsys, output="tiny.yaml/out")
    assert "output: pictures is not empty" in refused(capsys, output="pictures")
    assert "n_way=5 but split 'train'" in refused(capsys, "--data.n_way", "5", "--model.method.gradient.n_way", "5")
    assert "trainer: " in refused(capsys, "--trainer.accelerator", "abacus")
    assert "trained with method" in refused(capsys, "--ckpt_path", "runs/shown", "--model.method", "ProtoNet")
    (tmp_path / "results.json").write_text("[")
    assert "is damaged" in refused(capsys, "--run", str(tmp_path))
    assert "no option 'n_wya'" in refused(capsys, "--data.n_wya", "4")


def test_other_data_modules_are_refused(capsys, monkeypatch):
    monkeypatch.setattr(fewshot.commands.show, "EpisodicDataModule", fewshot.commands.show.ClassDataModule)
    assert "the config names EpisodicDataModule" in refused(capsys)


SPACES = """
data:
  class_path: FeatureSpacesDataModule
  init_args:
    dataset: {class_path: ImageFolderSplits, init_args: {root: pictures, image_size: 16}}
    spaces:
    - dataset: {class_path: ImageFolderSplits, init_args: {root: pictures, image_size: 16}}
      backbone: {name: conv4_32, image_size: 16}
    n_way: 3
    n_query: 4
"""


@pytest.mark.slow
def test_training_on_features_has_no_pictures(work, capsys):
    (work / "spaces.yaml").write_text(CONFIG.split("data:\n")[0] + SPACES.lstrip() + CONFIG[CONFIG.index("trainer:") :])
    main(["show", "--config", "spaces.yaml", "--output", "spaces"])
    assert "no pictures of training: FeatureSpacesDataModule trains on features" in capsys.readouterr().out
    written = {file.name for file in Path("spaces").iterdir()}
    assert "episode_val_0.png" in written and not {name for name in written if "train" in name}
    with pytest.raises(SystemExit):
        main(["show", "--config", "spaces.yaml", "--output", "elsewhere", "--splits", "[train]"])
    assert "no pictures; name val or test too" in capsys.readouterr().err
