import unicodedata

import matplotlib
import pytest

from fewshot.drawings import lettering
from fewshot.drawings.lettering import drawable, font_file, pillow_font, shortened, write
from fewshot.drawings.plots import new_figure, png

NAMES = ["apple", "猫", "犬小屋", "ねこ", "고양이", "кот", "قطة", "a\nb", "$x_1$"]
NAMES += ["\U0001f9c1", "\U0001f468\u200d\U0001f467"]


@pytest.fixture
def no_other_fonts(monkeypatch):
    """As on a machine with the fonts that matplotlib brings and no more."""
    lettering._installed_font.cache_clear()
    monkeypatch.setattr(lettering, "_installed_font", lambda wanted: None)


def test_what_dejavu_has_is_left_as_it_is(no_other_fonts):
    for name in ("apple", "кот", "naïve café", "Ωmega", "$x_1$", "a  b", ""):
        assert drawable(name) == name
        assert font_file(name).endswith("DejaVuSans.ttf")
    assert font_file("apple", bold=True).endswith("DejaVuSans-Bold.ttf")


def test_what_no_font_has_is_escaped_and_stays_apart(no_other_fonts):
    assert drawable("猫 1") == "\\u732b 1"
    assert drawable("犬 1") == "\\u72ac 1"
    assert drawable("\udcff") == "\\udcff"  # a file name that is not UTF-8
    assert drawable("two\nlines\t") == "two lines "
    assert drawable("a\u200db\ufe0f") in ("a\u200db\ufe0f", "ab\ufe0f", "a\u200db", "ab")


def test_an_installed_font_is_taken_where_it_has_the_letters(monkeypatch):
    stix = f"{matplotlib.get_data_path()}/fonts/ttf/STIXGeneral.ttf"
    only = next(chr(code) for code in sorted(lettering._letters(stix)) if code not in lettering._letters(font_file("")))
    assert unicodedata.category(only) != "Cc"
    lettering._installed_font.cache_clear()
    found = font_file(only)
    assert ord(only) in lettering._letters(found) and found != font_file("")
    assert drawable(only) == only


def test_a_font_of_boxes_is_no_font():
    boxes = f"{matplotlib.get_data_path()}/fonts/ttf/LastResortHE-Regular.ttf"
    assert not lettering._letters(boxes)
    for name in NAMES:
        assert "LastResort" not in font_file(name)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_script_are_drawn_without_a_warning(name):
    figure = new_figure(3, 1)
    axes = figure.add_subplot()
    for artist in (axes.set_title(""), axes.text(0, 0, ""), figure.suptitle("")):
        write(artist, name)
    assert png(figure).size == (450, 150)
    assert pillow_font(name, 14).getlength(drawable(name)) > 0


def test_a_name_too_long_loses_its_middle():
    name = "cyrillic_capital_letter_round_omega"
    short = shortened(name, 14, 120)
    assert pillow_font(short, 14).getlength(short) <= 120
    head, tail = short.split("…")
    assert name.startswith(head) and name.endswith(tail) and abs(len(head) - len(tail)) <= 1
    assert shortened(name, 14, 1000) == name
    assert shortened(name, 14, 0).count("…") == 1
