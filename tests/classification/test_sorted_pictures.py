"""Pictures in folders of their classes: nothing overwritten, whatever classes and pictures are called."""

import os

import pytest

from fewshot.classification.sorted_pictures import NONE_FOLDER, check_sorted, folder_name, write_sorted


@pytest.mark.parametrize("link", [False, True])
def test_every_picture_goes_into_its_folder_and_none_is_lost(tmp_path, link):
    pictures = []
    for number, (name, label) in enumerate(
        [("a/x.jpg", "cat"), ("b/x.jpg", "cat"), ("c/X.JPG", "cat"), ("x-2.jpg", "cat"), ("y.jpg", "../dog"),
         ("z.jpg", "Cat"), ("w.jpg", None)]
    ):  # fmt: skip
        path = tmp_path / "query" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
        pictures.append((path, label))
    target = tmp_path / "sorted"
    target.mkdir()
    assert write_sorted(target, pictures, link=link) == 4
    found = {path.relative_to(target).as_posix(): path.read_text() for path in target.rglob("*") if path.is_file()}
    assert found == {
        "cat/x.jpg": "0",
        "cat/x-2.jpg": "1",
        "cat/X-3.JPG": "2",
        "cat/x-2-2.jpg": "3",
        "%2E.%2Fdog/y.jpg": "4",
        "Cat-2/z.jpg": "5",
        f"{NONE_FOLDER}/w.jpg": "6",
    }
    assert os.path.samefile(target / "cat/x.jpg", pictures[0][0]) is link
    pictures[0][0].unlink()
    with pytest.raises(ValueError, match="is gone"):
        write_sorted(target, pictures[:1], link=link)


def test_names_as_long_as_a_folder_takes_stay_apart(tmp_path):
    longest = "é" * 125 + ".jpg"  # 254 bytes
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / longest).write_text(place)
    pictures = [(tmp_path / place / longest, "cat") for place in ("a", "b")]
    (tmp_path / "out").mkdir()
    write_sorted(tmp_path / "out", pictures, link=False)
    assert sorted(path.read_text() for path in (tmp_path / "out" / "cat").iterdir()) == ["a", "b"]


def test_names_of_classes_as_folders(tmp_path):
    names = {
        "a/b": "a%2Fb",
        "..": "%2E%2E",
        ".": "%2E",
        "con": "%63on",
        "NUL.txt": "%4EUL.txt",
        "50%": "50%",
        "%2F": "%252F",
    }
    names |= {"x\0\n": "x%00%0A", "é ü": "é ü", "end.": "end%2E", "C:\\x": "C%3A%5Cx"}
    assert {name: folder_name(name) for name in names} == names and len(set(names.values())) == len(names)
    for name, message in (("", "is empty"), ("é" * 200, "is too long")):
        with pytest.raises(ValueError, match=message):
            folder_name(name)
    with pytest.raises(ValueError, match="a class is called none_of_these"):
        write_sorted(tmp_path, [(tmp_path / "x.jpg", "None_of_these")], link=False)


def test_a_folder_that_lies_in_another_is_refused(tmp_path):
    for target, name in ((tmp_path / "query" / "sorted", "query"), (tmp_path, "output"), (tmp_path / "out", "output")):
        with pytest.raises(ValueError, match=f"and {name} .* lie in each other"):
            check_sorted(target, [("query", tmp_path / "query"), ("output", tmp_path / "out")])
    check_sorted(tmp_path, [("query", tmp_path / "query")])
