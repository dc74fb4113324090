"""Gates and costs: slopes against finite differences, predicted costs against those of the cut network."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.importance.importance import score
from cortado.network.profile.profile import profile
from cortado.network.profile.pruned_cost import Costs
from cortado.network.statistics.channel_gradients import ChannelGradients
from cortado.network.view import View
from cortado.task.task import Data, Task

IMAGES = torch.randn(24, 2, 6, 6, generator=torch.Generator().manual_seed(1))
TARGETS = torch.randint(3, (24,), generator=torch.Generator().manual_seed(2))


class Residual(nn.Module):
    """A stream that two convolutions write and two layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.back = (
            nn.Conv2d(2, 6, 3, padding=1),
            nn.Conv2d(6, 5, 3, padding=1),
            nn.Conv2d(5, 6, 1),
        )
        self.head = nn.Linear(6, 3)

    def gated(self, activation: Tensor) -> Tensor:
        return activation

    def forward(self, images: Tensor) -> Tensor:
        activation = self.gated(torch.tanh(self.stem(images)))
        activation = activation + self.gated(self.back(torch.tanh(self.inner(activation))))
        return self.head(activation.mean((2, 3)))


def net() -> Residual:
    torch.manual_seed(6)
    return Residual().eval()


def stream(view: View) -> int:
    return next(n for n, g in enumerate(view.groups.free) if any(s.names[0] == "head.weight" for s in g.slots))


def test_slopes_are_the_derivatives_by_a_gate_on_all_that_a_unit_gives() -> None:
    network = net()
    view = View(network, net(), IMAGES[:2])
    number = stream(view)
    gates = ChannelGradients(view, view.groups.free)
    assert gates.known(number)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets, reduction="sum")

    total = sum(found[number].sum(0) for found in gates.slopes(Data(IMAGES, TARGETS), 8, loss, {}))
    duplicate, step = copy.deepcopy(network).double(), 1e-4
    with torch.no_grad():
        for unit in range(6):
            ends = []
            for sign in (1, -1):
                gate = torch.ones(6, 1, 1, dtype=torch.float64)
                gate[unit] += sign * step
                duplicate.gated = lambda activation, gate=gate: activation * gate
                ends.append(float(loss(duplicate(IMAGES.double()), TARGETS)))
            assert float(total[unit]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-4)


def test_reading_slopes_leaves_the_network_as_it_was() -> None:
    network = net().train()
    network.head.weight.requires_grad_(False)
    view = View(network, net(), IMAGES[:2])
    list(ChannelGradients(view, view.groups.free).slopes(Data(IMAGES, TARGETS), 8, lambda out, _: out.sum(), {}))
    assert network.training and not network.head.weight.requires_grad and network.stem.weight.requires_grad
    assert all(p.grad is None for p in network.parameters())
    assert not any(layer._forward_pre_hooks for layer in network.modules())


@pytest.mark.parametrize("of", ["multiply_adds", "parameters"])
def test_predicted_cost_is_that_of_the_cut_network(of: str) -> None:
    network = net()
    view = View(network, net(), IMAGES[:2])
    costs = Costs(view, of)
    keeps = {group: torch.arange(group.count - 1 - number) for number, group in enumerate(view.groups.free)}
    predicted = costs.after(keeps)
    view.cut(keeps)
    found = {
        "multiply_adds": profile(network, IMAGES[:2]).total("multiply_adds").value,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    assert predicted == pytest.approx(found[of])
    assert costs.share({}) == 1.0


class LateFirst(nn.Module):
    """Its first parameter runs last, and two branches read the input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.head = nn.Linear(8, 4)
        self.left, self.right = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 5, 3)
        self.after_left, self.after_right = nn.Conv2d(6, 8, 1), nn.Conv2d(5, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = self.after_left(self.left(x).relu()) + self.after_right(self.right(x).relu())
        return self.head(both.relu().mean((2, 3)))


@pytest.mark.parametrize("by", ["taylor", "curvature"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_group_has_scores_in_whatever_order_layers_are_registered(by: str, dtype: torch.dtype) -> None:
    network = LateFirst().to(dtype).eval()
    images, targets = torch.randn(24, 3, 6, 6).to(dtype), torch.randint(0, 4, (24,))
    task = Task(*(Data(images[a : a + 8], targets[a : a + 8]) for a in (0, 8, 16)), batch=8)
    view = View(network, network, images[:2])
    found = score(by).of_units(view.groups.free, view, task)
    assert len(found) == 3 and all(float(units.abs().max()) > 0 for units in found)


def test_tokens_that_come_as_rows_are_those_of_their_samples() -> None:
    class Rows(nn.Module):
        """Linear layers over (samples x tokens, features)."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(12)
            self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = self.two(self.one(x.reshape(-1, x.shape[-1])).relu())
            return rows.unflatten(0, x.shape[:2]).mean(1)

    class Tokens(Rows):
        """The same with an axis for tokens."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.one(x).relu()).mean(1)

    tokens, targets = torch.randn(24, 3, 6), torch.randint(0, 4, (24,))
    task = Task(*(Data(tokens[a : a + 8], targets[a : a + 8]) for a in (0, 8, 16)), batch=8)
    found = []
    for kind in (Rows, Tokens):
        network = kind().eval()
        view = View(network, network, tokens[:2])
        found.append(score("taylor").of_units(view.groups.free, view, task)[0])
    torch.testing.assert_close(*found)
