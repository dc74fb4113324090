"""Papers that change a network's shape, on tiny stand-ins: every recipe runs whole and leaves less of what it names."""

import pytest
import torch
from torch import nn

from cortado.network.profile.profile import profile
from cortado.parts.forms.attach import form_of
from cortado.parts.forms.low_rank import LowRank
from tests.recipes.test_recipes import result

CHANNELS = (
    "channels_reconstruction_resnet_56", "channels_magnitude_vgg_16", "channels_resnet_56", "from_scratch_resnet_56",
    "network_trimming_vgg_16", "network_slimming_vgg_16", "structured_resnet_20", "structured_sparsity_resnet_20",
)  # fmt: skip
FACTORS = (
    "response_vgg_16", "svd_lenet_300_100", "jaderberg_scheme_1_vgg_16", "jaderberg_scheme_2_vgg_16", "cp_vgg_16",
    "nonlinear_vgg_16", "tucker_vgg_16", "separable_resnet_20", "low_rank_training_resnet_20", "predicting_parameters_lenet_300_100",
)  # fmt: skip


def multiply_adds(network, task):
    return profile(network, task.example).total("multiply_adds").value


def widths(network):
    return [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize("name", CHANNELS)
def test_channels_are_gone_and_the_file_gives_the_same_network(name):
    network, original, task, report = result(name)
    assert sum(widths(network)) < sum(widths(original))
    assert multiply_adds(network, task) < 0.95 * multiply_adds(original, task)
    assert report.size_bytes < report.original_bytes


@pytest.mark.parametrize("name", FACTORS)
def test_weights_are_held_in_low_rank(name):
    network, _, task, _ = result(name)
    attached = [
        m
        for m in network.modules()
        if isinstance(m, (nn.Conv2d, nn.Linear)) and "weight" in getattr(m, "attached_names", ())
    ]
    assert attached and all(isinstance(form_of(layer, "weight"), LowRank) for layer in attached)
    with torch.no_grad():
        assert bool(torch.isfinite(network(task.example)).all())


def test_structured_and_unstructured_keep_as_many_parameters():
    kept = {}
    for name in ("structured_resnet_20", "unstructured_resnet_20"):
        network, original, task, _ = result(name)
        weights = [layer.weight for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
        whole = sum(layer.weight.numel() for layer in original.modules() if isinstance(layer, (nn.Conv2d, nn.Linear)))
        kept[name] = sum(int(torch.count_nonzero(weight)) for weight in weights) / whole
        shrunk = multiply_adds(network, task) < multiply_adds(original, task)
        assert shrunk == (name == "structured_resnet_20")
    assert kept["unstructured_resnet_20"] == pytest.approx(0.5, abs=0.01)
    assert 0.35 < kept["structured_resnet_20"] <= 0.52


def test_control_has_the_shape_of_the_cut_and_other_weights():
    cut, *_ = result("channels_resnet_56")
    control, *_ = result("from_scratch_resnet_56")
    assert widths(control) == widths(cut)
    assert not any(
        torch.equal(one.weight, other.weight)
        for one, other in zip(cut.modules(), control.modules(), strict=True)
        if isinstance(one, nn.Conv2d)
    )


def test_group_wise_brain_damage_keeps_a_tenth_of_the_columns():
    network, original, *_ = result("group_wise_brain_damage_lenet_5")
    columns = (network.conv2.weight != 0).any(0)
    assert int(columns.sum()) == round(0.1 * columns.numel())
    assert bool((network.conv1.weight != 0).all()) and network.conv2.weight.shape == original.conv2.weight.shape
