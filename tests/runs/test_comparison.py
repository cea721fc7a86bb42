"""Methods side by side: the same episodes, the figures of `test`, options chosen on validation episodes."""

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pytorch_lightning import Trainer

from fewshot.commands import main
from fewshot.methods import PTMAP, SIB, MLPGradient, NearestClassMean
from fewshot.runs.comparison import Contestant

CONFIG = """
experiment: side_by_side
backbone: {name: conv4_32, image_size: 16}
data:
  dataset: {class_path: ImageFolderSplits, init_args: {root: PICTURES, image_size: 16}}
  n_way: 3
  n_shot: 1
  n_query: 4
  val_episodes: 6
  test_episodes: 12
  tasks_per_batch: 5
methods:
  nearest:
    method: {class_path: NearestClassMean}
  PT-MAP:
    method: {class_path: PTMAP, init_args: {n_rounds: 3}}
    search: {rate: [0.1, 0.4], temperature: [1.0, 20.0]}
"""


@pytest.fixture
def work(tmp_path, monkeypatch, write_pictures):
    write_pictures(tmp_path / "pictures", classes=5, pictures=12)
    monkeypatch.chdir(tmp_path)
    Path("side.yaml").write_text(CONFIG.replace("PICTURES", str(tmp_path / "pictures")))
    return tmp_path


def compared(*options, config="side.yaml"):
    main(["compare", "--config", config, "--accelerator", "cpu", *options])
    folder = max(Path("runs").glob("*/version_*"), key=lambda path: path.stat().st_mtime_ns)
    return folder, json.loads((folder / "comparison.json").read_text())


def refused(capsys, *options):
    with pytest.raises(SystemExit) as stop:
        main(["compare", *options])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert not Path("runs").exists()
    return message


@pytest.mark.slow
def test_every_method_is_measured_as_test_measures_it(work, capsys):
    folder, comparison = compared("--long_tail", "2")
    printed = capsys.readouterr().out
    rows = {row["method"]: row for row in comparison["rows"]}
    assert list(rows) == sorted(rows, key=lambda name: -rows[name]["accuracy"])
    assert comparison["reference"] == "nearest"
    assert rows["nearest"]["difference"] == rows["nearest"]["difference_ci95"] == 0
    unbalanced = [(f"{kind}_", [f"--data.{name}", "2.0"]) for kind, name in (("dirichlet",) * 2, ("tail", "long_tail"))]
    for prefix, options in (("", []), *unbalanced):
        tested = {}
        for name, method in (("nearest", "NearestClassMean"), ("PT-MAP", "PTMAP")):
            extra = ["--model.method.n_rounds", "3"] if method == "PTMAP" else []
            words = (
                f"test --model FewShotModule --model.method {method} --model.backbone.name conv4_32 "
                "--model.backbone.image_size 16 --data EpisodicDataModule --data.dataset ImageFolderSplits "
                "--data.dataset.image_size 16 --data.n_way 3 --data.n_query 4 --data.test_episodes 12 "
                f"--experiment {prefix}{method} --trainer.enable_progress_bar false"
            )
            main([*words.split(), "--data.dataset.root", str(work / "pictures"), *extra, *options])
            run = Path("runs") / f"{prefix}{method}" / "version_0"
            results = json.loads((run / "results.json").read_text())
            assert rows[name][f"{prefix}accuracy"] == results["accuracy"]
            assert rows[name][f"{prefix}ci95"] == results["ci95"]
            assert results["episodes_sha256"] in comparison["episodes_sha256"].values()
            with (run / "episodes.csv").open() as file:
                tested[name] = np.array([int(row[-1]) for row in list(csv.reader(file))[1:]])
        difference = (tested["PT-MAP"] - tested["nearest"]) / 12
        assert rows["PT-MAP"][f"{prefix}difference"] == pytest.approx(difference.mean())
        interval = 1.96 * difference.std(ddof=1) / math.sqrt(12)
        assert rows["PT-MAP"][f"{prefix}difference_ci95"] == pytest.approx(interval)
    assert all(row["seconds_per_1000"] > 0 for row in rows.values())
    for name in rows:
        assert f"{100 * rows[name]['accuracy']:.2f}" in printed
        assert f"| {name} |" in (folder / "comparison.md").read_text()
    with (folder / "comparison.csv").open() as file:
        assert [row["method"] for row in csv.DictReader(file)] == list(rows)
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (folder / "comparison.svg").read_text()
    again, repeated = compared(config=str(folder / "compare.yaml"))
    assert again != folder
    for row, same in zip(comparison["rows"], repeated["rows"], strict=True):
        assert {key: row[key] for key in row if "seconds" not in key} == {
            key: same[key] for key in same if "seconds" not in key
        }


def test_a_method_of_ones_own_joins_the_others(work, monkeypatch):
    readme = (Path(__file__).parents[2] / "fewshot" / "methods" / "README.md").read_text()
    (work / "method_of_the_readme.py").write_text(readme.split("# my_method.py\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(work)
    _, comparison = compared("--methods.mine.method", "method_of_the_readme.NearestMedian", "--dirichlet", "null")
    rows = {row["method"]: row for row in comparison["rows"]}
    assert rows.keys() == {"nearest", "PT-MAP", "mine"}
    assert rows["mine"]["accuracy"] > 1 / 3


@pytest.mark.slow
def test_weights_that_nothing_gives_are_those_of_the_seed(work):
    method = {"class_path": "SIB", "init_args": {"n_steps": 2, "step_size": 0.5}}
    method["init_args"]["gradient"] = {"class_path": "MLPGradient", "init_args": {"n_way": 3}}
    config = {**yaml.safe_load(Path("side.yaml").read_text()), "methods": {"sib": {"method": method}}}
    Path("sib.yaml").write_text(yaml.safe_dump(config))
    found = []
    for seed in ("4", "4", "5"):
        torch.rand(1)  # what else is random goes on
        _, comparison = compared("--seed_everything", seed, "--dirichlet", "null", config="sib.yaml")
        found.append(comparison["rows"][0]["accuracy"])
    assert found[0] == found[1] != found[2]


def test_variants_of_a_method_share_no_part():
    contestant = Contestant(SIB(gradient=MLPGradient(n_way=3), n_steps=1))
    one, other = (contestant.variant({"step_size": size}, "sib") for size in (0.1, 0.2))
    assert one.gradient is not other.gradient
    assert one.gradient.state_dict().keys() == other.gradient.state_dict().keys()
    assert all(value.equal(other.gradient.state_dict()[name]) for name, value in one.gradient.state_dict().items())


class Failing(PTMAP):
    def refine(self, support, support_labels, query, n_way):
        raise ValueError("too little memory")


def test_what_was_measured_stays_when_a_later_method_fails(work, capsys):
    with pytest.raises(ValueError, match="too little memory"):  # a fault of the program, which keeps its traceback
        compared("--methods.failing.method", f"{__name__}.Failing", "--dirichlet", "null")
    (folder,) = Path("runs/side_by_side").iterdir()
    said = (folder / "measured.txt").read_text().splitlines()
    assert [line.split(": ")[1].split(" ")[0] for line in said] == ["nearest", "PT-MAP"]
    assert f"what was measured is in {folder / 'measured.txt'}" in capsys.readouterr().err


def test_what_a_method_needs_is_looked_for_before_any_is_measured(work, capsys):
    shutil.rmtree(work / "pictures" / "train")
    message = refused(capsys, "--config", "side.yaml", "--methods.later.method", "SimpleShot")
    assert "split 'train'" in message


def test_options_are_chosen_on_validation_episodes(work, monkeypatch):
    tried = []

    def validated(self, module, data, **_):
        tried.append((module.method.rate, module.method.temperature))
        module.results["val"] = {"accuracy": 0.9 if module.method.rate == 0.4 else 0.5}

    tested = []
    run = Trainer.test

    def remembered(self, module, data, **options):
        tested.append(module.method)
        return run(self, module, data, **options)

    monkeypatch.setattr(Trainer, "validate", validated)
    monkeypatch.setattr(Trainer, "test", remembered)
    _, comparison = compared("--tune", "4", "--dirichlet", "null", "--reference", "PT-MAP")
    assert tried[0] == (0.2, 10.0)  # as they are
    assert len(tried) == len(set(tried)) == 4
    assert [type(method) for method in tested] == [NearestClassMean, PTMAP]
    assert tested[1].rate == 0.4
    row = next(row for row in comparison["rows"] if row["method"] == "PT-MAP")
    assert row["chosen"]["rate"] == 0.4
    assert row["chosen"]["val_accuracy"] == 0.9
    assert "dirichlet_accuracy" not in row


@pytest.mark.slow
def test_a_checkpoint_brings_its_own_weights(work):
    base = ["--model", "FewShotModule", "--model.method", "SIB", "--model.method.gradient", "EquivariantGradient"]
    base += [
        "--model.method.step_size",
        "0.1",
        "--model.backbone.name",
        "conv4_32",
        "--model.backbone.image_size",
        "16",
    ]
    base += ["--data", "EpisodicDataModule", "--data.dataset", "ImageFolderSplits", "--data.n_way", "3"]
    base += ["--data.dataset.root", str(work / "pictures"), "--data.dataset.image_size", "16", "--data.n_query", "4"]
    base += ["--data.train_episodes", "8", "--data.val_episodes", "4", "--data.test_episodes", "12"]
    main(["fit", *base, "--experiment", "sib", "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"])
    results = json.loads((work / "runs/sib/version_0/results.json").read_text())
    config = yaml.safe_load(Path("side.yaml").read_text())
    config["methods"]["SIB"] = {"ckpt_path": "runs/sib"}
    Path("with_sib.yaml").write_text(yaml.safe_dump(config))
    _, comparison = compared(config="with_sib.yaml")
    row = next(row for row in comparison["rows"] if row["method"] == "SIB")
    assert row["accuracy"] == results["accuracy"]
    config["methods"]["SIB"]["search"] = {"n_steps": [1]}
    Path("with_sib.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit):
        main(["compare", "--config", "with_sib.yaml"])


@pytest.mark.slow
def test_shots_and_queries_make_plots(work):
    folder, comparison = compared(
        "--shots", "[1,2]", "--queries", "[2,4]", "--dirichlet", "null", "--data.test_episodes", "4"
    )
    assert [(row["n_shot"], row["n_query"]) for row in comparison["rows"]] == [
        size for size in ((1, 2), (1, 4), (2, 2), (2, 4)) for _ in range(2)
    ]
    for name in ("comparison", "accuracy_by_shots", "accuracy_by_queries"):
        assert (folder / f"{name}.png").is_file()
        assert (folder / f"{name}.svg").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reference", "PTMAP"], "no method is named 'PTMAP'; choose among nearest, PT-MAP"),
        (["--methods", "{}"], "there is none to compare"),
        (["--tune", "-1"], "tune=-1"),
        (["--data.dirichlet", "1.0"], "set dirichlet without data."),
        (["--data.n_way", "9"], "n_way=9"),
        (["--methods", "{a: {ckpt_path: nowhere}}"], "'nowhere' not found"),
        (["--methods", "{a: {}}"], "methods.a: give either method or ckpt_path"),
        (["--shotz", "1"], "shotz"),
        (["--shots", "[1, 0]"], "n_shot=0"),
        (["--queries", "[4, 99]"], "n_query=99"),
        (["--dirichlet", "0"], "dirichlet=0"),
        (["--long_tail", "0"], "long_tail=0"),
        (["--data.long_tail", "10"], "set long_tail without data."),
        (["--accelerator", "abacus"], "abacus"),
        (["--methods", "{a: {metod: PTMAP}}"], "metod"),
        (["--methods", "{a: {method: PTMAPP}}"], "PTMAPP"),
        (
            ["--data", "{class_path: EpisodicDataModule, init_args: {n_way: 3}}"],
            "data: options stand directly below it",
        ),
        (["--methods", "{a: {method: {class_path: SIB}}}"], "methods.a serves n_way=5 alone, but data.n_way=3"),
        (["--methods", "{a: {method: PTMAP, search: {speed: [1]}}}"], "methods.a.search: "),
        (
            ["--methods.PT-MAP.search.rate", "[0.1]"],
            "search: keys are not set one by one here; give all in braces",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(work, capsys, options, message):
    assert message in refused(capsys, "--config", "side.yaml", *options)


def test_a_search_names_options_that_there_are():
    with pytest.raises(ValueError, match=r"methods\.it\.search: .*speed"):
        Contestant(PTMAP(), search={"speed": [1]}).check("it")
    with pytest.raises(ValueError, match=r"methods\.it\.search: rate='fast': "):
        Contestant(PTMAP(), search={"rate": [0.2, "fast"]}).check("it")
    with pytest.raises(ValueError, match=r"methods\.it\.search: rate=-1: rate=-1 but it is above 0"):
        Contestant(PTMAP(), search={"rate": [0.2, -1]}).check("it")
    with pytest.raises(ValueError, match="no list of values"):
        Contestant(PTMAP(), search={"rate": []}).check("it")


def joined_refused(capsys, folders):
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--joined", json.dumps(folders)])
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.slow
def test_comparisons_on_several_backbones_are_drawn_together(work, capsys):
    folder, content = compared("--experiment", "conv4_32", "--long_tail", "3", "--data.test_episodes", "4")
    Path("runs/conv4/version_0").mkdir(parents=True)
    Path("runs/conv4/version_0/comparison.json").write_text(json.dumps({**content, "backbone": "conv4"}))
    main(["compare", "--joined", json.dumps([str(folder), "runs/conv4"]), "--experiment", "both"])
    folder = Path("runs/both/version_0")
    assert sorted(path.name for path in folder.iterdir()) == ["backbones.md", "backbones.png", "backbones.svg"]
    lines = (folder / "backbones.md").read_text().splitlines()
    assert lines[0].startswith("| backbone | data | episodes | method |")
    assert all(f"{kind} accuracy %" in lines[0] for kind in ("", "Dirichlet", "long tail"))
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| conv4_32"] * 2 + ["| conv4"] * 2
    capsys.readouterr()
    file = Path("runs/conv4/version_0/comparison.json")
    for damage in (
        {"rows": [{"method": 3}]},
        {"rows": 1},
        {"rows": []},
        {"rows": [{**content["rows"][0], "accuracy": []}]},
    ):
        file.write_text(json.dumps({**content, **damage}))
        message = "no method in it" if damage["rows"] == [] else "no comparison that says"
        assert message in joined_refused(capsys, ["runs/conv4"])
    assert "has no comparison.json" in joined_refused(capsys, ["runs/none"])
    assert "no folder is named" in joined_refused(capsys, [])
    assert not Path("runs/comparison").exists()
