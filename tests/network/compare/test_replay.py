"""A changed layer's answers by replay are those of the whole network, whatever runs before it and however."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.network.compare.divergence import output_rows
from cortado.network.compare.replay import Replay
from cortado.network.weight import parameter_places
from cortado.task.outputs.automatic import Automatic
from tests.laws.tiny_nets import BY_NAME


class InPlace(nn.Module):
    """Outputs are changed in place and read again, and one layer runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, inputs):
        activation = self.first(inputs)
        kept = activation.mul_(2) + 1
        other = self.second(kept)
        other.neg_()
        activation += other
        return self.head(self.second(activation) + other)


class Preactivated(nn.Module):
    """A shortcut from before an activation that works in place, and so sees it."""

    def __init__(self, between) -> None:
        super().__init__()
        self.first, self.between = nn.Linear(5, 8), between
        self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, inputs):
        activation = self.first(inputs)
        through = self.between(activation)
        through += 1
        return self.head(self.second(through) + activation)


class Taps(nn.Module):
    """A layer leaves something that another one takes."""

    def __init__(self) -> None:
        super().__init__()
        self.tap, self.second, self.head = Tap(), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, inputs):
        activation = self.second(self.tap(inputs))
        return self.head(activation + self.tap.seen)


class Tap(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Parameter(torch.ones(5))

    def forward(self, inputs):
        self.seen = inputs * self.inner
        return inputs + 1


class Lists(nn.Module):
    """A layer appends to what it is handed."""

    def __init__(self) -> None:
        super().__init__()
        self.put, self.head = Puts(), nn.Linear(5, 3)

    def forward(self, inputs):
        found = []
        activation = self.put(inputs, found)
        return self.head(activation + torch.stack(found).sum(0))


class Puts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, inputs, found):
        found.append(inputs * 2)
        return inputs @ self.inner.weight


class Direct(nn.Module):
    """A layer's forward is called without its call, and its call afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, inputs):
        return self.head(self.first(self.second(self.first.forward(inputs))))


class Greedy(nn.Module):
    """The network changes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, inputs):
        inputs.sub_(0.5).mul_(4)
        return self.head(self.first(inputs))


def hooked():
    """A layer whose output a hook of the user's changes."""
    network = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3))
    network[0].register_forward_hook(lambda layer, given, output: output * 3)
    return network


class TiedByHand(nn.Module):
    """The head's weight is used before the head is called, by the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.middle, self.head = nn.Linear(6, 6), nn.Linear(6, 9)

    def forward(self, tokens):
        return self.head(self.middle(functional.embedding(tokens, self.head.weight)).mean(1))


def changed_answers(network, inputs):
    """For each weight: answers by replay and by the whole network, with that weight changed."""
    network = network.eval()
    replay = Replay(network, [inputs[1:].clone(), inputs], Automatic())
    for weight in parameter_places(network):
        attached, other = weight.form, copy.deepcopy(weight.form)
        with torch.no_grad():
            for part in other.parameters():
                part.mul_(1.5).add_(0.1)
        layers = [layer for layer, _ in weight.places]
        weight.set_form(other)
        replay.answers(0, layers)
        yield weight.path, replay.answers(1, layers), output_rows(network, inputs.clone(), Automatic()).double()
        weight.set_form(attached)
        torch.testing.assert_close(replay.answers(1, layers), replay.batches[1].wanted, rtol=1e-6, atol=1e-6)
    assert not any("forward" in module.__dict__ for module in network.modules())


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_tiny_network_answers_as_a_whole(name):
    torch.manual_seed(0)
    made = BY_NAME[name]
    for path, found, wanted in changed_answers(made.make(), made.task().calibration.first(6).inputs):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6, msg=path)


ODD = {
    "in place and twice": InPlace,
    "activation in place": lambda: Preactivated(nn.ReLU(inplace=True)),
    "identity": lambda: Preactivated(nn.Identity()),
    "dropout": lambda: Preactivated(nn.Dropout()),
    "view": lambda: Preactivated(nn.Flatten()),
    "taps": Taps,
    "lists": Lists,
    "forward by hand": Direct,
    "inputs in place": Greedy,
    "hook": hooked,
}


@pytest.mark.parametrize("kind", ODD)
def test_layers_that_do_more_than_give_a_tensor(kind):
    torch.manual_seed(0)
    for path, found, wanted in changed_answers(ODD[kind](), torch.randn(4, 5)):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6, msg=path)


def test_a_weight_used_before_its_layer_is_called():
    for path, found, wanted in changed_answers(TiedByHand(), torch.randint(0, 9, (4, 3))):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6, msg=path)


def test_networks_that_draw_random_numbers_run_again():
    class Noisy(nn.Module):
        def forward(self, inputs):
            return inputs + torch.randn_like(inputs)

    network = nn.Sequential(nn.Linear(6, 6), Noisy(), nn.Linear(6, 6))
    assert not Replay(network, [torch.randn(4, 6)], Automatic()).batches[0].calls


def test_what_does_not_give_the_same_answers_is_forgotten(monkeypatch):
    network = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    monkeypatch.setattr(
        "cortado.network.compare.replay.replayed", lambda forward, coming, *arguments: next(coming).value + 1
    )
    assert not Replay(network, [torch.randn(4, 6)], Automatic()).batches[0].calls


def test_only_what_nothing_changes_in_place_is_given_without_a_copy():
    class InPlace(nn.Module):
        def forward(self, inputs):
            inputs[:, 0] += 1
            return inputs * 2

    network = nn.Sequential(
        nn.Linear(6, 6), nn.Tanh(), InPlace(), nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 2)
    )
    replay = Replay(network, [torch.randn(4, 6)], Automatic())
    calls = replay.batches[0].calls
    alias = {number: [kept.alias for _, kept in calls[network[number]] if kept is not None] for number in range(6)}
    assert alias == {0: [True], 1: [False], 2: [], 3: [False], 4: [], 5: [True]}
    before = {layer: [kept.value.clone() for _, kept in some if kept is not None] for layer, some in calls.items()}
    for layer in network:
        replay.answers(0, [layer])
    for layer, some in calls.items():
        now = [kept.value for _, kept in some if kept is not None]
        assert all(torch.equal(a, b) for a, b in zip(now, before[layer], strict=True))


@pytest.mark.parametrize("kind", ["encoder", "attention"])
def test_attention_uses_its_output_weight_itself(kind):
    torch.manual_seed(0)
    if kind == "encoder":
        network = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    else:

        class Mixed(nn.Module):
            def __init__(self):
                super().__init__()
                self.mix, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

            def forward(self, inputs):
                return self.head(self.mix(inputs, inputs, inputs)[0])

        network = Mixed()
    for path, found, wanted in changed_answers(network, torch.randn(3, 5, 8)):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5, msg=path)


def runs(network, changed, most_bytes=1 << 30):
    """How often each layer ran in a replay."""
    count = dict.fromkeys(range(len(network)), 0)

    def counting(number, forward):
        def run(inputs):
            count[number] += 1
            return forward(inputs)

        return run

    replay = Replay(network, [torch.randn(4, 6)], Automatic(), most_bytes)
    for number, layer in enumerate(network):
        layer.forward = counting(number, layer.forward)
    replay.answers(0, [network[changed]])
    return list(count.values())


def test_what_comes_before_does_not_run_again():
    assert runs(nn.Sequential(*(nn.Linear(6, 6) for _ in range(4))), 2) == [0, 0, 1, 1]
    assert runs(nn.Sequential(*(nn.Linear(6, 6) for _ in range(4))), 0) == [1, 1, 1, 1]


def test_what_does_not_fit_into_memory_runs_again():
    outputs = 4 * 6 * 4
    twice = nn.Linear(6, 6)
    network = nn.Sequential(twice, nn.Linear(6, 6), twice, nn.Linear(6, 6)).eval()
    inputs, spare = torch.randn(4, 6), 2 * outputs
    assert torch.equal(
        Replay(network, [inputs], Automatic(), spare).answers(0, [network[3]]),
        output_rows(network, inputs, Automatic()).double(),
    )
    assert runs(nn.Sequential(*(nn.Linear(6, 6) for _ in range(4))), 3, 2 * outputs) == [0, 0, 1, 1]
    assert runs(nn.Sequential(*(nn.Linear(6, 6) for _ in range(4))), 3, 0) == [1, 1, 1, 1]


def test_a_layer_that_was_never_used_changes_nothing():
    network = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    network.spare = nn.ModuleList([nn.Linear(2, 2)])
    network.forward = lambda inputs: network[1](network[0](inputs))
    replay = Replay(network, [torch.randn(3, 6)], Automatic())
    assert torch.equal(replay.answers(0, [network.spare[0]]), replay.batches[0].wanted)


class OnlySometimes(nn.Module):
    """Changes what a layer gave in place, but not with the weights that it was recorded with."""

    def __init__(self, kind):
        super().__init__()
        self.a, self.b, self.c, self.kind = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2), kind

    def forward(self, inputs):
        h = self.a(inputs)
        g = self.b(inputs)
        if self.kind == "condition" and g.mean() > 1:
            h.mul_(2)
        if self.kind == "data":
            h.data.add_(1)
        if self.kind == "together":
            torch._foreach_add_([h], [torch.ones_like(h)])
        return self.c(h + g)


@pytest.mark.parametrize("kind", ["condition", "data", "together"])
def test_what_is_changed_in_place_in_a_replay_only_is_not_lent_again(kind):
    torch.manual_seed(0)
    network, inputs = OnlySometimes(kind).eval(), torch.randn(4, 6)
    replay = Replay(network, [inputs], Automatic())
    bias = network.b.bias.detach().clone()
    for shift in (0.0, 5.0, 5.0, 0.0):
        with torch.no_grad():
            network.b.bias.copy_(bias + shift)
        torch.testing.assert_close(
            replay.answers(0, [network.b]), output_rows(network, inputs.clone(), Automatic()).double()
        )


def test_a_view_does_not_keep_the_memory_of_what_it_shows():
    class Last(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs)[:, -1]

    replay = Replay(nn.Sequential(Last(6, 6), nn.Linear(6, 2)).eval(), [torch.randn(4, 50, 6)], Automatic())
    for some in replay.batches[0].calls.values():
        for _, kept in some:
            assert kept is None or kept.value.untyped_storage().nbytes() == kept.value.nbytes
