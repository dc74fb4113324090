"""Padded boxes, and boxes that are none."""

import numpy as np
import pytest
import torch

from cortado.boxes.targets import boxes_by_picture, check_targets, padded_boxes
from cortado.errors import BadTask


def test_pictures_with_different_numbers_of_boxes_become_one_tensor():
    rows = [np.array([[1.0, 2, 5, 6, 0], [3, 3, 9, 9, 1]]), np.zeros((0, 5)), []]
    found = padded_boxes(rows, 20, 30, 2, most=3)
    assert found.shape == (3, 3, 5) and found[..., 4].tolist() == [[0, 1, -1], [-1] * 3, [-1] * 3]
    back = boxes_by_picture(found)
    assert back[0]["boxes"].tolist() == [[1, 2, 5, 6], [3, 3, 9, 9]] and back[0]["labels"].tolist() == [0, 1]
    assert back[1]["boxes"].shape == (0, 4)


def test_boxes_are_clipped_to_the_picture():
    assert padded_boxes([[[-3.0, 4, 35, 50, 0]]], 20, 30, 1)[0, 0].tolist() == [0, 4, 30, 20, 0]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([1.0, 2, 1, 6, 0], "has no area"),
        ([5.0, 2, 1, 6, 0], "has no area"),
        ([31.0, 2, 40, 6, 0], "is outside of the picture of 30 x 20 pixels"),
        ([-9.0, 2, -1, 6, 0], "is outside of the picture"),
        ([1.0, 2, 5, 6, 2], r"not in 0\.\.1"),
        ([1.0, 2, 5, 6, -1], r"not in 0\.\.1"),
        ([1.0, 2, 5, 6, 0.5], r"not in 0\.\.1"),
        ([1.0, float("nan"), 5, 6, 0], "not finite"),
    ],
)
def test_what_is_no_box_is_refused_with_its_picture(row, words):
    with pytest.raises(BadTask, match=f"picture 1 .*{words}.*got \\["):
        padded_boxes([[], [[1.0, 2, 5, 6, 0], row]], 20, 30, 2)


@pytest.mark.parametrize("rows", [np.zeros((2, 4)), np.ones((5, 5)), np.ones(5)])
def test_rows_of_another_shape_and_too_many_are_refused(rows):
    with pytest.raises(BadTask, match="at most 4"):
        padded_boxes([rows], 20, 30, 2, most=4)


@pytest.mark.parametrize("targets", [torch.zeros(3, 5), torch.zeros(3, 4, 4), [{"boxes": 1}]])
def test_targets_that_are_no_padded_boxes_are_refused(targets):
    with pytest.raises(BadTask, match="padded_boxes"):
        check_targets(targets)
