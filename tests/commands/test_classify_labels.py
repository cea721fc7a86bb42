"""classify --labels: a table of corrections beside folders or in their place; what changed since; the check."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewshot import FewShotModule
from fewshot.backbones import BackboneConfig
from fewshot.classification.label_files import read_labels
from fewshot.commands import main
from fewshot.data.transforms import Preprocessing
from fewshot.files import read_csv
from fewshot.methods import UniversalSIB
from fewshot.training.saved_model import save_trained

COLOURS = {"blue": (40, 40, 200), "red": (200, 40, 40)}


def picture(place, colour, seed):
    place.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-25, 25, (16, 16, 3))
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(place)


def test_classes_that_are_known_are_taken_as_they_are(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label,none_of_these\na,cat ,false\nb, cat,\nc,-1,false\nd,-1,\ne,,\n")
    found = read_labels(tmp_path / "labels.csv", ["path"], known=["cat ", "-1"])
    assert found.classes == {"a": "cat ", "b": "cat", "c": "-1", "d": "-1"}
    assert read_labels(tmp_path / "labels.csv", ["path"]).classes == {"a": "cat", "b": "cat"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """One labelled picture of each of two colours, six queries of each, and two green ones that are of neither."""
    root = tmp_path_factory.mktemp("pictures")
    for number, (name, colour) in enumerate(COLOURS.items()):
        picture(root / "support" / name / "0.png", colour, number)
        for place in range(6):
            picture(root / "query" / f"{name} {place}.png", colour, 10 * number + place + 5)
    for place in range(2):
        picture(root / "query" / "more" / f"green {place}.png", (40, 200, 40), 50 + place)
    torch.manual_seed(0)
    module = FewShotModule(UniversalSIB(), BackboneConfig("conv4_32", image_size=16))
    save_trained(module.eval(), Preprocessing(16, 16, (0.5,) * 3, (0.25,) * 3), root / "model")
    return root


@pytest.fixture
def work(pictures, tmp_path, monkeypatch):
    for name in ("support", "query", "model"):
        Path(tmp_path, name).symlink_to(pictures / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


FOLDERS = ("--query", "query", "--output", "out", "--ckpt_path", "model")


def classified(*options):
    main(["classify", *FOLDERS, *options])
    header, *rows = read_csv(Path("out/predictions.csv").read_text(encoding="utf-8"))
    record = json.loads(Path("out/run.json").read_text(encoding="utf-8"))
    return [dict(zip(header, row, strict=True)) for row in rows], record


def refused(capsys, table, *options):
    Path("labels.csv").write_text(table)
    with pytest.raises(SystemExit) as stop:
        main(["classify", *FOLDERS, "--labels", "labels.csv", *options])
    message = capsys.readouterr().err
    assert stop.value.code == 2 and message.startswith("error: ") and message.count("\n") == 1, message
    assert not Path("out").exists()
    return message


def test_corrections_beside_folders_and_what_changed_since(work, capsys):
    first, record = classified("--support", "support")
    assert len(first) == 14 and record["since_previous"] is None and record["labels"] == []
    assert record["held_out"] == {"n": 0, "right_before": 0, "right_after": 0, "answer": "after"}
    assert "check of the labels: cannot be checked" in capsys.readouterr().out
    Path("labels.csv").write_text(
        "path,label,none_of_these\nblue 0.png,blue,false\nred 0.png,red,\nmore/green 0.png,green,no\n"
        "more/green 1.png,,TRUE\nred 1.png,,false\n"
    )
    rows, record = classified("--support", "support", "--labels", "labels.csv", "--overwrite")
    said = capsys.readouterr().out
    assert record["classes"] == ["blue", "green", "red"] and record["n_support"] == 5 and record["n_query"] == 10
    assert record["labels"][2] == {"name": "more/green 0.png", "label": "green"}
    assert record["none_of_these"] == ["more/green 1.png"] and "1 taken away, labelled as none of these" in said
    assert record["since_previous"]["n_labelled"] == 4 and record["since_previous"]["n_new"] == 0
    assert "since the earlier run" in said and "4 were labelled, 0 are new" in said
    assert record["held_out"]["n"] == 4 and "4 labelled ones held out" in said
    assert rows[-1]["path"] == "more/green 1.png" and rows[-1]["none_of_these"] == "true"
    assert rows[-1]["predicted"] == rows[-1]["probability blue"] == "" and rows[0]["none_of_these"] == "false"
    _, record = classified("--support", "support", "--previous", "out", "--overwrite", "--check_refinement", "false")
    assert record["since_previous"]["n_new"] == 4 and record["held_out"] is None


def test_labels_in_the_place_of_folders(work, capsys):
    table = "label,path,why\nblue,blue 3.png,x\nred,red 3.png,y\nred,red 4.png,y\n"
    Path("labels.csv").write_text(table)
    rows, record = classified("--labels", "labels.csv")
    assert record["n_support"] == 3 and len(rows) == 11 and "in labels.csv" in record["settings"]["labelled"]
    Path("out/run.json").unlink()
    assert classified("--labels", "labels.csv", "--overwrite")[1]["since_previous"]["n_changed"] == 0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,label\nred 0.png,red\n", "there is one class alone, 'red'"),
        ("path,label\nred 0.png,red\nred 0.png,blue\n", "says that 'red 0.png' is 'red', and that it is 'blue'"),
        (
            "path,label\nred 00.png,red\n",
            "names 'red 00.png', and there is no such picture in query; did you mean 'red 0.png'?",
        ),
        ("path,label\nmore/blue 3.jpg,red\n", "no such picture in query; did you mean 'blue 3.png'?"),
        ("path,label\nred 11.png,red\n", "no such picture in query\n"),
        ("path,label\n../support/red/0.png,red\n", "names '../support/red/0.png', which leads out of query"),
        ("path,label\n/etc/passwd,red\n", "names '/etc/passwd', which leads out of query"),
        ("path,label\nC:\\red.png,red\n", "which leads out of query"),
        ("path,label,none_of_these\nred 0.png,red,maybe\n", "row 0, counted from 0, has 'maybe' as none_of_these"),
        ("path,label,none_of_these\nred 0.png,red,true\n", "says that 'red 0.png' is 'red' and none of these"),
        ("path,label\n,red\n", "row 0, counted from 0, has no path"),
        ("path,label\nred 0.png,\n", "labels nothing"),
        ("file,label\nred 0.png,red\n", "has no column 'path'"),
        ("path,class\nred 0.png,red\n", "has no column 'label'"),
        ("", "has no column"),
    ],
)
def test_bad_tables_are_named(work, capsys, table, message):
    assert message in refused(capsys, table)


def test_a_table_that_is_not_there(work, capsys):
    with pytest.raises(SystemExit):
        main(["classify", *FOLDERS, "--labels", "lables.csv"])
    assert capsys.readouterr().err == "error: labels: lables.csv is not there; name the table of labels\n"
    Path("out").mkdir()
    Path("out/run.json").touch()
    with pytest.raises(SystemExit):
        main(["classify", *FOLDERS, "--support", "support"])
    assert "allow overwriting it (--overwrite, in Python overwrite=True)" in capsys.readouterr().err


def test_the_same_picture_under_two_labels(work, capsys):
    Path("query").unlink()
    Path("query").mkdir()
    for name, source in (
        ("a.png", "support/red/0.png"),
        ("b.png", "support/red/0.png"),
        ("c.png", "support/blue/0.png"),
    ):
        Path("query", name).write_bytes(Path(source).read_bytes())
    both = ("--support", "support")
    message = refused(capsys, "path,label\na.png,blue\n", *both)
    assert "labels: query/a.png is 'blue', and support/red/0.png, the same picture, is 'red'" in message
    message = refused(capsys, "path,label,none_of_these\na.png,red,\nb.png,,1\n", *both)
    assert "query/b.png is none of these, and support/red/0.png, the same picture, is 'red'" in message
    message = refused(capsys, "path,label\na.png,red\nb.png,red\nc.png,blue\n")
    assert "all 3 pictures have labels; there is nothing left to classify" in message
    Path("labels.csv").write_text("path,label\na.png,red\nc.png,blue\n")
    assert [row["path"] for row in classified("--labels", "labels.csv")[0]] == ["b.png"]


def test_rows_take_the_same_table(work, capsys):
    rng = np.random.default_rng(0)
    rows = 6 * np.eye(3, 5)[np.arange(30) % 3] + rng.normal(size=(30, 5))
    labels = [*"pqr", *[""] * 27]
    np.savez("rows.npz", features=rows, id=[f"n{place}" for place in range(30)], label=labels)
    Path("labels.csv").write_text("id,label,none_of_these\nn3,p,false\nn4,q,false\nn29,,true\nn0,p,\n")
    features = ("--features", "rows.npz", "--id_column", "id", "--label_column", "label", "--labels", "labels.csv")
    main(["classify", *features, "--output", "out", "--none_of_these", "distance"])
    record = json.loads(Path("out/run.json").read_text())
    assert record["n_support"] == 5 and record["n_query"] == 24 and record["none_of_these"] == ["n29"]
    assert [row["id"] for row in csv.DictReader(Path("out/predictions.csv").read_text().splitlines())][-1] == "n29"
    Path("labels.csv").write_text("id,label\nn0,q\n")
    with pytest.raises(SystemExit):
        main(["classify", *features, "--output", "out", "--overwrite"])
    assert "'n0' is 'p' beside the features, and 'q' in the table" in capsys.readouterr().err
    Path("labels.csv").write_text("label,none_of_these\np,true\n")
    with pytest.raises(SystemExit):
        main(["classify", *features, "--output", "out", "--overwrite"])
    assert "has none_of_these and no column 'id', which says of whom" in capsys.readouterr().err


def test_an_earlier_run_that_cannot_be_read(work, capsys):
    Path("labels.csv").write_text("path,label\nblue 3.png,blue\nred 3.png,red\n")
    Path("old").mkdir()
    options = ("--labels", "labels.csv", "--previous", "old")
    with pytest.raises(SystemExit):
        main(["classify", *FOLDERS, *options])
    assert "old holds no predictions.csv" in capsys.readouterr().err
    Path("old/predictions.csv").write_text("file,predicted\n")
    with pytest.raises(SystemExit):
        main(["classify", *FOLDERS, *options])
    assert "it has no column 'id'" in capsys.readouterr().err
    Path("old").rename("out")
    assert classified("--labels", "labels.csv", "--overwrite")[1]["since_previous"] is None


def test_pictures_are_sorted_into_folders_or_nothing_is_written(work, capsys, monkeypatch):
    Path("labels.csv").write_text(
        "path,label,none_of_these\nblue 3.png,blue,\nred 3.png,red,\nmore/green 0.png,,true\n"
    )
    options = ("--labels", "labels.csv", "--sorted", "sorted")
    with monkeypatch.context() as patch:
        patch.setattr("fewshot.commands.classify.write_sorted", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            classified(*options)
    assert sorted(path.name for path in work.iterdir()) == ["labels.csv", "model", "query", "support"]
    rows, _ = classified(*options)
    found = {path.name: path.parent.name for path in Path("sorted").rglob("*.png")}
    assert len(found) == 14 and found["blue 3.png"] == "blue" and found["green 0.png"] == "none_of_these"
    assert all(found[Path(row["path"]).name] == row["predicted"] for row in rows if row["predicted"])
    assert "14 pictures copied into 3 folders in sorted" in capsys.readouterr().out
    for wrong, message in (
        (options, "name a folder that is not there (--overwrite replaces --output alone)"),
        ((*options[:3], "query/sorted"), "lie in each other"),
        ((*options[:2], "--link"), "link: it says how to sort"),
    ):
        with pytest.raises(SystemExit):
            main(["classify", *FOLDERS, *wrong, "--overwrite"])
        assert message in capsys.readouterr().err
