"""Numbers that cuts have set are told from those that a network's own code counts."""

import copy

from torch import nn

from cortado.layers.cut_numbers import note_cuts, set_by_cut


def test_only_noted_numbers_count_once_a_network_has_been_noted():
    network = nn.Sequential(nn.Sequential(), nn.GroupNorm(2, 4))
    assert set_by_cut(network, "calls")
    note_cuts(network)
    note_cuts(network, [("", "heads"), ("0", "pad")])
    note_cuts(network)
    mine = copy.deepcopy(network)
    mine[0].__class__ = mine.__class__ = type("Own", (nn.Sequential,), {})
    assert set_by_cut(mine, "heads") and set_by_cut(mine[0], "pad")
    assert not set_by_cut(mine, "pad") and not set_by_cut(mine, "calls") and not set_by_cut(mine[0], "heads")
    assert set_by_cut(mine[1], "num_groups")
