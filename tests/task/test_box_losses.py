"""Losses of detectors against loops over anchors and boxes."""

import math

import pytest
import torch
from torch.nn import functional

from cortado.boxes.anchors import Anchors
from cortado.boxes.matching import match
from cortado.boxes.points import PointGrid
from cortado.boxes.targets import padded_boxes
from cortado.errors import BadTask
from cortado.task.box_loss import BoxLoss
from cortado.task.point_loss import PointLoss, giou

GRID = Anchors((8, 16), ((10.0,), (24.0,)), (1.0,)).on(64, 64)
POINTS = PointGrid.on((8, 16), 64, 64)
ROWS = [[[4.0, 4, 16, 15, 0], [30, 30, 54, 56, 1]], [], [[20.0, 8, 44, 30, 1]]]
TARGETS = padded_boxes(ROWS, 64, 64, 2, most=4)


def outputs(places, numbers, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, places, numbers, generator=generator), torch.randn(3, places, 4, generator=generator)


def test_box_loss_is_that_of_the_paper():
    logits, offsets = outputs(GRID.places, 3)
    matches, total, positives = match(GRID, TARGETS), 0.0, 0
    for picture in range(3):
        negative, own = [], 0
        for place in range(GRID.places):
            label = int(matches.labels[picture, place])
            loss = -float(logits[picture, place].log_softmax(0)[max(label, 0)])
            if label > 0:
                own += 1
                far = (offsets[picture, place] - matches.offsets[picture, place]).abs()
                total += loss + float(torch.where(far < 1, 0.5 * far**2, far - 0.5).sum())
            elif label == 0:
                negative.append(loss)
        positives += own
        total += sum(sorted(negative, reverse=True)[: max(3 * own, 10)])
    assert positives >= 3
    assert float(BoxLoss(GRID)((logits, offsets), TARGETS)) == pytest.approx(total / positives, rel=1e-5)


@pytest.mark.parametrize("loss", [BoxLoss(GRID), PointLoss(POINTS)])
def test_pictures_without_boxes_are_learned_as_background(loss):
    logits, offsets = outputs(loss.grid.places, 3 if isinstance(loss, BoxLoss) else 2)
    logits.requires_grad_(), offsets.requires_grad_()
    value = loss((logits, offsets), padded_boxes([[], [], []], 64, 64, 2))
    value.backward()
    assert math.isfinite(value.item()) and value.item() > 0
    assert bool(logits.grad.any()) and not offsets.grad.any()


@pytest.mark.parametrize("loss", [BoxLoss(GRID), PointLoss(POINTS)])
def test_a_class_that_the_network_lacks_is_refused(loss):
    numbers = 2 if isinstance(loss, BoxLoss) else 1
    with pytest.raises(BadTask, match=r"must lie in 0\.\.0, as the detector has .* got 1"):
        loss(outputs(loss.grid.places, numbers), TARGETS)


def test_anchors_of_another_size_are_refused():
    with pytest.raises(BadTask, match="at 80 places, and its anchors are 320"):
        BoxLoss(Anchors((8, 16), ((10.0,), (24.0,)), (1.0,)).on(128, 128))(outputs(80, 3), TARGETS)


def test_generalized_overlap_is_negative_for_boxes_far_apart():
    first = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2]])
    second = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [4, 0, 6, 2]])
    common, generalized = giou(first, second)
    assert common.tolist() == pytest.approx([1, 1 / 3, 0])
    assert generalized.tolist() == pytest.approx([1, 1 / 3, -4 / 12])


def test_point_loss_is_that_of_a_loop():
    logits, distances = outputs(POINTS.places, 2, 1)
    distances = distances.abs()
    labels, corners = POINTS.matched(TARGETS)
    boxes, total = POINTS.decoded(distances), 0.0
    for picture, place in torch.cartesian_prod(torch.arange(3), torch.arange(POINTS.places)).tolist():
        label, wanted = int(labels[picture, place]), [0.0, 0.0]
        if label >= 0:
            share, general = giou(boxes[picture, place][None], corners[picture, place][None])
            wanted[label] = float(share)
            total += 2 * (1 - float(general))
        for kind in range(2):
            logit = logits[picture, place, kind]
            weight = 1.0 if wanted[kind] > 0 else float(logit.sigmoid()) ** 2
            total += weight * float(functional.binary_cross_entropy_with_logits(logit, torch.tensor(wanted[kind])))
    count = int((labels >= 0).sum())
    assert count > 5 and float(PointLoss(POINTS)((logits, distances), TARGETS)) == pytest.approx(
        total / count, rel=1e-4
    )
