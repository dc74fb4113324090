"""Group convolutions: exact where the kernel has groups, closest where it has not, with the fewest indices."""

import copy

import pytest
import torch
from torch import Tensor, nn

from cortado.errors import NothingChanged
from cortado.file.artifact import decode, encode
from cortado.methods.compact.groups import CompactGroups
from cortado.network.profile.profile import profile
from cortado.network.view import View
from cortado.parts.blocks.grouped import Grouped
from tests.methods.factorize.test_factorize import lost, problem, random


def in_hidden_groups(groups: int) -> Tensor:
    """A kernel (12, 12, 3, 3) in groups of scattered channels."""
    rows, columns = (torch.randperm(12, generator=torch.Generator().manual_seed(seed)) % groups for seed in (1, 2))
    return random(12, 12, 3, 3) * (rows[:, None] == columns)[..., None, None]


@pytest.mark.parametrize("fit", ["filters", "outputs"])
def test_hidden_groups_are_found_and_nothing_is_lost(fit):
    view, task, original = problem()
    for network in (view.network, original):
        network.two.weight.data = in_hidden_groups(4)
    CompactGroups(groups=4, where="two", fit=fit, starts=8).apply(view, task)
    assert isinstance(view.network.two, Grouped) and view.network.two.conv.groups == 4
    assert lost(view, original, task) < 1e-6
    assert "two: 4 groups keep 100%" in view.notes[0]


def chain_of_three() -> nn.Module:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        ).eval()  # fmt: skip


@pytest.mark.parametrize(
    ("where", "wanted"), [("3", {"3": (True, True)}), ("not 0", {"3": (True, False), "5": (True, False)})]
)
def test_neighbours_take_over_orders_where_they_are_selected(where, wanted):
    """Layer 0 is never selected, so the inputs of layer 3 stay; 3 and 5 share an order, and the head follows 5."""
    network, (_, task, _) = chain_of_three(), problem()
    view = View(copy.deepcopy(network), network, task.example)
    CompactGroups(groups=2, where=where, fit="filters").apply(view, task)
    blocks = {path: one for path, one in view.network.named_modules() if isinstance(one, Grouped)}
    assert {path: (one.before is not None, one.after is not None) for path, one in blocks.items()} == wanted


def test_fit_to_outputs_is_the_least_squares_solution():
    view, task, original = problem()
    CompactGroups(groups=2, where="three", starts=1).apply(view, task)
    block, rows, seen = view.network.three, [], []
    original.three.register_forward_pre_hook(lambda layer, given: rows.append(given[0]))
    original.three.register_forward_hook(lambda layer, given, output: seen.append(output))
    original(task.calibration.inputs)
    read = rows[0] if block.before is None else block.before(rows[0])
    wanted = seen[0][:, torch.arange(16) if block.after is None else block.after.index.argsort()]
    for group in range(2):
        patches = nn.functional.unfold(read[:, group * 6 : group * 6 + 6], 3, stride=2).transpose(1, 2).flatten(0, 1)
        targets = wanted[:, group * 8 : group * 8 + 8].flatten(2).transpose(1, 2).flatten(0, 1)
        with_ones = torch.cat([patches, torch.ones(len(patches), 1)], 1).double()
        best = torch.linalg.lstsq(with_ones, targets.double()).solution
        least = (with_ones @ best - targets).square().mean()
        kernel, bias = (
            block.conv.weight[group * 8 : group * 8 + 8].flatten(1),
            block.conv.bias[group * 8 : group * 8 + 8],
        )
        assert (patches @ kernel.T + bias - targets).square().mean() < 1.02 * least


def test_cost_is_divided_and_the_file_brings_it_back():
    view, task, original = problem()
    CompactGroups(groups=3, where="one, two").apply(view, task)
    before, after = profile(original, task.example), profile(view.network, task.example)
    assert 3 * after.row("two.conv").multiply_adds == before.row("two").multiply_adds
    assert 3 * after.row("two.conv").weights == before.row("two").weights
    again = decode(encode(view.network, original), original)
    assert torch.equal(again(task.example), view.network(task.example))


def test_groups_that_divide_no_layer_are_refused_in_words():
    view, task, _ = problem()
    with pytest.raises(NothingChanged, match="whose inputs and outputs its groups divide"):
        CompactGroups(groups=7).apply(view, task)
