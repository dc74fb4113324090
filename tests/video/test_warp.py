"""Warp: exact for whole pixels, bilinear in between, and sure of what it does not know."""

import math

import pytest
import torch
from torch.nn import functional

from cortado.errors import BadValue
from cortado.video.warp import inside, resized_flow, visible, warp
from tests.video.moving import Steady, shifted, smooth_pictures

SIZE = (9, 12)


def steady(right, down, count=2, size=SIZE):
    return Steady(right, down)(torch.zeros(count, 3, *size), None)


def random_values(dtype=torch.float32):
    return torch.randn(2, 4, *SIZE, generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_zero_flow_is_the_identity():
    values, labels = random_values(), random_values().argmax(1)
    assert torch.equal(warp(values, steady(0, 0)), values) and torch.equal(warp(labels, steady(0, 0)), labels)
    assert bool(inside(steady(0, 0)).all())


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, -2), (-4, 1), (2, 3)])
def test_whole_pixel_shifts_are_exact(right, down):
    values, flow = random_values(), steady(right, down)
    seen, labels = inside(flow), random_values().argmax(1)
    assert int(seen.sum()) == 2 * (SIZE[0] - abs(down)) * (SIZE[1] - abs(right))
    wanted = shifted(values, right, down)
    assert torch.equal(warp(values, flow).movedim(1, -1)[seen], wanted.movedim(1, -1)[seen])
    assert torch.equal(warp(labels, flow)[seen], shifted(labels, right, down)[seen])


def test_what_lies_between_pixels_is_bilinear_as_in_torch():
    values = random_values(torch.float64)
    flow = 2 * torch.randn(2, 2, *SIZE, generator=torch.Generator().manual_seed(1))
    x, y = flow[:, 0].double() + torch.arange(SIZE[1]), flow[:, 1].double() + torch.arange(SIZE[0])[:, None]
    grid = torch.stack([2 * x / (SIZE[1] - 1) - 1, 2 * y / (SIZE[0] - 1) - 1], 3)
    wanted = functional.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=True)
    torch.testing.assert_close(warp(values, flow), wanted, atol=1e-5, rtol=0)


def test_gradients_flow_back_to_where_values_came_from():
    values = random_values(torch.float64).requires_grad_(True)
    flow = steady(0.5, -0.25)
    assert torch.autograd.gradcheck(lambda one: warp(one, flow), (values,))


def test_pixels_are_visible_by_how_alike_the_frames_are():
    earlier = smooth_pictures(1, 32).float() / 2
    flow = steady(4, 0, 1, (32, 32))
    seen = visible(shifted(earlier, 4, 0), earlier, flow)
    assert torch.equal(seen, inside(flow).float()) and float(seen.mean()) == 28 / 32
    darker = visible(shifted(earlier, 4, 0) + 51, earlier, flow, steepness=3.0)
    torch.testing.assert_close(darker, seen * math.exp(-3 * 51 / 255))


def test_flow_of_another_size_counts_pixels_of_that_size():
    flow = steady(-8, -6, 2, (12, 24))
    small = resized_flow(flow, (4, 6))
    assert small.shape == (2, 2, 4, 6) and small[:, 0].unique().tolist() == [2] and small[:, 1].unique().tolist() == [2]
    torch.testing.assert_close(resized_flow(small, (12, 24)), flow)


def test_other_sizes_are_refused_in_words():
    for values in (random_values()[..., 1:], random_values().long(), random_values()[0]):
        with pytest.raises(BadValue, match="Bring the flow to their size with resized_flow"):
            warp(values, steady(0, 0))
