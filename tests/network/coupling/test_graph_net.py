"""A cut as a graph: where the network's own code cannot follow, for any batch, with tensors of its own."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cortado
from bench.zoo.predicted import count_after, zeroed
from bench.zoo.written import entries
from cortado.errors import BadNetwork, BadValue
from cortado.network.coupling.cut import cut
from cortado.network.coupling.find import find_groups
from cortado.network.coupling.graph_module import GraphNet
from cortado.network.coupling.graph_net import cut_as_graph
from cortado.network.coupling.groups import Groups
from cortado.network.coupling.rewritten import Rewritten, tensors_at
from cortado.parts.forms.attach import attach, form_of, release
from cortado.parts.forms.quantized import Quantized
from cortado.training.loop import Training, train
from tests.network.coupling.test_groups import Net
from tests.network.coupling.test_laws import difference, outputs, some


def encoder(layers: int = 2) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.2, batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, layers, enable_nested_tensor=False), nn.Linear(16, 3)).eval()


def words(batch: int) -> Tensor:
    return torch.randn(batch, 5, 16, generator=torch.Generator().manual_seed(batch))


def without_heads(network: nn.Module, lost: dict[int, list[int]]) -> nn.Module:
    """A copy in which heads of four entries are silent: value rows and output columns are zero."""
    duplicate = copy.deepcopy(network)
    with torch.no_grad():
        for number, heads in lost.items():
            attention = duplicate[0].layers[number].self_attn
            for head in heads:
                rows = slice(4 * head, 4 * head + 4)
                attention.in_proj_weight[32:][rows] = 0
                attention.in_proj_bias[32:][rows] = 0
                attention.out_proj.weight[:, rows] = 0
    return duplicate


def heads_of(groups: Groups) -> list:
    return [group for group in groups.in_graph if group.heads]


def test_heads_of_a_stock_encoder_are_cut_as_if_they_were_silent() -> None:
    network = encoder()
    groups = find_groups(network, words(2))
    first, second = heads_of(groups)
    assert first.count == second.count == 4
    with pytest.raises(BadNetwork, match="cannot be made"):
        cut(network, groups, {first: torch.tensor([0, 2])})
    small = cut_as_graph(network, groups, {first: torch.tensor([0, 2]), second: torch.tensor([1, 2, 3])})
    silent = without_heads(network, {0: [1, 3], 1: [0]})
    for batch in (1, 2, 5):
        assert difference(outputs(small, words(batch)), outputs(silent, words(batch))) < 1e-5
    assert difference(outputs(network, words(2)), outputs(silent, words(2))) > 1e-2
    attention = small.get_submodule("0.layers.0.self_attn")
    assert attention.in_proj_weight.shape == (3 * 8, 16)
    assert type(attention.out_proj) is nn.Linear and attention.out_proj.in_features == 8
    assert network[0].layers[0].self_attn.in_proj_weight.shape == (48, 16)


def fixed() -> Net:
    """Code that says 8 channels of 36 places."""
    torch.manual_seed(0)
    return Net(
        lambda n, x: n.out(functional.dropout(n.norm(n.one(x)).view(len(x), 8 * 36), 0.5, n.training)),
        one=nn.Conv2d(3, 8, 1),
        norm=nn.BatchNorm2d(8),
        out=nn.Linear(288, 2),
    ).eval()


def image(batch: int) -> Tensor:
    return torch.randn(batch, 3, 6, 6, generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize("traced_with", [1, 2, 4])
def test_a_fixed_number_in_the_code_follows_in_the_graph(traced_with: int) -> None:
    network = fixed()
    groups = find_groups(network, image(traced_with))
    assert not groups.free
    (group,) = groups.in_graph
    keeps = {group: torch.tensor([1, 4, 6])}
    small, wanted = cut_as_graph(network, groups, keeps), zeroed(network, groups, keeps)
    for batch in (1, 3, 7):
        assert difference(outputs(small, image(batch)), outputs(wanted, image(batch))) < 1e-5
    assert {name: tuple(value.shape) for name, value in small.state_dict().items()} == {
        "one.weight": (3, 3, 1, 1), "one.bias": (3,), "norm.weight": (3,), "norm.bias": (3,), "norm.running_mean": (3,),
        "norm.running_var": (3,), "norm.num_batches_tracked": (), "out.weight": (2, 108), "out.bias": (2,),
    }  # fmt: skip
    assert (small.one.out_channels, small.norm.num_features, small.out.in_features) == (3, 3, 108)


@pytest.mark.parametrize("name", ["halves_and_shuffle", "channel_shuffle", "transformer", "lstm", "gpt_like"])
def test_graph_obeys_the_law_of_zero_channels_at_any_batch(name: str) -> None:
    entry = next(entry for entry in entries() if entry.name == name)
    network, example = entry.network(), entry.example()
    groups = find_groups(network, example)
    generator = torch.Generator().manual_seed(1)
    exact = [group for group in groups.in_graph if group.exact]
    keeps = {g: torch.randperm(g.count, generator=generator)[: max(1, round(0.6 * g.count))] for g in exact}
    small, silent = cut_as_graph(network, groups, keeps), zeroed(network, groups, keeps)
    for batch in (1, 3, 7):
        inputs = entry.example(seed=batch, batch=batch)
        assert difference(outputs(small, inputs), outputs(silent, inputs)) < 1e-5
    assert sum(p.numel() for p in small.parameters()) == count_after(groups, keeps)
    assert difference(outputs(network, example), outputs(silent, example)) > 1e-3


def test_graph_gives_what_cut_and_the_interpreted_graph_give() -> None:
    entry = next(entry for entry in entries() if entry.name == "squeeze_excitation")
    network, example = entry.network(), entry.example()
    groups = find_groups(network, example)
    keeps = some(groups, exact=False)
    small = cut_as_graph(network, groups, keeps)
    cut(network, groups, keeps)
    wanted = Rewritten(groups, groups.gone(keeps), tensors_at(network, groups)).answer()
    assert difference(outputs(small, example), wanted) < 1e-6
    assert difference(outputs(small, example), outputs(network, example)) < 1e-6


def small_encoder() -> GraphNet:
    network = encoder(layers=1)
    groups = find_groups(network, words(2))
    return cut_as_graph(network, groups, {group: torch.arange(group.count // 2) for group in heads_of(groups)})


def test_graph_copies_share_no_memory() -> None:
    network = fixed()
    groups = find_groups(network, image(2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    small = cut_as_graph(network, groups, {groups.in_graph[0]: torch.arange(4)})
    duplicate = copy.deepcopy(small)
    wanted = small(image(2))
    with torch.no_grad():
        for value in small.parameters():
            value.add_(1)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(duplicate(image(2)), wanted) and not torch.equal(small(image(2)), wanted)


def test_training_moves_every_parameter_and_lowers_the_loss() -> None:
    small, before = small_encoder(), small_encoder().state_dict()
    inputs = words(32)
    targets = (inputs.mean((1, 2)) > 0).long()[:, None].expand(-1, 5).contiguous()

    def loss(found: Tensor, wanted: Tensor) -> Tensor:
        return functional.cross_entropy(found.flatten(0, 1), wanted.flatten())

    task = cortado.Task(
        train=(inputs, targets), validation=(inputs[:4], targets[:4]), test=(inputs[4:8], targets[4:8]), loss=loss,
        metric=cortado.Metric("loss", "nats", lambda found, wanted: found[:, 0, 0], False, 1.0),
    )  # fmt: skip
    with torch.no_grad():
        original = float(loss(small(inputs), targets))
    train(small, task, Training(epochs=15, lr=3e-3, batch=16))
    with torch.no_grad():
        assert float(loss(small(inputs), targets)) < 0.8 * original
    assert not [name for name, value in small.named_parameters() if torch.equal(value, before[name])]


def test_norms_and_dropout_train_as_in_the_network() -> None:
    network = fixed()
    groups = find_groups(network, image(2))
    small = cut_as_graph(network, groups, {groups.in_graph[0]: torch.arange(8)})
    network.train(), small.train()
    torch.manual_seed(3)
    wanted = network(image(4))
    torch.manual_seed(3)
    assert torch.allclose(small(image(4)), wanted, atol=1e-6)
    assert torch.allclose(small.norm.running_mean, network.norm.running_mean)
    assert not torch.equal(small(image(4)), small(image(4)))


def test_graph_is_held_copied_stored_traced_again_and_cut_again(tmp_path: Path) -> None:
    small = small_encoder()
    attached = copy.deepcopy(small)
    attention = attached.get_submodule("0.layers.0.self_attn")
    attach(attention, "in_proj_weight", Quantized.of(attention.in_proj_weight.detach(), bits=6))
    duplicate = copy.deepcopy(attached)
    assert form_of(duplicate.get_submodule("0.layers.0.self_attn"), "in_proj_weight") is not None
    assert type(duplicate).__name__ == "GraphNet"
    assert torch.equal(duplicate(words(3)), attached(words(3))) and not torch.equal(attached(words(3)), small(words(3)))
    cortado.save(attached, str(tmp_path / "held.cortado"), original=small)
    assert torch.equal(cortado.load(str(tmp_path / "held.cortado"), original=small)(words(3)), attached(words(3)))
    program = torch.export.export(small, (words(2),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    assert torch.allclose(program.module()(words(5)), small(words(5)), atol=1e-6)
    groups = find_groups(attached, words(2))
    keeps = {group: torch.tensor([0]) for group in heads_of(groups)}
    assert len(keeps) == 1
    again = cut_as_graph(attached, groups, keeps)
    assert difference(outputs(again, words(3)), outputs(zeroed_forms(attached, groups, keeps), words(3))) < 1e-5
    assert form_of(again.get_submodule("0.layers.0.self_attn"), "in_proj_weight").shape == (12, 16)


@pytest.mark.filterwarnings("ignore:.*LeafSpec")
def test_graph_with_forms_is_not_pickled() -> None:
    net, inputs = small_encoder().eval(), words(3)
    again = pickle.loads(pickle.dumps(net))
    assert torch.equal(again(inputs), net(inputs))
    layer = next(module for module in net.modules() if isinstance(module, nn.Linear))
    attach(layer, "weight", Quantized.of(layer.weight.detach(), 8))
    with pytest.raises(BadNetwork, match=r"pickled with dense weights only.*released\(network\)"):
        pickle.dumps(net)


def test_parameters_of_the_network_itself_are_held_and_released_too() -> None:
    class Placed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places, self.one, self.two = nn.Parameter(torch.randn(5, 16)), nn.Linear(16, 8), nn.Linear(8, 2)

        def forward(self, activation: Tensor) -> Tensor:
            return self.two(functional.relu(self.one(activation + self.places)).reshape(-1, 8)).view(-1, 5, 2)

    network = Placed().eval()
    groups = find_groups(network, words(2))
    small = cut_as_graph(network, groups, {groups.in_graph[0]: torch.arange(4)})
    attach(small, "places", Quantized.of(small.places.detach(), bits=3))
    duplicate = copy.deepcopy(small)
    assert torch.equal(duplicate(words(3)), small(words(3)))
    release(duplicate, "places")
    assert torch.equal(duplicate(words(3)), small(words(3))) and isinstance(duplicate.places, nn.Parameter)


def zeroed_forms(attached: nn.Module, groups: Groups, keeps: dict) -> nn.Module:
    """As `zeroed`, with held weights dense."""
    dense = small_encoder()
    with torch.no_grad():
        inside = dense.get_submodule("0.layers.0.self_attn").in_proj_weight
        inside.copy_(attached.get_submodule("0.layers.0.self_attn").in_proj_weight)
    return zeroed(dense, groups, keeps)


def test_graph_runs_in_onnx_runtime_at_any_batch(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from cortado.runtimes.onnxruntime import Onnxruntime

    small, runtime = small_encoder(), Onnxruntime()
    session = runtime.load(runtime.lower(small, words(2), tmp_path), 1)
    for batch in (1, 4):
        assert difference([session(words(batch))[0]], [small(words(batch)).detach()]) < 1e-5


def test_inputs_by_name_and_nested_outputs_stay() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, activation: Tensor, gain: Tensor) -> dict:
            inner = functional.relu(self.one(activation))
            return {"answer": (self.two(inner), gain * 2)}

    network, example = Named().eval(), {"activation": torch.randn(2, 4), "gain": torch.randn(2, 1)}
    groups = find_groups(network, example)
    small = cut_as_graph(network, groups, {groups.in_graph[0]: torch.arange(3)})
    found = small(activation=torch.randn(5, 4), gain=torch.ones(5, 1))
    assert [tuple(part.shape) for part in found["answer"]] == [(5, 2), (5, 1)]


def test_buffers_that_the_code_writes_or_does_not_save_stay_so() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 2)
            self.register_buffer("calls", torch.zeros(1))
            self.register_buffer("gain", torch.full((6,), 2.0), persistent=False)

        def forward(self, activation: Tensor) -> Tensor:
            self.calls += 1
            return self.two(functional.relu(self.one(activation)) * self.gain) + torch.tensor([1.0, 2.0])

    network, activation = Counting().eval(), torch.randn(2, 4)
    groups = find_groups(network, activation)
    calls = float(network.calls)
    small = cut_as_graph(network, groups, {groups.in_graph[0]: torch.tensor([0, 5])})
    assert float(network.calls) == calls and set(small.state_dict()) == set(network.state_dict())
    assert small.gain.shape == (2,)
    for count in (1, 2):
        small(activation)
        assert float(small.calls) == calls + count


def refused(forward, batch: int, match: str) -> None:
    network = Net(forward, one=nn.Linear(4, 6), two=nn.Linear(6, 2)).eval()
    groups = find_groups(network, torch.randn(batch, 4))
    with pytest.raises(BadNetwork, match=match):
        cut_as_graph(network, groups, {groups.in_graph[0]: torch.arange(3)})


def test_code_that_depends_on_the_batch_otherwise_is_refused_in_words() -> None:
    looped = lambda n, x: n.two(torch.stack([n.one(row).relu() for row in x]))  # noqa: E731
    refused(looped, 2, r"with 2 and 3 samples the network runs different code.*do not loop over samples")
    refused(lambda n, x: n.two(n.one(x).relu()) * (1 / len(x)), 2, r"test_groups\.py.*not multiples of the batch")
    refused(lambda n, x: n.two(n.one(x).relu())[: len(x) // 2], 2, "computes something else with 4")
    refused(lambda n, x: n.two(n.one(x.view(2, 4)).relu()), 2, "fails with 3")


def test_multiples_of_the_batch_follow_the_batch() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        turns = torch.arange(3 * len(x)).view(len(x), 3).float()
        return net.two(net.one(x).relu()).view(-1).view(len(x), 2) / len(x) + turns[:, :2]

    network = Net(forward, one=nn.Linear(4, 6), two=nn.Linear(6, 2)).eval()
    groups = find_groups(network, torch.randn(1, 4))
    small = cut_as_graph(network, groups, {groups.in_graph[0]: torch.arange(6)})
    for batch in (1, 2, 6):
        activation = torch.randn(batch, 4)
        assert torch.allclose(small(activation), network(activation), atol=1e-6)


def test_units_and_axes_that_are_not_there_are_refused() -> None:
    network = fixed()
    groups = find_groups(network, image(2))
    with pytest.raises(BadValue, match=r"has units 0\.\.7"):
        cut_as_graph(network, groups, {groups.in_graph[0]: torch.tensor([8])})
    with pytest.raises(BadNetwork, match="no input has an axis 4"):
        cut_as_graph(network, groups, {groups.in_graph[0]: torch.arange(3)}, axis=4)


def test_samples_may_lie_on_another_axis() -> None:
    torch.manual_seed(0)
    network = nn.TransformerEncoderLayer(16, 4, 24, batch_first=False).eval()
    groups = find_groups(network, words(2).transpose(0, 1))
    (heads,) = heads_of(groups)
    small = cut_as_graph(network, groups, {heads: torch.tensor([3])}, axis=1)
    wanted = zeroed(network, groups, {heads: torch.tensor([3])})
    assert difference(outputs(small, words(4).transpose(0, 1)), outputs(wanted, words(4).transpose(0, 1))) < 1e-5
