"""Contact sheets: the pictures of an episode, or of a batch, as the backbone receives them, with their classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from fewshot.data.images import Images
from fewshot.data.transforms import Preprocessing
from fewshot.drawings.lettering import drawable, pillow_font, shortened
from fewshot.episode import Episode

SMALLEST_SIDE, LARGEST_SIDE = 56, 112
"""Pictures are shown so many pixels wide: small ones at a whole multiple of their size, large ones made smaller."""

MARGIN, GAP, TEXT, TITLE = 16, 2, 14, 18
"""All in pixels: around the sheet, between pictures, height of the letters and of those of the title."""

LINE_OF_PICTURES = 1740
NAME_WIDTH, CAPTION_WIDTH = 210, 92
N_IN_A_BATCH = 64
"""So many pictures of a batch are worth looking at."""

SUPPORT_COLUMNS = 5

PAPER, INK, FAINT, RULE = "#ffffff", "#1a1a1a", "#666666", "#d0d0d0"


class Row(NamedTuple):
    """A class of an episode."""

    label: int
    name: str
    support: list[Image.Image]
    query: list[Image.Image]


def episode_sheet(
    episode: Episode, images: Images, preprocessing: Preprocessing, *, title: str, note: str
) -> Image.Image:
    """The sheet of one episode: a row for every class, in the order of their numbers, support left of query.

    Args:
        episode: one task, T = 1, with pictures as inputs and the places of its pictures in the split.
        images: of the split; say what the classes are called.
        preprocessing: what the pictures were normalised by, which is undone.
        title: the first line.
        note: put behind the sizes in the second line.
    """
    assert episode.n_tasks == 1 and not episode.holds_features and episode.support_index is not None
    support, query = (shown_pictures(one[0], preprocessing) for one in (episode.support, episode.query))
    support_labels, query_labels = episode.support_labels[0].tolist(), episode.known_query_labels()[0].tolist()
    names = class_names(episode, images)
    rows = [
        Row(
            label,
            names[label],
            [picture for picture, own in zip(support, support_labels, strict=True) if own == label],
            [picture for picture, own in zip(query, query_labels, strict=True) if own == label],
        )
        for label in range(episode.n_way)
    ]
    queries = {len(row.query) for row in rows}
    of_each = f"{queries.pop()} queries a class" if len(queries) == 1 else f"{len(query)} queries, not balanced"
    sizes = f"{episode.n_way}-way {len(rows[0].support)}-shot, {of_each}"
    return _rows_sheet(rows, title, f"{sizes}, {_described_size(preprocessing)}, {note}")


def batch_sheet(
    pictures: Tensor, labels: Sequence[int], images: Images, preprocessing: Preprocessing, *, title: str, note: str
) -> Image.Image:
    """The sheet of a batch without episodes: pictures in their order, the name of its class below each.

    Args:
        pictures: [B, C, H, W] as the backbone receives them.
        labels: [B] classes of the split.
        images: as in `episode_sheet`.
        preprocessing: as in `episode_sheet`.
        title: as in `episode_sheet`.
        note: as in `episode_sheet`.
    """
    tiles = shown_pictures(pictures, preprocessing)
    side = tiles[0].width
    width, height = max(side, CAPTION_WIDTH) + 8, side + TEXT + 10
    columns = min(8, len(tiles))
    sheet, draw, top = _sheet(
        columns * width,
        math.ceil(len(tiles) / columns) * height,
        title,
        f"{len(tiles)} pictures, {_described_size(preprocessing)}, {note}",
    )
    for place, (tile, label) in enumerate(zip(tiles, labels, strict=True)):
        left, upper = MARGIN + place % columns * width, top + place // columns * height
        sheet.paste(tile, (left + (width - side) // 2, upper))
        _centred(draw, (left + width // 2, upper + side + 2), images.class_names[label], width - 8)
    return sheet


def class_names(episode: Episode, images: Images) -> list[str]:
    """Name of each of the N classes of one episode, by its support pictures."""
    assert episode.support_index is not None
    return images.names_of_episode(episode.support_index[0].tolist(), episode.support_labels[0].tolist(), episode.n_way)


def shown_pictures(inputs: Tensor, preprocessing: Preprocessing) -> list[Image.Image]:
    """Pictures to look at from what the backbone receives, [B, C, H, W] normalised: normalisation undone, 0..1 cut.

    Small ones are enlarged by a whole factor, every pixel a square; large ones are made smaller.
    """
    inputs = inputs.detach().float().cpu()
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    pixels = ((inputs * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)  # [B, H, W, 3]
    side = shown_side(inputs.shape[-1])
    resampling = Image.Resampling.NEAREST if side >= inputs.shape[-1] else Image.Resampling.LANCZOS
    return [Image.fromarray(array.numpy()).resize((side, side), resampling) for array in pixels.contiguous()]


def shown_side(side: int) -> int:
    """How many pixels wide a picture of this side is shown."""
    return min(LARGEST_SIDE, side) if side >= SMALLEST_SIDE else side * math.ceil(SMALLEST_SIDE / side)


def _rows_sheet(rows: Sequence[Row], title: str, note: str) -> Image.Image:
    side = rows[0].support[0].width
    step, font_size = side + GAP, TEXT
    most = max(len(row.query) for row in rows)
    support_columns = min(max(len(row.support) for row in rows), SUPPORT_COLUMNS)
    room = max(LINE_OF_PICTURES // step - support_columns, SUPPORT_COLUMNS)
    columns = math.ceil(most / math.ceil(most / room))  # lines of one class are about as long as each other
    names = {row.label: shortened(row.name, font_size, NAME_WIDTH) for row in rows}
    digits = math.ceil(pillow_font("0", font_size, bold=True).getlength(str(len(rows) - 1))) + 10
    name_width = math.ceil(max(pillow_font(name, font_size).getlength(name) for name in names.values()))
    at_support = MARGIN + digits + name_width + 14
    at_query = at_support + support_columns * step + 14
    lines = [max(math.ceil(len(row.support) / support_columns), math.ceil(len(row.query) / columns), 1) for row in rows]
    heading = font_size + 8
    height = heading + sum(line * step + 7 for line in lines)
    sheet, draw, top = _sheet(at_query + columns * step - MARGIN, height, title, note)
    for left, word in ((at_support, "support"), (at_query, "query")):
        draw.text((left, top), word, fill=FAINT, font=pillow_font(word, font_size))
    top += heading
    rule = at_query - 8
    draw.line((rule, top, rule, sheet.height - MARGIN), fill=FAINT, width=1)
    for row, n_lines in zip(rows, lines, strict=True):
        draw.line((MARGIN, top - 4, sheet.width - MARGIN, top - 4), fill=RULE, width=1)
        middle = top + step // 2 - font_size // 2 - 2
        number = pillow_font("0", font_size, bold=True)
        draw.text((MARGIN, middle), str(row.label), fill=INK, font=number)
        name = names[row.label]
        draw.text((MARGIN + digits, middle), name, fill=INK, font=pillow_font(name, font_size))
        for pictures, left, across in ((row.support, at_support, support_columns), (row.query, at_query, columns)):
            for place, picture in enumerate(pictures):
                sheet.paste(picture, (left + place % across * step, top + place // across * step))
        top += n_lines * step + 7
    return sheet


def _sheet(width: int, height: int, title: str, note: str) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    """Paper for a content of so many pixels, wide enough for title and note, and where the content begins."""
    title, note = drawable(title, bold=True), drawable(note)
    title_font, note_font = pillow_font(title, TITLE, bold=True), pillow_font(note, TEXT)
    width = math.ceil(max(width, title_font.getlength(title), note_font.getlength(note))) + 2 * MARGIN
    top = MARGIN + TITLE + TEXT + 22
    sheet = Image.new("RGB", (width, top + height + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 4), title, fill=INK, font=title_font)
    draw.text((MARGIN, MARGIN + TITLE + 2), note, fill=FAINT, font=note_font)
    return sheet, draw, top


def _centred(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int) -> None:
    short = shortened(text, TEXT - 2, width)
    draw.text(place, short, fill=INK, font=pillow_font(short, TEXT - 2), anchor="ma")


def _described_size(preprocessing: Preprocessing) -> str:
    size, side = preprocessing.image_size, shown_side(preprocessing.image_size)
    shown = "" if side == size else f" shown {side} px wide"
    return f"{size} px{shown}"
