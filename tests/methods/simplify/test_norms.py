"""simplify/norms: two numbers a channel say what four said, where they belong to one norm."""

import copy

import pytest
import torch
from torch import nn

from cortado.engine.compress import compress
from cortado.errors import NothingChanged
from cortado.lowering.lower import lowered
from cortado.methods.match_moments import MatchMoments
from cortado.methods.simplify.norms import SimplifyNorms
from cortado.network.view import View
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.quantizer import put_quantizer, quantizer_at
from cortado.parts.blocks.scale_shift import ScaleShift
from cortado.parts.forms.quantized import Quantized
from cortado.runtimes.export import export
from tests.laws.tiny_nets import BY_NAME


def seen(share: bool) -> tuple[nn.Module, nn.Module, View, object]:
    tiny = BY_NAME["residual"]
    network = tiny.make().eval()
    torch.manual_seed(5)
    for norm in (network.norm, network.second_norm):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    if share:
        network.second_norm.weight = network.norm.weight
    original = copy.deepcopy(network)
    return network, original, View(network, original, tiny.example), tiny


@pytest.mark.parametrize("share", [False, True])
def test_the_network_computes_the_same(share: bool) -> None:
    network, original, view, tiny = seen(share)
    SimplifyNorms().apply(view, tiny.task())
    torch.testing.assert_close(network(tiny.example), original(tiny.example), rtol=1e-4, atol=1e-5)
    assert isinstance(network.first_norm, ScaleShift)
    assert [isinstance(one, ScaleShift) for one in (network.norm, network.second_norm)] == [not share] * 2


def test_norms_that_share_their_gain_are_left_alone() -> None:
    network, original, view, tiny = seen(True)
    with pytest.raises(NothingChanged):
        SimplifyNorms(where="norm.weight").apply(view, tiny.task())
    assert torch.equal(network.norm.running_mean, original.norm.running_mean)


def test_folded_norms_train_without_statistics_and_fold_into_layers_when_lowered(tmp_path) -> None:
    tiny = BY_NAME["residual"]
    recipe = "simplify/norms | prune/channels keep=0.5 multiple=1 | quantize/weights bits=8 | finetune epochs=1 lr=1e-3"
    small, report = compress(tiny.make(), tiny.task(), recipe)
    blocks = [module for module in small.modules() if isinstance(module, ScaleShift)]
    assert len(blocks) == 3 and all(len(block.weight) == block.num_features for block in blocks)
    assert not any("norm" in note for stage in report.stages for note in stage.notes)
    fast = lowered(small, tiny.example)
    assert not any(isinstance(module, (ScaleShift, nn.BatchNorm2d)) for module in fast.modules())
    assert export(small, tiny.task(), "onnxruntime", tmp_path).difference < 1e-5


def test_rounded_outputs_of_a_norm_stay_rounded() -> None:
    network, original, view, tiny = seen(False)
    put_quantizer(network.norm, "output", Affine.spanning(-1.0, 1.0, 4))
    SimplifyNorms().apply(view, tiny.task())
    quantizer = quantizer_at(network.norm, "output")
    assert quantizer is not None and quantizer.bits() == 4
    assert len(network.norm(torch.randn(2, network.norm.num_features, 4, 4)).unique()) <= 16


def test_moments_of_a_folded_norm_are_matched() -> None:
    network, original, view, tiny = seen(False)
    SimplifyNorms().apply(view, tiny.task())
    for weight in view.weights():
        if len(weight.shape) > 1:
            weight.map_values(lambda values: Quantized.of(values, 2))
    data = tiny.task().calibration.inputs
    with torch.no_grad():
        far = float((network(data) - original(data)).square().mean())
    MatchMoments().apply(view, tiny.task())
    with torch.no_grad():
        assert float((network(data) - original(data)).square().mean()) < far
