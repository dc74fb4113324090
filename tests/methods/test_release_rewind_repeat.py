"""release, rewind, repeat: weights set free, weights set back, stages one after another."""

import pytest
import torch
from torch import nn

from cortado.engine.compress import compress
from cortado.engine.recipe import read
from cortado.errors import BadNetwork, BadRecipe
from cortado.methods.finetune import Finetune
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.release import Release
from cortado.methods.rewind import Rewind
from cortado.methods.share.kmeans import ShareKmeans
from cortado.network.view import View
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.masked import Masked
from tests.laws.tiny_nets import BY_NAME


def after(net, *methods):
    tiny = BY_NAME[net]
    network, original = tiny.make(), tiny.make()
    for method in methods:
        method.apply(View(network, original, tiny.example), tiny.task())
    return network, original


@pytest.mark.parametrize("net", ["mlp", "residual", "recurrent"])
def test_release_keeps_the_values_and_lets_all_of_them_learn(net):
    attached, _ = after(net, PruneWeights(keep=0.5), ShareKmeans(bits=3))
    free, _ = after(net, PruneWeights(keep=0.5), ShareKmeans(bits=3), Release())
    for one, other in zip(View(attached, attached, None).weights(), View(free, free, None).weights(), strict=True):
        assert torch.equal(one.dense(), other.dense())
        assert isinstance(other.form, Dense)
    tuned, _ = after(net, PruneWeights(keep=0.5), Release(), Finetune(epochs=1, lr=0.01))
    (weight, *_) = View(tuned, tuned, None).weights()
    assert int((weight.dense() == 0).sum()) < weight.shape.numel() / 4


@pytest.mark.parametrize("net", ["mlp", "residual", "transformer", "recurrent"])
def test_rewind_to_the_start_gives_the_first_values_inside_the_masks(net):
    network, original = after(net, PruneWeights(keep=0.5), Finetune(epochs=1, lr=0.01), Rewind())
    before = {weight.path: weight for weight in View(original, original, None).all_weights}
    for weight in View(network, original, None).all_weights:
        wanted = before[weight.path].dense()
        if isinstance(weight.form, Masked):
            wanted = wanted * weight.form.mask
        assert torch.equal(weight.dense(), wanted), weight.path
    assert all(torch.equal(b, dict(original.named_buffers())[n]) for n, b in network.named_buffers() if "held" not in n)


def test_rewind_to_random_draws_from_the_seed_and_keeps_the_masks():
    one, original = after("mlp", PruneWeights(keep=0.5), Rewind(to="random"))
    again, _ = after("mlp", PruneWeights(keep=0.5), Rewind(to="random"))
    pruned, _ = after("mlp", PruneWeights(keep=0.5))
    assert torch.equal(one[0].weight, again[0].weight)
    assert torch.equal(one[0].weight != 0, pruned[0].weight != 0)
    kept = one[0].weight != 0
    assert not bool((one[0].weight[kept] == original[0].weight[kept]).any())
    # nn.Linear draws from +-1 / sqrt(inputs).
    assert float(one[0].weight.detach().abs().max()) <= 12**-0.5


def test_rewind_to_random_needs_layers_that_can_draw():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(2, 2))

    network = Own()
    with pytest.raises(BadNetwork, match=r"Own\) has no reset_parameters, so it cannot draw new values"):
        Rewind(to="random").apply(View(network, network, None), BY_NAME["mlp"].task())


def test_repeat_in_a_recipe_takes_one_value_a_round():
    recipe = read(
        [{"repeat": {"times": 3, "do": [{"prune/weights": {"keep": [0.6, 0.4, 0.2]}}, {"finetune": {"epochs": 0.25}}]}}]
    )
    assert [stage.keep for stage in recipe.stages[::2]] == [0.6, 0.4, 0.2]
    assert recipe.rounds[::2] == recipe.rounds[1::2] == ("round 1 of 3", "round 2 of 3", "round 3 of 3")
    small, report = compress(BY_NAME["mlp"].make(), BY_NAME["mlp"].task(), recipe)
    assert [stage.nonzero for stage in report.stages[::2]] == pytest.approx([0.6, 0.4, 0.2], abs=0.01)
    assert int((small[0].weight != 0).sum()) == round(0.2 * 192)


def test_repeat_is_written_in_a_line_and_within_another_repeat():
    prune, finetune = PruneWeights(keep=0.5), Finetune()
    line = read("repeat times=2 do=[prune/weights: {keep: 0.5}, finetune] | release")
    assert line.stages == (prune, finetune, prune, finetune, Release())
    inner = {"repeat": {"times": 2, "do": [prune]}}
    nested = read([{"repeat": {"times": 2, "do": [inner, finetune]}}])
    assert nested.stages == (prune, prune, finetune, prune, prune, finetune)
    assert nested.rounds[:3] == ("round 1 of 2, round 1 of 2", "round 1 of 2, round 2 of 2", "round 1 of 2")
    assert read(nested.as_data()) == nested


def test_repeat_as_older_reports_have_it_is_read():
    recipe = read([{"repeat": {"rounds": [["finetune"], [{"release": {}}]]}}])
    assert recipe.stages == (Finetune(), Release()) and recipe.rounds == ("round 1 of 2", "round 2 of 2")


@pytest.mark.parametrize(
    "knobs", [{"rounds": []}, {"rounds": [[]]}, {"rounds": 3}, {"times": 0, "do": ["finetune"]}, {"times": True, "do": ["finetune"]},
              {"times": 2, "do": []}, {"times": 2, "do": ["finetune"], "where": "fc"}, None, "finetune"]
)  # fmt: skip
def test_repeat_of_nothing_is_refused(knobs):
    with pytest.raises(BadRecipe, match=r"stage 1 \(repeat\): write repeat: \{times: 3, do: \[...\]\}"):
        read([{"repeat": knobs}])


def test_repeat_with_too_few_values_is_refused():
    with pytest.raises(BadRecipe, match=r"stage 1 \(repeat\): prune/weights.keep has 2 values for 3 rounds"):
        read([{"repeat": {"times": 3, "do": [{"prune/weights": {"keep": [0.6, 0.4]}}]}}])


def test_repeat_without_stages_is_refused_in_words():
    with pytest.raises(BadRecipe, match=r"repeat.*write repeat: \{times: 3, do: \[...\]\}"):
        read([{"repeat": {"times": 3}}])


def test_recipe_with_repeat_comes_back_from_its_own_data():
    recipe = read(
        [{"repeat": {"times": 2, "do": [{"prune/weights": {"keep": [0.6, 0.4]}}, "finetune"]}}, "quantize/weights"]
    )
    assert read(recipe.as_data()) == recipe
