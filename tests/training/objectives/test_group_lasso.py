"""Group lasso against plain loops over channels and columns, and what a training with it lets go."""

import copy

import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork
from cortado.methods.finetune import Finetune
from cortado.methods.prune.channels import PruneChannels
from cortado.methods.prune.positions import PrunePositions
from cortado.network.view import View
from cortado.parts.forms.attach import attach
from cortado.parts.forms.dense import Dense
from cortado.training.objectives.group_lasso import GroupLasso
from cortado.training.objectives.group_lasso_positions import GroupLassoPositions
from tests.laws.tiny_nets import BY_NAME


def seen(name):
    tiny = BY_NAME[name]
    network = tiny.make()
    return View(network, tiny.make(), tiny.example), tiny.task()


def value_of(penalty, view, task, where="*"):
    return penalty.of(view, view.weights(where), task)()


def joined(*tensors):
    """The L2 norm over some tensors together, by hand."""
    return sum(float((tensor.detach() ** 2).sum()) for tensor in tensors) ** 0.5


def test_channels_count_with_all_that_makes_them():
    view, task = seen("residual")
    net = view.network
    tied = (net.stem.weight, net.norm.weight, net.norm.bias, net.second.weight, net.second_norm.weight)
    tied += (net.second_norm.bias,)
    wanted = sum(joined(*(one[unit] for one in tied)) for unit in range(6))
    alone = (net.first.weight, net.first_norm.weight, net.first_norm.bias)
    inner = sum(joined(*(one[unit] for one in alone)) for unit in range(8))
    assert value_of(GroupLasso(), view, task).item() == pytest.approx(wanted + inner, rel=1e-5)
    # A pattern takes whole groups; the classes of the last layer are never pulled.
    assert value_of(GroupLasso(), view, task, "first").item() == pytest.approx(inner, rel=1e-5)
    assert value_of(GroupLasso(), view, task, "stem").item() == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(BadNetwork, match="the selected weights produce no channels that can be cut"):
        GroupLasso().of(view, view.weights("head"), task)


def test_gates_of_a_recurrent_layer_count_for_one_unit():
    view, task = seen("recurrent")
    lstm = view.network.lstm
    rows = [value.detach().unflatten(0, (4, 7)) for value in lstm.parameters()]
    wanted = sum(joined(*(one[:, unit] for one in rows)) for unit in range(7))
    assert value_of(GroupLasso(), view, task).item() == pytest.approx(wanted, rel=1e-5)


class Branches(nn.Module):
    """A network that torch cannot trace."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(12, 16), nn.Linear(16, 4)

    def forward(self, activation):
        hidden = torch.relu(self.first(activation))
        return self.last(hidden if hidden.sum() > 0 else -hidden)


def test_filters_of_each_weight_count_where_the_network_cannot_be_traced():
    torch.manual_seed(0)
    network, task = Branches().eval(), BY_NAME["mlp"].task()
    view = View(network, copy.deepcopy(network), task.example)
    wanted = sum(joined(row) for layer in (network.first, network.last) for row in layer.weight)
    assert value_of(GroupLasso(), view, task).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_columns_are_summed_over_the_filters_that_read_them(groups):
    torch.manual_seed(0)
    network, task = nn.Sequential(nn.Conv2d(4, 6, 3, groups=groups), nn.Flatten()), BY_NAME["mlp"].task()
    view = View(network, copy.deepcopy(network), torch.randn(2, 4, 5, 5))
    parts = network[0].weight.detach().split(6 // groups)
    wanted = sum(
        joined(part[:, c, y, x]) for part in parts for c in range(4 // groups) for y in range(3) for x in range(3)
    )
    assert value_of(GroupLassoPositions(), view, task).item() == pytest.approx(wanted, rel=1e-5)


def test_columns_need_convolutions():
    view, task = seen("mlp")
    with pytest.raises(BadNetwork, match="where selects no kernel of a convolution"):
        GroupLassoPositions().of(view, view.weights("*"), task)


@pytest.mark.parametrize(("penalty", "name"), [(GroupLasso(), "residual"), (GroupLassoPositions(), "residual")])
def test_gradient_is_the_unit_vector_and_zero_at_zero(penalty, name):
    view, task = seen(name)
    weight = view.network.first.weight
    with torch.no_grad():
        weight[2] = 0
        weight[:, 1, 0, 0] = 0
        view.network.first_norm.weight[2] = 0
        view.network.first_norm.bias[2] = 0
    (gradient,) = torch.autograd.grad(value_of(penalty, view, task, "first"), weight)
    assert bool(torch.isfinite(gradient).all())
    assert not bool(gradient[2].any()) and not bool(gradient[:, 1, 0, 0].any())
    if isinstance(penalty, GroupLassoPositions):
        column = weight.detach()[:, 0, 1, 1]
        torch.testing.assert_close(gradient[:, 0, 1, 1], column / column.norm())
    else:
        length = joined(weight[0], view.network.first_norm.weight[0], view.network.first_norm.bias[0])
        torch.testing.assert_close(gradient[0], weight.detach()[0] / length)


def test_weights_are_read_through_their_forms():
    view, task = seen("mlp")
    values = view.network[0].weight.detach().clone()
    mask = torch.ones_like(values, dtype=torch.bool)
    mask[:, :6] = False
    attach(view.network[0], "weight", Dense(values).select(mask))
    wanted = sum(joined(values[unit, 6:], view.network[0].bias[unit]) for unit in range(16))
    assert value_of(GroupLasso(), view, task).item() == pytest.approx(wanted, rel=1e-5)


def tuned(name, penalty, strength, **knobs):
    view, task = seen(name)
    objectives = ("task", {penalty: {"weight": strength, **knobs}})
    Finetune(epochs=40, lr=0.02, objectives=objectives).apply(view, task)
    return View(view.network, view.original, view.example), task


def change(view, task, method):
    """How far outputs move, as a share of their size, when the method cuts."""
    with torch.no_grad():
        before = view.network(task.validation.inputs)
        method.apply(view, task)
        return float((view.network(task.validation.inputs) - before).norm() / before.norm())


@pytest.mark.parametrize(("growing", "final"), [(False, 0.1), (True, 0.2)])
def test_training_drives_whole_units_to_zero_so_that_they_can_be_cut(growing, final):
    changes = []
    for strength in (0.0, final):
        view, task = tuned("mlp", "group_lasso", strength, growing=growing)
        changes.append(change(view, task, PruneChannels(keep=0.5)))
        assert view.network[0].out_features == 8
    assert changes[1] < 0.05 < changes[0]


def test_training_drives_whole_columns_to_zero():
    changes = []
    for strength in (0.0, 0.1):
        view, task = tuned("residual", "group_lasso_positions", strength)
        changes.append(change(view, task, PrunePositions(keep=0.5, by="magnitude_l2", where="first, second")))
    assert changes[1] < 0.5 * changes[0]
