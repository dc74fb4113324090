"""Evaluating: whatever looks at a network leaves it as it was, frozen norms, expanded buffers and whole numbers too."""

import pytest
import torch
from torch import Tensor, nn

from cortado.importance.importance import score
from cortado.methods.match_moments import MatchMoments
from cortado.methods.prune.blocks import without
from cortado.network.coupling.answers import flat_outputs
from cortado.network.graph.trace import trace
from cortado.network.statistics.channel_gradients import ChannelGradients
from cortado.network.statistics.gradients import input_squares
from cortado.network.view import View, working_copy
from cortado.running.eval_mode import copied_buffers, eval_mode, keeping_buffers, train_mode
from cortado.task.measure import mean_score
from cortado.task.task import Data, Task

IMAGES = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))
DATA = Data(IMAGES, torch.arange(12) % 2)
TASK = Task(DATA, DATA, DATA, calibration=DATA, trial=True)


class Odd(nn.Module):
    """A frozen norm in a network that trains, an expanded buffer, a table of whole numbers, a counter set again."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1)
        self.table = nn.Parameter(torch.tensor([1, 0]), requires_grad=False)
        self.register_buffer("mean", torch.zeros(1).expand(3))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.calls = self.calls + 1
        activation = torch.relu(self.norm(self.one(images - self.mean[:, None, None])))
        return self.two(activation).mean((2, 3))[:, self.table]


def odd() -> Odd:
    torch.manual_seed(3)
    network = Odd().train()
    network.norm.eval()
    return network


def modes(network: nn.Module) -> dict[str, bool]:
    return {path: module.training for path, module in network.named_modules()}


LOOKS = {
    "trace": lambda network, view: trace(network, IMAGES),
    "answers": lambda network, view: flat_outputs(network, ((IMAGES,), {})),
    "score": lambda network, view: mean_score(network, DATA, TASK.metric),
    "groups": lambda network, view: view.groups,
    "match_moments": lambda network, view: MatchMoments().apply(view, TASK),
    "taylor": lambda network, view: score("taylor").of(view.weights(), view, TASK),
    "taylor of units": lambda network, view: score("taylor").of_units(view.groups.free, view, TASK),
    "squares": lambda network, view: input_squares(view, view.weights(), DATA, 4),
    "means": lambda network, view: ChannelGradients(view, view.groups.free).means(DATA, 4),
    "blocks": lambda network, view: without(network, "norm", lambda net: float(net(IMAGES).sum())),
}


@pytest.mark.parametrize("look", LOOKS)
def test_looking_at_a_network_leaves_each_module_in_its_own_mode(look: str) -> None:
    network = odd()
    before, mean = modes(network), network.norm.running_mean.clone()
    LOOKS[look](network, View(network, odd(), IMAGES[:2]))
    assert modes(network) == before and before["one"] and not before["norm"]
    if look != "match_moments":
        assert torch.equal(network.norm.running_mean, mean)
    assert not network.table.requires_grad


@pytest.mark.parametrize("look", ["trace", "answers", "groups"])
def test_buffers_that_run_on_are_as_before(look: str) -> None:
    network = odd()
    counter = network.calls
    LOOKS[look](network, View(network, odd(), IMAGES[:2]))
    assert network.calls is counter and float(counter) == 0


def test_modes_and_buffers_come_back_when_the_network_fails() -> None:
    network = odd()
    with pytest.raises(RuntimeError), keeping_buffers(network), eval_mode(network):
        assert not torch.is_grad_enabled() and not network.training
        network(IMAGES[:, :2])
    assert network.training and not network.norm.training and float(network.calls) == 0


def test_second_pass_on_copies_leaves_buffers_and_the_gradients_of_the_first_alone() -> None:
    network, wanted = odd(), odd()
    network.norm.train()
    wanted.norm.train()
    wanted(IMAGES).square().sum().backward()
    outputs, before = network(IMAGES), dict(network.named_buffers())
    values = {name: buffer.clone() for name, buffer in before.items()}
    with copied_buffers(network):
        network(2 * IMAGES)
        assert not torch.equal(network.norm.running_mean, values["norm.running_mean"])
    after = dict(network.named_buffers())
    assert all(after[name] is before[name] and torch.equal(after[name], values[name]) for name in before)
    outputs.square().sum().backward()
    for one, other in zip(network.parameters(), wanted.parameters(), strict=True):
        assert one.grad is None if other.grad is None else torch.equal(one.grad, other.grad)


class Forgetful(nn.Module):
    """Deletes one buffer as it runs, and fills one that was nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 2)
        self.register_buffer("cache", torch.ones(2))
        self.register_buffer("later", None)

    def forward(self, activation: Tensor) -> Tensor:
        if "cache" in self._buffers:
            del self.cache
        self.later = torch.zeros(2)
        return self.one(activation)


def test_buffers_deleted_or_filled_meanwhile_come_back_as_buffers() -> None:
    network = Forgetful()
    trace(network, torch.ones(2, 3))
    assert network.later is None and "cache" in network.state_dict() and "cache" not in network.__dict__


def test_kept_statistics_stay_while_gains_learn():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    assert train_mode(network, "kept") is network
    assert [part.training for part in network] == [True, False, True]
    before = network[1].running_mean.clone()
    network(IMAGES).square().sum().backward()
    assert torch.equal(network[1].running_mean, before) and bool(network[1].weight.grad.abs().sum() > 0)
    assert all(part.training for part in train_mode(network))


class Padded(nn.Module):
    """A transformer as torch builds it by default, on samples of several lengths."""

    def __init__(self, nested: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested), nn.Linear(8, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(tokens, src_key_padding_mask=tokens[..., 0] > 1)[:, 0])


def test_padded_batches_reach_layers_as_plain_tensors():
    network, tokens = Padded(nested=True).eval(), torch.randn(3, 5, 8)
    tokens[..., 0], tokens[1:, 1:, 0] = 0.0, 9.0
    seen: list[Tensor] = []
    network.encoder.layers[0].linear1.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    with eval_mode(network):
        network(tokens)
    assert [tuple(one.shape) for one in seen] == [(3, 5, 8)] and not seen[0].is_nested
    assert torch.backends.mha.get_fastpath_enabled()


def test_moments_are_matched_behind_a_padding_mask_as_without_nesting():
    tokens, found = torch.randn(12, 5, 8, generator=torch.Generator().manual_seed(2)), []
    tokens[..., 0], tokens[4:, 3:, 0] = 0.0, 9.0
    data = Data(tokens, torch.arange(12) % 2)
    task = Task(data, data, data, calibration=data, trial=True)
    for nested in (True, False):
        torch.manual_seed(5)
        original = Padded(nested).eval()
        view = View(working_copy(original), original, task.example)
        with torch.no_grad():
            view.network.encoder.layers[0].linear1.weight.mul_(0.5)
        MatchMoments().apply(view, task)
        found.append(view.network.encoder.layers[0].linear1.bias.detach())
    assert torch.equal(*found) and not torch.equal(found[0], original.encoder.layers[0].linear1.bias)
