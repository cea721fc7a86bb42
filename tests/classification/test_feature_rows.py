"""Files of features: four formats give the same rows, and every kind of bad file is named in one line."""

import csv
import io
import os
import pickle
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from fewshot import FewShotClassifier
from fewshot.classification import feature_files, feature_table
from fewshot.classification.feature_files import read_table
from fewshot.classification.feature_rows import FeatureRows, class_embeddings, feature_rows, feature_task
from fewshot.classification.task import Task, classified_task, together

ROWS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
IDS = ["a", "b", "=c", "d", "e,f", "é"]
LABELS = ["x", "", "y", "", "-1", "x"]
CODE = pickle.dumps(print)


def write_csv(path, columns, rows=ROWS):
    names = [*columns, *(f"f{place}" for place in range(rows.shape[1]))]
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *([*cells, *map(repr, row.tolist())] for *cells, row in
                                             zip(*columns.values(), rows, strict=True))])  # fmt: skip
    return path


def write(path, columns, rows=ROWS):
    if path.suffix == ".csv":
        return write_csv(path, columns, rows)
    if path.suffix == ".npz":
        np.savez(path, features=rows, **{name: np.array(cells) for name, cells in columns.items()})
        return path
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    one_a_column = {f"f{place}": rows[:, place] for place in range(rows.shape[1])}
    matrix = one_a_column if "wide" in path.stem else {"embedding": list(rows.astype(np.float64))}
    pyarrow.parquet.write_table(arrow.table({**columns, **matrix}), path, row_group_size=4)
    return path


@pytest.mark.parametrize("name", ["rows.csv", "rows.npz", "rows.parquet", "wide.parquet"])
def test_every_format_gives_the_same_rows(tmp_path, name):
    file = write(tmp_path / name, {"id": IDS, "label": LABELS, "text": ["t" * 600, *"uvwxy"]})
    found = feature_rows(file, id_column="id", label_column="label", text_column="text")
    assert found.features.dtype == np.float32 and np.array_equal(found.features, ROWS)
    assert found.ids == tuple(IDS) and found.labels == ("x", None, "y", None, None, "x")
    assert len(found.texts[0]) == 500 and found.texts[1:] == tuple("uvwxy")


def test_rows_without_names_are_numbered_and_a_folder_is_read_in_order(tmp_path):
    np.save(tmp_path / "b.npy", ROWS[:2].astype(np.float64))
    np.save(tmp_path / "a.npy", ROWS[2].astype(">f4"))
    (tmp_path / "notes.txt").touch()
    (tmp_path / "c.csv").write_text("\n".join(",".join(map(repr, row.tolist())) for row in ROWS[3:]))
    found = feature_rows(tmp_path)
    assert found.ids == ("a.npy", "b.npy:0", "b.npy:1", "c.csv:0", "c.csv:1", "c.csv:2") and found.texts == found.ids
    assert np.array_equal(found.features, ROWS[[2, 0, 1, 3, 4, 5]])
    assert [path.name for path, _ in found.left_out] == ["notes.txt"]
    assert feature_rows(tmp_path / "b.npy").ids == ("0", "1")


def test_labels_from_a_file_of_their_own(tmp_path):
    file = write_csv(tmp_path / "rows.csv", {"id": IDS})
    (tmp_path / "by_id.csv").write_text("id,label\nd,x\n'=c,y\n")  # as a spreadsheet is protected from formulas
    (tmp_path / "in_order.csv").write_text("kind\n" + "\n".join(["x", '""', "y", '""', "-1", "x"]))
    np.save(tmp_path / "numbers.npy", [3, -1, 4, -1, -1, 3])
    np.savez(tmp_path / "named.npz", labels=np.array([1.0, np.nan, 2, 2, 2, 2]))
    np.save(tmp_path / "few.npy", [1, 2])

    def labels(name, **options):
        return feature_rows(file, labels=tmp_path / name, id_column="id", **options).labels

    assert labels("by_id.csv") == (None, None, "y", "x", None, None)
    assert labels("in_order.csv", label_column="kind") == ("x", None, "y", None, None, "x")
    assert labels("numbers.npy") == ("3", None, "4", None, None, "3")
    assert labels("named.npz") == ("1", None, "2", "2", "2", "2")
    with pytest.raises(ValueError, match=r"few.npy has 2 labels for 6 rows"):
        labels("few.npy")
    (tmp_path / "by_id.csv").write_text("id,label\nnobody,x\n")
    with pytest.raises(ValueError, match=r"names 'nobody', and no row is called so \('a', ...\); is --id_column right"):
        labels("by_id.csv")


@pytest.mark.parametrize(
    ("name", "method"), [("rows.csv", None), ("rows.npz", "TIM"), ("rows.parquet", "NearestClassMean")]
)
def test_the_answer_is_that_of_pictures_with_these_features(tmp_path, name, method):
    """Support by class and then by file, queries by file, as folders give them; to the last digit."""
    generator = np.random.default_rng(1)
    rows = (3 * np.eye(3, 5)[np.arange(30) % 3] + generator.normal(size=(30, 5))).astype(np.float32)
    numbers, features = np.array([0, 0, 1, 1, 2, 2]), torch.from_numpy(rows[[0, 3, 1, 4, 2, 5]])
    files = tuple(Path(f"{place}.png") for place in range(30))
    names = tuple(map(str, files[6:]))
    of_pictures = Task(("p", "q", "r"), files[:6], numbers, features, files[6:], names, torch.from_numpy(rows[6:]))
    labels = [*"pqrpqr", *[""] * 24]
    file = write(tmp_path / name, {"label": labels, "id": list(map(str, files))}, rows)
    of_rows = feature_task(feature_rows(file, id_column="id", label_column="label"))
    one, other = (
        classified_task(FewShotClassifier(method=method, temperature=1), task) for task in (of_pictures, of_rows)
    )
    assert one.query_names == other.query_names and one.class_names == other.class_names
    for what in ("before", "probabilities", "support_features", "query_features", "support_labels"):
        assert np.array_equal(getattr(one, what), getattr(other, what)), what
    assert one.settings == other.settings


def packed(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)


def header(shape, kind="<f4"):
    opened = io.BytesIO()
    np.lib.format.write_array_header_1_0(opened, {"descr": kind, "fortran_order": False, "shape": shape})
    return opened.getvalue()


def bad_files(folder):
    """Files by name, with what is said of them."""
    np.save(folder / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    (folder / "pickle.npy").write_bytes(CODE)
    np.savez(folder / "objects.npz", features=np.array([[{}]], dtype=object))
    (folder / "cut.npy").write_bytes(header((10, 10)))
    (folder / "huge.npy").write_bytes(header((10**9, 10**9)))
    packed(folder / "huge.npz", features=header((10**9, 10**9)))
    packed(folder / "zeros.npz", features=header((1000, 20_000)) + bytes(80_000_000))
    packed(folder / "nested.npz", features=b"\x93NUMPY\x01\x00\x00\x20" + b"(" * 8192)
    packed(folder / "cut.npz", features=header((10, 10)))
    packed(folder / "two.npz", a=header((1, 1)) + bytes(4), b=header((1, 1)) + bytes(4))
    (folder / "no.npz").write_bytes(b"PK no zip")
    (folder / "empty.csv").write_text("")
    (folder / "words.csv").write_text("a,city\n1,Bern\n")
    (folder / "ragged.csv").write_text("a,b\n1,2\n1\n")
    (folder / "twice.csv").write_text("a,a\n1,2\n")
    (folder / "latin.csv").write_bytes("a\né\n".encode("latin-1"))
    (folder / "nan.csv").write_text("a,b\n1,2\n3,nan\n")
    (folder / "large.csv").write_text("a,b\n1,2\n3,1e300\n")
    (folder / "text.npy").write_bytes(b"hello")
    np.save(folder / "deep.npy", np.zeros((2, 2, 2)))
    np.save(folder / "complex.npy", np.zeros((2, 2), complex))
    np.save(folder / "none.npy", np.zeros((0, 3)))
    (folder / "rows.txt").write_text("1")
    np.savez(folder / "inside.npz", features=ROWS)
    (folder / "inside.npz").rename(folder / "inside.npy")
    os.mkfifo(folder / "pipe.csv")
    return {
        "objects.npy": "Python objects", "pickle.npy": "cannot be read", "objects.npz": "Python objects",
        "cut.npy": "cannot be read", "huge.npy": "", "huge.npz": "numbers, and", "cut.npz": "features is cut short",
        "zeros.npz": "unpack to 80,000,000", "nested.npz": "cannot be read",
        "two.npz": "it has no array 'features' [rows, width]; it has a, b", "no.npz": "cannot be read",
        "empty.csv": "no column of features", "words.csv": "column 'city' holds 'Bern' in line 2, which is no number",
        "ragged.csv": "line 3 has 1 cells, and the first has 2", "twice.csv": "two columns are called 'a'",
        "latin.csv": "cannot be read", "nan.csv": "row 1, counted from 0, holds a number", "large.csv": "too large",
        "text.npy": "cannot be read", "deep.npy": "it is float64 [2, 2, 2]", "complex.npy": "it is complex128",
        "none.npy": "0 rows of 3 features", "rows.txt": "does not end in .npy, .npz, .csv, .parquet",
        "pipe.csv": "no regular file", "nowhere.csv": "not there",
        "inside.npy": "it is an .npz inside",
    }  # fmt: skip


def test_bad_files_are_named_in_one_line(tmp_path):
    for name, said in bad_files(tmp_path).items():
        with pytest.raises((ValueError, FileNotFoundError)) as refused:
            feature_rows(tmp_path / name)
        message = str(refused.value)
        assert name in message and said in message and "\n" not in message, message


def test_what_pandas_writes_is_read_as_it_is_meant(tmp_path):
    """Names that are numbers, labels of whole numbers with a point, an index that is no feature."""
    lines = [",".join(map(repr, row.tolist())) for row in ROWS]
    for first in ("0,1,2", "1,2,3"):
        (tmp_path / "named.csv").write_text("\n".join([first, *lines]))
        assert np.array_equal(feature_rows(tmp_path / "named.csv").features, ROWS)
    (tmp_path / "row.csv").write_text("\n".join(["0,1,3", *lines]))
    assert len(feature_rows(tmp_path / "row.csv").features) == 7
    (tmp_path / "labels.csv").write_text("id,label\n0, 2.0\n1,-1.0\n2,2\n3,cat \n4,2.50\n5,\n")
    found = feature_rows(tmp_path / "named.csv", labels=tmp_path / "labels.csv")
    assert found.labels == ("2", None, "2", "cat", "2.50", None)
    beside = write_csv(
        tmp_path / "beside.csv", {"label": ["1.000e+00", "-1.0", "", "1.", "1e5", "-1.000000000000000000e+00"]}
    )
    assert feature_rows(beside, label_column="label").labels == ("1", None, None, "1", "1e5", None)
    for name in ("", "Unnamed: 0"):
        index = write_csv(tmp_path / "index.csv", {name: list("012345")})
        with pytest.raises(ValueError, match="as pandas writes an index, no feature; write the table with index=False"):
            feature_rows(index)
    (tmp_path / "indexed_labels.csv").write_text(",id,label\n0,0,a\n1,1,b\n")
    assert feature_rows(tmp_path / "row.csv", labels=tmp_path / "indexed_labels.csv").labels[:3] == ("a", "b", None)


def test_an_index_in_parquet_is_no_feature(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    table = pandas.DataFrame({f"f{place}": ROWS[:, place] for place in range(3)}, index=[5, 3, 1, 0, 2, 4])
    table.to_parquet(tmp_path / "rows.parquet")
    assert np.array_equal(feature_rows(tmp_path / "rows.parquet").features, ROWS)
    table.rename_axis("name").to_parquet(tmp_path / "rows.parquet")
    assert np.array_equal(feature_rows(tmp_path / "rows.parquet").features, ROWS)
    assert feature_rows(tmp_path / "rows.parquet", id_column="name").ids == tuple("531024")


@pytest.mark.slow
def test_text_of_arrays_takes_no_more_memory_than_they_do(tmp_path):
    packed(tmp_path / "empty.npz", features=header((2, 2)) + bytes(16), label=header((10**7,), "<U0"))
    with pytest.raises(ValueError, match="label has 10000000 entries for the 2 rows of features"):
        feature_rows(tmp_path / "empty.npz", label_column="label")
    packed(tmp_path / "nothing.npz", labels=header((10**7,), "<U0"))
    with pytest.raises(ValueError, match="labels is <U0, whose entries hold nothing"):
        read_table(tmp_path / "nothing.npz", ["labels"], features=None)
    np.savez_compressed(tmp_path / "same.npz", labels=np.full(2**21, 3.0))
    tracemalloc.start()
    cells = read_table(tmp_path / "same.npz", ["labels"], features=None).columns["labels"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(cells) == 2**21 and set(cells) == {"3"} and peak < 4 * 2**24  # 16 MiB of numbers, and as many of places


def test_sizes_are_bounded_and_columns_are_asked_for_by_name(tmp_path, monkeypatch):
    file = write_csv(tmp_path / "rows.csv", {"id": IDS})
    with pytest.raises(ValueError, match=r"it has no column 'name'; it has 'id', 'f0', 'f1', 'f2'"):
        read_table(file, ["name"])
    with pytest.raises(ValueError, match=r"column 'id' holds 'a' in line 2.*not named by --id_column"):
        read_table(file)
    write_csv(file, {"id": ["a"] * 6})
    with pytest.raises(ValueError, match=r"rows 0 and 1, counted from 0, are both called 'a'"):
        feature_rows(file, id_column="id")
    monkeypatch.setattr(feature_table, "MAX_NUMBERS", 10)
    with pytest.raises(ValueError, match="and 10 are read at most"):
        read_table(file, ["id"])
    monkeypatch.setattr(feature_files, "MAX_LINE", 20)
    file.write_text("a" * 30)
    with pytest.raises(ValueError, match="a line has more than 20 characters"):
        read_table(file)


def test_parquet_that_cannot_be_read(tmp_path, monkeypatch):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    def refused(columns, said):
        pyarrow.parquet.write_table(arrow.table(columns), tmp_path / "x.parquet")
        with pytest.raises(ValueError, match=said):
            feature_rows(tmp_path / "x.parquet")

    refused({"a": [[1.0], [1.0, 2.0]]}, "its lists are of different lengths")
    refused({"a": [[1.0]], "b": [[1.0]]}, "several columns of lists: a, b")
    refused({"a": ["x"]}, "column 'a' holds 'string' in all rows, which is no number")
    refused({"a": [1.0, None]}, "row 1, counted from 0, holds a number that is missing")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(ValueError, match=r"x\.parquet cannot be read"):
        feature_rows(tmp_path / "x.parquet")


def test_parquet_needs_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "x.parquet").touch()
    with pytest.raises(
        ValueError, match=r"pyarrow reads \.parquet and is not installed; pip install 'fewshot\[parquet\]'"
    ):
        read_table(tmp_path / "x.parquet")


def test_class_embeddings_of_every_format(tmp_path):
    names = ["cat", "ant", "bee", "d", "e", "f"]
    np.savez(tmp_path / "a.npz", class_embeddings=ROWS, features=ROWS[:2], class_names=names)
    np.savez(tmp_path / "b.npz", class_embeddings=ROWS, features=ROWS[:2])
    np.save(tmp_path / "c.npy", ROWS)
    write_csv(tmp_path / "d.csv", {"class": names})
    for file in sorted(tmp_path.iterdir()):
        found = class_embeddings(file)
        assert found.class_names == (tuple("012345") if file.stem in "bc" else tuple(names))
        assert np.array_equal(found.features.numpy(), ROWS)


def sides(seed=0, n=60, classes=4, width=16, gap=5.0):
    """Rows around directions of classes, and the directions, with a gap between the two."""
    generator = np.random.default_rng(seed)
    centres, apart = generator.normal(size=(classes, width)), gap * generator.normal(size=width) / width**0.5
    truth = np.arange(n) % classes
    rows = centres[truth] + 0.5 * generator.normal(size=(n, width)) + apart
    return (
        rows.astype(np.float32),
        truth,
        (centres + 0.2 * generator.normal(size=centres.shape) - apart).astype(np.float32),
    )


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (np.eye(2, 16), "stand for the labels 0 to 1, and there are others such as 'a'; give a dictionary"),
        (np.array(3.0), "class_embeddings is a ndarray; give {label: row}"),
        ({"a": np.ones(16), -1: np.ones(16)}, "have a row for -1, which says that there is no label"),
        (3, "class_embeddings is a int; give {label: row}"),
    ],
)
def test_class_embeddings_that_name_no_class_are_refused(embeddings, message):
    rows, *_ = sides()
    with pytest.raises(ValueError, match=message):
        FewShotClassifier().fit(rows, ["a", "b", *[None] * 58], embeddings)


@pytest.mark.parametrize("method", [None, "NearestClassMean"])
def test_class_embeddings_alone_and_with_labelled_rows(method, tmp_path):
    rows, truth, embeddings = sides()
    alone = FewShotClassifier(method=method).fit(rows, [None] * len(rows), embeddings)
    assert (alone.transduction_ == truth).mean() > 0.95 and alone.temperature_from_
    assert (alone.predict(rows) == alone.transduction_).mean() > 0.95
    alone.save(tmp_path / "saved")
    loaded = FewShotClassifier.load(tmp_path / "saved")
    assert np.array_equal(loaded.predict_proba(rows), alone.predict_proba(rows))
    labels = [int(label) if place < 9 and label < 3 else -1 for place, label in enumerate(truth)]
    named = {3: torch.from_numpy(embeddings[3]), 1: embeddings[1]}  # class 3 has no labelled row, 0 and 2 no embedding
    both = FewShotClassifier(method=method).fit(rows, labels, named)
    assert both.classes_.tolist() == [0, 1, 2, 3] and (both.transduction_ == truth).mean() > 0.9


def test_a_class_embedding_counts_as_so_many_labelled_rows():
    rows, truth, embeddings = sides()
    labels = [int(label) if place < 8 else -1 for place, label in enumerate(truth)]
    towards = [
        FewShotClassifier(None, "NearestClassMean", temperature=1.0, class_embedding_weight=weight)
        .fit(rows, labels, np.roll(embeddings, 1, 0))
        .transduction_
        for weight in (1, 50)
    ]
    unlabelled = slice(8, None)
    few, many = ((found[unlabelled] == truth[unlabelled]).mean() for found in towards)
    assert few > 0.9 and many < 0.2
    plain = FewShotClassifier(method="NearestClassMean").fit(rows, labels)
    assert plain.temperature_from_ == "fitted on 8 predictions of labelled pictures held out"
    with_embeddings = FewShotClassifier(method="NearestClassMean").fit(rows, [*labels[:4], *[-1] * 56], embeddings)
    assert with_embeddings.temperature_from_ == "fitted on 4 predictions of labelled pictures held out"


def test_bad_class_embeddings_are_named():
    rows, _, embeddings = sides()
    nobody = [None] * len(rows)
    for given, said in (
        (embeddings[:, :3], r"shape \[4, 3\] and the rows 16 features"),
        ({"a": embeddings[0], "b": embeddings[0][:2]}, "give \\[D\\] for each"),
        (embeddings * np.nan, "NaN or infinity"),
        (embeddings[:1], "there is one class alone, 0"),
        ({}, r"shape \[0, 16\]|no row has a label"),
    ):
        with pytest.raises(ValueError, match=said):
            FewShotClassifier().fit(rows, nobody, given)
    with pytest.raises(ValueError, match="class_embedding_weight=0; give a whole number"):
        FewShotClassifier(class_embedding_weight=0).fit(rows, nobody, embeddings)


@pytest.mark.parametrize("at_once", [2, 100])
def test_rows_are_put_in_order_where_they_lie(monkeypatch, at_once):
    monkeypatch.setattr("fewshot.classification.feature_rows.MOVED_AT_ONCE", at_once)
    rows = np.arange(24, dtype=np.float32).reshape(12, 2)
    labels = (None, "b", None, None, "a", None, "b", None, None, "a", None, None)
    names = tuple("abcdefghijkl")
    task = feature_task(FeatureRows(rows.copy(), names, labels, names))
    assert task.support == ("e", "j", "b", "g")
    np.testing.assert_array_equal(task.support_features, rows[[4, 9, 1, 6]])
    np.testing.assert_array_equal(task.query_features, rows[[0, 2, 3, 5, 7, 8, 10, 11]])
    both = together(task.support_features, task.query_features)
    assert both.data_ptr() == task.support_features.data_ptr()
    np.testing.assert_array_equal(both, torch.cat([task.support_features, task.query_features]))
    np.testing.assert_array_equal(together(both[:2], both[5:]), torch.cat([both[:2], both[5:]]))


@pytest.mark.parametrize("separator", [";", "\t"])
def test_cells_are_parted_as_spreadsheets_of_other_countries_write_them(tmp_path, separator):
    lines = ["id,label,f0,f1", '"a;b",cat,1.5,2', "c,,3,4"]
    texts = [lines, [line.replace(",", separator) for line in lines]]
    tables = []
    for number, written in enumerate(texts):
        (tmp_path / f"{number}.csv").write_text("\n".join(written))
        tables.append(read_table(tmp_path / f"{number}.csv", ["id", "label"]))
    np.testing.assert_array_equal(tables[0].features, tables[1].features)
    assert tables[0].columns == tables[1].columns == {"id": ["a;b", "c"], "label": ["cat", None]}
    (tmp_path / "decimal.csv").write_text(f"f0{separator}f1\n1,5{separator}2\n")
    with pytest.raises(ValueError, match="1,5"):
        read_table(tmp_path / "decimal.csv")


def test_a_table_in_another_encoding_says_how_to_save_it(tmp_path):
    (tmp_path / "latin.csv").write_bytes("id,label\n0,café\n".encode("latin-1"))
    with pytest.raises(ValueError, match="save it as CSV in UTF-8"):
        read_table(tmp_path / "latin.csv", ["id", "label"], features=None)
