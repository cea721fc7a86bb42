"""Glyphs: characters drawn from the fonts that come with matplotlib, so that there is something to train on at once."""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageFont, ImageOps

from fewshot.data.datasets.base import FewShotDataset, Split, check_split, read_lists
from fewshot.data.images import Images, load_images
from fewshot.data.transforms import Preprocessing

FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
)
DRAWING_VERSION = 1  # raised whenever the drawing changes
SIZE = 28
FONT_SIZE = 72
CANVAS = 192  # holds the widest bold character at that size


class Glyphs(FewShotDataset):
    """Characters as classes: 477 / 66 / 135 of them in pictures of 28 x 28, one channel, ink bright on a dark ground.

    The split, of our own making and in glyphs.json, is by script, so that no character is shared: training has digits,
    Latin, Cyrillic, Canadian syllabics, Lao and Old Italic; validation Greek, Coptic and Hebrew; test Armenian and
    Georgian. Characters are letters and digits without diacritics that at least four of the sixteen fonts have (DejaVu
    by the DejaVu project, STIX by the STI Pub companies, as shipped with matplotlib). Of characters that look alike
    in any font at equal size only one was kept, whatever their scripts (no o beside O, no Greek Alpha beside Latin A;
    similarity of the ink above 0.93), first those of the test scripts, then validation, then training.

    Each picture takes one of the fonts that have the character and is distorted by numbers of its own: rotation,
    shear, scale, place and perspective, thickness, stray lines and noise. It is a pure function of the character, the
    picture's number and the distortion: the same bytes everywhere for the same font files and version of Pillow.

    Args:
        distortion: strength. 0 draws every character clean; at 1, turns go up to 20 degrees and a small convolutional
            net trained for a minute tells 5 test characters apart in about three of four cases from one picture each.
        pictures_per_class: how many pictures of each character; a larger number begins with the same pictures.
    """

    name = "glyphs"

    def __init__(self, distortion: float = 1.0, *, pictures_per_class: int = 30) -> None:
        if distortion < 0 or pictures_per_class < 1:
            raise ValueError(
                f"distortion={distortion}, pictures_per_class={pictures_per_class}; need at least 0 and at least 1"
            )
        self.distortion = float(distortion)
        self.pictures_per_class = pictures_per_class
        self.preprocessing = Preprocessing(
            image_size=SIZE, stored_size=SIZE, mean=(0.25,), std=(0.3,), channels=1, crop_padding=2, invert=True
        )

    def images(self, split: Split, preprocessing: Preprocessing | None = None) -> Images:
        """The pictures of one split; raises FileNotFoundError where matplotlib's fonts are not to be found."""
        check_split(self.name, split)
        characters = "".join(read_lists("glyphs.json")[split].values())
        pictures = _Drawings(characters, self.pictures_per_class, self.distortion)
        labels = np.repeat(np.arange(len(characters)), self.pictures_per_class)
        class_names = [_class_name(character) for character in characters]
        return load_images(pictures, labels, class_names, preprocessing or self.preprocessing, key=f"glyphs-{split}")


class _Drawings:
    """The pictures of some characters, drawn when opened."""

    def __init__(self, characters: str, pictures_per_class: int, distortion: float) -> None:
        self.characters, self.pictures_per_class, self.distortion = characters, pictures_per_class, distortion
        self.fonts = [fonts_with(character) for character in characters]
        for character, fonts in zip(characters, self.fonts, strict=True):
            if not fonts:
                raise ValueError(
                    f"glyphs: no font in {font_folder()} has {_class_name(character)!r}; reinstall matplotlib"
                )
        self.names = [
            f"{_class_name(character)}/{number:03d}" for character in characters for number in range(pictures_per_class)
        ]

    def open(self, number: int) -> Image.Image:
        """Picture `number`, grey, 28 x 28, dark ink on white as people's own drawings are; it is read reversed."""
        place, number = divmod(number, self.pictures_per_class)
        fonts = self.fonts[place]
        return ImageOps.invert(
            draw_character(self.characters[place], fonts[number % len(fonts)], number, self.distortion)
        )

    def stamp(self) -> Iterator[str]:
        """Font files, the version of what draws, and what is drawn."""
        yield f"{DRAWING_VERSION} {PIL.__version__} {self.distortion!r} {self.pictures_per_class} {self.characters}"
        yield from (_font_digest(font) for font in FONTS)


def draw_character(character: str, font: str, number: int, distortion: float) -> Image.Image:
    """Picture `number` of a character: grey, 28 x 28, ink 255 on 0. `font` is one of FONTS that has it."""
    generator = np.random.default_rng([ord(character), number])
    thickness = int(generator.integers(0, 5)) if distortion else 0
    sheet = Image.new("L", (CANVAS, CANVAS))
    middle = CANVAS // 2
    ImageDraw.Draw(sheet).text(
        (middle, middle), character, fill=255, font=_font(font), anchor="mm", stroke_width=thickness
    )
    # Twice the size in each direction, then averaged, as the transform itself does not smooth.
    quad = _source_corners(sheet.getbbox() or (0, 0, CANVAS, CANVAS), generator, distortion)
    picture = sheet.transform((2 * SIZE, 2 * SIZE), Image.Transform.QUAD, quad, resample=Image.Resampling.BILINEAR)
    if distortion:
        pen = ImageDraw.Draw(picture)
        for _ in range(generator.poisson(distortion)):
            ends = generator.integers(-SIZE // 2, 2 * SIZE + SIZE // 2, 4).tolist()
            pen.line(ends, fill=int(generator.integers(0, 256)), width=int(generator.integers(2, 6)))
    picture = picture.reduce(2)
    if not distortion:
        return picture
    contrast = int(generator.integers(96, 257))
    noise = generator.integers(-32, 33, (SIZE, SIZE)) * min(distortion, 3.0)
    pixels = np.asarray(picture, dtype=np.int64) * contrast // 256 + noise.astype(np.int64) + 16
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _source_corners(box: tuple[int, int, int, int], generator: np.random.Generator, distortion: float) -> list[float]:
    """Where on the sheet the picture's corners lie: upper left, lower left, lower right, upper right, 8 numbers."""
    left, top, right, bottom = box
    turn, shear, wide, high, across, down = (distortion * generator.uniform(-1, 1, 6)).tolist()
    moved = (distortion * generator.uniform(-1, 1, (4, 2))).tolist()
    half = 0.6 * max(right - left, bottom - top)  # a tenth of the picture is left free on each side
    cosine, sine = math.cos(0.35 * turn), math.sin(0.35 * turn)
    result = []
    for (x, y), (dx, dy) in zip(((-1.0, -1.0), (-1.0, 1.0), (1.0, 1.0), (1.0, -1.0)), moved, strict=True):
        x, y = x * math.exp(0.25 * wide) + 0.3 * shear * y, y * math.exp(0.25 * high)
        x, y = x * cosine - y * sine, x * sine + y * cosine
        result += [
            (left + right) / 2 + half * (x + 0.15 * across + 0.15 * dx),
            (top + bottom) / 2 + half * (y + 0.15 * down + 0.15 * dy),
        ]
    return result


@lru_cache(maxsize=1)
def font_folder() -> Path:
    """Where matplotlib keeps its fonts."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    missing = [font for font in FONTS if not (folder / f"{font}.ttf").is_file()]
    if missing:
        raise FileNotFoundError(f"glyphs: {folder} lacks {missing[0]}.ttf; reinstall matplotlib with its fonts")
    return folder


def fonts_with(character: str) -> list[str]:
    """Those of FONTS that have a drawing of their own for the character, by their character maps."""
    return [font for font in FONTS if ord(character) in _character_map(font)]


@lru_cache(maxsize=len(FONTS))
def _character_map(font: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(font_folder() / f"{font}.ttf")).get_charmap())


@lru_cache(maxsize=len(FONTS))
def _font(font: str) -> ImageFont.FreeTypeFont:
    # Without complex layout: single characters need none, and not every Pillow has it.
    return ImageFont.truetype(str(font_folder() / f"{font}.ttf"), FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=len(FONTS))
def _font_digest(font: str) -> str:
    return hashlib.sha256((font_folder() / f"{font}.ttf").read_bytes()).hexdigest()


def _class_name(character: str) -> str:
    """Such as "greek_small_letter_alpha"."""
    return unicodedata.name(character).lower().replace(" ", "_")
