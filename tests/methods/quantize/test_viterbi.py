"""Viterbi: no other codes cost less, and a trellis beats one even grid."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from cortado.methods.quantize.code_rates import CONTEXTS, LARGEST, contexts_of, rates_of
from cortado.methods.quantize.coded_plane import CodedPlane, find_codes
from cortado.methods.quantize.viterbi import Segment, best_segments
from cortado.parts.forms.states import LAWS, levels_of
from cortado.progress import quiet


def some_rates(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.arange(LARGEST + 1) * 0.7 + torch.rand(CONTEXTS, 2, LARGEST + 1, generator=generator)).float()


def cost(codes: Tensor, one: Segment, law, rates: Tensor, bit_cost: float) -> float:
    """The cost of some codes, worked out from the definition."""
    grid = torch.zeros(len(codes), dtype=torch.long)
    level = codes
    if law is not None:
        level, state = levels_of(codes, law, len(codes)), 0
        for place, code in enumerate(codes.tolist()):
            grid[place] = state & 1
            state = law.after(state, code & 1)
    error = (one.weights * (level - one.sizes).square()).sum()
    return float(error + bit_cost * rates[one.contexts, grid, codes.long()].sum())


@pytest.mark.parametrize("states", [None, *LAWS])
@pytest.mark.parametrize("bit_cost", [0.0, 0.4])
def test_no_other_codes_cost_less(states, bit_cost):
    generator = torch.Generator().manual_seed(5)
    segments = [
        Segment(
            torch.rand(length, generator=generator) * 4,
            torch.rand(length, generator=generator) + 0.1,
            torch.randint(0, CONTEXTS, (length,), generator=generator),
        )
        for length in (6, 3, 5)
    ]
    law, rates = (None if states is None else LAWS[states]), some_rates(1)
    for one, found in zip(segments, best_segments(segments, law, rates, bit_cost), strict=True):
        tried = itertools.product(range(5), repeat=len(one.sizes))
        least = min(cost(torch.tensor(codes, dtype=torch.int32), one, law, rates, bit_cost) for codes in tried)
        assert cost(found, one, law, rates, bit_cost) == pytest.approx(least, rel=1e-5)


def entropy(codes: Tensor, grids: Tensor) -> float:
    """Bits a code, of the codes of each grid on their own; signs included."""
    bits = 0.0
    for grid in (0, 1):
        counts = torch.bincount(codes[grids == grid].flatten().long()).double()
        counts = counts[counts > 0]
        bits -= float((counts * (counts / counts.sum()).log2()).sum())
    return (bits + float((codes != 0).sum())) / codes.numel()


def distance_to_bound(values: Tensor, states: int | None, step: float) -> float:
    """Decibels between signal to noise ratio and 6.02 x bits, the bound for normal values."""
    law = None if states is None else LAWS[states]
    plane = CodedPlane(values, torch.ones_like(values), torch.zeros(values.shape, dtype=torch.int64), "tensor")
    plane.set_scale(step)
    find_codes([plane], law, 0.12 if law is None else 0.3, 3, quiet())
    form = plane.form()
    error = float((form.dense().detach() - values).square().mean())
    codes = form.lattice().codes.abs() if law is None else form.codes().abs()
    grids = torch.zeros_like(codes) if law is None else form.grids()
    return 10 * math.log10(float(values.square().mean()) / error) - 20 * math.log10(2) * entropy(codes, grids)


def test_more_states_come_closer_to_the_bound_for_normal_values():
    """Entropy-coded even grids stay 1.53 dB below it; trellises of 4 and 8 states 0.6 and 0.7 dB closer."""
    values = torch.randn(64, 1024, generator=torch.Generator().manual_seed(0))
    even, four, eight, many = (
        distance_to_bound(values, states, step) for states, step in ((None, 0.5), (4, 0.3), (8, 0.3), (32, 0.3))
    )
    assert -1.6 < even < -1.45
    assert even + 0.6 < four < eight < many < 0


def test_contexts_follow_rows_and_columns():
    sizes = torch.ones(4, 8, 3, 3)
    sizes[2] *= 8
    sizes[:, 5] *= 8
    contexts = contexts_of(sizes)
    assert contexts.min() >= 0 and contexts.max() < CONTEXTS
    assert int(contexts[2, 0, 0, 0]) > int(contexts[0, 0, 0, 0]) < int(contexts[0, 5, 0, 0]) < int(contexts[2, 5, 0, 0])


def test_rates_are_those_of_a_code():
    """By Kraft's inequality, with one bit of each nonzero for its sign."""
    codes = torch.randint(0, 6, (1000,), generator=torch.Generator().manual_seed(0))
    bits = rates_of(codes, codes * 0, codes * 0)
    shares = 2.0 ** -bits.double()
    shares[..., 1:] *= 2
    torch.testing.assert_close(shares.sum(2), torch.ones(CONTEXTS, 2, dtype=torch.float64))
    assert float(bits[0, 0, 3]) == pytest.approx(1 + math.log2(6), abs=0.2)
