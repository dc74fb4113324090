"""Compact blocks compute what they say, and come back from their facts."""

import pytest
import torch
from torch import nn

from cortado.errors import BadValue
from cortado.parts.blocks.fire_module import FireModule
from cortado.parts.blocks.grouped import Grouped
from cortado.parts.blocks.picked import changes_places, set_order
from cortado.parts.blocks.pooled_linear import PooledLinear
from cortado.parts.blocks.window import has_middle, point_window, window_of, windowed


def window(**changes: int) -> dict[str, int]:
    return window_of(nn.Conv2d(1, 1, 3, padding=1)) | changes


def test_point_reads_the_middle_of_the_kernel():
    layer = nn.Conv2d(2, 3, (3, 5), stride=(1, 2), padding=(2, 4), dilation=(2, 1), bias=False)
    point = windowed(point_window(window_of(layer)), 2, 3, False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, :, 1:2, 2:3] = point.weight
    values = torch.randn(2, 2, 9, 11)
    torch.testing.assert_close(point(values), layer(values))


def test_kernels_without_a_middle_are_known():
    assert has_middle(window()) and not has_middle(window(pad_high=0)) and not has_middle(window(wide=4))


def test_fire_is_two_kernels_side_by_side_in_an_order():
    block = FireModule(4, 2, 1, 2, window(), True, True, True)
    set_order(block.after, torch.tensor([2, 0, 1]))
    values = torch.randn(2, 4, 5, 5)
    inner = torch.relu(block.squeeze(values))
    sides = torch.cat([block.point(inner), block.expand(inner)], 1)
    assert torch.equal(block(values), sides[:, [2, 0, 1]])


def test_grouped_picks_before_and_after():
    block = Grouped(4, 6, 2, window(), False, True, True)
    set_order(block.before, torch.tensor([3, 1, 0, 2]))
    set_order(block.after, torch.tensor([5, 4, 3, 2, 1, 0]))
    values = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(values), block.conv(values[:, [3, 1, 0, 2]]).flip(1))


def test_pooled_linear_is_a_linear_layer_on_means():
    block, maps = PooledLinear(3, 8, 5), torch.randn(2, 3, 2, 4)
    torch.testing.assert_close(block(maps.flatten(1)), block.linear(maps.mean((2, 3))))


@pytest.mark.parametrize(
    "block",
    [
        Grouped(4, 6, 2, window(stride_wide=2), True, True, False),
        FireModule(4, 2, 0, 3, window(), False, False, True),
        FireModule(4, 2, 3, 0, window(), True, True, False),
        PooledLinear(3, 4, 2, False),
    ],
)
def test_facts_make_the_block_again(block):
    again = type(block).from_parts(torch.Size(), block.spec(), {})
    assert again.spec() == block.spec()
    again.load_state_dict(block.state_dict())
    values = torch.randn(2, 12) if isinstance(block, PooledLinear) else torch.randn(2, 4, 5, 5)
    assert torch.equal(again(values), block(values))


def test_orders_that_move_nothing_are_known():
    assert changes_places(torch.tensor([1, 0])) and not changes_places(torch.arange(3))


def test_impossible_sizes_are_refused_in_words():
    with pytest.raises(BadValue, match="3 groups do not divide 4 inputs and 6 outputs"):
        Grouped(4, 6, 3, window(), True, False, False)
    with pytest.raises(BadValue, match="blocks/fire_module: it needs kernels with a middle"):
        FireModule(4, 2, 1, 1, window(high=2), True, False, False)
    with pytest.raises(BadValue, match="blocks/pooled_linear: sizes must be at least 1, got 0, 4, 2"):
        PooledLinear(0, 4, 2)
