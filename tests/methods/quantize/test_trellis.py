"""quantize/trellis: sensitive weights are rounded finely, zeros stay, and what comes out is whole numbers times a scale."""

import pytest
import torch
from torch import nn

from cortado.engine.compress import compress
from cortado.errors import BadValue, NothingChanged
from cortado.file.artifact import decode, encode
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.trellis import QuantizeTrellis
from cortado.network.view import View
from cortado.network.weight import parameter_places
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized
from cortado.parts.forms.trellis import Trellis
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]


def rounded(**knobs: object) -> tuple[View, nn.Module]:
    """A tiny network after the method, and the original one."""
    network, original = NET.make(), NET.make()
    network.load_state_dict(original.state_dict())
    view = View(network, original, NET.example)
    QuantizeTrellis(**knobs).apply(view, NET.task())  # type: ignore[arg-type]
    return view, original


def scale_of(view: View, path: str) -> float:
    (weight,) = [one for one in parameter_places(view.network) if one.path == path]
    return float(weight.form.scale.detach().mean())  # type: ignore[operator, union-attr]


@pytest.mark.parametrize("by", ["sensitivity", "weight"])
def test_every_weight_gets_codes_near_its_values(by):
    view, original = rounded(by=by, step=0.2)
    before = dict(original.named_parameters())
    for weight in view.weights():
        assert isinstance(weight.form, Trellis)
        wanted = before[weight.path].detach()
        assert float((weight.dense() - wanted).norm()) < 0.5 * float(wanted.norm())


def test_smaller_steps_are_closer_and_larger():
    errors, sizes = [], []
    for step in (1.0, 0.4, 0.16):
        view, original = rounded(step=step, by="weight")
        before = dict(original.named_parameters())
        errors.append(sum(float((one.dense() - before[one.path].detach()).square().sum()) for one in view.weights()))
        sizes.append(len(encode(view.network, original)))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert sizes[0] < sizes[1] < sizes[2]


def test_weights_that_matter_more_have_smaller_steps():
    method, (view, original) = QuantizeTrellis(), rounded()
    network = NET.make()
    network.load_state_dict(original.state_dict())
    fresh = View(network, original, NET.example)
    weights = method.chosen(fresh)
    importances = [torch.full(one.shape, 100.0 if number == 0 else 1.0) for number, one in enumerate(weights)]
    method.code(weights, importances, view.progress)
    first, *others = [scale_of(fresh, one.path) for one in weights]
    assert first == pytest.approx(others[0] / 10, rel=0.05)


def test_channels_are_powers_of_two_apart():
    network, original = NET.make(), NET.make()
    with torch.no_grad():
        network.stem.weight *= 2.0 ** torch.arange(len(network.stem.weight)).view(-1, 1, 1, 1)
    view = View(network, original, NET.example)
    QuantizeTrellis(by="weight", per="channel", where="stem").apply(view, NET.task())
    scale = view.weights("stem")[0].form.scale.detach()
    ratios = (scale / scale[0]).log2()
    torch.testing.assert_close(ratios, ratios.round(), atol=1e-4, rtol=0.0)
    assert float(ratios.max() - ratios.min()) >= 2


def test_one_state_is_an_even_grid():
    view, _ = rounded(states=1)
    assert all(isinstance(weight.form, Quantized) for weight in view.weights())


@pytest.mark.parametrize("by", ["sensitivity", "weight"])
def test_what_is_pruned_stays_zero_and_the_others_are_coded_as_one_sequence(by):
    network, original = NET.make(), NET.make()
    view = View(network, original, NET.example)
    PruneWeights(keep=0.4).apply(view, NET.task())
    masks = {weight.path: weight.form.support() for weight in view.weights()}
    QuantizeTrellis(by=by).apply(view, NET.task())
    for weight in view.weights():
        assert isinstance(weight.form, Masked) and isinstance(weight.form.kept, Trellis)
        assert torch.equal(weight.form.support(), masks[weight.path])


def test_a_stage_is_stored_verified_and_reported():
    network = NET.make()
    small, report = compress(network, NET.task(), "quantize/trellis step=0.4")
    again = decode(encode(small, network), network)
    assert all(torch.equal(a, b) for a, b in zip(small.state_dict().values(), again.state_dict().values(), strict=True))
    assert {layer.form for layer in report.layers if layer.form != "dense"} == {"trellis"}


def test_a_network_of_zeros_is_refused():
    network = NET.make()
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    with pytest.raises(NothingChanged, match=r"\(quantize/trellis\): it needs a weight that is not all zeros"):
        compress(network, NET.task(), "quantize/trellis")


@pytest.mark.parametrize(
    ("knobs", "what"),
    [
        ({"states": 5}, "states must be one of 1, 4, 8, 16, 32, got 5"),
        ({"step": 0.0}, "step must lie in 0.0001..10, got 0"),
        ({"bit_cost": -1.0}, "bit_cost must lie in 0..10"),
        ({"by": "size"}, "by must be one of sensitivity, weight"),
        ({"rounds": 0}, "rounds must lie in 1..10"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, what):
    with pytest.raises(BadValue, match=f"quantize/trellis: {what}"):
        QuantizeTrellis(**knobs)
