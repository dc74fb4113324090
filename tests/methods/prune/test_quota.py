"""The quota of prune/channels, prune/heads and prune/widths: how many units of each group stay, and in what steps."""

import copy

import pytest
import torch
from torch import nn

from cortado.engine.compress import compress
from cortado.engine.options import RunOptions
from cortado.engine.recipe import read_recipe
from cortado.errors import CannotFollow, NothingChanged
from cortado.methods.prune.channels import PruneChannels
from cortado.methods.prune.quota import Quota, shares_of
from cortado.methods.prune.ranking import most_important
from cortado.network.view import View
from cortado.runtimes.runtime import known_runtimes, runtime_by_name
from tests.methods.prune.test_channels import IMAGES, net, task
from tests.network.coupling.test_proof import TOKENS, scaled_attention


def quota(**fields) -> Quota:
    known = {"of": "channels", "keep": 0.5, "across": False, "least": 0.0, "multiple": 1}
    return Quota(**{"method": "prune/channels", "what": "channels", **known, **fields})


def widths(network: nn.Module) -> list[int]:
    return [layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def cut(method: PruneChannels, network: nn.Module | None = None) -> View:
    network = net() if network is None else network
    view = View(copy.deepcopy(network), network, IMAGES[:2], reference=network)
    method.apply(view, task())
    return view


def test_equals_share_alike():
    assert shares_of([torch.ones(10), torch.ones(20)], 0.5) == [0.5, 0.5]
    assert shares_of([torch.tensor([3.0, 0, 0, 0, 0]), torch.tensor([2.0, 1.0, 0, 0, 0])], 0.3) == [0.2, 0.4]


@pytest.mark.parametrize(
    ("multiple", "units", "step"),
    [(16, 64, 16), (16, 17, 16), (16, 16, 8), (16, 9, 8), (16, 8, 1), (8, 16, 8), (8, 8, 1), (8, 6, 1), (4, 6, 4), (4, 4, 1),
     (32, 16, 8), (1, 100, 1), (7, 7, 1), (7, 8, 7)],
)  # fmt: skip
def test_small_groups_take_smaller_steps(multiple, units, step):
    assert quota(multiple=multiple).step(units) == step


@pytest.mark.parametrize("units", range(1, 70))
@pytest.mark.parametrize("multiple", [1, 8, 16])
def test_counts_are_whole_steps_within_bounds(units, multiple):
    rule = quota(least=0.25, multiple=multiple, of="multiply_adds")
    for share in (0.0, 0.1, 0.3, 0.5, 0.8, 1.0):
        count = rule.count(units, share)
        assert 0.25 * units <= count <= units and (count % rule.step(units) == 0 or count == units)


def test_a_share_of_channels_below_least_is_met_all_the_same():
    assert quota(keep=0.1, least=0.25).count(100, 0.1) == 10
    assert quota(keep=0.5, least=0.25).count(100, 0.1) == 25
    assert quota(keep=0.1, least=0.25, of="parameters").count(100, 0.1) == 25


def test_no_layer_collapses_where_groups_compete():
    """All of the first layer's channels are worth less than any of the second, and a quarter of them stays."""
    first, second = sorted(View(net(), net(), IMAGES[:2]).groups.free, key=lambda group: group.count)
    worth = {first: torch.rand(16), second: torch.rand(24) + 1}
    kept = PruneChannels(keep=0.5, across=True, multiple=1).quota().allocate(worth)
    assert (len(kept[first]), len(kept[second])) == (4, 16)
    kept = PruneChannels(keep=0.5, across=True, multiple=1, least=0.0).quota().allocate(worth)
    assert (len(kept[first]), len(kept[second])) == (1, 19)


def test_counts_are_multiples_of_8_by_default_with_a_note():
    view = cut(PruneChannels(keep=0.5))
    assert widths(view.network) == [8, 16] and view.notes == ["Counts of channels are multiples of 8."]
    exact = cut(PruneChannels(keep=0.5, multiple=1))
    assert widths(exact.network) == [8, 12] and not exact.notes


def test_groups_that_rounding_leaves_whole_are_an_error_that_says_so():
    with pytest.raises(NothingChanged, match="stays whole at keep=0.9, because counts are multiples of 8. Lower keep"):
        cut(PruneChannels(keep=0.9))


def test_a_runtime_sets_the_multiple_that_was_left_open(monkeypatch):
    recipe = read_recipe("prune/channels keep=0.5 | prune/channels keep=0.5 multiple=1 | finetune")
    assert [stage.multiple for stage in recipe.for_blocks(16).stages[:2]] == [16, 1]
    assert recipe.for_blocks(None) == recipe
    assert RunOptions.read().channel_block is None
    assert RunOptions.read(runtimes=["torch_eager"]).channel_block == 8
    monkeypatch.setattr("cortado.runtimes.torch_eager.TorchEager.channel_block", 24)
    network = nn.Sequential(
        nn.Conv2d(3, 96, 3), nn.ReLU(), nn.Conv2d(96, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    ).eval()
    small, report = compress(network, task(), "prune/channels keep=0.55 where=0", runtimes=["torch_eager"])
    assert small[0].out_channels == 48 and report.recipe["stages"][0]["prune/channels"]["multiple"] == 24


def test_every_runtime_states_its_block():
    assert all(runtime_by_name(name).channel_block in (8, 16) for name in known_runtimes())


def test_a_refused_cut_names_its_groups():
    network = scaled_attention()
    view = View(copy.deepcopy(network), network, TOKENS, reference=network)
    groups = view.groups.free
    with pytest.raises(CannotFollow) as refused:
        view.cut({group: torch.arange(group.count // 2) for group in groups})
    assert refused.value.groups and set(refused.value.groups) < set(groups)
    assert not set(refused.value.groups) & set(view.groups.free)


def test_best_entries_are_counted_per_tensor_or_across():
    values = [torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([[0.4, 0.3], [0.2, 0.1]])]
    every = [torch.ones_like(one, dtype=torch.bool) for one in values]
    assert [mask.tolist() for mask in most_important(values, every, 0.5, across=False)] == [
        [True, True, False, False], [[True, True], [False, False]],
    ]  # fmt: skip
    assert [int(mask.sum()) for mask in most_important(values, every, 0.5, across=True)] == [4, 0]
