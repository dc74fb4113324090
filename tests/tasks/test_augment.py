"""Variations of images, against plain loops over pixels."""

import math

import numpy as np
import pytest
import torch

from cortado.errors import BadTask
from cortado.task.task import Data
from cortado.tasks.augment import affine, shift_crop_flip, stored_copies


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def placed(image: np.ndarray, down: int, right: int, mirrored: bool, padding: int) -> np.ndarray:
    """One image cut from its padded self, by slices."""
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    cut = padded[:, down : down + image.shape[1], right : right + image.shape[2]]
    return cut[:, :, ::-1] if mirrored else cut


def bilinear(image: np.ndarray, row: float, column: float, background: float) -> float:
    """The value of an image (H, W) between its pixels; background outside."""
    total = 0.0
    for near_row in (math.floor(row), math.floor(row) + 1):
        for near_column in (math.floor(column), math.floor(column) + 1):
            weight = (1 - abs(row - near_row)) * (1 - abs(column - near_column))
            inside = 0 <= near_row < image.shape[0] and 0 <= near_column < image.shape[1]
            total += weight * (image[near_row, near_column] if inside else background)
    return total


def test_shift_crop_flip_gives_a_place_of_each_image_and_uses_them_all():
    images = torch.rand(600, 3, 6, 5, generator=seeded(0)) + 1
    varied = shift_crop_flip(images, seeded(1), padding=1).numpy()
    seen = set()
    for image, result in zip(images.numpy(), varied, strict=True):
        places = [(down, right, flip) for down in range(3) for right in range(3) for flip in (False, True)]
        matching = [place for place in places if np.array_equal(placed(image, *place, padding=1), result)]
        assert len(matching) == 1
        seen.update(matching)
    assert len(seen) == 18


def test_shift_crop_flip_mirrors_half():
    # A lone bright column at the left edge of a wide image stays on its side unless mirrored.
    images = torch.zeros(4000, 1, 4, 20)
    images[:, :, :, 3] = 1
    varied = shift_crop_flip(images, seeded(2), padding=2)
    mirrored = varied[:, 0, :, 10:].sum((1, 2)) > 0
    assert abs(mirrored.float().mean().item() - 0.5) < 4 * math.sqrt(0.25 / 4000)


def test_shift_crop_flip_depends_on_the_generator_alone():
    images = torch.rand(8, 3, 32, 32, generator=seeded(0))
    assert torch.equal(shift_crop_flip(images, seeded(5)), shift_crop_flip(images, seeded(5)))
    assert not torch.equal(shift_crop_flip(images, seeded(5)), shift_crop_flip(images, seeded(6)))


def test_affine_agrees_with_a_loop_over_pixels():
    images = torch.rand(3, 2, 7, 10, generator=seeded(0), dtype=torch.float32)
    varied = affine(images, seeded(4), degrees=30, scale=0.2, shear=0.3, shift=1.5, background=-0.5)
    draws = (2 * torch.rand(5, 3, generator=seeded(4)) - 1).double().numpy()
    expected = np.empty(images.shape)
    for sample in range(3):
        angle, slant = math.radians(30) * draws[0, sample], 0.3 * draws[2, sample]
        zoom = 1 / (1 + 0.2 * draws[1, sample])
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        matrix = zoom * turn @ np.array([[1, slant], [0, 1]])
        for row in range(7):
            for column in range(10):
                # Places are measured from the middle of the image: 7 rows have it at 3, 10 columns at 4.5.
                across, down = matrix @ [column - 4.5, row - 3] + 1.5 * draws[3:, sample]
                for channel in range(2):
                    image = images[sample, channel].numpy()
                    expected[sample, channel, row, column] = bilinear(image, down + 3, across + 4.5, -0.5)
    assert np.allclose(varied.numpy(), expected, atol=2e-5)


def test_affine_keeps_images_when_all_amounts_are_zero():
    images = torch.rand(4, 1, 28, 28, generator=seeded(0))
    still = affine(images, seeded(1), degrees=0, scale=0, shear=0, shift=0)
    assert torch.allclose(still, images, atol=1e-5)


def test_affine_leaves_the_given_images_alone():
    images = torch.rand(4, 1, 9, 9, generator=seeded(0))
    before = images.clone()
    affine(images, seeded(1), background=0.3)
    assert torch.equal(images, before)


def bytes_data(count: int) -> Data:
    images = torch.randint(0, 256, (count, 1, 6, 6), dtype=torch.uint8, generator=seeded(0))
    return Data(images, torch.arange(count), prepare=torch.Tensor.float, augment=affine)


def test_stored_copies_follow_the_originals():
    data = bytes_data(10)
    more = stored_copies(data, 2, seeded(0), vary=lambda images, _: images / 2 + 200, chunk=4)
    assert more.inputs.dtype == torch.uint8
    assert torch.equal(more.inputs[:10], data.inputs)
    expected = np.clip(np.round(data.inputs.numpy() / 2 + 200), 0, 255)
    assert np.array_equal(more.inputs[10:20].numpy(), expected)
    assert np.array_equal(more.inputs[20:].numpy(), expected)
    assert torch.equal(more.targets, torch.arange(10).repeat(3))
    assert more.prepare is data.prepare
    assert more.augment is None


def test_stored_copies_differ_from_one_another_and_repeat_for_a_seed():
    data = bytes_data(10)
    more, again = stored_copies(data, 2, seeded(3)), stored_copies(data, 2, seeded(3))
    assert not torch.equal(more.inputs[10:20], more.inputs[20:])
    assert torch.equal(more.inputs, again.inputs)


def test_stored_copies_refuse_floats_and_negative_counts():
    with pytest.raises(BadTask, match="uint8 images"):
        stored_copies(Data(torch.zeros(2, 1, 6, 6), torch.zeros(2)), 1, seeded(0))
    with pytest.raises(BadTask, match="at least 0, got -1"):
        stored_copies(bytes_data(2), -1, seeded(0))
