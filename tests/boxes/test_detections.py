"""Detections: from outputs to boxes, class by class."""

import pytest
import torch

from cortado.boxes.anchors import Anchors
from cortado.boxes.detections import Detections
from cortado.boxes.suppression import suppressed
from cortado.errors import BadTask, BadValue

GRID = Anchors((8,), ((10.0,),), (1.0,)).on(32, 32)


def outputs(seed, count=3):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(count, 16, 4, generator=generator), torch.randn(count, 16, 4, generator=generator)


def slow(logits, offsets, least, limit, most):
    """All boxes of a picture, class by class."""
    scores, boxes, rows = logits.softmax(-1)[:, 1:], GRID.decoded(offsets), []
    for label in range(3):
        able = (scores[:, label] > least).nonzero().flatten()
        for kept in able[suppressed(boxes[able], scores[able, label], limit)].tolist():
            rows.append((float(scores[kept, label]), label, boxes[kept].tolist()))
    return sorted(rows, key=lambda row: -row[0])[:most]


@pytest.mark.parametrize(("least", "limit", "most"), [(0.01, 0.3, 100), (0.3, 0.1, 100), (0.05, 0.5, 7)])
def test_boxes_are_those_of_each_class_alone(least, limit, most):
    given = outputs(0)
    found = Detections(GRID, least, limit, most)(given)
    for number, one in enumerate(found):
        wanted = slow(given[0][number], given[1][number], least, limit, most)
        assert one["labels"].tolist() == [row[1] for row in wanted]
        assert torch.allclose(one["scores"], torch.tensor([row[0] for row in wanted]))
        assert torch.allclose(one["boxes"], torch.tensor([row[2] for row in wanted]).reshape(-1, 4))


def test_a_picture_without_objects_has_no_box():
    logits, offsets = outputs(1)
    logits[1, :, 0] = 50
    found = Detections(GRID)((logits, offsets))
    assert len(found[1]["scores"]) == 0 and len(found[0]["scores"]) > 0
    logits[:, :, 0] = 50
    assert [len(one["boxes"]) for one in Detections(GRID)((logits, offsets))] == [0, 0, 0]


def test_padding_has_no_class_and_no_score():
    boxes, scores, labels = Detections(GRID, least=0.5).padded(outputs(2), rounds=16)
    empty = labels == -1
    assert boxes.shape == (3, 48, 4) and empty.any() and not empty.all()
    assert not scores[empty].any() and not boxes[empty].any() and bool((scores[~empty] > 0.5).all())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.zeros(2, 16, 4), r"pair: logits .*, got \[\(2, 16, 4\)\]"),
        ((torch.zeros(2, 16, 4), torch.zeros(2, 16, 3)), "pair: logits"),
        ((torch.zeros(2, 9, 4), torch.zeros(2, 9, 4)), "at 9 places, and its anchors are 16"),
        ("boxes", "got str"),
    ],
)
def test_outputs_of_another_kind_are_refused(given, words):
    with pytest.raises(BadTask, match=words):
        Detections(GRID)(given)


@pytest.mark.parametrize("knobs", [{"least": 2.0}, {"overlap": -0.1}, {"most": 0}, {"candidates": 0}])
def test_values_outside_of_their_ranges_are_refused(knobs):
    with pytest.raises(BadValue, match="Write Detections"):
        Detections(GRID, **knobs)
