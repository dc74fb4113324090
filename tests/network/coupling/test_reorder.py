"""Units of a group change places everywhere at once, and no output changes."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from cortado.errors import BadValue
from cortado.network.coupling.answers import difference, flat_outputs
from cortado.network.coupling.find import find_groups
from cortado.network.coupling.reorder import moved_entries, reorder
from cortado.network.view import View
from tests.laws.tiny_nets import BY_NAME


def backwards(group):
    return torch.arange(group.count).flip(0)


@pytest.mark.parametrize("name", list(BY_NAME))
def test_every_group_can_be_turned_around(name):
    tiny = BY_NAME[name]
    network, inputs = tiny.make(), ((tiny.example,), {})
    groups, wanted = find_groups(network, tiny.example), flat_outputs(network, inputs)
    before = copy.deepcopy(network.state_dict())
    orders = {group: backwards(group) for group in groups.all if not group.ordered}
    assert orders
    reorder(network, groups, orders)
    assert difference(flat_outputs(network, inputs), wanted) < 1e-5
    assert any(not torch.equal(before[key], value) for key, value in network.state_dict().items())
    reorder(network, groups, orders)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_the_entries_of_a_unit_go_together_and_keep_their_order():
    units = np.array([0, 1, -1, 0, 1, 2, 2])
    assert moved_entries(units, np.array([2, 0, 1])).tolist() == [5, 0, 2, 6, 3, 1, 4]


class Halves(nn.Module):
    """Some of a layer's units are added up, the others are not."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, values):
        hidden = self.first(values)
        return self.second(hidden) + hidden[:, :3].sum(1, keepdim=True)


def test_units_whose_place_matters_are_refused_with_the_line():
    network, example = Halves().eval(), torch.randn(2, 4)
    view = View(network, network, example)
    (group,) = view.groups.all
    with pytest.raises(BadValue, match=r"6 units of first cannot change places: slice at test_reorder.py:\d+"):
        view.reorder({group: backwards(group)})


def test_anything_but_a_permutation_is_refused():
    network, example = BY_NAME["mlp"].make(), BY_NAME["mlp"].example
    view = View(network, network, example)
    (group,) = view.groups.all
    with pytest.raises(BadValue, match="no permutation"):
        view.reorder({group: torch.zeros(group.count, dtype=torch.int64)})


def test_a_view_remembers_the_new_order():
    tiny = BY_NAME["residual"]
    network = tiny.make()
    view = View(network, tiny.make(), tiny.example, survivors={})
    (group,) = [group for group in view.groups.all if group.name == "first"]
    view.reorder({group: backwards(group)})
    assert view.kept["first"].tolist() == view.survivors["first_norm"].tolist() == list(range(7, -1, -1))
    assert "second" not in view.kept
