"""python -m fewshot classify --features: rows in, the same table and report out, without pictures."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewshot import FewShotClassifier
from fewshot.backbones import BackboneConfig
from fewshot.commands import main

CENTRES = 8 * np.eye(3, 6)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Thirty rows of three classes, six of them labelled, with texts that a careless page would run."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    rows = CENTRES[np.arange(30) % 3] + generator.normal(size=(30, 6))
    with open("rows.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["name", "kind", "said", *"abcdef"])
        for place, row in enumerate(rows.tolist()):
            kind = "pqr"[place % 3] if place < 6 else ""
            table.writerow([f"n{place}", kind, f"<script>{place}</script> said", *row])
    np.savez("sides.npz", features=rows[:, :6], class_embeddings=CENTRES, class_names=list("pqr"))
    return tmp_path


def classified(*options):
    main(["classify", "--output", "out", *options])
    rows = list(csv.DictReader(Path("out/predictions.csv").read_text(encoding="utf-8").splitlines()))
    return rows, json.loads(Path("out/run.json").read_text(encoding="utf-8")), Path("out/report.html").read_text()


def refused(capsys, *options):
    with pytest.raises(SystemExit) as stop:
        main(["classify", "--output", "out", *options])
    message = capsys.readouterr().err
    assert stop.value.code == 2 and message.startswith("error: ") and message.count("\n") == 1, message
    assert not Path("out").exists()
    return message


NAMED = ("--features", "rows.csv", "--id_column", "name", "--label_column", "kind", "--text_column", "said")


def test_rows_are_classified_and_the_report_shows_their_texts(work, capsys):
    rows, record, report = classified(*NAMED, "--none_of_these", "learned")
    assert "24 rows classified after 6 labelled ones of 3 classes" in capsys.readouterr().out
    assert [row["id"] for row in rows] == [f"n{place}" for place in range(6, 30)]
    assert [row["predicted"] for row in rows] == ["pqr"[place % 3] for place in range(6, 30)]
    assert record["settings"]["features"] == "6 numbers a row" and "backbone" not in record["settings"]
    assert "&lt;script&gt;7&lt;/script&gt; said" in report and "<script>7" not in report
    assert "<img " not in report and "Classified rows" in report and "6 labelled rows." in report
    assert "Showing all 24 rows." in report


def test_labels_from_a_file_and_names_in_the_place_of_texts(work):
    Path("labels.csv").write_text("name,label\n" + "".join(f"n{place},{'pqr'[place % 3]}\n" for place in range(3)))
    ids = ("--features", "rows.csv", "--id_column", "name", "--labels", "labels.csv")
    Path("rows.csv").write_text("\n".join(
        ",".join([*line.split(",")[:1], *line.split(",")[3:]]) for line in Path("rows.csv").read_text().splitlines()
    ))  # fmt: skip
    rows, record, report = classified(*ids)
    assert len(rows) == 27 and record["n_support"] == 3 and '<span class="gone text"><bdi>n3</bdi>' in report
    assert '<span class="name hidden"><bdi>n3</bdi>' in report


def test_class_embeddings_in_the_place_of_labels_and_beside_them(work, capsys):
    rows, record, report = classified("--features", "sides.npz", "--class_embeddings", "sides.npz")
    assert "30 rows classified after 0 labelled ones and 3 class embeddings of 3 classes" in capsys.readouterr().out
    assert [row["predicted"] for row in rows] == list("pqr" * 10) and record["n_class_embeddings"] == 3
    assert "3 class embeddings" in report
    seen = "about their mean, whitened by their scatter within classes"
    assert record["settings"]["features are seen"] == seen and seen in report
    both, record, _ = classified(
        *NAMED, "--class_embeddings", "sides.npz", "--class_embedding_weight", "2", "--overwrite"
    )
    assert record["settings"]["class embeddings"] == "3, each as much as 2 labelled ones" and len(both) == 24


def test_class_embeddings_without_names_are_no_classes_beside_named_ones(work, capsys):
    np.save("bare.npy", CENTRES)
    message = refused(capsys, *NAMED, "--class_embeddings", "bare.npy")
    assert "stand for the labels 0 to 2, and there are others such as 'p'; name them" in message


def test_a_run_that_goes_on_says_the_weight_that_it_has(work):
    given = (*NAMED, "--class_embeddings", "sides.npz")
    classified(*given, "--class_embedding_weight", "2", "--keep_classifier")
    Path("out").rename("first")
    _, record, _ = classified("--continue", "first", *given)
    assert record["settings"]["class embeddings"] == "3, each as much as 2 labelled ones"


def test_pictures_with_class_embeddings_alone(work):
    torch.manual_seed(0)
    torch.save(BackboneConfig("conv4_32", image_size=16).create().state_dict(), "net.pth")
    Path("photos").mkdir()
    for place in range(4):
        Image.fromarray(np.full((16, 16, 3), 60 * place, dtype=np.uint8)).save(f"photos/{place}.png")
    width = BackboneConfig("conv4_32", image_size=16).create().num_features
    np.save("sides.npy", np.random.default_rng(0).normal(size=(2, width)))
    options = (
        "--backbone",
        "conv4_32",
        "--weights",
        "net.pth",
        "--image_size",
        "16",
        "--class_embeddings",
        "sides.npy",
    )
    rows, record, _ = classified("--query", "photos", *options)
    assert len(rows) == 4 and record["classes"] == ["0", "1"] and record["n_support"] == 0


def test_bad_options_are_named_before_anything_is_read(work, capsys, monkeypatch):
    monkeypatch.setattr("fewshot.commands.inputs.feature_rows", lambda *_, **__: pytest.fail("it reads"))
    features = ("--features", "rows.csv")
    assert "nothing to classify; give --query" in refused(capsys)
    assert "nothing is labelled; give --support" in refused(capsys, "--query", "photos", "--backbone", "resnet18")
    assert "nothing is labelled; give --label_column" in refused(capsys, *features)
    assert "backbone: it is about pictures" in refused(capsys, *features, "--backbone", "resnet18")
    assert "label_column: it is about rows of features" in refused(capsys, "--query", "x", "--label_column", "x")
    message = refused(capsys, *features, "--label_column", "kind", "--class_embedding_weight", "0")
    assert "class_embedding_weight=0; give 1 or more" in message
    assert "nowhere.npz is not there" in refused(capsys, *features, "--class_embeddings", "nowhere.npz")


def test_what_the_rows_do_not_bear_is_named(work, capsys):
    assert "features: " in (message := refused(capsys, "--features", "nowhere", "--label_column", "x"))
    assert "nowhere is not there" in message
    message = refused(capsys, "--features", "sides.npz", "--class_embeddings", "sides.npz", "--none_of_these", "energy")
    assert "energy compares with labelled ones, and there is a class without any; give learned" in message
    np.save("none.npy", [-1] * 30)
    assert "no row has a label" in refused(capsys, "--features", "sides.npz", "--labels", "none.npy")
    np.savez("narrow.npz", class_embeddings=np.eye(3), class_names=list("pqr"))
    assert "3 features and the rows 6" in refused(capsys, *NAMED, "--class_embeddings", "narrow.npz")
    Path("all.csv").write_text("kind,a\np,1\nq,2\n")
    assert "all 2 rows have labels" in refused(capsys, "--features", "all.csv", "--label_column", "kind")
    message = refused(capsys, *NAMED, "--method", "SIB")
    assert "--method SIB has to be trained first" in message


def test_columns_in_another_order_are_refused_later_and_in_a_folder(work, capsys):
    classified(*NAMED, "--keep_classifier")
    Path("out").rename("first")
    content = [line.split(",") for line in Path("rows.csv").read_text().splitlines()]
    turned = [[f"later{line[0]}", *line[1:3], *line[:2:-1]] for line in content]
    turned[0][:3] = content[0][:3]
    Path("later.csv").write_text("\n".join(",".join(line) for line in turned))
    message = refused(capsys, "--continue", "first", "--features", "later.csv")
    assert "The feature names should match" in message and "found 'f' in the place of 'a'" in message
    Path("both").mkdir()
    for name in ("rows.csv", "later.csv"):
        Path(name).rename(Path("both", name))
    message = refused(capsys, *("both" if part == "rows.csv" else part for part in NAMED))
    assert "has the column 'a' where" in message and "has 'f'; give both the same columns" in message


def test_names_of_features_are_saved(tmp_path):
    class Table(np.ndarray):  # as a DataFrame of pandas
        columns = ("a", "b", "c")

    rows = np.random.default_rng(0).normal(size=(8, 3)).view(Table)
    FewShotClassifier(temperature=1.0).fit(rows, ["x", "y"] * 4).save(tmp_path / "it")
    loaded = FewShotClassifier.load(tmp_path / "it")
    assert loaded.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="found 'c' in the place of 'a'"):
        rows.columns = ("c", "b", "a")
        loaded.predict(rows)
    about = tmp_path / "it" / "classifier.json"
    about.write_text(about.read_text().replace('"a",', '"a", "b",', 1))
    with pytest.raises(ValueError, match="feature_names"):
        FewShotClassifier.load(tmp_path / "it")
