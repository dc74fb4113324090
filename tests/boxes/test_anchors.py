"""Anchors: their order, their sizes, and offsets from them."""

import pytest
import torch

from cortado.boxes.anchors import ANCHORS, Anchors
from cortado.boxes.overlap import area, corners_of
from cortado.errors import BadValue

SMALL = Anchors((4, 8), ((6.0,), (12.0, 20.0)), (1.0, 4.0))


def test_anchors_are_in_the_order_of_the_outputs():
    boxes = SMALL.over([(2, 3), (1, 1)]).boxes
    assert boxes.shape == (2 * 3 * 2 + 4, 4)
    assert boxes[:4].tolist() == [[2, 2, 6, 6], [2, 2, 12, 3], [6, 2, 6, 6], [6, 2, 12, 3]]
    assert boxes[6].tolist() == [2, 6, 6, 6], "the second row of places"
    assert boxes[12:].tolist() == [[4, 4, 12, 12], [4, 4, 24, 6], [4, 4, 20, 20], [4, 4, 40, 10]]
    assert torch.allclose(area(corners_of(boxes[12:])).sqrt(), torch.tensor([12.0, 12, 20, 20]))


def test_there_are_as_many_as_the_grid_counts():
    grid = ANCHORS.on(240, 320)
    assert grid.shapes == ((30, 40), (15, 20), (7, 10)) and grid.places == len(grid.boxes) == 5820


def test_offsets_bring_boxes_back():
    grid = SMALL.on(16, 16)
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(2, grid.places, 2, generator=generator) * 10
    corners = torch.cat([low, low + 1 + 9 * torch.rand(2, grid.places, 2, generator=generator)], -1)
    assert torch.allclose(grid.decoded(grid.encoded(corners)), corners, atol=1e-4)
    assert torch.allclose(grid.decoded(torch.zeros(grid.places, 4)), corners_of(grid.boxes))


def test_no_offset_makes_an_infinite_box():
    grid = SMALL.on(16, 16)
    assert bool(grid.decoded(torch.full((1, grid.places, 4), 1e4)).isfinite().all())


@pytest.mark.parametrize("given", [((8,), ((6.0,), (12.0,))), ((8,), ((),)), ((8,), ((-1.0,),)), ((8,), ((6.0,),), ())])
def test_anchors_without_sizes_are_refused(given):
    with pytest.raises(BadValue, match="one tuple of sizes per level"):
        Anchors(*given)


def test_another_number_of_maps_is_refused():
    with pytest.raises(BadValue, match="2 levels and 1 maps"):
        SMALL.over([(4, 4)])
