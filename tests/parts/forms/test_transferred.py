"""Transferred: copies are what their transforms say, and stay so in cuts, masks, rounding, files and layers that run them."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.errors import BadValue
from cortado.file.artifact import decode, encode
from cortado.layers.factors import chain_of
from cortado.parts.forms.attach import attach, form_of
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized
from cortado.parts.forms.transferred import Transferred
from cortado.parts.forms.transforms import FIXED_SLOTS, NEGATE, REPEAT, ROLL, ROTATE, TRANSLATE

ALL = [REPEAT, NEGATE, ROTATE, ROLL, TRANSLATE]
INPUTS = 8


def base_of(transform, slots, rows=3, kernel=(3, 3)):
    spec = {"transform": transform, "slots": slots, "rows": rows, "channels": INPUTS // (4 if transform == ROLL else 1)}
    return torch.randn(Transferred.inner_shapes(torch.Size([1, INPUTS, *kernel]), spec)["base"])


def made(transform, rows=3, shuffled=False, kernel=(3, 3)):
    """A weight of 3 x 4 (or 3 x 2) filters, its copies and inputs in order or not."""
    torch.manual_seed(transform)
    slots = FIXED_SLOTS.get(transform, 4)
    codes = torch.randperm(rows * slots) if shuffled else torch.arange(rows * slots)
    inputs = torch.randperm(INPUTS) if shuffled else torch.arange(INPUTS)
    return Transferred(Dense(base_of(transform, slots, rows, kernel)), transform, slots, codes, inputs, kernel)


def by_hand(form):
    """The weight, filter by filter, as the papers describe it."""
    base, rows = form.base.dense().detach().numpy(), []
    for code in form.codes.tolist():
        row, copy = base[code // form.slots], code % form.slots
        if form.transform == NEGATE and copy:
            row = -row
        if form.transform == ROTATE:
            row = np.rot90(row, copy, (1, 2))
        if form.transform == ROLL:
            orientations = row.reshape(-1, 4, *row.shape[1:])
            row = np.rot90(np.roll(orientations, copy, 1), copy, (2, 3)).reshape(row.shape)
        if form.transform == TRANSLATE:
            row = row[:, copy // 2 : copy // 2 + 3, copy % 2 : copy % 2 + 3]
        rows.append(row[form.inputs.long().numpy()])
    return torch.from_numpy(np.stack(rows))


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("transform", ALL)
def test_copies_are_what_their_transforms_say(transform, shuffled):
    form = made(transform, shuffled=shuffled)
    assert torch.equal(form.dense(), by_hand(form))


@pytest.mark.parametrize("transform", ALL)
def test_any_cut_is_exact(transform):
    form = made(transform, shuffled=True)
    weight, generator = form.dense(), torch.Generator().manual_seed(0)
    for _ in range(20):
        rows, inputs = (torch.randperm(size, generator=generator) for size in form.shape[:2])
        rows, inputs = rows[: 1 + len(rows) // 2], inputs[: 1 + len(inputs) // 3]
        narrow = form.narrow(0, rows).narrow(1, inputs)
        assert torch.equal(narrow.dense(), weight[rows][:, inputs]) and isinstance(narrow, Transferred)
    assert torch.equal(form.narrow(2, torch.tensor([1])).dense(), weight[:, :, 1:2])


@pytest.mark.parametrize("transform", ALL)
def test_a_cut_drops_what_no_copy_needs(transform):
    form = made(transform)
    whole = form.tied(0) == 1
    assert form.narrow(0, whole.nonzero()[:, 0]).base.shape[0] == 1
    channels = (form.tied(1) != 0).nonzero()[:, 0]
    assert form.narrow(1, channels).base.shape[1] == form.base.shape[1] - (4 if transform == ROLL else 1)


@pytest.mark.parametrize("transform", ALL)
def test_the_base_has_the_gradients_of_all_copies(transform):
    form = made(transform, shuffled=True)
    factor = torch.randn(form.shape)
    (form.dense() * factor).sum().backward()
    plain = form.sums(factor * form.signs())
    torch.testing.assert_close(form.base.values.grad, plain)


@pytest.mark.parametrize("transform", ALL)
def test_fit_finds_the_base_of_its_own_copies_and_the_closest_of_others(transform):
    form = made(transform, shuffled=True)
    torch.testing.assert_close(form.fit(form.dense().detach()), form.base.values.detach())
    wanted = torch.randn(form.shape)
    base = nn.Parameter(form.fit(wanted))
    (form.of(Dense(base)).dense() - wanted).square().sum().backward()
    closest = form.of(Dense(base))
    (closest.dense() - wanted).square().sum().backward()
    assert closest.base.values.grad.abs().max() < 1e-4


@pytest.mark.parametrize("transform", ALL)
def test_rounded_bases_give_integers(transform):
    form = made(transform, shuffled=True).map_values(lambda values: Quantized.of(values, 4, "channel"))
    grid = form.lattice()
    torch.testing.assert_close(grid.dense(), form.dense())
    assert form.code_bits() == 4 and form.symbols()[0].shape == form.shape


def test_negatives_of_uneven_codes_are_no_integers():
    even = made(NEGATE).map_values(lambda values: Quantized.of(values, 4, symmetric=False))
    shared = made(NEGATE).map_values(lambda values: Codebook(torch.tensor([-0.5, 2.0]), (values > 0).long()))
    assert even.lattice() is None and shared.lattice() is None and shared.symbols() is None
    assert made(ROTATE).map_values(lambda values: Quantized.of(values, 4, "group", 4)).lattice() is None


@pytest.mark.parametrize("transform", ALL)
def test_masks_reach_the_base(transform):
    form = made(transform, shuffled=True)
    importance = form.pooled(form.dense().abs().detach())
    mask = importance >= importance.median()
    pruned = form.select(mask)
    assert isinstance(pruned, Transferred) and isinstance(pruned.base, Masked)
    assert torch.equal(pruned.dense(), form.dense() * mask) and torch.equal(pruned.support(), mask)
    one = torch.ones(form.shape, dtype=torch.bool)
    one[0, 0, 0, 0] = False
    assert not pruned.select(one).dense()[0, 0, 0, 0] and pruned.entries() == form.base.values.numel()


@pytest.mark.parametrize("transform", [REPEAT, NEGATE])
@pytest.mark.parametrize("kernel", [(), (3,), (3, 3)])
def test_repeated_filters_are_computed_once(transform, kernel):
    form = made(transform, kernel=kernel)
    kind = (nn.Linear, nn.Conv1d, nn.Conv2d)[len(kernel)]
    layer = kind(INPUTS, form.shape[0], *([3] if kernel else []), **({"padding": 1} if kernel else {}))
    attach(layer, "weight", form)
    chain = chain_of(layer)
    values = torch.randn(2, INPUTS, *(5 for _ in kernel))
    if not kernel:
        assert chain is None, "a linear layer has no groups"
        return
    torch.testing.assert_close(chain(values), layer(values))
    torch.testing.assert_close(chain.weight, form.dense())
    assert chain[0].weight.shape[0] == form.rows and chain[1].groups == form.rows


def test_only_whole_sets_of_copies_are_computed_once():
    form = made(NEGATE)
    assert form.factors() is not None
    assert form.narrow(0, torch.tensor([0, 1, 4, 5])).factors() is not None
    assert form.narrow(0, torch.tensor([0, 2, 4])).factors() is None
    assert made(ROTATE).factors() is None and made(REPEAT, shuffled=True).factors() is None


def test_rows_are_scaled_only_alike():
    form = made(ROTATE)
    before = form.dense().detach().clone()
    factors = torch.tensor([2.0, 3.0, 0.5]).repeat_interleave(4)
    assert form.scale_rows(factors)
    torch.testing.assert_close(form.dense(), before * factors.view(-1, 1, 1, 1))
    assert not form.scale_rows(torch.arange(12.0))


@pytest.mark.parametrize("transform", ALL)
def test_file_restores_it(transform):
    maker = lambda: nn.Sequential(nn.Conv2d(INPUTS, 3 * FIXED_SLOTS.get(transform, 4), 3))  # noqa: E731
    network = maker()
    form = made(transform, shuffled=True).map_values(lambda values: Quantized.of(values, 4))
    attach(network[0], "weight", form)
    again = form_of(decode(encode(network, maker()), maker)[0], "weight")
    assert torch.equal(again.dense(), form.dense()) and torch.equal(again.codes, form.codes)


def test_state_of_other_codes_is_loaded():
    one, other = made(ROLL), made(ROLL, shuffled=True)
    one.load_state_dict(other.state_dict())
    assert torch.equal(one.dense(), other.dense())


def test_natural_order_costs_the_file_next_to_nothing():
    maker = lambda: nn.Sequential(nn.Conv2d(64, 64, 3, bias=False))  # noqa: E731
    network = maker()
    form = Transferred(Dense(torch.randn(16, 64, 3, 3)), ROLL, 4, torch.arange(64), torch.arange(64), (3, 3))
    plain = nn.Sequential(nn.Conv2d(64, 16, 3, bias=False))
    attach(network[0], "weight", form)
    attach(plain[0], "weight", Dense(form.base.values))
    assert len(encode(network, maker())) < len(encode(plain, nn.Sequential(nn.Conv2d(64, 16, 3, bias=False)))) + 60


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"transform": 5}, "transforms are 0..4"),
        ({"slots": 3}, "makes 4 filters of one, got 3"),
        ({"codes": torch.arange(4, 16)}, "codes must lie in 0..11, got 4..15"),
        ({"inputs": torch.arange(1, 9)}, "inputs must lie in 0..7, got 1..8"),
        ({"kernel": (3, 1)}, "only square kernels"),
        ({"kernel": (2, 2)}, "cannot make kernels"),
        ({"transform": TRANSLATE, "slots": 2}, "square number of crops"),
    ],
)
def test_what_the_base_does_not_have_is_refused(change, says):
    given = {"transform": ROTATE, "slots": 4, "codes": torch.arange(12), "inputs": torch.arange(8), "kernel": (3, 3)}
    given |= change
    with pytest.raises(BadValue, match=says):
        Transferred(Dense(torch.zeros(3, 8, 3, 3)), **given)


def test_feature_maps_turn_with_the_picture():
    torch.manual_seed(0)
    lifted = Transferred(Dense(torch.randn(2, 3, 3, 3)), ROTATE, 4, torch.arange(8), torch.arange(3), (3, 3)).dense()
    rolled = Transferred(Dense(torch.randn(3, 8, 3, 3)), ROLL, 4, torch.arange(12), torch.arange(8), (3, 3)).dense()

    def maps(images):
        return functional.conv2d(functional.conv2d(images, lifted, padding=1).relu(), rolled, padding=1)

    images = torch.randn(2, 3, 9, 9)
    assert not torch.allclose(maps(torch.rot90(images, 1, (2, 3))), maps(images), atol=1.0)
    wanted = torch.rot90(maps(images).view(2, 3, 4, 9, 9).roll(1, 2), 1, (3, 4)).flatten(1, 2)
    torch.testing.assert_close(maps(torch.rot90(images, 1, (2, 3))), wanted, rtol=0, atol=1e-3)
