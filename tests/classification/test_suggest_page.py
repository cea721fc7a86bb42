"""The page of suggest in a browser: where the keys go while there is no class, and what stands for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import Browser

from fewshot.classification.report.suggest_page import write_suggest_page
from fewshot.classification.suggested import Suggested
from fewshot.files import read_csv

FIELD = "document.activeElement.id"
OPEN = "document.querySelector('#larger-name').textContent"
NAMED = "document.querySelector('#another-name').textContent"
SAID = "document.querySelector('#larger .given-last').textContent"
TABLE = "document.querySelector('#labels-text').value"


def opened(browser: Browser, folder: Path, *, classes: tuple[str, ...] = ()) -> None:
    """The first of four rows, a to d, opened by a key."""
    names = tuple("abcd")
    found = Suggested(classes, names, names, ("typical of 2 of 8",) * 4, names, None, (), 8)
    write_suggest_page(folder / "suggestions.html", found)
    browser.open((folder / "suggestions.html").as_uri())
    browser.run("localStorage.clear()")
    browser.open((folder / "suggestions.html").as_uri())
    browser.run("document.querySelector('#grid button').focus()")
    browser.press("Enter")


def typed(browser: Browser, text: str) -> None:
    """Type it into the field, and press Enter."""
    browser.run("document.querySelector('#another').focus()")
    browser.press(*text, "Enter")


def labels(browser: Browser) -> list[str]:
    """Those of the table, in its order; none where it is none of these."""
    return ["none" if none == "true" else label for _, label, none in read_csv(browser.run(TABLE))[1:]]


def test_the_first_class_is_typed_and_digits_label_from_then_on(browser: Browser, tmp_path: Path) -> None:
    opened(browser, tmp_path)
    assert browser.run(FIELD) == "another" and browser.run(NAMED) == "Class"
    browser.press("ArrowRight", "ArrowRight", "ArrowLeft")
    assert browser.run(OPEN) == "b" and browser.run(FIELD) == "another"
    browser.press("ArrowLeft", "o", "x", "ArrowLeft")  # moves within the text
    assert browser.run(OPEN) == "a"
    browser.press("Enter")
    assert browser.run(OPEN) == "b" and browser.run(FIELD) == "larger" and browser.run(NAMED) == "Another class"
    browser.press("1", "0")
    assert browser.run(OPEN) == "d" and "That was the last" not in browser.run(SAID)
    browser.press("1")
    assert browser.run(OPEN) == "d" and browser.run(SAID).endswith(". That was the last: save labels.csv.")
    assert labels(browser) == ["ox", "ox", "none", "ox"] and browser.complaints == []
    browser.run("document.querySelector('#choices button').click()")
    assert "That was the last" in browser.run(SAID)
    browser.press("Escape")
    assert browser.becomes("document.activeElement.querySelector('.name')?.textContent", "d")
    browser.press("1")
    assert "That was the last" in browser.run("document.querySelector('#given .given-last').textContent")


@pytest.mark.parametrize(
    ("classes", "texts", "expected"),
    [
        (("ox", "yak"), "120", ["ox", "yak", "none"]),
        (("ox", "yak"), "3", ["3"]),  # no choice has that number
        (("2", "yak"), "210", ["2", "1", "0"]),  # where digits are classes, they are meant
        ((), "12", ["1", "2"]),
    ],
)
def test_a_digit_in_the_field_is_the_class_that_it_stands_for(
    browser: Browser, tmp_path: Path, classes: tuple[str, ...], texts: str, expected: list[str]
) -> None:
    opened(browser, tmp_path, classes=classes)
    for text in texts:
        typed(browser, text)
    assert labels(browser) == expected and browser.complaints == []
