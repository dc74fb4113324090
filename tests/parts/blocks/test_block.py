"""Blocks: what a block keeps has the paths of before, in every way that torch names, loads, copies and runs modules."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from cortado.errors import BadNetwork
from cortado.file.artifact import decode, encode
from cortado.network.view import View
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.quantizer import put_quantizer
from cortado.parts.blocks.block import ORIGINAL, Block, blocks_in, numbered, stand_in
from cortado.parts.blocks.bypass import Bypass


class Gate(Block):
    """Keeps a module and scales its output by what a layer of its own says of the input."""

    arrays = {"inner": ORIGINAL}
    facts = ("channels",)

    def __init__(self, inner: nn.Module, channels: int) -> None:
        super().__init__()
        self.inner, self.gate = inner, nn.Linear(channels, channels)

    @property
    def channels(self) -> int:
        return self.gate.in_features

    def forward(self, values: Tensor) -> Tensor:
        return self.inner(values) * torch.sigmoid(self.gate(values))


class Doubled(Block):
    """Keeps a module, with a factor for its output."""

    arrays = {"inner": ORIGINAL}

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.factor = inner, nn.Linear(1, 1, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        return self.inner(values) * self.factor.weight.squeeze()


def original_net() -> nn.Module:
    """A layer, a container with a norm, a layer."""
    torch.manual_seed(0)
    layers = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), nn.Linear(4, 2)
    return nn.Sequential(*layers).eval()


def wrapped(path: str, nested: bool) -> nn.Module:
    """The network with a block at `path`, or with two, one inside the other."""
    network = original_net()
    stand_in(network, network.get_submodule(path), Gate(network.get_submodule(path), 4).eval())
    if nested:
        stand_in(network, network.get_submodule(path), Doubled(network.get_submodule(path)).eval())
    return network


@pytest.fixture(params=[("0", False), ("0", True), ("1", False), ("1", True)], ids=str)
def network(request: pytest.FixtureRequest) -> nn.Module:
    """A kept layer and a kept container, in one block and in two."""
    return wrapped(*request.param)


EXAMPLE = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))


def test_tensors_have_the_names_of_before_everywhere(network):
    before, state = original_net().state_dict(), network.state_dict()
    more = {name.split(".")[1] for name in state.keys() - before.keys()}
    assert before.keys() < state.keys() and more <= {"gate", "factor"}
    assert state.keys() == {name for name, _ in (*network.named_parameters(), *network.named_buffers())}
    assert all(network.get_parameter(name) is value for name, value in network.named_parameters())
    assert all(torch.equal(state[name], value) for name, value in before.items())


def test_modules_have_the_numbers_of_before_with_the_blocks_own_between_them(network):
    before = [path for path, _ in original_net().named_modules()]
    now = [path for path, _ in numbered(network)]
    assert [path for path in now if path in before] == before
    kept = dict(numbered(network))
    assert all(type(kept[path]) is type(module) for path, module in original_net().named_modules())


@pytest.mark.parametrize("assign", [False, True])
def test_state_goes_back_in_strictly(network, assign):
    state = {name: torch.full_like(value, 2) for name, value in network.state_dict().items()}
    assert network.load_state_dict(state, assign=assign) == ([], [])
    assert all(bool((value == 2).all()) for value in network.state_dict().values())


def test_state_of_the_original_network_fits_both_ways(network):
    before = original_net()
    own = sorted(network.state_dict().keys() - before.state_dict().keys())
    found = network.load_state_dict({n: v + 1 for n, v in before.state_dict().items()}, strict=False)
    assert (sorted(found.missing_keys), found.unexpected_keys) == (own, [])
    found = before.load_state_dict(network.state_dict(), strict=False)
    assert (found.missing_keys, sorted(found.unexpected_keys)) == ([], own)
    assert torch.equal(before.state_dict()["0.weight"], original_net().state_dict()["0.weight"] + 1)


def test_missing_and_strange_tensors_are_named_as_before(network):
    found = network.load_state_dict({"0.strange": torch.ones(1), "1.0.strange": torch.ones(1)}, strict=False)
    counters = {name for name in network.state_dict() if name.endswith("num_batches_tracked")}
    assert set(found.missing_keys) | counters == set(network.state_dict())
    assert set(found.unexpected_keys) == {"0.strange", "1.0.strange"}


def test_versions_of_layers_are_told_to_the_original_network():
    metadata = wrapped("1", nested=True).state_dict()._metadata
    assert metadata["1.1"] == {"version": nn.BatchNorm1d._version} and metadata["1.0"] == {"version": 1}


def reloaded(network: nn.Module) -> nn.Module:
    """The network through torch.save and torch.load."""
    body = io.BytesIO()
    torch.save(network, body)
    body.seek(0)
    return torch.load(body, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one)), reloaded])
def test_copies_compute_the_same_and_load_states(network, copied):
    again = copied(network)
    assert torch.equal(again(EXAMPLE), network(EXAMPLE))
    assert {id(value) for value in again.parameters()}.isdisjoint({id(value) for value in network.parameters()})
    again.load_state_dict({name: torch.zeros_like(value) for name, value in network.state_dict().items()})
    assert not any(bool(value.any()) for value in again.parameters()) and bool(network[0].weight.any())


def test_parametrized_layer_that_is_kept_is_copied_with_its_block():
    """Torch gives such a layer a __deepcopy__, which may not answer for the block."""
    network = original_net()
    parametrizations.weight_norm(network[0])
    stand_in(network, network[0], Gate(network[0], 4).eval())
    again = copy.deepcopy(network)
    assert isinstance(again[0], Gate) and torch.equal(again(EXAMPLE), network(EXAMPLE))
    assert again.load_state_dict(network.state_dict()) == ([], [])


def test_functional_call_takes_the_tensors_that_it_is_given(network):
    zeros = {name: torch.zeros_like(value) for name, value in network.named_parameters()}
    emptied = copy.deepcopy(network)
    emptied.load_state_dict(zeros, strict=False)
    before, names = network(EXAMPLE), [name for name, _ in network.named_parameters()]
    assert torch.equal(torch.func.functional_call(network, zeros, EXAMPLE), emptied(EXAMPLE))
    assert torch.equal(network(EXAMPLE), before) and [name for name, _ in network.named_parameters()] == names
    gradients = torch.func.grad(lambda given: torch.func.functional_call(network, given, EXAMPLE).sum())(
        {name: value.detach() for name, value in network.named_parameters()}
    )
    network(EXAMPLE).sum().backward()
    for name, value in network.named_parameters():
        torch.testing.assert_close(gradients[name], torch.zeros_like(value) if value.grad is None else value.grad)


@pytest.mark.parametrize(("path", "strict"), [("0", False), ("0", True), ("1", False)])
def test_exported_program_computes_the_same_and_leaves_the_network(path, strict):
    network = wrapped(path, nested=True)
    before, state = network(EXAMPLE), list(network.state_dict())
    program = torch.export.export(network, (EXAMPLE,), strict=strict)
    torch.testing.assert_close(program.module()(EXAMPLE), before)
    assert torch.equal(network(EXAMPLE), before) and list(network.state_dict()) == state
    assert set(program.state_dict) <= set(state)


def test_compiled_network_computes_the_same():
    network = wrapped("0", nested=True)
    torch.testing.assert_close(torch.compile(network, backend="eager")(EXAMPLE), network(EXAMPLE))


def test_trained_along_and_moved(network):
    moved = copy.deepcopy(network).double().train()
    assert {value.dtype for value in moved.parameters()} == {torch.float64}
    assert all(module.training for module in moved.modules())
    assert {value.device.type for value in copy.deepcopy(network).to("meta").state_dict().values()} == {"meta"}
    optimizer = torch.optim.SGD(moved.parameters(), 0.1)
    moved(EXAMPLE.double()).pow(3).sum().backward()
    optimizer.step()
    plain, now = network.state_dict(), moved.state_dict()
    changed = [name for name, _ in network.named_parameters() if not torch.equal(now[name].float(), plain[name])]
    assert {"0.bias", "1.1.bias", "2.weight"} <= set(changed) and any(name.endswith("gate.weight") for name in changed)


def test_block_answers_for_what_it_keeps():
    network = wrapped("0", nested=True)
    kept = dict(network.named_modules())["0"]
    assert network[0].weight is kept.weight and network[0].in_features == 4
    with torch.no_grad():
        network[0].weight = nn.Parameter(torch.zeros(4, 4))
    assert not bool(kept.weight.any()) and "weight" not in network[0]._parameters
    with pytest.raises(AttributeError, match="strange"):
        _ = network[0].strange


def test_hooks_of_a_kept_module_run():
    network, seen = original_net(), []
    network[0].register_forward_hook(lambda layer, given, output: seen.append(type(layer)))
    stand_in(network, network[0], Gate(network[0], 4))
    network(EXAMPLE)
    assert seen == [nn.Linear]


def test_shared_module_is_replaced_in_all_its_places():
    shared = nn.Linear(4, 4)
    network = nn.Sequential(shared, nn.ReLU(), shared).eval()
    before = copy.deepcopy(network)
    stand_in(network, shared, Gate(shared, 4).eval())
    assert network[0] is network[2] and isinstance(network[0], Gate)
    assert [name for name, _ in network.named_parameters()] == ["0.weight", "0.bias", "0.gate.weight", "0.gate.bias"]
    assert network.load_state_dict(network.state_dict()) == ([], [])
    again = decode(encode(network, before), before, [Gate])
    assert again[0] is again[2] and torch.equal(again(EXAMPLE), network(EXAMPLE))


def test_two_blocks_at_one_path_come_from_the_inside():
    network = wrapped("1", nested=True)
    assert [(path, type(block)) for path, block in blocks_in(network)] == [("1", Gate), ("1", Doubled)]
    again = decode(encode(network, original_net()), original_net(), [Gate, Doubled])
    assert torch.equal(again(EXAMPLE), network(EXAMPLE))
    assert [type(block) for _, block in blocks_in(again)] == [Gate, Doubled]


class Named(nn.Module):
    """Has children with names that blocks use."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.add_module(name, nn.Linear(4, 4))


@pytest.mark.parametrize("name", ["gate", "inner"])
def test_names_that_would_hide_each_other_are_refused(name):
    network = nn.Sequential(Named(name), nn.Linear(4, 4))
    with pytest.raises(BadNetwork, match=f"Gate cannot keep Named inside: '{name}' is also a name in Named"):
        stand_in(network, network[0], Gate(network[0], 4))


def test_names_of_blocks_further_inside_clash_too():
    network = wrapped("0", nested=True)
    with pytest.raises(BadNetwork, match="Gate cannot keep Doubled inside: 'gate' is also a name in Doubled"):
        stand_in(network, network[0], Gate(network[0], 4))
    network = nn.Sequential(Named("factor"), nn.Linear(4, 4))
    stand_in(network, network[0], Gate(network[0], 4))
    with pytest.raises(BadNetwork, match="Doubled cannot keep Gate inside: 'factor' is also a name in Gate"):
        stand_in(network, network[0], Doubled(network[0]))


def test_block_with_loose_tensors_keeps_nothing():
    class Loose(Gate):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__(inner, 4)
            self.own = nn.Parameter(torch.ones(1))

    network = original_net()
    with pytest.raises(BadNetwork, match="Loose cannot keep Linear inside: it has tensors of its own"):
        stand_in(network, network[0], Loose(network[0]))
    with pytest.raises(BadNetwork, match="cannot stand in the place of the whole network"):
        stand_in(network, network, Bypass())


def test_blocks_have_no_arrays_of_their_own():
    with pytest.raises(TypeError, match="Wrong: a block has no arrays but 'inner'"):
        type("Wrong", (Bypass,), {"arrays": {"scale": "floats"}})


def test_view_wraps_by_path_and_looks_again():
    network, before = original_net(), original_net()
    view = View(network, before, EXAMPLE)
    count = len(view.all_weights)
    view.wrap("1", Gate(network.get_submodule("1"), 4))
    assert len(view.all_weights) == count + 2 and view.touched == {"1"} and not network[1].training
    with pytest.raises(BadNetwork, match="there is no module '7' to wrap"):
        view.wrap("7", Bypass())
    with pytest.raises(BadNetwork, match="Gate keeps another module than the one at '0'"):
        view.wrap("0", Gate(network[2], 4))


def test_quantizer_on_a_block_that_keeps_a_module_is_refused():
    """Its path is that of the kept module, where a file would put it."""
    network = wrapped("0", nested=False)
    put_quantizer(network[0], "input", Affine(0.5, 0, 8))
    with pytest.raises(BadNetwork, match="an activation of the Gate at 0 is rounded"):
        encode(network, original_net())
    network = wrapped("0", nested=True)
    put_quantizer(dict(network.named_modules())["0"], "input", Affine(0.5, 0, 8))
    put_quantizer(network[0].gate, "output", Affine(0.25, 0, 8))
    again = decode(encode(network, original_net()), original_net(), [Gate, Doubled])
    assert torch.equal(again(EXAMPLE), network(EXAMPLE)) and not torch.equal(
        again(EXAMPLE), wrapped("0", True)(EXAMPLE)
    )
