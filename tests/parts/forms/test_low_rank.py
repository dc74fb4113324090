"""Low rank: the weight is what its factors do one after the other; cuts, files and nesting keep that."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadFile, BadNetwork, BadValue
from cortado.file.artifact import decode, encode
from cortado.file.schema import Schema, read_schema, schema_of, write_schema
from cortado.file.streams import Place, decode_form, encode_form
from cortado.file.wire import Cursor
from cortado.parts.forms.attach import attach
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Form
from cortado.parts.forms.latent import Latent
from cortado.parts.forms.learned_step import LearnedStep
from cortado.parts.forms.low_rank import LowRank, compose
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized
from tests.parts.forms.strategies import leaves, values_of

CONV = (None, functional.conv1d, functional.conv2d, functional.conv3d)


@st.composite
def low_ranks(draw) -> LowRank:
    """Two or three kernels with forms of all sorts, some depthwise, some in groups."""
    kernel = draw(st.sampled_from([(), (3,), (3, 2), (2, 1, 3)]))
    groups = draw(st.sampled_from([1, 1, 2]))
    outputs, rank, inputs = (groups * draw(st.integers(1, 4)) for _ in range(3))
    owns = [draw(st.booleans()) for _ in kernel]
    first = [size if own else 1 for size, own in zip(kernel, owns, strict=True)]
    last = [1 if own else size for size, own in zip(kernel, owns, strict=True)]
    depthwise = draw(st.booleans()) and groups == 1
    factor = draw(factors((rank, inputs // groups, *first)))
    if depthwise:
        return LowRank(factor, draw(factors((rank, 1, *last))), last_groups=rank)
    made = LowRank(factor, draw(factors((outputs, rank // groups, *last))), groups, groups, groups)
    if groups == 1 and draw(st.booleans()):
        return LowRank(made, draw(factors((3, outputs, *[1] * len(kernel)))))
    return made


@st.composite
def factors(draw, shape: tuple[int, ...]) -> Form:
    values = values_of(shape, draw(st.integers(0, 10_000)))
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))) < 0.7
    mask.view(-1)[0] = True
    return Masked(mask, draw(leaves(values[mask]))) if draw(st.booleans()) else draw(leaves(values))


def walked(form: Form, activation: Tensor, groups: int) -> Tensor:
    """The activation after the kernels of a form, one after the other."""
    if isinstance(form, LowRank):
        return walked(form.last, walked(form.first, activation, form.first_groups), form.last_groups)
    weight = form.dense()
    # A matrix is a kernel of one tap.
    weight = weight if weight.dim() > 2 else weight[..., None]
    return CONV[weight.dim() - 2](activation, weight, groups=groups)  # type: ignore[misc]


@given(low_ranks())
def test_weight_is_what_its_factors_do_one_after_the_other(form):
    axes = max(1, len(form.shape) - 2)
    activation = values_of((2, form.shape[1] * form.groups, *[5] * axes), 1)
    weight = form.dense() if len(form.shape) > 2 else form.dense()[..., None]
    whole = CONV[axes](activation, weight, groups=form.groups)  # type: ignore[misc]
    torch.testing.assert_close(walked(form, activation, form.groups), whole, rtol=1e-4, atol=1e-4)


@given(low_ranks())
def test_file_gives_the_form_back_bit_for_bit(form):
    schema = read_schema(Cursor(write_schema(schema_of(form))))
    streams = encode_form(form, "bits")
    again = decode_form(schema, Place(form.shape), streams)
    assert isinstance(again, LowRank) and again.spec() == form.spec() and not streams[len(encode_form(again, "bits")) :]
    assert torch.equal(again.dense().view(torch.int32), form.dense().view(torch.int32))


@given(low_ranks(), st.data())
def test_narrow_takes_the_same_slices(form, data):
    axis = data.draw(st.integers(0, len(form.shape) - 1))
    keep = torch.tensor(data.draw(st.lists(st.integers(0, form.shape[axis] - 1), min_size=1, unique=True)))
    narrowed = form.narrow(axis, keep)
    torch.testing.assert_close(narrowed.dense(), form.dense().index_select(axis, keep))
    assert isinstance(narrowed, LowRank) or form.groups > 1


@given(low_ranks())
def test_recode_reaches_both_factors(form):
    seen: list[int] = []

    def noted(values: Tensor) -> Form:
        seen.append(values.numel())
        return Quantized.of(values, 8)

    again = form.map_values(noted)
    assert isinstance(again, LowRank) and len(seen) >= 2
    difference = (again.dense() - form.dense()).abs().max()
    assert again.shape == form.shape and difference <= 0.1 * form.dense().abs().max() + 0.5


def leaves_of(form: Form) -> list[Form]:
    """The kernels of a form that are no products themselves."""
    return [*leaves_of(form.first), *leaves_of(form.last)] if isinstance(form, LowRank) else [form]


@given(low_ranks())
def test_bits_are_those_of_the_factors_and_every_float_learns(form):
    assert form.bits() == form.first.bits() + form.last.bits()
    kernels = [int((factor.dense() != 0).sum()) for factor in leaves_of(form)]
    assert form.nonzeros() == sum(kernels)
    assert form.entries() == sum(factor.shape.numel() for factor in leaves_of(form))
    form.dense().sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in form.parameters())


@settings(max_examples=30)
@given(low_ranks(), st.integers(0, 99))
def test_scale_rows_multiplies_rows_or_says_no(form, seed):
    before = form.dense().detach().clone()
    scale = torch.rand(form.shape[0], generator=torch.Generator().manual_seed(seed)) + 0.5
    wanted = before * scale.view(-1, *[1] * (len(form.shape) - 1)) if form.scale_rows(scale) else before
    torch.testing.assert_close(form.dense().detach(), wanted)


def test_finalize_ends_what_is_latent_in_both_factors():
    form = LowRank(LearnedStep(values_of((2, 3), 0), 0.25), LearnedStep(values_of((4, 2), 1), 0.25))
    finalized = form.finalize()
    assert not any(isinstance(part, Latent) for part in finalized.modules())
    assert torch.equal(finalized.dense(), form.dense())


@given(low_ranks())
def test_multiply_adds_are_counted_position_by_position(form):
    """At one position before and after, every entry of every innermost factor is used once."""
    ones = [1] * (len(form.shape) - 2)
    leaves_of = [
        part
        for part in form.modules()
        if isinstance(part, Form) and not isinstance(part, LowRank) and not inside_mask(form, part)
    ]
    assert form.multiply_adds(ones, ones) == sum(part.shape.numel() for part in leaves_of)


def inside_mask(form: Form, part: Form) -> bool:
    return any(part is mask.kept for mask in form.modules() if isinstance(mask, Masked))


def test_strided_axis_is_walked_by_the_factor_that_holds_it():
    form = LowRank(Dense(torch.ones(2, 3, 3, 1)), Dense(torch.ones(4, 2, 1, 3)))
    # 8 x 8 in, 4 x 4 out: the column kernel makes 4 rows of 8, the line kernel 4 of 4.
    assert form.multiply_adds((8, 8), (4, 4)) == 18 * 4 * 8 + 24 * 4 * 4


def test_uneven_cut_of_groups_becomes_dense():
    form = LowRank(Dense(values_of((4, 1), 0)), Dense(values_of((4, 2), 1)), 2, 2, 2)
    keep = torch.tensor([0, 2, 3])
    assert isinstance(form.narrow(0, keep), Dense)
    torch.testing.assert_close(form.narrow(0, keep).dense(), form.dense()[keep])
    kept = form.narrow(0, torch.tensor([2, 3]))
    assert isinstance(kept, LowRank) and kept.groups == 1


@pytest.mark.parametrize(
    ("first", "last", "counts", "says"),
    [
        ((2, 3), (4, 3), {}, "Both must equal the rank"),
        ((2, 3, 3), (4, 2, 3), {}, "a kernel axis belongs to one factor"),
        ((2, 3), (4, 2, 1), {}, "kernels of at least two axes"),
        ((2,), (4,), {}, "kernels of at least two axes"),
        ((2, 3), (4, 2), {"last_groups": 3}, "Both must equal the rank"),
        ((2, 3), (4, 2), {"groups": 2}, "2 groups must divide"),
    ],
)
def test_factors_that_do_not_fit_are_refused_in_words(first, last, counts, says):
    with pytest.raises(BadValue, match=f"forms/low_rank: .*{says}"):
        LowRank(Dense(torch.ones(first)), Dense(torch.ones(last)), **counts)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(24, 4)).eval()


def attached() -> nn.Module:
    made = network()
    one, two = values_of((2, 3, 3, 1), 1), values_of((6, 2, 1, 3), 2)
    attach(made[0], "weight", LowRank(Dense(one).select(one > 0), Quantized.of(two, 4)))
    attach(made[2], "weight", LowRank(Dense(values_of((2, 24), 3)), Dense(values_of((4, 2), 4))))
    return made


def test_network_with_factors_is_stored_smaller_and_read_bit_for_bit():
    example = values_of((5, 3, 4, 4), 9)
    body = encode(attached(), network())
    assert torch.equal(decode(body, network())(example), attached()(example))
    assert encode(decode(body, network()), network()) == body
    assert len(body) < 0.6 * len(encode(network(), network()))


def test_mask_over_factors_is_refused_with_the_way_out():
    made = network()
    mask = torch.ones(4, 24, dtype=torch.bool)
    form = Masked(mask, Dense(torch.ones(96)))
    form.kept = Flat()
    attach(made[2], "weight", form)
    with pytest.raises(BadNetwork, match=r"a mask cannot hold LowRank. Put the masks into its factors: map_values"):
        encode(made, network())


class Flat(LowRank):
    """Factors where a vector should be."""

    def __init__(self) -> None:
        super().__init__(Dense(torch.ones(2, 12)), Dense(torch.ones(8, 2)))


Flat.__name__ = "LowRank"


def test_factors_larger_than_the_weight_allows_are_not_written():
    made = network()
    attach(made[2], "weight", LowRank(Dense(torch.ones(100, 24)), Dense(torch.ones(4, 100))))
    with pytest.raises(BadNetwork, match="over 4 times as large. Lower the rank"):
        encode(made, network())


def nest(rank: int, depth: int) -> Schema:
    inner = Schema(Dense, (), (torch.float32,), ())
    for _ in range(depth):
        inner = Schema(LowRank, (rank, 0, 1, 1, 1), (), (inner, Schema(Dense, (), (torch.float32,), ())))
    return inner


@pytest.mark.parametrize(("rank", "depth"), [(2**20, 1), (500, 8), (2**24, 8), (2**24, 2)])
def test_huge_factors_are_refused_before_decoding(rank, depth):
    with pytest.raises(BadFile, match="factors claim .* The file is damaged"):
        decode_form(nest(rank, depth), Place(torch.Size([20, 30])), [])


@pytest.mark.parametrize(
    "facts",
    [(0, 0, 1, 1, 1), (-3, 0, 1, 1, 1), (2**40, 0, 1, 1, 1), (4, 1, 1, 1, 1), (4, -1, 1, 1, 1), (4, 0, 0, 0, 0),
     (4, 0, 1, 7, 1), (4, 0, 2, 1, 1), (4, 0, 1, 1, 3), (4, 0, -1, -1, -1)],
)  # fmt: skip
def test_false_facts_are_refused_in_words(facts):
    dense = Schema(Dense, (), (torch.float32,), ())
    schema = Schema(LowRank, facts, (), (dense, dense))
    with pytest.raises(BadFile, match="forms/low_rank: .* The file is damaged"):
        decode_form(schema, Place(torch.Size([20, 30])), [])


def test_deep_copy_is_a_form_of_its_own():
    form = LowRank(Dense(values_of((2, 3), 0)), Dense(values_of((4, 2), 1)))
    duplicate = copy.deepcopy(form)
    with torch.no_grad():
        duplicate.first.values.add_(1)
    assert not torch.equal(duplicate.dense(), form.dense())
    duplicate.load_state_dict(form.state_dict())
    assert torch.equal(duplicate.dense(), form.dense())


def test_compose_of_matrices_is_their_product():
    one, two = values_of((2, 3), 0), values_of((4, 2), 1)
    torch.testing.assert_close(compose(one, two), two @ one)
