"""Exit: an early answer around a whole network, in the file, beside cuts and blocks."""

import copy

import pytest
import torch

from cortado.errors import BadNetwork, BadValue
from cortado.file.artifact import decode, encode
from cortado.methods.prune.weights import PruneWeights
from cortado.network.view import View
from cortado.parts.blocks.exit import Exit
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]


def with_exits(threshold=None):
    """The tiny residual network with exits after its stem and after its block, and the network alone."""
    torch.manual_seed(0)
    original = NET.make().eval()
    view = View(copy.deepcopy(original), original, NET.example)
    view.wrap("", Exit(view.network, "second", 4, 6, 4, 1, 5))
    view.wrap("", Exit(view.network, "stem", 4, 6, 4))
    network = view.network.eval()
    if threshold is not None:
        network.exit_stem.sure.thresholds.fill_(threshold)
        network.exit_second.sure.thresholds.fill_(threshold)
    return network, original


def test_nobody_leaves_at_first_and_names_are_those_of_before():
    network, original = with_exits()
    inputs = NET.task().test.inputs
    assert torch.equal(network(inputs), original(inputs))
    assert set(original.state_dict()) < set(network.state_dict())
    assert network.get_submodule("first") is network.inner.inner.first


def test_sure_samples_get_the_answer_of_the_earliest_sure_head():
    network, original = with_exits()
    inputs = NET.task().test.inputs
    heads = {}
    for name in ("exit_stem", "exit_second"):
        getattr(network, name).register_forward_hook(lambda m, given, made, name=name: heads.update({name: made}))
    network(inputs)
    limit = heads["exit_stem"].softmax(1).amax(1).sort().values[len(inputs) // 2].item() + 1e-6
    network.exit_stem.sure.thresholds.fill_(limit)
    network.exit_second.sure.thresholds.fill_(0.0)
    found = network(inputs)
    early = heads["exit_stem"].softmax(1).amax(1) > limit
    assert 0 < int(early.sum()) < len(inputs)
    assert torch.equal(found, torch.where(early[:, None], heads["exit_stem"], heads["exit_second"]))


def test_the_file_gives_exits_back_without_any_methods_code():
    network, original = with_exits(0.3)
    view = View(network, original, NET.example)
    PruneWeights(keep=0.5).apply(view, NET.task())
    group = next(one for one in view.groups.free if one.count > 4)
    view.cut({group: torch.arange(group.count - 2)})
    again = decode(encode(view.network, original), original)
    inputs = NET.task().test.inputs
    assert torch.equal(again(inputs), view.network(inputs))
    assert encode(again, original) == encode(view.network, original)


def test_a_block_that_keeps_nothing_cannot_stand_for_the_network():
    from cortado.parts.blocks.bypass import Bypass

    network, original = with_exits()
    with pytest.raises(BadNetwork, match="place of the whole network, which it does not keep"):
        View(network, original, NET.example).wrap("", Bypass())


def test_sizes_that_cannot_be_are_refused():
    net = NET.make()
    with pytest.raises(BadNetwork, match="no module 'nowhere'"):
        Exit(net, "nowhere", 4, 6, 4)
    with pytest.raises(BadValue, match="convolutions must lie in 0"):
        Exit(net, "stem", 3, 6, 4, convolutions=1)
    with pytest.raises(BadValue, match="2, 3 or 4 axes"):
        Exit(net, "stem", 5, 6, 4)
