"""What is read as a picture, and with which intensities: every mode that Pillow has, and what is refused by name."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from fewshot.classification.given_pictures import as_image
from fewshot.data import pictures as subject
from fewshot.data.pictures import open_picture, picture_endings, readable_formats, square_picture
from fewshot.data.transforms import Preprocessing

COLOUR = Preprocessing(8, 8, (0.5,) * 3, (0.5,) * 3)
GREY = COLOUR.with_channels(1)
RAMP = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
EXPECTED = np.round(RAMP * 255).astype(np.uint8)
MODES = {
    **dict.fromkeys(["1", "L", "P", "PA", "LA", "RGB", "RGBX", "RGBA", "CMYK", "YCbCr", "HSV"], "8 bits"),
    **dict.fromkeys(["La", "RGBa"], "premultiplied"),
    **dict.fromkeys(["I", "I;16", "I;16L", "I;16B", "I;16N"], "16 bits"),
    "F": "floating point",
    "LAB": "refused",
}


def in_mode(mode: str) -> Image.Image:
    """A ramp from black to white in that mode."""
    grey = Image.fromarray(EXPECTED)
    kind = MODES[mode]
    if kind == "floating point":
        return Image.fromarray(RAMP)
    if kind == "16 bits":
        values = (EXPECTED.astype(np.uint16) * 257).astype({"I": "i4", "I;16B": ">u2"}.get(mode, "<u2"))
        return Image.frombytes(mode, (8, 8), values.tobytes())
    if kind == "premultiplied":
        return grey.convert({"La": "LA", "RGBa": "RGBA"}[mode]).convert(mode)
    if kind == "refused":
        return Image.new(mode, (8, 8))
    if mode in ("P", "PA"):
        return grey.convert("P").convert(mode)
    return grey.convert("RGB").convert(mode)


def test_no_mode_of_pillow_is_forgotten() -> None:
    known = getattr(Image, "MODES", None) or list(Image._MODES)  # type: ignore[attr-defined]
    assert set(known) <= set(MODES)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer Pillow has fewer 16-bit modes
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_shows_what_it_holds_or_is_refused(mode: str, tmp_path: Path) -> None:
    try:
        picture = in_mode(mode)
    except ValueError as error:
        pytest.skip(f"this Pillow has no mode {mode}: {error}")
    if MODES[mode] == "refused":
        with pytest.raises(ValueError, match=r"picture it \(its colours are CIELAB, mode LAB; convert it to RGB\)"):
            square_picture(picture, COLOUR, name="it")
        return
    grey, colour = square_picture(picture, GREY)[0], square_picture(picture, COLOUR)
    assert colour.shape == (3, 8, 8) and colour.dtype == grey.dtype == np.uint8
    near = 2 if mode in ("CMYK", "YCbCr", "HSV", "PA") else 0
    if mode == "1":  # dithered
        assert set(np.unique(grey)) == {0, 255} and abs(grey.mean() - 127.5) < 10
    else:
        assert np.abs(grey.astype(int) - EXPECTED).max() <= near
        assert np.abs(colour.astype(int) - EXPECTED).max() <= near
    try:
        picture.save(tmp_path / "it.tif")
        with Image.open(tmp_path / "it.tif") as saved:
            saved.load()
    except (OSError, KeyError, ValueError):
        return  # no file holds this mode, or this Pillow does not read what it wrote (YCbCr before 13)
    assert np.array_equal(square_picture(open_picture(tmp_path / "it.tif"), GREY)[0], grey)


def picture_of(values: np.ndarray) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(values).save(path)


def deep_colours(path: Path) -> None:
    """A PPM with 16 bits a channel of which 12 are used."""
    path.write_bytes(b"P6 8 8 65535\n" + (RAMP[..., None].repeat(3, 2) * 4095).astype(">u2").tobytes())


REFUSED: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "floats above 1": ("a.tif", picture_of(RAMP * 255), r"floating-point numbers in 0\.\.255, and 0\.\.1 is read"),
    "negative floats": ("a.tif", picture_of(RAMP - 0.5), r"numbers in -0\.5\.\.0\.5"),
    "no numbers": ("a.tif", picture_of(RAMP * np.nan), r"numbers in nan\.\.nan"),
    "8 bits in 32": ("a.tif", picture_of(EXPECTED.astype(np.int32)), r"32-bit integers in 0\.\.255, and 0\.\.65535"),
    "more than 16 bits": ("a.tif", picture_of(EXPECTED.astype(np.int32) * 1000), r"32-bit integers in 0\.\.255000"),
    "12 bits in 16": ("a.png", picture_of((RAMP * 4095).astype(np.uint16)), r"integers in 0\.\.4095, and 0\.\.65535"),
    "12 bits in 16 of colour": ("a.ppm", deep_colours, r"16-bit colours in 0\.\.4096"),
    "CIELAB": ("a.tif", lambda path: Image.new("LAB", (8, 8)).save(path), "CIELAB"),
    "a pipe": ("a.jpg", os.mkfifo, "no regular file"),
    "a folder": ("a.jpg", os.mkdir, "no regular file"),
    "PostScript": (
        "a.jpg",
        lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n"),
        "damaged or none of PNG, JPEG",
    ),
    "too many pixels": (
        "a.png",
        lambda path: Image.new("1", (30000, 3000)).save(path),
        r"30000 x 3000 pixels, and at most 89,478,485 are read",
    ),
    "too many bytes": ("a.bmp", lambda path: (path.touch(), os.truncate(path, 2**31)), "at most 1,073,741,824"),  # type: ignore[dict-item]
}


@pytest.mark.filterwarnings("ignore:.*decompression bomb.*")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_named(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, make, said = REFUSED[case]
    make(tmp_path / name)
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(ValueError, match=rf"cannot read picture .*{name} \(.*({said}).*; replace or remove it"):
        open_picture(tmp_path / name)


def test_black_is_black_in_every_mode() -> None:
    for kind in (np.float32, np.int32, np.uint16):
        assert not square_picture(Image.fromarray(np.zeros((8, 8), kind)), COLOUR).any()


@pytest.mark.parametrize(("size", "stored"), [((1, 1), 8), ((1, 9), 16), ((5, 90), 84), ((13, 13), 224)])
def test_a_picture_that_shows_nothing_at_its_size_is_refused(size: tuple[int, int], stored: int) -> None:
    with pytest.raises(ValueError, match=rf"picture a/b\.png \(it has {size[0]} x {size[1]} pixels, too few"):
        square_picture(Image.new("RGB", size), COLOUR.with_image_size(stored), name="a/b.png")
    least = max(2, -(-stored // 16))
    assert square_picture(Image.new("RGB", (least, 99)), COLOUR.with_image_size(stored)).shape[1] == stored


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("mode", "size"), [("RGBA", (150, 341)), ("P", (250, 90)), ("LA", (64, 64)), ("L", (90, 64))])
def test_a_large_picture_is_converted_a_few_rows_at_a_time(
    mode: str, size: tuple[int, int], interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    smooth = np.random.default_rng(0).integers(0, 256, (9, 9, 4)).astype(np.uint8)
    picture = Image.fromarray(smooth).resize(size[::-1], Image.Resampling.BILINEAR).convert(mode)
    how = Preprocessing(64, 64, (0.5,) * 3, (0.5,) * 3, interpolation=interpolation, invert=True)
    whole = picture.convert("RGBA")
    paper = ImageOps.invert(Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB"))
    wanted = square_picture(paper, replace(how, invert=False))
    assert np.array_equal(square_picture(picture, how), wanted)
    heights, plain = [], subject._plain
    monkeypatch.setattr(subject, "MAX_COPIED", 0)
    monkeypatch.setattr(subject, "_plain", lambda part, *a, **k: (heights.append(part.height), plain(part, *a, **k))[1])
    found = square_picture(picture, how).astype(int)
    assert np.abs(found - wanted).mean() < 0.5 and max(heights) <= subject._ROWS
    assert interpolation != "nearest" or np.array_equal(found, wanted)


@pytest.mark.parametrize("size", [(14, 3000), (3000, 14), (31, 200)])
def test_of_a_long_picture_nothing_but_its_middle_is_converted(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    smooth = np.random.default_rng(0).integers(0, 256, (9, 9, 4)).astype(np.uint8)
    picture = Image.fromarray(smooth).resize(size, Image.Resampling.BILINEAR)
    wanted = square_picture(picture, COLOUR.with_image_size(16))
    converted, plain = [], subject._plain
    monkeypatch.setattr(subject, "MAX_COPIED", 0)
    monkeypatch.setattr(subject, "_plain", lambda part, *a, **k: (converted.append(part.size), plain(part, *a, **k))[1])
    found = square_picture(picture, COLOUR.with_image_size(16)).astype(int)
    assert np.abs(found - wanted).max() <= 2
    assert sum(width * height for width, height in converted) <= (3 * min(size)) ** 2


def test_deep_grey_whose_zero_is_white_or_transparent(tmp_path: Path) -> None:
    ramp = (RAMP * 65535).astype(np.uint16)
    for values in (ramp, ramp >> 8):
        kind = np.uint16 if values is ramp else np.uint8
        Image.fromarray(values.astype(kind)).save(tmp_path / "black.tif")
        data = (tmp_path / "black.tif").read_bytes()
        tag = struct.pack("<HHIH", 262, 3, 1, 1)  # photometric interpretation: one number of 16 bits
        assert data.count(tag) == 1
        (tmp_path / "white.tif").write_bytes(data.replace(tag, struct.pack("<HHIH", 262, 3, 1, 0)))
        black, white = (np.asarray(open_picture(tmp_path / f"{name}.tif")) for name in ("black", "white"))
        assert np.array_equal(white, 255 - black) and black.max() == 255
    deep = Image.fromarray(np.where(ramp < 30000, 0, ramp).astype(np.uint16))
    deep.save(tmp_path / "holes.png", transparency=0)
    found = square_picture(open_picture(tmp_path / "holes.png"), GREY)[0]
    assert (found[np.asarray(deep) == 0] == 255).all() and (found >= 116).all()


def test_a_picture_of_ones_own_stays_as_it_is() -> None:
    picture = Image.fromarray(EXPECTED)
    picture.getexif()[0x0112] = 6
    assert as_image(picture).tobytes() == picture.transpose(Image.Transpose.ROTATE_270).tobytes()
    assert picture.tobytes() == EXPECTED.tobytes()


def test_endings_are_torchvisions_and_more() -> None:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert {*IMG_EXTENSIONS, ".gif"} <= set(picture_endings())
    assert not {"EPS", "WMF", "PDF", "FITS"} & set(readable_formats())


def test_heic_is_read_where_pillow_heif_is(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    assert ".heic" in picture_endings()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "a.heic", "HEIF", quality=95)
    assert np.abs(square_picture(open_picture(tmp_path / "a.heic"), COLOUR)[:, 4, 4] - [200.0, 30, 30]).max() < 8


def test_avif_is_read_where_pillow_has_it(tmp_path: Path) -> None:
    if not ("AVIF" in readable_formats() and features.check("avif")):
        pytest.skip("this Pillow has no AVIF")
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "a.avif")
    assert open_picture(tmp_path / "a.avif").size == (64, 64)
