"""Names in any script, drawn without boxes and without warnings: which installed font has their letters."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import ImageFont


def font_file(text: str, *, bold: bool = False) -> str:
    """The font to draw a text with: DejaVu Sans, which matplotlib brings, else the first installed one that has it all.

    Where none has, DejaVu Sans again, for what `drawable` makes of the text.
    """
    own = _own_font(bold)
    wanted = frozenset(ord(letter) for letter in text if _needs_a_glyph(letter))
    if wanted <= _letters(own):
        return own
    return _installed_font(wanted) or own


def drawable(text: str, *, bold: bool = False) -> str:
    r"""The text with what its font cannot draw in Python's escapes (\u732b), so that two names stay two names."""
    letters = _letters(font_file(text, bold=bold))

    def drawn(letter: str) -> str:
        if unicodedata.category(letter) == "Cc":
            return " "
        if ord(letter) in letters:
            return letter
        return letter.encode("ascii", "backslashreplace").decode() if _needs_a_glyph(letter) else ""

    return "".join(map(drawn, text))


def pillow_font(text: str, size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font for `drawable(text)` at a size in pixels."""
    return _loaded(font_file(text, bold=bold), size)


def shortened(text: str, size: int, width: float) -> str:
    """`drawable(text)`, its middle left out where it is wider than `width` pixels: names often differ at their end.

    Args:
        text: any.
        size: of the letters in pixels.
        width: in pixels.
    """
    font, text = pillow_font(text, size), drawable(text)
    kept = len(text)
    short = text
    while font.getlength(short) > width and kept > 2:
        kept -= 1
        short = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
    return short


def write(artist: Any, text: str) -> None:
    """Give a text of matplotlib these words, none of them read as a formula, in a font that has them."""
    properties = artist.get_fontproperties().copy()
    properties.set_file(font_file(text))
    artist.set_fontproperties(properties)
    artist.set_parse_math(False)
    artist.set_text(drawable(text))


def _needs_a_glyph(letter: str) -> bool:
    """Whether leaving it out would be seen: not so of control characters, joiners and variation selectors."""
    return unicodedata.category(letter) not in ("Cc", "Cf") and not 0xFE00 <= ord(letter) <= 0xFE0F


@lru_cache
def _own_font(bold: bool) -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVuSans{'-Bold' if bold else ''}.ttf")


@lru_cache(maxsize=256)
def _letters(file: str) -> frozenset[int]:
    """Code points that a font has; none where it cannot be read, or is no font of outlines, as of coloured emoji.

    None either of Last Resort, which comes with matplotlib and has a box for everything.
    """
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(file)
        is_drawn = font.scalable and not font.family_name.startswith("Last Resort")
        return frozenset(font.get_charmap()) if is_drawn else frozenset()
    except (OSError, RuntimeError):
        return frozenset()


@lru_cache(maxsize=1024)
def _installed_font(wanted: frozenset[int]) -> str | None:
    """The first font of this machine, by file name, that has all these code points."""
    from matplotlib.font_manager import fontManager

    return next(
        (file for file in sorted({font.fname for font in fontManager.ttflist}) if wanted <= _letters(file)), None
    )


@lru_cache
def _loaded(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)
