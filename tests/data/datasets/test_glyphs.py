"""Glyphs: no character shared or mistaken for another, always the same bytes, and worth training on."""

from __future__ import annotations

import io
import time
import unicodedata
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from fewshot.data.datasets import Glyphs, glyphs
from fewshot.data.datasets.base import SPLITS, read_lists
from fewshot.data.transforms import evaluation_transform

SCRIPTS = read_lists("glyphs.json")
CHARACTERS = {split: "".join(SCRIPTS[split].values()) for split in SPLITS}
MOST_ALIKE = 0.93


def ink(character: str, font: str, size: int = 24) -> np.ndarray:
    """A character's ink at equal size, blurred a little, of length 1. [size * size]."""
    sheet = Image.new("L", (144, 144))
    ImageDraw.Draw(sheet).text((72, 72), character, fill=255, font=glyphs._font(font), anchor="mm")
    box = sheet.getbbox()
    assert box is not None
    letter = sheet.crop(box)
    scale = (size - 2) / max(letter.size)
    letter = letter.resize([max(1, round(side * scale)) for side in letter.size], Image.Resampling.BOX)
    square = Image.new("L", (size, size))
    square.paste(letter, ((size - letter.width) // 2, (size - letter.height) // 2))
    values = np.asarray(square.filter(ImageFilter.GaussianBlur(0.7)), dtype=np.float64).ravel()
    return values / np.linalg.norm(values)


def test_splits_share_no_character_and_no_script() -> None:
    assert {split: len(CHARACTERS[split]) for split in SPLITS} == {"train": 477, "val": 66, "test": 135}
    for one, other in combinations(SPLITS, 2):
        assert not set(CHARACTERS[one]) & set(CHARACTERS[other])
        scripts = [
            {unicodedata.name(character).split()[0] for character in CHARACTERS[split]} for split in (one, other)
        ]
        assert not scripts[0] & scripts[1]


def test_no_two_characters_look_alike_in_any_font() -> None:
    everything = "".join(CHARACTERS.values())
    for font in glyphs.FONTS:
        characters = [character for character in everything if font in glyphs.fonts_with(character)]
        shapes = np.stack([ink(character, font) for character in characters])
        alike = shapes @ shapes.T - np.eye(len(shapes))
        first, second = np.unravel_index(alike.argmax(), alike.shape)
        # A little above what they were chosen by, for another version of FreeType.
        assert alike.max() < MOST_ALIKE + 0.02, (font, characters[first], characters[second])


def test_every_character_has_four_fonts_of_its_own_drawing() -> None:
    for character in "".join(CHARACTERS.values()):
        assert len(glyphs.fonts_with(character)) >= 4
    for font in glyphs.FONTS[:12]:  # STIX draws nothing for a character that it lacks
        absent = ink("\U0010ffff", font)
        for character in CHARACTERS["train"][::7]:
            if font in glyphs.fonts_with(character):
                assert ink(character, font) @ absent < 0.999, (character, font)


def test_pictures(tmp_path: Path) -> None:
    start = time.process_time()
    data = Glyphs()
    images = data.images("val")
    assert time.process_time() - start < 10
    assert images.class_names[:1] == ["greek_capital_letter_heta"] and len(set(images.class_names)) == 66
    assert len(images) == 66 * 30 and np.bincount(images.labels).tolist() == [30] * 66
    assert images.names[31] == f"{images.class_names[1]}/001"
    pictures = images.read(np.arange(len(images)))
    assert pictures.shape == (1980, 1, 28, 28) and len(pictures.flatten(1).unique(dim=0)) == 1980
    values = evaluation_transform(pictures, data.preprocessing)
    assert abs(float(values.mean())) < 0.2 and abs(float(values.std()) - 1) < 0.2
    start = time.process_time()
    assert Glyphs().images("val").fingerprint == images.fingerprint
    assert time.process_time() - start < 1, "read from the cache"


def test_the_same_bytes_however_they_are_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    few = Glyphs(pictures_per_class=3).images("val")
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "another"))
    again, more = Glyphs(pictures_per_class=3).images("val"), Glyphs(pictures_per_class=5).images("val")
    assert few.fingerprint == again.fingerprint
    number = np.arange(len(few))
    assert torch.equal(few.read(number), more.read(number // 3 * 5 + number % 3))


def test_distortion_zero_is_a_clean_character() -> None:
    fonts = len(glyphs.fonts_with(CHARACTERS["val"][0]))
    images = Glyphs(0.0, pictures_per_class=fonts + 1).images("val")
    assert images.fingerprint != Glyphs(0.5, pictures_per_class=fonts + 1).images("val").fingerprint
    pictures = images.read(np.arange(fonts + 1))
    assert torch.equal(pictures[0], pictures[fonts]), "the same font gives the same picture"
    assert pictures[:, :, 0].max() == 0 and pictures.amax(dim=(1, 2, 3)).min() > 200


def test_another_size_and_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Glyphs(pictures_per_class=1)
    images = data.images("test", data.preprocessing.with_channels(3).with_image_size(84))
    pictures = images.read(np.arange(3))
    assert pictures.shape == (3, 3, 84, 84) and torch.equal(pictures[:, 0], pictures[:, 2])


def test_what_is_asked_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"distortion=-1.*at least 0"):
        Glyphs(-1)
    with pytest.raises(ValueError, match=r"pictures_per_class=0"):
        Glyphs(pictures_per_class=0)
    with pytest.raises(ValueError, match="no split 'dev'"):
        Glyphs().images("dev")  # type: ignore[arg-type]


@pytest.mark.slow
def test_nearest_mean_of_plain_pixels_is_far_from_solving_it() -> None:
    """One picture of each of five classes: pixels alone do better than chance and leave much to learn."""
    images = Glyphs(pictures_per_class=10).images("test")
    pixels = torch.nn.functional.normalize(images.read(np.arange(len(images))).float().flatten(1), dim=1)
    pixels, generator = pixels.view(135, 10, -1), np.random.default_rng(0)
    correct = 0
    for _ in range(200):
        chosen = pixels[generator.choice(135, 5, replace=False)]  # [5, 10, 784]
        correct += int(((chosen[:, 1:] @ chosen[:, 0].T).argmax(2) == torch.arange(5)[:, None]).sum())
    assert 0.3 < correct / (200 * 5 * 9) < 0.65


def test_a_drawing_is_saved_and_read_as_any_picture(tmp_path: Path) -> None:
    file = io.BytesIO()
    glyphs.draw_character("Δ", "DejaVuSans", 7, 1.0).save(file, "PNG")
    assert np.array_equal(np.asarray(Image.open(file)), np.asarray(glyphs.draw_character("Δ", "DejaVuSans", 7, 1.0)))
