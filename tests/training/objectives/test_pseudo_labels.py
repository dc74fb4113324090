"""Pseudo-labels: cross-entropy with what the teacher is sure of, sample by sample or pixel by pixel."""

import dataclasses

import pytest
import torch
from torch.nn import functional

from cortado.errors import BadValue
from cortado.training.objectives.pseudo_labels import PseudoLabels
from tests.training.objectives.given import given_step, random_numbers

MINE, TAUGHT = random_numbers(40, 5), 3 * random_numbers(40, 5, seed=1)
MAPS, TAUGHT_MAPS = random_numbers(2, 5, 4, 6), 3 * random_numbers(2, 5, 4, 6, seed=1)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("confidence", [0.0, 0.6, 0.9])
@pytest.mark.parametrize("maps", [False, True], ids=["samples", "maps"])
def test_only_what_the_teacher_is_sure_of_counts(soft, confidence, maps):
    mine, taught = (MAPS, TAUGHT_MAPS) if maps else (MINE, TAUGHT)
    step = given_step(mine, taught)
    found = PseudoLabels(confidence=confidence, soft=soft).terms(step)["pseudo_labels"]
    rows, wanted = (one.movedim(1, -1).reshape(-1, 5) for one in (mine, taught.softmax(1)))
    losses = [
        functional.cross_entropy(row[None], (each if soft else each.argmax())[None])
        for row, each in zip(rows, wanted, strict=True)
        if float(each.max()) >= confidence
    ]
    assert 0 < len(losses) < len(rows) or not confidence
    torch.testing.assert_close(found, torch.stack(losses).mean())
    assert float(step.figures["confident"]) == pytest.approx(len(losses) / len(rows))


@pytest.mark.parametrize("soft", [False, True])
def test_a_teacher_that_is_never_sure_teaches_nothing(soft):
    mine = MINE.clone().requires_grad_(True)
    step = given_step(mine, TAUGHT)
    loss = PseudoLabels(confidence=1.0, soft=soft).terms(step)["pseudo_labels"]
    (slope,) = torch.autograd.grad(loss, mine)
    assert float(loss.detach()) == 0 == float(step.figures["confident"]) == float(slope.abs().max())


def test_several_teachers_are_sure_together():
    other = 3 * random_numbers(40, 5, seed=2)
    step = given_step(MINE, TAUGHT, others=(other,))
    PseudoLabels(confidence=0.6).terms(step)
    mean = (TAUGHT.softmax(1) + other.softmax(1)) / 2
    assert float(step.figures["confident"]) == float((mean.max(1).values >= 0.6).double().mean())


def test_void_pixels_and_masked_classes_add_nothing():
    labels = torch.zeros(2, 4, 6, dtype=torch.long)
    labels[1] = -100
    step, alone = given_step(MAPS, TAUGHT_MAPS, targets=labels), given_step(MAPS[:1], TAUGHT_MAPS[:1])
    objective = PseudoLabels(confidence=0.6)
    assert float(objective.terms(step)["pseudo_labels"]) == pytest.approx(
        float(objective.terms(alone)["pseudo_labels"])
    )
    assert float(step.figures["confident"]) == pytest.approx(float(alone.figures["confident"]))
    masked = torch.tensor([[0.0, 0.0, 0.0, 0.0, -torch.inf]], dtype=torch.float64)
    mine, taught = ((one + masked).requires_grad_(True) for one in (MINE, TAUGHT))
    loss = PseudoLabels(confidence=0.3, soft=True).terms(given_step(mine, taught.detach()))["pseudo_labels"]
    assert bool(torch.isfinite(loss)) and bool(torch.isfinite(torch.autograd.grad(loss, mine)[0]).all())


def test_no_teacher_is_refused():
    with pytest.raises(BadValue, match="objectives/pseudo_labels: there is no teacher. Write teacher: original"):
        PseudoLabels().terms(dataclasses.replace(given_step(MINE), teachers=()))
