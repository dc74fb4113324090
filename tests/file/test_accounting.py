"""Accounting against an example done by hand, and against a second computation that shares no code."""

import copy
import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cortado.errors import WrongNetwork
from cortado.file.accounting import (
    accounts,
    best_gap_width,
    histogram_of,
    index_cost,
    layer_rows,
    pictures,
)
from cortado.file.artifact import encode
from cortado.file.contents import read_contents
from cortado.file.symbols import Symbols, symbols_of
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.quantizer import put_quantizer
from cortado.parts.forms.attach import attach
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Form
from cortado.parts.forms.learned_step import LearnedStep
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized


def by_hand() -> Masked:
    """6 x 6, six weights kept at 0, 3, 4, 12, 13 and 35 in reading order, three shared values."""
    mask = torch.zeros(36, dtype=torch.bool)
    mask[torch.tensor([0, 3, 4, 12, 13, 35])] = True
    return Masked(mask.view(6, 6), Codebook(torch.tensor([0.5, -0.25, 2.0]), torch.tensor([0, 0, 1, 0, 0, 2])))


def square(form: Form) -> tuple[nn.Module, nn.Module]:
    """An original layer and the same one with its weight held in `form`."""
    original = nn.Sequential(nn.Linear(form.shape[1], form.shape[0]))
    small = copy.deepcopy(original)
    attach(small[0], "weight", form)
    return original, small


def coded_at_random(seed: int, values: int, share: float, shape: tuple[int, int] = (24, 31)) -> Masked:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(shape, generator=generator) < share
    codebook = torch.randn(values, generator=generator)
    picks = (torch.randn(int(mask.sum()), generator=generator) * values / 6 + values / 2).round()
    return Masked(mask, Codebook(codebook, picks.clamp(0, values - 1).long()))


def fixed_codes(sums: Counter) -> float:
    """Bits of all symbols under Huffman's code: the sum of all merged weights (Huffman, 1952)."""
    weights, total = sorted(sums.values()), 0
    if len(weights) == 1:
        return float(weights[0])
    while len(weights) > 1:
        merged = weights.pop(0) + weights.pop(0)
        total += merged
        weights = sorted([*weights, merged])
    return float(total)


def walked(weight: Tensor, gap_bits: int) -> tuple[list[int], list[float]]:
    """Gaps and values found by walking over the weight: a filler zero wherever a gap is too long."""
    gaps: list[int] = []
    values: list[float] = []
    run = 0
    for value in weight.flatten().tolist():
        if value != 0 or run == 2**gap_bits - 1:
            still_to_come = value != 0 or any(v != 0 for v in weight.flatten().tolist()[sum(gaps) + len(gaps) + run :])
            if not still_to_come:
                break
            gaps.append(run)
            values.append(value)
            run = 0
        else:
            run += 1
    return gaps, values


def test_layer_rows_gives_the_figures_done_by_hand() -> None:
    original, small = square(by_hand())
    row = layer_rows(small, original)[0]
    # Gaps of 3 bits: 0 2 0 7 0 and 21 = 7 and a filler, 7 and a filler, 5; three values and the filler's zero: 2 bits.
    assert (row.path, row.shape, row.form) == ("0.weight", (6, 6), "masked(codebook)")
    assert (row.entries, row.original_entries, row.nonzeros, row.stored) == (36, 36, 6, 8)
    assert (row.value_bits, row.index_bits) == (2.0, 3.0)
    # Values 4 1 1 and 2 fillers need 4 x 1 + 2 x 2 + 3 + 3 = 14 bits; gaps 0 7 2 5, 3 3 1 1 times, need 15.
    assert row.value_bits_huffman == 14 / 8
    assert row.index_bits_huffman == 15 / 8
    assert row.coded_bits == 8 * (2 + 3) + 3 * 32
    assert row.coded_bits_huffman == 14 + 15 + 3 * 32
    assert row.original_bits == 36 * 32
    assert row.rate == pytest.approx(136 / 1152)
    assert row.rate_huffman == pytest.approx(125 / 1152)
    assert row.kept == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("seed", "values", "share"), [(0, 32, 0.08), (1, 4, 0.02), (2, 17, 0.5), (3, 256, 0.3), (4, 2, 0.01)]
)
def test_layer_rows_agree_with_a_walk_over_the_dense_weight(seed: int, values: int, share: float) -> None:
    form = coded_at_random(seed, values, share)
    original, small = square(form)
    row = layer_rows(small, original)[0]
    weight = form.dense().detach()

    def fixed_bits(gap_bits: int) -> tuple[int, int]:
        _, stored = walked(weight, gap_bits)
        # Codes are numbers between the least and the greatest rank in use, and zero where there is a filler.
        ranks = torch.argsort(torch.argsort(form.kept.codebook.detach()))[form.kept.codes.long()] + 1
        used = {*ranks.tolist()} | ({0} if 0 in stored else set())
        value_bits = max(1, math.ceil(math.log2(max(used) - min(used) + 1)))
        return len(stored) * (gap_bits + value_bits), value_bits

    gap_bits = min(range(1, 11), key=lambda width: fixed_bits(width)[0])
    gaps, stored = walked(weight, gap_bits)
    assert row.index_bits == gap_bits
    assert row.stored == len(stored)
    assert row.value_bits == fixed_bits(gap_bits)[1]
    assert row.coded_bits == fixed_bits(gap_bits)[0] + 32 * values
    assert row.value_bits_huffman == pytest.approx(fixed_codes(Counter(stored)) / len(stored))
    assert row.index_bits_huffman == pytest.approx(fixed_codes(Counter(gaps)) / len(stored))
    assert row.coded_bits_huffman == fixed_codes(Counter(stored)) + fixed_codes(Counter(gaps)) + 32 * values


def test_the_convention_gives_the_rates_of_the_papers_table() -> None:
    # AlexNet conv1: 84 % of 34,848 weights, 8 bits and 4 bits of index, 256 shared values: 32.6 % of 32 bits.
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(96, 363, generator=generator) < 0.84
    codes = torch.randint(256, (int(mask.sum()),), generator=generator)
    cost = index_cost(symbols_of(Masked(mask, Codebook(torch.linspace(-1, 1, 256), codes))))
    papers = cost.stored * (8 + 4) + 256 * 32
    assert papers / (34848 * 32) == pytest.approx(0.326, abs=0.006)
    assert cost.coded_bits < papers  # the best gap width is no worse than the paper's


def test_layer_rows_measure_the_bytes_of_the_file() -> None:
    original, small = square(by_hand())
    body = encode(small, original)
    rows = layer_rows(small, original, body)
    assert [row.size_bytes for row in rows] == [record.size_bytes for record in read_contents(body).records]
    head = len(body) - sum(row.size_bytes for row in rows)
    assert 0 < head < 40
    assert rows[0].file_rate == pytest.approx(rows[0].size_bytes / 144)
    assert rows == layer_rows(small, original)


def test_layer_rows_are_unknown_where_nothing_is_coded() -> None:
    original = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    small = copy.deepcopy(original)
    attach(small[0], "weight", Dense(original[0].weight).select(original[0].weight > 0))
    rows = {row.path: row for row in layer_rows(small, original)}
    norm = ["1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert list(rows) == ["0.weight", "0.bias", *norm]
    assert rows["0.weight"].form == "masked(dense)"
    assert rows["0.bias"].form == "dense"
    assert rows["1.num_batches_tracked"].entries == 1
    for row in rows.values():
        assert row.value_bits is row.index_bits_huffman is row.coded_bits is row.rate is row.rate_huffman is None
    assert rows["0.weight"].nonzeros == int((original[0].weight > 0).sum())


def test_a_tied_weight_has_one_row() -> None:
    original = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    original[1].weight = original[0].weight
    assert [row.path for row in layer_rows(copy.deepcopy(original), original)] == ["0.weight"]


def test_a_cut_layer_counts_against_the_original() -> None:
    original = nn.Sequential(nn.Linear(6, 6, bias=False))
    small = nn.Sequential(nn.Linear(6, 3, bias=False))
    row = layer_rows(small, original)[0]
    assert (row.shape, row.entries, row.original_entries, row.original_bits) == ((3, 6), 18, 36, 36 * 32)
    assert row.kept == 0.5


def test_the_file_of_another_network_is_refused() -> None:
    original, small = square(by_hand())
    other = nn.Sequential(nn.Linear(5, 6))
    with pytest.raises(WrongNetwork, match="another network"):
        layer_rows(small, original, encode(other, other))


def test_an_unmasked_quantized_weight_is_a_plain_list() -> None:
    codes = torch.tensor([[3, -3, 1], [2, 1, -1]])
    cost = index_cost(symbols_of(Quantized(codes, torch.tensor([0.5]))))
    assert (cost.stored, cost.value_bits, cost.index_bits) == (6, 3.0, None)
    assert cost.coded_bits == 6 * 3 + 32
    assert cost.coded_bits_huffman == fixed_codes(Counter(codes.flatten().tolist())) + 32


def test_a_masked_weight_has_an_index_even_where_a_list_were_shorter() -> None:
    mask = torch.ones(8, 8, dtype=torch.bool)
    mask[0, 0] = False
    cost = index_cost(symbols_of(Masked(mask, Codebook(torch.randn(64), torch.arange(63)))))
    assert cost.index_bits == 1
    assert cost.coded_bits > 64 * 6 + 64 * 32


def test_a_quantized_weight_full_of_zeros_is_stored_by_index() -> None:
    codes = torch.zeros(20, 20, dtype=torch.int32)
    codes[3, 3], codes[12, 7] = 5, -6
    cost = index_cost(symbols_of(Quantized(codes, torch.ones(20), torch.zeros(20, dtype=torch.int32), "channel")))
    assert cost.index_bits is not None
    assert cost.stored < 20
    assert cost.coded_bits < 100 + 20 * 32 + 20 * 8


def test_an_affine_code_counts_from_its_zero_point() -> None:
    codes, zero = torch.tensor([[0, 4], [4, 7]]), torch.tensor([4])
    symbols = symbols_of(Quantized(codes, torch.tensor([0.1]), zero))
    assert symbols.values.tolist() == [-4, 0, 3] and symbols.counts.tolist() == [1, 2, 1]
    # One run of no zeros before the first code, one of two before the last.
    assert symbols.zeros.tolist() == [0, 2] and symbols.runs.tolist() == [1, 1]
    assert symbols.codebook_bits == 32 + 8


def test_a_shared_zero_is_no_weight() -> None:
    shared = Codebook(torch.tensor([0.0, 1.0, -1.0]), torch.tensor([0, 1, 2, 1]))
    symbols = symbols_of(Masked(torch.ones(1, 4, dtype=torch.bool), shared))
    assert symbols.values.tolist() == [0, 1, 2] and symbols.counts.tolist() == [1, 1, 2]
    assert index_cost(symbols).stored == 3


def test_a_weight_of_zeros_alone_has_no_mean() -> None:
    nothing = Codebook(torch.ones(2), torch.zeros(0, dtype=torch.long))
    cost = index_cost(symbols_of(Masked(torch.zeros(3, 3, dtype=torch.bool), nothing)))
    assert (cost.stored, cost.value_bits, cost.index_bits_huffman) == (0, None, None)
    assert cost.coded_bits == cost.coded_bits_huffman == 64


def test_a_latent_weight_has_no_codes() -> None:
    assert symbols_of(LearnedStep(torch.ones(2, 2), 0.5)) is None
    assert symbols_of(Masked(torch.ones(2, 2, dtype=torch.bool), LearnedStep(torch.ones(4), 0.5))) is None


def test_best_gap_width_is_the_narrowest_of_equals() -> None:
    width, bits = best_gap_width(by_hand_symbols())
    assert (width, bits) == (3, 40)


def by_hand_symbols() -> Symbols:
    found = symbols_of(by_hand())
    assert found is not None
    return found


def test_pictures_show_codes_then_gaps_of_the_largest() -> None:
    original = nn.Sequential(nn.Linear(31, 24), nn.Linear(6, 6), nn.Linear(31, 24))
    small = copy.deepcopy(original)
    attach(small[0], "weight", coded_at_random(0, 8, 0.2))
    attach(small[1], "weight", by_hand())
    attach(small[2], "weight", coded_at_random(1, 8, 0.6))
    drawn = pictures(
        {f"{place}.weight": symbols_of(layer.held_weight) for place, layer in small.named_children()}, count=2
    )
    assert drawn == tuple(one for one in accounts(small, original)[1] if not one.title.startswith("1."))
    assert [shown.of for shown in drawn] == ["codes", "codes", "gaps", "gaps"]
    assert [shown.title.partition(":")[0] for shown in drawn] == ["2.weight", "0.weight"] * 2
    assert sum(drawn[0].counts) == int(small[2].held_weight.mask.sum())


def test_pictures_of_the_example_done_by_hand() -> None:
    original, small = square(by_hand())
    codes, gaps = accounts(small, original)[1]
    # -0.25 is the first of the shared values, 0.5 the second, 2.0 the third.
    assert codes.counts == (1, 4, 1)
    assert codes.edges == (0.5, 1.5, 2.5, 3.5)
    assert gaps.counts == (3, 0, 1, 0, 0, 1, 0, 3)
    assert gaps.edges[0] == -0.5


def test_histogram_puts_neighbours_together_when_there_are_many() -> None:
    values = torch.arange(-100, 200).numpy()
    drawn = histogram_of("many", values, np.ones_like(values), "codes")
    assert len(drawn.counts) <= 64
    assert len(drawn.edges) == len(drawn.counts) + 1
    assert sum(drawn.counts) == 300
    assert drawn.edges[0] == -100.5
    assert drawn.edges[-1] >= 199.5


class OwnGrid(Affine):
    """A rounding of a user's own."""


def test_rows_of_a_network_with_a_rounding_of_ones_own():
    original, small = square(by_hand())
    put_quantizer(small[0], "input", OwnGrid(0.5, 0, 4))
    assert [row.form for row in layer_rows(small, original)] == ["masked(codebook)", "dense"]
