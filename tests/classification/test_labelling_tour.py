"""A tour of the report in a browser: correct three labels, save the table, run again with it, and see what changed.

Every step is a picture in the test's temporary folder, at two widths, light and dark.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import Browser
from PIL import Image

from fewshot import FewShotModule
from fewshot.backbones import BackboneConfig
from fewshot.commands import main
from fewshot.data.transforms import Preprocessing
from fewshot.files import read_csv
from fewshot.methods import UniversalSIB
from fewshot.training.saved_model import save_trained

COLOURS = {"blue": (40, 40, 200), "red": (200, 40, 40), "green": (40, 200, 40)}
OPTIONS = ("--ckpt_path", "model", "--support", "labelled", "--query", "unsorted")
SUMMARY = "document.querySelector('.summary').innerText"
VIEWS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]


def picture(place: Path, colour: tuple[int, int, int], seed: int) -> None:
    """Noise about a colour."""
    place.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-25, 25, (48, 48, 3))
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(place)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two labelled pictures of each of two colours; eight to classify of each of three, and a black one."""
    monkeypatch.chdir(tmp_path)
    for number, (name, colour) in enumerate(COLOURS.items()):
        for place in range(2 if name != "green" else 0):
            picture(Path("labelled", name, f"{place}.png"), colour, 10 * number + place)
        for place in range(8):
            picture(Path("unsorted", f"{name} {place}.png"), colour, 100 + 10 * number + place)
    picture(Path("unsorted", "black.png"), (0, 0, 0), 1)
    torch.manual_seed(0)
    module = FewShotModule(UniversalSIB(), BackboneConfig("conv4_32", image_size=16))
    save_trained(module.eval(), Preprocessing(16, 16, (0.5,) * 3, (0.25,) * 3), "model")
    return tmp_path


class Tour:
    """A visit to a page, step by step."""

    def __init__(self, browser: Browser, page: Path, folder: Path) -> None:
        self.browser, self.page, self.folder = browser, page, folder
        folder.mkdir()
        browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        browser.open(page.absolute().as_uri())

    def step(self, name: str) -> None:
        """Take a picture of what is there, in every width and scheme; nothing sticks out."""
        for width, scheme in VIEWS:
            height = 900 if width > 600 else 844
            self.browser.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                              mobile=width < 600)  # fmt: skip
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            self.browser.send("Emulation.setEmulatedMedia", features=features)
            assert self.browser.run("document.documentElement.scrollWidth") == width
            assert self.browser.run("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('#larger'))")
            (self.folder / f"{name} {width} {scheme}.png").write_bytes(self.browser.picture())

    def show(self, name: str) -> None:
        """Open the larger view of a picture, as a click on it does."""
        found = f"[...document.querySelectorAll('#grid button')].find(e => e.textContent.includes('{name}'))"
        self.browser.run(f"{found}.click()")
        assert self.browser.run("document.querySelector('#larger-name').textContent") == name

    def save(self) -> str:
        """Click on saving; the text of the file that comes."""
        self.browser.run("document.querySelector('#save').click()")
        file, deadline = self.folder / "labels.csv", time.monotonic() + 30
        while not (file.exists() and file.stat().st_size):
            assert time.monotonic() < deadline, "nothing was saved"
            time.sleep(0.05)
        return file.read_bytes().decode("utf-8")


@pytest.mark.slow
def test_three_corrections_and_what_they_change(
    work: Path, browser: Browser, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["classify", *OPTIONS, "--output", "first"])
    tour = Tour(browser, work / "first" / "report.html", work / "tour 1")
    assert "25 pictures put into 2 classes, by 4 labelled pictures." in browser.run(SUMMARY)
    tour.step("1 opened")
    tour.show("green 0.png")
    tour.step("2 a picture")
    browser.run("document.querySelector('#another').focus()")
    for letter in "green":
        browser.press(letter)
    browser.press("Enter", "Escape")
    tour.show("green 1.png")
    browser.press("3", "Escape")  # the class that was typed
    tour.show("black.png")
    browser.press("0", "Escape")
    tour.step("3 corrected")
    text = tour.save()
    tour.step("4 saved")
    expected = [["black.png", "", "true"], ["green 0.png", "green", "false"], ["green 1.png", "green", "false"]]
    assert read_csv(text) == [["path", "label", "none_of_these"], *expected]
    assert browser.complaints == []

    main(["classify", *OPTIONS, "--labels", "tour 1/labels.csv", "--previous", "first", "--output", "second"])
    record = json.loads(Path("second/run.json").read_text())
    assert record["classes"] == ["blue", "green", "red"] and record["none_of_these"] == ["black.png"]
    assert record["since_previous"] == {"n_changed": 6, "n_new": 0, "n_labelled": 3}
    tour = Tour(browser, work / "second" / "report.html", work / "tour 2")
    said = browser.run(SUMMARY)
    assert "22 pictures put into 3 classes, by 6 labelled pictures." in said
    assert "Since the last run 6 changed class; 3 pictures have labels now." in said
    assert "3 labels come from your table; 1 of them, none of these, was left out." in said
    tour.step("1 opened")
    browser.run("document.querySelector('.summary a').click()")
    assert browser.becomes("document.querySelector('#count').textContent", "Showing 6 of 22 pictures.")
    shown = "[...document.querySelectorAll('#grid li:not([hidden])')].map(e => e.querySelector('.name').textContent)"
    assert sorted(browser.run(shown)) == [f"green {place}.png" for place in range(2, 8)]
    assert browser.becomes("document.querySelector('#pictures').getBoundingClientRect().top < innerHeight / 2", True)
    tour.step("2 what changed")
    tour.show("green 2.png")
    browser.press("2")
    assert [line[0] for line in read_csv(tour.save())[1:]] == ["black.png", "green 0.png", "green 1.png", "green 2.png"]
    assert browser.complaints == []
    assert "since the earlier run 6 changed class" in capsys.readouterr().out
