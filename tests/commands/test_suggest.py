"""python -m fewshot suggest: what to label first and next, as a list and a page on which labels are given."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import NAMES, Browser, installed_browser
from PIL import Image

from fewshot.commands import main
from fewshot.files import read_csv

CENTRES = 8 * np.eye(4, 6)


def suggested(*options):
    main(["suggest", "--output", "out", *options])
    header, *rows = read_csv(Path("out/suggestions.csv").read_text(encoding="utf-8"))
    return [dict(zip(header, row, strict=True)) for row in rows], Path("out/suggestions.html").read_text()


def refused(capsys, *options):
    with pytest.raises(SystemExit) as stop:
        main(["suggest", "--output", "out", *options])
    message = capsys.readouterr().err
    assert stop.value.code == 2 and message.startswith("error: ") and message.count("\n") == 1, message
    assert not Path("out").exists()
    return message


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Forty rows about four centres."""
    monkeypatch.chdir(tmp_path)
    features = CENTRES[np.arange(40) % 4] + np.random.default_rng(0).normal(size=(40, 6))
    np.savez("rows.npz", features=features, id=[f"n{place}" for place in range(40)])
    return ("--features", "rows.npz", "--id_column", "id")


def test_one_of_every_group_first_and_then_the_uncertain_ones(rows, capsys):
    first, page = suggested(*rows, "--number", "4")
    assert sorted(int(row["id"][1:]) % 4 for row in first) == [0, 1, 2, 3]
    assert [row["rank"] for row in first] == ["1", "2", "3", "4"] and first[0]["why"].startswith("typical of ")
    said = capsys.readouterr().out
    assert "4 of 40 rows to label, the most useful first; none labelled so far" in said
    assert "next: label them in out/suggestions.html and save labels.csv; then the options of this run with" in said
    assert page.count("<li><button") == 4 and "<img " not in page
    assert "an <code>--output</code> other than <code>out</code>" in page and "--previous" not in page
    table = Path("out/suggestions.csv").read_text().splitlines()
    Path("labels.csv").write_text(
        "\n".join([table[0], *(f"{line[:-1]}{'pqr'[i]}," for i, line in enumerate(table[1:4]))])
    )
    then, page = suggested(*rows, "--labels", "labels.csv", "--number", "3", "--overwrite")
    assert {row["id"] for row in then}.isdisjoint(row["id"] for row in first[:3])
    assert int(then[0]["id"][1:]) % 4 == int(first[3]["id"][1:]) % 4  # of the group that nothing is labelled of
    assert re.fullmatch(r"[pqr] \d+ % or [pqr] \d+ %", then[0]["why"])
    data = json.loads(html.unescape(re.search(r'id="data">(.*?)</script>', page)[1]))
    assert len(data["earlier"]) == 3 and data["labels"] == ["p", "q", "r"] and len(data["predicted"]) == 3
    Path("labels.csv").write_text("id,label\nn0,p\nn4,p\n")
    one_class, _ = suggested(*rows, "--labels", "labels.csv", "--number", "3", "--overwrite")
    assert sorted(int(row["id"][1:]) % 4 for row in one_class) == [1, 2, 3]


def test_the_order_of_the_rows_makes_no_difference(rows):
    labels = "id,label\n" + "".join(f"n{place},{'pq'[place % 4]}\n" for place in (0, 1, 4, 5))
    Path("labels.csv").write_text(labels)
    with np.load("rows.npz") as file:
        features, names = np.tile(file["features"][:20], (2, 1)), file["id"]  # two of each: ties
    np.savez("rows.npz", features=features, id=names)
    found = [suggested(*rows, "--number", "6")[0]]
    found.append(suggested(*rows, "--labels", "labels.csv", "--number", "6", "--overwrite")[0])
    order = np.random.default_rng(1).permutation(40)
    np.savez("rows.npz", features=features[order], id=names[order])
    assert suggested(*rows, "--number", "6", "--overwrite")[0] == found[0]
    assert suggested(*rows, "--labels", "labels.csv", "--number", "6", "--overwrite")[0] == found[1]


def test_bad_options_are_named(rows, capsys):
    assert "number=0; give 1 or more" in refused(capsys, *rows, "--number", "0")
    assert "1000 are suggested at most" in refused(capsys, *rows, "--number", "1001")
    assert "nothing to classify; give --query" in refused(capsys)
    assert "nothing encodes the pictures" in refused(capsys, "--query", ".")
    assert "has no option 'sorted'" in refused(capsys, *rows, "--sorted", "x")
    assert "it is about pictures" in refused(capsys, *rows, "--support", "x")
    Path("labels.csv").write_text("id,label\nn99,p\n")
    assert "names 'n99', and no row is called so" in refused(capsys, *rows, "--labels", "labels.csv")


@pytest.mark.slow
def test_labels_are_given_on_the_page_and_saved(tmp_path, monkeypatch):
    """Of pictures with names that a careless page would run; the table is what classify takes."""
    import torch

    from fewshot.backbones import BackboneConfig

    executable = installed_browser()
    if executable is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is on the PATH and starts")
    monkeypatch.chdir(tmp_path)
    for place in range(6):
        Path("query", "=<b>x").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 24), (40 * place, 90, 200 - 30 * place)).save(Path("query", "=<b>x", f"{place}.png"))
    torch.manual_seed(0)
    torch.save(BackboneConfig("test_efficientnet", image_size=32).create().state_dict(), "published.pth")
    model = ("--backbone", "test_efficientnet", "--weights", "published.pth", "--image_size", "32")
    rows, page = suggested("--query", "query", *model, "--number", "4")
    assert "<b>x" not in page.replace('"earlier"', "")
    with Browser(executable, tmp_path / "browser") as browser:
        for width in (1280, 390):
            browser.open((tmp_path / "out" / "suggestions.html").as_uri(), width=width)
            assert browser.complaints == [] and browser.run("document.images.length") == 4
            assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        browser.run("document.querySelector('#grid button').click()")
        for label in ("warm", "cold"):
            browser.run(f"document.querySelector('#another').value = '{label}'")
            browser.run("document.querySelector('#add-another').click()")
        browser.run("[...document.querySelectorAll('#choices button')].at(-1).click()")
        browser.run("[...document.querySelectorAll('#choices button')][0].click()")
        browser.press("Escape")
        text = browser.run("document.querySelector('#labels-text').value")
        assert browser.run("document.querySelectorAll('.mark.given').length") == 4
        assert browser.complaints == []
    names = [row["path"] for row in rows]
    assert read_csv(text) == [
        ["path", "label", "none_of_these"],
        [names[0], "warm", "false"],
        [names[1], "cold", "false"],
        [names[2], "", "true"],
        [names[3], "warm", "false"],
    ]
    Path("labels.csv").write_text(text, newline="")
    main(["classify", "--query", "query", *model, "--labels", "labels.csv", "--output", "classified"])
    assert json.loads(Path("classified/run.json").read_text())["n_query"] == 2
