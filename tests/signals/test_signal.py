"""Roundings on layers: put on and taken off, copied, shared, and never on what only runs others."""

import copy
import pickle

import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork
from cortado.fitting import inside_fittings, own_modules
from cortado.network.view import parameter_places
from cortado.signals.affine import Affine
from cortado.signals.signal import (
    SIDES,
    drop_signal,
    give_signals,
    put_signal,
    settle_signals,
    signal_at,
    sites,
    take_signals,
    unrounded,
)


class Named(nn.Module):
    """A layer whose input may be given by name, beside a number."""

    def forward(self, scale: float = 1.0, signal: torch.Tensor | None = None) -> torch.Tensor:
        assert signal is not None
        return signal * scale


def coarse() -> Affine:
    """A grid of quarters from -2 to 1.75."""
    return Affine(0.25, 8, 4)


VALUES = torch.tensor([[-9.0, -0.3, 0.1, 0.4, 9.0]])
ROUNDED = torch.tensor([[-2.0, -0.25, 0.0, 0.5, 1.75]])


def test_input_and_output_are_rounded_and_pass_again():
    layer = nn.Identity()
    put_signal(layer, "input", coarse())
    assert torch.equal(layer(VALUES), ROUNDED)
    drop_signal(layer, "input")
    assert torch.equal(layer(VALUES), VALUES) and not layer._forward_pre_hooks
    put_signal(layer, "output", coarse())
    assert torch.equal(layer(VALUES), ROUNDED)
    drop_signal(layer, "output")
    assert torch.equal(layer(VALUES), VALUES) and not layer._forward_hooks and not list(layer.children())


def test_a_second_rounding_takes_the_place_of_the_first():
    layer = nn.Identity()
    put_signal(layer, "input", coarse())
    put_signal(layer, "input", Affine(1.0, 8, 4))
    assert torch.equal(layer(VALUES), torch.tensor([[-8.0, 0.0, 0.0, 0.0, 7.0]]))
    assert len(layer._forward_pre_hooks) == 1


def test_input_given_by_name_is_rounded():
    layer = Named()
    put_signal(layer, "input", coarse())
    assert torch.equal(layer(2.0, signal=VALUES), 2 * VALUES), "the first argument is no signal"
    assert torch.equal(layer(scale=2.0, signal=VALUES), 2 * ROUNDED)


def test_whole_numbers_and_tuples_pass_as_they_are():
    layer = nn.Embedding(9, 2)
    put_signal(layer, "input", coarse())
    assert layer(torch.tensor([5, 8])).shape == (2, 2)
    memory = nn.LSTM(3, 4)
    put_signal(memory, "output", coarse())
    assert isinstance(memory(torch.zeros(2, 1, 3)), tuple)


@pytest.mark.parametrize("container", [nn.Sequential(nn.ReLU()), nn.ModuleList([nn.ReLU()]), nn.ModuleDict()])
def test_container_refuses(container):
    with pytest.raises(BadNetwork, match="can have no rounding of its own. Round the output of its last layer"):
        put_signal(container, "output", coarse())


def network() -> nn.Sequential:
    """Three layers; the first two share a rounding."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(1)
        made = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    shared = coarse()
    put_signal(made[0], "input", shared)
    put_signal(made[1], "output", shared)
    put_signal(made[2], "output", Affine(0.01, 0, 8))
    return made


def test_sites_come_in_the_order_of_the_modules():
    assert list(sites(network())) == [("0", "input"), ("1", "output"), ("2", "output")]


def test_copies_share_what_was_shared_and_nothing_else():
    plain = network()
    for twin in (copy.deepcopy(plain), pickle.loads(pickle.dumps(plain))):
        assert signal_at(twin[0], "input") is signal_at(twin[1], "output")
        assert signal_at(twin[0], "input") is not signal_at(plain[0], "input")
        assert torch.equal(twin(torch.eye(3)), plain(torch.eye(3)))


def test_roundings_are_no_weights_and_no_modules_of_the_author():
    plain = network()
    assert [weight.path for weight in parameter_places(plain)] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert list(own_modules(plain)) == ["", "0", "1", "2"]
    assert inside_fittings(plain) == {id(signal) for signal in sites(plain).values()}


def test_nothing_is_rounded_for_a_while_and_everything_afterwards_even_if_it_fails():
    plain, free = network(), network()
    take_signals(free)
    wanted, before = free(torch.eye(3)), plain(torch.eye(3))
    assert not torch.equal(wanted, before)
    with pytest.raises(ZeroDivisionError), unrounded(plain):
        assert torch.equal(plain(torch.eye(3)), wanted)
        raise ZeroDivisionError
    assert torch.equal(plain(torch.eye(3)), before)


def test_roundings_are_taken_off_and_put_on_other_layers_at_the_same_paths():
    plain = network()
    before = plain(torch.eye(3))
    taken = take_signals(plain)
    assert not sites(plain)
    plain[1] = nn.Sequential(nn.ReLU())[0]
    give_signals(plain, taken)
    assert torch.equal(plain(torch.eye(3)), before)


class Growing(Affine):
    """Becomes an affine one with half the step."""

    def settle(self) -> Affine:
        return Affine(self.scale.detach() / 2, int(self.zero), self.width)


def test_settling_keeps_shared_roundings_shared():
    made = nn.Sequential(nn.ReLU(), nn.ReLU())
    shared = Growing(0.5, 0, 4)
    for layer in made:
        put_signal(layer, "input", shared)
    settle_signals(made)
    found = list(sites(made).values())
    assert found[0] is found[1] and type(found[0]) is Affine and found[0].scale.item() == 0.25
    assert all(signal_at(made[0], side) is None for side in SIDES if side != "input")
