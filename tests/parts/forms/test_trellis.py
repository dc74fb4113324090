"""Trellis: levels that a machine allows, an even grid for all who read them, and cuts that keep them."""

import copy

import pytest
import torch
from torch import nn

from cortado.errors import BadFile, BadValue
from cortado.file.artifact import decode, encode
from cortado.file.schema import schema_of
from cortado.file.streams import Place, decode_form, encode_form
from cortado.parts.forms.attach import attach
from cortado.parts.forms.quantized import Quantized
from cortado.parts.forms.trellis import Trellis


def trellis(shape=(6, 40), segment=40, layout="tensor", seed=0, states=8) -> Trellis:
    generator = torch.Generator().manual_seed(seed)
    codes = (torch.randn(shape, generator=generator) * 1.5).round().int()
    scale = torch.rand(shape[0] if layout == "channel" else 1, generator=generator) + 0.1
    return Trellis(codes, scale, states, segment, layout)


def test_values_are_the_levels_of_an_even_grid():
    form = trellis(layout="channel")
    lattice = form.lattice()
    assert torch.equal(form.dense(), lattice.codes.float() * form.scale[:, None])
    assert torch.equal(form.even().dense(), form.dense())


def test_rows_are_cut_and_reordered_in_their_form_where_each_is_a_segment():
    form, keep = trellis(layout="channel"), torch.tensor([4, 0, 3])
    cut = form.narrow(0, keep)
    assert isinstance(cut, Trellis)
    assert torch.equal(cut.dense(), form.dense()[keep])
    assert torch.equal(cut.codes(), form.codes()[keep])


@pytest.mark.parametrize(("axis", "segment"), [(1, 40), (0, 80)])
def test_other_cuts_keep_the_values_on_an_even_grid(axis, segment):
    form, keep = trellis(segment=segment), torch.tensor([1, 2, 4])
    cut = form.narrow(axis, keep)
    assert isinstance(cut, Quantized)
    assert torch.equal(cut.dense(), form.dense().index_select(axis, keep))


def test_entries_go_to_an_even_grid_unless_they_were_zero():
    form = trellis()
    mask = form.levels != 0
    assert form.select(mask) is form
    mask[0, :20] = False
    cut = form.select(mask)
    assert isinstance(cut, Quantized)
    assert torch.equal(cut.dense(), torch.where(mask, form.dense(), 0.0))


@pytest.mark.parametrize("codec", ["bits", "rans", "mix", "states", "quick", "smallest"])
@pytest.mark.parametrize("states", [4, 8, 16, 32])
def test_file_gives_it_back_with_every_codec(codec, states):
    form = trellis(shape=(5, 4, 3, 3), segment=36, states=states)
    again = decode_form(schema_of(form), Place(form.shape), encode_form(form, codec))
    assert isinstance(again, Trellis) and again.spec() == form.spec()
    assert torch.equal(again.dense().view(torch.int32), form.dense().view(torch.int32))


def test_network_comes_back_from_its_file():
    original = nn.Linear(40, 6)
    small = copy.deepcopy(original)
    attach(small, "weight", trellis())
    back = decode(encode(small, original), original)
    assert torch.equal(back.weight, small.weight)


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"states": 5}, "states must be one of 4, 8, 16, 32"),
        ({"segment": 0}, "the segment at least 1"),
        ({"layout": "row"}, "layout"),
    ],
)
def test_facts_that_make_no_sense_are_refused(facts, what):
    with pytest.raises(BadValue, match=what):
        Trellis(torch.zeros(2, 3, dtype=torch.int32), torch.ones(1), **facts)


def test_wrong_number_of_scales_is_refused():
    with pytest.raises(BadValue, match="needs 2 scales, got 3"):
        Trellis(torch.zeros(2, 3, dtype=torch.int32), torch.ones(3), layout="channel")


def test_damaged_facts_in_a_file_are_refused():
    form = trellis()
    schema = schema_of(form)
    damaged = type(schema)(schema.form, (6, *schema.facts[1:]), schema.floats, schema.inner)
    with pytest.raises(BadFile, match="states must be one of"):
        decode_form(damaged, Place(form.shape), encode_form(form, "bits"))


def test_codes_too_large_are_refused():
    with pytest.raises(BadValue, match="codes must lie in"):
        Trellis(torch.tensor([2**30 + 1]), torch.ones(1))


def test_training_the_scale_moves_all_values_alike():
    form = trellis()
    form.dense().sum().backward()
    torch.testing.assert_close(form.scale.grad, form.levels.sum().float().view(1))
