"""Packed weights: codes in blocks are the weight they stand for, and where there are none it is said why."""

import pytest
import torch
from torch import nn

from cortado.lowering.lower import lowered
from cortado.lowering.packed import Packed, packed_of, rescaled
from cortado.lowering.products import LoweredWeight, products_of
from cortado.parts.forms.attach import attach, form_of
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.quantized import Quantized


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("layout", "group", "columns", "block"),
    [
        ("group", 16, 64, 16), ("group", 64, 128, 64), ("group", 32, 72, 32), ("group", 48, 96, 16),
        ("group", 256, 512, 128), ("group", 50, 50, 64), ("channel", 0, 40, 64), ("channel", 0, 300, 128),
        ("channel", 0, 7, 16), ("tensor", 0, 40, 64),
    ],
)  # fmt: skip
def test_packed_codes_are_the_weight(layout, group, columns, block, bits, symmetric):
    form = Quantized.of(drawn(6, columns), bits, layout, group, symmetric)
    packed = packed_of(form)
    assert packed.block == block and packed.bits == (2 if bits < 3 else 4)
    assert torch.equal(packed.dense(), form.dense().detach())
    assert int(packed.codes.max()) < 2**packed.bits and (packed.zeros is None) == symmetric
    assert torch.equal(packed.at_least(4).dense(), form.dense().detach()) and packed.at_least(4).bits == 4


def test_codes_counted_from_anywhere_are_packed():
    form = Quantized(torch.tensor([[100, 103], [102, 101]]), torch.ones(2), torch.tensor([101, 100]), "channel")
    packed = packed_of(form)
    assert packed.bits == 2 and torch.equal(packed.dense(), torch.tensor([[-1.0, 2.0], [2.0, 1.0]]))


@pytest.mark.parametrize(
    ("form", "describe"),
    [
        (Quantized.of(drawn(4, 40), 4, "group", 10), "no power of two from 16 on divides its groups of 10"),
        (Quantized.of(drawn(4, 32).double(), 4, "channel"), "its scales are float64"),
        (Quantized(torch.tensor([[0, 15]]), torch.ones(1)), "take more than 4 bits"),
        (Quantized(torch.tensor([[0, 3]]), torch.ones(1), torch.tensor([40])), "take more than 4 bits"),
    ],
)
def test_codes_that_fit_no_blocks_say_why(form, describe):
    assert describe in packed_of(form)


def test_scales_take_what_was_folded_into_rows():
    form = Quantized.of(drawn(5, 32), 4, "group", 16)
    with torch.no_grad():
        form.scale[4:6] = 0.0
    factors = torch.tensor([-0.5, 0.0, 1.0, 3.0, 1.0])[:, None]
    weight = form.dense().detach() * factors
    torch.testing.assert_close(rescaled(packed_of(form), weight).dense(), weight)
    assert rescaled(packed_of(form), weight + 0.01) == "rewriting changed its values, and its codes no longer give them"


def few(network: nn.Module, bits: int = 4, layout: str = "channel", group: int = 0) -> nn.Module:
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            attach(layer, "weight", Quantized.of(layer.weight.detach(), bits, layout, group))
    return network.eval()


def test_layers_of_at_most_four_bits_are_narrow():
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Flatten(), few(nn.Linear(8, 4)), nn.Linear(4, 4), few(nn.Linear(4, 3), 5)
    )
    attach(network[0], "weight", Quantized.of(network[0].weight.detach(), 4, "channel"))
    values = network[3].weight.detach()
    attach(network[3], "weight", Dense(values).select(values > 0).map_values(lambda kept: Quantized.of(kept, 4)))
    low = lowered(network, drawn(2, 1, 3, 6))
    few_bits = [one.path for one in products_of(low, drawn(2, 1, 3, 6)) if one.weight.few_bits]
    assert few_bits == ["0", "2", "3"], "zeros outside a mask are codes of the same grid"


def test_lowered_network_keeps_codes_beside_folded_norms():
    torch.manual_seed(0)
    network = few(nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)))
    network[1].running_mean.normal_()
    network[1].weight.data.uniform_(-1, 1)
    inputs = drawn(5, 20)
    low = lowered(network, inputs)
    assert isinstance(low[1], nn.Identity)
    found = products_of(low, inputs)
    for one in found:
        assert isinstance(one.weight.packed, Packed)
        torch.testing.assert_close(one.weight.packed.dense(), low.get_submodule(one.path).weight)
    torch.testing.assert_close(low(inputs), network(inputs))
    assert [one.path for one in found] == ["0", "3"]


def test_tied_weights_stay_one():
    network = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16), nn.Embedding(16, 16))
    form = Quantized.of(drawn(16, 16), 4, "channel")
    for layer in network:
        attach(layer, "weight", form)
    low = lowered(nn.Sequential(*network[:2]), drawn(2, 16))
    one, two = products_of(low, drawn(2, 16))
    assert one.weight is two.weight
    assert low[0].weight is low[1].weight
    assert isinstance(form_of(low[0], "weight"), LoweredWeight) and form_of(low[0], "weight") is form_of(
        low[1], "weight"
    )
    assert sum(value.numel() for value in low.state_dict().values()) <= 2 * 16 * 16 + 2 * 16
