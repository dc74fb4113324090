"""Points: the places of detectors without anchors."""

import pytest
import torch

from cortado.boxes.points import PointGrid
from cortado.boxes.targets import padded_boxes
from cortado.errors import BadValue

GRID = PointGrid.on((8, 16), 40, 56)


def test_a_map_has_a_place_for_each_stride_that_is_begun():
    assert GRID.shapes == ((5, 7), (3, 4)) and GRID.places == len(GRID.points) == 47
    assert GRID.points[8].tolist() == [12, 12, 8] and GRID.points[-1].tolist() == [56, 40, 16]


def test_distances_are_strides_to_the_four_sides():
    box = GRID.decoded(torch.tensor([0.5, 1.0, 2.0, 0.25]).expand(1, 47, 4))[0, 8]
    assert box.tolist() == [12 - 4, 12 - 8, 12 + 16, 12 + 2]


def test_places_inside_of_a_box_near_its_centre_learn_it():
    targets = padded_boxes([[[0.0, 0, 40, 40, 1]], []], 40, 56, 2)
    labels, corners = GRID.matched(targets)
    points = GRID.points[labels[0] >= 0]
    assert (labels[0].max(), labels[1].max()) == (1, -1) and len(points) > 3
    assert bool(((points[:, :2] > 0) & (points[:, :2] < 40)).all()) and bool(
        ((points[:, :2] - 20).abs() <= 1.5 * 8).all()
    )
    assert bool((corners[0][labels[0] >= 0] == torch.tensor([0.0, 0, 40, 40])).all())


def test_large_boxes_are_learned_on_coarse_maps():
    small, large = (
        GRID.matched(padded_boxes([[[4.0, 4, 4 + side, 4 + side, 0]]], 96, 96, 1))[0][0] for side in (16, 90)
    )
    assert GRID.points[small >= 0][:, 2].unique().tolist() == [8]
    assert GRID.points[large >= 0][:, 2].unique().tolist() == [16]


def test_of_two_boxes_the_smaller_one_is_learned():
    targets = padded_boxes([[[0.0, 0, 40, 40, 0], [8.0, 8, 30, 30, 1]]], 40, 56, 2)
    labels, _ = GRID.matched(targets)
    inner = (GRID.points[:, :2] - 19).abs().amax(1) < 8
    assert set(labels[0][inner & (GRID.points[:, 2] == 8)].tolist()) == {1}


def test_another_number_of_maps_than_strides_is_refused():
    with pytest.raises(BadValue, match="PointGrid.on"):
        PointGrid((8, 16), ((4, 4),))
