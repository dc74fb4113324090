"""Matching: anchor by anchor, with loops, as the paper describes it."""

import torch

from cortado.boxes.anchors import Anchors
from cortado.boxes.matching import match
from cortado.boxes.overlap import corners_of, overlap
from cortado.boxes.targets import padded_boxes

GRID = Anchors((8, 16), ((10.0,), (24.0,)), (1.0, 2.0)).on(64, 64)


def drawn(count, seed):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 40
    rows = torch.cat([low, low + 6 + 18 * torch.rand(count, 2, generator=generator)], 1)
    return torch.cat([rows, torch.randint(0, 3, (count, 1), generator=generator)], 1)


def slow(rows):
    """Labels and boxes of each anchor, one after the other."""
    shares = overlap(corners_of(GRID.boxes), rows[:, :4])
    labels, which = [], []
    owners = {int(shares[:, box].argmax()): box for box in shares.max(0).values.argsort().tolist()}
    for anchor, row in enumerate(shares.tolist()):
        best = max(row)
        box = owners.get(anchor, row.index(best))
        owned = anchor in owners
        labels.append(int(rows[box, 4]) + 1 if owned or best >= 0.5 else -1 if best >= 0.4 else 0)
        which.append(box)
    return torch.tensor(labels), rows[which, :4]


def test_anchors_learn_what_the_paper_says():
    pictures = [drawn(5, 0), drawn(2, 1), drawn(7, 2)]
    found = match(GRID, padded_boxes(pictures, 64, 64, 3))
    for number, rows in enumerate(pictures):
        labels, boxes = slow(rows)
        assert torch.equal(found.labels[number], labels)
        positive = labels > 0
        wanted = GRID.encoded(boxes)[positive]
        assert positive.any() and torch.allclose(found.offsets[number][positive], wanted, atol=1e-4)


def test_every_box_has_an_anchor_however_small_it_is():
    rows = torch.tensor([[30.0, 30, 33, 33, 2]])
    found = match(GRID, padded_boxes([rows], 64, 64, 3))
    assert overlap(corners_of(GRID.boxes), rows[:, :4]).max() < 0.4
    assert found.labels[0].unique(return_counts=True)[1].tolist() == [GRID.places - 1, 1] and found.labels.max() == 3


def test_a_picture_without_boxes_is_background():
    found = match(GRID, padded_boxes([[], drawn(2, 0)], 64, 64, 3))
    assert not found.labels[0].any() and bool(found.offsets.isfinite().all())
    alone = match(GRID, padded_boxes([[]], 64, 64, 3))
    assert not alone.labels.any()


def test_a_box_that_no_anchor_overlaps_claims_none():
    targets = torch.tensor([[[900.0, 900, 910, 910, 1]]])
    assert not match(GRID, targets).labels.any()


def test_where_the_padding_stands_does_not_matter():
    targets = padded_boxes([drawn(4, 3)], 64, 64, 3, most=6)
    turned = targets.roll(2, 1)
    first, second = match(GRID, targets), match(GRID, turned)
    assert torch.equal(first.labels, second.labels)
    positive = first.labels > 0
    assert torch.equal(first.offsets[positive], second.offsets[positive])
