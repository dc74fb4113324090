"""Overlap of boxes against counts of pixels."""

import torch

from cortado.boxes.overlap import area, centred_of, corners_of, overlap


def whole_boxes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    low = torch.randint(0, 8, (count, 2), generator=generator)
    return torch.cat([low, low + torch.randint(1, 8, (count, 2), generator=generator)], 1)


def mask(box):
    picture = torch.zeros(16, 16, dtype=torch.bool)
    picture[box[1] : box[3], box[0] : box[2]] = True
    return picture


def test_overlap_is_that_of_the_pixels():
    first, second = whole_boxes(6), whole_boxes(5, 1)
    wanted = [[float((mask(a) & mask(b)).sum() / (mask(a) | mask(b)).sum()) for b in second] for a in first]
    assert torch.allclose(overlap(first.float(), second.float()), torch.tensor(wanted))
    many = overlap(first.float()[None].expand(3, -1, -1), second.float())
    assert many.shape == (3, 6, 5) and torch.equal(many[2], many[0])


def test_an_empty_box_overlaps_nothing():
    empty = torch.tensor([[3.0, 3, 3, 9], [9.0, 9, 3, 3]])
    assert area(empty).tolist() == [0, 0]
    assert overlap(empty, torch.tensor([[0.0, 0, 12, 12]])).tolist() == [[0], [0]]


def test_corners_and_centres_are_inverse():
    boxes = whole_boxes(9).float()
    assert torch.allclose(corners_of(centred_of(boxes)), boxes)
    assert centred_of(torch.tensor([2.0, 4, 6, 10])).tolist() == [4, 7, 4, 6]
