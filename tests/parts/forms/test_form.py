"""What every form promises, for all forms and nestings."""

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cortado.file.schema import read_schema, schema_of, write_schema
from cortado.file.streams import Place, decode_form, encode_form
from cortado.file.wire import Cursor
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Form
from cortado.parts.forms.latent import Latent
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.trellis import Trellis
from cortado.parts.part import FLOATS, PART
from tests.parts.forms.strategies import forms


def made_again(form: Form) -> Form:
    """The form from its facts and parts alone."""
    parts = dict(form.parts())
    for name, sort in form.arrays.items():
        if sort == PART:
            parts[name] = made_again(parts[name])
    return type(form).from_parts(form.shape, form.spec(), parts)


@given(forms())
def test_form_gives_a_weight_of_its_shape(form):
    dense = form.dense()
    assert dense.shape == form.shape
    assert dense.dtype == torch.float32
    assert bool(torch.isfinite(dense).all())


@given(forms())
def test_form_is_made_again_from_its_facts_and_parts(form):
    again = made_again(form)
    assert type(again) is type(form)
    assert torch.equal(again.dense(), form.dense())
    assert again.spec() == form.spec()
    assert set(form.spec()) == set(form.facts)


@given(forms())
def test_parts_are_as_large_as_declared(form):
    sizes, parts = form.sizes(form.shape, form.spec()), form.parts()
    assert list(parts) == list(form.arrays)
    for name, sort in form.arrays.items():
        if sort == PART:
            continue
        assert parts[name].numel() == sizes.get(name, form.shape.numel()), name
        assert parts[name].is_floating_point() == (sort == FLOATS), name


@given(forms())
def test_file_gives_a_form_back_bit_for_bit(form):
    schema = read_schema(Cursor(write_schema(schema_of(form))))
    again = decode_form(schema, Place(form.shape), encode_form(form, "bits"))
    assert torch.equal(again.dense().view(torch.int32), form.dense().view(torch.int32))
    assert torch.equal(made_again(again).dense(), form.dense())


@given(forms())
def test_recode_with_dense_keeps_the_values(form):
    again = form.map_values(Dense)
    assert torch.equal(again.dense(), form.dense())
    if isinstance(form, Masked):
        assert isinstance(again, Masked) and torch.equal(again.mask, form.mask)


@given(forms(), st.data())
def test_narrow_takes_the_same_slices(form, data):
    axis = data.draw(st.integers(0, len(form.shape) - 1))
    count = form.shape[axis]
    keep = torch.tensor(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=count, unique=True)))
    narrowed = form.narrow(axis, keep)
    # What is cut of a form in training may be no longer latent, and codes on a trellis may go to an even grid.
    assert isinstance(form, (Latent, Trellis)) or type(narrowed) is type(form)
    assert torch.equal(narrowed.dense(), form.dense().index_select(axis, keep))
    assert torch.equal(narrowed.dense(), made_again(narrowed).dense())


@given(forms(), st.data())
def test_narrow_twice_is_narrow_once(form, data):
    axes = [data.draw(st.integers(0, len(form.shape) - 1)) for _ in range(2)]
    dense = form.dense()
    for axis in axes:
        keep = torch.arange(form.shape[axis]).flip(0)[: max(1, form.shape[axis] - 1)]
        form, dense = form.narrow(axis, keep), dense.index_select(axis, keep)
    assert torch.equal(form.dense(), dense)


@given(forms())
def test_form_counts_its_nonzeros_and_bits(form):
    assert form.nonzeros() == int((form.dense() != 0).sum())
    assert form.bits() > 0


@given(forms())
def test_deep_copy_and_state_dict_carry_everything(form):
    duplicate = copy.deepcopy(form)
    with torch.no_grad():
        for parameter in duplicate.parameters():
            parameter.add_(1)
    duplicate.load_state_dict(form.state_dict())
    assert torch.equal(duplicate.dense(), form.dense())


@given(forms())
def test_finalize_gives_a_form_that_is_final(form):
    finalized = form.finalize()
    assert not any(isinstance(part, Latent) for part in finalized.modules())
    assert torch.equal(finalized.finalize().dense(), finalized.dense())
    steps = [part for part in form.modules() if isinstance(part, Latent)]
    # A step kept in 16 bits has a relative error of at most 2**-8.
    difference = (finalized.dense() - form.dense()).abs()
    assert bool((difference <= (form.dense().abs() * 2**-8 if steps else torch.zeros(()))).all())


@given(forms())
def test_every_float_of_a_form_has_a_gradient(form):
    form.dense().sum().backward()
    for name, parameter in form.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name


@settings(max_examples=30)
@given(forms(), st.integers(0, 99))
def test_scale_rows_multiplies_rows_or_says_no(form, seed):
    before = form.dense().detach().clone()
    factors = torch.rand(form.shape[0], generator=torch.Generator().manual_seed(seed)) + 0.5
    done = form.scale_rows(factors)
    wanted = before * factors.view(-1, *[1] * (len(form.shape) - 1)) if done else before
    torch.testing.assert_close(form.dense().detach(), wanted)


def test_masked_follows_a_mask_that_is_loaded():
    """The mask is part of the state: where the survivors sit comes with it."""
    values = torch.arange(1.0, 7.0)
    one = Dense(values).select(torch.tensor([1, 1, 1, 0, 0, 0]).bool())
    other = Dense(values).select(torch.tensor([0, 0, 0, 1, 1, 1]).bool())
    one.load_state_dict(other.state_dict())
    assert torch.equal(one.dense(), other.dense())
