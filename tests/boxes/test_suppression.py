"""Non-maximum suppression against the greedy loop."""

import pytest
import torch

from cortado.boxes.overlap import overlap
from cortado.boxes.suppression import stays_of, suppressed
from cortado.errors import BadValue


def drawn(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 20
    return torch.cat([low, low + 4 + 8 * torch.rand(count, 2, generator=generator)], 1), torch.rand(
        count, generator=generator
    )


def greedy(boxes, scores, least):
    left, kept = scores.argsort(descending=True, stable=True).tolist(), []
    while left:
        first = left.pop(0)
        kept.append(first)
        left = [one for one in left if float(overlap(boxes[first : first + 1], boxes[one : one + 1])) <= least]
    return kept


@pytest.mark.parametrize("least", [0.0, 0.3, 0.5, 1.0])
def test_the_boxes_of_the_greedy_loop_stay(least):
    for seed in range(5):
        boxes, scores = drawn(40, seed)
        assert suppressed(boxes, scores, least).tolist() == greedy(boxes, scores, least)


def test_without_boxes_none_stays():
    assert suppressed(torch.zeros(0, 4), torch.zeros(0)).tolist() == []


def chain(count):
    """Boxes each of which overlaps only its neighbours."""
    at = torch.arange(float(count))[:, None] * 6
    return torch.cat([at, torch.zeros_like(at), at + 10, torch.full_like(at, 10)], 1)


def test_as_many_rounds_as_a_chain_is_long_are_exact():
    boxes = chain(9)
    exact = stays_of(boxes, 0.2)
    assert exact.tolist() == [True, False] * 4 + [True]
    assert torch.equal(stays_of(boxes, 0.2, rounds=8), exact)
    assert not torch.equal(stays_of(boxes, 0.2, rounds=5), exact)
    assert torch.equal(stays_of(boxes, 0.2, rounds=5)[:6], exact[:6]), "the first ones are right sooner"


def test_boxes_of_another_shape_are_refused():
    with pytest.raises(BadValue, match="boxes of one picture"):
        suppressed(torch.zeros(2, 3, 4), torch.zeros(2, 3))
