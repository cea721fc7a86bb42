"""What is said where an answer is not to be believed, and that nothing is said where it is."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot.classification.classified import Classified, run_record, summary
from fewshot.classification.notes import of_answer, of_pictures, trained_on
from fewshot.classification.report.page import write_report
from fewshot.data.transforms import Preprocessing

GREY = Preprocessing(28, 28, (0.5,), (0.5,), channels=1)
COLOUR = Preprocessing(28, 28, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """By kind: photographs with more green than red, the same in grey and small, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    pixels[..., 0] //= 2
    photo = Image.fromarray(pixels)
    (folder / "broken.png").write_bytes(b"nothing")
    made = {"colour": photo, "grey": photo.convert("L"), "small": photo.resize((12, 12)).convert("L")}
    for name, picture in made.items():
        picture.save(folder / f"{name}.png")
    return {name: [folder / f"{name}.png", folder / "broken.png"] for name in made}


@pytest.mark.parametrize(
    ("kind", "about", "preprocessing", "said"),
    [
        ("colour", {"data": "glyphs", "channels": 1}, GREY, "most pictures are in colour and the model was trained on"),
        ("colour", None, GREY, "trained on unknown data: grey pictures of 28 x 28 pixels"),
        ("grey", {"data": "cifar_fs", "channels": 3}, COLOUR, "hardly any picture is in colour and the model was"),
        ("small", {"data": "omniglot", "channels": 1}, GREY, "most pictures are smaller, of 12 pixels"),
        ("grey", {"data": "omniglot", "channels": 1}, COLOUR, None),
        ("grey", {"data": "omniglot", "channels": 1}, GREY, None),
        ("grey", None, COLOUR, None),
        ("colour", {"data": "cifar_fs", "channels": 3}, COLOUR, None),
    ],
)
def test_pictures_unlike_those_of_training_are_noted(pictures, kind, about, preprocessing, said):
    found = list(of_pictures(pictures[kind], about, preprocessing))
    assert len(found) == (said is not None) and (said is None or said in found[0])
    assert said is None or trained_on(about, preprocessing) in found[0]
    assert not list(of_pictures(pictures[kind][1:], about, preprocessing))


def answer(pictures, n_moved, n_flagged):
    """Ten queries of two classes, of which refinement moved some and some are flagged."""
    before = np.tile([0.9, 0.1], (10, 1))
    after = before.copy()
    after[:n_moved] = [0.2, 0.8]
    return Classified(
        class_names=("one", "two"),
        support=(pictures["colour"][0],) * 2,
        support_labels=np.array([0, 1]),
        query=(pictures["colour"][0],) * 10,
        query_names=tuple(f"{place}.png" for place in range(10)),
        support_features=np.eye(2, dtype=np.float32),
        query_features=np.ones((10, 2), dtype=np.float32),
        before=before,
        probabilities=after,
        novelty=np.array([1.0] * n_flagged + [0.0] * (10 - n_flagged)),
        novelty_threshold=0.5,
    )


def test_refinement_that_moves_half_and_flags_beyond_a_fifth_are_noted(pictures):
    assert list(of_answer(answer(pictures, 4, 2), None)) == []
    moved, flagged = of_answer(answer(pictures, 5, 3), None)
    assert moved.startswith("looking at all pictures together moved 5 of 10 (50 %) to another class")
    assert flagged.startswith("3 of 10 pictures (30 %) are flagged") and "pick them at random" in flagged
    assert list(of_answer(answer(pictures, 0, 10), 0.99)) == []  # as many as were asked for


@pytest.mark.parametrize(
    ("names", "noted"), [(("Cat", "cat"), True), (("Mu\u0308ller", "M\u00fcller"), True), (("a", "b"), False)]
)
def test_classes_that_a_person_reads_as_one_are_noted(names, noted, pictures):
    found = list(of_answer(dataclasses.replace(answer(pictures, 0, 0), class_names=names), None))
    assert [f"the classes {names[0]!r} and {names[1]!r} differ in upper" in note for note in found] == [True] * noted


def test_notes_stand_in_the_terminal_the_record_and_the_report(pictures, tmp_path: Path):
    noted = dataclasses.replace(answer(pictures, 0, 0), notes=("less <b>sure</b>",))
    assert "note: less <b>sure</b>" in summary(noted, False)
    assert json.loads(json.dumps(run_record(noted)))["notes"] == ["less <b>sure</b>"]
    write_report(tmp_path / "report.html", noted, max_pictures=1)
    assert "<strong>Note</strong>: less &lt;b&gt;sure&lt;/b&gt;." in (tmp_path / "report.html").read_text()
