"""Cutting shapes a little at a time: repeat with a share for each round."""

import copy

import pytest
import torch
from torch import nn

from cortado.engine.compress import compress
from cortado.engine.recipe import read_recipe
from cortado.engine.stage import apply_stage, start
from cortado.file.artifact import load, save
from cortado.methods.finetune import Finetune
from cortado.methods.prune.channels import PruneChannels
from cortado.network.profile.profile import profile
from cortado.network.view import View
from tests.laws.tiny_nets import BY_NAME


def gradual(name, keeps, knobs, epochs=0.25):
    """The network after rounds of cutting and fine-tuning, and the original."""
    tiny = BY_NAME[name]
    original = tiny.make()
    stages = [{"prune/channels": {"keep": keeps, **knobs}}, {"finetune": {"epochs": epochs, "lr": 0.01}}]
    recipe = {"match_moments": False, "stages": [{"repeat": {"times": len(keeps), "do": stages}}]}
    small, report = compress(original, tiny.task(), recipe)
    return small, original, report


def cost(network, example, of):
    found = profile(network, example).total(of)
    return found if isinstance(found, (int, float)) else found.value


@pytest.mark.parametrize("keeps", [[0.75, 0.5], [0.8, 0.5, 0.5]])
def test_shares_of_channels_are_of_what_each_round_finds(keeps):
    small, original, report = gradual("mlp", keeps, {"multiple": 1})
    width = original[0].out_features
    for keep in keeps:
        width = round(keep * width)
    assert small[0].out_features == width == small[0].weight.shape[0] == small[2].weight.shape[1]
    assert [stage.title for stage in report.stages][-1] == f"finetune, round {len(keeps)} of {len(keeps)}"


@pytest.mark.parametrize("name", ["residual", "depthwise", "transformer", "recurrent"])
def test_rounds_are_the_same_as_stages_one_after_another(name):
    tiny = BY_NAME[name]
    small, original, _ = gradual(name, [0.75, 0.7], {"multiple": 1})
    network, task = tiny.make(), tiny.task()
    reference = tiny.make()
    for keep in (0.75, 0.7):
        PruneChannels(keep=keep, multiple=1).apply(View(network, reference, tiny.example), task)
        Finetune(epochs=0.25, lr=0.01).apply(View(network, reference, tiny.example), task)
    for one, other in zip(small.state_dict().values(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("by", ["curvature", "reconstruction", "magnitude"])
def test_share_of_multiply_adds_is_reached_in_rounds(by):
    example = BY_NAME["residual"].example
    knobs = {"of": "multiply_adds", "by": by, "across": True, "reconstruct": True}
    small, original, _ = gradual("residual", [0.8, 0.7], knobs)
    left = cost(small, example, "multiply_adds") / cost(original, example, "multiply_adds")
    assert 0.3 < left <= 0.8 * 0.7 + 1e-9


def test_file_of_a_gradual_cut_comes_back_bit_for_bit(tmp_path):
    small, original, _ = gradual("residual", [0.75, 0.7], {})
    save(small, tmp_path / "net.cortado", original=original)
    again = load(tmp_path / "net.cortado", original=BY_NAME["residual"].make)
    example = BY_NAME["residual"].example
    with torch.no_grad():
        assert torch.equal(again(example), small.eval()(example))
    assert sum(p.numel() for p in again.parameters()) < sum(p.numel() for p in original.parameters())


def test_match_inside_rounds_restores_moments_of_remaining_channels():
    tiny = BY_NAME["mlp"]
    network, original, task = tiny.make(), tiny.make(), tiny.task()
    cut = copy.deepcopy(network)
    state = start(network, original, tiny.example)
    for stage in read_recipe(
        [{"repeat": {"times": 1, "do": [{"prune/channels": {"keep": 0.5}}, "match_moments"]}}]
    ).stages:
        state = apply_stage(stage, state, task)
    PruneChannels(keep=0.5).apply(View(cut, original, tiny.example), task)
    inputs = next(task.calibration.batches(256))[0]
    with torch.no_grad():
        wanted, matched, without = (net(inputs) for net in (original, network, cut))
    torch.testing.assert_close(matched.mean(0), wanted.mean(0), rtol=1e-3, atol=1e-3)
    assert float((without.mean(0) - wanted.mean(0)).abs().max()) > 0.01


def test_other_cuts_can_be_gradual_as_well():
    torch.manual_seed(0)
    tiny = BY_NAME["residual"]
    recipe = read_recipe(
        [{"repeat": {"times": 2, "do": [{"prune/positions": {"keep": [0.6, 0.3], "where": "second"}}, "finetune"]}}]
    )
    small, _ = compress(tiny.make(), tiny.task(), recipe)
    assert int((small.second.weight != 0).any(0).sum()) == round(0.3 * 8 * 9)
    assert isinstance(small.second, nn.Conv2d)
