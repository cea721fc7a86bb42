"""The batched transforms against torchvision's, picture by picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as reference

from fewshot.data.transforms import Preprocessing, colour_jitter, evaluation_transform, random_crop, training_transform

PLAIN = Preprocessing(image_size=8, stored_size=10, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def pictures(count: int, size: int, channels: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)


@pytest.mark.parametrize("size", [8, 10, 11, 13])
def test_evaluation_is_torchvisions_middle_crop_normalised(size: int) -> None:
    images = pictures(3, size)
    expected = torch.stack(
        [
            reference.normalize(
                reference.convert_image_dtype(reference.center_crop(image, [8, 8])), PLAIN.mean, PLAIN.std
            )
            for image in images
        ]
    )
    result = evaluation_transform(images, PLAIN)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_torchvisions_in_each_order(channels: int) -> None:
    images = torch.rand(60, channels, 9, 7)
    factors = 0.2 + 1.6 * torch.rand(60, 3)
    order = torch.rand(60, 3).argsort(dim=1)
    assert len(order.unique(dim=0)) == 6
    adjust = (reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation)
    result = colour_jitter(images, factors, order)
    for number in range(60):
        expected = images[number]
        for kind in order[number].tolist():
            expected = adjust[kind](expected, factors[number, kind].item())
        torch.testing.assert_close(result[number], expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("padding", [0, 3])
def test_crop_and_flip_are_torchvisions(padding: int) -> None:
    images = pictures(200, 10)
    offsets, flipped = torch.rand(200, 2), torch.rand(200) < 0.5
    result = random_crop(images, 8, padding=padding, offsets=offsets, flipped=flipped)
    places = 10 + 2 * padding - 8 + 1
    corners = (offsets * places).long()
    assert corners.amin() == 0 and corners.amax() == places - 1, "every place is reached"
    for number, (top, left) in enumerate(corners.tolist()):
        expected = reference.crop(reference.pad(images[number], [padding] * 4), top, left, 8, 8)
        if flipped[number]:
            expected = reference.hflip(expected)
        assert torch.equal(result[number], expected)


def test_crop_stays_inside_for_numbers_next_to_one() -> None:
    offsets = torch.full((1, 2), 1.0)
    random_crop(pictures(1, 10), 8, padding=2, offsets=offsets, flipped=torch.tensor([False]))


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_training_follows_its_generator(kind: str) -> None:
    preprocessing = Preprocessing(8, 8, PLAIN.mean, PLAIN.std, crop_padding=2, colour_jitter=0.4, flip=True)
    images = pictures(16, 8)

    def result(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed) if kind == "torch" else np.random.default_rng(seed)
        return training_transform(images, preprocessing, generator)

    state = torch.get_rng_state()
    assert torch.equal(result(0), result(0))
    assert not torch.equal(result(0), result(1))
    assert torch.equal(state, torch.get_rng_state()), "the global random state is left alone"
    assert result(0).shape == (16, 3, 8, 8) and result(0).dtype == torch.float32


def test_training_pictures_draw_independently() -> None:
    preprocessing = Preprocessing(8, 8, PLAIN.mean, PLAIN.std, crop_padding=2, colour_jitter=0.4, flip=True)
    images = pictures(1, 8).repeat(50, 1, 1, 1)
    result = training_transform(images, preprocessing, np.random.default_rng(0))
    assert len(result.flatten(1).unique(dim=0)) == 50


def test_training_without_options_is_the_evaluation() -> None:
    preprocessing = Preprocessing(8, 8, PLAIN.mean, PLAIN.std)
    images = pictures(4, 8)
    result = training_transform(images, preprocessing, torch.Generator())
    torch.testing.assert_close(result, evaluation_transform(images, preprocessing))


def test_flip_happens_half_the_time() -> None:
    preprocessing = Preprocessing(4, 4, (0.0,), (1.0,), channels=1, flip=True)
    image = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4).repeat(1000, 1, 1, 1)
    result = training_transform(image, preprocessing, np.random.default_rng(0))
    assert 430 < int((result[:, 0, 0, 0] > result[:, 0, 0, 3]).sum()) < 570


def test_a_grey_picture_with_jitter_and_a_large_factor_stays_in_range() -> None:
    preprocessing = Preprocessing(8, 8, (0.0,), (1.0,), channels=1, colour_jitter=1.0)
    result = training_transform(pictures(20, 8, 1), preprocessing, torch.Generator())
    assert result.min() >= 0 and result.max() <= 1


def test_inputs_are_not_changed() -> None:
    images = pictures(4, 12)
    before = images.clone()
    evaluation_transform(images, PLAIN)
    training_transform(images, PLAIN, torch.Generator())
    assert torch.equal(images, before)


def test_channels_and_sizes_follow() -> None:
    grey = PLAIN.with_channels(1)
    assert grey.channels == 1 and grey.mean == pytest.approx((0.4,)) and grey.std == pytest.approx((0.3,))
    assert grey.with_channels(3).mean == pytest.approx((0.4, 0.4, 0.4))
    assert PLAIN.with_channels(3) is PLAIN
    larger = Preprocessing(80, 84, PLAIN.mean, PLAIN.std, crop_padding=8).with_image_size(160)
    assert (larger.image_size, larger.stored_size, larger.crop_padding) == (160, 168, 16)
    assert larger.with_image_size(5).stored_size == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 2}, "channels=2; pictures have 1"),
        ({"channels": 1}, "channels=1 but mean has 3"),
        ({"std": (0.1, 0.0, 0.1)}, "above 0"),
        ({"stored_size": 7}, "image_size=8 and stored_size=7"),
        ({"interpolation": "cubic"}, "interpolation='cubic'; choose one of nearest"),
        ({"crop_padding": -1}, "crop_padding=-1"),
        ({"colour_jitter": 1.5}, "colour_jitter=1.5"),
    ],
)
def test_what_cannot_belong_together_is_refused(changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"image_size": 8, "stored_size": 8, "mean": PLAIN.mean, "std": PLAIN.std}
    with pytest.raises(ValueError, match=message):
        Preprocessing(**{**arguments, **changes})  # type: ignore[arg-type]


def test_other_pictures_than_announced_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[2, 1, 10, 10\]; need uint8 \[B, 3, H, W\]"):
        evaluation_transform(pictures(2, 10, 1), PLAIN)
    with pytest.raises(ValueError, match=r"torch.float32"):
        evaluation_transform(torch.rand(2, 3, 10, 10), PLAIN)
    with pytest.raises(ValueError, match="7 x 7 pixels but image_size=8"):
        training_transform(pictures(2, 7), PLAIN, torch.Generator())


def test_pictures_augmented_in_parts_are_those_augmented_at_once(monkeypatch):
    preprocessing = Preprocessing(8, 8, (0.5,) * 3, (0.25,) * 3, crop_padding=2, colour_jitter=0.4, flip=True)
    pictures = torch.randint(0, 256, (7, 3, 8, 8), dtype=torch.uint8)
    found = []
    for size in (2**20, 2 * 3 * 8 * 8 * 4, 1):
        monkeypatch.setattr("fewshot.data.transforms.PROCESSOR_CACHE", size)
        found.append(training_transform(pictures, preprocessing, np.random.default_rng(0)))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
