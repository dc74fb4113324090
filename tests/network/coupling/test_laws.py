"""The laws of cutting, on networks of every structure the zoo has: zero channels go unnoticed, counts are as predicted."""

import copy

import pytest
import torch
from torch import Tensor, nn

from bench.zoo.entry import Entry
from bench.zoo.predicted import count_after, zeroed
from bench.zoo.written import entries
from cortado.network.coupling.cut import cut
from cortado.network.coupling.find import find_groups
from cortado.network.coupling.groups import Groups

SMALL = [
    entry
    for entry in entries()
    if not entry.name.startswith("cortado.") or entry.name in ("cortado.resnet_20", "cortado.lenet_5")
]


def outputs(network: nn.Module, inputs: object) -> list[Tensor]:
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    with torch.no_grad():
        return [leaf for leaf in torch.utils._pytree.tree_leaves(network(*given)) if isinstance(leaf, Tensor)]


def difference(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest difference over the largest value."""
    pairs = zip(one, other, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in pairs)


def some(groups: Groups, exact: bool, seed: int = 1) -> dict:
    """60 % of the units of every free group, at random; of exact groups only, or of all."""
    generator = torch.Generator().manual_seed(seed)
    chosen = [group for group in groups.free if group.exact or not exact]
    return {g: torch.randperm(g.count, generator=generator)[: max(1, round(0.6 * g.count))] for g in chosen}


@pytest.mark.parametrize("entry", SMALL, ids=lambda entry: entry.name)
def test_cutting_zero_channels_changes_no_output(entry: Entry) -> None:
    network, example = entry.network(), entry.example()
    groups = find_groups(network, example)
    keeps, before = some(groups, exact=True), outputs(network, example)
    assert keeps
    wanted = outputs(zeroed(network, groups, keeps), example)
    predicted, whole = count_after(groups, keeps), sum(p.numel() for p in network.parameters())
    cut(network, groups, keeps)
    assert difference(outputs(network, example), wanted) < 1e-4
    assert difference(before, wanted) > 1e-3, "what was cut did nothing in this network: the law says nothing"
    assert sum(p.numel() for p in network.parameters()) == predicted < whole
    # Another batch than the one the network was traced with.
    assert all(bool(torch.isfinite(out).all()) for out in outputs(network, entry.example(seed=3, batch=3)))


@pytest.mark.parametrize(
    "name", ["group_and_instance_norm", "llama_like", "gpt_like", "unequal_split", "gru_translator"]
)
def test_groups_that_are_not_exact_run_after_the_cut_too(name: str) -> None:
    entry = next(entry for entry in SMALL if entry.name == name)
    network, example = entry.network(), entry.example()
    groups = find_groups(network, example)
    keeps = some(groups, exact=False)
    predicted, shapes = count_after(groups, keeps), [out.shape for out in outputs(network, example)]
    cut(network, groups, keeps)
    assert [out.shape for out in outputs(network, example)] == shapes
    assert sum(p.numel() for p in network.parameters()) == predicted


def test_a_second_cut_of_what_was_cut_obeys_the_law_too() -> None:
    entry = next(entry for entry in SMALL if entry.name == "squeeze_excitation")
    network, example = entry.network(), entry.example()
    for seed in (1, 2):
        groups = find_groups(network, example)
        keeps = some(groups, exact=True, seed=seed)
        wanted = outputs(zeroed(network, groups, keeps), example)
        cut(network, groups, keeps)
        assert difference(outputs(network, example), wanted) < 1e-4


def test_finding_leaves_the_network_as_it_was() -> None:
    entry = next(entry for entry in SMALL if entry.name == "depthwise_multiplier_2")
    network = entry.network()
    duplicate = copy.deepcopy(network).train()
    network.train()
    find_groups(network, entry.example())
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), duplicate.state_dict().values(), strict=True)
    )
    assert all(module.training for module in network.modules())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
