"""classify --continue: pictures and classes added to an earlier run, whose own are not read again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_classify_labels import picture, pictures, work  # noqa: F401  (fixtures)

from fewshot import FewShotClassifier
from fewshot.classification.continued import earlier_run
from fewshot.commands import main
from fewshot.files import read_csv


def classified(*options, output="out"):
    main(["classify", "--output", output, *options])
    header, *rows = read_csv(Path(output, "predictions.csv").read_text(encoding="utf-8"))
    record = json.loads(Path(output, "run.json").read_text(encoding="utf-8"))
    return [dict(zip(header, row, strict=True)) for row in rows], record


def refused(capsys, *options):
    with pytest.raises(SystemExit) as stop:
        main(["classify", "--output", "never", *options])
    message = capsys.readouterr().err
    assert stop.value.code == 2 and message.startswith("error: ") and message.count("\n") == 1, message
    assert not Path("never").exists()
    return message


def test_pictures_and_classes_come_later(work, capsys):  # noqa: F811
    Path("labels.csv").write_text("path,label,none_of_these\nblue 3.png,blue,\nmore/green 0.png,,true\n")
    both = ("--support", "support", "--query", "query", "--ckpt_path", "model")
    first, record = classified(*both, "--labels", "labels.csv", "--keep_classifier")
    assert record["n_query"] == 12 and "classifier, rows.json" in capsys.readouterr().out
    assert "FewShotClassifier.load(" in Path("out/classifier/README.md").read_text()
    assert len(FewShotClassifier.load("out/classifier").given_.rows) == 12 + 3

    # nothing new: labels alone, of pictures that are not read again
    Path("labels.csv").write_text("path,label\nred 2.png,red\n")
    rows, record = classified("--continue", "out", "--labels", "labels.csv", "--keep_classifier", output="second")
    assert record["n_query"] == 11 and record["n_support"] == 4 and record["since_previous"]["n_labelled"] == 1
    assert {row["path"] for row in rows} == {row["path"] for row in first} - {"red 2.png"}
    assert rows[-1]["path"] == "more/green 0.png" and rows[-1]["none_of_these"] == "true"

    # the same folder again: what was labelled stays so; another folder with one more class, and a name that was taken
    picture(Path("new/green 7.png"), (40, 200, 40), 70)
    picture(Path("new/blue 1.png"), (40, 200, 40), 71)
    picture(Path("labelled/green/0.png"), (40, 200, 40), 72)
    rows, record = classified("--continue", "second", "--query", "query", output="third")
    assert record["n_query"] == 11 and record["n_support"] == 4 and record["none_of_these"] == ["more/green 0.png"]
    assert "<img" in Path("third/report.html").read_text()
    rows, record = classified("--continue", "second", "--query", "new", "--support", "labelled", output="fourth")
    predicted = {row["path"]: row["predicted"] for row in rows}
    assert record["classes"] == ["blue", "green", "red"] and record["n_query"] == 13 and record["n_support"] == 5
    assert predicted["green 7.png"] == predicted["blue 1.png"] == predicted["more/green 1.png"] == "green"
    assert predicted["earlier/blue 1.png"] == "blue" and record["since_previous"]["n_new"] == 2

    assert record["settings"]["to classify"] == "13 pictures in the earlier run and new"
    assert record["settings"]["labelled"] == "5 pictures of 3 classes in the earlier run and labelled"
    assert record["none_of_these"] == ["more/green 0.png"]

    assert "leave ckpt_path out" in refused(capsys, "--continue", "out", "--query", "query", "--ckpt_path", "model")
    assert "nothing is new" in refused(capsys, "--continue", "out")
    message = refused(capsys, "--continue", "out", "--labels", "labels.csv", "--sorted", "by_class")
    assert "sorted: only pictures of --query are sorted" in message and not Path("by_class").exists()
    message = refused(capsys, "--continue", "out", "--labels", "labels.csv", "--id_column", "id")
    assert "id_column: it is about rows of features, and the earlier run was of pictures" in message
    assert "holds no classifier and rows.json" in refused(capsys, "--continue", "third", "--query", "query")
    np.save("rows.npy", np.zeros((3, 4)))
    assert "the earlier run was of pictures" in refused(capsys, "--continue", "out", "--features", "rows.npy")
    Path("out/rows.json").write_text('{"rows": ["a"], "none_of_these": []}')
    assert "do not go together" in refused(capsys, "--continue", "out", "--query", "query")


@pytest.fixture
def own(pictures, tmp_path, monkeypatch):  # noqa: F811
    """As `work`, with pictures that a test may move."""
    for name in ("support", "query"):
        shutil.copytree(pictures / name, tmp_path / name)
    Path(tmp_path, "model").symlink_to(pictures / "model")
    monkeypatch.chdir(tmp_path)


def test_a_picture_that_was_moved_counts_once_as_of_its_new_folder(own):
    both = ("--support", "support", "--query", "query", "--ckpt_path", "model")
    _, before = classified(*both, "--keep_classifier")
    Path("query/blue 3.png").rename("support/blue/moved.png")
    Path("support/red/0.png").rename("support/blue/not_red.png")
    picture(Path("support/red/9.png"), (200, 40, 40), 90)
    rows, record = classified("--continue", "out", "--support", "support", "--query", "query", output="second")
    assert (record["n_support"], record["n_query"]) == (before["n_support"] + 2, before["n_query"] - 1)
    assert "blue 3.png" not in {row["path"] for row in rows} and record["n_labels_corrected"] == 1


@pytest.mark.parametrize(("label", "none", "said"), [("red", "false", "'red'"), ("", "true", "none of these")])
def test_a_label_that_a_table_gave_is_not_undone_by_the_folder(own, capsys, label, none, said):
    picture(Path("support/blue/9.png"), (40, 40, 200), 90)
    classified("--support", "support", "--query", "query", "--ckpt_path", "model", "--keep_classifier")
    Path("labels.csv").write_text(f"path,label,none_of_these\nsupport/blue/0.png,{label},{none}\n")
    classified("--continue", "out", "--labels", "labels.csv", "--keep_classifier", output="told")
    message = refused(capsys, "--continue", "told", "--support", "support", "--query", "query")
    assert f"support/blue/0.png was said to be {said} in the earlier run, and lies in the folder of 'blue'" in message
    # the table can give it its class back, also where it was none of these
    Path("labels.csv").write_text("path,label\nsupport/blue/0.png,blue\n")
    _, record = classified("--continue", "told", "--labels", "labels.csv", output="back")
    assert record["none_of_these"] == [] and record["n_labels_corrected"] == 1 and record["n_support"] == 3


def test_other_rows_with_a_large_offset_in_common_are_other_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    options = ("--label_column", "labels", "--method", "SimpleShot")
    for name in ("one", "other"):
        labels = np.repeat([0, 1], 10)
        rows = rng.normal(size=(20, 32)) * 0.3 + labels[:, None] - 400
        np.savez(f"{name}.npz", features=rows.astype(np.float32), labels=np.where(np.arange(20) % 10 < 3, labels, -1))
    _, first = classified("--features", "one.npz", *options, "--keep_classifier")
    rows, record = classified("--continue", "out", "--features", "other.npz", "--label_column", "labels", output="more")
    assert (record["n_support"], record["n_query"]) == (2 * first["n_support"], 2 * first["n_query"])
    rows, record = classified("--continue", "out", "--features", "one.npz", "--label_column", "labels", output="same")
    assert (record["n_support"], record["n_query"]) == (first["n_support"], first["n_query"])


def test_a_run_that_there_is_not_is_named_by_the_option_that_was_given(work, capsys):  # noqa: F811
    message = refused(capsys, "--continue", "nowhere", "--query", "query")
    assert message.startswith("error: continue: nowhere holds no predictions.csv")


def test_damaged_names_of_rows_are_named(tmp_path):
    FewShotClassifier(method="SimpleShot").fit(np.eye(4, 6), [0, 1, -1, -1]).save(tmp_path / "classifier", rows=True)
    whole = {"rows": [f"query/{n}" for n in range(4)], "none_of_these": ["n"], "none_features": [[1.0] * 6]}
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(whole))
    assert earlier_run(tmp_path)[1].none_names() == ["n"]
    rows = [[[1.0]], [[10**40] * 6], [[1], [1, 2]], [[float("nan")] * 6], [[1.0] * 6] * 2, [["1"] * 6], {}, None]
    damaged = [{"none_features": value} for value in rows]
    damaged += [{"columns": ["id"]}, {"columns": {"id_column": 3}}, {"none_of_these": 5}, {"none_of_these": [{}]}]
    for text in ("[", "[]", *(json.dumps(whole | told) for told in damaged)):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"rows\.json (is damaged|and .*classifier do not go together)"):
            earlier_run(tmp_path)


@pytest.mark.parametrize("again", [(), ("--query", "query")], ids=["alone", "pictures_again"])
def test_labels_of_before_are_known_and_corrected(work, capsys, again):  # noqa: F811
    Path("labels.csv").write_text(
        "path,label,none_of_these\nblue 3.png,blue,\nmore/green 0.png,,true\nred 2.png,blue,\n"
    )
    both = ("--support", "support", "--query", "query", "--ckpt_path", "model")
    classified(*both, "--labels", "labels.csv", "--keep_classifier")

    # as a page saves it: what was given before, one of it corrected, a new one, and one of the folders by its name
    Path("labels.csv").write_text(
        "path,label,none_of_these\nblue 3.png,blue,false\nmore/green 0.png,,true\nred 2.png,red,false\n"
        "more/green 1.png,green,false\nsupport/blue/0.png,azure,false\n"
    )
    capsys.readouterr()
    _, record = classified("--continue", "out", *again, "--labels", "labels.csv", "--keep_classifier", output="second")
    said = capsys.readouterr().out
    assert "2 labels corrected" in said and record["n_labels_corrected"] == 2 and "1 taken away" in said
    assert record["classes"] == ["azure", "blue", "green", "red"] and (record["n_support"], record["n_query"]) == (
        5,
        10,
    )
    assert {entry["name"]: entry["label"] for entry in record["labels"]} == {
        "blue 3.png": "blue",
        "red 2.png": "red",
        "more/green 1.png": "green",
        "support/blue/0.png": "azure",
    }
    given = FewShotClassifier.load("second/classifier").given_
    assert sorted(filter(None, given.labels)) == ["azure", "blue", "green", "red", "red"]
    message = refused(capsys, "--continue", "out", "--support", "support", "--labels", "labels.csv")
    assert "'support/blue/0.png' is 'azure', and lies in the folder of 'blue'; move the file" in message

    # none of these gets its class later, and a labelled one becomes none of these
    Path("labels.csv").write_text("path,label,none_of_these\nmore/green 0.png,green,\nred 2.png,,true\n")
    flag = ("--none_of_these", "distance")  # which compares with what was labelled before, too
    rows, record = classified("--continue", "second", *again, "--labels", "labels.csv", *flag, output="third")
    assert record["none_of_these"] == ["red 2.png"] == [rows[-1]["path"]] and record["n_labels_corrected"] == 2
    assert (record["n_support"], record["n_query"]) == (5, 10)
    Path("labels.csv").write_text("path,label\nred 7.png,red\n")
    where = "query or the earlier run" if again else "the earlier run"
    assert f"no such picture in {where}" in refused(capsys, "--continue", "out", *again, "--labels", "labels.csv")


def test_rows_come_later(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = 6 * np.eye(3, 5)[np.arange(45) % 3] + np.random.default_rng(0).normal(size=(45, 5))
    ids = [f"n{place}" for place in range(45)]
    np.savez("one.npz", features=rows[:30], id=ids[:30], label=[*"pqpq", *[""] * 26])
    np.savez("two.npz", features=rows[20:], id=ids[20:], label=["r", *[""] * 24])
    named = ("--id_column", "id", "--label_column", "label")
    Path("labels.csv").write_text("id,label\nn10,p\n")
    classified("--features", "one.npz", *named, "--keep_classifier")
    found, record = classified("--continue", "out", "--features", "two.npz", *named, output="second")
    sizes = ("--chunk_size", "30", "--class_embedding_weight", "5")
    classified("--continue", "out", "--features", "two.npz", *named, *sizes, "--keep_classifier", output="sized")
    _, sized = classified("--continue", "sized", "--labels", "labels.csv", "--keep_classifier", output="again")
    kept = FewShotClassifier.load("again/classifier")
    assert (kept.chunk_size, kept.class_embedding_weight) == (30, 5)
    assert sized["settings"]["looked at together"] == "30 rows at most"
    assert record["classes"] == ["p", "q", "r"] and record["n_support"] == 5 and record["n_query"] == 40
    assert {row["id"] for row in found} == set(ids) - {"n0", "n1", "n2", "n3", "n20"}
    assert "the earlier run was of rows" in refused(capsys, "--continue", "out", "--query", ".")
    np.savez("wide.npz", features=np.ones((2, 6)), id=["a", "b"])
    message = refused(capsys, "--continue", "out", "--features", "wide.npz", "--id_column", "id")
    assert "rows have 6 features, and the earlier ones 5" in message

    # labels alone, and columns that the earlier run was told of
    Path("labels.csv").write_text("id,label,none_of_these\nn0,q,\nn9,,true\nn10,r,\n")
    found, record = classified("--continue", "out", "--labels", "labels.csv", "--keep_classifier", output="third")
    assert record["n_labels_corrected"] == 1 and (record["n_support"], record["n_query"]) == (5, 24)
    assert record["none_of_these"] == ["n9"] and record["settings"]["to classify"] == "24 rows in the earlier run"
    found, record = classified("--continue", "third", "--features", "two.npz", output="fourth")
    assert (record["n_support"], record["n_query"]) == (6, 38) and record["none_of_these"] == ["n9"]
    Path("labels.csv").write_text("id,label,none_of_these\nn9,p,\nn40,,true\n")
    options = ("--features", "two.npz", "--labels", "labels.csv")
    _, record = classified("--continue", "third", *options, output="fifth")
    assert (record["n_support"], record["n_query"]) == (7, 37) and record["none_of_these"] == ["n40"]
    Path("labels.csv").write_text("id,label\nm9,p\n")
    assert "names 'm9', and no row is called so" in refused(capsys, "--continue", "third", "--labels", "labels.csv")
