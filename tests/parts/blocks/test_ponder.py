"""Ponder computes what the papers say, place by place, and halted places keep their values."""

import copy

import pytest
import torch
from torch import nn

from cortado.errors import BadValue
from cortado.file.artifact import decode, encode
from cortado.nets.resnet import BasicBlock, stage
from cortado.network.view import View
from cortado.parts.blocks.ponder import EPSILON, Ponder

MAPS = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def ponder(by, bias=-0.5, blocks=4):
    torch.manual_seed(1)
    block = Ponder(stage(blocks, 4, 8, 2).eval(), 4, 8, by).eval()
    with torch.no_grad():
        for score in block.ponder_scores:
            score.pooled.weight.normal_()
            score.pooled.bias.fill_(bias)
            if score.near is not None:
                score.near.weight.normal_(std=0.3)
    return block


def by_hand(block, maps):
    """Graves, 2016, sections 2 and 2.1, one place after the other: output, ponder cost, blocks passed."""
    places = (slice(None),) if block.how == "sample" else (slice(None), slice(None), slice(None))
    shape = (3,) if block.how == "sample" else (3, 3, 3)
    units = list(block.inner)
    value = units[0](maps)
    output, total, cost = torch.zeros_like(value), torch.zeros(shape), torch.zeros(shape)
    halted, passed = torch.zeros(shape, dtype=torch.bool), torch.ones(shape)
    for number in range(len(units)):
        if number:
            new = units[number](value)
            for place in (~halted).nonzero().tolist():
                value[place[0], :, *place[1:]] = new[place[0], :, *place[1:]]
                passed[tuple(place)] += 1
        last = number + 1 == len(units)
        score = torch.ones(shape) if last else block.ponder_scores[number](value)
        for place in (~halted).nonzero().tolist():
            at = tuple(place)
            if total[at] + score[at] >= 1 - EPSILON:
                weight, halted[at] = 1 - total[at], True
                cost[at] = passed[at] + weight
            else:
                weight = score[at]
            total[at] += score[at]
            output[place[0], :, *place[1:]] += weight * value[place[0], :, *place[1:]]
    assert bool(halted.all()) and places
    return output, cost, passed


@pytest.mark.parametrize("by", ["sample", "position"])
@pytest.mark.parametrize("bias", [-2.0, -0.5, 1.0])
def test_it_computes_what_the_papers_say(by, bias):
    block, costs = ponder(by, bias), []
    block.ponder_cost.register_forward_hook(lambda module, given, cost: costs.append(cost))
    with torch.no_grad():
        output, cost, passed = by_hand(block, MAPS)
        torch.testing.assert_close(block(MAPS), output)
    torch.testing.assert_close(costs[0], cost)
    ran = torch.stack([choice.ran.rows for choice in block.ponder_choices])
    assert torch.equal(1 + ran.sum(0), passed)


@pytest.mark.parametrize("by", ["sample", "position"])
def test_places_that_never_halt_pass_all_blocks_and_give_the_last_value(by):
    block = ponder(by, -40.0)
    torch.testing.assert_close(block(MAPS), block.inner(MAPS))


@pytest.mark.parametrize("by", ["sample", "position"])
def test_places_that_halt_at_once_give_the_first_value(by):
    block = ponder(by, 40.0)
    torch.testing.assert_close(block(MAPS), block.inner[0](MAPS))
    assert not any(bool(choice.ran.rows.any()) for choice in block.ponder_choices)


@pytest.mark.parametrize("by", ["sample", "position"])
def test_cost_teaches_scores_to_rise(by):
    block, costs = ponder(by, -1.0).train(), []
    block.ponder_cost.register_forward_hook(lambda module, given, cost: costs.append(cost))
    block(MAPS)
    costs[0].mean().backward()
    assert float(block.ponder_scores[0].pooled.bias.grad) < 0


def test_a_sample_does_not_depend_on_its_neighbours():
    for by in ("sample", "position"):
        block = ponder(by)
        with torch.no_grad():
            torch.testing.assert_close(block(MAPS)[1:2], block(MAPS[1:2]))


@pytest.mark.parametrize("by", ["sample", "position"])
def test_file_gives_it_back(by):
    original = nn.Sequential(nn.Identity(), stage(3, 4, 8, 2)).eval()
    network = copy.deepcopy(original)
    View(network, original, MAPS).wrap("1", Ponder(network.get_submodule("1"), 4, 8, by, 1).eval())
    again = decode(encode(network, original), original)
    assert again.get_submodule("1").spec() == network.get_submodule("1").spec()
    assert torch.equal(again(MAPS), network(MAPS))


@pytest.mark.parametrize(
    ("inner", "axes", "how"),
    [
        (stage(1, 4, 8, 2), 4, "sample"), (BasicBlock(4, 4, 1), 4, "sample"), (stage(2, 4, 8, 2), 3, "position"),
        (stage(2, 4, 8, 2), 4, "row"), (stage(2, 4, 8, 2), 5, "sample"),
    ],
)  # fmt: skip
def test_what_cannot_halt_is_refused(inner, axes, how):
    with pytest.raises(BadValue, match="blocks/ponder: "):
        Ponder(inner, axes, 8, how)
