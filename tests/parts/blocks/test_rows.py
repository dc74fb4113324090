"""Rows: picking, the first sure answer, confidences."""

import pytest
import torch

from cortado.errors import BadValue
from cortado.parts.blocks.rows import NEVER, ChooseRows, FirstSure, chooses_rows, confidence


def test_each_row_is_one_of_two_and_gradients_go_to_what_was_picked():
    mask = torch.tensor([True, False, True])
    one, other = (torch.randn(3, 2, 4, requires_grad=True) for _ in range(2))
    choose = ChooseRows()
    found = choose(mask, one, other)
    assert torch.equal(found, torch.stack([one[0], other[1], one[2]]))
    found.sum().backward()
    assert one.grad[mask].eq(1).all() and one.grad[~mask].eq(0).all() and other.grad[mask].eq(0).all()
    assert torch.equal(choose.ran.rows, mask)


def test_the_last_answer_is_given_until_thresholds_are_set():
    answers = [torch.randn(5, 3) * 9 for _ in range(3)]
    sure = FirstSure(3)
    assert torch.equal(sure(*answers), answers[2]) and sure.left_at().eq(2).all() and sure.thresholds.eq(NEVER).all()


def test_the_first_answer_above_its_threshold_is_given():
    certain, unsure = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.1, 0.0]])
    first = torch.cat([certain, unsure, unsure])
    second = torch.cat([-certain, -certain, -unsure])
    last = torch.full((3, 2), 5.0)
    sure = FirstSure(3)
    sure.thresholds.copy_(torch.tensor([0.9, 0.9]))
    assert sure(first, second, last).tolist() == [first[0].tolist(), second[1].tolist(), last[2].tolist()]
    assert sure.left_at().tolist() == [0, 1, 2]


def test_a_confidence_that_is_no_number_goes_on():
    sure = FirstSure(2)
    sure.thresholds.fill_(0.0)
    last = torch.ones(1, 2)
    assert torch.equal(sure(torch.tensor([[float("nan"), 1.0]]), last), last)


def test_confidences_are_the_largest_probability_or_its_lead():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1]]))
    assert confidence(logits, "top").item() == pytest.approx(0.7)
    assert confidence(logits, "margin").item() == pytest.approx(0.5)
    places = logits[..., None].expand(1, 3, 4)
    assert confidence(places, "top").item() == pytest.approx(0.7)


def test_copies_have_not_run():
    import copy

    sure = FirstSure(2)
    sure(torch.randn(2, 3), torch.randn(2, 3))
    assert copy.deepcopy(sure).choices[0].ran.rows is None and chooses_rows(sure)


def test_one_answer_and_unknown_rules_are_refused():
    with pytest.raises(BadValue, match="two answers or more"):
        FirstSure(1)
    with pytest.raises(BadValue, match="top, margin"):
        FirstSure(2, "entropy")
