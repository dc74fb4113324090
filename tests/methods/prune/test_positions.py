"""prune/positions against plain loops over the columns of the patch matrix."""

import copy

import pytest
import torch
from torch import nn

from cortado.errors import BadValue, NothingChanged
from cortado.importance.curvature import Curvature
from cortado.layers.factors import factored_network
from cortado.lowering.positions import used_columns
from cortado.methods.factorize.tucker import FactorizeTucker
from cortado.methods.finetune import Finetune
from cortado.methods.prune.positions import PrunePositions
from cortado.methods.prune.weights import PruneWeights
from cortado.network.view import View
from cortado.parts.forms.attach import attach, form_of
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized
from cortado.task.task import Data, Task
from tests.laws.tiny_nets import BY_NAME


def seen(network, *shape):
    torch.manual_seed(3)
    data = Data(torch.randn(24, *shape), torch.randint(0, 2, (24,)))
    return View(network, copy.deepcopy(network), data.inputs[:2]), Task(data, data, data, calibration=data, batch=8)


def small(groups=1):
    torch.manual_seed(1)
    layers = nn.Conv2d(4, 6, 3, groups=groups), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
    return nn.Sequential(*layers).eval()


def kept_columns(layer):
    """(groups, inputs / groups, rows, columns): where some filter of the group is not zero, by plain loops."""
    weight, each = layer.weight.detach(), layer.out_channels // layer.groups
    kept = torch.zeros(layer.groups, *weight.shape[1:], dtype=torch.bool)
    for number, filter_weights in enumerate(weight):
        kept[number // each] |= filter_weights != 0
    return kept


def norms(layer, power):
    """The sum of |w| ** power over the filters that read each column."""
    weight, each = layer.weight.detach(), layer.out_channels // layer.groups
    return torch.stack([part.abs().pow(power).sum(0) for part in weight.split(each)])


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("by", "power"), [("magnitude", 1), ("magnitude_l2", 2)])
def test_columns_with_the_least_norm_go_from_all_filters_that_read_them(groups, by, power):
    network = small(groups)
    before = norms(network[0], power)
    view, task = seen(network, 4, 8, 8)
    PrunePositions(keep=0.25, by=by).apply(view, task)
    kept = kept_columns(network[0])
    assert int(kept.sum()) == round(0.25 * kept.numel())
    assert before[kept].min() > before[~kept].max()
    # Survivors are untouched, in every filter.
    whole = small(groups)[0].weight
    mask = kept.repeat_interleave(6 // groups, 0)
    assert torch.equal(network[0].weight, torch.where(mask, whole, 0.0))
    assert isinstance(form_of(network[0], "weight"), Masked)


def test_curvature_of_a_column_is_the_sum_over_its_weights():
    network = small()
    view, task = seen(network, 4, 8, 8)
    (single,) = Curvature().of(view.weights("0"), view, task)
    PrunePositions(keep=0.5, by="curvature").apply(view, task)
    kept, worth = kept_columns(network[0])[0], single.sum(0)
    assert worth[kept].min() > worth[~kept].max()


def test_curvature_drops_the_column_that_costs_least():
    """One 1 x 1 convolution, squared error, inputs with orthogonal channels: what each column costs is known."""
    torch.manual_seed(0)
    inputs = torch.linalg.qr(torch.randn(60, 3))[0].reshape(60, 3, 1, 1) * torch.tensor([1.0, 5.0, 2.0])[:, None, None]
    layer = nn.Conv2d(3, 2, 1, bias=False).requires_grad_(False)
    layer.weight.copy_(torch.tensor([1.0, 0.8, 1.0])[None, :, None, None].expand(2, -1, -1, -1))
    data = Data(inputs, layer(inputs))
    task = Task(data, data, data, calibration=data, loss=lambda outputs, targets: ((outputs - targets) ** 2).sum())
    dropped = {}
    for by in ("curvature", "magnitude"):
        network = nn.Sequential(copy.deepcopy(layer))
        PrunePositions(keep=2 / 3, by=by).apply(View(network, copy.deepcopy(network), inputs[:2]), task)
        dropped[by] = kept_columns(network[0]).flatten().tolist().index(False)
    rises = []
    for column in range(3):
        without = copy.deepcopy(layer)
        without.weight[:, column] = 0
        rises.append(float(task.loss(without(inputs), data.targets)))
    assert rises[dropped["curvature"]] == min(rises) < rises[dropped["magnitude"]]


def test_across_layers_the_weaker_one_gives_more():
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten())
    torch.manual_seed(0)
    with torch.no_grad():
        network[0].weight.uniform_(1, 2)
        network[2].weight.uniform_(0, 1)
    view, task = seen(network, 2, 6, 6)
    columns = torch.cat([norms(network[place], 1).flatten() for place in (0, 2)])
    PrunePositions(keep=0.4, across=True).apply(view, task)
    kept = torch.cat([kept_columns(network[place]).flatten() for place in (0, 2)])
    assert int(kept.sum()) == round(0.4 * len(columns))
    assert columns[kept].min() > columns[~kept].max()
    assert kept_columns(network[0]).all()


def test_layer_that_would_lose_all_columns_is_refused():
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten())
    with torch.no_grad():
        network[2].weight.mul_(1e-6)
    view, task = seen(network, 2, 6, 6)
    with pytest.raises(BadValue, match=r"prune/positions: nothing of 2\.weight would be left"):
        PrunePositions(keep=0.2, across=True).apply(view, task)


def test_dropped_columns_stay_dropped_and_count():
    network = small()
    view, task = seen(network, 4, 8, 8)
    PrunePositions(keep=0.5).apply(view, task)
    first = kept_columns(network[0])
    PrunePositions(keep=0.25).apply(View(network, view.original, view.example), task)
    second = kept_columns(network[0])
    assert int(second.sum()) == 9 and not bool((second & ~first).any())


def test_single_zeros_of_an_earlier_stage_stay_zero():
    network = small()
    view, task = seen(network, 4, 8, 8)
    PruneWeights(keep=0.5).apply(view, task)
    zeros = network[0].weight == 0
    PrunePositions(keep=0.5).apply(View(network, view.original, view.example), task)
    assert not bool(network[0].weight[zeros].any())
    assert int(kept_columns(network[0]).sum()) == 18


def test_rounded_weights_stay_rounded():
    network = small()
    attach(network[0], "weight", Quantized.of(network[0].weight.detach(), 4))
    levels = set(network[0].weight.flatten().tolist())
    view, task = seen(network, 4, 8, 8)
    PrunePositions(keep=0.5).apply(view, task)
    assert isinstance(form_of(network[0], "weight"), Quantized)
    assert set(network[0].weight.flatten().tolist()) <= levels
    assert int(kept_columns(network[0]).sum()) == 18


def test_tuning_keeps_the_columns():
    tiny = BY_NAME["residual"]
    network = tiny.make()
    PrunePositions(keep=0.4, where="first, second").apply(View(network, tiny.make(), tiny.example), tiny.task())
    before = kept_columns(network.first)
    values = network.first.weight.detach().clone()
    Finetune(epochs=1, lr=0.01).apply(View(network, tiny.make(), tiny.example), tiny.task())
    assert torch.equal(kept_columns(network.first), before)
    assert not torch.equal(network.first.weight, values)
    assert kept_columns(network.stem).all()


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv3d])
def test_other_numbers_of_axes(kind):
    axes = 1 if kind is nn.Conv1d else 3
    network = nn.Sequential(kind(3, 4, 3, padding=1), nn.Flatten())
    view, task = seen(network, 3, *(4,) * axes)
    PrunePositions(keep=1 / 3).apply(view, task)
    assert int(kept_columns(network[0]).sum()) == 3**axes


def test_network_without_convolutions_is_refused_in_words():
    network = nn.Sequential(nn.Linear(3, 2))
    view, task = seen(network, 3)
    with pytest.raises(
        NothingChanged, match="it needs a convolution .*, and Sequential has none .* or use prune/channels"
    ):
        PrunePositions().apply(view, task)


@pytest.mark.parametrize(
    ("knobs", "says"), [({"keep": 1.5}, "keep must lie in 0..1"), ({"across": 2}, "must be true or false")]
)
def test_wrong_knobs_are_refused(knobs, says):
    with pytest.raises(BadValue, match=says):
        PrunePositions(**knobs)


def test_factors_of_a_convolution_lose_columns_of_their_own():
    tiny = BY_NAME["residual"]
    network = tiny.make()
    FactorizeTucker(rank=3, where="first.weight").apply(View(network, tiny.make(), tiny.example), tiny.task())
    view = View(network, tiny.make(), tiny.example)
    PrunePositions(keep=0.5, where="first.weight").apply(view, tiny.task())
    for layer in factored_network(network).first:
        used = used_columns(layer)
        assert int(used.sum()) == round(0.5 * used.numel())
