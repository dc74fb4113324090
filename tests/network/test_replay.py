"""A changed layer's answers by replay are those of the whole network, whatever runs before it and however."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.network.divergence import answers
from cortado.network.replay import Replay
from cortado.network.view import parameter_places
from tests.laws.tiny_nets import BY_NAME


class Counted(nn.Module):
    """A layer that counts its calls, and one after it that works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.calls = 0

    def forward(self, inputs):
        signal = self.first(inputs)
        kept = signal.relu_() + 1
        signal = self.second(kept)
        signal += kept
        return self.head(self.second(signal))


class TiedByHand(nn.Module):
    """The head's weight is used before the head is called, by the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.middle, self.head = nn.Linear(6, 6), nn.Linear(6, 9)

    def forward(self, tokens):
        return self.head(self.middle(functional.embedding(tokens, self.head.weight)).mean(1))


def changed_answers(network, inputs, batches=2):
    """For each weight: answers by replay and by the whole network, with that weight changed."""
    network = network.eval()
    replay = Replay(network, [inputs] * batches)
    for weight in parameter_places(network):
        held, other = weight.form, copy.deepcopy(weight.form)
        with torch.no_grad():
            for part in other.parameters():
                part.mul_(1.5).add_(0.1)
        layers = [layer for layer, _ in weight.places]
        weight.put(other)
        yield weight.path, replay.answers(batches - 1, layers), answers(network, inputs).double()
        weight.put(held)
    assert torch.equal(replay.answers(0, [network]), replay.batches[0].wanted)
    assert not any("forward" in module.__dict__ or module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_tiny_network_answers_as_a_whole(name):
    torch.manual_seed(0)
    made = BY_NAME[name]
    for path, found, wanted in changed_answers(made.make(), made.task().calibration.first(6).inputs):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6, msg=path)


@pytest.mark.parametrize(
    ("network", "inputs"),
    [(Counted(), torch.randn(4, 5)), (TiedByHand(), torch.randint(0, 9, (4, 3)))],
    ids=["in place and twice", "tied by hand"],
)
def test_what_is_changed_in_place_or_used_from_elsewhere(network, inputs):
    for path, found, wanted in changed_answers(network, inputs):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6, msg=path)


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

    replay = Replay(network, [torch.randn(4, 6)], most_bytes)
    for number, layer in enumerate(network):
        layer.forward = counting(number, layer.forward)
    replay.answers(0, [network[changed]])
    return list(count.values())


def test_what_comes_before_does_not_run_again():
    assert runs(nn.Sequential(*(nn.Linear(6, 6) for _ in range(4))), 2) == [0, 0, 1, 1]
    assert runs(nn.Sequential(*(nn.Linear(6, 6) for _ in range(4))), 0) == [1, 1, 1, 1]


def test_what_does_not_fit_into_memory_runs_again():
    outputs = 4 * 6 * 4
    assert runs(nn.Sequential(*(nn.Linear(6, 6) for _ in range(4))), 3, 2 * outputs) == [0, 0, 1, 1]
    assert runs(nn.Sequential(*(nn.Linear(6, 6) for _ in range(4))), 3, 0) == [1, 1, 1, 1]


def test_a_layer_that_was_never_used_changes_nothing():
    network = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    network.spare = nn.ModuleList([nn.Linear(2, 2)])
    network.forward = lambda inputs: network[1](network[0](inputs))
    replay = Replay(network, [torch.randn(3, 6)])
    assert torch.equal(replay.answers(0, [network.spare[0]]), replay.batches[0].wanted)
