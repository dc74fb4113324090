"""Separable pairs against mathematics: exact for sums of pairs, best of their number, and run as two layers."""

import copy

import pytest
import torch
from torch import nn

from cortado.errors import BadValue, NothingChanged
from cortado.layers.factors import factored_network
from cortado.methods.factorize.separable import ORDERS, FactorizeSeparable
from cortado.network.profile.profile import profile
from cortado.network.view import View
from cortado.parts.forms.attach import form_of
from tests.methods.factorize.test_factorize import lost, problem, random


def pairs_of(order: str, pairs: int) -> torch.Tensor:
    """A kernel (12, 12, 3, 3) that is a sum of so many pairs in this order."""
    sums, filters = random(12, 12, pairs), random(12, pairs, 9, seed=1)
    kernel = sums @ filters
    return (kernel.transpose(0, 1) if order == "depthwise" else kernel).reshape(12, 12, 3, 3).contiguous()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("fit", ["filters", "outputs"])
def test_sum_of_pairs_is_found_again(order, fit):
    view, task, original = problem()
    for network in (view.network, original):
        network.two.weight.data = pairs_of(order, 2)
    FactorizeSeparable(rank=2, where="two", order=order, fit=fit).apply(view, task)
    torch.testing.assert_close(view.network.two.weight, original.two.weight, rtol=1e-3, atol=1e-4)


def test_best_order_is_that_of_the_kernel():
    for order in ORDERS:
        view, task, original = problem()
        for network in (view.network, original):
            network.two.weight.data = pairs_of(order, 1)
        FactorizeSeparable(rank=1, where="two").apply(view, task)
        assert lost(view, original, task) < 1e-5
        groups = form_of(view.network.two, "weight").spec()
        assert groups["first_groups" if order == "depthwise" else "last_groups"] == 12


def test_filters_are_the_closest_of_their_number():
    view, task, original = problem()
    FactorizeSeparable(rank=2, where="two", order="depthwise", fit="filters", rounds=0).apply(view, task)
    for channel in range(12):
        wanted = original.two.weight[:, channel].flatten(1).detach()
        u, s, v = torch.linalg.svd(wanted, full_matrices=False)
        found = view.network.two.weight[:, channel].flatten(1)
        torch.testing.assert_close(found, (u[:, :2] * s[:2]) @ v[:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", ORDERS)
def test_cost_is_that_of_depthwise_and_pointwise_layers(order):
    view, task, _ = problem()
    FactorizeSeparable(rank=1, where="two", order=order).apply(view, task)
    # 12 x 12 places, 12 channels on both sides.
    assert profile(view.network, task.example).row("two").multiply_adds == 144 * (12 * 9 + 12 * 12)
    run = factored_network(view.network)
    layers = [one for one in run.two if isinstance(one, nn.Conv2d)]
    assert sorted(one.groups for one in layers) == [1, 12]
    inputs = task.calibration.inputs[:4]
    torch.testing.assert_close(run(inputs), view.network(inputs), rtol=1e-4, atol=1e-5)


def test_stride_is_kept_and_fit_to_outputs_loses_less():
    found = {}
    for fit in ("filters", "outputs"):
        view, task, original = problem()
        FactorizeSeparable(keep=0.5, where="two, three", fit=fit, order="depthwise").apply(view, task)
        found[fit] = lost(view, original, task)
    assert found["outputs"] < 0.7 * found["filters"]


def test_shares_out_of_reach_and_layers_without_taps_are_refused_in_words():
    view, task, _ = problem()
    with pytest.raises(BadValue, match=r"factorize/separable: the smallest ranks keep 0\.\d+ .* Raise keep"):
        FactorizeSeparable(keep=0.01, where="two").apply(view, task)
    network = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(NothingChanged, match="a kernel larger than 1 x 1"):
        FactorizeSeparable().apply(View(copy.deepcopy(network), network, torch.zeros(2, 4)), task)
