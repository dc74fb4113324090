"""MoveBoxes: boxes stay around what they were around."""

import pytest
import torch

from cortado.errors import BadTask
from cortado.task.data import Data
from cortado.task.move_boxes import MoveBoxes


def scene(count=24):
    """One bright rectangle in each picture, and its box."""
    generator = torch.Generator().manual_seed(0)
    pictures, targets = torch.zeros(count, 3, 60, 80), torch.zeros(count, 3, 5)
    targets[..., 4] = -1
    for picture, rows in zip(pictures, targets, strict=True):
        x, y = int(torch.randint(2, 50, (), generator=generator)), int(torch.randint(2, 35, (), generator=generator))
        picture[:, y : y + 16, x : x + 20] = 1
        rows[1] = torch.tensor([x, y, x + 20, y + 16, 2.0])
    return pictures, targets


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("zoom", [(1.0, 1.0), (1.0, 1.8), (0.6, 0.9)])
def test_boxes_move_with_their_picture(zoom):
    pictures, targets = MoveBoxes(flip=True, zoom=zoom, stretch=0.2, visible=0.01)(*scene(), seeded())
    checked = 0
    for picture, box in zip(pictures, targets[:, 1], strict=True):
        bright = (picture[0] > 0.5).nonzero()
        if box[4] < 0 or (box[2:4] - box[:2]).min() < 3:
            continue
        low, high = bright.amin(0).flip(0), bright.amax(0).flip(0) + 1
        assert torch.allclose(torch.cat([low, high]).float(), box[:4], atol=1.01)
        checked += 1
    assert checked > 12 and not bool((targets[:, [0, 2], 4] != -1).any())


def test_half_are_mirrored_and_half_upside_down():
    pictures = torch.arange(12.0).view(1, 1, 3, 4).expand(400, 1, 3, 4)
    targets = torch.tensor([[[0.0, 0, 1, 1, 0]]]).expand(400, 1, 5)
    moved, boxes = MoveBoxes(flip=True, zoom=(1, 1), stretch=0)(pictures, targets, seeded())
    corners = moved[:, 0, 0, 0].round().tolist()
    assert {corner: 70 < corners.count(corner) < 130 for corner in (0, 3, 8, 11)} == dict.fromkeys((0, 3, 8, 11), True)
    for corner, wanted in ((0, [0, 0, 1, 1]), (3, [3, 0, 4, 1]), (8, [0, 2, 1, 3]), (11, [3, 2, 4, 3])):
        assert boxes[corners.index(corner), 0].tolist() == pytest.approx([*wanted, 0], abs=1e-5)


def test_boxes_that_are_hardly_visible_are_dropped_and_others_clipped():
    pictures, targets = scene()
    move = MoveBoxes(zoom=(3.0, 3.0), visible=0.5)
    _, boxes = move(pictures, targets, seeded())
    kept = boxes[:, 1, 4] >= 0
    assert 0 < int(kept.sum()) < len(kept) and not boxes[~kept][..., :4].any()
    corners = boxes[kept][:, 1, :4]
    assert bool((corners >= 0).all() & (corners[:, 2] <= 80).all() & (corners[:, 3] <= 60).all())


def test_a_generator_gives_the_same_again():
    first, second = (MoveBoxes()(*scene(), seeded(4)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_data_are_moved_in_training_only():
    data = Data(*scene(8), vary=MoveBoxes())
    assert torch.equal(next(data.batches(8))[1], scene(8)[1]) and data.varies
    assert not torch.equal(next(data.batches(8, seeded()))[1].sort(0).values, scene(8)[1].sort(0).values)


@pytest.mark.parametrize("knobs", [{"zoom": (0, 1)}, {"zoom": (2, 1)}, {"zoom": 1.5}, {"stretch": 1.0}, {"visible": 2}])
def test_ranges_that_are_none_are_refused(knobs):
    with pytest.raises(BadTask, match="Write MoveBoxes"):
        MoveBoxes(**knobs)


def test_targets_that_are_no_boxes_are_refused():
    pictures, targets = scene(2)
    with pytest.raises(BadTask, match="padded_boxes"):
        MoveBoxes()(pictures, targets[..., :4], seeded())
    with pytest.raises(BadTask, match="one row of boxes for each"):
        MoveBoxes()(pictures[:1], targets, seeded())
