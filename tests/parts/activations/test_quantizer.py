"""Roundings on layers: put on and taken off, copied, shared, and never on what only runs others."""

import copy
import pickle

import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork
from cortado.network.weight import parameter_places
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.gradients import Gradients
from cortado.parts.activations.pact import Pact
from cortado.parts.activations.quantizer import (
    SIDES,
    drop_quantizer,
    finalize_quantizers,
    give_quantizers,
    put_quantizer,
    quantizer_at,
    sites,
    take_quantizers,
    unrounded,
)
from cortado.parts.activations.sign import Sign
from cortado.parts.activations.unit import Unit
from cortado.parts.part import inside_parts, own_modules


class Named(nn.Module):
    """A layer whose input may be given by name, beside a number."""

    def forward(self, scale: float = 1.0, quantizer: torch.Tensor | None = None) -> torch.Tensor:
        assert quantizer is not None
        return quantizer * scale


def coarse() -> Affine:
    """A grid of quarters from -2 to 1.75."""
    return Affine(0.25, 8, 4)


VALUES = torch.tensor([[-9.0, -0.3, 0.1, 0.4, 9.0]])
ROUNDED = torch.tensor([[-2.0, -0.25, 0.0, 0.5, 1.75]])


def test_input_and_output_are_rounded_and_pass_again():
    layer = nn.Identity()
    put_quantizer(layer, "input", coarse())
    assert torch.equal(layer(VALUES), ROUNDED)
    drop_quantizer(layer, "input")
    assert torch.equal(layer(VALUES), VALUES) and not layer._forward_pre_hooks
    put_quantizer(layer, "output", coarse())
    assert torch.equal(layer(VALUES), ROUNDED)
    drop_quantizer(layer, "output")
    assert torch.equal(layer(VALUES), VALUES) and not layer._forward_hooks and not list(layer.children())


def test_a_second_rounding_takes_the_place_of_the_first():
    layer = nn.Identity()
    put_quantizer(layer, "input", coarse())
    put_quantizer(layer, "input", Affine(1.0, 8, 4))
    assert torch.equal(layer(VALUES), torch.tensor([[-8.0, 0.0, 0.0, 0.0, 7.0]]))
    assert len(layer._forward_pre_hooks) == 1


def test_input_given_by_name_is_rounded():
    layer = Named()
    put_quantizer(layer, "input", coarse())
    assert torch.equal(layer(2.0, quantizer=VALUES), 2 * VALUES), "the first argument is no activation"
    assert torch.equal(layer(scale=2.0, quantizer=VALUES), 2 * ROUNDED)


def test_whole_numbers_and_tuples_pass_as_they_are():
    layer = nn.Embedding(9, 2)
    put_quantizer(layer, "input", coarse())
    assert layer(torch.tensor([5, 8])).shape == (2, 2)
    memory = nn.LSTM(3, 4)
    put_quantizer(memory, "output", coarse())
    assert isinstance(memory(torch.zeros(2, 1, 3)), tuple)


@pytest.mark.parametrize("container", [nn.Sequential(nn.ReLU()), nn.ModuleList([nn.ReLU()]), nn.ModuleDict()])
def test_container_refuses(container):
    with pytest.raises(BadNetwork, match="cannot have a quantizer of its own. Round the output of its last layer"):
        put_quantizer(container, "output", coarse())


def network() -> nn.Sequential:
    """Three layers; the first two share a rounding."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(1)
        made = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    shared = coarse()
    put_quantizer(made[0], "input", shared)
    put_quantizer(made[1], "output", shared)
    put_quantizer(made[2], "output", Affine(0.01, 0, 8))
    return made


def test_sites_come_in_the_order_of_the_modules():
    assert list(sites(network())) == [("0", "input"), ("1", "output"), ("2", "output")]


def test_copies_share_what_was_shared_and_nothing_else():
    original = network()
    for duplicate in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert quantizer_at(duplicate[0], "input") is quantizer_at(duplicate[1], "output")
        assert quantizer_at(duplicate[0], "input") is not quantizer_at(original[0], "input")
        assert torch.equal(duplicate(torch.eye(3)), original(torch.eye(3)))


def test_roundings_are_no_weights_and_no_modules_of_the_author():
    original = network()
    assert [weight.path for weight in parameter_places(original)] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert list(own_modules(original)) == ["", "0", "1", "2"]
    assert inside_parts(original) == {id(quantizer) for quantizer in sites(original).values()}


def test_rounding_is_off_inside_the_context_even_after_an_error():
    original, free = network(), network()
    take_quantizers(free)
    wanted, before = free(torch.eye(3)), original(torch.eye(3))
    assert not torch.equal(wanted, before)
    with pytest.raises(ZeroDivisionError), unrounded(original):
        assert torch.equal(original(torch.eye(3)), wanted)
        raise ZeroDivisionError
    assert torch.equal(original(torch.eye(3)), before)


def test_quantizers_move_to_another_network_by_path():
    original = network()
    before = original(torch.eye(3))
    taken = take_quantizers(original)
    assert not sites(original)
    original[1] = nn.Sequential(nn.ReLU())[0]
    give_quantizers(original, taken)
    assert torch.equal(original(torch.eye(3)), before)


class Growing(Affine):
    """Becomes an affine one with half the step."""

    def finalize(self) -> Affine:
        return Affine(self.scale.detach() / 2, int(self.zero), self.width)


def test_settling_keeps_shared_roundings_shared():
    made = nn.Sequential(nn.ReLU(), nn.ReLU())
    shared = Growing(0.5, 0, 4)
    for layer in made:
        put_quantizer(layer, "input", shared)
    finalize_quantizers(made)
    found = list(sites(made).values())
    assert found[0] is found[1] and type(found[0]) is Affine and found[0].scale.item() == 0.25
    assert all(quantizer_at(made[0], side) is None for side in SIDES if side != "input")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_roundings_hold_where_torch_nests_padded_samples():
    torch.manual_seed(0)
    network = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1).eval()
    tokens, padding = torch.randn(2, 4, 8), torch.tensor([[False] * 4, [False, False, True, True]])
    put_quantizer(network.layers[0].linear1, "input", coarse())
    put_quantizer(network.layers[0].linear2, "output", coarse())
    with torch.no_grad():
        nested = network(tokens, src_key_padding_mask=padding)
        alone = [network(tokens[:1]), network(tokens[1:, :2])]
        free = [drop_quantizer(network.layers[0].linear2, "output"), network(tokens[:1])][1]
    torch.testing.assert_close(nested[:1], alone[0])
    torch.testing.assert_close(nested[1:, :2], alone[1])
    assert not torch.allclose(free, alone[0])


KINDS = {
    "affine": lambda: Affine(0.25, 8, 4),
    "pact": lambda: Pact(1.0, 4),
    "sign": lambda: Sign(scaled=True, terms=2),
    "smooth sign": lambda: Sign(smooth=True),
    "unit": lambda: Unit(4, gradients=4),
    "gradients": lambda: Gradients(4),
}


@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (0, 3), (0,), (2, 0)])
@pytest.mark.parametrize("name", list(KINDS))
def test_batch_of_nothing_passes_with_gradients_on(name, shape):
    quantizer, values = KINDS[name]().train(), torch.randn(shape, requires_grad=True)
    made = quantizer(values)
    assert made.shape == values.shape
    made.sum().backward()
    assert values.grad.shape == values.shape
    assert all(bool(torch.isfinite(part.grad).all()) for part in quantizer.parameters() if part.grad is not None)
