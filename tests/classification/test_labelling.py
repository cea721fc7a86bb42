"""Labels given in the report: by click and by key, taken back, kept, saved as the table that classify reads."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from report_pages import NASTY, example, with_a_wrong_label, with_nasty_names, written

from fewshot.classification.classified import Classified
from fewshot.classification.held_out import HeldOut
from fewshot.classification.label_files import read_labels
from fewshot.classification.report import write_report
from fewshot.classification.suggestion import next_to_label
from fewshot.files import csv_line, read_csv

TABLE = "document.querySelector('#labels-text').value"
COUNT = "document.querySelector('#given-count').textContent"
OPEN = "document.querySelector('#larger').open && document.querySelector('#larger-name').textContent"
HEADER = ["path", "label", "none_of_these"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Classified]:
    """The address of a page, and what it was made of."""
    folder = tmp_path_factory.mktemp("labelling")
    classified = example(folder / "a", n_queries=12)
    written(folder, classified)
    return (folder / "report.html").as_uri(), classified


def choose(browser: Browser, place: int) -> None:
    """Click a choice of the larger view."""
    browser.run(f"document.querySelectorAll('#choices button')[{place}].click()")


def forget(browser: Browser, address: str) -> None:
    """Open the page as for the first time."""
    browser.open(address)
    browser.run("localStorage.clear()")
    browser.open(address)


def test_the_ten_to_label_next_come_first(tmp_path: Path) -> None:
    classified = example(tmp_path / "a", n_queries=60)
    page = written(tmp_path, classified, max_pictures=20)
    given = (classified.query_features, classified.probabilities, 10, classified.support_features)
    chosen = [classified.query_names[i] for i in next_to_label(*given)]
    section = page.source[page.source.index('<section id="label-next"') : page.source.index('<section id="classes"')]
    assert "These 10 pictures would help most" in section
    assert [name in section.replace("<wbr>", "") for name in chosen] == [True] * 10
    assert [page.cards[place].replace("<wbr>", "").count(name) for place, name in
            zip(page.data["next"], chosen, strict=True)] == [1] * 10  # fmt: skip
    assert len(written(tmp_path, classified, max_pictures=3).data["next"]) == 3


def test_what_changed_and_whether_it_helped_is_said_in_words(tmp_path: Path) -> None:
    plain = example(tmp_path / "a")
    names = [plain.class_names[label] for label in plain.predicted]
    former = (*("class <old>" for _ in range(3)), *names[3:20], *[None] * 4)
    page = written(
        tmp_path,
        dataclasses.replace(
            plain,
            former=former,
            former_labelled=2,
            held_out=HeldOut(20, 18, 9, 9),
            given_labels=(("s 1.png", "class 1"), ("=none\udcff.png", None)),
            nones=("=none\udcff.png",),
        ),
    )
    assert "Since the last run 3 changed class; 2 pictures have labels now; 4 pictures are new." in page.summary
    assert "20 labelled pictures held out in turn, 90 % were right before looking at all pictures, 45 %" in page.summary
    assert "The answer before is given." in page.summary
    assert "2 labels come from your table; 1 of them, none of these, was left out." in page.summary
    assert 'name="since"' in page.source and page.source.count("last run: <bdi>class &lt;old&gt;</bdi>") >= 3
    assert [text for text in page.data["since"] if text] == ["class <old>"] * 3
    assert page.data["earlier"] == [["s 1.png", "class 1"], ["=none\\udcff.png", None]]
    assert "refine" not in page.source.lower() and "support picture" not in page.source.lower()
    same = written(tmp_path, dataclasses.replace(plain, former=tuple(names), held_out=HeldOut(0)))
    assert "Since the last run none changed class." in same.summary and 'name="since"' not in same.source
    assert "could not be checked" in same.summary


@pytest.mark.parametrize(
    ("folder", "named"), [(None, "&#39;the runs&#39;"), ("photos/<first>", "&#39;photos/&lt;first&gt;&#39;")]
)
def test_the_page_says_how_the_next_run_is_told_of_this_one(tmp_path: Path, folder: str | None, named: str) -> None:
    report = tmp_path / "the runs" / "report.html"
    write_report(report, example(tmp_path / "a", n_queries=3), folder=folder)
    said = f"<code>--labels labels.csv --previous {named}</code> and another <code>--output</code>"
    assert said in report.read_text(encoding="utf-8")


def test_labels_by_click_and_by_key(browser: Browser, report: tuple[str, Classified]) -> None:
    address, classified = report
    shown = [classified.query_names[i] for i in np.argsort(classified.probabilities.max(1))]
    forget(browser, address)
    assert not browser.run("document.querySelector('#given').checkVisibility()")
    browser.run("document.querySelector('#grid button').click()")
    assert browser.run("document.querySelectorAll('#choices button').length") == 4
    choose(browser, 2)
    assert browser.run(OPEN) == shown[1]  # and on to the next
    browser.press("0", "1", "ArrowRight")
    assert browser.run(OPEN) == shown[4]
    browser.run("document.querySelector('#another').value = ' a new one '")
    browser.run("document.querySelector('#add-another').click()")
    assert browser.run(OPEN) == shown[5] and browser.run("document.querySelectorAll('#choices button').length") == 5
    browser.press("4", "Escape")  # the class that was typed has a key too
    browser.run("document.querySelectorAll('#grid button')[6].focus()")
    browser.press("2")
    focused = "document.activeElement.querySelector('.name')?.textContent"
    assert browser.run(focused) == shown[7]
    browser.press("3", "u")
    expected = {0: "class 2", 1: None, 2: "class 0", 4: "a new one", 5: "a new one", 6: "class 1"}
    told = {shown[place]: label for place, label in expected.items()}
    lines = read_csv(browser.run(TABLE))
    assert lines[0] == HEADER
    assert lines[1:] == [[name, told[name] or "", str(told[name] is None).lower()] for name in classified.query_names
                         if name in told]  # fmt: skip
    assert browser.run(COUNT).startswith("6 labels given (") and browser.run(COUNT).endswith(", not saved yet.")
    marks = browser.run("[...document.querySelectorAll('#grid .mark.given')].map(e => e.textContent)")
    assert len(marks) == 6 and marks[1] == "your label: ✓ none of these"
    browser.run("document.querySelector('input[name=given]').click()")
    assert browser.run("document.querySelector('#count').textContent") == "Showing 6 of 12 pictures."
    assert browser.complaints == []


def test_a_held_key_labels_one_and_an_input_method_is_left_alone(
    browser: Browser, report: tuple[str, Classified]
) -> None:
    forget(browser, report[0])
    browser.run("document.querySelector('#grid button').click()")
    before = browser.run(OPEN)
    browser.run(
        "(() => { const field = document.querySelector('#another'); field.focus(); field.value = 'ねこ'; "
        "field.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true, "
        "cancelable: true})); field.value = ''; field.blur(); })()"
    )
    assert browser.run(OPEN) == before and browser.run(TABLE).count("\n") <= 1
    browser.run("document.querySelector('#larger').focus()")
    key = {"key": "2", "code": "Digit2", "windowsVirtualKeyCode": 50, "text": "2"}
    for held in (False, True, True):
        browser.send("Input.dispatchKeyEvent", type="keyDown", autoRepeat=held, **key)
    browser.send("Input.dispatchKeyEvent", type="keyUp", **key)
    assert browser.run(COUNT).startswith("1 label given")
    browser.press("U")
    assert browser.run("!document.querySelector('#given').checkVisibility()") or "0 labels" in browser.run(COUNT)


def test_labels_are_kept_taken_back_and_warned_of(browser: Browser, report: tuple[str, Classified]) -> None:
    leaving = "!window.dispatchEvent(new Event('beforeunload', {cancelable: true}))"
    forget(browser, report[0])
    assert not browser.run(leaving)
    browser.run("document.querySelector('#next-grid button').click()")
    for place in (1, 3):
        choose(browser, place)
    text = browser.run(TABLE)
    assert browser.run(leaving) and text.count("\n") == 3
    browser.open(report[0])  # as if it were closed and opened again
    assert browser.run(TABLE) == text and browser.run(leaving)
    browser.run("document.querySelector('#given-fold').open = true")
    assert browser.becomes("document.querySelectorAll('#given-list button').length", 2)
    browser.run("document.querySelector('#given-list button').click()")
    assert browser.run(TABLE).count("\n") == 2
    browser.run("document.querySelector('#given .undo').click()")
    assert browser.run(TABLE) == text
    browser.run("document.querySelector('#save').click()")
    assert not browser.run(leaving) and "saved" in browser.run(COUNT)
    browser.open(report[0])
    assert browser.run(TABLE) == text and not browser.run(leaving)
    browser.run('localStorage.setItem(Object.keys(localStorage)[0], \'{"list": [1, ["x", "y"], [null]]}\')')
    browser.open(report[0])
    assert browser.run(TABLE) == ",".join(HEADER) + "\n" and browser.complaints == []
    browser.run("localStorage.setItem(Object.keys(localStorage)[0], '{')")
    browser.open(report[0])
    assert browser.complaints == []


def test_without_storage_labels_live_as_long_as_the_page(browser: Browser, report: tuple[str, Classified]) -> None:
    forbidden = (
        "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError') }})"
    )
    script = browser.send("Page.addScriptToEvaluateOnNewDocument", source=forbidden)["identifier"]
    try:
        browser.open(report[0])
        browser.run("document.querySelector('#grid button').click()")
        choose(browser, 0)
        assert browser.run(COUNT).startswith("1 label given") and browser.complaints == []
    finally:
        browser.send("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


def test_the_table_has_the_names_that_classify_reads(browser: Browser, tmp_path: Path) -> None:
    nasty = with_nasty_names(example(tmp_path / "a", n_classes=12, n_queries=14))
    formulas = ("=1+1.png", "'=1.png", "-5", "+a;b\r\n.png")
    texts = NASTY if sys.version_info >= (3, 11) else tuple(name.replace("\0", "") for name in NASTY)  # csv read none
    names = texts + formulas[:3]
    classes = (*texts, formulas[3])
    earlier = (("@old, one.png", formulas[3]), ("-1", None))
    nasty = dataclasses.replace(nasty, query_names=names, class_names=classes, given_labels=earlier)
    written(tmp_path, nasty)
    forget(browser, (tmp_path / "report.html").as_uri())
    table = "(() => { let text; URL.createObjectURL = (blob) => { text = blob.text(); return '#' };" \
            "document.querySelector('#save').click(); return text })()"  # fmt: skip
    browser.run("document.querySelector('#grid button').click()")
    assert browser.run("document.querySelectorAll('#choices button').length") == 10  # many classes: nine, and none
    each = "document.querySelectorAll('#choices button')[place % 9].click()"
    browser.run(f"(() => {{ for (let place = 0; place < {len(names)}; place++) {each} }})()")
    text = browser.run(table)
    written_as = [name.encode("utf-8", "backslashreplace").decode() for name in (*classes,)]
    lines = read_csv(text)
    assert [line[0] for line in lines[1:]] == [
        name.encode("utf-8", "backslashreplace").decode() for name in ("@old, one.png", "-1", *names)
    ]
    assert all(line[1] in (*written_as, "") for line in lines[1:])
    assert text == "".join(csv_line(line, "\r\n") for line in lines)  # to the last character as Python writes it
    (tmp_path / "labels.csv").write_bytes(text.replace("\x00", "").encode())
    given = read_labels(tmp_path / "labels.csv", ["path"])
    assert len(given.classes) == 16 and given.classes["@old, one.png"] == formulas[3]  # type: ignore[union-attr]
    assert browser.complaints == []


def test_a_label_that_the_others_contradict_is_corrected_where_it_is_shown(browser: Browser, tmp_path: Path) -> None:
    plain = with_a_wrong_label(tmp_path)
    query = plain.query[0].parent / "sub"  # type: ignore[union-attr]
    support = (*plain.support[:2], query / "mine.png", *plain.support[3:])
    earlier = (("mine.png", "class 3"), ("other.png", None))
    plain = dataclasses.replace(plain, support=support, query=tuple(query / f"q{i}.png" for i in range(80)),
                                query_names=tuple(f"q{i}.png" for i in range(80)), given_labels=earlier)  # fmt: skip
    page = written(tmp_path, plain)
    assert page.data["contradicted"] == [[3, 0, page.data["contradicted"][0][2], None]]
    address = (tmp_path / "report.html").as_uri()
    forget(browser, address)
    doubt, marks = "document.querySelector('#contradicted button')", "document.querySelector('#contradicted .mark')"
    browser.run(f"{doubt}.focus()")
    browser.press("Enter")
    assert browser.run(OPEN) == "mine.png" and browser.run("location.hash") == ""
    facts = browser.run("document.querySelector('#larger-facts').textContent")
    assert facts.startswith("Labelled picture of the class \u2068class 3\u2069; it looks like \u2068class 0\u2069 (")
    pressed = "[...document.querySelectorAll('#choices [aria-pressed=true] bdi')].map(e => e.textContent)"
    assert browser.run(pressed) == ["\u2068class 3\u2069"]
    browser.press("1")
    assert browser.run(pressed) == ["\u2068class 0\u2069"]
    assert read_csv(browser.run(TABLE)) == [HEADER, ["mine.png", "class 0", "false"], ["other.png", "", "true"]]
    assert browser.run(COUNT) == "0 labels given, 2 of the table before (1 corrected), not saved yet."
    browser.press("Escape")
    assert browser.becomes(f"document.activeElement === {doubt}", True)
    assert browser.run(f"{marks}.textContent") == "your label: ✓ \u2068class 0\u2069"
    browser.open(address)
    assert "class 0" in browser.run(f"{marks}.textContent")  # kept
    browser.run("document.querySelector('#given-fold').open = true")
    assert browser.becomes("document.querySelectorAll('#given-list button').length", 2)
    browser.run("document.querySelector('#given-list button').click()")
    assert browser.run(f"{marks}.textContent") == "label taken back"
    browser.run("document.querySelector('#given .undo').click(); document.querySelector('#given .undo').click()")
    assert browser.complaints == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s2.png", "query/n7", "support/class 3/n7"])
def test_a_contradicted_label_that_no_table_gave_says_how_it_is_corrected(
    browser: Browser, tmp_path: Path, name: str
) -> None:
    plain = with_a_wrong_label(tmp_path)
    of_folder = name == "s2.png"  # else of an earlier run, whose pictures a table can name
    support = plain.support if of_folder else (*plain.support[:2], name, *plain.support[3:])
    written(tmp_path, dataclasses.replace(plain, support=support))
    forget(browser, (tmp_path / "report.html").as_uri())
    browser.run("document.querySelector('#contradicted button').click()")
    browser.press("1")
    facts = browser.run("document.querySelector('#larger-facts').textContent")
    told = "move the picture to the folder of its class" in facts
    hidden = not browser.run("document.querySelector('#labelling').checkVisibility()")
    expected = [] if of_folder else [[name.removeprefix("query/"), "class 0", "false"]]
    assert (told, hidden, read_csv(browser.run(TABLE))[1:]) == (of_folder, of_folder, expected)
    assert browser.complaints == []
