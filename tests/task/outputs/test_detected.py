"""Detected and FoundBoxes: how two detectors' answers are compared."""

import pytest
import torch
from torch.nn import functional

from cortado.boxes.anchors import Anchors
from cortado.boxes.detections import Detections
from cortado.boxes.points import PointGrid
from cortado.errors import BadTask
from cortado.task.outputs.detected import Detected, f1_of
from cortado.task.outputs.found_boxes import FoundBoxes, found_detections

ANCHORED = Detected(Detections(Anchors((8,), ((10.0,),), (1.0,)).on(24, 24)))
POINTED = Detected(Detections(PointGrid.on((8,), 24, 24)))


def outputs(seed, numbers=3, count=2):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(count, 9, numbers, generator=generator), torch.randn(count, 9, 4, generator=generator)


def test_divergence_is_the_weighted_sum_over_places():
    wanted, found = outputs(0), outputs(1)
    rows = ANCHORED.rows(wanted), ANCHORED.rows(found)
    for picture in range(2):
        p, q = wanted[0][picture].softmax(-1), found[0][picture].softmax(-1)
        objects = 1 - p[:, 0]
        kl = (p * (p / q).log()).sum(1)
        square = ((wanted[1] - found[1])[picture] ** 2).mean(1) / 2
        weight = objects.clamp(min=0.01)
        total = float((weight * kl).sum() / weight.sum() + (objects * square).sum() / objects.sum())
        assert float(ANCHORED.divergence(*rows)[picture]) == pytest.approx(total, rel=1e-5)
    assert ANCHORED.divergence(rows[0], rows[0]).tolist() == pytest.approx([0, 0], abs=1e-6)


def test_sigmoids_are_decisions_of_their_own():
    wanted, found = outputs(0), outputs(1)
    rows = POINTED.rows(wanted), POINTED.rows(found)
    p, q = wanted[0].sigmoid(), found[0].sigmoid()
    kl = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(-1)
    objects = p.sum(-1).clamp(max=1)
    weight = objects.clamp(min=0.01)
    classes = (weight * kl).sum(1) / weight.sum(1)
    assert torch.allclose(POINTED.apart(*rows, 1.0)[0], classes, rtol=1e-4)


@pytest.mark.parametrize("kind", [ANCHORED, POINTED])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_slopes_have_the_curvature_of_the_divergence(kind, temperature):
    logits, offsets = outputs(3, count=1)
    flat = torch.cat([logits.flatten(), offsets.flatten()]).double().requires_grad_()

    def rows(values):
        return values[: logits.numel()].view_as(logits), values[logits.numel() :].view_as(offsets)

    def apart(values):
        return kind.divergence(rows(flat.detach()), rows(values), temperature).sum()

    hessian = torch.autograd.functional.hessian(apart, flat.detach())
    generator, total = torch.Generator().manual_seed(0), torch.zeros_like(hessian)
    draws = 4000
    for _ in range(draws):
        (slope,) = torch.autograd.grad(kind.slope(rows(flat), temperature, generator), flat)
        total += slope[:, None] * slope[None] / draws
    assert torch.allclose(total.diagonal(), hessian.diagonal(), atol=0.1 * float(hessian.diagonal().max()))
    assert float((total - hessian).norm() / hessian.norm()) < 0.25


def test_temperature_keeps_the_size_of_gradients():
    wanted, found = (ANCHORED.rows(outputs(seed)) for seed in (0, 1))
    classes, offsets = ANCHORED.apart(wanted, found, 3.0)
    assert torch.allclose(ANCHORED.distilled(wanted, found, 3.0), 9 * classes + offsets)
    assert ANCHORED.softens


def detection(boxes, scores, labels):
    return {"boxes": torch.tensor(boxes), "scores": torch.tensor(scores), "labels": torch.tensor(labels)}


def test_agreement_is_the_f1_of_matched_boxes():
    wanted = detection([[0.0, 0, 10, 10], [20.0, 0, 30, 10], [40.0, 0, 50, 10]], [0.9, 0.8, 0.2], [0, 1, 1])
    found = detection([[0.0, 0, 10, 9], [1.0, 0, 10, 10], [20.0, 0, 30, 10]], [0.9, 0.8, 0.7], [0, 0, 0])
    assert f1_of(wanted, found, 0.4) == pytest.approx(2 * 1 / 5), (
        "one pair: a second one on the same box is wrong, and a class"
    )
    assert f1_of(wanted, wanted, 0.4) == f1_of(wanted, wanted, 0.1) == 1
    assert f1_of(wanted, found, 0.95) == 1, "both see nothing"
    assert f1_of(wanted, found, 0.85) == 1 and f1_of(found, detection([[0.0] * 4], [0.0], [0]), 0.4) == 0


def test_two_detectors_with_the_same_boxes_agree():
    rows = ANCHORED.rows(outputs(0))
    assert ANCHORED.agreement(rows, rows).tolist() == [1, 1]
    # Logits that all move by the same amount are the same probabilities.
    assert ANCHORED.agreement(rows, (rows[0] + 5, rows[1])).tolist() == [1, 1]
    assert float(ANCHORED.agreement(rows, (rows[0], rows[1] + 30)).max()) < 1


def test_a_kind_needs_a_pair_of_outputs():
    with pytest.raises(BadTask, match="a detector must return a pair"):
        ANCHORED.rows(torch.zeros(2, 9, 7))


WHOLE = (torch.tensor([[[0.0, 0, 9, 9], [0, 0, 0, 0]]]), torch.tensor([[0.75, 0.0]]), torch.tensor([[1, -1]]))


def test_boxes_that_were_found_are_compared_as_boxes():
    kind = FoundBoxes()
    rows = kind.rows(WHOLE)
    other = kind.rows((WHOLE[0] + 20, WHOLE[1] - 0.25, WHOLE[2]))
    assert kind.agreement(rows, rows).tolist() == [1] and kind.agreement(rows, other).tolist() == [0]
    assert kind.divergence(rows, other).tolist() == pytest.approx([0.5 * 0.25**2])
    (one,) = found_detections(WHOLE)
    assert one["labels"].tolist() == [1] and one["boxes"].tolist() == [[0, 0, 9, 9]]


@pytest.mark.parametrize("given", [WHOLE[:2], WHOLE[::-1], torch.zeros(3)])
def test_what_is_no_triple_of_boxes_is_refused(given):
    with pytest.raises(BadTask, match="Wrap the network as Detector"):
        FoundBoxes().rows(given)


def test_distillation_moves_a_detector_to_its_teacher():
    wanted = ANCHORED.rows(outputs(0))
    values = [one.clone().requires_grad_() for one in outputs(1)]
    optimizer = torch.optim.Adam(values, 0.05)
    for _ in range(400):
        optimizer.zero_grad()
        ANCHORED.distilled(wanted, ANCHORED.rows(tuple(values)), 2.0).sum().backward()
        optimizer.step()
    rows = ANCHORED.rows(tuple(one.detach() for one in values))
    assert ANCHORED.agreement(wanted, rows).tolist() == [1, 1]
    assert functional.kl_div(rows[0].log_softmax(-1), wanted[0].log_softmax(-1), reduction="sum", log_target=True) < 0.3
