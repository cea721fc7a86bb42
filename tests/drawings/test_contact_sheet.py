import numpy as np
import pytest
import torch

from fewshot.data.images import Images
from fewshot.data.transforms import Preprocessing, evaluation_transform
from fewshot.drawings.contact_sheet import batch_sheet, episode_sheet, shown_pictures, shown_side
from fewshot.episode import Episode

SIDE = 14
COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40]], dtype=np.uint8)


def preprocessing(side=SIDE, channels=3):
    return Preprocessing(side, side, (0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.1)[:channels], channels=channels)


def episode_of_colours(names, n_shot, queries):
    """Class c is the pictures of colour c; classes are numbered in the episode from the last one on."""
    n_way = len(names)
    support = [c for c in range(n_way) for _ in range(n_shot)]
    query = [c for c, count in enumerate(queries) for _ in range(count)]
    np.random.default_rng(0).shuffle(query)
    colours = torch.from_numpy(COLOURS[[*support, *query]])
    pictures = colours[:, :, None, None].expand(-1, -1, SIDE, SIDE).contiguous()
    inputs = evaluation_transform(pictures, preprocessing())
    images = Images(pictures.numpy(), np.array([*support, *query]), names, [""] * len(pictures))
    labels = [torch.tensor([[n_way - 1 - c for c in part]]) for part in (support, query)]
    numbers = torch.arange(len(pictures))[None]
    n = len(support)
    episode = Episode(
        *(inputs[None, :n], labels[0], inputs[None, n:], labels[1], n_way),
        *(torch.tensor([0]), numbers[:, :n], numbers[:, n:]),
    )
    return episode, images


@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_is_undone_to_the_last_level_and_small_pictures_are_whole_multiples(channels):
    pixels = torch.randint(0, 256, (3, channels, SIDE, SIDE), dtype=torch.uint8)
    shown = shown_pictures(
        evaluation_transform(pixels, preprocessing(channels=channels)), preprocessing(channels=channels)
    )
    for picture, expected in zip(shown, pixels, strict=True):
        array = np.asarray(picture)
        assert array.shape == (56, 56, 3)
        for c in range(3):
            assert np.array_equal(array[::4, ::4, c], expected[c % channels].numpy())
            assert np.array_equal(array, array[::4, ::4].repeat(4, 0).repeat(4, 1))


def test_sides():
    assert [shown_side(side) for side in (14, 28, 32, 56, 84, 112, 224)] == [56, 56, 64, 56, 84, 112, 112]


def test_what_is_out_of_range_is_cut():
    inputs = torch.full((2, 3, SIDE, SIDE), 50.0)
    inputs[1] = -50.0
    white, black = shown_pictures(inputs, preprocessing())
    assert np.asarray(white).min() == 255 and np.asarray(black).max() == 0


@pytest.mark.parametrize("queries", [[3, 3, 3, 3], [0, 1, 70, 2]])
def test_every_picture_is_in_the_row_of_its_class(queries):
    episode, images = episode_of_colours(["a", "b", "c", "d"], 2, queries)
    sheet = np.asarray(episode_sheet(episode, images, preprocessing(), title="colours", note="seed 0")).astype(int)
    assert sheet.shape[1] < 2100
    ends = []
    for c in range(4):
        mine = (sheet == COLOURS[c]).all(-1)
        assert mine.sum() == (2 + queries[c]) * 56**2
        rows = np.flatnonzero(mine.any(1))
        ends.append((rows[0], rows[-1]))
    # numbered from the last class on, so the last is on top; no two overlap
    for upper, lower in zip(ends[::-1], ends[-2::-1], strict=False):
        assert upper[1] < lower[0]


@pytest.mark.parametrize("name", ["猫", "\U0001f9c1 قطة", "a very long name " * 9, "", "two\nlines", "\udcff"])
def test_any_name_is_drawn(name):
    episode, images = episode_of_colours([name, "b"], 1, [1, 1])
    assert episode_sheet(episode, images, preprocessing(), title=name, note=name).size[0] > 150
    pictures = episode.query[0]
    assert batch_sheet(pictures, [0, 1], images, preprocessing(), title=name, note=name).size[0] > 150


def test_a_batch_keeps_its_order():
    episode, images = episode_of_colours(["a", "b", "c", "d"], 3, [1, 1, 1, 1])
    sheet = np.asarray(
        batch_sheet(
            episode.support[0], [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3, images, preprocessing(), title="", note=""
        )
    )
    first = [int(np.flatnonzero((sheet == COLOURS[c]).all(-1))[0]) for c in range(4)]
    assert first == sorted(first)
    assert [(sheet == COLOURS[c]).all(-1).sum() for c in range(4)] == [3 * 56**2] * 4
